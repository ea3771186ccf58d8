//! Normalisation over trailing axes.

use super::Family;
use super::operands::{arity, from_floats, one_float_type, shape_is};
use crate::error::{Result, ensure, fail};
use crate::ir::{Tensor, TensorType};

/// Which statistic is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `(x - mean) / sqrt(var + epsilon)` (Ba et al., 2016); also instance and group normalisation, on other views.
    Layer,
    /// `x / sqrt(mean(x^2) + epsilon)` (Zhang and Sennrich, 2019).
    Rms,
}

/// Normalises over the last `axes` axes, then scales and shifts.
///
/// Operands: X, scale, bias, all of X's shape (scale and bias are broadcast views). Result: X's shape. Floats of one type,
/// statistics in binary32.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// The statistic.
    pub kind: NormKind,
    /// How many trailing axes are normalised together.
    pub axes: usize,
    /// Added to the variance or mean square.
    pub epsilon: f32,
}

impl Family for Norm {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("Norm", inputs, 3)?;
        one_float_type("Norm", inputs)?;
        let x = &inputs[0];
        ensure!(
            (1..=x.shape.len()).contains(&self.axes),
            InvalidArgument,
            "Norm cannot run over the last {} axes of the shape {:?}",
            self.axes,
            x.shape
        );
        shape_is("Norm", "the scale", &inputs[1], &x.shape)?;
        shape_is("Norm", "the bias", &inputs[2], &x.shape)?;
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let shape = inputs[0].shape();
        let (scale, bias) = (inputs[1].to_f64s(), inputs[2].to_f64s());
        let mut values = inputs[0].to_f64s();
        let extent = shape[shape.len() - self.axes..].iter().product::<usize>().max(1);
        values.chunks_exact_mut(extent).for_each(|row| self.normalize(row));
        for (x, (scale, bias)) in values.iter_mut().zip(scale.iter().zip(&bias)) {
            *x = *x * scale + bias;
        }
        Ok(vec![from_floats(inputs[0].dtype(), shape, &values)])
    }
}

impl Norm {
    fn normalize(&self, row: &mut [f64]) {
        let count = row.len() as f64;
        if self.kind == NormKind::Layer {
            let mean = row.iter().sum::<f64>() / count;
            row.iter_mut().for_each(|x| *x -= mean);
        }
        let mean_square = row.iter().map(|x| x * x).sum::<f64>() / count;
        let deviation = (mean_square + f64::from(self.epsilon)).sqrt();
        row.iter_mut().for_each(|x| *x /= deviation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::ir::DType;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    fn normalized(kind: NormKind, axes: usize) -> Vec<f32> {
        let x = floats(&[2, 2], &[1.0, 3.0, -2.0, 2.0]);
        let (scale, bias) = (floats(&[2, 2], &[1.0, 2.0, 1.0, 2.0]), floats(&[2, 2], &[0.0, 0.5, 0.0, 0.5]));
        evaluated(Norm { kind, axes, epsilon: 0.0 }, &[x, scale, bias])[0].to_vec().unwrap()
    }

    #[test]
    fn the_statistic_runs_over_the_trailing_axes() {
        assert_eq!(normalized(NormKind::Layer, 1), [-1.0, 2.5, -1.0, 2.5]);
        // mean 1, deviations 0 2 -3 1, variance 3.5
        assert_eq!(normalized(NormKind::Layer, 2), [0.0, 2.638_09, -1.6035675, 1.569_045]);
        // mean squares 5 and 4
        assert_eq!(normalized(NormKind::Rms, 1), [0.4472136, 3.1832817, -1.0, 2.5]);
    }

    #[test]
    fn shapes_must_agree() {
        let norm = Norm { kind: NormKind::Rms, axes: 1, epsilon: 1e-5 };
        let x = (DType::F32, &[2, 2][..]);
        let row = (DType::F32, &[2][..]);
        assert_eq!(refused(norm.clone(), &[x, row, x]), Status::ShapeMismatch);
        assert_eq!(refused(norm.clone(), &[x, x]), Status::InvalidArgument);
        assert_eq!(refused(Norm { axes: 3, ..norm.clone() }, &[x, x, x]), Status::InvalidArgument);
        assert_eq!(refused(Norm { axes: 0, ..norm }, &[x, x, x]), Status::InvalidArgument);
    }
}
