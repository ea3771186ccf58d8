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
        let shape = [&q.shape()[..rank - 1], &[width]].concat();
        let mut result = vec![0.0; shape.iter().product()];
        if keys == 0 || result.is_empty() {
            return Ok(vec![from_floats(q.dtype(), &shape, &result)]);
        }
        let mut weights = self.scores(q, k, &inputs[3..])?;
        let values = v.to_f64s();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::kernels::evaluation::{close, eighths, evaluated, refused};
    use crate::kernels::{Binary, MatMul, Softmax, Unary};

    fn operands(shape: [usize; 4], width: usize) -> [Tensor; 3] {
        let [batch, queries, keys, depth] = shape;
        [eighths(&[batch, queries, depth], 1), eighths(&[batch, keys, depth], 2), eighths(&[batch, keys, width], 3)]
    }

    #[test]
    fn it_is_the_softmax_of_one_product_times_another() {
        let [q, k, v] = operands([2, 3, 5, 4], 6);
        let mask = eighths(&[2, 3, 5], 4);
        let masked = Map::binary(Binary::Add, DType::F32);
        let kernel = Attention { scale: 0.5, score: Some(masked.clone()), guard_empty_rows: false };
        let y = evaluated(kernel, &[q.clone(), k.clone(), v.clone(), mask.clone()]).swap_remove(0);
        let transposed: Vec<f64> = (0..40).map(|i| k.to_f64s()[i / 20 * 20 + i % 20 % 5 * 4 + i % 20 / 5]).collect();
        let product = MatMul { alpha: 0.5, epilogue: Some(masked) };
        let scores = evaluated(product, &[q, from_floats(DType::F32, &[2, 4, 5], &transposed), mask]);
        let weights = evaluated(Softmax { log: false }, &scores).swap_remove(0);
        let expected = evaluated(MatMul { alpha: 1.0, epilogue: None }, &[weights, v]).swap_remove(0);
        assert_eq!(y.shape(), expected.shape());
        assert!(close(&y.to_f64s(), &expected.to_f64s(), 1e-6));
    }

    #[test]
    fn a_row_that_sees_nothing_gives_zeros_if_guarded() {
        let blind = Map::binary(Binary::Add, DType::F32);
        let mask = Tensor::from_slice(&[1, 1, 2], &[f32::NEG_INFINITY; 2]);
        for guard_empty_rows in [true, false] {
            let [q, k, v] = operands([1, 1, 2, 3], 1);
            let kernel = Attention { scale: 1.0, score: Some(blind.clone()), guard_empty_rows };
            let y = evaluated(kernel, &[q, k, v, mask.clone()])[0].to_f64s()[0];
            assert!(if guard_empty_rows { y == 0.0 } else { y.is_nan() });
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let kernel = |score| Attention { scale: 1.0, score, guard_empty_rows: false };
        let refuse = |q: &[usize], k: &[usize], v: &[usize]| {
            refused(kernel(None), &[(DType::F32, q), (DType::F32, k), (DType::F32, v)])
        };
        assert_eq!(refuse(&[2, 3], &[2, 4], &[2, 3]), Status::ShapeMismatch);
        assert_eq!(refuse(&[2, 3], &[4, 3], &[5, 3]), Status::ShapeMismatch);
        assert_eq!(refuse(&[1, 2, 3], &[2, 4, 3], &[2, 4, 3]), Status::ShapeMismatch);
        let truth = Map::unary(Unary::IsNan, DType::F32);
        let q: (DType, &[usize]) = (DType::F32, &[2, 2]);
        assert_eq!(refused(kernel(Some(truth)), &[q, q, q]), Status::Unsupported);
    }
}
