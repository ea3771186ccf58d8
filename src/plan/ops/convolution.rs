//! Convolution and transposed convolution.

use super::call::{self, Call};
use super::window::{self, AutoPad};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar};
use crate::kernels::{Conv, ConvTranspose, Window};
use crate::plan::{Builder, View};

/// `Conv` in any number of spatial dimensions.
pub fn conv(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (x, w) = (call.input(0)?.clone(), call.input(1)?.clone());
    Ok(vec![convolve(b, call, x, w, call.optional(2).cloned())?])
}

/// The convolution that the node's attributes describe, of operands that may have been prepared.
pub fn convolve(b: &mut Builder, call: &Call<'_>, x: View, w: View, bias: Option<View>) -> Result<View> {
    let groups = check_operands(call, &x, &w)?;
    let (channels, outputs) = (x.shape[1], w.shape[0]);
    let fits = w.shape[1].checked_mul(groups) == Some(channels) && outputs.is_multiple_of(groups);
    ensure!(fits, ShapeMismatch, "{:?} and weights {:?} do not convolve in {groups} groups", x.shape, w.shape);
    let window = window::window(call, &w.shape[2..], &x.shape[2..])?;
    window::out_extents(&window, &x.shape[2..], false)?;
    let bias = bias_or_zero(b, &x, bias, outputs)?;
    b.emit1(Conv { groups, window, epilogue: None }, &[x, w, bias])
}

/// `ConvTranspose`.
pub fn conv_transpose(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (x, w) = (call.input(0)?.clone(), call.input(1)?.clone());
    let groups = check_operands(call, &x, &w)?;
    let fits = x.shape[1] == w.shape[0] && w.shape[0].is_multiple_of(groups);
    ensure!(fits, ShapeMismatch, "{:?} and weights {:?} do not convolve in {groups} groups", x.shape, w.shape);
    let outputs = w.shape[1].saturating_mul(groups);
    let (window, output_padding) = transposed_window(call, &w.shape[2..], &x.shape[2..])?;
    let bias = bias_or_zero(b, &x, call.optional(2).cloned(), outputs)?;
    Ok(vec![b.emit1(ConvTranspose { groups, window, output_padding }, &[x, w, bias])?])
}

/// Checks ranks, `group` and `kernel_shape`; gives the number of groups.
fn check_operands(call: &Call<'_>, x: &View, w: &View) -> Result<usize> {
    ensure!(x.rank() >= 3, ShapeMismatch, "operand 0 has rank {}, not 3 or more", x.rank());
    ensure!(w.rank() == x.rank(), ShapeMismatch, "the weights have rank {}, the operand {}", w.rank(), x.rank());
    if let Some(kernel) = window::extents(call, "kernel_shape", w.rank() - 2, 1)? {
        let same = kernel == w.shape[2..];
        ensure!(same, ShapeMismatch, "attribute 'kernel_shape' is {kernel:?}, the weights are {:?}", w.shape);
    }
    let groups = call::extent(call.int("group", 1)?, "attribute 'group'")?;
    ensure!(groups > 0, Malformed, "attribute 'group' is 0");
    Ok(groups)
}

fn bias_or_zero(b: &mut Builder, x: &View, bias: Option<View>, outputs: usize) -> Result<View> {
    let dtype = b.dtype(x);
    let bias = match bias {
        Some(bias) => bias,
        None => b.fill(dtype, if dtype == DType::I32 { Scalar::Int(0) } else { Scalar::Float(0.0) }, &[outputs])?,
    };
    ensure!(bias.shape == [outputs], ShapeMismatch, "the bias has shape {:?}, not [{outputs}]", bias.shape);
    Ok(bias)
}

/// Window and output padding of a transposed convolution. `output_shape` and `auto_pad` decide the padding; what they
/// ask for beyond the greatest extent without padding is added at the end.
fn transposed_window(call: &Call<'_>, kernel: &[usize], input: &[usize]) -> Result<(Window, Vec<usize>)> {
    let rank = kernel.len();
    let mut window = window::window(call, kernel, input)?;
    let mut output_padding = window::extents(call, "output_padding", rank, 0)?.unwrap_or_else(|| vec![0; rank]);
    let auto = window::auto_pad(call)?;
    let wanted = match (window::extents(call, "output_shape", rank, 0)?, auto) {
        (Some(wanted), _) => Some(wanted),
        (None, AutoPad::Same { .. }) => {
            Some(input.iter().zip(&window.strides).map(|(extent, stride)| extent.saturating_mul(*stride)).collect())
        }
        (None, _) => None,
    };
    for axis in 0..rank {
        let full = window.strides[axis]
            .saturating_mul(input[axis].saturating_sub(1))
            .saturating_add(output_padding[axis] + window::reach(&window, axis));
        if let Some(wanted) = &wanted {
            let total = full.saturating_sub(wanted[axis]);
            let (less, more) = (total / 2, total - total / 2);
            let upper = auto == AutoPad::Same { upper: true };
            (window.pads_begin[axis], window.pads_end[axis]) = if upper { (less, more) } else { (more, less) };
            output_padding[axis] += wanted[axis].saturating_sub(full);
        } else {
            let cut = window.pads_begin[axis] + window.pads_end[axis];
            ensure!(cut <= full, ShapeMismatch, "padding {cut} cuts off more than the {full} of axis {axis}");
        }
    }
    Ok((window, output_padding))
}
