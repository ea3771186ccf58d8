//! Convolutions, pools and resizes in every precision against their definitions, alone and in networks whose tensors lie channels last.

use super::testing::{
    Random, TRAITS, check, check_constants, check_plan, check_views, launches, no_chain, plan_of, window,
};
use super::{Program, lower};
use crate::ir::{DType, Scalar, Tensor};
use crate::kernels::{
    AxisTaps, Binary, Conv, ConvTranspose, Instr, Kernel, Map, Pool, PoolKind, Resize, Unary, Window,
};
use crate::lower::Precision;
use crate::plan::{Bucket, Builder, Origin, View};

fn same(dims: usize, kernel: usize) -> Window {
    window(&vec![[kernel, 1, 1, kernel / 2, kernel / 2]; dims])
}

/// Floats small enough that sums of a few hundred products stay near 1.
fn small(random: &mut Random, shape: &[usize]) -> Tensor {
    let values: Vec<Scalar> = random.floats(shape).scalars().map(|x| Scalar::Float(x.as_f64() / 8.0)).collect();
    Tensor::from_scalars(DType::F32, shape, values)
}

/// X, W and bias of a convolution of `channels` to `outputs`.
fn operands(random: &mut Random, groups: usize, x: &[usize], outputs: usize, window: &Window) -> Vec<Tensor> {
    let w = [&[outputs, x[1] / groups], &window.kernel[..]].concat();
    vec![small(random, x), small(random, &w), small(random, &[outputs])]
}

fn constant(value: f64) -> Instr {
    Instr::Const(DType::F32, Scalar::Float(value))
}

/// relu(x + residual)
fn residual() -> Map {
    let body = vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Add, 0, 1), Instr::Unary(Unary::Relu, 2)];
    Map { inputs: vec![DType::F32; 2], body, output: DType::F32 }
}

/// x clip(x + 3, 0, 6) / 6
fn hard_swish() -> Map {
    let body = vec![
        Instr::Input(0),
        constant(3.0),
        Instr::Binary(Binary::Add, 0, 1),
        constant(0.0),
        Instr::Binary(Binary::Max, 2, 3),
        constant(6.0),
        Instr::Binary(Binary::Min, 4, 5),
        constant(1.0 / 6.0),
        Instr::Binary(Binary::Mul, 6, 7),
        Instr::Binary(Binary::Mul, 0, 8),
    ];
    Map { inputs: vec![DType::F32], body, output: DType::F32 }
}

/// Where constant weights are packed and where they come as inputs.
fn check_both(conv: &Conv, operands: &[Tensor]) {
    check_constants(conv.clone(), operands, &[1, 2], 1e-4, |_, view| view);
    check(conv.clone(), operands, 1e-4);
}

#[test]
fn windows_of_every_kind() {
    let mut random = Random::new(1);
    let cases: [(usize, &[usize], usize, Window); 11] = [
        // Strides, dilations, asymmetric padding, odd extents, a batch.
        (1, &[2, 5, 9, 7], 20, window(&[[3, 2, 1, 1, 0], [2, 1, 2, 0, 3]])),
        (1, &[3, 8, 7, 5], 24, same(2, 3)),
        (1, &[1, 3, 11, 13], 16, window(&[[7, 2, 1, 3, 3], [7, 2, 1, 3, 3]])),
        (1, &[2, 16, 6, 6], 40, window(&[[1, 2, 1, 0, 0], [1, 2, 1, 0, 0]])),
        (2, &[2, 6, 5, 4], 34, same(2, 3)),
        (1, &[2, 4, 9], 18, window(&[[4, 3, 2, 2, 1]])),
        (1, &[1, 3, 4, 5, 6], 17, window(&[[2, 1, 1, 1, 0], [3, 2, 1, 0, 1], [2, 1, 2, 1, 1]])),
        (1, &[1, 2, 3, 3, 2, 3], 5, window(&[[2, 1, 1, 0, 1]; 4])),
        // Few output channels; a window that sees the input once; padding that no element fills.
        (1, &[1, 9, 6, 6], 1, same(2, 1)),
        (1, &[2, 7, 3, 4], 33, window(&[[3, 1, 1, 0, 0], [4, 1, 1, 0, 0]])),
        (1, &[1, 2, 2, 2], 16, window(&[[1, 1, 1, 2, 2], [2, 5, 1, 4, 0]])),
    ];
    for (groups, x, outputs, window) in cases {
        let operands = operands(&mut random, groups, x, outputs, &window);
        check_both(&Conv { groups, window, epilogue: None }, &operands);
    }
}

#[test]
fn groups_of_few_channels() {
    let mut random = Random::new(2);
    let skew = || window(&[[3, 2, 1, 1, 0], [2, 1, 2, 0, 3]]);
    let cases: [(usize, &[usize], usize, Window, &str); 6] = [
        (6, &[2, 6, 7, 5], 6, skew(), "conv_direct_f32"),
        (8, &[1, 8, 6, 6], 8, same(2, 5), "conv_direct_f32"),
        (3, &[2, 3, 7], 6, same(1, 3), "conv_direct_f32"),
        (4, &[1, 8, 5, 5], 12, skew(), "conv_direct_f32"),
        (2, &[1, 6, 4, 4], 16, same(2, 3), "conv_direct_f32"),
        (5, &[1, 5, 3, 4, 5], 5, same(3, 3), "conv_direct_f32"),
    ];
    for (groups, x, outputs, window, entry) in cases {
        let operands = operands(&mut random, groups, x, outputs, &window);
        let conv = Conv { groups, window, epilogue: None };
        assert!(launches(conv.clone(), &operands).contains(&entry));
        check_both(&conv, &operands);
    }
}

#[test]
fn one_by_one_is_a_matrix_product() {
    let mut random = Random::new(3);
    for (groups, x, outputs) in [(1, vec![2, 9, 4, 5], 24), (2, vec![1, 8, 3, 3], 40), (1, vec![3, 6, 7], 5)] {
        let conv = Conv { groups, window: same(x.len() - 2, 1), epilogue: None };
        let operands = operands(&mut random, groups, &x, outputs, &conv.window);
        let plain: Vec<&str> = launches(conv.clone(), &operands).into_iter().filter(|name| *name != "copy").collect();
        assert!(plain.iter().all(|name| name.starts_with("matmul_")), "{plain:?}");
        check_both(&conv, &operands);
        // Channels side by side, and neither channels nor positions.
        let rank = x.len();
        for swap in [[1, rank - 1], [0, 1]] {
            let mut turned = operands.clone();
            let mut shape = x.clone();
            shape.swap(swap[0], swap[1]);
            turned[0] = small(&mut random, &shape);
            let view = |index, view: View| if index == 0 { view.swap(swap[0], swap[1]) } else { view };
            check_views(conv.clone(), &turned, 1e-4, view);
        }
    }
}

#[test]
fn strided_views_of_operands_and_epilogues() {
    let mut random = Random::new(4);
    let (shape, outputs) = ([2usize, 6, 5, 4], 18);
    let conv = Conv { groups: 1, window: same(2, 3), epilogue: Some(residual()) };
    let mut all = operands(&mut random, 1, &shape, outputs, &conv.window);
    all[0] = small(&mut random, &[4, 5, 6, 2]);
    // The residual is one value per channel, or lies channels last, or anyhow.
    for (given, order) in [([2, 18, 1, 1], [0, 1, 2, 3]), ([2, 5, 4, 18], [0, 3, 1, 2]), ([4, 2, 18, 5], [1, 2, 3, 0])]
    {
        let mut all = all.clone();
        all.push(small(&mut random, &given));
        check_constants(conv.clone(), &all, &[1, 2], 1e-4, |index, view| match index {
            0 => view.permute(&[3, 2, 1, 0]).slice(2, 4, 5, -1),
            3 => view.permute(&order).broadcast(&[2, 18, 5, 4]).unwrap(),
            _ => view,
        });
    }
}

#[test]
fn epilogues_in_registers_and_apart() {
    let mut random = Random::new(5);
    for groups in [1, 8] {
        for (kernel, epilogue) in [3, 1]
            .into_iter()
            .flat_map(|kernel| [hard_swish(), no_chain(), residual()].map(|epilogue| (kernel, epilogue)))
        {
            let window = same(2, kernel);
            let mut all = operands(&mut random, groups, &[2, 8, 5, 3], 16, &window);
            if epilogue == residual() {
                all.push(small(&mut random, &[2, 16, 5, 3]));
            }
            check_both(&Conv { groups, window, epilogue: Some(epilogue) }, &all);
        }
    }
    // A zero bias is no step of the chain; eight steps with a bias are one too many.
    let mut chain = Map { inputs: vec![DType::F32], body: vec![Instr::Input(0)], output: DType::F32 };
    chain.body.extend((0..8).map(|index| Instr::Unary(Unary::Tanh, index)));
    let conv = Conv { groups: 1, window: same(2, 3), epilogue: Some(chain) };
    let mut all = operands(&mut random, 1, &[1, 4, 5, 3], 16, &conv.window);
    check_both(&conv, &all);
    let single = |view: View| View { shape: vec![16], strides: vec![0], ..view };
    all[2] = Tensor::from_slice(&[1], &[0f32]);
    let program = |all: &[Tensor]| -> Program {
        let view = |index, view| if index == 2 { single(view) } else { view };
        let (plan, _) = plan_of(conv.clone(), all, &[1, 2], view);
        lower(&plan, Precision::Fp32, &TRAITS).unwrap()
    };
    assert_eq!(program(&all).launches.len(), 1);
    all[2] = Tensor::from_slice(&[1], &[0.5f32]);
    assert_eq!(program(&all).launches.len(), 2);
    check_constants(conv.clone(), &all, &[1, 2], 1e-4, |index, view| if index == 2 { single(view) } else { view });
}

#[test]
fn long_sums_are_split() {
    let mut random = Random::new(6);
    let window = same(2, 3);
    let operands = operands(&mut random, 1, &[1, 136, 4, 4], 20, &window);
    let conv = Conv { groups: 1, window, epilogue: Some(hard_swish()) };
    assert!(launches(conv.clone(), &operands).contains(&"combine"));
    check_constants(conv, &operands, &[1, 2], 1e-3, |_, view| view);
}

#[test]
fn integers_wrap() {
    let mut random = Random::new(7);
    let body = vec![Instr::Input(0), Instr::Cast(DType::F32, 0), constant(0.5), Instr::Binary(Binary::Mul, 1, 2)];
    let scaled = Map { inputs: vec![DType::I32], body, output: DType::F32 };
    for (groups, kernel, epilogue) in [(1, 3, None), (4, 3, None), (1, 1, None), (1, 3, Some(scaled))] {
        let window = same(2, kernel);
        let mut operands = vec![random.tensor(DType::I32, &[2, 4, 5, 3], 1 << 20)];
        operands.push(random.tensor(
            DType::I32,
            &[20, 4 / groups, kernel, kernel],
            if epilogue.is_some() { 4 } else { 1 << 20 },
        ));
        operands.push(random.tensor(DType::I32, &[20], 1 << 20));
        check(Conv { groups, window, epilogue }, &operands, 0.0);
    }
}

#[test]
fn transposed_convolutions() {
    let mut random = Random::new(8);
    type Case<'a> = (usize, &'a [usize], usize, Window, &'a [usize]);
    let cases: [Case<'_>; 5] = [
        (1, &[2, 6, 5, 4], 8, window(&[[2, 2, 1, 0, 0]; 2]), &[0, 0]),
        (1, &[2, 5, 4, 3], 3, window(&[[3, 2, 1, 1, 0], [4, 3, 2, 0, 2]]), &[1, 2]),
        (2, &[1, 4, 3, 3], 3, window(&[[3, 2, 1, 1, 1]; 2]), &[1, 0]),
        (4, &[2, 4, 6], 1, window(&[[4, 2, 1, 1, 1]]), &[0]),
        (1, &[1, 2, 2, 3, 2], 2, window(&[[2, 2, 1, 0, 1]; 3]), &[1, 0, 1]),
    ];
    for (groups, x, outputs, window, output_padding) in cases {
        let w = [&[x[1], outputs], &window.kernel[..]].concat();
        let operands = [small(&mut random, x), small(&mut random, &w), small(&mut random, &[outputs * groups])];
        let conv = ConvTranspose { groups, window, output_padding: output_padding.to_vec() };
        check_constants(conv.clone(), &operands, &[1, 2], 1e-4, |_, view| view);
        check_views(
            conv,
            &operands,
            1e-4,
            |index, view| if index == 0 { view.slice(2, x[2] - 1, x[2], -1) } else { view },
        );
    }
}

#[test]
fn pools_of_every_kind() {
    let mut random = Random::new(9);
    let overhanging = || window(&[[3, 2, 1, 1, 0], [2, 1, 3, 0, 1]]);
    for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageIncludingPads] {
        let pool = |window: Window, out: &[usize]| Pool { kind, window, out: out.to_vec(), indices: None };
        let x = random.floats(&[2, 5, 6, 7]);
        check(pool(overhanging(), &[4, 5]), std::slice::from_ref(&x), 1e-6);
        check_views(pool(overhanging(), &[4, 5]), &[random.floats(&[2, 6, 7, 5])], 1e-6, |_, view| {
            view.permute(&[0, 3, 1, 2])
        });
        check(pool(window(&[[6, 1, 1, 0, 0], [9, 1, 1, 1, 1]]), &[1, 1]), std::slice::from_ref(&x), 1e-6);
        check(pool(window(&[[7, 3, 2, 5, 5]]), &[3]), &[random.floats(&[1, 3, 4])], 1e-6);
        check(pool(same(3, 3), &[3, 4, 2]), &[random.floats(&[1, 2, 3, 4, 2])], 1e-6);
        check(pool(window(&[[2, 1, 1, 0, 0]; 4]), &[1, 2, 1, 2]), &[random.floats(&[1, 2, 2, 3, 2, 3])], 1e-6);
    }
    for (dtype, column_major) in [(DType::F32, false), (DType::F32, true), (DType::I8, false), (DType::U8, true)] {
        let indices = Some(column_major);
        let pool = Pool { kind: PoolKind::Max, window: overhanging(), out: vec![4, 5], indices };
        check(pool, &[random.tensor(dtype, &[2, 5, 6, 7], 100)], 0.0);
    }
    let nan = Tensor::from_slice(&[1, 1, 4], &[1.0, f32::NAN, f32::NEG_INFINITY, f32::NAN]);
    let pool = Pool { kind: PoolKind::Max, window: window(&[[2, 1, 1, 1, 3]]), out: vec![7], indices: Some(false) };
    check(pool, &[nan], 0.0);
}

#[test]
fn a_pool_that_sees_everything_is_a_reduction() {
    let x = Random::new(10).floats(&[2, 5, 4, 3]);
    let mut pool = Pool {
        kind: PoolKind::Average,
        window: window(&[[5, 1, 1, 1, 0], [3, 1, 1, 0, 0]]),
        out: vec![1, 1],
        indices: None,
    };
    let reduced = |pool: &Pool| launches(pool.clone(), std::slice::from_ref(&x))[0].starts_with("reduce");
    assert!(reduced(&pool));
    check(pool.clone(), std::slice::from_ref(&x), 1e-6);
    pool.kind = PoolKind::AverageIncludingPads;
    assert!(!reduced(&pool), "the padding counts");
    pool.kind = PoolKind::Max;
    pool.window.kernel[1] = 2;
    assert!(!reduced(&pool), "the last column is not seen");
}

fn taps(axis: usize, taps: usize, index: &[u32], weights: &[f32]) -> AxisTaps {
    AxisTaps { axis, out: index.len() / taps, taps, index: index.to_vec(), weights: weights.to_vec() }
}

#[test]
fn resizes_of_several_axes() {
    let mut random = Random::new(11);
    let linear = taps(2, 2, &[0, 1, 1, 1, 0, 2, 2, 1, 1, 0], &[0.5, 0.5, 1.0, 0.0, 0.25, 0.75, 0.5, 0.5, 0.125, 1.0]);
    let nearest = taps(3, 1, &[1, 0, 1], &[1.0; 3]);
    let batch = taps(0, 1, &[1, 1, 0], &[1.0; 3]);
    let resize =
        |axes: &[&AxisTaps], outside| Resize { axes: axes.iter().map(|&axis| axis.clone()).collect(), outside };
    let x = random.floats(&[2, 3, 3, 2]);
    check(resize(&[&linear, &nearest], None), std::slice::from_ref(&x), 1e-6);
    check(resize(&[&batch, &linear], None), std::slice::from_ref(&x), 1e-6);
    check(resize(&[], None), std::slice::from_ref(&x), 0.0);
    let flags = vec![vec![false, true, false, false, true], vec![true, false, false]];
    check(resize(&[&linear, &nearest], Some((-0.5, flags))), std::slice::from_ref(&x), 1e-6);
    let turned = |_, view: View| view.permute(&[3, 1, 2, 0]);
    check_views(resize(&[&batch, &linear], None), &[x], 1e-6, turned);
    for dtype in [DType::I64, DType::U8, DType::Bool] {
        check(resize(&[&batch, &nearest], None), &[random.tensor(dtype, &[2, 3, 3, 2], 100)], 0.0);
        let flags = vec![vec![false, true, false], vec![true, false, false]];
        check(resize(&[&batch, &nearest], Some((1.0, flags))), &[random.tensor(dtype, &[2, 3, 3, 2], 100)], 0.0);
    }
}

/// A network under construction.
struct Net {
    builder: Builder,
    random: Random,
}

impl Net {
    fn step(&mut self, kernel: impl Into<Kernel>, inputs: &[&View]) -> View {
        let inputs: Vec<View> = inputs.iter().map(|&view| view.clone()).collect();
        self.builder.emit(kernel, &inputs).unwrap().swap_remove(0)
    }

    fn conv(&mut self, x: &View, groups: usize, outputs: usize, window: Window, epilogue: Option<Map>) -> View {
        let operands = operands(&mut self.random, groups, &x.shape, outputs, &window);
        let [w, bias] = [1, 2].map(|index| self.builder.constant(operands[index].clone()));
        self.step(Conv { groups, window, epilogue }, &[x, &w, &bias])
    }
}

#[test]
fn a_network_keeps_its_channels_side_by_side() {
    let mut random = Random::new(12);
    let image = small(&mut random, &[2, 3, 9, 10]);
    let mut net = Net { builder: Builder::new(Bucket { shapes: vec![vec![2, 3, 9, 10]], values: vec![None] }), random };
    let x = net.builder.tensor(image.ty(), Origin::Input(0));
    net.builder.plan.inputs.push(x.tensor);
    let relu = || Map::unary(Unary::Relu, DType::F32);
    let stem = net.conv(&x, 1, 16, window(&[[3, 2, 1, 1, 1]; 2]), Some(relu()));
    let pool = Pool { kind: PoolKind::Max, window: same(2, 3), out: stem.shape[2..].to_vec(), indices: None };
    let pooled = net.step(pool, &[&stem]);
    let depth = net.conv(&pooled, 16, 16, same(2, 5), Some(hard_swish()));
    let point = net.conv(&depth, 1, 16, same(2, 1), None);
    let sum = net.step(Map::binary(Binary::Add, DType::F32), &[&point, &pooled]);
    let wide = net
        .step(Resize { axes: vec![taps(2, 1, &[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], &[1.0; 10])], outside: None }, &[&sum]);
    let grouped = net.conv(&wide, 2, 32, same(2, 3), Some(relu()));
    let w = net.builder.constant(small(&mut net.random, &[32, 4, 2, 2]));
    let bias = net.builder.constant(small(&mut net.random, &[4]));
    let transposed = ConvTranspose { groups: 1, window: window(&[[2, 2, 1, 0, 0]; 2]), output_padding: vec![0; 2] };
    let last = net.step(transposed, &[&grouped, &w, &bias]);
    let result = net.step(Map::unary(Unary::Sigmoid, DType::F32), &[&last]);
    net.builder.plan.outputs = vec![result.tensor];
    check_plan(&net.builder.plan, &[image], 1e-4);
    let program = lower(&net.builder.plan, Precision::Fp16, &TRAITS).unwrap();
    let names: Vec<&str> = program.launches.iter().map(|launch| launch.entry.name).collect();
    assert!(names.contains(&"matmul_f16_tma_64x64_nn"), "{names:?}");
    assert!(!names.contains(&"copy"), "{names:?}");
}

#[test]
fn a_tensor_that_is_flattened_stays_as_it_is() {
    let mut random = Random::new(13);
    let image = small(&mut random, &[2, 3, 4, 5]);
    let mut net = Net { builder: Builder::new(Bucket { shapes: vec![vec![2, 3, 4, 5]], values: vec![None] }), random };
    let x = net.builder.tensor(image.ty(), Origin::Input(0));
    net.builder.plan.inputs.push(x.tensor);
    let stem = net.conv(&x, 1, 16, same(2, 3), None);
    let body = net.conv(&stem, 1, 16, same(2, 3), None);
    let flat = body.reshape(&[2, 320]).unwrap();
    let w = net.builder.constant(small(&mut net.random, &[320, 5]));
    let result = net.step(crate::kernels::MatMul { alpha: 1.0, epilogue: None }, &[&flat, &w]);
    net.builder.plan.outputs = vec![result.tensor];
    check_plan(&net.builder.plan, &[image], 1e-3);
    let plan = super::layout::channels_last(net.builder.plan);
    assert_eq!(plan.tensor(stem.tensor).ty.shape, [2, 4, 5, 16]);
    assert_eq!(plan.tensor(body.tensor).ty.shape, [2, 16, 4, 5]);
}
