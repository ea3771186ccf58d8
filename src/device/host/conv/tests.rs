use crate::device::host::testing::{Random, check, check_constants, check_views};
use crate::ir::{DType, Scalar, Tensor};
use crate::kernels::{Binary, Conv, ConvTranspose, Instr, Map, Unary, Window};
use crate::plan::View;

const TOLERANCE: f64 = 2e-5;

/// A window of square strides, dilations and padding.
fn window(kernel: &[usize], stride: usize, dilation: usize, pad: usize) -> Window {
    let all = |value: usize| vec![value; kernel.len()];
    Window {
        kernel: kernel.to_vec(),
        strides: all(stride),
        dilations: all(dilation),
        pads_begin: all(pad),
        pads_end: all(pad),
    }
}

fn conv(groups: usize, window: Window) -> Conv {
    Conv { groups, window, epilogue: None }
}

/// Input, weights and bias.
fn operands(random: &mut Random, x: &[usize], outputs: usize, conv: &Conv) -> Vec<Tensor> {
    let weights = [&[outputs, x[1] / conv.groups], &conv.window.kernel[..]].concat();
    vec![random.floats(x), random.floats(&weights), random.floats(&[outputs])]
}

/// With constant and with computed weights.
fn check_both(conv: &Conv, inputs: &[Tensor]) {
    check_constants(conv.clone(), inputs, &[1, 2], TOLERANCE, |_, view| view);
    check(conv.clone(), inputs, TOLERANCE);
}

#[test]
fn windows_of_every_kind() {
    let mut random = Random::new(21);
    for (kernel, stride, dilation, pad) in [
        (&[1, 1][..], 1, 1, 0),
        (&[1, 1], 2, 1, 0),
        (&[3, 3], 1, 1, 1),
        (&[3, 3], 2, 1, 1),
        (&[3, 3], 1, 2, 2),
        (&[5, 5], 3, 1, 2),
        (&[2, 4], 1, 1, 3),
        (&[7, 7], 2, 1, 3),
    ] {
        for size in [[7, 7], [9, 40], [23, 5]] {
            let conv = conv(1, window(kernel, stride, dilation, pad));
            let inputs = operands(&mut random, &[2, 5, size[0], size[1]], 17, &conv);
            check_both(&conv, &inputs);
        }
    }
}

#[test]
fn one_and_three_dimensions() {
    let mut random = Random::new(22);
    for (kernel, stride, pad) in [(3, 1, 1), (25, 10, 0), (1, 1, 0)] {
        let conv = conv(1, window(&[kernel], stride, 1, pad));
        let inputs = operands(&mut random, &[2, 4, 130], 20, &conv);
        check_both(&conv, &inputs);
    }
    let conv = conv(1, window(&[2, 3, 3], 2, 1, 1));
    let inputs = operands(&mut random, &[1, 3, 5, 6, 9], 15, &conv);
    check_both(&conv, &inputs);
}

#[test]
fn a_window_that_sees_everything_once() {
    let mut random = Random::new(31);
    for (kernel, batch) in [([1, 1], 1), ([1, 1], 5), ([4, 3], 2)] {
        let mut conv = conv(1, window(&kernel, 1, 1, 0));
        let mut inputs = operands(&mut random, &[batch, 24, kernel[0], kernel[1]], 40, &conv);
        check_both(&conv, &inputs);
        conv.epilogue = Some(epilogue(true));
        inputs.push(random.floats(&[batch, 40, 1, 1]));
        check_both(&conv, &inputs);
    }
}

#[test]
fn groups_see_their_own_channels() {
    let mut random = Random::new(23);
    for (groups, kernel) in [(2, [3, 3]), (3, [1, 1]), (6, [2, 2])] {
        let conv = conv(groups, window(&kernel, 1, 1, 1));
        let inputs = operands(&mut random, &[2, 12, 9, 10], 30, &conv);
        check_both(&conv, &inputs);
    }
}

#[test]
fn depthwise_windows_of_every_kind() {
    let mut random = Random::new(24);
    for (kernel, stride, dilation, pad) in [
        ([3, 3], 1, 1, 1),
        ([3, 3], 2, 1, 1),
        ([5, 5], 1, 1, 2),
        ([5, 5], 2, 1, 2),
        ([3, 3], 1, 3, 3),
        ([3, 3], 2, 2, 0),
        ([1, 7], 1, 1, 3),
        ([4, 2], 3, 2, 3),
    ] {
        for size in [[7, 7], [9, 40], [23, 70], [200, 130]] {
            let conv = conv(3, window(&kernel, stride, dilation, pad));
            if conv.window.out_extents("Conv", &size).is_err() {
                continue;
            }
            let inputs = operands(&mut random, &[2, 3, size[0], size[1]], 6, &conv);
            check_constants(conv, &inputs, &[1, 2], TOLERANCE, |_, view| view);
        }
    }
    let conv = conv(4, window(&[9], 2, 1, 4));
    let inputs = operands(&mut random, &[2, 4, 61], 4, &conv);
    check_both(&conv, &inputs);
}

#[test]
fn padding_may_be_wider_than_the_input_and_uneven() {
    let mut random = Random::new(25);
    for groups in [1, 2] {
        let uneven = Window { pads_begin: vec![4, 0], pads_end: vec![1, 5], ..window(&[3, 3], 2, 1, 0) };
        let conv = conv(groups, uneven);
        let inputs = operands(&mut random, &[1, 2, 2, 3], 4, &conv);
        check_both(&conv, &inputs);
    }
}

/// `relu(sum + residual)`, or a gated sum that no register can hold back.
fn epilogue(gated: bool) -> Map {
    let mut body = vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Add, 0, 1)];
    if gated {
        body.extend([Instr::Unary(Unary::Sigmoid, 2), Instr::Binary(Binary::Mul, 2, 3)]);
    } else {
        body.push(Instr::Unary(Unary::Relu, 2));
    }
    Map { inputs: vec![DType::F32; 2], body, output: DType::F32 }
}

#[test]
fn epilogues_follow_the_bias() {
    let mut random = Random::new(26);
    for (groups, kernel) in [(1, [1, 1]), (1, [3, 3]), (4, [3, 3]), (4, [2, 3])] {
        for gated in [false, true] {
            let mut conv = conv(groups, window(&kernel, 1, 1, 0));
            conv.epilogue = Some(epilogue(gated));
            let mut inputs = operands(&mut random, &[2, 4, 12, 21], 20, &conv);
            let out = [2, 20, 13 - kernel[0], 22 - kernel[1]];
            for shape in [out, [1, 20, 1, 1], [2, 1, 1, 1], [1, 1, 1, out[3]]] {
                inputs.truncate(3);
                inputs.push(random.floats(&shape));
                let wide = |index: usize, view: View| if index == 3 { view.broadcast(&out).unwrap() } else { view };
                check_constants(conv.clone(), &inputs, &[1, 2], TOLERANCE, wide);
            }
        }
    }
}

#[test]
fn integers_and_zero_biases() {
    let mut random = Random::new(27);
    let conv = conv(2, window(&[3, 2], 1, 1, 1));
    let inputs = [
        random.tensor(DType::I32, &[2, 4, 6, 9], 255),
        random.tensor(DType::I32, &[6, 2, 3, 2], 127),
        random.tensor(DType::I32, &[6], 1000),
    ];
    check_constants(conv.clone(), &inputs, &[1, 2], 0.0, |_, view| view);
    let mut inputs = operands(&mut random, &[1, 4, 8, 8], 6, &conv);
    inputs[2] = Tensor::from_scalars(DType::F32, &[6], (0..6).map(|_| Scalar::Float(0.0)));
    check_both(&conv, &inputs);
}

#[test]
fn inputs_and_results_are_parts_of_other_tensors() {
    let mut random = Random::new(28);
    for groups in [1, 3] {
        let conv = conv(groups, window(&[3, 3], 1, 1, 1));
        let inputs = [random.floats(&[2, 7, 8, 9]), random.floats(&[6, 3 / groups, 3, 3]), random.floats(&[6])];
        check_views(conv, &inputs, TOLERANCE, |index, view| if index == 0 { view.slice(1, 5, 3, -2) } else { view });
    }
}

#[test]
fn nothing_to_convolve() {
    let mut random = Random::new(29);
    let conv = conv(1, window(&[3, 3], 1, 1, 2));
    for x in [[0, 3, 5, 5], [2, 3, 0, 5]] {
        let inputs = operands(&mut random, &x, 4, &conv);
        check(conv.clone(), &inputs, 0.0);
    }
}

#[test]
fn transposed_convolutions_of_every_kind() {
    let mut random = Random::new(30);
    for (kernel, stride, dilation, pad, output_padding, groups) in [
        (&[2, 2][..], 2, 1, 0, 0, 1),
        (&[3, 3], 2, 1, 1, 1, 1),
        (&[4, 4], 2, 1, 1, 0, 2),
        (&[3, 2], 1, 2, 0, 0, 1),
        (&[5], 3, 1, 2, 1, 1),
        (&[1, 3, 2], 2, 1, 0, 0, 4),
    ] {
        let kernel_case = ConvTranspose {
            groups,
            window: window(kernel, stride, dilation, pad),
            output_padding: vec![output_padding; kernel.len()],
        };
        let x = [&[2, 8][..], &[6, 5, 7][..kernel.len()]].concat();
        let inputs = [random.floats(&x), random.floats(&[&[8, 3], kernel].concat()), random.floats(&[3 * groups])];
        check_constants(kernel_case.clone(), &inputs, &[1, 2], TOLERANCE, |_, view| view);
        check(kernel_case, &inputs, TOLERANCE);
    }
}
