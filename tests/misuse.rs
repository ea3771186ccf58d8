//! No misuse of the C ABI does harm, and each is answered with its own status.
//!
//! The test reads the header and writes a C program that calls every function with every kind of bad handle, null for every
//! pointer, and wrong struct sizes and fields, and every function of a context when that is bound elsewhere, busy, not prepared
//! or in flight. A function added to the header is tested without a change here.

mod declarations;
mod models;
mod native;

use declarations::{Function, Struct, Variable, functions, structs};
use native::{folder, program, run};
use std::fmt::Write;
use std::fs;
use std::process::Command;

const HANDLES: [&str; 6] = ["si_engine", "si_model", "si_context", "si_event", "si_batcher", "si_memory"];

/// What stands around the generated calls.
const FRAME: &str = include_str!("abi/misuse.c");

fn is_handle(variable: &Variable) -> bool {
    HANDLES.contains(&variable.ty.as_str())
}

/// A slot is named by its batcher's handle and a number.
fn is_slot(variable: &Variable) -> bool {
    variable.ty == "si_slot"
}

fn is_pointer(variable: &Variable) -> bool {
    variable.ty.ends_with('*')
}

/// The struct that a parameter points to, if it carries its size.
fn sized_struct(variable: &Variable) -> Option<&str> {
    let name = variable.ty.trim_start_matches("const ").strip_suffix(" *")?;
    let frozen = ["si_error", "si_completion", "si_completion_record"];
    let has_size = name.starts_with("si_") && name != "si_slot" && !HANDLES.contains(&name) && !frozen.contains(&name);
    has_size.then_some(name)
}

fn is_options(variable: &Variable) -> bool {
    // What memory is to be had has no default.
    sized_struct(variable).is_some_and(|name| name.ends_with("_options") && name != "si_memory_options")
}

/// Whether null is an honest value.
fn is_nullable(variable: &Variable) -> bool {
    is_options(variable) || variable.name == "error"
}

/// Whether the function consumes its handle.
fn frees(function: &Function) -> bool {
    function.name.ends_with("_free") || function.name.ends_with("_close")
}

/// An honest value for a parameter, and the statements that declare what it needs.
fn honest(variable: &Variable) -> (String, String) {
    let name = &variable.name;
    if is_handle(variable) {
        // Only a context that is not prepared can be the target of a link.
        let object = if name == "target" { "fresh" } else { &variable.ty["si_".len()..] };
        return (String::new(), format!("fixture.{object}"));
    }
    if is_slot(variable) {
        return (String::new(), "fixture.slot".into());
    }
    if name == "error" {
        return (String::new(), "&error".into());
    }
    if let Some(ty) = sized_struct(variable) {
        let from = match ty {
            "si_bucket" => format!("fixture.{name}"),
            "si_memory_options" => "fixture.wanted".into(),
            _ => format!("empty_{ty}()"),
        };
        return (format!("{ty} {name} = {from};"), format!("&{name}"));
    }
    match (variable.ty.as_str(), name.as_str()) {
        ("const char *", _) => (String::new(), "fixture.path".into()),
        ("uint8_t *", "out_data") => (String::new(), "fixture.room".into()),
        ("const uint8_t *", "data") => (String::new(), "fixture.data".into()),
        ("size_t", "data_bytes") => (String::new(), "fixture.data_bytes".into()),
        ("uint32_t", "sequence" | "completions_max") => (String::new(), "1".into()),
        ("uint32_t" | "uint64_t", _) => (String::new(), "0".into()),
        ("si_completion *", _) => (format!("si_completion {name}[1];"), name.clone()),
        ("const si_completion_record **", _) => (format!("const si_completion_record *{name};"), format!("&{name}")),
        (ty, _) if ty.ends_with(" *") && name.starts_with("out_") => {
            (format!("{} {name};", ty.trim_end_matches(" *")), format!("&{name}"))
        }
        (ty, _) => panic!("parameter `{ty} {name}`: teach this test an honest value"),
    }
}

/// What is wrong with a parameter.
enum Fault {
    /// Something else in its place.
    Instead(String),
    /// A field of the struct that it points to.
    Field(String, &'static str),
    /// It points one byte too far.
    Misaligned,
}

/// One call with a fault in parameter `at`, the status that must come of it, and a look at the outputs, which must stay as they are.
fn misuse(function: &Function, at: usize, fault: &Fault, expected: &str, what: &str) -> String {
    let (mut before, mut after, mut arguments) = (String::new(), String::new(), Vec::new());
    let name = &function.name;
    let what = format!("{}: {what}", function.parameters[at].name);
    for (index, parameter) in function.parameters.iter().enumerate() {
        let (declaration, value) = honest(parameter);
        let variable = value.trim_start_matches('&');
        let fault = if index == at { Some(fault) } else { None };
        if let Some(Fault::Instead(other)) = fault {
            arguments.push(other.clone());
            continue;
        }
        if !declaration.is_empty() {
            writeln!(before, "        {declaration}").unwrap();
        }
        if parameter.name.starts_with("out_") && fault.is_none() {
            let from = if sized_struct(parameter).is_some() { "sizeof(uint32_t)" } else { "0" };
            writeln!(before, "        mark(&{variable}, sizeof {variable}, {from});").unwrap();
            writeln!(after, "        untouched(\"{name}\", \"{what}\", &{variable}, sizeof {variable}, {from});")
                .unwrap();
        }
        match fault {
            Some(Fault::Field(field, wrong)) => {
                writeln!(before, "        {variable}.{field} = {wrong};").unwrap();
                arguments.push(value);
            }
            Some(Fault::Misaligned) => arguments.push(format!("(void *)((char *){value} + 1)")),
            _ => arguments.push(value),
        }
    }
    let call = format!("{name}({})", arguments.join(", "));
    format!("    {{\n{before}        expect(\"{name}\", \"{what}\", {call}, {expected}, &error);\n{after}    }}\n")
}

/// Every bad value of every parameter of one function.
fn bad_values(function: &Function, structs: &[Struct]) -> String {
    let mut text = String::new();
    for (at, parameter) in function.parameters.iter().enumerate() {
        let mut add = |fault: Fault, expected: &str, what: &str| {
            text += &misuse(function, at, &fault, expected, what);
        };
        if is_handle(parameter) {
            let noun = &parameter.ty["si_".len()..];
            let mut instead = |value: String, expected: &str, what: &str| add(Fault::Instead(value), expected, what);
            instead(format!("zero.{noun}"), if frees(function) { "SI_OK" } else { "SI_INVALID_HANDLE" }, "zero");
            instead(format!("stale.{noun}"), "SI_STALE_HANDLE", "freed");
            instead(format!("stale.{noun}"), "SI_STALE_HANDLE", "freed, once more");
            instead(format!("forged.{noun}"), "SI_INVALID_HANDLE", "forged");
            instead(format!("future.{noun}"), "SI_INVALID_HANDLE", "of a generation to come");
            for other in HANDLES.iter().map(|name| &name["si_".len()..]).filter(|other| *other != noun) {
                let what = format!("a handle of {other}");
                instead(format!("as_{noun}(fixture.{other}.handle)"), "SI_WRONG_TYPE", &what);
                let what = format!("a freed handle of {other}");
                instead(format!("as_{noun}(stale.{other}.handle)"), "SI_WRONG_TYPE", &what);
            }
        }
        if is_slot(parameter) {
            let mut instead =
                |value: &str, expected: &str, what: &str| add(Fault::Instead(value.into()), expected, what);
            instead("zero.slot", "SI_INVALID_HANDLE", "zero");
            instead("stale.slot", "SI_STALE_HANDLE", "of a freed batcher");
            instead("forged.slot", "SI_INVALID_HANDLE", "of a forged batcher");
            instead("future.slot", "SI_INVALID_HANDLE", "of a batcher to come");
            instead("as_slot(fixture.batcher.handle, 0)", "SI_INVALID_HANDLE", "zero in a batcher");
            instead("fixture.given_back", "SI_STALE_HANDLE", "given back");
            instead("as_slot(fixture.batcher.handle, UINT64_MAX)", "SI_INVALID_HANDLE", "forged");
            instead("as_slot(fixture.batcher.handle, fixture.slot.number + 0x10000)", "SI_INVALID_HANDLE", "to come");
            instead("as_slot(fixture.engine.handle, fixture.slot.number)", "SI_WRONG_TYPE", "of an engine");
        }
        if is_pointer(parameter) && !is_nullable(parameter) {
            add(Fault::Instead("NULL".into()), "SI_INVALID_ARGUMENT", "null");
        }
        let Some(name) = sized_struct(parameter) else { continue };
        add(Fault::Misaligned, "SI_INVALID_ARGUMENT", "misaligned");
        for size in ["0", "4", "UINT32_MAX"] {
            add(Fault::Field("struct_size".into(), size), "SI_INVALID_ARGUMENT", &format!("struct_size {size}"));
        }
        // No count, enumeration or reserved field may be so large. How many multiprocessors there are is the device's to say.
        let fields = &structs.iter().find(|it| it.name == name).expect("a declared struct").fields;
        let is_bounded = |field: &&Variable| {
            field.ty == "uint32_t" && !["in_flight_max", "multiprocessors"].contains(&field.name.as_str())
        };
        for field in fields.iter().filter(is_bounded).filter(|_| parameter.ty.starts_with("const ")) {
            let what = format!("{} beyond bounds", field.name);
            add(Fault::Field(field.name.clone(), "UINT32_MAX"), "SI_INVALID_ARGUMENT", &what);
        }
    }
    text
}

/// A state of a context in which calls are tried.
#[derive(Clone, Copy)]
enum State {
    /// Bound to another thread.
    Elsewhere,
    /// Another thread is inside a call.
    Busy,
    /// Not prepared.
    Fresh,
    /// Request 1 is in flight.
    Flying,
}

impl State {
    /// The status of a call on such a context; `None` where the call is in order.
    fn refusal(self, function: &str) -> Option<&'static str> {
        let any_thread = matches!(function, "si_context_cancel" | "si_context_free");
        match (self, function) {
            (State::Elsewhere | State::Busy, _) if any_thread => None,
            (State::Elsewhere, _) => Some("SI_WRONG_THREAD"),
            (State::Busy, _) => Some("SI_BUSY"),
            (State::Fresh, "si_context_prepare" | "si_context_bind" | "si_context_free") => None,
            (State::Fresh, "si_context_cancel") => Some("SI_INVALID_ARGUMENT"),
            (State::Fresh, _) => Some("SI_WRONG_STATE"),
            (State::Flying, "si_context_submit" | "si_context_run" | "si_context_shape") => Some("SI_IN_FLIGHT"),
            (State::Flying, "si_context_link" | "si_context_prepare" | "si_context_unbind") => Some("SI_WRONG_STATE"),
            (State::Flying, "si_context_attach_input" | "si_context_attach_output") => Some("SI_WRONG_STATE"),
            (State::Flying, "si_context_timings" | "si_context_unpark") => Some("SI_WRONG_STATE"),
            (State::Flying, "si_context_poll" | "si_context_wait") => Some("SI_PENDING"),
            (State::Flying, "si_context_input" | "si_context_output" | "si_context_completion") => None,
            (State::Flying, "si_context_bind" | "si_context_park" | "si_context_cancel" | "si_context_free") => None,
            (State::Flying, "si_event_record" | "si_event_wait") => None,
            (State::Flying, _) => panic!("{function}: teach this test what it answers while a request is in flight"),
        }
    }
}

/// Calls of every function that takes a context, on `object`, which is in that state.
fn calls_in(state: State, object: &str, what: &str, functions: &[Function]) -> String {
    let mut text = String::new();
    for function in functions.iter().filter(|function| function.parameters.iter().any(|it| it.ty == "si_context")) {
        let Some(expected) = state.refusal(&function.name) else { continue };
        for (at, parameter) in function.parameters.iter().enumerate() {
            // A source may be in flight, and one that is not prepared is a fault of its own.
            let is_tried = parameter.ty == "si_context"
                && (parameter.name != "source" || matches!(state, State::Elsewhere | State::Busy));
            let is_linkable = parameter.name == "target" && matches!(state, State::Fresh);
            if is_tried && !is_linkable {
                text += &misuse(function, at, &Fault::Instead(format!("fixture.{object}")), expected, what);
            }
        }
    }
    text
}

fn generate() -> String {
    let structs = structs();
    let has_error = |function: &Function| function.parameters.iter().any(|parameter| parameter.name == "error");
    let functions: Vec<Function> = functions().into_iter().filter(has_error).collect();
    let (mut definitions, mut calls) = (String::new(), String::new());
    let mut define = |name: &str, body: &str| {
        write!(definitions, "static void {name}(void)\n{{\n    si_error error;\n    clear(&error);\n{body}}}\n\n")
            .unwrap();
    };
    for function in &functions {
        let name = format!("bad_values_of_{}", function.name);
        define(&name, &bad_values(function, &structs));
        writeln!(calls, "    {name}();").unwrap();
    }
    define("calls_from_elsewhere", &calls_in(State::Elsewhere, "bound", "bound to another thread", &functions));
    define("calls_when_busy", &calls_in(State::Busy, "busy", "another thread is inside", &functions));
    define("calls_when_fresh", &calls_in(State::Fresh, "fresh", "not prepared", &functions));
    define("calls_in_flight", &calls_in(State::Flying, "flying", "in flight", &functions));
    let makers: String = structs
        .iter()
        .filter(|it| it.fields[0].name == "struct_size")
        .map(|Struct { name, .. }| {
            let body =
                format!("{name} it; memset(&it, 0, sizeof it); it.struct_size = (uint32_t)sizeof it; return it;");
            // Structs inside of others are not parameters, so not all of these are called.
            format!("__attribute__((unused)) static {name} empty_{name}(void) {{ {body} }}\n")
        })
        .collect();
    FRAME.replace("/* FUNCTIONS */\n", &(makers + "\n" + &definitions)).replace("    /* CALLS */\n", &calls)
}

#[test]
fn every_misuse_of_every_export_has_its_own_status() {
    let folder = folder("misuse");
    let [quick, slow, batched] = ["quick.onnx", "slow.onnx", "batched.onnx"].map(|name| folder.join(name));
    fs::write(&quick, models::affine()).unwrap();
    fs::write(&slow, models::heavy(5_000)).unwrap();
    fs::write(&batched, models::dense()).unwrap();
    let program = program(&folder, "misuse", &generate());
    let report = run(Command::new(program).args([&quick, &slow, &batched]));
    let count: u32 = report.trim().rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a count");
    assert!(count > 750, "only {count} misuses: {report}");
}
