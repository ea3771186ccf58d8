//! Convolution, any number of spatial dimensions.

use super::operands::{mapped, mapped_integers, mapped_type, one_type, shape_is};
use super::walk::Coordinates;
use super::{Family, Map, Window};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, TensorType};

/// Cross-correlation as ONNX `Conv`.
///
/// Operands: X `[N, C, spatial..]`, W `[O, C / groups, kernel..]`, bias `[O]`, then the epilogue's further operands, each
/// with the result's shape. Result: `[N, O, out..]` with `out = (in + pads - dilation (kernel - 1) - 1) / stride + 1`.
/// All floats of one type, accumulated in binary32; or X, W and bias `I32` (wrapping).
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Channel groups; C and O are multiples of it.
    pub groups: usize,
    /// Kernel, strides, dilations, padding.
    pub window: Window,
    /// As in [`super::MatMul`]: operand 0 is the biased sum, operand `i` is the step's operand `i + 2`.
    pub epilogue: Option<Map>,
}

impl Family for Conv {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        ensure!(inputs.len() >= 3, InvalidArgument, "Conv takes at least 3 operands, not {}", inputs.len());
        let dtype = one_type("Conv", &inputs[..3])?;
        ensure!(
            dtype.is_float() || dtype == DType::I32,
            Unsupported,
            "Conv is defined for floats and int32, not for {dtype}"
        );
        let [x, w] = [0, 1].map(|index| &inputs[index].shape[..]);
        spatial_ranks("Conv", x, w, self.groups)?;
        self.window.check("Conv", x.len() - 2)?;
        ensure!(
            x[1] % self.groups == 0 && w[0] % self.groups == 0 && w[1] == x[1] / self.groups,
            ShapeMismatch,
            "Conv: the weights {w:?} do not fit {} channels in {} groups",
            x[1],
            self.groups
        );
        shape_is("Conv", "the weight", &inputs[1], &[&w[..2], &self.window.kernel].concat())?;
        shape_is("Conv", "the bias", &inputs[2], &w[..1])?;
        let out = self.window.out_extents("Conv", &x[2..])?;
        let shape = [&[x[0], w[0]], &out[..]].concat();
        Ok(vec![mapped_type("Conv", self.epilogue.as_ref(), dtype, &shape, &inputs[3..])?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (x, w, bias, further) = (&inputs[0], &inputs[1], &inputs[2], &inputs[3..]);
        let out = self.window.out_extents("Conv", &x.shape()[2..])?;
        let shape = [&[x.shape()[0], w.shape()[0]], &out[..]].concat();
        let epilogue = self.epilogue.as_ref();
        Ok(vec![if x.dtype().is_float() {
            let operands = [x, w, bias].map(Tensor::to_f64s);
            let sums = self.sums(x.shape(), &shape, operands, |sum, a, b| sum + a * b);
            mapped(epilogue, x.dtype(), &shape, &sums, further)?
        } else {
            let operands = [x, w, bias].map(Tensor::to_i64s);
            let fused = |sum: i64, a: i64, b: i64| sum.wrapping_add(a.wrapping_mul(b));
            mapped_integers(epilogue, x.dtype(), &shape, &self.sums(x.shape(), &shape, operands, fused), further)?
        }])
    }

    fn work(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let per_output = self.window.volume().saturating_mul(inputs[1].shape.get(1).map_or(0, |&c| c as u64));
        let elements = outputs.iter().map(|ty| ty.count() as u64).fold(0, u64::saturating_add);
        elements.saturating_mul(per_output.saturating_mul(2).saturating_add(1))
    }
}

impl Conv {
    /// The biased sums, straight from the definition.
    fn sums<T: Copy>(
        &self,
        x_shape: &[usize],
        shape: &[usize],
        [x, w, bias]: [Vec<T>; 3],
        fused: impl Fn(T, T, T) -> T,
    ) -> Vec<T> {
        let (batch, spatial) = (x_shape[0], &x_shape[2..]);
        let (inputs, outputs) = (x_shape[1] / self.groups, shape[1] / self.groups);
        let area: usize = spatial.iter().product();
        let out_area: usize = shape[2..].iter().product();
        let volume: usize = self.window.kernel.iter().product();
        let mut sums: Vec<T> = (0..batch).flat_map(|_| bias.iter().flat_map(|&bias| vec![bias; out_area])).collect();
        if sums.is_empty() {
            // No batch or no channels: there may be very many places where nothing is to be done.
            return sums;
        }
        for (output, at) in Coordinates::new(&shape[2..]).enumerate() {
            let taps = self.window.taps(spatial, &at);
            for row in 0..batch * shape[1] {
                let (n, o) = (row / shape[1], row % shape[1]);
                let first = n * x_shape[1] + o / outputs * inputs;
                let sum = &mut sums[row * out_area + output];
                for c in 0..inputs {
                    let (x, w) = (&x[(first + c) * area..], &w[(o * inputs + c) * volume..]);
                    *sum = taps.iter().fold(*sum, |sum, &(tap, position)| fused(sum, x[position], w[tap]));
                }
            }
        }
        sums
    }
}

/// Checks what convolutions have in common: spatial dimensions, equally many in data and weights, and groups.
pub(super) fn spatial_ranks(family: &str, x: &[usize], w: &[usize], groups: usize) -> Result<()> {
    ensure!(
        x.len() >= 3 && w.len() == x.len(),
        ShapeMismatch,
        "{family}: data {x:?} and weights {w:?} are not of equal rank with spatial dimensions"
    );
    ensure!(groups > 0, InvalidArgument, "{family}: 0 groups");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::kernels::Binary;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    fn window(kernel: &[usize], stride: usize, dilation: usize, pads: [usize; 2]) -> Window {
        let dims = kernel.len();
        Window {
            kernel: kernel.to_vec(),
            strides: vec![stride; dims],
            dilations: vec![dilation; dims],
            pads_begin: vec![pads[0]; dims],
            pads_end: vec![pads[1]; dims],
        }
    }

    #[test]
    fn groups_strides_dilation_and_padding_together() {
        let x: Vec<f32> = (-9..11).map(|x| x as f32).collect();
        let w: Vec<f32> = (-5..7).map(|w| w as f32).collect();
        let operands = [floats(&[1, 4, 5], &x), floats(&[2, 2, 3], &w), floats(&[2], &[10.0, -10.0])];
        let conv = Conv { groups: 2, window: window(&[3], 2, 2, [2, 1]), epilogue: None };
        assert_eq!(evaluated(conv, &operands)[0].to_vec::<f32>().unwrap(), [71.0, 108.0, 79.0, 136.0]);
    }

    #[test]
    fn integers_are_exact_against_a_direct_loop() {
        let (h, w, k) = (5usize, 4usize, 3usize);
        let x: Vec<i32> = (0..2 * 5 * 4).map(|i| (i * 7919) % 256 - 128).collect();
        let weights: Vec<i32> = (0..3 * 2 * 9).map(|i| (i * 104_729) % 255 - 127).collect();
        let operands = [
            Tensor::from_slice(&[1, 2, h, w], &x),
            Tensor::from_slice(&[3, 2, k, k], &weights),
            Tensor::from_slice(&[3], &[1, 2, 3]),
        ];
        let conv = Conv { groups: 1, window: window(&[k, k], 1, 1, [1, 1]), epilogue: None };
        let mut expected = Vec::new();
        for (o, i, j) in (0..3 * h * w).map(|at| (at / (h * w), at / w % h, at % w)) {
            let mut sum = o as i32 + 1;
            for (c, u, v) in (0..2 * k * k).map(|tap| (tap / (k * k), tap / k % k, tap % k)) {
                let (row, column) = (i + u, j + v);
                if (1..=h).contains(&row) && (1..=w).contains(&column) {
                    sum += x[(c * h + row - 1) * w + column - 1] * weights[((o * 2 + c) * k + u) * k + v];
                }
            }
            expected.push(sum);
        }
        assert_eq!(evaluated(conv, &operands)[0].to_vec::<i32>().unwrap(), expected);
    }

    #[test]
    fn the_epilogue_sees_the_biased_sum() {
        let operands = [
            floats(&[1, 1, 2], &[1.0, -4.0]),
            floats(&[1, 1, 1], &[2.0]),
            floats(&[1], &[1.0]),
            floats(&[1, 1, 2], &[0.5, 9.0]),
        ];
        let epilogue = Some(Map::binary(Binary::Max, DType::F32));
        let conv = Conv { groups: 1, window: window(&[1], 1, 1, [0, 0]), epilogue };
        assert_eq!(evaluated(conv, &operands)[0].to_vec::<f32>().unwrap(), [3.0, 9.0]);
    }

    #[test]
    fn hostile_parameters_are_refused() {
        let refuse = |groups, window: Window, w: &[usize]| {
            let kernel = Conv { groups, window, epilogue: None };
            refused(kernel, &[(DType::F32, &[1, 4, 5]), (DType::F32, w), (DType::F32, &w[..1])])
        };
        let plain = || window(&[3], 1, 1, [0, 0]);
        assert_eq!(refuse(0, plain(), &[2, 4, 3]), Status::InvalidArgument);
        assert_eq!(refuse(3, plain(), &[3, 1, 3]), Status::ShapeMismatch);
        assert_eq!(refuse(2, plain(), &[3, 2, 3]), Status::ShapeMismatch);
        assert_eq!(refuse(1, plain(), &[2, 4, 2]), Status::ShapeMismatch);
        assert_eq!(refuse(1, window(&[3], 0, 1, [0, 0]), &[2, 4, 3]), Status::InvalidArgument);
        assert_eq!(refuse(1, window(&[3], 1, 0, [0, 0]), &[2, 4, 3]), Status::InvalidArgument);
        assert_eq!(refuse(1, window(&[3], 1, 1 << 63, [0, 0]), &[2, 4, 3]), Status::TooLarge);
        assert_eq!(refuse(1, window(&[3], 1, 9, [0, 0]), &[2, 4, 3]), Status::ShapeMismatch);
        assert_eq!(refuse(1, window(&[3], 1, 1, [usize::MAX, 1]), &[2, 4, 3]), Status::TooLarge);
        assert_eq!(refuse(1, window(&[3], 1, 1, [1 << 50, 0]), &[2, 4, 3]), Status::TooLarge);
        assert_eq!(refuse(1, window(&[3, 3], 1, 1, [0, 0]), &[2, 4, 3]), Status::InvalidArgument);
    }
}
