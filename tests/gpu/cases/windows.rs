//! Convolutions, pools and resizing in one, two and three dimensions.

use super::{Case, case};
use crate::net::{Draw, Net, window};
use crate::wire::{float, int, ints, text};
use streaminfer::ir::DType;

/// A convolution: input, filters [out, in / groups, kernel..], strides, pads, dilations, groups.
#[derive(Clone, Copy, Debug)]
struct Conv {
    x: &'static [usize],
    w: &'static [usize],
    strides: &'static [i64],
    pads: &'static [i64],
    dilations: &'static [i64],
    groups: i64,
}

const fn conv(
    x: &'static [usize],
    w: &'static [usize],
    strides: &'static [i64],
    pads: &'static [i64],
    dilations: &'static [i64],
    groups: i64,
) -> Conv {
    Conv { x, w, strides, pads, dilations, groups }
}

const CONVS: &[Conv] = &[
    conv(&[2, 3, 11], &[5, 3, 3], &[1], &[1, 1], &[1], 1),
    conv(&[1, 4, 33], &[6, 4, 5], &[2], &[0, 3], &[2], 1),
    // Several outputs: of a single weight and a bias all results may be what cancellation leaves.
    conv(&[1, 1, 9, 9], &[3, 1, 1, 1], &[1, 1], &[0, 0, 0, 0], &[1, 1], 1),
    conv(&[2, 3, 17, 19], &[8, 3, 3, 3], &[1, 1], &[1, 1, 1, 1], &[1, 1], 1),
    conv(&[1, 3, 23, 21], &[16, 3, 7, 7], &[2, 2], &[3, 3, 3, 3], &[1, 1], 1),
    conv(&[2, 16, 9, 7], &[33, 16, 1, 1], &[1, 1], &[0, 0, 0, 0], &[1, 1], 1),
    conv(&[1, 8, 14, 14], &[12, 8, 1, 1], &[2, 2], &[0, 0, 0, 0], &[1, 1], 1),
    conv(&[1, 5, 13, 12], &[4, 5, 3, 2], &[1, 2], &[2, 0, 1, 3], &[1, 1], 1),
    conv(&[1, 4, 15, 16], &[6, 4, 3, 3], &[1, 1], &[2, 2, 2, 2], &[2, 2], 1),
    conv(&[2, 8, 10, 11], &[12, 2, 3, 3], &[1, 1], &[1, 1, 1, 1], &[1, 1], 4),
    conv(&[2, 19, 13, 15], &[19, 1, 3, 3], &[1, 1], &[1, 1, 1, 1], &[1, 1], 19),
    conv(&[1, 16, 13, 15], &[16, 1, 5, 5], &[2, 2], &[2, 1, 2, 3], &[1, 1], 16),
    conv(&[1, 6, 12, 12], &[12, 1, 3, 3], &[1, 1], &[2, 2, 2, 2], &[2, 2], 6),
    conv(&[1, 3, 5, 7, 6], &[4, 3, 2, 3, 3], &[1, 2, 1], &[0, 1, 1, 1, 1, 1], &[1, 1, 1], 1),
    conv(&[1, 3, 4, 3, 5, 4], &[4, 3, 2, 1, 3, 2], &[1, 1, 2, 1], &[0, 0, 1, 1, 1, 0, 1, 0], &[1, 1, 1, 1], 1),
    conv(&[3, 64, 8, 8], &[72, 64, 3, 3], &[1, 1], &[1, 1, 1, 1], &[1, 1], 1),
    // Pads wider than the window, so that whole windows lie outside.
    conv(&[1, 2, 4, 4], &[3, 2, 3, 3], &[1, 1], &[4, 0, 3, 5], &[1, 1], 1),
];
const HEAVY_CONVS: &[Conv] = &[
    conv(&[1, 3, 224, 224], &[64, 3, 7, 7], &[2, 2], &[3, 3, 3, 3], &[1, 1], 1),
    conv(&[2, 256, 14, 14], &[256, 256, 3, 3], &[1, 1], &[1, 1, 1, 1], &[1, 1], 1),
    conv(&[1, 512, 28, 28], &[1024, 512, 1, 1], &[2, 2], &[0, 0, 0, 0], &[1, 1], 1),
    // The largest tile, with sums that are soon done.
    conv(&[1, 16, 48, 48], &[1024, 16, 1, 2], &[1, 1], &[0, 0, 0, 1], &[1, 1], 1),
];

fn apply(net: &mut Net, conv: &Conv, is_constant: bool) -> String {
    let terms: usize = conv.w[1..].iter().product();
    let x = net.floats(conv.x);
    let w = if is_constant { net.weight(conv.w, (terms as f64).powf(-0.5)) } else { net.floats(conv.w) };
    let b = net.weight(&conv.w[..1], 0.5);
    let [strides, pads, dilations] = window(conv.strides, conv.pads, conv.dilations);
    net.op("Conv", &[&x, &w, &b], [strides, pads, dilations, int("group", conv.groups)])
}

fn convolutions() -> Vec<Case> {
    let of = |conv: &'static Conv, is_constant: bool| {
        case(format!("{conv:?} {is_constant}"), move |net| {
            let y = apply(net, conv, is_constant);
            net.result(&y);
        })
    };
    let mut cases: Vec<Case> = CONVS.iter().map(|conv| of(conv, true)).collect();
    cases.extend(CONVS.iter().map(|conv| of(conv, false).stored()));
    cases.extend(HEAVY_CONVS.iter().map(|conv| of(conv, true).stored().heavy()));
    for kind in ["Relu", "HardSwish", "Sigmoid", "LeakyRelu"] {
        for index in [3, 5, 10] {
            cases.push(case(format!("{kind} of convolution {index}"), move |net| {
                let y = apply(net, &CONVS[index], true);
                let y = net.op(kind, &[&y], []);
                net.result(&y);
            }));
        }
    }
    cases.push(case("residual block", |net| {
        let x = net.floats(&[2, 16, 9, 11]);
        let (w, v) = (net.weight(&[16, 16, 3, 3], 0.08), net.weight(&[16, 16, 3, 3], 0.08));
        let pads = || ints("pads", &[1, 1, 1, 1]);
        let y = net.op("Conv", &[&x, &w], [pads()]);
        let y = net.op("Relu", &[&y], []);
        let y = net.op("Conv", &[&y, &v], [pads()]);
        let y = net.op("Add", &[&y, &x], []);
        let y = net.op("Relu", &[&y], []);
        net.result(&y);
    }));
    let integers: [(&'static [usize], &'static [usize], &'static [i64]); 2] = [
        (&[2, 5, 9, 8], &[7, 5, 3, 3], &[1, 1, 1, 1]),
        (&[1, 3, 4, 3, 5, 4], &[4, 3, 2, 1, 3, 2], &[0, 0, 1, 1, 1, 0, 1, 0]),
    ];
    for (x, w, pads) in integers {
        let integer = case(format!("ConvInteger in {} dimensions", w.len() - 2), move |net| {
            let x = net.input(DType::U8, x, Draw::Within(0.0, 256.0));
            let w = net.drawn(DType::I8, w, Draw::Within(-128.0, 128.0));
            let zero = net.drawn(DType::U8, &[], Draw::Within(7.0, 8.0));
            let y = net.op("ConvInteger", &[&x, &w, &zero], [ints("pads", pads)]);
            net.output(&y, DType::I32);
        });
        cases.push(integer.exact());
    }
    cases
}

fn transposed() -> Vec<Case> {
    // Filters are [in, out / groups, kernel..].
    let of = |conv: Conv, output_padding: &'static [i64]| {
        case(format!("ConvTranspose {conv:?} {output_padding:?}"), move |net| {
            let (x, w) = (net.floats(conv.x), net.weight(conv.w, 0.2));
            let b = net.weight(&[conv.w[1] * conv.groups as usize], 0.5);
            let [strides, pads, dilations] = window(conv.strides, conv.pads, conv.dilations);
            let attributes =
                [strides, pads, dilations, int("group", conv.groups), ints("output_padding", output_padding)];
            let y = net.op("ConvTranspose", &[&x, &w, &b], attributes);
            net.result(&y);
        })
    };
    vec![
        of(conv(&[2, 3, 9], &[3, 5, 3], &[2], &[1, 0], &[1], 1), &[0]),
        of(conv(&[1, 4, 7, 6], &[4, 3, 3, 3], &[1, 1], &[1, 1, 1, 1], &[1, 1], 1), &[0, 0]),
        of(conv(&[2, 6, 5, 7], &[6, 4, 2, 2], &[2, 2], &[0, 0, 0, 0], &[1, 1], 1), &[0, 0]),
        of(conv(&[1, 6, 5, 7], &[6, 2, 3, 3], &[2, 3], &[1, 0, 0, 1], &[1, 1], 3), &[1, 2]),
        of(conv(&[1, 2, 6, 6], &[2, 3, 3, 3], &[1, 1], &[0, 2, 1, 0], &[2, 2], 1), &[0, 0]),
        of(
            conv(&[1, 3, 3, 2, 4, 3], &[3, 2, 2, 1, 3, 2], &[1, 1, 2, 1], &[0, 0, 1, 1, 1, 0, 0, 0], &[1, 1, 1, 1], 1),
            &[0, 0, 1, 0],
        ),
    ]
}

/// Input, window, strides, pads.
type Window = (&'static [usize], &'static [i64], &'static [i64], &'static [i64]);

fn pools() -> Vec<Case> {
    let mut cases = Vec::new();
    let windows: [Window; 7] = [
        (&[2, 3, 17], &[3], &[2], &[1, 0]),
        (&[2, 5, 13, 15], &[3, 3], &[2, 2], &[1, 1, 1, 1]),
        (&[1, 3, 12, 10], &[2, 2], &[2, 2], &[0, 0, 0, 0]),
        (&[1, 4, 11, 12], &[3, 5], &[1, 3], &[0, 2, 2, 1]),
        (&[1, 2, 7, 8, 9], &[2, 3, 2], &[1, 2, 2], &[1, 1, 0, 0, 1, 1]),
        (&[2, 3, 6, 6], &[6, 6], &[1, 1], &[0, 0, 0, 0]),
        (&[1, 3, 4, 3, 5, 4], &[2, 1, 3, 2], &[1, 1, 2, 2], &[1, 0, 1, 0, 0, 0, 1, 1]),
    ];
    for (x, kernel, strides, pads) in windows {
        for ceil in [0, 1] {
            let attributes = move || {
                [ints("kernel_shape", kernel), ints("strides", strides), ints("pads", pads), int("ceil_mode", ceil)]
            };
            cases.push(case(format!("MaxPool {x:?} {kernel:?} {ceil}"), move |net| {
                let x = net.floats(x);
                let y = net.op("MaxPool", &[&x], attributes());
                net.result(&y);
            }));
            for counts in [0, 1] {
                cases.push(case(format!("AveragePool {x:?} {kernel:?} {ceil} {counts}"), move |net| {
                    let x = net.input(DType::F32, x, Draw::Within(0.5, 2.0));
                    let [kernel, strides, pads, ceil] = attributes();
                    let attributes = [kernel, strides, pads, ceil, int("count_include_pad", counts)];
                    let y = net.op("AveragePool", &[&x], attributes);
                    net.result(&y);
                }));
            }
        }
    }
    cases.push(case("MaxPool with dilations", |net| {
        let x = net.floats(&[2, 3, 14, 13]);
        let y = net.op("MaxPool", &[&x], [ints("kernel_shape", &[3, 2]), ints("dilations", &[2, 3])]);
        net.result(&y);
    }));
    cases
}

fn resizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in ["nearest", "linear", "cubic"] {
        for coordinates in ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"] {
            for sizes in [[2, 3, 14, 18], [2, 3, 5, 4], [2, 3, 7, 31]] {
                let name = format!("Resize {mode} {coordinates} {sizes:?}");
                cases.push(case(name, move |net| {
                    let (x, sizes) = (net.floats(&[2, 3, 7, 9]), net.longs(&sizes));
                    let attributes = [text("mode", mode), text("coordinate_transformation_mode", coordinates)];
                    let y = net.op("Resize", &[&x, "", "", &sizes], attributes);
                    net.result(&y);
                }));
            }
        }
    }
    cases.push(case("Resize by scales along one axis", |net| {
        let (x, scales) = (net.floats(&[1, 2, 6, 11]), net.constant(&[4], &[1.0, 1.0, 1.0, 2.5]));
        let y = net.op("Resize", &[&x, "", &scales], [text("mode", "linear"), float("cubic_coeff_a", -0.5)]);
        net.result(&y);
    }));
    cases
}

pub fn cases() -> Vec<Case> {
    [convolutions(), transposed(), pools(), resizes()].into_iter().flatten().collect()
}
