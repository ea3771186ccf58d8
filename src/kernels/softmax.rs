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
