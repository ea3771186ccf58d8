//! A protobuf writer, and the messages of ONNX that tests build models from, by field number.

#![allow(dead_code, reason = "each test uses its part")]

/// A message being written.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number.
    pub fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    /// A float.
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A string, byte string or message.
    pub fn put(mut self, field: u64, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref();
        self.varint(field << 3 | 2);
        self.varint(payload.len() as u64);
        self.0.extend_from_slice(payload);
        self
    }

    /// A field several times.
    pub fn all<T: AsRef<[u8]>>(self, field: u64, payloads: impl IntoIterator<Item = T>) -> Self {
        payloads.into_iter().fold(self, |message, payload| message.put(field, payload))
    }

    /// Numbers packed into one field.
    pub fn packed(self, field: u64, values: &[i64]) -> Self {
        let mut payload = Message::default();
        values.iter().for_each(|&value| payload.varint(value as u64));
        self.put(field, payload)
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

pub const FLOAT: i64 = 1;
pub const INT64: i64 = 7;

/// An empty message.
pub fn message() -> Message {
    Message::default()
}

/// `OperatorSetIdProto`
pub fn opset(domain: &str, version: i64) -> Message {
    message().put(1, domain).int(2, version)
}

/// `ModelProto` with opset 17.
pub fn model(graph: Message) -> Message {
    message().int(1, 8).put(8, opset("", 17)).put(7, graph)
}

/// The same with functions of the domain `local`.
pub fn model_with_functions(graph: Message, functions: impl IntoIterator<Item = Message>) -> Message {
    model(graph).put(8, opset("local", 1)).all(25, functions)
}

/// `ValueInfoProto` of a dense tensor.
pub fn value(name: &str, element: i64, dims: &[i64]) -> Message {
    let shape = message().all(1, dims.iter().map(|&dim| message().int(1, dim)));
    message().put(1, name).put(2, message().put(1, message().int(1, element).put(2, shape)))
}

/// `GraphProto` from `x` to `y`, both float [4], without nodes.
pub fn graph() -> Message {
    message().put(2, "g").put(11, value("x", FLOAT, &[4])).put(12, value("y", FLOAT, &[4]))
}

/// The body of a branch, which gives `output`.
pub fn branch(nodes: impl IntoIterator<Item = Message>, output: &str) -> Message {
    message().put(2, "branch").all(1, nodes).put(12, message().put(1, output))
}

/// `NodeProto`
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    message().all(1, inputs).all(2, outputs).put(4, op)
}

/// A call of a function of the domain `local`.
pub fn call(function: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    node(function, inputs, outputs).put(7, "local")
}

/// `FunctionProto` of the domain `local`, from `a` to `b`.
pub fn function(name: &str, nodes: impl IntoIterator<Item = Message>) -> Message {
    message().put(1, name).put(4, "a").put(5, "b").all(7, nodes).put(9, opset("", 17)).put(10, "local")
}

/// `TensorProto` without data.
pub fn tensor(name: &str, element: i64, dims: &[i64]) -> Message {
    let dims = dims.iter().fold(message(), |message, &dim| message.int(1, dim));
    dims.int(2, element).put(8, name)
}

/// A tensor of int64 values.
pub fn longs(name: &str, values: &[i64]) -> Message {
    tensor(name, INT64, &[values.len() as i64]).packed(7, values)
}

/// A float tensor in another file.
pub fn external(name: &str, count: i64, entries: &[(&str, &str)]) -> Message {
    let entries = entries.iter().map(|(key, value)| message().put(1, key).put(2, value));
    tensor(name, FLOAT, &[count]).all(13, entries).int(14, 1)
}

/// `AttributeProto`: an integer.
pub fn int(name: &str, value: i64) -> Message {
    message().put(1, name).int(3, value).int(20, 2)
}

/// `AttributeProto`: integers.
pub fn ints(name: &str, values: &[i64]) -> Message {
    message().put(1, name).packed(8, values).int(20, 7)
}

/// `AttributeProto`: a float.
pub fn float(name: &str, value: f32) -> Message {
    message().put(1, name).float(2, value).int(20, 1)
}

/// `AttributeProto`: floats.
pub fn floats(name: &str, values: &[f32]) -> Message {
    let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    message().put(1, name).put(7, packed).int(20, 6)
}

/// `AttributeProto`: a string.
pub fn text(name: &str, value: &str) -> Message {
    message().put(1, name).put(4, value).int(20, 3)
}

/// `AttributeProto`: a subgraph.
pub fn body(name: &str, graph: Message) -> Message {
    message().put(1, name).put(6, graph).int(20, 5)
}

/// `AttributeProto`: a tensor.
pub fn held(name: &str, tensor: Message) -> Message {
    message().put(1, name).put(5, tensor).int(20, 4)
}

/// A model whose nodes lead from `x` to `y`.
pub fn with_nodes(nodes: impl IntoIterator<Item = Message>) -> Message {
    model(graph().all(1, nodes))
}

/// A model that adds the initializer `w` to its input.
pub fn with_weight(weight: Message) -> Message {
    model(graph().put(5, weight).put(1, node("Add", &["x", "w"], &["y"])))
}
