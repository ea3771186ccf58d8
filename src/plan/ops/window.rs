//! The attributes that convolution and pooling share.

use super::call::{self, Call};
use crate::error::{Result, ensure, fail};
use crate::kernels::Window;

/// How padding is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoPad {
    /// By the attribute `pads`.
    NotSet,
    /// None.
    Valid,
    /// So that the result has `ceil(extent / stride)` elements; the odd one goes to the end, or to the beginning.
    Same {
        /// Whether the odd element goes to the end.
        upper: bool,
    },
}

/// The attribute `auto_pad`.
pub fn auto_pad(call: &Call<'_>) -> Result<AutoPad> {
    match call.string("auto_pad", "NOTSET")? {
        "NOTSET" | "" => Ok(AutoPad::NotSet),
        "VALID" => Ok(AutoPad::Valid),
        "SAME_UPPER" => Ok(AutoPad::Same { upper: true }),
        "SAME_LOWER" => Ok(AutoPad::Same { upper: false }),
        other => Err(fail!(Unsupported, "attribute 'auto_pad' is '{other}'")),
    }
}

/// One extent per spatial dimension from attribute `name`, none below `least`.
pub fn extents(call: &Call<'_>, name: &str, count: usize, least: usize) -> Result<Option<Vec<usize>>> {
    let Some(list) = call.ints(name)? else { return Ok(None) };
    ensure!(list.len() == count, Malformed, "attribute '{name}' has {} values, not {count}", list.len());
    let extent = |&value: &i64| {
        let extent = call::extent(value, &format!("attribute '{name}'"))?;
        // Far beyond any tensor, and small enough that sums and products of two stay in range.
        ensure!((least..1 << 31).contains(&extent), Malformed, "attribute '{name}' is {list:?}");
        Ok(extent)
    };
    list.iter().map(extent).collect::<Result<Vec<_>>>().map(Some)
}

/// Kernel, strides, dilations and padding for the spatial extents `input`.
pub fn window(call: &Call<'_>, kernel: &[usize], input: &[usize]) -> Result<Window> {
    let rank = kernel.len();
    ensure!(rank > 0 && input.len() == rank, ShapeMismatch, "a kernel {kernel:?} for extents {input:?}");
    ensure!(kernel.iter().all(|extent| (1..1 << 31).contains(extent)), Malformed, "the kernel is {kernel:?}");
    let strides = extents(call, "strides", rank, 1)?.unwrap_or_else(|| vec![1; rank]);
    let dilations = extents(call, "dilations", rank, 1)?.unwrap_or_else(|| vec![1; rank]);
    let pads = extents(call, "pads", 2 * rank, 0)?.unwrap_or_else(|| vec![0; 2 * rank]);
    let mut window = Window {
        kernel: kernel.to_vec(),
        strides,
        dilations,
        pads_begin: pads[..rank].to_vec(),
        pads_end: pads[rank..].to_vec(),
    };
    let auto = auto_pad(call)?;
    if auto != AutoPad::NotSet {
        for (axis, &extent) in input.iter().enumerate() {
            let (begin, end) = match auto {
                AutoPad::Same { upper } => same_pads(&window, axis, extent, upper),
                _ => (0, 0),
            };
            (window.pads_begin[axis], window.pads_end[axis]) = (begin, end);
        }
    }
    Ok(window)
}

fn same_pads(window: &Window, axis: usize, input: usize, upper: bool) -> (usize, usize) {
    let stride = window.strides[axis];
    let out = input.div_ceil(stride);
    let needed = (out.saturating_sub(1) * stride + reach(window, axis)).saturating_sub(input);
    let (less, more) = (needed / 2, needed - needed / 2);
    if upper { (less, more) } else { (more, less) }
}

/// Elements from the first to the last that a window covers along an axis.
pub fn reach(window: &Window, axis: usize) -> usize {
    window.dilations[axis] * (window.kernel[axis] - 1) + 1
}

/// Spatial extents of the result.
pub fn out_extents(window: &Window, input: &[usize], ceil: bool) -> Result<Vec<usize>> {
    let extents = (0..input.len()).map(|axis| {
        let (reach, stride) = (reach(window, axis), window.strides[axis]);
        let (begin, end) = (window.pads_begin[axis], window.pads_end[axis]);
        let padded = input[axis] + begin + end;
        let free = padded.checked_sub(reach).ok_or_else(|| {
            fail!(ShapeMismatch, "a window of {reach} does not fit into axis {axis} of {padded}, padding included")
        })?;
        if !ceil {
            return Ok(free / stride + 1);
        }
        let count = free.div_ceil(stride) + 1;
        // The last window must begin inside the input or the padding before it.
        Ok(if (count - 1) * stride >= input[axis] + begin { count - 1 } else { count })
    });
    extents.collect()
}
