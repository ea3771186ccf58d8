//! `AttributeProto` to [`Attribute`].

use super::budget::Budget;
use super::constant::constant;
use super::file::Directory;
use super::proto::{self, decode};
use crate::error::{Result, ensure, fail};
use crate::ir::{Attribute, Tensor};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The call of a model-local function, which attributes of its body may refer to.
#[derive(Debug)]
pub struct Call {
    /// Values given by the caller, and defaults.
    pub attributes: BTreeMap<String, Attribute>,
}

/// The value of an attribute before its subgraph, if it is one, is walked.
#[derive(Debug)]
pub enum Value {
    /// Complete.
    Done(Attribute),
    /// A subgraph.
    Graph(Bytes),
    /// A reference to an attribute that the caller left out, and that has no default.
    Absent,
}

/// `AttributeProto.AttributeType`
mod kind {
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const TENSOR: i32 = 4;
    pub const GRAPH: i32 = 5;
    pub const FLOATS: i32 = 6;
    pub const INTS: i32 = 7;
    pub const STRINGS: i32 = 8;
}

/// Decodes an attribute of a node, which stands in the body of `call` if there is one.
pub fn attribute(
    attribute: proto::Attribute,
    call: Option<&Call>,
    directory: &mut Option<Directory>,
    budget: &mut Budget,
) -> Result<Value> {
    let name = &attribute.name;
    if !attribute.ref_attr_name.is_empty() {
        let target = &attribute.ref_attr_name;
        let Some(call) = call else {
            return Err(fail!(Malformed, "it refers to '{target}', but stands in no function"));
        };
        let Some(value) = call.attributes.get(target) else { return Ok(Value::Absent) };
        budget.charge(heap_bytes(value))?;
        return Ok(Value::Done(value.clone()));
    }
    let value = match type_of(&attribute)? {
        kind::FLOAT => Attribute::Float(attribute.f.unwrap_or(0.0)),
        kind::INT => Attribute::Int(attribute.i.unwrap_or(0)),
        kind::STRING => Attribute::String(text(attribute.s.as_deref().unwrap_or_default())),
        kind::TENSOR => {
            let Some(bytes) = &attribute.t else { return Err(fail!(Malformed, "it has no tensor")) };
            Attribute::Tensor(constant(bytes, name, budget)?.1.resolve(directory)?)
        }
        kind::GRAPH => {
            let Some(bytes) = &attribute.g else { return Err(fail!(Malformed, "it has no graph")) };
            return Ok(Value::Graph(bytes.clone()));
        }
        kind::FLOATS => Attribute::Floats(attribute.floats),
        kind::INTS => Attribute::Ints(attribute.ints),
        kind::STRINGS => Attribute::Strings(attribute.strings.iter().map(|bytes| text(bytes)).collect()),
        other => return Err(fail!(Unsupported, "attributes of type number {other} are not supported")),
    };
    budget.charge(heap_bytes(&value))?;
    Ok(Value::Done(value))
}

/// The type as stated, or, in files older than the statement, the one of the field that is there.
fn type_of(attribute: &proto::Attribute) -> Result<i32> {
    let present = [
        (attribute.f.is_some(), kind::FLOAT),
        (attribute.i.is_some(), kind::INT),
        (attribute.s.is_some(), kind::STRING),
        (attribute.t.is_some(), kind::TENSOR),
        (attribute.g.is_some(), kind::GRAPH),
        (!attribute.floats.is_empty(), kind::FLOATS),
        (!attribute.ints.is_empty(), kind::INTS),
        (!attribute.strings.is_empty(), kind::STRINGS),
    ];
    match attribute.r#type {
        0 => {
            let found = present.iter().find(|(there, _)| *there);
            found.map(|&(_, kind)| kind).ok_or_else(|| fail!(Malformed, "it has no value"))
        }
        stated => Ok(stated),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes that a copy of the value takes; tensors share theirs.
fn heap_bytes(value: &Attribute) -> usize {
    match value {
        Attribute::String(text) => text.len(),
        Attribute::Ints(values) => values.len() * 8,
        Attribute::Floats(values) => values.len() * 4,
        Attribute::Strings(texts) => texts.iter().map(|text| text.len() + size_of::<String>()).sum(),
        Attribute::Tensor(tensor) => tensor.shape().len() * 8,
        Attribute::Int(_) | Attribute::Float(_) | Attribute::Graph(_) => 0,
    }
}

/// Decodes the name and fields of one attribute.
pub fn decode_attribute(bytes: &Bytes) -> Result<proto::Attribute> {
    let attribute: proto::Attribute = decode(bytes, "an attribute")?;
    ensure!(!attribute.name.is_empty(), Malformed, "an attribute has no name");
    Ok(attribute)
}

/// The tensor that a `Constant` node with this attribute gives.
pub fn constant_value(name: &str, value: Attribute) -> Result<Tensor> {
    Ok(match (name, value) {
        ("value", Attribute::Tensor(tensor)) => tensor,
        ("value_float", Attribute::Float(value)) => Tensor::scalar(value),
        ("value_floats", Attribute::Floats(values)) => Tensor::from_slice(&[values.len()], &values),
        ("value_int", Attribute::Int(value)) => Tensor::scalar(value),
        ("value_ints", Attribute::Ints(values)) => Tensor::from_slice(&[values.len()], &values),
        ("value_string" | "value_strings", _) => return Err(fail!(Unsupported, "strings are not supported")),
        _ => return Err(fail!(Malformed, "'{name}' gives no constant of its type")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    fn value(attribute_proto: proto::Attribute, call: Option<&Call>) -> Result<Value> {
        attribute(attribute_proto, call, &mut None, &mut Budget::new(0))
    }

    #[test]
    fn a_type_left_out_is_that_of_the_field() {
        let ints = proto::Attribute { ints: vec![1, 2], ..Default::default() };
        assert!(matches!(value(ints, None), Ok(Value::Done(Attribute::Ints(values))) if values == [1, 2]));
        let zero = proto::Attribute { r#type: kind::INT, ..Default::default() };
        assert!(matches!(value(zero, None), Ok(Value::Done(Attribute::Int(0)))));
        assert_eq!(value(proto::Attribute::default(), None).unwrap_err().status, Status::Malformed);
        let tensors = proto::Attribute { r#type: 9, ..Default::default() };
        assert_eq!(value(tensors, None).unwrap_err().status, Status::Unsupported);
    }

    #[test]
    fn references_take_the_callers_value() {
        let reference = || proto::Attribute { ref_attr_name: "alpha".into(), ..Default::default() };
        let call = Call { attributes: BTreeMap::from([("alpha".into(), Attribute::Float(0.5))]) };
        assert!(matches!(value(reference(), Some(&call)), Ok(Value::Done(Attribute::Float(0.5)))));
        let empty = Call { attributes: BTreeMap::new() };
        assert!(matches!(value(reference(), Some(&empty)), Ok(Value::Absent)));
        assert_eq!(value(reference(), None).unwrap_err().status, Status::Malformed);
    }

    #[test]
    fn every_form_of_constant() {
        let tensor = |name, value| constant_value(name, value).unwrap();
        assert_eq!(tensor("value_int", Attribute::Int(3)), Tensor::scalar(3i64));
        assert_eq!(tensor("value_ints", Attribute::Ints(vec![3, 4])), Tensor::from_slice(&[2], &[3i64, 4]));
        assert_eq!(tensor("value_float", Attribute::Float(0.5)), Tensor::scalar(0.5f32));
        assert_eq!(tensor("value_floats", Attribute::Floats(vec![])), Tensor::from_slice::<f32>(&[0], &[]));
        assert_eq!(tensor("value", Attribute::Tensor(Tensor::scalar(1i32))), Tensor::scalar(1i32));
        let refused = constant_value("value_string", Attribute::String("x".into())).unwrap_err();
        assert_eq!(refused.status, Status::Unsupported);
        assert_eq!(constant_value("value_int", Attribute::Float(1.0)).unwrap_err().status, Status::Malformed);
    }
}
