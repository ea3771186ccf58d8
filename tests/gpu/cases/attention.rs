//! Attention as exporters write it, and an encoder layer around it.

use super::{Case, case};
use crate::net::Net;
use crate::wire::{float, int, ints};

/// What keeps positions out.
#[derive(Clone, Copy, Debug)]
enum Mask {
    None,
    /// The same for all queries: [batch, 1, 1, keys].
    Padding,
    /// Of every pair: [batch, 1, queries, keys].
    Pairs,
    /// Keys behind the query.
    Causal,
}

struct Extents {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    size: usize,
}

/// Scores of -1e4 where the mask is 0, as a bias.
fn bias(net: &mut Net, mask: Mask, extents: &Extents) -> Option<String> {
    let &Extents { batch, queries, keys, .. } = extents;
    let shape = match mask {
        Mask::None => return None,
        Mask::Padding => vec![batch, 1, 1, keys],
        Mask::Pairs => vec![batch, 1, queries, keys],
        Mask::Causal => {
            let kept = (0..queries * keys)
                .map(|at| if at % keys <= at / keys + keys.saturating_sub(queries) { 0.0 } else { -1e4 });
            return Some(net.constant(&[1, 1, queries, keys], &kept.collect::<Vec<f32>>()));
        }
    };
    let kept = net.indices(streaminfer::ir::DType::I64, &shape, 0, 2);
    let kept = net.op("Cast", &[&kept], [int("to", 1)]);
    let (one, low) = (net.constant(&[], &[1.0]), net.constant(&[], &[-1e4]));
    let left = net.op("Sub", &[&one, &kept], []);
    Some(net.op("Mul", &[&left, &low], []))
}

fn attend(net: &mut Net, [q, k, v]: [&str; 3], bias: Option<&str>, size: usize) -> String {
    let turned = net.op("Transpose", &[k], [ints("perm", &[0, 1, 3, 2])]);
    let scores = net.op("MatMul", &[q, &turned], []);
    let scale = net.constant(&[], &[(size as f32).sqrt()]);
    let mut scores = net.op("Div", &[&scores, &scale], []);
    if let Some(bias) = bias {
        scores = net.op("Add", &[&scores, bias], []);
    }
    let weights = net.op("Softmax", &[&scores], [int("axis", -1)]);
    net.op("MatMul", &[&weights, v], [])
}

fn plain(mask: Mask, extents: Extents) -> Case {
    let Extents { batch, heads, queries, keys, size } = extents;
    case(format!("{mask:?} {batch}x{heads}x{queries}x{keys}x{size}"), move |net| {
        let q = net.floats(&[batch, heads, queries, size]);
        let (k, v) = (net.floats(&[batch, heads, keys, size]), net.floats(&[batch, heads, keys, size]));
        let bias = bias(net, mask, &extents);
        let y = attend(net, [&q, &k, &v], bias.as_deref(), size);
        net.result(&y);
    })
}

/// Scores that are used twice, which no single launch does.
fn kept(length: usize, size: usize) -> Case {
    case(format!("scores kept {length}x{size}"), move |net| {
        let [q, k, v] = [0, 1, 2].map(|_| net.floats(&[2, 2, length, size]));
        let gate = net.floats(&[2, 1, 1, length]);
        let turned = net.op("Transpose", &[&k], [ints("perm", &[0, 1, 3, 2])]);
        let scores = net.op("MatMul", &[&q, &turned], []);
        let gated = net.op("Mul", &[&scores, &gate], []);
        let scores = net.op("Add", &[&scores, &gated], []);
        let weights = net.op("Softmax", &[&scores], [int("axis", -1)]);
        let y = net.op("MatMul", &[&weights, &v], []);
        net.result(&y);
    })
}

/// Projections, heads split and joined, residuals, norms, the inner layers: what a BERT repeats.
fn encoder_layer(batch: usize, length: usize, heads: usize, size: usize) -> Case {
    case(format!("encoder layer {batch}x{length}x{heads}x{size}"), move |net| {
        let hidden = heads * size;
        let deviation = (hidden as f64).powf(-0.5);
        let x = net.floats(&[batch, length, hidden]);
        let extents = Extents { batch, heads, queries: length, keys: length, size };
        let bias = bias(net, Mask::Padding, &extents);
        let linear = |net: &mut Net, x: &str, rows: usize, columns: usize| {
            let (w, b) = (net.weight(&[rows, columns], deviation), net.weight(&[columns], 0.1));
            let y = net.op("MatMul", &[x, &w], []);
            net.op("Add", &[&b, &y], [])
        };
        let split = net.longs(&[0, 0, heads as i64, size as i64]);
        let [q, k, v] = [0, 1, 2].map(|_| {
            let y = linear(net, &x, hidden, hidden);
            let y = net.op("Reshape", &[&y, &split], []);
            net.op("Transpose", &[&y], [ints("perm", &[0, 2, 1, 3])])
        });
        let y = attend(net, [&q, &k, &v], bias.as_deref(), size);
        let y = net.op("Transpose", &[&y], [ints("perm", &[0, 2, 1, 3])]);
        let joined = net.longs(&[0, 0, hidden as i64]);
        let y = net.op("Reshape", &[&y, &joined], []);
        let y = linear(net, &y, hidden, hidden);
        let norm = |net: &mut Net, y: &str, x: &str| {
            let sum = net.op("Add", &[y, x], []);
            let (scale, bias) = (net.weight(&[hidden], 1.0), net.weight(&[hidden], 0.1));
            net.op("LayerNormalization", &[&sum, &scale, &bias], [float("epsilon", 1e-12)])
        };
        let x = norm(net, &y, &x);
        let y = linear(net, &x, hidden, 4 * hidden);
        let y = net.op("Gelu", &[&y], []);
        let y = linear(net, &y, 4 * hidden, hidden);
        let y = norm(net, &y, &x);
        net.result(&y);
    })
    .stored()
}

pub fn cases() -> Vec<Case> {
    let extents = |batch, heads, queries, keys, size| Extents { batch, heads, queries, keys, size };
    let mut cases = Vec::new();
    for size in [1, 8, 16, 24, 32, 40, 64, 80, 128] {
        // All queries have nearly the same answer, the mean of all values: with one element a head, more heads, or all answers were
        // near zero now and then, and rounding large against them.
        let heads = if size == 1 { 11 } else { 2 };
        cases.push(plain(Mask::None, extents(1, heads, 19, 19, size)));
        cases.push(plain(Mask::Padding, extents(2, heads, 33, 33, size)));
    }
    for length in [1, 2, 7, 16, 17, 64, 65] {
        cases.push(plain(Mask::Pairs, extents(2, 1, length, length, 32)));
        cases.push(plain(Mask::Causal, extents(1, 2, length, length, 16)));
    }
    cases.push(plain(Mask::None, extents(2, 3, 5, 77, 32)));
    cases.push(plain(Mask::Padding, extents(2, 3, 77, 5, 64)));
    cases.push(plain(Mask::Causal, extents(1, 2, 1, 90, 32)));
    // Without keys the answers are zeros.
    cases.push(plain(Mask::None, extents(1, 2, 5, 0, 16)));
    cases.push(plain(Mask::Padding, extents(2, 1, 5, 0, 64)));
    for length in [127, 128, 129, 255, 257, 384, 512, 513] {
        cases.push(plain(Mask::Padding, extents(1, 2, length, length, 64)).stored().heavy());
        cases.push(plain(Mask::Causal, extents(1, 2, length, length, 32)).stored().heavy());
    }
    // So many that no warp shares its queries.
    for size in [16, 24, 64, 128] {
        cases.push(plain(Mask::Padding, extents(67, 4, 9, 33, size)));
    }
    cases.push(plain(Mask::Padding, extents(17, 4, 70, 130, 64)).stored().heavy());
    cases.push(kept(21, 32));
    cases.push(encoder_layer(2, 17, 3, 16));
    cases.push(encoder_layer(1, 128, 4, 32).heavy());
    cases
}
