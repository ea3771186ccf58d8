//! Matrix products: extents around every tile's, both ways the right factor can lie, batches, epilogues, sums cut in parts.

use super::{Case, case};
use crate::net::{Draw, Net};
use crate::wire::{float, int, text};
use streaminfer::ir::DType;

/// Rows, columns, terms.
const EXTENTS: &[[usize; 3]] = &[
    [1, 1, 1],
    [1, 129, 64],
    [7, 5, 3],
    [16, 8, 16],
    [33, 65, 130],
    [64, 64, 64],
    [128, 96, 48],
    [130, 67, 259],
    [5, 3, 1030],
    [2, 70, 2049],
    [1, 1000, 512],
    [257, 1, 31],
    [48, 40, 1],
];
/// Three end within tiles of 64 and 128 rows and columns that are brought, and within stages, of which there are more than fit; of the last
/// two the largest tile is fetched, of the first of them with 32-bit floats, with sums that are soon done.
const HEAVY: &[[usize; 3]] = &[
    [128, 768, 768],
    [128, 2304, 768],
    [128, 768, 3072],
    [1024, 384, 384],
    [515, 771, 129],
    [1, 30522, 384],
    [130, 72, 3080],
    [1000, 904, 520],
    [1900, 1800, 520],
    [1536, 1536, 32],
    [1536, 1532, 36],
];

fn deviation(terms: usize) -> f64 {
    (terms as f64).powf(-0.5)
}

/// A product with a constant, with a tensor and with a transposed tensor.
fn plain(extents: [usize; 3]) -> Vec<Case> {
    let [m, n, k] = extents;
    let name = format!("{m}x{n}x{k}");
    vec![
        case(format!("MatMul {name} constant"), move |net| {
            let (a, b) = (net.floats(&[m, k]), net.weight(&[k, n], deviation(k)));
            let y = net.op("MatMul", &[&a, &b], []);
            net.result(&y);
        }),
        case(format!("MatMul {name}"), move |net| {
            let (a, b) = (net.floats(&[m, k]), net.floats(&[k, n]));
            let y = net.op("MatMul", &[&a, &b], []);
            net.result(&y);
        }),
        case(format!("MatMul {name} transposed"), move |net| {
            let (a, b) = (net.floats(&[m, k]), net.floats(&[n, k]));
            let b = net.op("Transpose", &[&b], []);
            let y = net.op("MatMul", &[&a, &b], []);
            net.result(&y);
        }),
    ]
}

fn batches() -> Vec<Case> {
    let of = |a: &'static [usize], b: &'static [usize]| {
        case(format!("MatMul {a:?} {b:?}"), move |net| {
            let (a, b) = (net.floats(a), net.floats(b));
            let y = net.op("MatMul", &[&a, &b], []);
            net.result(&y);
        })
    };
    vec![
        of(&[2, 3, 17, 33], &[3, 33, 9]),
        of(&[5, 1, 8, 24], &[1, 4, 24, 31]),
        of(&[3, 19, 40], &[40, 21]),
        of(&[6, 128, 64], &[6, 64, 136]),
        of(&[6, 70, 200], &[6, 200, 72]),
        of(&[37], &[37, 11]),
        of(&[2, 9, 37], &[37]),
        of(&[70, 1, 3], &[70, 3, 1]),
        case("Einsum", |net| {
            let (a, b) = (net.floats(&[3, 7, 18]), net.floats(&[3, 5, 18]));
            let y = net.op("Einsum", &[&a, &b], [text("equation", "bik,bjk->bij")]);
            net.result(&y);
        }),
    ]
}

fn gemm(m: usize, n: usize, k: usize, [is_left, is_right]: [bool; 2]) -> Case {
    case(format!("Gemm {m}x{n}x{k} {is_left} {is_right}"), move |net| {
        let a = net.floats(&if is_left { [k, m] } else { [m, k] });
        let b = net.weight(&if is_right { [n, k] } else { [k, n] }, deviation(k));
        let c = net.weight(&[n], 1.0);
        let y = net.op(
            "Gemm",
            &[&a, &b, &c],
            [float("alpha", 0.7), float("beta", 1.3), int("transA", is_left.into()), int("transB", is_right.into())],
        );
        net.result(&y);
    })
}

/// What follows a product and is done while its sums are in registers.
fn epilogues() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["Relu", "Gelu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Mish"] {
        for (m, n, k) in [(9, 34, 50), (65, 130, 1100), (200, 136, 72)] {
            cases.push(case(format!("{kind} of {m}x{n}x{k} and bias"), move |net| {
                let (x, w, b) = (net.floats(&[m, k]), net.weight(&[k, n], deviation(k)), net.weight(&[n], 1.0));
                let y = net.op("MatMul", &[&x, &w], []);
                let y = net.op("Add", &[&y, &b], []);
                let y = net.op(kind, &[&y], []);
                net.result(&y);
            }));
        }
    }
    cases.push(case("residual", |net| {
        let (x, rest) = (net.floats(&[2, 13, 64]), net.floats(&[2, 13, 33]));
        let (w, b) = (net.weight(&[64, 33], 0.2), net.weight(&[33], 1.0));
        let y = net.op("MatMul", &[&x, &w], []);
        let y = net.op("Add", &[&b, &y], []);
        let y = net.op("Add", &[&y, &rest], []);
        net.result(&y);
    }));
    cases.push(case("an epilogue that is no chain", |net| {
        let (x, w, rest) = (net.floats(&[21, 40]), net.weight(&[40, 35], 0.2), net.floats(&[21, 35]));
        let y = net.op("MatMul", &[&x, &w], []);
        let bent = net.op("Sigmoid", &[&y], []);
        let other = net.op("Tanh", &[&y], []);
        let y = net.op("Mul", &[&bent, &other], []);
        let y = net.op("Max", &[&y, &rest], []);
        let y = net.op("Softplus", &[&y], []);
        net.result(&y);
    }));
    cases
}

/// Extents that nobody has chosen.
fn random_extents(index: usize) -> Case {
    case(format!("MatMul of random extents {index}"), |net: &mut Net| {
        let (batch, m) = (net.extent(1, 3), net.extent(1, 90));
        let (n, k) = (net.extent(1, 90), net.extent(1, 300));
        let (a, b) = (net.floats(&[batch, m, k]), net.floats(&[batch, k, n]));
        let c = net.floats(&[m, 1]);
        let y = net.op("MatMul", &[&a, &b], []);
        let y = net.op("Add", &[&y, &c], []);
        net.result(&y);
    })
}

fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (left, right) in [(DType::U8, DType::I8), (DType::I8, DType::I8), (DType::U8, DType::U8)] {
        // The last has more large tiles than a GPU has multiprocessors.
        for [batch, m, n, k] in
            [[1, 1, 7, 5], [1, 33, 65, 130], [1, 64, 48, 257], [3, 40, 30, 9], [2, 64, 64, 64], [1, 1500, 1600, 3]]
        {
            let range = |dtype| if dtype == DType::U8 { Draw::Within(0.0, 256.0) } else { Draw::Within(-128.0, 128.0) };
            cases.push(
                case(format!("MatMulInteger {left} {right} {batch}x{m}x{n}x{k}"), move |net| {
                    let a = net.input(left, &[batch, m, k], range(left));
                    let b = net.drawn(right, &[batch, k, n], range(right));
                    let zero = net.drawn(left, &[], Draw::Within(5.0, 6.0));
                    let y = net.op("MatMulInteger", &[&a, &b, &zero], []);
                    net.output(&y, DType::I32);
                })
                .exact(),
            );
        }
    }
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = EXTENTS.iter().flat_map(|&extents| plain(extents)).collect();
    // Nothing to add up, and no results.
    cases.extend([[5, 70, 0], [0, 3, 4], [3, 0, 4]].into_iter().flat_map(plain));
    cases.extend(HEAVY.iter().flat_map(|&extents| plain(extents)).map(|case| case.stored().heavy()));
    cases.extend(batches());
    for (m, n, k) in [(1, 10, 512), (37, 66, 29)] {
        cases.extend([[false, false], [false, true], [true, false], [true, true]].map(|lies| gemm(m, n, k, lies)));
    }
    cases.extend(epilogues());
    cases.extend((0..8).map(random_extents));
    cases.extend(integers());
    cases
}
