//! Maps: functions, arithmetic of every type, choices, casts, chains.

use super::{Case, case};
use crate::net::Draw;
use crate::wire::{float, int, text};
use streaminfer::ir::DType;

const SMOOTH: &[&str] = &[
    "Abs",
    "Neg",
    "Relu",
    "Tanh",
    "Sigmoid",
    "Erf",
    "Exp",
    "Sin",
    "Cos",
    "Softplus",
    "Softsign",
    "Selu",
    "Elu",
    "Celu",
    "LeakyRelu",
    "HardSigmoid",
    "HardSwish",
    "Gelu",
    "Mish",
    "Identity",
];
const ABOVE_ZERO: &[&str] = &["Sqrt", "Log", "Reciprocal"];
const STEPS: &[&str] = &["Floor", "Ceil", "Round", "Sign"];
const BINARY: &[&str] = &["Add", "Sub", "Mul", "Max", "Min", "PRelu"];
const COMPARISONS: &[&str] = &["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"];
const ALL_TYPES: [DType; 8] =
    [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I8, DType::U8, DType::Bool];

fn unary() -> Vec<Case> {
    let of = |kind: &'static str, draw: Draw| {
        case(format!("{kind} {draw:?}"), move |net| {
            let x = net.input(DType::F32, &[3, 5, 37], draw);
            let y = net.op(kind, &[&x], []);
            net.result(&y);
        })
    };
    let wild =
        |kind: &&&str| !matches!(**kind, "Sin" | "Cos" | "Gelu" | "Mish" | "Selu" | "Celu" | "Softsign" | "HardSwish");
    let smooth = SMOOTH.iter().map(|kind| of(kind, Draw::Normal));
    let positive = ABOVE_ZERO.iter().map(|kind| of(kind, Draw::Within(0.2, 3.0)));
    let steps = STEPS.iter().map(|kind| of(kind, Draw::Within(-9.0, 9.0)).exact());
    let special = SMOOTH.iter().chain(ABOVE_ZERO).chain(STEPS).filter(wild).map(|kind| of(kind, Draw::Special).plain());
    let mut cases: Vec<Case> = smooth.chain(positive).chain(steps).chain(special).collect();
    cases.push(case("Gelu tanh", |net| {
        let x = net.floats(&[7, 33]);
        let y = net.op("Gelu", &[&x], [text("approximate", "tanh")]);
        net.result(&y);
    }));
    cases.push(
        case("IsNaN IsInf", |net| {
            let x = net.input(DType::F32, &[9, 41], Draw::Special);
            for kind in ["IsNaN", "IsInf"] {
                let y = net.op(kind, &[&x], []);
                net.output(&y, DType::Bool);
            }
        })
        .exact(),
    );
    cases
}

/// Operands that are broadcast against each other, also where one is a constant.
fn binary() -> Vec<Case> {
    let mut cases = Vec::new();
    for &kind in BINARY {
        cases.push(case(format!("{kind} broadcast"), move |net| {
            let (a, b) = (net.floats(&[4, 5, 33]), net.floats(&[5, 1]));
            let c = net.weight(&[33], 1.0);
            let y = net.op(kind, &[&a, &b], []);
            let y = net.op(kind, &[&y, &c], []);
            net.result(&y);
        }));
    }
    for kind in ["Div", "Pow", "Mod"] {
        cases.push(
            case(kind, move |net| {
                let (a, b) = (net.positive(&[6, 1, 35]), net.positive(&[3, 1]));
                let y =
                    if kind == "Mod" { net.op(kind, &[&a, &b], [int("fmod", 1)]) } else { net.op(kind, &[&a, &b], []) };
                net.result(&y);
            })
            .exact(),
        );
    }
    for &kind in COMPARISONS {
        cases.push(
            case(kind, move |net| {
                let (a, b) = (
                    net.input(DType::I32, &[7, 1, 19], Draw::Within(-3.0, 4.0)),
                    net.input(DType::I32, &[5, 1], Draw::Within(-3.0, 4.0)),
                );
                let y = net.op(kind, &[&a, &b], []);
                net.output(&y, DType::Bool);
                let (a, b) =
                    (net.input(DType::F32, &[131], Draw::Special), net.input(DType::F32, &[131], Draw::Special));
                let y = net.op(kind, &[&a, &b], []);
                net.output(&y, DType::Bool);
            })
            .exact(),
        );
    }
    for kind in ["And", "Or", "Xor"] {
        cases.push(
            case(kind, move |net| {
                let (a, b) = (
                    net.input(DType::Bool, &[5, 1, 31], Draw::Within(0.0, 2.0)),
                    net.input(DType::Bool, &[3, 1], Draw::Within(0.0, 2.0)),
                );
                let y = net.op(kind, &[&a, &b], []);
                let y = net.op("Not", &[&y], []);
                net.output(&y, DType::Bool);
            })
            .exact(),
        );
    }
    cases
}

/// Arithmetic of integers, negative ones and wrapping ones among them.
fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in [DType::I64, DType::I32] {
        for kind in ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"] {
            cases.push(
                case(format!("{kind} {dtype}"), move |net| {
                    let a = net.input(dtype, &[11, 1, 23], Draw::Within(-1e9, 1e9));
                    let b = net.input(dtype, &[3, 1], Draw::Within(1.0, 9.0));
                    let y = net.op(kind, &[&a, &b], []);
                    net.output(&y, dtype);
                })
                .exact(),
            );
        }
        cases.push(
            case(format!("Neg Abs Sign {dtype}"), move |net| {
                let x = net.input(dtype, &[13, 29], Draw::Within(-50.0, 50.0));
                for kind in ["Neg", "Abs", "Sign"] {
                    let y = net.op(kind, &[&x], []);
                    net.output(&y, dtype);
                }
            })
            .exact(),
        );
    }
    cases
}

/// From every type to every type.
fn casts() -> Vec<Case> {
    let cast = |from: DType| {
        case(format!("Cast {from}"), move |net| {
            let range = match from {
                DType::Bool => Draw::Within(0.0, 2.0),
                DType::U8 => Draw::Within(0.0, 100.0),
                _ => Draw::Within(-100.0, 100.0),
            };
            // What no unsigned type holds is not defined.
            let above = if from == DType::Bool { range } else { Draw::Within(0.0, 100.0) };
            for to in ALL_TYPES {
                let x = net.input(from, &[3, 7, 11], if to == DType::U8 { above } else { range });
                let y = net.op("Cast", &[&x], [int("to", to.to_onnx().into())]);
                net.output(&y, to);
            }
        })
        .exact()
    };
    ALL_TYPES.into_iter().map(cast).collect()
}

fn compositions() -> Vec<Case> {
    vec![
        case("Where broadcast", |net| {
            let condition = net.input(DType::Bool, &[1, 6, 1], Draw::Within(0.0, 2.0));
            let (a, b) = (net.floats(&[5, 6, 29]), net.floats(&[5, 1, 29]));
            let y = net.op("Where", &[&condition, &a, &b], []);
            net.result(&y);
        }),
        case("Clip", |net| {
            let (x, low, high) = (net.floats(&[9, 31]), net.constant(&[], &[-0.5]), net.constant(&[], &[0.7]));
            let y = net.op("Clip", &[&x, &low, &high], []);
            net.result(&y);
        }),
        case("chain of twelve", |net| {
            let (a, b, c) = (net.floats(&[4, 9, 65]), net.floats(&[9, 1]), net.floats(&[65]));
            let mut y = net.op("Add", &[&a, &b], []);
            for kind in ["Tanh", "Sigmoid", "Gelu", "HardSwish", "Softplus"] {
                let curved = net.op(kind, &[&y], []);
                let scaled = net.op("Mul", &[&curved, &c], []);
                y = net.op("Sub", &[&scaled, &b], []);
            }
            net.result(&y);
        }),
        case("a chain read twice", |net| {
            let x = net.floats(&[8, 127]);
            let y = net.op("Sigmoid", &[&x], []);
            let z = net.op("Mul", &[&x, &y], []);
            net.result(&y);
            net.result(&z);
        }),
        case("ThresholdedRelu", |net| {
            let x = net.floats(&[8, 127]);
            let y = net.op("ThresholdedRelu", &[&x], [float("alpha", 0.3)]);
            net.result(&y);
        })
        .exact(),
        case("a scalar", |net| {
            let x = net.floats(&[]);
            let y = net.op("Exp", &[&x], []);
            net.result(&y);
        })
        .plain(),
        case("more elements than one wave of threads", |net| {
            let (x, c) = (net.floats(&[3, 301, 1023]), net.weight(&[1023], 1.0));
            let y = net.op("Mul", &[&x, &c], []);
            let y = net.op("Tanh", &[&y], []);
            net.result(&y);
        })
        .heavy(),
    ]
}

pub fn cases() -> Vec<Case> {
    [unary(), binary(), integers(), casts(), compositions()].into_iter().flatten().collect()
}
