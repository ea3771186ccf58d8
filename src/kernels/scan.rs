//! Running sums.

use super::Family;
use super::operands::{arity, around, axis_within, from_floats, from_integers, one_number_type};
use crate::error::Result;
use crate::ir::{Tensor, TensorType};

/// ONNX `CumSum` along one axis; floats (binary32) or integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CumSum {
    /// The axis.
    pub axis: usize,
    /// Whether an element's own value is left out of its sum.
    pub exclusive: bool,
    /// Whether the sum runs from the end.
    pub reverse: bool,
}

impl Family for CumSum {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("CumSum", inputs, 1)?;
        one_number_type("CumSum", inputs)?;
        axis_within("CumSum", self.axis, &inputs[0].shape)?;
        Ok(inputs.to_vec())
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        Ok(vec![if x.dtype().is_float() {
            from_floats(x.dtype(), x.shape(), &self.sums(x.shape(), &x.to_f64s(), |a, b| a + b))
        } else {
            from_integers(x.dtype(), x.shape(), &self.sums(x.shape(), &x.to_i64s(), i64::wrapping_add))
        }])
    }
}

impl CumSum {
    fn sums<T: Copy + Default>(&self, shape: &[usize], x: &[T], add: impl Fn(T, T) -> T) -> Vec<T> {
        let (outer, extent, inner) = around(shape, self.axis);
        let mut sums = vec![T::default(); x.len()];
        for line in 0..outer * inner {
            let start = line / inner * extent * inner + line % inner;
            let mut sum = T::default();
            for step in 0..extent {
                let index = if self.reverse { extent - 1 - step } else { step };
                let position = start + index * inner;
                let with_own = add(sum, x[position]);
                sums[position] = if self.exclusive { sum } else { with_own };
                sum = with_own;
            }
        }
        sums
    }
}
