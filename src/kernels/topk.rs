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
        let lines = if best.is_empty() { 0 } else { outer * inner };
        for line in 0..lines {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::ir::Element;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    fn best<T: Element>(x: &Tensor, axis: usize, k: usize, largest: bool) -> (Vec<T>, Vec<i64>) {
        let results = evaluated(TopK { axis, k, largest }, std::slice::from_ref(x));
        (results[0].to_vec().unwrap(), results[1].to_vec().unwrap())
    }

    #[test]
    fn equal_values_keep_their_order() {
        let x = floats(&[5], &[3.0, 1.0, 3.0, 2.0, 3.0]);
        assert_eq!(best(&x, 0, 4, true), (vec![3f32, 3.0, 3.0, 2.0], vec![0, 2, 4, 3]));
        let x = Tensor::from_slice(&[5], &[3i64, 1, 3, 1, 2]);
        assert_eq!(best(&x, 0, 3, false), (vec![1i64, 1, 2], vec![1, 3, 4]));
    }

    #[test]
    fn the_axis_may_be_any_and_nan_is_greatest() {
        let x = floats(&[2, 2], &[1.0, f32::NAN, 3.0, 4.0]);
        let (values, indices) = best::<f32>(&x, 0, 1, true);
        assert!(values[0] == 3.0 && values[1].is_nan());
        assert_eq!(indices, [1, 0]);
        assert_eq!(best(&x, 0, 1, false), (vec![1f32, 4.0], vec![0, 1]));
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert_eq!(
            refused(TopK { axis: 0, k: usize::MAX, largest: true }, &[(DType::F32, &[3])]),
            Status::InvalidArgument
        );
        assert_eq!(best::<f32>(&floats(&[3], &[1.0, 2.0, 3.0]), 0, 0, true).0, [0f32; 0]);
    }
}
