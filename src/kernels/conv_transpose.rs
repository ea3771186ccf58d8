//! Transposed convolution, any number of spatial dimensions.

use super::conv::spatial_ranks;
use super::operands::{arity, from_floats, one_float_type, shape_is};
use super::walk::Coordinates;
use super::{Family, Window};
use crate::error::{Result, ensure, fail};
use crate::ir::{Tensor, TensorType};

/// Transposed convolution as ONNX `ConvTranspose`.
///
/// Operands: X `[N, C, spatial..]`, W `[C, O / groups, kernel..]`, bias `[O]`. Result: `[N, O, out..]` with
/// `out = stride (in - 1) + output_padding + dilation (kernel - 1) + 1 - pads`. Floats of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose {
    /// Channel groups.
    pub groups: usize,
    /// Kernel, strides, dilations, padding (cut off the result here).
    pub window: Window,
    /// Rows added at the end of each spatial dimension.
    pub output_padding: Vec<usize>,
}

impl Family for ConvTranspose {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("ConvTranspose", inputs, 3)?;
        let dtype = one_float_type("ConvTranspose", inputs)?;
        let [x, w] = [0, 1].map(|index| &inputs[index].shape[..]);
        spatial_ranks("ConvTranspose", x, w, self.groups)?;
        self.window.check("ConvTranspose", x.len() - 2)?;
        ensure!(
            x[1] % self.groups == 0 && w[0] == x[1],
            ShapeMismatch,
            "ConvTranspose: the weights {w:?} do not fit {} channels in {} groups",
            x[1],
            self.groups
        );
        shape_is("ConvTranspose", "the weight", &inputs[1], &[&w[..2], &self.window.kernel].concat())?;
        let Some(channels) = w[1].checked_mul(self.groups) else {
            return Err(fail!(TooLarge, "ConvTranspose: {} groups of {} channels overflow", self.groups, w[1]));
        };
        shape_is("ConvTranspose", "the bias", &inputs[2], &[channels])?;
        let out = self.out_extents(&x[2..])?;
        Ok(vec![TensorType::new(dtype, [&[x[0], channels], &out[..]].concat())?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (x, w) = (&inputs[0], &inputs[1]);
        let spatial = &x.shape()[2..];
        let out = self.out_extents(spatial)?;
        let (batch, in_channels, out_channels) = (x.shape()[0], x.shape()[1], w.shape()[1] * self.groups);
        let (per_group_in, per_group_out) = (in_channels / self.groups, w.shape()[1]);
        let [x_values, w_values, bias] = [0, 1, 2].map(|index| inputs[index].to_f64s());
        let area: usize = spatial.iter().product();
        let out_area: usize = out.iter().product();
        let volume: usize = self.window.kernel.iter().product();
        let mut sums: Vec<f64> = (0..batch).flat_map(|_| bias.iter().flat_map(|&bias| vec![bias; out_area])).collect();
        // Without batch or channels there may be very many places where nothing is to be done.
        let places = Coordinates::new(if x_values.is_empty() { &[0] } else { spatial });
        for (input, at) in places.enumerate() {
            // The convolution that this transposes reads these elements of our result for our input element.
            let taps = self.window.taps(&out, &at);
            for row in 0..batch * in_channels {
                let (n, c) = (row / in_channels, row % in_channels);
                let value = x_values[row * area + input];
                for j in 0..per_group_out {
                    let o = c / per_group_in * per_group_out + j;
                    let sums = &mut sums[(n * out_channels + o) * out_area..][..out_area];
                    let w = &w_values[(c * per_group_out + j) * volume..][..volume];
                    taps.iter().for_each(|&(tap, position)| sums[position] += value * w[tap]);
                }
            }
        }
        let shape = [&[batch, out_channels], &out[..]].concat();
        Ok(vec![from_floats(x.dtype(), &shape, &sums)])
    }

    fn work(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let per_input = self.window.volume().saturating_mul(inputs[1].shape.get(1).map_or(0, |&c| c as u64));
        let products = (inputs[0].count() as u64).saturating_mul(per_input).saturating_mul(2);
        outputs.iter().map(|ty| ty.count() as u64).fold(products, u64::saturating_add)
    }
}

impl ConvTranspose {
    fn out_extents(&self, spatial: &[usize]) -> Result<Vec<usize>> {
        ensure!(
            self.output_padding.len() == spatial.len(),
            InvalidArgument,
            "ConvTranspose: {} output paddings for {} spatial dimensions",
            self.output_padding.len(),
            spatial.len()
        );
        let extent = |(axis, &extent): (usize, &usize)| {
            let reach = self.window.reach("ConvTranspose", axis)?;
            let pads = self.window.padded("ConvTranspose", axis, 0)?;
            let full = extent
                .checked_sub(1)
                .and_then(|steps| steps.checked_mul(self.window.strides[axis]))
                .and_then(|start| start.checked_add(reach)?.checked_add(self.output_padding[axis]));
            match full.and_then(|full| full.checked_sub(pads)) {
                Some(out) if out > 0 => Ok(out),
                _ => Err(fail!(ShapeMismatch, "ConvTranspose: nothing is left of spatial dimension {axis}")),
            }
        };
        spatial.iter().enumerate().map(extent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::ir::DType;
    use crate::kernels::Conv;
    use crate::kernels::evaluation::{eighths, evaluated, floats, refused};

    #[test]
    fn padding_cuts_and_output_padding_adds() {
        let x: Vec<f32> = (0..9).map(|x| x as f32 - 4.0).collect();
        let w: Vec<f32> = (0..8).map(|w| w as f32 * 0.5).collect();
        let kernel = ConvTranspose {
            groups: 1,
            window: Window {
                kernel: vec![2, 2],
                strides: vec![2, 1],
                dilations: vec![1, 2],
                pads_begin: vec![1, 0],
                pads_end: vec![0, 1],
            },
            output_padding: vec![1, 0],
        };
        let operands = [floats(&[1, 1, 3, 3], &x), floats(&[1, 2, 2, 2], &w), floats(&[2], &[1.0, -1.0])];
        let y = evaluated(kernel, &operands).swap_remove(0);
        assert_eq!(y.shape(), [1, 2, 6, 4]);
        let rows: [[f32; 4]; 12] = [
            [-3.0, -2.0, -7.0, -3.5],
            [1.0, 1.0, 0.5, 1.0],
            [0.0, 1.0, 0.5, 1.0],
            [1.0, 1.0, 2.0, 2.5],
            [3.0, 4.0, 8.0, 5.5],
            [1.0; 4],
            [-13.0, -10.0, -21.0, -11.5],
            [-3.0, -1.0, -1.5, -1.0],
            [-4.0, -1.0, -1.5, -1.0],
            [3.0, 5.0, 12.0, 6.5],
            [5.0, 8.0, 18.0, 9.5],
            [-1.0; 4],
        ];
        assert_eq!(y.to_vec::<f32>().unwrap(), rows.concat());
    }

    #[test]
    fn it_is_the_adjoint_of_the_convolution() {
        // <conv(x), y> = <x, transposed(y)> without bias, in two groups.
        let window =
            Window { kernel: vec![3], strides: vec![2], dilations: vec![1], pads_begin: vec![1], pads_end: vec![0] };
        let (x, y, w) = (eighths(&[1, 4, 6], 1), eighths(&[1, 6, 3], 2), eighths(&[6, 2, 3], 3));
        let conv = Conv { groups: 2, window: window.clone(), epilogue: None };
        let forth = evaluated(conv, &[x.clone(), w.clone(), floats(&[6], &[0.0; 6])]).swap_remove(0);
        let transposed = ConvTranspose { groups: 2, window, output_padding: vec![0] };
        let back = evaluated(transposed, &[y.clone(), w, floats(&[4], &[0.0; 4])]).swap_remove(0);
        let dot = |a: &Tensor, b: &Tensor| a.to_f64s().iter().zip(b.to_f64s()).map(|(a, b)| a * b).sum::<f64>();
        assert_eq!(back.shape(), x.shape());
        assert_eq!(dot(&forth, &y), dot(&x, &back));
    }

    #[test]
    fn hostile_parameters_are_refused() {
        let refuse = |groups, stride, pad, padding| {
            let window = Window {
                kernel: vec![3],
                strides: vec![stride],
                dilations: vec![1],
                pads_begin: vec![pad],
                pads_end: vec![0],
            };
            let kernel = ConvTranspose { groups, window, output_padding: padding };
            refused(kernel, &[(DType::F32, &[1, 2, 4]), (DType::F32, &[2, 1, 3]), (DType::F32, &[1])])
        };
        assert_eq!(refuse(0, 1, 0, vec![0]), Status::InvalidArgument);
        assert_eq!(refuse(1, 0, 0, vec![0]), Status::InvalidArgument);
        assert_eq!(refuse(1, 1, 6, vec![0]), Status::ShapeMismatch);
        assert_eq!(refuse(1, usize::MAX, 0, vec![0]), Status::ShapeMismatch);
        assert_eq!(refuse(1, 1, 0, vec![usize::MAX]), Status::ShapeMismatch);
        assert_eq!(refuse(1, 1 << 50, 0, vec![0]), Status::TooLarge);
        assert_eq!(refuse(1, 1, 0, vec![]), Status::InvalidArgument);
        assert_eq!(refuse(2, 1, 0, vec![0]), Status::ShapeMismatch);
    }
}
