//! Separable resampling. The planner turns ONNX `Resize`'s modes into weights, so a device knows only weighted sums.

use super::Family;
use super::operands::{arity, around, axis_within, from_floats, from_integers};
use crate::error::{Result, ensure, fail};
use crate::ir::{Tensor, TensorType};

/// How the outputs along one axis are made of inputs: output `i` is the sum of `weights[i][t] * input[index[i][t]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisTaps {
    /// The axis.
    pub axis: usize,
    /// Extent of the result along it.
    pub out: usize,
    /// Inputs per output: 1 for nearest, 2 for linear, 4 for cubic, more when antialiased.
    pub taps: usize,
    /// `out * taps` positions, all inside the input.
    pub index: Vec<u32>,
    /// `out * taps` weights.
    pub weights: Vec<f32>,
}

/// Applies each axis's taps. Operand and result: one type, float or (with one tap of weight 1) any.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// The axes that change, ascending.
    pub axes: Vec<AxisTaps>,
    /// Outputs that lie outside the input (`tf_crop_and_resize`) get the value: per axis of `axes`, `out` flags.
    pub outside: Option<(f32, Vec<Vec<bool>>)>,
}

impl Family for Resize {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("Resize", inputs, 1)?;
        let TensorType { dtype, shape } = &inputs[0];
        let mut result = shape.clone();
        ensure!(
            self.axes.is_sorted_by(|a, b| a.axis < b.axis),
            InvalidArgument,
            "Resize: the axes are not in ascending order"
        );
        for taps in &self.axes {
            axis_within("Resize", taps.axis, shape)?;
            taps.check(shape[taps.axis])?;
            ensure!(
                dtype.is_float() || taps.picks(),
                Unsupported,
                "Resize: only the nearest mode is defined for {dtype}"
            );
            result[taps.axis] = taps.out;
        }
        if let Some((_, flags)) = &self.outside {
            let fit = flags.len() == self.axes.len()
                && flags.iter().zip(&self.axes).all(|(flags, taps)| flags.len() == taps.out);
            ensure!(fit, InvalidArgument, "Resize: the flags of outer elements do not fit the axes");
        }
        Ok(vec![TensorType::new(*dtype, result)?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        Ok(vec![if x.dtype().is_float() {
            let outside = self.outside.as_ref().map_or(0.0, |(value, _)| f64::from(*value));
            let (values, shape) =
                self.resample(x.to_f64s(), x.shape(), outside, |sum, weight, x| sum + f64::from(weight) * x);
            from_floats(x.dtype(), &shape, &values)
        } else {
            let outside = self.outside.as_ref().map_or(0, |(value, _)| *value as i64);
            let (values, shape) = self.resample(x.to_i64s(), x.shape(), outside, |_, _, x| x);
            from_integers(x.dtype(), &shape, &values)
        }])
    }

    fn work(&self, _: &[TensorType], outputs: &[TensorType]) -> u64 {
        let taps = self.axes.iter().map(|taps| taps.taps as u64).fold(1, u64::saturating_add);
        outputs.iter().map(|ty| ty.count() as u64).fold(0, u64::saturating_add).saturating_mul(taps)
    }
}

impl AxisTaps {
    fn check(&self, extent: usize) -> Result<()> {
        let expected = self.out.checked_mul(self.taps);
        ensure!(
            self.taps > 0 && expected == Some(self.index.len()) && expected == Some(self.weights.len()),
            InvalidArgument,
            "Resize: axis {} has {} positions and {} weights for {} outputs of {} taps",
            self.axis,
            self.index.len(),
            self.weights.len(),
            self.out,
            self.taps
        );
        ensure!(
            self.index.iter().all(|&index| (index as usize) < extent),
            InvalidArgument,
            "Resize: a tap lies outside axis {} of {extent} elements",
            self.axis
        );
        Ok(())
    }

    /// Whether every output is just one of the inputs.
    pub fn picks(&self) -> bool {
        self.taps == 1 && self.weights.iter().all(|&weight| weight == 1.0)
    }

    /// Applies the taps to one axis of a row-major tensor.
    fn apply<T: Copy + Default>(&self, x: &[T], shape: &[usize], add: &impl Fn(T, f32, T) -> T) -> Vec<T> {
        let (outer, extent, inner) = around(shape, self.axis);
        let mut result = vec![T::default(); outer * self.out * inner];
        if result.is_empty() {
            return result;
        }
        for (line, sums) in result.chunks_exact_mut(inner).enumerate() {
            let (block, output) = (line / self.out, line % self.out);
            for tap in output * self.taps..(output + 1) * self.taps {
                let source = &x[(block * extent + self.index[tap] as usize) * inner..][..inner];
                sums.iter_mut().zip(source).for_each(|(sum, &x)| *sum = add(*sum, self.weights[tap], x));
            }
        }
        result
    }
}

impl Resize {
    /// The resampled elements and their shape.
    fn resample<T: Copy + Default>(
        &self,
        mut values: Vec<T>,
        shape: &[usize],
        outside: T,
        add: impl Fn(T, f32, T) -> T,
    ) -> (Vec<T>, Vec<usize>) {
        let mut shape = shape.to_vec();
        for taps in &self.axes {
            values = taps.apply(&values, &shape, &add);
            shape[taps.axis] = taps.out;
        }
        let flags = self.outside.as_ref().map_or(&[][..], |(_, flags)| flags);
        for (taps, flags) in self.axes.iter().zip(flags) {
            let (_, _, inner) = around(&shape, taps.axis);
            for (position, value) in values.iter_mut().enumerate() {
                if flags[position / inner % taps.out] {
                    *value = outside;
                }
            }
        }
        (values, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::ir::DType;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    fn taps(axis: usize, taps: usize, index: &[u32], weights: &[f32]) -> AxisTaps {
        AxisTaps { axis, out: index.len() / taps, taps, index: index.to_vec(), weights: weights.to_vec() }
    }

    #[test]
    fn axes_are_resampled_one_after_the_other() {
        let axes = vec![taps(0, 2, &[0, 1, 1, 1], &[0.5, 0.5, 1.0, 0.0]), taps(1, 1, &[1, 0, 1], &[1.0, 1.0, 1.0])];
        let x = floats(&[2, 2], &[1.0, 2.0, 3.0, 6.0]);
        let y = evaluated(Resize { axes: axes.clone(), outside: None }, std::slice::from_ref(&x));
        assert_eq!(y[0].to_vec::<f32>().unwrap(), [4.0, 2.0, 4.0, 6.0, 3.0, 6.0]);
        let flags = vec![vec![false, true], vec![true, false, false]];
        let y = evaluated(Resize { axes, outside: Some((-1.0, flags)) }, &[x]);
        assert_eq!(y[0].to_vec::<f32>().unwrap(), [-1.0, 2.0, 4.0, -1.0, -1.0, -1.0]);
    }

    #[test]
    fn any_type_can_be_picked_from() {
        let x = Tensor::from_slice(&[2], &[true, false]);
        let y = evaluated(Resize { axes: vec![taps(0, 1, &[1, 0, 0], &[1.0; 3])], outside: None }, &[x]);
        assert_eq!(y[0].to_vec::<bool>().unwrap(), [false, true, true]);
    }

    #[test]
    fn taps_outside_the_input_are_refused() {
        let refuse = |axes: Vec<AxisTaps>, dtype| refused(Resize { axes, outside: None }, &[(dtype, &[2])]);
        assert_eq!(refuse(vec![taps(0, 1, &[2], &[1.0])], DType::F32), Status::InvalidArgument);
        assert_eq!(refuse(vec![taps(0, 1, &[0], &[])], DType::F32), Status::InvalidArgument);
        assert_eq!(refuse(vec![taps(1, 1, &[0], &[1.0])], DType::F32), Status::InvalidArgument);
        assert_eq!(refuse(vec![taps(0, 2, &[0, 1], &[0.5, 0.5])], DType::I64), Status::Unsupported);
        let overflow = AxisTaps { axis: 0, out: usize::MAX, taps: 2, index: Vec::new(), weights: Vec::new() };
        assert_eq!(refuse(vec![overflow], DType::F32), Status::InvalidArgument);
    }
}
