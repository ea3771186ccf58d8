//! Operators that ONNX Runtime's optimiser writes; the expected values are ONNX Runtime's.

use super::{Sample, floats, integers, node, ramp};
use crate::error::Status::{Malformed, ShapeMismatch, Unsupported};
use crate::ir::Tensor;

fn microsoft(op: &str) -> Sample {
    node(&format!("com.microsoft.{op}"))
}

/// [`ramp`] with its middle axis in reverse.
fn reversed_rows(rows: usize, columns: usize) -> Tensor {
    let values = ramp(&[rows, columns]).to_f64s();
    let rows: Vec<f32> = values.chunks(columns).rev().flatten().map(|value| *value as f32).collect();
    Tensor::from_slice(&[1, rows.len() / columns, columns], &rows)
}

#[test]
fn activations_with_a_bias() {
    let x = || ramp(&[2, 3]);
    let biased: &[f64] = &[-0.015524, 0.841345, -0.158655, 0.0, 0.580029, -0.132062];
    microsoft("BiasGelu").of(x()).of(ramp(&[3])).gives(&[(&[2, 3], biased)]);
    let exact: &[f64] = &[-0.132062, 0.345731, -0.154269, 1.117938, 0.149677, -0.169971];
    microsoft("Gelu").of(x()).gives(&[(&[2, 3], exact)]);
    let by_tanh: &[f64] = &[-0.015084, 0.841192, -0.158808, 0.0, 0.579961, -0.132286];
    microsoft("FastGelu").of(x()).of(ramp(&[3])).gives(&[(&[2, 3], by_tanh)]);
    let without: &[f64] = &[-0.132286, 0.345714, -0.154286, 1.117714, 0.149675, -0.170039];
    microsoft("FastGelu").of(x()).gives(&[(&[2, 3], without)]);
    let quick: &[f64] = &[-0.133066, 0.350388, -0.149612, 1.116934, 0.1512, -0.16361];
    microsoft("QuickGelu").of(x()).gives(&[(&[2, 3], quick)]);
    let half: &[f64] = &[-0.435806, 0.281088, -0.218912, 0.814194, 0.132802, -0.3055];
    microsoft("QuickGelu").of(x()).float("alpha", 0.5).gives(&[(&[2, 3], half)]);
}

#[test]
fn products_and_convolutions_with_an_activation() {
    let product = || microsoft("FusedMatMul").of(ramp(&[3, 2])).of(ramp(&[2, 3])).int("transA", 1).int("transB", 1);
    product().float("alpha", 0.5).gives(&[(&[2, 2], &[0.59375, -0.9375, 0.1875, 0.75])]);
    product().int("transBatchA", 1).refused(Unsupported, "transBatchA");
    let gemm =
        |activation: &str| microsoft("FusedGemm").of(ramp(&[2, 3])).of(ramp(&[3, 2])).text("activation", activation);
    let leaky = || gemm("LeakyRelu").of(ramp(&[2]));
    leaky().float("activation_alpha", 0.25).gives(&[(&[2, 2], &[-0.015625, 0.875, -0.78125, 2.0])]);
    leaky().refused(Malformed, "LeakyRelu");
    gemm("Tanh").float("alpha", 0.5).gives(&[(&[2, 2], &[0.532587, 0.185333, -0.734072, 0.635149])]);
    gemm("Erf").refused(Unsupported, "Erf");
    let conv = || microsoft("FusedConv").of(ramp(&[1, 1, 4])).of(ramp(&[1, 1, 2]));
    let sum = conv().without().of(ramp(&[1, 1, 3])).text("activation", "Relu");
    sum.gives(&[(&[1, 1, 3], &[0.5625, 0.0, 0.75])]);
    let clipped = conv().text("activation", "Clip").floats("activation_params", &[-0.5, 0.75]);
    clipped.gives(&[(&[1, 1, 3], &[0.75, -0.5, 0.75])]);
}

#[test]
fn norms_of_sums() {
    let sum = |op: &str| microsoft(op).outputs(4).of(ramp(&[1, 2, 3])).of(reversed_rows(2, 3)).float("epsilon", 1e-5);
    let mut layer = sum("SkipLayerNormalization").of(ramp(&[3])).of(ramp(&[3])).of(ramp(&[3]));
    let shape: &[usize] = &[1, 2, 3];
    layer.refused(Unsupported, "output 1");
    layer.drop_outputs(&[1, 2]);
    let y: &[f64] = &[-0.615001, 1.198499, -0.055501, -0.615001, 1.198499, -0.055501];
    let results = layer.values();
    assert_near(&results[0], shape, y);
    assert_near(&results[3], shape, &[-1.25, 1.25, -1.75, -1.25, 1.25, -1.75]);
    let mut rms = sum("SkipSimplifiedLayerNormalization").of(ramp(&[3]));
    rms.drop_outputs(&[1, 2]);
    let results = rms.values();
    assert_near(&results[0], shape, &[0.0, 0.445563, 0.742605, 0.0, 0.445563, 0.742605]);
    assert_near(&results[3], shape, &[0.0, 0.75, -1.25, 0.0, 0.75, -1.25]);
}

fn assert_near(value: &Tensor, shape: &[usize], expected: &[f64]) {
    assert_eq!(value.shape(), shape);
    let near = |(got, wanted): (&f64, &f64)| (got - wanted).abs() <= 1e-5 * wanted.abs().max(1.0);
    assert!(value.to_f64s().iter().zip(expected).all(near), "{:?}, not {expected:?}", value.to_f64s());
}

#[test]
fn embeddings_with_a_norm() {
    let pair = |values: [i32; 2]| Tensor::from_slice(&[1, 2], &values);
    let table = || ramp(&[2, 3]);
    microsoft("EmbedLayerNormalization")
        .outputs(3)
        .of(pair([1, 0]))
        .of(pair([0, 1]))
        .of(table())
        .of(table())
        .of(table())
        .of(floats(&[1.0; 3]))
        .of(ramp(&[3]))
        .of(pair([1, 0]))
        .float("epsilon", 1e-5)
        .gives(&[
            (&[1, 2, 3], &[-1.757999, 1.896997, -1.388998, -0.459936, 1.120764, -1.910828]),
            (&[1], &[1.0]),
            (&[1, 2, 3], &[-1.25, 1.25, -1.75, 1.25, 1.0, -2.0]),
        ]);
}

#[test]
fn quantised_products_in_floats() {
    let weights = || Tensor::from_slice(&[3, 2], &[1i8, -2, 3, 4, -5, 6]);
    let scales = || floats(&[0.5, 0.25]);
    let dynamic = microsoft("DynamicQuantizeMatMul").of(ramp(&[2, 3])).of(weights()).of(scales());
    let dynamic = dynamic.without().of(ramp(&[2]));
    dynamic.gives(&[(&[2, 2], &[0.127451, 0.872549, 1.617647, -0.985294])]);
    microsoft("MatMulIntegerToFloat")
        .of(Tensor::from_slice(&[2, 3], &[1u8, 2, 3, 4, 5, 6]))
        .of(weights())
        .of(Tensor::scalar(0.5f32))
        .of(scales())
        .of(Tensor::scalar(2u8))
        .of(Tensor::from_slice(&[2], &[1i8, -1]))
        .of(ramp(&[2]))
        .gives(&[(&[2, 2], &[-2.75, 1.5, -5.75, 5.625])]);
}

#[test]
fn attention_with_masks_and_a_past() {
    let weights: Vec<f32> = (0..12).map(|index| (index * 5 % 13) as f32 / 8.0 - 0.75).collect();
    let attention = |heads: i64| {
        let weights = Tensor::from_slice(&[2, 6], &weights);
        microsoft("Attention").of(ramp(&[1, 2, 2])).of(weights).of(ramp(&[6])).int("num_heads", heads)
    };
    let shape: &[usize] = &[1, 2, 2];
    attention(2).gives(&[(shape, &[0.693267, -1.756438, 0.703139, -1.761232])]);
    let first_only: &[f64] = &[0.40625, -1.875, 0.40625, -1.875];
    attention(1).of(Tensor::from_slice(&[1, 2], &[1i32, 0])).gives(&[(shape, first_only)]);
    attention(1).of(Tensor::from_slice(&[1], &[1i32])).gives(&[(shape, first_only)]);
    let all: &[f64] = &[-1.25, 0.5, -1.4375, 1.875, -1.53125, 1.5, -0.5, 1.25, 0.40625, -1.875, 0.96875, -1.59375];
    let causal = attention(1).outputs(2).without().of(ramp(&[2, 1, 1, 1, 2])).int("unidirectional", 1);
    causal.gives(&[(shape, &[0.140249, -0.957757, 0.489985, -1.308172]), (&[2, 1, 1, 3, 2], all)]);
    attention(1).of(ramp(&[1, 1, 1, 1])).refused(Unsupported, "[1, 1, 1, 1]");
    attention(4).refused(ShapeMismatch, "4 heads");
    attention(0).refused(Malformed, "num_heads");
    attention(1).int("do_rotary", 1).refused(Unsupported, "do_rotary");
}

#[test]
fn attention_of_projected_operands() {
    let operands = || microsoft("MultiHeadAttention").of(ramp(&[1, 2, 2])).of(ramp(&[1, 3, 2])).int("num_heads", 1);
    let masked = operands().of(reversed_rows(3, 2)).of(ramp(&[6])).of(Tensor::from_slice(&[1, 3], &[1i32, 1, 0]));
    masked.float("scale", 0.5).gives(&[(&[1, 2, 2], &[0.227773, -0.774062, 0.125, -0.5])]);
    operands().without().refused(Unsupported, "packed");
    operands().of(reversed_rows(3, 2)).of(ramp(&[2])).refused(ShapeMismatch, "bias");
}

#[test]
fn attention_becomes_one_step() {
    let (builder, views) = microsoft("Attention")
        .unknown(&[2, 5, 8])
        .of(ramp(&[8, 24]))
        .of(ramp(&[24]))
        .unknown_integers(&[2, 5])
        .int("num_heads", 2)
        .translate()
        .unwrap();
    let mut plan = builder.plan;
    plan.outputs.push(views[0].tensor);
    let plan = crate::plan::passes::optimize(plan).unwrap();
    let kernels: Vec<&str> = plan.steps.iter().map(|step| step.kernel.name()).collect();
    assert!(kernels.contains(&"Attention") && !kernels.contains(&"Softmax"), "{kernels:?}");
}

#[test]
fn old_normalisations() {
    // ONNX Runtime takes odd sizes only; the even one follows the specification.
    let response = |size| node("LRN").of(ramp(&[1, 4, 1, 2])).int("size", size).float("alpha", 0.5);
    response(3)
        .gives(&[(&[1, 4, 1, 2], &[-1.025489, 0.410196, -0.407751, 0.973385, 0.215528, -0.597458, 0.884901, 0.0])]);
    response(2)
        .gives(&[(&[1, 4, 1, 2], &[-0.944458, 0.377783, -0.472572, 0.908083, 0.209513, -0.679523, 0.845897, 0.0])]);
    response(0).refused(Malformed, "size");
    let norm = |p| node("LpNormalization").of(ramp(&[2, 3])).int("p", p);
    norm(1).int("axis", 0).gives(&[(&[2, 3], &[-0.5, 0.666667, -0.4, 0.5, 0.333333, -0.6])]);
    norm(2).gives(&[(&[2, 3], &[-0.870388, 0.348155, -0.348155, 0.845154, 0.169031, -0.507093])]);
    norm(3).refused(Unsupported, "'p' is 3");
    node("LpNormalization").of(floats(&[0.0, 0.0])).gives(&[(&[2], &[0.0, 0.0])]);
}

#[test]
fn ranges_as_old_exporters_write_them() {
    let ones = Tensor::from_slice(&[2, 2], &[1.0f32, 0.0, -2.0, f32::NAN]);
    node("NonZero").of(ones).gives(&[(&[2, 3], &[0.0, 1.0, 1.0, 0.0, 0.0, 1.0])]);
    node("NonZero").of(Tensor::scalar(5i64)).gives(&[(&[1, 1], &[0.0])]);
    node("NonZero").of(floats(&[])).gives(&[(&[1, 0], &[])]);
    node("NonZero").unknown(&[2]).refused(crate::error::Status::UnsupportedDynamic, "operand 0");
}

#[test]
fn sequences_in_reverse() {
    let counted = |shape: &[usize]| Tensor::from_slice(shape, &[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let reversed = node("ReverseSequence").of(counted(&[3, 2])).of(integers(&[2, 3]));
    reversed.gives(&[(&[3, 2], &[2.0, 5.0, 0.0, 3.0, 4.0, 1.0])]);
    let reversed = node("ReverseSequence").of(counted(&[2, 3])).of(integers(&[2, 3]));
    reversed.int("time_axis", 1).int("batch_axis", 0).gives(&[(&[2, 3], &[1.0, 0.0, 2.0, 5.0, 4.0, 3.0])]);
    node("ReverseSequence").of(counted(&[3, 2])).of(integers(&[2])).refused(ShapeMismatch, "lengths");
}
