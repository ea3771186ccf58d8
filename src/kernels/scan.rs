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
        let lines = if x.is_empty() { 0 } else { outer * inner };
        for line in 0..lines {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::ir::DType;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    fn sums(axis: usize, exclusive: bool, reverse: bool) -> Vec<f32> {
        let x = floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        evaluated(CumSum { axis, exclusive, reverse }, &[x])[0].to_vec().unwrap()
    }

    #[test]
    fn sums_run_either_way_with_and_without_the_element() {
        assert_eq!(sums(1, false, false), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        assert_eq!(sums(1, true, false), [0.0, 1.0, 3.0, 0.0, 4.0, 9.0]);
        assert_eq!(sums(1, false, true), [6.0, 5.0, 3.0, 15.0, 11.0, 6.0]);
        assert_eq!(sums(0, true, true), [4.0, 5.0, 6.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn integers_wrap_and_missing_axes_are_refused() {
        let kernel = CumSum { axis: 0, exclusive: false, reverse: false };
        let sums = evaluated(kernel.clone(), &[Tensor::from_slice(&[2], &[200u8, 100])]);
        assert_eq!(sums[0].to_vec::<u8>().unwrap(), [200, 44]);
        assert_eq!(refused(kernel.clone(), &[(DType::F32, &[])]), Status::InvalidArgument);
        assert_eq!(refused(kernel, &[(DType::Bool, &[2])]), Status::Unsupported);
    }
}
