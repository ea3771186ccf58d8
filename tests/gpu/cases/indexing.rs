//! Reads and writes at positions that data say, negative ones among them, and the greatest elements.

use super::{Case, case};
use crate::net::{Draw, Net};
use crate::wire::{int, text};
use streaminfer::ir::{DType, Tensor};

fn data(net: &mut Net, dtype: DType, shape: &[usize]) -> String {
    net.input(dtype, shape, if dtype.is_float() { Draw::Normal } else { Draw::Within(-100.0, 100.0) })
}

fn for_type(case: Case, dtype: DType) -> Case {
    if dtype == DType::F32 { case } else { case.exact() }
}

fn reads() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, index) in [
        (DType::F32, DType::I64),
        (DType::F32, DType::I32),
        (DType::I64, DType::I64),
        (DType::F16, DType::I64),
        (DType::I8, DType::I32),
    ] {
        for axis in 0..3 {
            let gather = case(format!("Gather {dtype} {index} {axis}"), move |net| {
                let x = data(net, dtype, &[7, 9, 11]);
                let end = [7, 9, 11][axis];
                let at = net.indices(index, &[2, 5], -end, end);
                let y = net.op("Gather", &[&x, &at], [int("axis", axis as i64)]);
                net.output(&y, dtype);
            });
            cases.push(for_type(gather, dtype));
            let elements = case(format!("GatherElements {dtype} {index} {axis}"), move |net| {
                let x = data(net, dtype, &[7, 9, 11]);
                let end = [7, 9, 11][axis];
                let at = net.indices(index, &[7, 9, 11], -end, end);
                let y = net.op("GatherElements", &[&x, &at], [int("axis", axis as i64)]);
                net.output(&y, dtype);
            });
            cases.push(for_type(elements, dtype));
        }
    }
    for (batch, shape) in [(0, vec![4, 2]), (1, vec![5, 3, 1]), (1, vec![5, 2])] {
        cases.push(case(format!("GatherND {batch} {shape:?}"), move |net| {
            let x = data(net, DType::F32, &[5, 6, 7]);
            let at = net.indices(DType::I64, &shape, -5, 5);
            let y = net.op("GatherND", &[&x, &at], [int("batch_dims", batch)]);
            net.result(&y);
        }));
    }
    cases.push(case("embeddings", |net| {
        let tables = [net.weight(&[1000, 96], 1.0), net.weight(&[2, 96], 1.0)];
        let (words, types) = (net.indices(DType::I64, &[3, 17], 0, 1000), net.indices(DType::I64, &[3, 17], 0, 2));
        let (a, b) = (net.op("Gather", &[&tables[0], &words], []), net.op("Gather", &[&tables[1], &types], []));
        let y = net.op("Add", &[&a, &b], []);
        net.result(&y);
    }));
    cases.push(
        case("OneHot", |net| {
            let at = net.indices(DType::I64, &[3, 7], -9, 9);
            let (depth, values) = (net.longs(&[9]), net.constant(&[2], &[-0.5, 2.0]));
            let y = net.op("OneHot", &[&at, &depth, &values], [int("axis", 1)]);
            net.result(&y);
        })
        .plain(),
    );
    cases
}

/// Reads along an axis without elements, which no index is inside of: zeros.
fn reads_of_nothing() -> Vec<Case> {
    let zeros = || vec![Tensor::from_slice(&[3, 4], &[0f32; 12])];
    let of = |kind: &'static str, index: &'static [usize]| {
        let of_nothing = move |net: &mut Net| {
            let (x, at) = (net.floats(&[0, 4]), net.indices(DType::I64, index, -2, 3));
            let y = net.op(kind, &[&x, &at], []);
            net.result(&y);
        };
        case(format!("{kind} of nothing"), of_nothing).plain().answering(zeros)
    };
    vec![of("Gather", &[3]), of("GatherElements", &[3, 4]), of("GatherND", &[3, 1])]
}

/// Positions that differ where the order of writes would decide; the same ones several times where it does not.
fn writes() -> Vec<Case> {
    let mut cases = Vec::new();
    for reduction in ["none", "add", "mul", "max", "min"] {
        cases.push(case(format!("ScatterND {reduction}"), move |net| {
            let (x, updates) = (net.floats(&[9, 4, 5]), net.floats(&[3, 4, 5]));
            let at = net.longs(&[7, -9, 3]);
            let shape = net.longs(&[3, 1]);
            let at = net.op("Reshape", &[&at, &shape], []);
            let y = net.op("ScatterND", &[&x, &at, &updates], [text("reduction", reduction)]);
            net.result(&y);
        }));
        cases.push(case(format!("ScatterElements {reduction}"), move |net| {
            let (x, updates) = (net.floats(&[6, 11]), net.floats(&[6, 3]));
            let at = net.constant(&[1, 3], &[10.0, 0.0, 4.0]);
            let at = net.op("Cast", &[&at], [int("to", 7)]);
            let shape = net.longs(&[6, 3]);
            let at = net.op("Expand", &[&at, &shape], []);
            let y = net.op("ScatterElements", &[&x, &at, &updates], [int("axis", 1), text("reduction", reduction)]);
            net.result(&y);
        }));
    }
    for reduction in ["add", "max", "min"] {
        cases.push(case(format!("ScatterND {reduction}, many to one place"), move |net| {
            let (x, updates) = (net.floats(&[5, 3]), net.floats(&[40, 3]));
            let at = net.indices(DType::I64, &[40, 1], -5, 5);
            let y = net.op("ScatterND", &[&x, &at, &updates], [text("reduction", reduction)]);
            net.result(&y);
        }));
    }
    cases.push(
        case("ScatterND of integers, the last of many", |net| {
            let (x, updates) = (data(net, DType::I64, &[6, 2]), data(net, DType::I64, &[30, 2]));
            let at = net.indices(DType::I64, &[30, 1], 0, 6);
            let y = net.op("ScatterND", &[&x, &at, &updates], []);
            net.output(&y, DType::I64);
        })
        .exact(),
    );
    cases
}

fn greatest() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, axis, k) in [
        (vec![3, 65], 1, 1),
        (vec![3, 65], 1, 65),
        (vec![37, 4], 0, 5),
        (vec![2, 1000], 1, 100),
        (vec![2, 3, 33], 1, 2),
        // Few of many: they are selected before they are sorted.
        (vec![2, 5000], 1, 40),
    ] {
        for largest in [1, 0] {
            let name = format!("TopK {shape:?} {axis} {k} {largest}");
            let shape = shape.clone();
            cases.push(
                case(name, move |net| {
                    // Few different values, so that there are ties.
                    let x = net.input(DType::I32, &shape, Draw::Within(-20.0, 20.0));
                    let x = net.op("Cast", &[&x], [int("to", 1)]);
                    let k = net.longs(&[k]);
                    let found = net.ops("TopK", &[&x, &k], 2, [int("axis", axis), int("largest", largest)]);
                    net.result(&found[0]);
                    net.output(&found[1], DType::I64);
                })
                .exact(),
            );
        }
    }
    cases
}

pub fn cases() -> Vec<Case> {
    [reads(), reads_of_nothing(), writes(), greatest()].into_iter().flatten().collect()
}
