//! `Attention` and `MultiHeadAttention` of `com.microsoft`, written out as products, masks and a softmax, which a pass
//! puts together again for every way of writing attention. Semantics: `docs/ContribOperators.md` of ONNX Runtime.

use super::body::Body;
use super::call::{self, Call};
use super::fused::{plus, required_count};
use super::{contraction, indexing, movement};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;
use crate::kernels::{Binary, Softmax};
use crate::plan::{Builder, View};

/// Queries, keys and values by heads, each `[batch, heads, length, width]`.
struct Heads {
    q: View,
    k: View,
    v: View,
}

/// `[batch, length, heads * width]` as `[batch, heads, length, width]`.
fn split_heads(b: &mut Builder, x: &View, heads: usize) -> Result<View> {
    let &[batch, length, hidden] = &x.shape[..] else {
        return Err(fail!(ShapeMismatch, "{:?} is not [batch, length, hidden]", x.shape));
    };
    ensure!(hidden.is_multiple_of(heads), ShapeMismatch, "{hidden} features do not split into {heads} heads");
    Ok(b.reshape(x, &[batch, length, heads, hidden / heads])?.swap(1, 2))
}

/// `Attention`: one projection to queries, keys and values. Operands: input, weights, bias, mask, past, addend of the
/// scores; results: the context and, if wanted, keys and values as the next step's past, `[2, batch, heads, length, width]`.
pub fn attention(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    ensure!(!call.flag("do_rotary", false)?, Unsupported, "attribute 'do_rotary' is 1");
    let heads = required_count(call, "num_heads")?;
    let projected = contraction::product(b, call.input(0)?, call.input(1)?)?;
    let projected = plus(b, &projected, call.optional(2))?;
    let hidden = *projected.shape.last().ok_or_else(|| fail!(ShapeMismatch, "a scalar"))?;
    let sizes = match call.ints("qkv_hidden_sizes")? {
        Some(sizes) => sizes.iter().map(|&size| call::extent(size, "a hidden size")).collect::<Result<Vec<_>>>()?,
        None => vec![hidden / 3; 3],
    };
    let &[q, k, v] = &sizes[..] else { return Err(fail!(Malformed, "attribute 'qkv_hidden_sizes' is {sizes:?}")) };
    let whole = q.saturating_add(k).saturating_add(v) == hidden && projected.rank() == 3;
    ensure!(whole, ShapeMismatch, "{:?} does not split into {sizes:?}", projected.shape);
    let mut part = |start, size| split_heads(b, &projected.slice(2, start, size, 1), heads);
    let mut all = Heads { q: part(0, q)?, k: part(q, k)?, v: part(q + k, v)? };
    if let Some(past) = call.optional(4) {
        ensure!(past.rank() == 5 && past.shape[0] == 2, ShapeMismatch, "the past is {:?}", past.shape);
        let half = |index| past.slice(0, index, 1, 1).remove_axis(0);
        all.extend(b, &half(0), &half(1))?;
    }
    let mut results = vec![all.attend(b, call, call.optional(3), call.optional(5))?];
    if call.outputs_wanted(1) {
        results.push(movement::join(b, &[all.k.insert_axis(0), all.v.insert_axis(0)], 0)?);
    }
    Ok(results)
}

/// `MultiHeadAttention` of projected queries, keys and values. Operands: query, key, value, bias of all three, mask of the
/// keys, addend of the scores, past keys and values; results: the context, then all keys and values by heads.
pub fn multi_head_attention(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    for index in 8..call.inputs.len() {
        ensure!(call.optional(index).is_none(), Unsupported, "operand {index} is not supported");
    }
    let heads = required_count(call, "num_heads")?;
    let (query, key, value) = (call.input(0)?, call.optional(1), call.optional(2));
    let (Some(key), Some(value)) = (key, value) else {
        return Err(fail!(Unsupported, "packed queries, keys and values are not supported"));
    };
    let mut start = 0;
    let mut part = |b: &mut Builder, x: &View| {
        if x.rank() == 4 {
            return Ok(x.clone());
        }
        let size = *x.shape.last().ok_or_else(|| fail!(ShapeMismatch, "a scalar"))?;
        let bias = match call.optional(3) {
            Some(bias) => {
                let fits = bias.rank() == 1 && bias.shape[0] >= start + size;
                ensure!(fits, ShapeMismatch, "the bias has shape {:?}", bias.shape);
                Some(bias.slice(0, start, size, 1))
            }
            None => None,
        };
        start += size;
        let sum = plus(b, x, bias.as_ref())?;
        split_heads(b, &sum, heads)
    };
    let mut all = Heads { q: part(b, query)?, k: part(b, key)?, v: part(b, value)? };
    if let (Some(keys), Some(values)) = (call.optional(6), call.optional(7)) {
        all.extend(b, keys, values)?;
    }
    Ok(vec![all.attend(b, call, call.optional(4), call.optional(5))?, all.k, all.v])
}

impl Heads {
    /// Puts the keys and values of earlier steps before these.
    fn extend(&mut self, b: &mut Builder, keys: &View, values: &View) -> Result<()> {
        for (past, now) in [(keys, &mut self.k), (values, &mut self.v)] {
            ensure!(past.rank() == 4, ShapeMismatch, "the past is {:?}", past.shape);
            *now = movement::join(b, &[past.clone(), now.clone()], 2)?;
        }
        Ok(())
    }

    /// `softmax(scale Q K^T + masks) V` as `[batch, length, heads * width]`.
    fn attend(&self, b: &mut Builder, call: &Call<'_>, mask: Option<&View>, addend: Option<&View>) -> Result<View> {
        let width = self.q.shape[3];
        let scale = match call.float("scale", 0.0)? {
            0.0 => 1.0 / (width as f32).sqrt(),
            scale => scale,
        };
        let mut scores = contraction::scaled_product(b, &self.q, &self.k.swap(2, 3), scale)?;
        let masked = call.float("mask_filter_value", -10000.0)?;
        if let Some(mask) = mask {
            let mask = key_mask(b, mask, &scores.shape)?;
            scores =
                masked_by(b, &scores, &mask, |body, score, filter| body.binary(Binary::Add, score, filter), masked)?;
        }
        scores = plus(b, &scores, addend)?;
        if call.flag("unidirectional", false)? {
            let (rows, columns) = (scores.shape[2], scores.shape[3]);
            let past = columns as i64 - rows as i64;
            let kept = indexing::diagonal_mask(b, rows, columns, |distance| distance <= past)?;
            scores = masked_by(b, &scores, &kept, |_, _, filter| filter, f32::MIN)?;
        }
        let weights = b.emit1(Softmax { log: false }, &[scores])?;
        let context = contraction::product(b, &weights, &self.v)?.swap(1, 2);
        let shape = [context.shape[0], context.shape[1], context.shape[2] * context.shape[3]];
        b.reshape(&context, &shape)
    }
}

/// The scores where `kept` holds, else what `replace` makes of the score and the filter value.
fn masked_by(
    b: &mut Builder,
    scores: &View,
    kept: &View,
    replace: impl FnOnce(&mut Body, usize, usize) -> usize,
    filter: f32,
) -> Result<View> {
    let mut body = Body::with_inputs(2);
    let filter = body.float(filter);
    let replaced = replace(&mut body, 0, filter);
    body.select(1, 0, replaced);
    let dtype = b.dtype(scores);
    b.map(&[scores, kept], body.finish(), dtype)
}

/// A mask of keys as a truth value for scores `[batch, heads, queries, keys]`: `[batch, keys]` or `[batch, queries, keys]`
/// keeps what is not 0, `[batch]` the first so many.
fn key_mask(b: &mut Builder, mask: &View, scores: &[usize]) -> Result<View> {
    let (batch, keys) = (scores[0], scores[3]);
    let view = match &mask.shape[..] {
        &[count] if count == batch => {
            let positions = indexing::iota(b, keys)?;
            let lengths = b.cast(mask, DType::I64)?.insert_axis(1);
            b.binary(Binary::Less, &positions, &lengths)?.insert_axis(1).insert_axis(1)
        }
        &[_, _] => b.cast(mask, DType::Bool)?.insert_axis(1).insert_axis(1),
        &[_, _, _] => b.cast(mask, DType::Bool)?.insert_axis(1),
        other => return Err(fail!(Unsupported, "a mask of shape {other:?} is not supported")),
    };
    ensure!(view.shape[3] == keys, ShapeMismatch, "a mask of shape {:?} for {keys} keys", mask.shape);
    Ok(view)
}
