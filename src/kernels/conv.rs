//! Convolution and its transpose, any number of spatial dimensions.

use super::operands::{from_floats, mapped, mapped_integers, mapped_type, one_float_type, one_type, shape_is};
use super::walk::Coordinates;
use super::{Family, Map};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, TensorType};

/// A sliding window over the spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Extent of the kernel.
    pub kernel: Vec<usize>,
    /// Step from one output to the next; never 0.
    pub strides: Vec<usize>,
    /// Distance of neighbouring kernel elements; never 0.
    pub dilations: Vec<usize>,
    /// Padding before the first element.
    pub pads_begin: Vec<usize>,
    /// Padding after the last element.
    pub pads_end: Vec<usize>,
}

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

impl Window {
    /// Checks that there is one parameter of each kind for each of `dims` spatial dimensions, and none is 0 that must not
    /// be.
    pub(super) fn check(&self, family: &str, dims: usize) -> Result<()> {
        let counts =
            [&self.kernel, &self.strides, &self.dilations, &self.pads_begin, &self.pads_end].map(|list| list.len());
        ensure!(
            counts == [dims; 5],
            InvalidArgument,
            "{family}: {counts:?} extents, strides, dilations and paddings for {dims} spatial dimensions"
        );
        for (what, list) in [("kernel", &self.kernel), ("stride", &self.strides), ("dilation", &self.dilations)] {
            ensure!(!list.contains(&0), InvalidArgument, "{family}: a {what} of 0 in {list:?}");
        }
        Ok(())
    }

    /// Elements that the kernel covers along a dimension: `dilation (kernel - 1) + 1`.
    pub fn reach(&self, family: &str, axis: usize) -> Result<usize> {
        let reach = self.dilations[axis].checked_mul(self.kernel[axis] - 1).and_then(|reach| reach.checked_add(1));
        match reach {
            Some(reach) if isize::try_from(reach).is_ok() => Ok(reach),
            _ => Err(fail!(TooLarge, "{family}: the kernel's reach along spatial dimension {axis} overflows")),
        }
    }

    /// Elements of a dimension of `extent` with its padding; they can be counted in an `isize`.
    pub fn padded(&self, family: &str, axis: usize, extent: usize) -> Result<usize> {
        let pads = self.pads_begin[axis].checked_add(self.pads_end[axis]);
        match pads.and_then(|pads| pads.checked_add(extent)) {
            Some(padded) if isize::try_from(padded).is_ok() => Ok(padded),
            _ => Err(fail!(TooLarge, "{family}: the padding of spatial dimension {axis} overflows")),
        }
    }

    /// Extents of the result over an input of extents `spatial`, partial windows left out.
    pub fn out_extents(&self, family: &str, spatial: &[usize]) -> Result<Vec<usize>> {
        let extent = |(axis, &extent): (usize, &usize)| {
            let (padded, reach) = (self.padded(family, axis, extent)?, self.reach(family, axis)?);
            ensure!(
                reach <= padded,
                ShapeMismatch,
                "{family}: the kernel covers {reach} elements, but spatial dimension {axis} has {padded} with padding"
            );
            Ok((padded - reach) / self.strides[axis] + 1)
        };
        spatial.iter().enumerate().map(extent).collect()
    }

    /// The elements of the window at output `at` that fall inside an input of extents `spatial`, as row-major positions
    /// in the kernel and in the input.
    pub(super) fn taps(&self, spatial: &[usize], at: &[usize]) -> Vec<(usize, usize)> {
        let mut taps = vec![(0, 0)];
        for (axis, &extent) in spatial.iter().enumerate() {
            let (dilation, pad) = (self.dilations[axis], self.pads_begin[axis]);
            // Positions are counted from the start of the padding.
            let start = at[axis] * self.strides[axis];
            let first = pad.saturating_sub(start).div_ceil(dilation);
            let end = (pad + extent).saturating_sub(start).div_ceil(dilation).min(self.kernel[axis]);
            let along = |&(kernel, input): &(usize, usize)| {
                let (kernel, input) = (kernel * self.kernel[axis], input * extent);
                (first..end).map(move |index| (kernel + index, input + start + index * dilation - pad))
            };
            taps = taps.iter().flat_map(along).collect();
        }
        taps
    }

    /// Elements of the kernel.
    pub(super) fn volume(&self) -> u64 {
        self.kernel.iter().fold(1, |volume: u64, &extent| volume.saturating_mul(extent as u64))
    }
}

/// Extents of a convolution's operands.
struct Channels {
    /// Input channels per group.
    input: usize,
    /// Output channels per group.
    output: usize,
    groups: usize,
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
        let channels =
            Channels { input: x_shape[1] / self.groups, output: shape[1] / self.groups, groups: self.groups };
        let area: usize = spatial.iter().product();
        let out_area: usize = shape[2..].iter().product();
        let volume: usize = self.window.kernel.iter().product();
        let mut sums: Vec<T> = (0..batch).flat_map(|_| bias.iter().flat_map(|&bias| vec![bias; out_area])).collect();
        for (output, at) in Coordinates::new(&shape[2..]).enumerate() {
            let taps = self.window.taps(spatial, &at);
            for row in 0..batch * shape[1] {
                let (n, o) = (row / shape[1], row % shape[1]);
                let first = n * channels.groups * channels.input + o / channels.output * channels.input;
                let sum = &mut sums[row * out_area + output];
                for c in 0..channels.input {
                    let (x, w) = (&x[(first + c) * area..], &w[(o * channels.input + c) * volume..]);
                    *sum = taps.iter().fold(*sum, |sum, &(tap, position)| fused(sum, x[position], w[tap]));
                }
            }
        }
        sums
    }
}

impl Family for ConvTranspose {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        super::operands::arity("ConvTranspose", inputs, 3)?;
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
        let channels = Channels { input: in_channels / self.groups, output: w.shape()[1], groups: self.groups };
        let [x_values, w_values, bias] = [0, 1, 2].map(|index| inputs[index].to_f64s());
        let area: usize = spatial.iter().product();
        let out_area: usize = out.iter().product();
        let volume: usize = self.window.kernel.iter().product();
        let mut sums: Vec<f64> = (0..batch).flat_map(|_| bias.iter().flat_map(|&bias| vec![bias; out_area])).collect();
        for (input, at) in Coordinates::new(spatial).enumerate() {
            // The convolution that this transposes reads these elements of our result for our input element.
            let taps = self.window.taps(&out, &at);
            for row in 0..batch * in_channels {
                let (n, c) = (row / in_channels, row % in_channels);
                let value = x_values[row * area + input];
                for j in 0..channels.output {
                    let o = c / channels.input * channels.output + j;
                    let sums = &mut sums[(n * out_channels + o) * out_area..][..out_area];
                    let w = &w_values[(c * channels.output + j) * volume..][..volume];
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

/// Checks what convolutions have in common: spatial dimensions, equally many in data and weights, and groups.
fn spatial_ranks(family: &str, x: &[usize], w: &[usize], groups: usize) -> Result<()> {
    ensure!(
        x.len() >= 3 && w.len() == x.len(),
        ShapeMismatch,
        "{family}: data {x:?} and weights {w:?} are not of equal rank with spatial dimensions"
    );
    ensure!(groups > 0, InvalidArgument, "{family}: 0 groups");
    Ok(())
}
