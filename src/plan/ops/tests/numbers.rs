//! What nodes compute.

use super::{floats, gentle, integers, node, ramp};
use crate::error::Status::ShapeMismatch;
use crate::ir::Tensor;

#[test]
fn slices_and_pads_by_attributes() {
    node("Slice")
        .opset(7)
        .of(ramp(&[3, 4]))
        .ints("starts", &[0, -3])
        .ints("ends", &[2, 1000])
        .ints("axes", &[0, 1])
        .gives(&[(&[2, 3], &[0.5, -0.5, 1.25, -0.75, 1.0, 0.0])]);
    node("Pad")
        .opset(7)
        .of(ramp(&[2, 3]))
        .ints("pads", &[0, 1, 1, 0])
        .float("value", 9.0)
        .gives(&[(&[3, 4], &[9.0, -1.25, 0.5, -0.5, 9.0, 1.25, 0.25, -0.75, 9.0, 9.0, 9.0, 9.0])]);
    node("Pad")
        .opset(7)
        .of(ramp(&[2, 3]))
        .ints("pads", &[0, 2, 0, 1])
        .text("mode", "reflect")
        .gives(&[(&[2, 6], &[-0.5, 0.5, -1.25, 0.5, -0.5, 0.5, -0.75, 0.25, 1.25, 0.25, -0.75, 0.25])]);
}

#[test]
fn a_negative_pad_crops() {
    // By the specification: ONNX Runtime agrees.
    let pads = integers(&[-1, 1, 0, -2]);
    node("Pad").of(ramp(&[2, 3])).of(pads).gives(&[(&[1, 2], &[0.0, 1.25])]);
}

#[test]
fn slices_down_to_the_first_element() {
    let slice = |start, end, step| {
        node("Slice")
            .of(floats(&[1.0, 2.0, 3.0, 4.0]))
            .of(integers(&[start]))
            .of(integers(&[end]))
            .of(integers(&[0]))
            .of(integers(&[step]))
    };
    slice(-1, i64::MIN, -1).gives(&[(&[4], &[4.0, 3.0, 2.0, 1.0])]);
    slice(100, 0, -2).gives(&[(&[2], &[4.0, 2.0])]);
    slice(-100, i64::MIN, -3).gives(&[(&[1], &[1.0])]);
    slice(0, i64::MAX, i64::MAX).gives(&[(&[1], &[1.0])]);
    slice(3, i64::MIN, i64::MIN).gives(&[(&[1], &[4.0])]);
}

#[test]
fn resizes_as_old_opsets_did() {
    node("Upsample")
        .opset(7)
        .of(ramp(&[1, 1, 2, 2]))
        .floats("scales", &[1.0, 1.0, 2.0, 1.5])
        .gives(&[(&[1, 1, 4, 3], &[-1.25, -1.25, 0.5, -1.25, -1.25, 0.5, -0.5, -0.5, 1.25, -0.5, -0.5, 1.25])]);
    node("Resize")
        .opset(10)
        .of(ramp(&[1, 1, 1, 5]))
        .of(floats(&[1.0, 1.0, 1.0, 0.6]))
        .gives(&[(&[1, 1, 1, 3], &[-1.25, -0.5, 0.25])]);
}

#[test]
fn resizes_by_cubics_and_crops() {
    node("Resize")
        .of(ramp(&[1, 1, 2, 3]))
        .without()
        .without()
        .of(integers(&[1, 1, 3, 4]))
        .text("mode", "cubic")
        .int("exclude_outside", 1)
        .gives(&[(
            &[1, 1, 3, 4],
            &[
                -1.665985, -0.182894, 0.334528, -0.554815, -0.030057, 0.328104, 0.013743, -0.705153, 1.605871,
                0.839101, -0.307042, -0.855491,
            ],
        )]);
    let region = floats(&[0.0, 0.0, 0.0, 0.1, 1.0, 1.0, 1.0, 1.2]);
    node("Resize")
        .of(ramp(&[1, 1, 2, 5]))
        .of(region)
        .without()
        .of(integers(&[1, 1, 3, 4]))
        .text("mode", "linear")
        .text("coordinate_transformation_mode", "tf_crop_and_resize")
        .float("extrapolation_value", 9.0)
        .gives(&[(
            &[1, 1, 3, 4],
            &[-0.55, -0.366667, 0.916667, 9.0, -0.3, -0.116667, 0.25, 9.0, -0.05, 0.133333, -0.416666, 9.0],
        )]);
}

#[test]
fn softmax_spans_all_trailing_axes_before_opset_13() {
    node("Softmax")
        .opset(11)
        .of(ramp(&[2, 2, 2]))
        .int("axis", 1)
        .gives(&[(&[2, 2, 2], &[0.047497, 0.273325, 0.100551, 0.578628, 0.234539, 0.086282, 0.496519, 0.182659])]);
}

#[test]
fn selects_and_splits() {
    node("TopK")
        .opset(7)
        .outputs(2)
        .of(ramp(&[2, 4]))
        .int("axis", 1)
        .int("k", 2)
        .gives(&[(&[2, 2], &[1.25, 0.5, 1.0, 0.25]), (&[2, 2], &[3.0, 1.0, 2.0, 0.0])]);
    node("Split")
        .outputs(2)
        .of(ramp(&[5, 1]))
        .int("num_outputs", 2)
        .gives(&[(&[3, 1], &[-1.25, 0.5, -0.5]), (&[2, 1], &[1.25, 0.25])]);
    let depth = Tensor::scalar(4i64);
    node("OneHot").of(integers(&[0, -1, 3, 5])).of(depth).of(floats(&[-1.0, 2.0])).int("axis", 0).gives(&[(
        &[4, 4],
        &[2.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 2.0, 2.0, -1.0],
    )]);
    node("Trilu")
        .of(ramp(&[3, 4]))
        .of(Tensor::scalar(1i64))
        .int("upper", 0)
        .gives(&[(&[3, 4], &[-1.25, 0.5, 0.0, 0.0, 0.25, -0.75, 1.0, 0.0, -1.0, 0.75, -0.25, -1.25])]);
    node("CumSum")
        .of(floats(&[1.0, 2.0, 3.0, 4.0]))
        .of(Tensor::scalar(0i64))
        .int("exclusive", 1)
        .int("reverse", 1)
        .gives(&[(&[4], &[9.0, 7.0, 4.0, 0.0])]);
}

#[test]
fn scatters_elements() {
    let scatter = |axis: i64, indices: &[i64]| {
        node("ScatterElements")
            .of(Tensor::from_slice(&[3, 3], &[0f32; 9]))
            .of(Tensor::from_slice(&[2, 3], indices))
            .of(Tensor::from_slice(&[2, 3], &[1f32, 1.1, 1.2, 2.0, 2.1, 2.2]))
            .int("axis", axis)
    };
    scatter(0, &[1, 0, 2, 0, 2, -2]).gives(&[(&[3, 3], &[2.0, 1.1, 0.0, 1.0, 0.0, 2.2, 0.0, 2.1, 1.2])]);
    scatter(1, &[1, 0, 1, 0, 2, 1])
        .text("reduction", "add")
        .gives(&[(&[3, 3], &[1.1, 2.2, 0.0, 2.0, 2.2, 2.1, 0.0, 0.0, 0.0])]);
    node("Scatter").unknown(&[2, 2]).of(integers(&[0])).of(floats(&[1.0])).opset(9).refused(ShapeMismatch, "[2, 2]");
}

#[test]
fn gathers_and_scatters() {
    let indices = Tensor::from_slice(&[2, 1], &[1i64, -1]);
    node("GatherND").of(ramp(&[2, 2, 2])).of(indices).int("batch_dims", 1).gives(&[(&[2, 2], &[-0.5, 1.25, 1.0, 0.0])]);
    let indices = Tensor::from_slice(&[3, 1], &[1i64, -1, 1]);
    node("ScatterND")
        .of(floats(&[1.0, 2.0, 3.0, 4.0]))
        .of(indices)
        .of(floats(&[5.0, 6.0, 7.0]))
        .text("reduction", "add")
        .gives(&[(&[4], &[1.0, 14.0, 3.0, 10.0])]);
    node("Gather").of(ramp(&[4])).of(integers(&[0, 3, -2])).gives(&[(&[3], &[-1.25, 1.25, -0.5])]);
    node("DepthToSpace")
        .of(ramp(&[1, 4, 1, 2]))
        .int("blocksize", 2)
        .text("mode", "CRD")
        .gives(&[(&[1, 1, 2, 4], &[-1.25, -0.5, 0.5, 1.25, 0.25, 1.0, -0.75, 0.0])]);
}

#[test]
fn remainders_and_infinities() {
    let dividends = Tensor::from_slice(&[3], &[-7i32, 7, -7]);
    let divisors = Tensor::from_slice(&[3], &[3i32, -3, -3]);
    node("Mod").of(dividends.clone()).of(divisors.clone()).gives(&[(&[3], &[2.0, -2.0, -1.0])]);
    node("Mod").of(dividends).of(divisors).int("fmod", 1).gives(&[(&[3], &[-1.0, 1.0, -1.0])]);
    node("IsInf")
        .of(floats(&[f32::INFINITY, f32::NEG_INFINITY, 1.0, f32::NAN]))
        .int("detect_positive", 0)
        .gives(&[(&[4], &[0.0, 1.0, 0.0, 0.0])]);
    let x = Tensor::from_slice(&[2, 2], &[f32::NEG_INFINITY, f32::NEG_INFINITY, 1.0, 2.0]);
    node("ReduceLogSumExp")
        .opset(11)
        .of(x)
        .ints("axes", &[1])
        .int("keepdims", 0)
        .gives(&[(&[2], &[f64::NEG_INFINITY, 2.313262])]);
}

#[test]
fn powers_keep_the_type_of_the_base() {
    let base = Tensor::from_slice(&[3], &[2i32, -3, 4]);
    node("Pow").of(base.clone()).of(floats(&[0.5])).gives(&[(&[3], &[1.0, 0.0, 2.0])]);
    node("Pow").of(base.clone()).of(Tensor::scalar(2i64)).gives(&[(&[3], &[4.0, 9.0, 16.0])]);
    assert_eq!(node("Pow").of(base).of(Tensor::scalar(3f32)).values()[0].to_vec::<i32>().unwrap(), [8, -27, 64]);
}

#[test]
fn activations() {
    node("PRelu")
        .opset(9)
        .of(ramp(&[2, 3]))
        .of(floats(&[0.1, 0.2, 0.3]))
        .gives(&[(&[2, 3], &[-0.125, 0.5, -0.15, 1.25, 0.25, -0.225])]);
    node("Selu").opset(7).of(ramp(&[4])).gives(&[(&[4], &[-1.254395, 0.525351, -0.691758, 1.313376])]);
    node("HardSwish").of(floats(&[-4.0, -1.0, 1.0, 4.0])).gives(&[(&[4], &[0.0, -0.333333, 0.666667, 4.0])]);
    node("Clip").opset(7).of(ramp(&[4])).float("min", -1.0).float("max", 0.5).gives(&[(&[4], &[-1.0, 0.5, -0.5, 0.5])]);
    node("Clip").of(ramp(&[4])).without().of(Tensor::scalar(0f32)).gives(&[(&[4], &[-1.25, 0.0, -0.5, 0.0])]);
}

#[test]
fn matrix_products() {
    node("Gemm")
        .opset(11)
        .of(ramp(&[3, 2]))
        .of(ramp(&[4, 3]))
        .of(ramp(&[4]))
        .float("alpha", 0.5)
        .float("beta", 2.0)
        .int("transA", 1)
        .int("transB", 1)
        .gives(&[(&[2, 4], &[-1.90625, 0.0625, -1.75, 1.9375, -2.3125, 1.75, -0.375, 3.0])]);
    node("Einsum")
        .of(ramp(&[2, 3]))
        .of(ramp(&[4, 3]))
        .of(ramp(&[4, 2]))
        .text("equation", "ij,kj,kl->il")
        .gives(&[(&[2, 2], &[-2.671875, 0.265625, 2.546875, 0.703125])]);
    node("Einsum").of(ramp(&[3, 3])).text("equation", "i i -> i").gives(&[(&[3], &[-1.25, 0.25, -1.0])]);
    node("Einsum")
        .of(ramp(&[2, 2, 3]))
        .of(ramp(&[3, 2]))
        .text("equation", "...ij,jk")
        .gives(&[(&[2, 2, 2], &[1.1875, 0.375, -1.875, 1.5, -1.5, 1.25, -1.125, 1.0])]);
}

#[test]
fn vectors_in_matrix_products_by_numpys_rules() {
    let shape =
        |left: &[usize], right: &[usize]| node("MatMul").of(ramp(left)).of(ramp(right)).values()[0].shape().to_vec();
    assert_eq!(shape(&[3], &[3]), [0usize; 0]);
    assert_eq!(shape(&[3], &[2, 3, 4]), [2, 4]);
    assert_eq!(shape(&[2, 1, 5, 3], &[3]), [2, 1, 5]);
    assert_eq!(shape(&[2, 1, 5, 3], &[4, 3, 6]), [2, 4, 5, 6]);
    node("MatMul").of(floats(&[1.0, 2.0, 3.0])).of(floats(&[4.0, 5.0, 6.0])).gives(&[(&[], &[32.0])]);
}

#[test]
fn convolutions_and_pools() {
    node("Conv")
        .opset(11)
        .of(ramp(&[1, 2, 5]))
        .of(ramp(&[2, 1, 3]))
        .int("group", 2)
        .text("auto_pad", "SAME_LOWER")
        .ints("strides", &[2])
        .gives(&[(&[1, 2, 3], &[-0.875, -1.5, -1.4375, -0.9375, 2.0, -1.0625])]);
    node("ConvTranspose")
        .opset(11)
        .of(ramp(&[1, 1, 2, 2]))
        .of(ramp(&[1, 1, 3, 3]))
        .ints("strides", &[2, 2])
        .ints("output_shape", &[5, 6])
        .gives(&[(
            &[1, 1, 5, 6],
            &[
                1.5625, -0.625, 0.0, 0.25, -0.25, 0.0, -1.5625, -0.3125, 1.5625, 0.125, -0.375, 0.0, -0.625, -0.25,
                0.4375, 0.625, -1.125, 0.0, -0.625, -0.125, 1.9375, 0.3125, -0.9375, 0.0, -0.5, 0.0, 1.75, 0.0, -1.25,
                0.0,
            ],
        )]);
    node("MaxPool")
        .opset(12)
        .outputs(2)
        .of(ramp(&[1, 1, 4, 5]))
        .ints("kernel_shape", &[2, 2])
        .ints("strides", &[2, 2])
        .int("ceil_mode", 1)
        .int("storage_order", 1)
        .gives(&[
            (&[1, 1, 2, 3], &[1.0, 1.25, 0.75, 0.25, 1.0, 1.25]),
            (&[1, 1, 2, 3], &[5.0, 12.0, 17.0, 3.0, 11.0, 18.0]),
        ]);
    node("AveragePool")
        .opset(11)
        .of(ramp(&[1, 1, 5]))
        .ints("kernel_shape", &[3])
        .ints("strides", &[2])
        .ints("pads", &[1, 1])
        .int("count_include_pad", 1)
        .gives(&[(&[1, 1, 3], &[-0.25, 0.416667, 0.5])]);
}

#[test]
fn normalizations() {
    node("BatchNormalization")
        .opset(7)
        .of(ramp(&[1, 2, 3]))
        .of(floats(&[1.0, 2.0]))
        .of(floats(&[0.0, 1.0]))
        .of(floats(&[0.5, -0.5]))
        .of(floats(&[1.0, 4.0]))
        .float("epsilon", 1e-3)
        .gives(&[(&[1, 2, 3], &[-1.749126, 0.0, -0.9995, 2.749781, 1.749906, 0.750031])]);
    node("GroupNormalization")
        .opset(18)
        .of(ramp(&[1, 4, 2]))
        .of(floats(&[1.0, 2.0]))
        .of(floats(&[0.0, 1.0]))
        .int("num_groups", 2)
        .gives(&[(&[1, 4, 2], &[-1.313057, 0.525223, -0.525223, 1.313057, 1.399995, -1.799964, 3.799964, 0.600005])]);
    node("LayerNormalization")
        .outputs(3)
        .of(ramp(&[2, 4]))
        .of(floats(&[1.0, 2.0, 3.0, 4.0]))
        .of(floats(&[0.0, 0.0, 1.0, 1.0]))
        .gives(&[
            (&[2, 4], &[-1.313057, 1.050446, -0.575669, 6.252228, 0.199997, -2.799964, 5.199946, 0.20001]),
            (&[2, 1], &[0.0, 0.125]),
            (&[2, 1], &[1.050446, 1.599979]),
        ]);
}

#[test]
fn recurrences() {
    node("LSTM")
        .outputs(3)
        .of(ramp(&[3, 2, 2]))
        .of(ramp(&[2, 8, 2]))
        .of(gentle(&[2, 8, 2]))
        .of(ramp(&[2, 16]))
        .of(Tensor::from_slice(&[2], &[3i32, 2]))
        .of(ramp(&[2, 2, 2]))
        .of(gentle(&[2, 2, 2]))
        .of(ramp(&[2, 6]))
        .int("hidden_size", 2)
        .text("direction", "bidirectional")
        .float("clip", 3.0)
        .gives(&[
            (
                &[3, 2, 2, 2],
                &[
                    -0.003607, -0.034325, 0.009847, -0.047768, -0.32329, 0.526857, -0.180549, 0.272199, 0.018306,
                    -0.153455, 0.03673, 0.425704, -0.236061, 0.101346, 0.19702, -0.010339, 0.050056, -0.081009, 0.0,
                    0.0, -0.159388, 0.307049, 0.0, 0.0,
                ],
            ),
            (&[2, 2, 2], &[0.050056, -0.081009, 0.03673, 0.425704, -0.32329, 0.526857, -0.180549, 0.272199]),
            (&[2, 2, 2], &[0.325857, -0.680072, 0.099498, 0.554191, -0.823638, 0.935714, -0.375444, 0.664518]),
        ]);
    node("GRU")
        .outputs(2)
        .of(ramp(&[2, 1, 2]))
        .of(ramp(&[1, 6, 2]))
        .of(gentle(&[1, 6, 2]))
        .of(ramp(&[1, 12]))
        .int("hidden_size", 2)
        .text("direction", "reverse")
        .int("linear_before_reset", 1)
        .texts("activations", &["HardSigmoid", "Tanh"])
        .floats("activation_alpha", &[0.3])
        .floats("activation_beta", &[0.4])
        .gives(&[(&[2, 1, 1, 2], &[0.403996, -0.091968, 0.280148, 0.0]), (&[1, 1, 2], &[0.403996, -0.091968])]);
}

#[test]
fn a_batch_first_recurrence_is_the_same_on_other_axes() {
    // ONNX Runtime has no layout 1; the other layout is the oracle.
    let weights =
        |sample: super::Sample| sample.of(ramp(&[1, 6, 2])).of(gentle(&[1, 6, 2])).int("hidden_size", 2).outputs(2);
    let (builder, views) = weights(node("GRU").of(ramp(&[3, 2, 2]))).translate().unwrap();
    let expected: Vec<Tensor> = [views[0].permute(&[2, 0, 1, 3]), views[1].swap(0, 1)]
        .iter()
        .map(|view| builder.value(view).unwrap().unwrap())
        .collect();
    let x = ramp(&[3, 2, 2]).to_vec::<f32>().unwrap();
    let swapped: Vec<f32> = (0..12).map(|i| x[(i / 2 % 3) * 4 + i / 6 * 2 + i % 2]).collect();
    let x = Tensor::from_slice(&[2, 3, 2], &swapped);
    assert_eq!(weights(node("GRU").of(x)).int("layout", 1).values(), expected);
}

#[test]
fn quantization() {
    let u8s = |shape: &[usize], values: &[u8]| Tensor::from_slice(shape, values);
    let i8s = |shape: &[usize], values: &[i8]| Tensor::from_slice(shape, values);
    let zero = |value: u8| Tensor::scalar(value);
    node("QuantizeLinear")
        .of(floats(&[-1.0, 0.25, 0.75, 1.25, 300.0]))
        .of(Tensor::scalar(0.5f32))
        .of(zero(3))
        .gives(&[(&[5], &[1.0, 3.0, 5.0, 5.0, 255.0])]);
    node("DequantizeLinear")
        .of(u8s(&[2, 2], &[10, 20, 30, 40]))
        .of(floats(&[0.5, 0.25]))
        .of(u8s(&[2], &[8, 16]))
        .int("axis", 0)
        .gives(&[(&[2, 2], &[1.0, 6.0, 3.5, 6.0])]);
    node("DynamicQuantizeLinear").outputs(3).of(ramp(&[2, 4])).gives(&[
        (&[2, 4], &[0.0, 178.0, 76.0, 254.0, 153.0, 51.0, 229.0, 127.0]),
        (&[], &[0.009804]),
        (&[], &[127.0]),
    ]);
    node("MatMulInteger")
        .of(u8s(&[2, 2], &[1, 200, 30, 4]))
        .of(i8s(&[2, 2], &[1, -2, 3, 4]))
        .of(zero(100))
        .of(i8s(&[2], &[1, 2]))
        .gives(&[(&[2, 2], &[200.0, 596.0, -192.0, 88.0])]);
    let x: Vec<u8> = (0..9).map(|index| index * 20).collect();
    node("QLinearConv")
        .of(u8s(&[1, 1, 3, 3], &x))
        .of(Tensor::scalar(0.1f32))
        .of(zero(10))
        .of(i8s(&[2, 1, 2, 2], &[1, -2, 3, 4, -1, 2, 5, 6]))
        .of(floats(&[0.05, 0.1]))
        .of(i8s(&[2], &[0, 0]))
        .of(Tensor::scalar(0.5f32))
        .of(zero(100))
        .of(Tensor::from_slice(&[2], &[10i32, -20]))
        .gives(&[(&[1, 2, 2, 2], &[104.0, 105.0, 108.0, 109.0, 114.0, 118.0, 128.0, 133.0])]);
}

#[test]
fn activations_of_one_formula() {
    node("Celu")
        .of(ramp(&[6]))
        .float("alpha", 1.5)
        .gives(&[(&[6], &[-0.848103, 0.5, -0.425203, 1.25, 0.25, -0.590204])]);
    node("Mish").of(ramp(&[6])).gives(&[(&[6], &[-0.308414, 0.375245, -0.220744, 1.13187, 0.169572, -0.276495])]);
}

#[test]
fn float64_is_computed_in_binary32() {
    node("Cast").of(integers(&[3, -(1 << 24)])).int("to", 11).gives(&[(&[2], &[3.0, -16_777_216.0])]);
    node("Cast").of(floats(&[0.1])).int("to", 11).gives(&[(&[1], &[f64::from(0.1f32)])]);
}

#[test]
fn diagonals() {
    let shape = || Tensor::from_slice(&[3, 4], &[0i64; 12]);
    let expected: &[(&[usize], &[f64])] = &[(&[3, 4], &[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0])];
    node("EyeLike").of(shape()).int("k", 1).int("dtype", 1).gives(expected);
    node("EyeLike").of(shape()).int("k", i64::MAX).gives(&[(&[3, 4], &[0.0; 12])]);
}

#[test]
fn ranges_include_the_start_and_not_the_limit() {
    let range = |start: i64, limit: i64, delta: i64| {
        node("Range").of(Tensor::scalar(start)).of(Tensor::scalar(limit)).of(Tensor::scalar(delta))
    };
    range(2, 9, 3).gives(&[(&[3], &[2.0, 5.0, 8.0])]);
    range(2, -5, -3).gives(&[(&[3], &[2.0, -1.0, -4.0])]);
    range(2, 2, 1).gives(&[(&[0], &[])]);
    range(5, 4, 3).gives(&[(&[0], &[])]);
    range(i64::MIN, i64::MAX, i64::MAX).gives(&[(&[3], &[i64::MIN as f64, -1.0, i64::MAX as f64 - 1.0])]);
}
