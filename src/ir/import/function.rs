//! Model-local functions: found by name here, inlined by `body.rs`.

use super::proto::{self, decode};
use crate::error::{Result, ensure, fail};
use bytes::Bytes;
use std::collections::HashMap;
use std::rc::Rc;

/// The functions of a model.
#[derive(Debug, Default)]
pub struct Functions {
    by_name: HashMap<Key, Rc<proto::Function>>,
}

/// Domain, name and overload.
type Key = (String, String, String);

impl Functions {
    /// Decodes the functions of a model of default operator set `opset`.
    pub fn new(functions: &[Bytes]) -> Result<Self> {
        let mut by_name = HashMap::new();
        for bytes in functions {
            let mut function: proto::Function = decode(bytes, "a function")?;
            normalise_domain(&mut function.domain);
            let key = (function.domain.clone(), function.name.clone(), function.overload.clone());
            let name = format!("{}::{}", function.domain, function.name);
            ensure!(by_name.insert(key, Rc::new(function)).is_none(), Malformed, "function {name} is defined twice");
        }
        Ok(Functions { by_name })
    }

    /// The function that a node calls, if it calls one.
    pub fn get(&self, node: &proto::Node) -> Option<Rc<proto::Function>> {
        if self.by_name.is_empty() {
            return None;
        }
        let key = (node.domain.clone(), node.op_type.clone(), node.overload.clone());
        self.by_name.get(&key).cloned()
    }
}

/// A function's body is read by the rules of the operator set that it imports; here that must be the model's own.
pub fn check_opset(function: &proto::Function, opset: i64) -> Result<()> {
    let default = function.opset_import.iter().find(|import| is_default(&import.domain));
    ensure!(
        default.is_none_or(|import| import.version == opset),
        Unsupported,
        "function {}::{} is written for opset {} in a model of opset {opset}",
        function.domain,
        function.name,
        default.map_or(0, |import| import.version)
    );
    Ok(())
}

/// Whether a domain is ONNX's own.
pub fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Gives ONNX's own domain its one spelling.
pub fn normalise_domain(domain: &mut String) {
    if is_default(domain) {
        domain.clear();
    }
}
