//! Softmax along the last axis.

use super::Family;
use super::operands::{arity, from_floats, one_float_type};
use crate::error::{Result, ensure, fail};
use crate::ir::{Tensor, TensorType};

/// `exp(x - max) / sum` along the last axis, or its logarithm. Operand and result: float, any shape of rank >= 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// Whether the logarithm of the result is delivered.
    pub log: bool,
}

impl Family for Softmax {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("Softmax", inputs, 1)?;
        one_float_type("Softmax", inputs)?;
        ensure!(!inputs[0].shape.is_empty(), ShapeMismatch, "Softmax of a scalar has no axis");
        Ok(inputs.to_vec())
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        let mut values = x.to_f64s();
        let extent = x.shape()[x.shape().len() - 1].max(1);
        values.chunks_exact_mut(extent).for_each(|row| softmax(row, self.log));
        Ok(vec![from_floats(x.dtype(), x.shape(), &values)])
    }
}

/// Replaces one row by its softmax or, for `log`, the logarithm of that.
pub(super) fn softmax(row: &mut [f64], log: bool) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
    if log {
        row.iter_mut().for_each(|x| *x -= max + sum.ln());
    } else {
        row.iter_mut().for_each(|x| *x = (*x - max).exp() / sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::ir::DType;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    #[test]
    fn rows_are_probabilities_whatever_their_size() {
        let x = floats(&[2, 3], &[1.0, 2.0, 3.0, 1000.0, 1001.0, f32::NEG_INFINITY]);
        let y = evaluated(Softmax { log: false }, std::slice::from_ref(&x)).swap_remove(0);
        assert_eq!(y.to_vec::<f32>().unwrap(), [0.090_030_57, 0.24472848, 0.66524094, 0.26894143, 0.7310586, 0.0]);
        let y = evaluated(Softmax { log: true }, &[x]).swap_remove(0);
        let log = y.to_vec::<f32>().unwrap();
        assert_eq!(log[..3], [-2.407606, -1.407606, -0.40760598]);
        assert_eq!(log[5], f32::NEG_INFINITY);
    }

    #[test]
    fn a_row_without_a_finite_score_is_not_a_number() {
        let y = evaluated(Softmax { log: false }, &[floats(&[2], &[f32::NEG_INFINITY; 2])]).swap_remove(0);
        assert!(y.to_f64s().iter().all(|y| y.is_nan()));
    }

    #[test]
    fn scalars_and_integers_are_refused() {
        assert_eq!(refused(Softmax { log: false }, &[(DType::F32, &[])]), Status::ShapeMismatch);
        assert_eq!(refused(Softmax { log: false }, &[(DType::I32, &[2])]), Status::Unsupported);
    }
}
