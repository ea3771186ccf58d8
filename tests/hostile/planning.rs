//! Well-formed models whose operators ask for the impossible: refused when they are planned.

use super::wire::*;
use super::{Case, case};
use streaminfer::error::Status::{Malformed, ShapeMismatch, TooLarge, Unsupported};

pub fn cases() -> Vec<Case> {
    [windows(), sizes(), movement(), growth()].into_iter().flatten().collect()
}

/// One node from `z`, a float tensor of the given shape, and constants, to `y`.
fn one(op: &str, dims: &[i64], constants: &[(&str, Message)], attributes: Vec<Message>) -> Message {
    let operands: Vec<&str> = ["z"].into_iter().chain(constants.iter().map(|(name, _)| *name)).collect();
    let weights = constants.iter().map(|(_, tensor)| tensor);
    let node = node(op, &operands, &["y"]).all(5, attributes);
    model(graph().put(11, value("z", FLOAT, dims)).all(5, weights).put(1, node))
}

fn weights(name: &str, dims: &[i64]) -> Message {
    let count: i64 = dims.iter().product();
    tensor(name, FLOAT, dims).put(9, vec![0; 4 * count as usize])
}

fn windows() -> Vec<Case> {
    let conv = |attributes| one("Conv", &[1, 1, 8, 8], &[("w", weights("w", &[1, 1, 3, 3]))], attributes);
    let pool = |op, attributes| one(op, &[1, 1, 8, 8], &[], attributes);
    let kernel = || ints("kernel_shape", &[2, 2]);
    let huge = i64::MAX;
    vec![
        case("Conv stride 0", conv(vec![ints("strides", &[0, 0])]), Malformed, "stride"),
        case("Conv stride -1", conv(vec![ints("strides", &[-1, 1])]), Malformed, "stride"),
        case("Conv dilation 0", conv(vec![ints("dilations", &[0, 1])]), Malformed, "dilation"),
        case("Conv dilation huge", conv(vec![ints("dilations", &[huge, huge])]), Malformed, "dilations"),
        case("Conv group 0", conv(vec![int("group", 0)]), Malformed, "group"),
        case("Conv pads huge", conv(vec![ints("pads", &[huge, huge, huge, huge])]), Malformed, "pads"),
        case("Conv pads negative", conv(vec![ints("pads", &[-100, -100, -100, -100])]), Malformed, "pad"),
        case("MaxPool window 0", pool("MaxPool", vec![ints("kernel_shape", &[0, 0])]), Malformed, "kernel_shape"),
        case(
            "MaxPool window 2^62",
            pool("MaxPool", vec![ints("kernel_shape", &[1 << 62, 2])]),
            Malformed,
            "kernel_shape",
        ),
        case("MaxPool stride 0", pool("MaxPool", vec![kernel(), ints("strides", &[0, 1])]), Malformed, "stride"),
        case(
            "AveragePool of three axes",
            pool("AveragePool", vec![ints("kernel_shape", &[2, 2, 2])]),
            Malformed,
            "kernel_shape",
        ),
    ]
}

fn sizes() -> Vec<Case> {
    let shaped = |values: &[i64]| {
        let shape = longs("s", values);
        let nodes = [node("ConstantOfShape", &["s"], &["k"]), node("Add", &["x", "k"], &["y"])];
        model(graph().put(5, shape).all(1, nodes))
    };
    let range = |values: [i64; 3]| {
        let scalar = |name: &str, value| tensor(name, INT64, &[]).packed(7, &[value]);
        let operands = ["start", "limit", "delta"];
        let weights = operands.iter().zip(values).map(|(name, value)| scalar(name, value));
        model(graph().all(5, weights).put(1, node("Range", &operands, &["y"])))
    };
    let by = |op, dims: &[i64], values: &[i64]| one(op, dims, &[("s", longs("s", values))], vec![]);
    let block = |size| one("DepthToSpace", &[1, 4, 2, 2], &[], vec![int("blocksize", size)]);
    let scales = |scale: f32| {
        let scales = (0..4).fold(tensor("scales", FLOAT, &[4]), |message, _| message.float(4, scale));
        let operands = node("Resize", &["z", "", "scales"], &["y"]);
        model(graph().put(11, value("z", FLOAT, &[1, 1, 2, 2])).put(5, scales).put(1, operands))
    };
    vec![
        case("ConstantOfShape [2^62, 8]", shaped(&[1 << 62, 8]), TooLarge, "ConstantOfShape"),
        case("ConstantOfShape 2^34", shaped(&[1 << 34]), ShapeMismatch, "'Add_1'"),
        case("ConstantOfShape -1", shaped(&[-1]), Malformed, "-1"),
        case("Range to 10^18", range([0, 1_000_000_000_000_000_000, 1]), TooLarge, "Range"),
        case("Range by 0", range([0, 10, 0]), Malformed, "Range"),
        case("Range over all integers", range([i64::MIN, i64::MAX, 1]), TooLarge, "Range"),
        case("Tile 2^40", by("Tile", &[4], &[1 << 40]), TooLarge, "Tile"),
        case("Tile -1", by("Tile", &[4], &[-1]), Malformed, "Tile"),
        case("Expand to 2^50", by("Expand", &[1], &[1 << 50]), TooLarge, "Expand"),
        case("Reshape to another size", by("Reshape", &[4], &[5]), ShapeMismatch, "Reshape"),
        case("Reshape with two open axes", by("Reshape", &[4], &[-1, -1]), Malformed, "Reshape"),
        case("Reshape to -7", by("Reshape", &[4], &[-7]), Malformed, "Reshape"),
        case("DepthToSpace 2^32", block(1 << 32), Malformed, "blocksize"),
        case("DepthToSpace 0", block(0), Malformed, "blocksize"),
        case("Resize by 10^30", scales(1e30), TooLarge, "Resize"),
        case("Resize by NaN", scales(f32::NAN), Malformed, "Resize"),
        case("Resize by -1", scales(-1.0), Malformed, "Resize"),
        case("TopK of more than there is", by("TopK", &[4], &[5]), ShapeMismatch, "TopK"),
        case("Pad huge", by("Pad", &[4], &[i64::MAX, i64::MAX]), TooLarge, "Pad"),
        case("Pad by -100", by("Pad", &[4], &[-100, 0]), ShapeMismatch, "Pad"),
    ]
}

fn movement() -> Vec<Case> {
    let perm = |axes: &[i64]| one("Transpose", &[2, 2], &[], vec![ints("perm", axes)]);
    let axis = |op, value| one(op, &[2, 2], &[], vec![int("axis", value)]);
    let slice = |step: i64| {
        let constants = [("b", vec![0]), ("e", vec![i64::MAX]), ("a", vec![0]), ("t", vec![step])];
        let constants: Vec<_> = constants.iter().map(|(name, values)| (*name, longs(name, values))).collect();
        one("Slice", &[4], &constants, vec![])
    };
    let gather = |index: i64| {
        let nodes = [node("Gather", &["k", "i"], &["g"]), node("Identity", &["g"], &["y"])];
        model(graph().all(5, [longs("k", &[1, 2, 3]), longs("i", &[index])]).all(1, nodes))
    };
    let split = |sizes: &[i64]| one("Split", &[4], &[("s", longs("s", sizes))], vec![]);
    let einsum =
        |equation: &str| one("Einsum", &[2, 2], &[], vec![message().put(1, "equation").put(4, equation).int(20, 3)]);
    let unsqueeze = |axes: &[i64]| one("Unsqueeze", &[4], &[("s", longs("s", axes))], vec![]);
    let hidden = {
        let constants = [("w", weights("w", &[1, 8, 2])), ("r", weights("r", &[1, 8, 2]))];
        one("LSTM", &[1, 1, 2], &constants, vec![int("hidden_size", 1 << 60)])
    };
    vec![
        case("Transpose with an axis twice", perm(&[0, 0]), Malformed, "Transpose"),
        case("Transpose with axis 7", perm(&[0, 7]), Malformed, "Transpose"),
        case("Transpose with three axes", perm(&[0, 1, 2]), Malformed, "Transpose"),
        case("Softmax over axis 9", axis("Softmax", 9), Malformed, "Softmax"),
        case("Concat over the lowest axis", axis("Concat", i64::MIN), Malformed, "Concat"),
        case("Flatten at axis -9", axis("Flatten", -9), Malformed, "Flatten"),
        case("Slice by 0", slice(0), Malformed, "Slice"),
        case("Gather beyond the end", gather(3), Malformed, "Gather"),
        case("Gather before the start", gather(i64::MIN), Malformed, "Gather"),
        case("Split of the wrong sum", split(&[1, 1]), ShapeMismatch, "Split"),
        case("Split of negative parts", split(&[-1, 5]), Malformed, "Split"),
        case("Einsum of nonsense", einsum("ij->->,,"), Malformed, "Einsum"),
        case("Einsum of three axes", einsum("ijk->i"), ShapeMismatch, "Einsum"),
        case("Unsqueeze twice at 0", unsqueeze(&[0, 0]), Malformed, "Unsqueeze"),
        case("Unsqueeze at the lowest axis", unsqueeze(&[i64::MIN]), Malformed, "Unsqueeze"),
        case("LSTM of hidden size 2^60", hidden, ShapeMismatch, "LSTM"),
        case(
            "MatMul that does not fit",
            one("MatMul", &[2, 3], &[("w", weights("w", &[2, 3]))], vec![]),
            ShapeMismatch,
            "MatMul",
        ),
        case(
            "Add that does not broadcast",
            one("Add", &[2], &[("w", weights("w", &[3]))], vec![]),
            ShapeMismatch,
            "Add",
        ),
        case("Add of two types", one("Add", &[2], &[("w", longs("w", &[1, 1]))], vec![]), ShapeMismatch, "Add"),
        case("Add of one operand", one("Add", &[2], &[], vec![]), Malformed, "Add"),
        case("Cast to uint32", one("Cast", &[2], &[], vec![int("to", 12)]), Unsupported, "Cast"),
    ]
}

/// Models that grow with every node: refused long before the sizes are reached.
fn growth() -> Vec<Case> {
    let chain = |op: &'static str, length: usize, inputs: &dyn Fn(&str) -> Vec<String>, attributes: Vec<Message>| {
        let name = |index: usize| match index {
            0 => "x".to_owned(),
            index if index == length => "y".to_owned(),
            index => format!("t{index}"),
        };
        let nodes = (0..length).map(|index| {
            let operands = inputs(&name(index));
            let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
            node(op, &operands, &[&name(index + 1)]).all(5, &attributes)
        });
        with_nodes(nodes)
    };
    let double = |name: &str| vec![name.to_owned(); 2];
    vec![
        case("Concat doubling 40 times", chain("Concat", 40, &double, vec![int("axis", 0)]), TooLarge, "Concat"),
        case("Concat doubling a constant", folded_doubling(40), TooLarge, "Concat"),
        case("sum of outer sums", outer_sums(20), TooLarge, "Add"),
    ]
}

fn folded_doubling(length: usize) -> Message {
    let nodes = (0..length).map(|index| {
        let (from, to) = (format!("k{index}"), format!("k{}", index + 1));
        node("Concat", &[&from, &from], &[&to]).put(5, int("axis", 0))
    });
    let last = format!("k{length}");
    let sum = node("Add", &["x", &last], &["y"]);
    model(graph().put(5, weights("k0", &[4])).all(1, nodes.chain([sum])))
}

/// Every node adds an axis to one operand, so that the result's size is squared.
fn outer_sums(length: usize) -> Message {
    let nodes = (0..length).flat_map(|index| {
        let (from, to) = (if index == 0 { "x".into() } else { format!("t{index}") }, format!("t{}", index + 1));
        let (flat, tall) = (format!("flat{index}"), format!("tall{index}"));
        [
            node("Reshape", &[&from, "row"], &[&flat]),
            node("Reshape", &[&from, "column"], &[&tall]),
            node("Add", &[&flat, &tall], &[&to]),
        ]
    });
    let nodes: Vec<Message> = nodes.chain([node("Identity", &[&format!("t{length}")], &["y"])]).collect();
    model(graph().all(5, [longs("row", &[1, -1]), longs("column", &[-1, 1])]).all(1, nodes))
}
