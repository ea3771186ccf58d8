//! What is refused: hostile numbers, disagreements, and what shapes must not depend on.

use super::{floats, integers, node, ramp};
use crate::error::Status::{Malformed, ShapeMismatch, TooLarge, Unsupported, UnsupportedDynamic};
use crate::ir::Tensor;

#[test]
fn windows_that_cannot_be() {
    let conv = || node("Conv").unknown(&[1, 2, 5, 5]).of(ramp(&[3, 2, 3, 3]));
    conv().ints("strides", &[0, 1]).refused(Malformed, "strides");
    conv().ints("strides", &[-1, 1]).refused(Malformed, "strides");
    conv().ints("dilations", &[1, 0]).refused(Malformed, "dilations");
    conv().ints("pads", &[0, 0, 0, i64::MAX]).refused(Malformed, "pads");
    conv().ints("pads", &[0, 0]).refused(Malformed, "pads");
    conv().ints("kernel_shape", &[2, 3]).refused(ShapeMismatch, "kernel_shape");
    conv().ints("dilations", &[3, 1]).refused(ShapeMismatch, "does not fit");
    conv().int("group", 0).refused(Malformed, "group");
    conv().int("group", i64::MAX).refused(ShapeMismatch, "groups");
    conv().text("auto_pad", "SOME").refused(Unsupported, "SOME");
    node("Conv").unknown(&[1, 2, 5]).of(ramp(&[3, 2, 0])).refused(Malformed, "kernel");
    node("Conv").unknown(&[1, 2, 5]).of(ramp(&[3, 2, 1])).of(ramp(&[2])).refused(ShapeMismatch, "bias");
    node("MaxPool").unknown(&[1, 2, 5]).refused(Malformed, "kernel_shape");
    node("MaxPool").unknown(&[1, 2, 5]).ints("kernel_shape", &[0]).refused(Malformed, "kernel_shape");
    node("ConvTranspose")
        .unknown(&[1, 1, 4])
        .of(ramp(&[1, 1, 2]))
        .ints("pads", &[4, 4])
        .refused(ShapeMismatch, "cuts off");
    node("ConvTranspose")
        .unknown(&[1, 1, 1 << 20])
        .of(ramp(&[1, 1, 2]))
        .ints("strides", &[(1 << 31) - 1])
        .refused(TooLarge, "");
}

#[test]
fn sizes_beyond_any_memory() {
    node("ConstantOfShape").of(integers(&[1 << 62, 8])).refused(TooLarge, "");
    node("ConstantOfShape").of(integers(&[-1])).refused(Malformed, "-1");
    node("Expand").unknown(&[1]).of(integers(&[1 << 40, 1 << 40])).refused(TooLarge, "");
    node("Tile").unknown(&[4]).of(integers(&[1 << 40])).refused(TooLarge, "");
    node("Tile").unknown(&[4]).of(integers(&[i64::MAX])).refused(TooLarge, "");
    node("Pad").unknown(&[4]).of(integers(&[i64::MAX, i64::MAX])).refused(TooLarge, "");
    node("Pad").unknown(&[4]).of(integers(&[0, i64::MAX])).text("mode", "wrap").refused(TooLarge, "");
    node("Pad").unknown(&[4]).of(integers(&[i64::MIN, 0])).refused(ShapeMismatch, "crop");
    node("Resize").unknown(&[4]).without().of(floats(&[1e30])).refused(TooLarge, "");
    node("Resize").unknown(&[4]).without().of(floats(&[f32::NAN])).refused(Malformed, "scale");
    node("Resize").unknown(&[4]).without().without().of(integers(&[1 << 40])).refused(TooLarge, "");
    let (zero, one) = (Tensor::scalar(0i64), Tensor::scalar(1i64));
    node("Range").of(zero.clone()).of(Tensor::scalar(i64::MAX)).of(one.clone()).refused(TooLarge, "");
    node("Range").of(zero.clone()).of(one).of(zero).refused(Malformed, "delta");
    let infinite = Tensor::scalar(f32::INFINITY);
    node("Range").of(Tensor::scalar(0f32)).of(infinite).of(Tensor::scalar(1f32)).refused(Malformed, "no end");
    node("OneHot").unknown_integers(&[4]).of(Tensor::scalar(1i64 << 50)).of(floats(&[0.0, 1.0])).refused(TooLarge, "");
    node("DepthToSpace").unknown(&[1, 4, 2, 2]).int("blocksize", 1 << 32).refused(Malformed, "blocksize");
    node("DepthToSpace").unknown(&[1, 4, 2, 2]).int("blocksize", 0).refused(Malformed, "blocksize");
    node("SpaceToDepth").unknown(&[1, 4, 2, 2]).int("blocksize", 3).refused(ShapeMismatch, "blocks");
}

#[test]
fn disagreements() {
    node("Split").outputs(2).unknown(&[5]).of(integers(&[2, 2])).refused(ShapeMismatch, "[2, 2]");
    node("Split").outputs(2).unknown(&[5]).of(integers(&[i64::MAX, i64::MAX])).refused(ShapeMismatch, "");
    node("Split").outputs(2).opset(11).unknown(&[5]).refused(ShapeMismatch, "equal");
    node("Split").outputs(2).unknown(&[5]).int("num_outputs", 0).refused(Malformed, "0 parts");
    node("Reshape").unknown(&[6]).of(integers(&[4, -1])).refused(ShapeMismatch, "");
    node("Reshape").unknown(&[6]).of(integers(&[-1, -1])).refused(Malformed, "two open");
    node("Reshape").unknown(&[6]).of(integers(&[0, 0, 6])).refused(ShapeMismatch, "axis 1");
    node("Reshape").unknown(&[0, 6]).of(integers(&[0, -1])).int("allowzero", 1).refused(ShapeMismatch, "");
    node("Reshape").unknown(&[6]).of(integers(&[-2])).refused(Malformed, "-2");
    node("Concat").unknown(&[2, 3]).unknown(&[3, 3]).int("axis", 1).refused(ShapeMismatch, "axis 1");
    node("Concat").unknown(&[2, 3]).unknown_integers(&[2, 3]).int("axis", 1).refused(ShapeMismatch, "int64");
    node("Concat").unknown(&[2]).refused(Malformed, "axis");
    node("Transpose").unknown(&[2, 3]).ints("perm", &[0, 0]).refused(Malformed, "twice");
    node("Transpose").unknown(&[2, 3]).ints("perm", &[0]).refused(Malformed, "perm");
    node("Squeeze").unknown(&[2, 1]).of(integers(&[0])).refused(ShapeMismatch, "axis 0");
    node("Softmax").unknown(&[2]).int("axis", 1).refused(Malformed, "axis 1");
    node("Slice")
        .unknown(&[4])
        .of(integers(&[0]))
        .of(integers(&[4]))
        .of(integers(&[0]))
        .of(integers(&[0]))
        .refused(Malformed, "step");
    node("TopK").outputs(2).unknown(&[4]).of(integers(&[5])).refused(ShapeMismatch, "k is 5");
    node("TopK").outputs(2).unknown(&[4]).of(integers(&[-1])).refused(Malformed, "k is -1");
    node("Gather").unknown(&[4]).of(integers(&[4])).refused(Malformed, "index 4");
    node("Gather").unknown(&[4]).of(integers(&[i64::MIN])).refused(Malformed, "index");
    node("MatMul").unknown(&[2, 3]).unknown(&[2, 3]).refused(ShapeMismatch, "times");
    node("Add").unknown(&[2, 3]).unknown(&[2, 4]).refused(ShapeMismatch, "broadcast");
    node("Add").unknown(&[2]).unknown_integers(&[2]).refused(ShapeMismatch, "int64");
    node("LSTM")
        .unknown(&[1, 1, 2])
        .of(ramp(&[1, 4, 2]))
        .of(ramp(&[1, 4, 1]))
        .int("hidden_size", i64::MAX)
        .refused(ShapeMismatch, "W");
    node("Einsum").unknown(&[2]).unknown(&[3]).text("equation", "i,i->").refused(ShapeMismatch, "2 and 3");
    node("Einsum").unknown(&[2]).text("equation", "i->j").refused(Malformed, "i->j");
    node("Einsum").unknown(&[2]).text("equation", "i,j->i").refused(Malformed, "1 operands");
    node("Einsum").unknown(&[2]).text("equation", "I\u{e9}->I").refused(Malformed, "subscripts");
}

#[test]
fn what_is_not_supported_is_named() {
    node("Relu").unknown(&[2]).int("slope", 1).refused(Unsupported, "'slope'");
    node("Softmax").unknown(&[2]).float("axis", 1.0).refused(Malformed, "'axis' is not an integer");
    node("Cast").unknown(&[2]).int("to", 12).refused(Unsupported, "12");
    node("Cast").unknown_integers(&[2]).int("to", 11).refused(Unsupported, "int64");
    node("Cast").of(integers(&[1 << 25])).int("to", 11).refused(Unsupported, "float64");
    node("Cast").unknown(&[2]).refused(Malformed, "'to' is missing");
    node("Gelu").unknown(&[2]).text("approximate", "fast").refused(Unsupported, "fast");
    node("Pad").unknown(&[2]).of(integers(&[1, 1])).text("mode", "mirror").refused(Unsupported, "mirror");
    node("Resize").unknown(&[4]).without().of(floats(&[2.0])).text("mode", "spline").refused(Unsupported, "spline");
    node("GRU")
        .unknown(&[1, 1, 2])
        .of(ramp(&[1, 3, 2]))
        .of(ramp(&[1, 3, 1]))
        .texts("activations", &["Softsign", "Tanh"])
        .refused(Unsupported, "softsign");
    node("GRU")
        .unknown(&[1, 1, 2])
        .of(ramp(&[1, 3, 2]))
        .of(ramp(&[1, 3, 1]))
        .texts("activations", &["Tanh"])
        .refused(Malformed, "activations");
    let training = Tensor::scalar(true);
    node("Dropout").unknown(&[2]).without().of(training).refused(Unsupported, "training_mode");
    node("Add").unknown(&[2]).refused(Malformed, "operand 1");
}

#[test]
fn shapes_that_depend_on_data() {
    node("Reshape").unknown(&[6]).unknown_integers(&[2]).refused(UnsupportedDynamic, "operand 1");
    node("Expand").unknown(&[1]).unknown_integers(&[1]).refused(UnsupportedDynamic, "operand 1");
    node("ConstantOfShape").unknown_integers(&[2]).refused(UnsupportedDynamic, "operand 0");
    node("Slice").unknown(&[6]).of(integers(&[0])).unknown_integers(&[1]).refused(UnsupportedDynamic, "operand 2");
}
