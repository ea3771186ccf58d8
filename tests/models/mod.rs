//! Small ONNX models that tests of the runtime load from memory.

#![allow(dead_code, reason = "each test uses its part")]

#[path = "../wire/mod.rs"]
mod wire;

use bytes::Bytes;
use wire::{FLOAT, INT64, Message, graph, int, ints, longs, message, model, node, tensor, value};

/// `TensorProto` of floats.
fn floats(name: &str, dims: &[i64], values: impl IntoIterator<Item = f32>) -> Message {
    let raw: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    tensor(name, FLOAT, dims).put(9, raw)
}

/// `ValueInfoProto` of floats; a name is an open extent.
fn open_value(name: &str, dims: &[Result<i64, &str>]) -> Message {
    let dim = |dim: &Result<i64, &str>| match dim {
        Ok(extent) => message().int(1, *extent),
        Err(name) => message().put(2, name),
    };
    let shape = message().all(1, dims.iter().map(dim));
    message().put(1, name).put(2, message().put(1, message().int(1, FLOAT).put(2, shape)))
}

fn bytes(graph: Message) -> Bytes {
    Bytes::from(model(graph).0)
}

/// y\[4\] = 2 x\[4\] + 1.
pub fn affine() -> Bytes {
    let nodes = [node("Mul", &["x", "two"], &["t"]), node("Add", &["t", "one"], &["y"])];
    let graph = graph().all(1, nodes).put(5, floats("two", &[1], [2.0])).put(5, floats("one", &[1], [1.0]));
    bytes(graph)
}

/// y\[batch, 3\] = relu(x\[batch, 2\] w + b), w = \[\[1, 2, 3\], \[4, 5, 6\]\], b = \[0, 0, -100\].
pub fn dense() -> Bytes {
    let nodes = [node("Gemm", &["x", "w", "b"], &["t"]), node("Relu", &["t"], &["y"])];
    let graph = message()
        .put(2, "dense")
        .all(1, nodes)
        .put(5, floats("w", &[2, 3], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        .put(5, floats("b", &[3], [0.0, 0.0, -100.0]))
        .put(11, open_value("x", &[Err("batch"), Ok(2)]))
        .put(12, open_value("y", &[Err("batch"), Ok(3)]));
    bytes(graph)
}

/// y\[2, 3\] = x\[2, 0\] w, all zeros: the weights have no elements.
pub fn nothing() -> Bytes {
    let graph = message()
        .put(2, "nothing")
        .put(1, node("MatMul", &["x", "w"], &["y"]))
        .put(5, floats("w", &[0, 3], []))
        .put(11, value("x", FLOAT, &[2, 0]))
        .put(12, value("y", FLOAT, &[2, 3]));
    bytes(graph)
}

/// next\[4\] = state\[4\] + x\[4\].
pub fn accumulator() -> Bytes {
    let graph = message()
        .put(2, "accumulator")
        .put(1, node("Add", &["x", "state"], &["next"]))
        .put(11, value("x", FLOAT, &[4]))
        .put(11, value("state", FLOAT, &[4]))
        .put(12, value("next", FLOAT, &[4]));
    bytes(graph)
}

/// y\[n\] = range(0, n), with n = the value of the shape input `count`\[1\].
pub fn ones() -> Bytes {
    let graph = message()
        .put(2, "ones")
        .put(1, node("ConstantOfShape", &["count"], &["z"]))
        .put(1, node("Add", &["z", "one"], &["y"]))
        .put(5, floats("one", &[1], [1.0]))
        .put(11, value("count", INT64, &[1]))
        .put(12, open_value("y", &[Err("n")]));
    bytes(graph)
}

/// y\[1, n\] = softmax(x\[1, n\]).
pub fn softmax(elements: usize) -> Bytes {
    row(elements, node("Softmax", &["x"], &["y"]), message())
}

/// y\[1, n\] = x\[1, n\], shifted and scaled to mean 0 and variance 1.
pub fn normalized(elements: usize) -> Bytes {
    let scale = floats("w", &[elements as i64], (0..elements).map(|_| 1.0));
    row(elements, node("LayerNormalization", &["x", "w"], &["y"]), message().put(5, scale))
}

fn row(elements: usize, step: Message, graph: Message) -> Bytes {
    let extents = [1, elements as i64];
    bytes(graph.put(2, "row").put(1, step).put(11, value("x", FLOAT, &extents)).put(12, value("y", FLOAT, &extents)))
}

/// A chain of `steps` products of \[256, 256\] matrices: some milliseconds for each dozen.
pub fn heavy(steps: usize) -> Bytes {
    let name = |step: usize| if step == 0 { "x".to_owned() } else { format!("t{step}") };
    let chain = (0..steps).map(|step| node("MatMul", &[&name(step), "w"], &[&name(step + 1)]));
    let weights = (0..256 * 256).map(|index| if index % 257 == 0 { 1.0 } else { 0.0 });
    let graph = message()
        .put(2, "heavy")
        .all(1, chain)
        .put(1, node("Identity", &[&name(steps)], &["y"]))
        .put(5, floats("w", &[256, 256], weights))
        .put(11, value("x", FLOAT, &[256, 256]))
        .put(12, value("y", FLOAT, &[256, 256]));
    bytes(graph)
}

/// y\[batch, 256\] = x\[batch, 256\] after so many products with a \[256, 256\] matrix of zeros.
pub fn heavy_rows(steps: usize) -> Bytes {
    let name = |step: usize| if step == 0 { "x".to_owned() } else { format!("t{step}") };
    let chain = (0..steps).map(|step| node("MatMul", &[&name(step), "w"], &[&name(step + 1)]));
    let graph = message()
        .put(2, "heavy rows")
        .all(1, chain)
        .put(1, node("Identity", &[&name(steps)], &["y"]))
        .put(5, floats("w", &[256, 256], (0..256 * 256).map(|_| 0.0)))
        .put(11, open_value("x", &[Err("batch"), Ok(256)]))
        .put(12, open_value("y", &[Err("batch"), Ok(256)]));
    bytes(graph)
}

/// A model from `x` and others, floats with open axes, to the float output `y`.
fn open_model(inputs: &[(&str, &[&str])], nodes: impl IntoIterator<Item = Message>, output: &[&str]) -> Message {
    let value =
        |(name, axes): &(&str, &[&str])| open_value(name, &axes.iter().map(|axis| Err(*axis)).collect::<Vec<_>>());
    message().put(2, "open").all(1, nodes).all(11, inputs.iter().map(value)).put(12, value(&("y", output)))
}

/// y\[batch\] = the mean of x\[batch, length\] where mask\[batch, length\] is 1.
pub fn masked_mean() -> Bytes {
    let nodes = [
        node("Mul", &["x", "mask"], &["kept"]),
        node("ReduceSum", &["kept", "last"], &["sum"]).put(5, int("keepdims", 0)),
        node("ReduceSum", &["mask", "last"], &["count"]).put(5, int("keepdims", 0)),
        node("Div", &["sum", "count"], &["y"]),
    ];
    let axes: &[&str] = &["batch", "length"];
    bytes(open_model(&[("x", axes), ("mask", axes)], nodes, &["batch"]).put(5, longs("last", &[1])))
}

/// y\[batch\] = the mean of x\[batch, length\] over an axis, without any mask.
pub fn plain_mean(axis: i64) -> Bytes {
    let mean = node("ReduceMean", &["x"], &["y"]).put(5, ints("axes", &[axis])).put(5, int("keepdims", 0));
    bytes(open_model(&[("x", &["batch", "length"])], [mean], &[["length", "batch"][axis as usize]]))
}

/// y\[batch length\] = x\[batch, length\] in a row.
pub fn flattened() -> Bytes {
    let nodes = [node("Reshape", &["x", "all"], &["y"])];
    bytes(open_model(&[("x", &["batch", "length"])], nodes, &["n"]).put(5, longs("all", &[-1])))
}

/// y\[batch, length\] = x\[batch, length\] times the number of rows.
pub fn times_batch() -> Bytes {
    let nodes = [
        node("Shape", &["x"], &["shape"]),
        node("Gather", &["shape", "first"], &["rows"]),
        node("Cast", &["rows"], &["factor"]).put(5, int("to", FLOAT)),
        node("Mul", &["x", "factor"], &["y"]),
    ];
    bytes(open_model(&[("x", &["batch", "length"])], nodes, &["batch", "length"]).put(5, longs("first", &[0])))
}

/// y\[2 half\] = the first 2 ceil(length / 2) elements of x\[length\] and as many zeros as it takes: its extent follows that of
/// x in steps of two.
pub fn in_pairs() -> Bytes {
    let nodes = [
        node("Shape", &["x"], &["length"]),
        node("Mod", &["length", "two"], &["rest"]),
        node("Concat", &["zero", "rest"], &["pads"]).put(5, int("axis", 0)),
        node("Pad", &["x", "pads"], &["y"]),
    ];
    let graph = open_model(&[("x", &["length"])], nodes, &["n"]);
    bytes(graph.put(5, longs("two", &[2])).put(5, longs("zero", &[0])))
}
