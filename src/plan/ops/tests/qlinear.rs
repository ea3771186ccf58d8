//! Operators of `com.microsoft`; the expected values are ONNX Runtime's.

use super::{Sample, floats, node, ramp};
use crate::error::Status::{Malformed, ShapeMismatch, Unsupported};
use crate::ir::Tensor;

fn u8s(shape: &[usize], values: &[u8]) -> Tensor {
    Tensor::from_slice(shape, values)
}

fn i8s(shape: &[usize], values: &[i8]) -> Tensor {
    Tensor::from_slice(shape, values)
}

/// A node whose first operand is `x`.
fn quantised(op: &str, x: Tensor, scale: f32, zero_point: u8) -> Sample {
    operand(node(&format!("com.microsoft.{op}")), x, scale, zero_point)
}

fn operand(sample: Sample, x: Tensor, scale: f32, zero_point: u8) -> Sample {
    sample.of(x).of(Tensor::scalar(scale)).of(Tensor::scalar(zero_point))
}

fn result(sample: Sample, scale: f32, zero_point: u8) -> Sample {
    sample.of(Tensor::scalar(scale)).of(Tensor::scalar(zero_point))
}

#[test]
fn arithmetic() {
    let bytes = || u8s(&[4], &[0, 10, 128, 255]);
    let sum = operand(quantised("QLinearAdd", bytes(), 0.5, 128), u8s(&[4], &[3, 200, 7, 9]), 0.25, 100);
    result(sum, 0.75, 90).gives(&[(&[4], &[0.0, 45.0, 59.0, 144.0])]);
    node("com.microsoft.QLinearMul")
        .of(i8s(&[4], &[-128, 3, 40, 127]))
        .of(Tensor::scalar(0.05f32))
        .of(Tensor::scalar(-3i8))
        .of(i8s(&[4], &[5, 6, -70, 90]))
        .of(Tensor::scalar(0.02f32))
        .of(Tensor::scalar(4i8))
        .of(floats(&[0.06]))
        .of(Tensor::scalar(10i8))
        .gives(&[(&[4], &[8.0, 10.0, -43.0, 127.0])]);
    let sigmoid = result(quantised("QLinearSigmoid", bytes(), 0.05, 128), 1.0 / 256.0, 0);
    sigmoid.gives(&[(&[4], &[0.0, 1.0, 128.0, 255.0])]);
    let leaky = result(quantised("QLinearLeakyRelu", bytes(), 0.05, 128), 0.04, 20);
    leaky.float("alpha", 0.1).gives(&[(&[4], &[4.0, 5.0, 20.0, 179.0])]);
    let rows = quantised("QLinearSoftmax", u8s(&[2, 2], &[0, 10, 128, 255]), 0.01, 128);
    let softmax = result(rows, 1.0 / 256.0, 0).int("opset", 13);
    softmax.int("axis", -1).gives(&[(&[2, 2], &[122.0, 134.0, 56.0, 200.0])]);
}

#[test]
fn movement_and_pooling() {
    let parts = result(node("com.microsoft.QLinearConcat"), 0.5, 10);
    let parts = operand(operand(parts, u8s(&[2], &[1, 2]), 0.25, 0), u8s(&[2], &[200, 90]), 1.0, 100);
    // Half a step rounds to even.
    parts.int("axis", 0).gives(&[(&[4], &[10.0, 11.0, 210.0, 0.0])]);
    let condition = node("com.microsoft.QLinearWhere").of(Tensor::from_slice(&[2], &[true, false]));
    let choices = operand(operand(condition, u8s(&[2], &[10, 20]), 0.5, 2), u8s(&[2], &[30, 40]), 0.25, 4);
    result(choices, 0.125, 9).gives(&[(&[2], &[41.0, 81.0])]);
    let bytes = [1, 2, 3, 40, 50, 60];
    let global = quantised("QLinearGlobalAveragePool", u8s(&[1, 2, 3], &bytes), 0.5, 3);
    result(global, 0.25, 7).gives(&[(&[1, 2, 1], &[5.0, 101.0])]);
    let pool = || result(quantised("QLinearAveragePool", u8s(&[1, 1, 6], &bytes), 0.5, 3), 0.25, 7);
    let windows = || pool().ints("kernel_shape", &[3]);
    windows().gives(&[(&[1, 1, 4], &[5.0, 31.0, 63.0, 101.0])]);
    windows().int("channels_last", 1).refused(Unsupported, "channels_last");
    result(node("com.microsoft.QLinearConcat"), 0.5, 10).int("axis", 0).refused(Malformed, "2 operands");
}

#[test]
fn matrix_products_with_scales_per_column() {
    let product = || {
        quantised("QGemm", u8s(&[2, 3], &[1, 2, 3, 4, 5, 6]), 0.5, 2)
            .of(i8s(&[2, 3], &[1, -2, 3, 4, -5, 6]))
            .of(floats(&[0.25, 0.125]))
            .of(i8s(&[2], &[1, -1]))
            .of(Tensor::from_slice(&[2], &[10i32, -20]))
            .int("transB", 1)
    };
    result(product(), 0.5, 20).gives(&[(&[2, 2], &[23.0, 18.0, 22.0, 21.0])]);
    product().float("alpha", 2.0).gives(&[(&[2, 2], &[3.0, -2.25, 2.25, 0.75])]);
}

#[test]
fn recurrences_with_quantised_weights() {
    let lstm = |recurrent_scale: Tensor| {
        node("com.microsoft.DynamicQuantizeLSTM")
            .of(ramp(&[3, 1, 2]))
            .of(i8s(&[1, 2, 4], &[-6, -1, 4, -4, 1, 6, -2, 3]))
            .of(i8s(&[1, 1, 4], &[-5, 0, 5, -3]))
            .without()
            .without()
            .without()
            .without()
            .without()
            .of(floats(&[0.1]))
            .of(i8s(&[1], &[0]))
            .of(recurrent_scale)
            .of(i8s(&[1], &[0]))
            .int("hidden_size", 1)
    };
    let expected: &[(&[usize], &[f64])] = &[(&[3, 1, 1, 1], &[0.226159, 0.286882, 0.040583])];
    lstm(floats(&[0.07])).gives(expected);
    lstm(Tensor::from_slice(&[1, 4], &[0.07f32; 4])).gives(expected);
    lstm(Tensor::from_slice(&[1, 3], &[0.07f32; 3])).refused(ShapeMismatch, "broadcast");
    lstm(Tensor::scalar(0.07f32)).refused(ShapeMismatch, "scale");
}
