//! What `include/streaminfer.h` declares, read from its text.

#![allow(dead_code, reason = "each test uses its part")]

use std::fs;

/// A parameter of a function or a field of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The type without the name, such as `const si_bucket *`.
    pub ty: String,
    /// The name.
    pub name: String,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub returns: String,
    pub parameters: Vec<Variable>,
}

/// A struct.
#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<Variable>,
}

/// The header without comments and preprocessor lines.
fn code() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/include/streaminfer.h")).expect("the header");
    let mut code = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").expect("a comment ends").1;
    }
    code.push_str(rest);
    let lines = code.lines().filter(|line| !line.starts_with('#') && !line.contains("extern \"C\""));
    lines.collect::<Vec<_>>().join("\n")
}

fn variable(text: &str) -> Variable {
    let text = text.split('[').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let at = text.rfind([' ', '*']).expect("a type and a name") + 1;
    Variable { ty: text[..at].trim().to_owned(), name: text[at..].to_owned() }
}

/// All functions, in order.
pub fn functions() -> Vec<Function> {
    let code = code();
    let statements = code.split(';').filter(|statement| statement.contains('(') && !statement.contains("typedef"));
    let parse = |statement: &str| {
        let (head, tail) = statement.split_once('(')?;
        let Variable { ty, name } = variable(head.rsplit("\n\n").next()?);
        let parameters = tail.trim_end_matches(')').split(',').filter(|text| text.trim() != "void");
        Some(Function { name, returns: ty, parameters: parameters.map(variable).collect() })
    };
    let functions: Vec<Function> = statements.filter_map(parse).collect();
    assert!(functions.len() > 30, "only {} functions were found", functions.len());
    functions
}

/// All structs, in order.
pub fn structs() -> Vec<Struct> {
    let code = code();
    let bodies = code.split("typedef struct ").skip(1);
    let parse = |text: &str| {
        let (name, rest) = text.split_once('{').expect("a body");
        let (body, _) = rest.split_once('}').expect("the end of a body");
        let fields = body.split(';').filter(|field| !field.trim().is_empty()).map(variable);
        Struct { name: name.trim().to_owned(), fields: fields.collect() }
    };
    let structs: Vec<Struct> = bodies.map(parse).collect();
    assert!(structs.len() > 15, "only {} structs were found", structs.len());
    structs
}
