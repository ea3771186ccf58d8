//! The k greatest or smallest elements.

use super::Family;
use super::operands::{arity, around, axis_within, from_integers, one_number_type};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Tensor, TensorType};
use std::cmp::Ordering;

/// ONNX `TopK` along one axis: results values and indices (`I64`), best first; equal values keep ascending indices. NaN
/// counts as greater than every number. Operand: floats or integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopK {
    /// The axis.
    pub axis: usize,
    /// How many are kept.
    pub k: usize,
    /// Greatest or smallest.
    pub largest: bool,
}

impl Family for TopK {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("TopK", inputs, 1)?;
        let dtype = one_number_type("TopK", inputs)?;
        let mut shape = inputs[0].shape.clone();
        axis_within("TopK", self.axis, &shape)?;
        let extent = shape[self.axis];
        ensure!(self.k <= extent, InvalidArgument, "TopK of {} along an axis of {extent}", self.k);
        shape[self.axis] = self.k;
        Ok(vec![TensorType::new(dtype, shape.clone())?, TensorType::new(DType::I64, shape)?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        let (outer, extent, inner) = around(x.shape(), self.axis);
        let values: Vec<Scalar> = x.scalars().collect();
        let mut best = vec![Scalar::Int(0); outer * self.k * inner];
        let mut indices = vec![0i64; best.len()];
        for line in 0..outer * inner {
            let (block, column) = (line / inner, line % inner);
            let at = |index: usize| values[(block * extent + index) * inner + column];
            let mut order: Vec<usize> = (0..extent).collect();
            // Stable, so that equal values keep ascending indices.
            order.sort_by(|&a, &b| if self.largest { compare(at(b), at(a)) } else { compare(at(a), at(b)) });
            for (rank, &index) in order[..self.k].iter().enumerate() {
                let position = (block * self.k + rank) * inner + column;
                best[position] = at(index);
                indices[position] = index as i64;
            }
        }
        let mut shape = x.shape().to_vec();
        shape[self.axis] = self.k;
        Ok(vec![Tensor::from_scalars(x.dtype(), &shape, best), from_integers(DType::I64, &shape, &indices)])
    }

    fn work(&self, inputs: &[TensorType], _: &[TensorType]) -> u64 {
        let comparisons = inputs[0].shape.get(self.axis).map_or(0, |&extent| usize::BITS - extent.leading_zeros());
        (inputs[0].count() as u64).saturating_mul(u64::from(comparisons) + 1)
    }
}

/// Orders two values of one type, NaN last.
fn compare(a: Scalar, b: Scalar) -> Ordering {
    match (a, b) {
        (Scalar::Int(a), Scalar::Int(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.as_f64(), b.as_f64());
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
    }
}
