//! Softmax, normalisations, reductions, running sums: rows from one element to more than a block's threads see at once.

use super::{Case, case};
use crate::net::{Draw, Net};
use crate::wire::{float, int};
use streaminfer::ir::DType;

const LENGTHS: [usize; 8] = [1, 2, 31, 33, 128, 384, 1025, 4099];

/// Axes of a tensor that rows run along.
const SHAPES: &[(&[usize], i64)] = &[(&[3, 4, 37], -1), (&[3, 37, 4], 1), (&[37, 3, 5], 0), (&[2, 1, 1], -1)];

fn softmaxes() -> Vec<Case> {
    let of = |kind: &'static str, shape: Vec<usize>, axis: i64| {
        case(format!("{kind} {shape:?} {axis}"), move |net| {
            let x = net.floats(&shape);
            let y = net.op(kind, &[&x], [int("axis", axis)]);
            net.result(&y);
        })
    };
    let mut cases = Vec::new();
    for kind in ["Softmax", "LogSoftmax"] {
        cases.extend(SHAPES.iter().map(|&(shape, axis)| of(kind, shape.to_vec(), axis)));
        cases.extend(LENGTHS.map(|length| of(kind, vec![5, length], -1)));
    }
    // The greatest elements must be subtracted first.
    cases.push(
        case("Softmax of great numbers", |net| {
            let x = net.input(DType::F32, &[7, 65], Draw::Within(-3e4, 3e4));
            let y = net.op("Softmax", &[&x], []);
            net.result(&y);
        })
        .exact(),
    );
    cases
}

fn norms() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in LENGTHS {
        let case = case(format!("LayerNormalization {length}"), move |net| {
            let x = net.floats(&[3, 2, length]);
            let (scale, bias) = (net.weight(&[length], 1.0), net.weight(&[length], 1.0));
            let y = net.op("LayerNormalization", &[&x, &scale, &bias], [float("epsilon", 1e-5)]);
            net.result(&y);
        });
        // Of two numbers that nearly meet all depends on their difference, which rounding changes.
        cases.push(if length == 2 { case.exact() } else { case });
    }
    cases.push(case("LayerNormalization of two axes", |net| {
        let (x, scale) = (net.floats(&[5, 6, 7]), net.weight(&[6, 7], 1.0));
        let y = net.op("LayerNormalization", &[&x, &scale], [int("axis", 1)]);
        net.result(&y);
    }));
    // By blocks, and by warps, which take whole groups of four.
    for length in [129, 132] {
        // A mean that is large against the deviation: a sum of squares would lose everything.
        cases.push(
            case(format!("LayerNormalization {length} far from zero"), move |net| {
                let x = net.input(DType::F32, &[9, length], Draw::Within(1000.0, 1001.0));
                let scale = net.weight(&[length], 1.0);
                let y = net.op("LayerNormalization", &[&x, &scale], []);
                net.result(&y);
            })
            .exact(),
        );
    }
    for length in [65, 68] {
        cases.push(case(format!("RMS normalisation of {length} in parts"), move |net| {
            let (x, two, scale) = (net.floats(&[4, 5, length]), net.constant(&[], &[2.0]), net.weight(&[length], 1.0));
            let (axes, epsilon) = (net.longs(&[-1]), net.constant(&[], &[1e-6]));
            let square = net.op("Pow", &[&x, &two], []);
            let mean = net.op("ReduceMean", &[&square, &axes], []);
            let mean = net.op("Add", &[&mean, &epsilon], []);
            let root = net.op("Sqrt", &[&mean], []);
            let y = net.op("Div", &[&x, &root], []);
            let y = net.op("Mul", &[&y, &scale], []);
            net.result(&y);
        }));
    }
    for kind in ["InstanceNormalization", "BatchNormalization", "GroupNormalization"] {
        cases.push(case(kind, move |net| {
            let x = net.floats(&[3, 6, 5, 9]);
            let count = if kind == "GroupNormalization" { 3 } else { 6 };
            let (scale, bias) = (net.weight(&[count], 1.0), net.weight(&[count], 1.0));
            let (mean, variance) = (net.weight(&[6], 1.0), net.drawn(DType::F32, &[6], Draw::Within(0.5, 2.0)));
            let y = match kind {
                "BatchNormalization" => net.op(kind, &[&x, &scale, &bias, &mean, &variance], []),
                "GroupNormalization" => net.op(kind, &[&x, &scale, &bias], [int("num_groups", 3)]),
                _ => net.op(kind, &[&x, &scale, &bias], []),
            };
            net.result(&y);
        }));
    }
    cases
}

fn reduced(net: &mut Net, kind: &str, x: &str, axes: &[i64], keep: bool) -> String {
    let axes = net.longs(axes);
    net.op(kind, &[x, &axes], [int("keepdims", keep.into())])
}

fn reductions() -> Vec<Case> {
    const KINDS: [&str; 10] = [
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
        "ReduceProd",
        "ReduceLogSum",
    ];
    let mut cases = Vec::new();
    for kind in KINDS {
        // Factors and logarithms of sums want numbers around 1.
        let draw = if matches!(kind, "ReduceProd" | "ReduceLogSum" | "ReduceMean" | "ReduceSum") {
            Draw::Within(0.7, 1.4)
        } else {
            Draw::Normal
        };
        let axes: [&'static [i64]; 6] = [&[-1], &[0], &[1], &[0, 2], &[1, 2], &[0, 1, 2]];
        for (index, axes) in axes.into_iter().enumerate() {
            cases.push(case(format!("{kind} {axes:?}"), move |net| {
                let x = net.input(DType::F32, &[5, 6, 7], draw);
                let y = reduced(net, kind, &x, axes, index % 2 == 0);
                net.result(&y);
            }));
        }
    }
    for (kind, draw) in
        [("ReduceSum", Draw::Within(0.5, 1.5)), ("ReduceMax", Draw::Normal), ("ReduceMean", Draw::Within(0.5, 1.5))]
    {
        for length in LENGTHS {
            cases.push(case(format!("{kind} of {length}"), move |net| {
                let x = net.input(DType::F32, &[3, length], draw);
                let y = reduced(net, kind, &x, &[1], false);
                net.result(&y);
                let x = net.input(DType::F32, &[length, 2], draw);
                let y = reduced(net, kind, &x, &[0], true);
                net.result(&y);
            }));
        }
    }
    for dtype in [DType::I64, DType::I32] {
        for kind in ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"] {
            cases.push(
                case(format!("{kind} {dtype}"), move |net| {
                    let x = net.input(dtype, &[4, 9, 5], Draw::Within(-4.0, 5.0));
                    let y = reduced(net, kind, &x, &[1], false);
                    net.output(&y, dtype);
                })
                .exact(),
            );
        }
    }
    for kind in ["GlobalAveragePool", "GlobalMaxPool"] {
        cases.push(case(kind, move |net| {
            let x = net.input(DType::F32, &[2, 5, 7, 9], Draw::Within(0.5, 2.0));
            let y = net.op(kind, &[&x], []);
            net.result(&y);
        }));
    }
    cases
}

/// Small integers as floats, so that there are ties.
fn positions() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["ArgMax", "ArgMin"] {
        for (axis, is_last) in [(0, 0), (1, 1), (2, 0), (2, 1)] {
            cases.push(
                case(format!("{kind} {axis} {is_last}"), move |net| {
                    let x = net.input(DType::I32, &[9, 12, 67], Draw::Within(-3.0, 4.0));
                    let x = net.op("Cast", &[&x], [int("to", 1)]);
                    let y =
                        net.op(kind, &[&x], [int("axis", axis), int("keepdims", 0), int("select_last_index", is_last)]);
                    net.output(&y, DType::I64);
                })
                .exact(),
            );
        }
    }
    cases
}

fn running_sums() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::I64, DType::I32] {
        for (axis, exclusive, reverse) in [(0, 0, 0), (1, 1, 0), (2, 0, 1), (1, 1, 1)] {
            let case = case(format!("CumSum {dtype} {axis} {exclusive} {reverse}"), move |net| {
                let x = net.input(
                    dtype,
                    &[4, 9, 65],
                    if dtype == DType::F32 { Draw::Within(0.1, 1.0) } else { Draw::Within(-9.0, 9.0) },
                );
                let axis = net.longs(&[axis]);
                let y = net.op("CumSum", &[&x, &axis], [int("exclusive", exclusive), int("reverse", reverse)]);
                net.output(&y, dtype);
            });
            cases.push(if dtype == DType::F32 { case } else { case.exact() });
        }
    }
    cases.push(case("CumSum of a long row", |net| {
        let (x, axis) = (net.input(DType::F32, &[2, 4099], Draw::Within(0.1, 1.0)), net.longs(&[1]));
        let y = net.op("CumSum", &[&x, &axis], []);
        net.result(&y);
    }));
    cases
}

pub fn cases() -> Vec<Case> {
    [softmaxes(), norms(), reductions(), positions(), running_sums()].into_iter().flatten().collect()
}
