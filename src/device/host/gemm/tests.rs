use crate::device::host::testing::{Random, check, check_constants, check_views};
use crate::ir::DType;
use crate::kernels::{Binary, Instr, Map, MatMul, Unary};
use crate::plan::View;

const TOLERANCE: f64 = 2e-5;

fn plain() -> MatMul {
    MatMul { alpha: 1.0, epilogue: None }
}

/// `gelu(product + bias) + residual`
fn bias_gelu_residual() -> MatMul {
    let body = vec![
        Instr::Input(0),
        Instr::Input(1),
        Instr::Binary(Binary::Add, 0, 1),
        Instr::Unary(Unary::Gelu, 2),
        Instr::Input(2),
        Instr::Binary(Binary::Add, 3, 4),
    ];
    MatMul { alpha: 0.5, epilogue: Some(Map { inputs: vec![DType::F32; 3], body, output: DType::F32 }) }
}

/// Shows `[rows, columns]` as its transpose.
fn transposed(view: View) -> View {
    let rank = view.rank();
    view.swap(rank - 2, rank - 1)
}

#[test]
fn products_of_every_tile_height_and_panel_width() {
    let mut random = Random::new(1);
    for rows in (1..=17).chain([28, 29, 43]) {
        for columns in [1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 65] {
            let a = random.floats(&[rows, 19]);
            let b = random.floats(&[19, columns]);
            check(plain(), &[a.clone(), b.clone()], TOLERANCE);
            check_constants(plain(), &[a, b], &[1], TOLERANCE, |_, view| view);
        }
    }
}

#[test]
fn either_factor_may_be_transposed() {
    let mut random = Random::new(2);
    for (rows, depth, columns) in [(1, 8, 40), (13, 33, 40), (30, 16, 70), (9, 1, 3)] {
        let (a, b) = (random.floats(&[depth, rows]), random.floats(&[columns, depth]));
        check_views(plain(), &[a.clone(), b.clone()], TOLERANCE, |_, view| transposed(view));
        check_constants(plain(), &[a, b], &[1], TOLERANCE, |_, view| transposed(view));
        let (a, b) = (random.floats(&[depth, rows]), random.floats(&[depth, columns]));
        check_views(plain(), &[a, b], TOLERANCE, |index, view| if index == 0 { transposed(view) } else { view });
        let (a, b) = (random.floats(&[rows, depth]), random.floats(&[depth, 2 * columns]));
        // Every second column, from the right.
        let every_second = |index: usize, view: View| match index {
            0 => view,
            _ => view.slice(1, 2 * columns - 1, columns, -2),
        };
        check_views(plain(), &[a, b], TOLERANCE, every_second);
    }
}

#[test]
fn rows_that_compete_for_cache_sets_are_packed() {
    let mut random = Random::new(3);
    let (a, b) = (random.floats(&[30, 1024]), random.floats(&[1024, 100]));
    check_constants(plain(), &[a.clone(), b.clone()], &[1], 1e-4, |_, view| view);
    check(plain(), &[a, b], 1e-4);
}

#[test]
fn batches_share_a_factor_or_have_their_own() {
    let mut random = Random::new(4);
    let shared = random.floats(&[24, 40]);
    for batch in [&[3, 2][..], &[1], &[5], &[2, 1, 4]] {
        for rows in [1, 3, 20] {
            let shape = |last: [usize; 2]| [batch, &last[..]].concat();
            let a = random.floats(&shape([rows, 24]));
            let b = random.floats(&shape([24, 40]));
            check(plain(), &[a.clone(), b], TOLERANCE);
            let full = shape([24, 40]);
            let wide = |index: usize, view: View| if index == 1 { view.broadcast(&full).unwrap() } else { view };
            check_constants(plain(), &[a.clone(), shared.clone()], &[1], TOLERANCE, wide);
            check_views(plain(), &[a, shared.clone()], TOLERANCE, wide);
        }
    }
}

#[test]
fn heads_of_a_merged_tensor_are_read_in_place() {
    let mut random = Random::new(5);
    // [batch, tokens, heads, size] presented as [batch, heads, tokens, size], one factor transposed.
    let (q, k) = (random.floats(&[2, 21, 3, 16]), random.floats(&[2, 21, 3, 16]));
    check_views(plain(), &[q, k], TOLERANCE, |index, view| {
        let heads = view.permute(&[0, 2, 1, 3]);
        if index == 1 { transposed(heads) } else { heads }
    });
}

#[test]
fn epilogues_see_their_operands_row_by_row() {
    let mut random = Random::new(6);
    for (batch, rows, columns) in [(1, 1, 70), (3, 17, 33), (2, 40, 600)] {
        let inputs = [
            random.floats(&[batch, rows, 12]),
            random.floats(&[12, columns]),
            random.floats(&[columns]),
            random.floats(&[batch, rows, columns]),
        ];
        let shapes = [vec![batch, rows, 12], vec![batch, 12, columns], vec![batch, rows, columns]];
        let wide = |index: usize, view: View| view.broadcast(&shapes[index.min(2)]).unwrap();
        check_views(bias_gelu_residual(), &inputs, TOLERANCE, wide);
        check_constants(bias_gelu_residual(), &inputs, &[1, 2], TOLERANCE, wide);
    }
}

#[test]
fn integers_wrap() {
    let mut random = Random::new(7);
    for (rows, depth, columns) in [(1, 9, 33), (15, 40, 70), (6, 3, 8)] {
        let a = random.tensor(DType::I32, &[rows, depth], i64::from(i32::MAX) - 1);
        let b = random.tensor(DType::I32, &[depth, columns], 255);
        check(plain(), &[a.clone(), b.clone()], 0.0);
        check_constants(plain(), &[a, b], &[1], 0.0, |_, view| view);
    }
}

#[test]
fn a_sum_of_nothing_is_zero_and_nothing_may_be_computed() {
    let mut random = Random::new(8);
    for [rows, depth, columns] in [[5, 0, 40], [0, 3, 4], [3, 4, 0]] {
        check(plain(), &[random.floats(&[rows, depth]), random.floats(&[depth, columns])], 0.0);
        let inputs = [random.floats(&[rows, depth]), random.floats(&[depth, columns])];
        check_constants(plain(), &inputs, &[1], 0.0, |_, view| view);
    }
}
