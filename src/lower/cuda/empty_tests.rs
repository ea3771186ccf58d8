//! Steps over nothing: what has no results launches nothing, and what has results though it reads nothing has those of its definition.

use super::testing::{Random, TRAITS, check, launches, no_chain, plan_of, run, window};
use super::{Program, lower};
use crate::ir::{DType, Tensor};
use crate::kernels::{Activation, ScatterNd, ScatterOp};
use crate::kernels::{
    Attention, Cell, Conv, ConvTranspose, CumSum, Direction, Gather, GatherElements, GatherNd, Kernel, Map, MatMul,
    Norm, NormKind, Pool, PoolKind, Recurrent, Reduce, ReduceOp, Softmax, TopK, Unary,
};
use crate::lower::Precision;

/// Floats in tensors of these shapes.
fn floats(random: &mut Random, shapes: &[&[usize]]) -> Vec<Tensor> {
    shapes.iter().map(|shape| random.floats(shape)).collect()
}

/// The program in every precision.
fn programs(kernel: impl Into<Kernel>, operands: &[Tensor]) -> Vec<Program> {
    let (plan, _) = plan_of(kernel, operands, &[], |_, view| view);
    Precision::ALL.map(|precision| lower(&plan, precision, &TRAITS).unwrap()).to_vec()
}

#[test]
fn attention_without_keys_gives_zeros() {
    let mut random = Random::new(1);
    let operands = floats(&mut random, &[&[1, 5, 16], &[1, 0, 16], &[1, 0, 16]]);
    for score in [None, Some(Map::unary(Unary::Relu, DType::F32)), Some(no_chain())] {
        let kernel = Attention { scale: 0.25, score, guard_empty_rows: false };
        check(kernel.clone(), &operands, 0.0);
        // No product for scores that are not there.
        assert_eq!(launches(kernel, &operands), ["matmul_f32_32x64_nn"]);
    }
}

#[test]
fn products_of_nothing() {
    let mut random = Random::new(2);
    let shapes: [[&[usize]; 2]; 6] = [
        [&[3, 0], &[0, 4]],
        [&[0, 3], &[3, 4]],
        [&[3, 5], &[5, 0]],
        [&[0, 3, 5], &[0, 5, 2]],
        [&[2, 3, 0], &[2, 0, 70]],
        [&[100, 0], &[0, 200]],
    ];
    for [a, b] in shapes {
        let operands = floats(&mut random, &[a, b]);
        for epilogue in [None, Some(Map::unary(Unary::Relu, DType::F32)), Some(no_chain())] {
            check(MatMul { alpha: 0.5, epilogue }, &operands, 1e-6);
        }
    }
    let integers = [&[3usize, 0], &[0, 4]].map(|shape| Tensor::from_slice::<i32>(shape, &[]));
    check(MatMul { alpha: 1.0, epilogue: None }, &integers, 0.0);
}

#[test]
fn windows_over_nothing() {
    let mut random = Random::new(3);
    let padded = || window(&[[3, 1, 1, 3, 3], [1, 1, 1, 0, 0]]);
    let point = || window(&[[1, 1, 1, 0, 0]; 2]);
    // Without channels, without images, without elements but with padding.
    for (x, w, outputs, window) in [
        ([2, 0, 4, 3], [5, 0, 3, 1], 5, padded()),
        ([2, 0, 4, 3], [20, 0, 3, 1], 20, padded()),
        ([2, 0, 4, 3], [20, 0, 1, 1], 20, point()),
        ([0, 2, 4, 3], [20, 2, 1, 1], 20, point()),
        ([2, 2, 0, 3], [20, 2, 3, 1], 20, padded()),
        ([2, 2, 4, 3], [0, 2, 3, 1], 0, padded()),
    ] {
        let operands = floats(&mut random, &[&x, &w, &[outputs]]);
        check(Conv { groups: 1, window, epilogue: None }, &operands, 1e-6);
    }
    let operands = floats(&mut random, &[&[2, 0, 4, 3], &[4, 0, 3, 1], &[4]]);
    check(Conv { groups: 2, window: padded(), epilogue: None }, &operands, 1e-6);
    for (groups, x, w, outputs) in
        [(1, [2, 0, 4, 3], [0, 5, 3, 1], 5), (2, [2, 0, 4, 3], [0, 5, 3, 1], 10), (1, [0, 2, 4, 3], [2, 5, 3, 1], 5)]
    {
        let operands = floats(&mut random, &[&x, &w, &[outputs]]);
        let window = window(&[[3, 1, 1, 1, 1], [1, 1, 1, 0, 0]]);
        check(ConvTranspose { groups, window, output_padding: vec![0; 2] }, &operands, 1e-6);
    }
    for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageIncludingPads] {
        let pool = Pool { kind, window: padded(), out: vec![4, 3], indices: None };
        check(pool, &floats(&mut random, &[&[2, 2, 0, 3]]), 1e-6);
        let pool = Pool { kind, window: padded(), out: vec![8, 3], indices: None };
        check(pool, &floats(&mut random, &[&[2, 0, 4, 3]]), 1e-6);
    }
}

#[test]
fn rows_of_nothing() {
    let mut random = Random::new(4);
    for shape in [[0, 5], [5, 0], [0, 0]] {
        let x = random.floats(&shape);
        check(Softmax { log: false }, std::slice::from_ref(&x), 0.0);
        check(CumSum { axis: 1, exclusive: false, reverse: false }, std::slice::from_ref(&x), 0.0);
        check(TopK { axis: 1, k: 0, largest: true }, std::slice::from_ref(&x), 0.0);
        let operands = [x.clone(), random.floats(&shape), random.floats(&shape)];
        check(Norm { kind: NormKind::Layer, axes: 1, epsilon: 1e-5 }, &operands, 0.0);
        for op in [ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Max, ReduceOp::Min, ReduceOp::Prod, ReduceOp::L2] {
            check(Reduce { op, axes: vec![1] }, std::slice::from_ref(&x), 0.0);
            check(Reduce { op, axes: vec![0, 1] }, std::slice::from_ref(&x), 0.0);
        }
    }
    check(TopK { axis: 1, k: 0, largest: true }, &floats(&mut random, &[&[2, 3000]]), 0.0);
}

#[test]
fn sequences_without_steps_hand_their_states_on() {
    let mut random = Random::new(5);
    for (batch, hidden, cell) in [
        (2, 3, Cell::Lstm { input_forget: false }),
        // Weights for which every step has a launch of its own.
        (2, 150, Cell::Lstm { input_forget: false }),
        (2, 150, Cell::Gru { linear_before_reset: true }),
        (0, 150, Cell::Lstm { input_forget: false }),
    ] {
        let functions = [Activation::Sigmoid, Activation::Tanh, Activation::Tanh];
        let activations = functions[..cell.functions()].to_vec();
        let kernel = Recurrent { cell, direction: Direction::Forward, hidden, activations, clip: None };
        let rows = cell.gates() * hidden;
        let shapes: [&[usize]; 4] = [&[0, batch, 7], &[1, rows, 7], &[1, rows, hidden], &[1, 2 * rows]];
        let mut operands = floats(&mut random, &shapes);
        operands.push(Tensor::from_slice(&[batch], &vec![0i32; batch]));
        operands.push(random.floats(&[1, batch, hidden]));
        if matches!(cell, Cell::Lstm { .. }) {
            operands.extend(floats(&mut random, &[&[1, batch, hidden], &[1, 3 * hidden]]));
        }
        check(kernel, &operands, 0.0);
    }
}

#[test]
fn an_axis_without_elements_reads_zeros() {
    let mut random = Random::new(6);
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I8, DType::U8, DType::Bool] {
        let data = random.tensor(dtype, &[0, 2], 1);
        let flat = Tensor::from_slice(&[3], &[0i64, 5, -1]);
        let square = Tensor::from_slice(&[3, 2], &[0i64, 5, -1, 7, i64::MIN, i64::MAX]);
        let tuples = Tensor::from_slice(&[3, 1], &[0i64, 5, -1]);
        let kernels: [(Kernel, Tensor); 3] = [
            (Gather { axis: 0 }.into(), flat),
            (GatherElements { axis: 0 }.into(), square),
            (GatherNd { batch_dims: 0 }.into(), tuples),
        ];
        for (kernel, index) in kernels {
            let operands = [data.clone(), index];
            for program in programs(kernel.clone(), &operands) {
                let result = run(&program, &operands).swap_remove(0);
                assert_eq!((result.dtype(), result.shape()), (dtype, &[3, 2][..]));
                assert!(result.data().iter().all(|&byte| byte == 0), "{kernel:?} {dtype}");
            }
        }
    }
    // One of two addressed axes.
    let operands = [random.floats(&[4, 0, 2]), Tensor::from_slice(&[1, 2], &[1i64, 0])];
    for program in programs(GatherNd { batch_dims: 0 }, &operands) {
        assert_eq!(run(&program, &operands)[0].to_vec::<f32>().unwrap(), [0.0; 2]);
    }
    let operands = [random.floats(&[0, 2]), Tensor::from_slice::<i64>(&[0, 1], &[]), random.floats(&[0, 2])];
    check(ScatterNd { op: ScatterOp::Add }, &operands, 0.0);
}
