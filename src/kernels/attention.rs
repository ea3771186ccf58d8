//! Scaled dot-product attention (Vaswani et al., 2017, equation 1).

use super::operands::{from_floats, mapped_type, one_float_type};
use super::softmax::softmax;
use super::{Family, Map};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, TensorType};

/// `softmax(score(scale * Q K^T)) V` over equal leading batch dimensions, softmax along the keys.
///
/// Operands: Q `[batch.., S, D]`, K `[batch.., T, D]`, V `[batch.., T, E]`, then the score map's further operands, each of
/// shape `[batch.., S, T]`. Result: `[batch.., S, E]`. All of Q, K, V are float of one type; scores and sums are binary32.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Factor of the scores.
    pub scale: f32,
    /// Applied to each scaled score (operand 0), for example to add a mask; operand `i` is the step's operand `i + 2`.
    pub score: Option<Map>,
    /// Whether a row of scores that is -inf throughout gives zeros instead of NaN.
    pub guard_empty_rows: bool,
}

impl Family for Attention {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        ensure!(inputs.len() >= 3, InvalidArgument, "Attention takes at least 3 operands, not {}", inputs.len());
        let [q, k, v] = [0, 1, 2].map(|index| &inputs[index].shape[..]);
        let dtype = one_float_type("Attention", &inputs[..3])?;
        let rank = q.len();
        let agree = rank >= 2
            && [k, v].iter().all(|other| other.len() == rank && other[..rank - 2] == q[..rank - 2])
            && q[rank - 1] == k[rank - 1]
            && k[rank - 2] == v[rank - 2];
        ensure!(agree, ShapeMismatch, "Attention: queries {q:?}, keys {k:?} and values {v:?} do not fit");
        let scores = [&q[..rank - 1], &k[rank - 2..rank - 1]].concat();
        let score = mapped_type("Attention", self.score.as_ref(), DType::F32, &scores, &inputs[3..])?;
        ensure!(score.dtype == DType::F32, Unsupported, "Attention: scores are float32, not {}", score.dtype);
        Ok(vec![TensorType::new(dtype, [&q[..rank - 1], &v[rank - 1..]].concat())?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        let rank = q.shape().len();
        let (keys, width) = (k.shape()[rank - 2], v.shape()[rank - 1]);
        let mut weights = self.scores(q, k, &inputs[3..])?;
        let values = v.to_f64s();
        let shape = [&q.shape()[..rank - 1], &[width]].concat();
        let mut result = vec![0.0; shape.iter().product()];
        if keys * width == 0 {
            return Ok(vec![from_floats(q.dtype(), &shape, &result)]);
        }
        let queries = q.shape()[rank - 2];
        for (row, (weights, sums)) in weights.chunks_exact_mut(keys).zip(result.chunks_exact_mut(width)).enumerate() {
            if self.guard_empty_rows && weights.iter().all(|&score| score == f64::NEG_INFINITY) {
                continue;
            }
            softmax(weights, false);
            let values = &values[row / queries * keys * width..][..keys * width];
            for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
                sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += weight * value);
            }
        }
        Ok(vec![from_floats(q.dtype(), &shape, &result)])
    }

    fn work(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let extent = |index: usize, from_end: usize| {
            let shape = &inputs[index].shape;
            shape.len().checked_sub(from_end).map_or(0, |axis| shape[axis] as u64)
        };
        let rows = outputs[0].count() as u64 / extent(2, 1).max(1);
        let per_score = extent(0, 1).saturating_add(extent(2, 1)).saturating_mul(2).saturating_add(8);
        rows.saturating_mul(extent(1, 2)).saturating_mul(per_score)
    }
}

impl Attention {
    /// All scores, after the map.
    fn scores(&self, q: &Tensor, k: &Tensor, further: &[Tensor]) -> Result<Vec<f64>> {
        let rank = q.shape().len();
        let (queries, depth, keys) = (q.shape()[rank - 2], q.shape()[rank - 1], k.shape()[rank - 2]);
        let shape = [&q.shape()[..rank - 1], &[keys]].concat();
        let (q, k) = (q.to_f64s(), k.to_f64s());
        let score = |index: usize| {
            let (row, key) = (index / keys, index % keys);
            let query = &q[row * depth..][..depth];
            let key = &k[(row / queries * keys + key) * depth..][..depth];
            f64::from(self.scale) * query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>()
        };
        let scores: Vec<f64> = (0..shape.iter().product()).map(score).collect();
        match &self.score {
            None => Ok(scores),
            Some(map) => {
                let mut operands = vec![from_floats(DType::F32, &shape, &scores)];
                operands.extend_from_slice(further);
                Ok(map.reference(&operands)?[0].to_f64s())
            }
        }
    }
}
