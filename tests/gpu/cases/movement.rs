//! Steps that only move elements, of every size of element.

use super::{Case, case};
use crate::net::{Draw, Net};
use crate::wire::{int, ints, text};
use streaminfer::ir::DType;

const TYPES: [DType; 4] = [DType::F32, DType::I64, DType::F16, DType::U8];

fn some(net: &mut Net, dtype: DType, shape: &[usize]) -> String {
    net.input(dtype, shape, if dtype.is_float() { Draw::Normal } else { Draw::Within(0.0, 100.0) })
}

/// A case for elements of each size.
fn of_each_size(name: &str, build: fn(&mut Net, DType) -> String) -> impl Iterator<Item = Case> {
    TYPES.into_iter().map(move |dtype| {
        let case = case(format!("{name} {dtype}"), move |net| {
            let y = build(net, dtype);
            net.output(&y, dtype);
        });
        if dtype == DType::F32 { case } else { case.exact() }
    })
}

fn transposes() -> Vec<Case> {
    let of = |shape: &'static [usize], perm: &'static [i64]| {
        case(format!("Transpose {shape:?} {perm:?}"), move |net| {
            let x = net.floats(shape);
            let y = net.op("Transpose", &[&x], [ints("perm", perm)]);
            net.result(&y);
        })
    };
    vec![
        of(&[67, 131], &[1, 0]),
        of(&[3, 5, 33], &[0, 2, 1]),
        of(&[2, 3, 17, 19], &[0, 2, 1, 3]),
        of(&[2, 3, 17, 19], &[3, 1, 0, 2]),
        of(&[1, 37, 1, 2], &[2, 1, 3, 0]),
    ]
}

fn joins() -> Vec<Case> {
    let mut cases: Vec<Case> = of_each_size("Concat 0", |net, dtype| {
        let parts = [[1, 13], [4, 13], [2, 13]].map(|shape| some(net, dtype, &shape));
        net.op("Concat", &[&parts[0], &parts[1], &parts[2]], [int("axis", 0)])
    })
    .collect();
    cases.extend(of_each_size("Concat 2", |net, dtype| {
        let parts = [[2, 3, 1], [2, 3, 16], [2, 3, 7]].map(|shape| some(net, dtype, &shape));
        net.op("Concat", &[&parts[0], &parts[1], &parts[2]], [int("axis", 2)])
    }));
    cases.extend(of_each_size("Tile", |net, dtype| {
        let (x, repeats) = (some(net, dtype, &[2, 1, 9]), net.longs(&[2, 3, 2]));
        net.op("Tile", &[&x, &repeats], [])
    }));
    cases.extend(of_each_size("Expand", |net, dtype| {
        let (x, shape) = (some(net, dtype, &[3, 1, 7]), net.longs(&[2, 3, 5, 7]));
        net.op("Expand", &[&x, &shape], [])
    }));
    for mode in ["constant", "reflect", "edge"] {
        cases.push(case(format!("Pad {mode}"), move |net| {
            let (x, pads) = (net.floats(&[3, 6, 11]), net.longs(&[0, 1, 3, 0, 2, 4]));
            let y = net.op("Pad", &[&x, &pads], [text("mode", mode)]);
            net.result(&y);
        }));
    }
    cases.push(case("Pad inwards", |net| {
        let (x, pads, value) = (net.floats(&[5, 9]), net.longs(&[-1, 2, 2, -3]), net.constant(&[], &[1.5]));
        let y = net.op("Pad", &[&x, &pads, &value], []);
        net.result(&y);
    }));
    cases
}

fn cuts() -> Vec<Case> {
    let mut cases: Vec<Case> = of_each_size("Slice backwards", |net, dtype| {
        let x = some(net, dtype, &[4, 9, 13]);
        let (starts, ends) = (net.longs(&[8, 11]), net.longs(&[i64::MIN + 1, 0]));
        let (axes, steps) = (net.longs(&[1, 2]), net.longs(&[-1, -3]));
        net.op("Slice", &[&x, &starts, &ends, &axes, &steps], [])
    })
    .collect();
    cases.push(case("Split, and its parts in another order", |net| {
        let (x, sizes) = (net.floats(&[3, 10, 5]), net.longs(&[3, 1, 6]));
        let parts = net.ops("Split", &[&x, &sizes], 3, [int("axis", 1)]);
        let y = net.op("Concat", &[&parts[2], &parts[0], &parts[1]], [int("axis", 1)]);
        net.result(&y);
        let z = net.op("Tanh", &[&parts[1]], []);
        net.result(&z);
    }));
    for (kind, shape) in [("DepthToSpace", [2, 12, 3, 5]), ("SpaceToDepth", [2, 3, 6, 10])] {
        cases.push(case(kind, move |net| {
            let x = net.floats(&shape);
            let y = net.op(kind, &[&x], [int("blocksize", 2)]);
            net.result(&y);
        }));
    }
    cases.push(case("Reshape of a transposed tensor", |net| {
        let x = net.floats(&[5, 6, 7]);
        let t = net.op("Transpose", &[&x], [ints("perm", &[2, 0, 1])]);
        let shape = net.longs(&[35, 6]);
        let y = net.op("Reshape", &[&t, &shape], []);
        net.result(&y);
    }));
    cases.push(case("Trilu", |net| {
        let x = net.floats(&[2, 9, 11]);
        let y = net.op("Trilu", &[&x], [int("upper", 0)]);
        net.result(&y);
    }));
    cases
}

/// Inputs and outputs that copy engines move, and many at once.
fn borders() -> Vec<Case> {
    vec![
        case("more than a megabyte in and out", |net| {
            let x = net.floats(&[520, 519]);
            let y = net.op("Neg", &[&x], []);
            net.result(&y);
        })
        .plain(),
        case("forty inputs and outputs", |net| {
            for index in 0..40 {
                let x = net.floats(&[index + 1, 3]);
                let y = net.op("Neg", &[&x], []);
                net.result(&y);
            }
        })
        .plain(),
        case("an output twice, and an input as output", |net| {
            let x = net.floats(&[3, 5]);
            let y = net.op("Neg", &[&x], []);
            net.result(&y);
            net.result(&y);
            net.result(&x);
        })
        .plain(),
    ]
}

pub fn cases() -> Vec<Case> {
    [transposes(), joins(), cuts(), borders()].into_iter().flatten().collect()
}
