//! The shared library is what the header says: names, layouts, version, link properties.

mod declarations;
mod native;

use declarations::{functions, structs};
use native::{ROOT, compiler, folder, library, program, run};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use streaminfer::ffi::batcher::{si_batch_stats, si_batch_timings, si_batcher, si_batcher_options, si_slot};
use streaminfer::ffi::context::{si_context, si_context_options, si_submit_options, si_timings};
use streaminfer::ffi::device::si_device_info;
use streaminfer::ffi::engine::{si_completion, si_engine, si_engine_options, si_stats};
use streaminfer::ffi::error::si_error;
use streaminfer::ffi::event::si_event;
use streaminfer::ffi::memory::{si_copy_options, si_memory, si_memory_info, si_memory_options};
use streaminfer::ffi::model::{si_bucket, si_bucket_input, si_model, si_model_info, si_model_options, si_padding};
use streaminfer::ffi::record::si_completion_record;
use streaminfer::ffi::tensor::{si_tensor_info, si_tensor_view};
use streaminfer::ffi::version::{SI_ABI_VERSION, si_abi_version, si_struct_bytes};

/// The names in the library's dynamic symbol table that it defines.
fn exports() -> Vec<String> {
    let listing = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let mut names: Vec<String> =
        listing.lines().filter_map(|line| line.split(' ').next_back()).map(String::from).collect();
    names.sort();
    names
}

#[test]
fn the_library_exports_exactly_the_header_and_the_ledger() {
    let mut declared: Vec<String> = functions().into_iter().map(|function| function.name).collect();
    declared.sort();
    assert_eq!(exports(), declared, "library (left) and header (right)");
    let ledger = Path::new(ROOT).join("tests/abi/symbols.txt");
    let listing = declared.join("\n") + "\n";
    if std::env::var_os("UPDATE_SYMBOLS").is_some() {
        fs::write(&ledger, &listing).unwrap();
    }
    let committed = fs::read_to_string(&ledger).unwrap_or_default();
    assert!(committed == listing, "tests/abi/symbols.txt: UPDATE_SYMBOLS=1 cargo test --test abi, and mind the ABI");
}

#[test]
fn the_library_has_a_soname_and_stays_loaded() {
    let dynamic = run(Command::new("readelf").args(["-d", "-W"]).arg(library()));
    let soname = format!("[libstreaminfer.so.{SI_ABI_VERSION}]");
    assert!(dynamic.lines().any(|line| line.contains("SONAME") && line.contains(&soname)), "{dynamic}");
    assert!(dynamic.lines().any(|line| line.contains("FLAGS_1") && line.contains("NODELETE")), "{dynamic}");
    assert_eq!(si_abi_version(), SI_ABI_VERSION);
}

/// A host that includes system headers around ours; some of them have macros that begin with `si_`.
fn strict_host(before: &str, after: &str) -> String {
    format!(
        "{before}\n#include <streaminfer.h>\n{after}\nint main(void) {{\n    si_result result = si_device_describe(0, NULL, NULL);\n\
         return (int)si_abi_version() - SI_ABI_VERSION + (result != SI_INVALID_ARGUMENT);\n}}\n"
    )
}

#[test]
fn the_header_is_strict_c99_and_cpp11() {
    let folder = folder("strict");
    let system: String = ["signal", "sys/wait", "sys/socket", "netinet/in", "aio", "ucontext", "pthread", "dlfcn"]
        .map(|name| format!("#include <{name}.h>\n"))
        .concat();
    let extended = format!("#define _GNU_SOURCE 1\n{system}");
    let hosts = [
        ("cc", "-std=c99", "alone.c", strict_host("", "")),
        ("cc", "-std=c99", "status.c", strict_host("", "").replace("si_result", "si_status")),
        ("cc", "-std=c99", "after.c", strict_host(&extended, "")),
        ("cc", "-std=gnu11", "before.c", strict_host("", &system)),
        ("c++", "-std=c++11", "alone.cpp", strict_host("", "")),
        ("c++", "-std=c++11", "after.cpp", strict_host(&system, "")),
    ];
    for (tool, standard, name, source) in hosts {
        let file = folder.join(name);
        fs::write(&file, source).unwrap();
        let host = folder.join(name.replace('.', "-"));
        native::link(compiler(tool, standard).arg(&file), &folder, &host);
        run(&mut Command::new(host));
    }
}

/// Rust's sizes and offsets: struct -> (size, field -> offset).
type Layouts = BTreeMap<String, (usize, BTreeMap<String, usize>)>;

macro_rules! layouts {
    ($($name:ident { $($field:ident),* $(,)? })*) => {{
        let mut layouts = Layouts::new();
        $(
            let mut fields = BTreeMap::new();
            $(fields.insert(stringify!($field).to_owned(), std::mem::offset_of!($name, $field));)*
            layouts.insert(stringify!($name).to_owned(), (size_of::<$name>(), fields));
        )*
        layouts
    }};
}

fn rust_layouts() -> Layouts {
    layouts! {
        si_engine { handle }
        si_model { handle }
        si_context { handle }
        si_event { handle }
        si_batcher { handle }
        si_memory { handle }
        si_slot { batcher, number }
        si_error { status, native, message }
        si_device_info { struct_size, kind, processors, reserved, memory_bytes, id, name }
        si_tensor_info { struct_size, dtype, rank, flags, dims, dim_names, name }
        si_tensor_view { struct_size, dtype, rank, reserved, dims, strides_bytes, data, capacity_bytes }
        si_engine_options {
            struct_size, threads, device, in_flight_max, contexts_max, memory_bytes_max, flags, reserved,
        }
        si_stats {
            struct_size, device_state, models, contexts, events, threads, in_flight, completions, weights_bytes,
            retained_bytes, arena_bytes, pinned_bytes, requests, failures, batchers, memories, memory_bytes, registered_bytes,
        }
        si_completion { context, token, sequence, status }
        si_bucket_input { struct_size, rank, dims, value, value_bytes }
        si_bucket { struct_size, input_count, inputs }
        si_padding { struct_size, kind, dimension, input_index, axis, reserved, value }
        si_model_options {
            struct_size, precision, buckets, bucket_count, padding_count, paddings, overridables, overridable_count,
            multiprocessors,
        }
        si_model_info {
            struct_size, precision, input_count, output_count, bucket_count, opset, weights_bytes, retained_bytes,
            fingerprint, multiprocessors, reserved,
        }
        si_context_options { struct_size, threads, wait_policy, bucket_count, buckets, priority, reserved }
        si_submit_options { struct_size, reserved, token, deadline_ns }
        si_completion_record {
            done, reserved, start_ns, inputs_ns, compute_ns, done_ns, reserved_device, failed_sequence, status,
            reserved_host,
        }
        si_timings { struct_size, sequence, submit_ns, start_ns, inputs_ns, compute_ns, done_ns }
        si_batcher_options { struct_size, contexts, threads, bucket_count, buckets, delay_ns, priority, reserved }
        si_batch_stats {
            struct_size, class_count, slots, forming, running, reserved, reservations, refusals, completed, abandoned,
            expired, cancelled, failed, batches, rows, padding_rows,
        }
        si_batch_timings {
            struct_size, rows, bucket_rows, reserved, batch, service_ns, open_ns, close_ns, submit_ns, start_ns, inputs_ns,
            compute_ns, done_ns,
        }
        si_memory_options { struct_size, kind, address, bytes, row_count, row_bytes, element_bytes, reserved }
        si_memory_info {
            struct_size, kind, address, bytes, row_count, row_bytes, pitch_bytes, attached_count, reserved,
        }
        si_copy_options { struct_size, reserved, row_index, row_count, byte_index, row_bytes, pitch_bytes }
    }
}

#[test]
fn the_c_compiler_lays_structs_out_as_rust_does() {
    let mut source = String::from("#include <stdio.h>\n#include <streaminfer.h>\nint main(void) {\n");
    for item in structs() {
        writeln!(source, "printf(\"{0} - %zu\\n\", sizeof({0}));", item.name).unwrap();
        for field in &item.fields {
            writeln!(source, "printf(\"{0} {1} %zu\\n\", offsetof({0}, {1}));", item.name, field.name).unwrap();
        }
    }
    source.push_str("return 0; }\n");
    let folder = folder("layout");
    let listing = run(&mut Command::new(program(&folder, "layout", &source)));
    let mut layouts = Layouts::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (size, fields) = layouts.entry(words[0].to_owned()).or_default();
        let number = words[2].parse().unwrap();
        if words[1] == "-" { *size = number } else { _ = fields.insert(words[1].to_owned(), number) }
    }
    assert_eq!(layouts, rust_layouts());
}

#[test]
fn every_struct_has_a_number_by_which_its_size_is_known() {
    let header = fs::read_to_string(Path::new(ROOT).join("include/streaminfer.h")).unwrap();
    for (name, (bytes, _)) in rust_layouts() {
        if ["si_engine", "si_model", "si_context", "si_event", "si_batcher", "si_slot", "si_memory"]
            .contains(&name.as_str())
        {
            continue;
        }
        let constant = format!("#define SI_STRUCT_{} ", name["si_".len()..].to_uppercase());
        let line = header.lines().find_map(|line| line.strip_prefix(&constant));
        let number = line.unwrap_or_else(|| panic!("{constant}is missing")).parse().unwrap();
        assert_eq!(si_struct_bytes(number) as usize, bytes, "{name}");
    }
    assert_eq!(si_struct_bytes(0), 0);
}
