//! Transposed convolutions, second half: lowering has made a matrix product of weights and input, one row per output channel
//! and tap; here every output row collects what the taps contribute to it, in their order.

use crate::device::host::kernel::{Share, Span, Task};
use crate::kernels::Window;
use crate::limits::RANK_MAX;

/// A task that sums `columns`, `[N, O, taps, input spatial..]` dense, and `bias`, `[O]`, into `output`, `[N, O, spatial..]`
/// dense.
pub fn prepare(window: &Window, columns: &Span, bias: &Span, output: &Span) -> Task {
    let gather = Gather {
        window: window.clone(),
        columns: columns.clone(),
        bias: bias.clone(),
        output: output.clone(),
        rows: output.shape[2..output.shape.len() - 1].iter().product(),
    };
    Box::new(move |share: &Share| {
        let width = gather.output.shape[gather.output.shape.len() - 1].max(1);
        for row in share.range(gather.output.count() / width, 1) {
            // SAFETY: whoever bound the launch promised that its operands are readable and its result is writable.
            unsafe { gather.row(row) }
        }
    })
}

struct Gather {
    window: Window,
    columns: Span,
    bias: Span,
    output: Span,
    /// Output rows of a channel.
    rows: usize,
}

impl Gather {
    /// Computes output row `row`, counted over all channels and batches.
    ///
    /// # Safety
    /// Operands and result are as [`prepare`] says.
    unsafe fn row(&self, row: usize) {
        let (input, output) = (&self.columns.shape[3..], &self.output.shape[2..]);
        let (rank, taps) = (output.len(), self.columns.shape[2]);
        let (channel, mut rest) = (row / self.rows, row % self.rows);
        let mut at = [0usize; RANK_MAX];
        for axis in (0..rank - 1).rev() {
            (at[axis], rest) = (rest % output[axis], rest / output[axis]);
        }
        let area: usize = input.iter().product();
        let (width, in_width) = (output[rank - 1], input[rank - 1]);
        // SAFETY: the row and its channel's bias and columns, as promised.
        unsafe {
            let first = self.output.address.cast::<f32>().add(row * width);
            let result = std::slice::from_raw_parts_mut(first, width);
            let number = (channel % self.output.shape[1]) as isize * self.bias.strides[0];
            result.fill(*self.bias.address.cast::<f32>().offset(number));
            let columns = self.columns.address.cast::<f32>().cast_const().add(channel * taps * area);
            let across = self.window.kernel[rank - 1];
            for (outer, tap) in (0..taps).step_by(across).enumerate() {
                let Some(from) = self.input_row(outer, &at, input) else { continue };
                for column in 0..across {
                    let contribution = columns.add((tap + column) * area + from * in_width);
                    self.add(result, std::slice::from_raw_parts(contribution, in_width), column);
                }
            }
        }
    }

    /// The input row that tap `outer` of the axes but the last brings to output row `at`, if there is one.
    fn input_row(&self, mut outer: usize, at: &[usize; RANK_MAX], input: &[usize]) -> Option<usize> {
        let window = &self.window;
        let (mut row, mut weight) = (0, 1);
        for axis in (0..input.len() - 1).rev() {
            let tap = outer % window.kernel[axis];
            outer /= window.kernel[axis];
            let reached = (at[axis] + window.pads_begin[axis]).checked_sub(tap * window.dilations[axis])?;
            let from = reached / window.strides[axis];
            if !reached.is_multiple_of(window.strides[axis]) || from >= input[axis] {
                return None;
            }
            row += from * weight;
            weight *= input[axis];
        }
        Some(row)
    }

    /// Adds the contributions of tap `column` of the last axis.
    fn add(&self, result: &mut [f32], contributions: &[f32], column: usize) {
        let last = self.window.strides.len() - 1;
        let (stride, pad) = (self.window.strides[last], self.window.pads_begin[last]);
        let shift = column * self.window.dilations[last];
        // Contribution i goes to position i * stride + shift - pad.
        let skipped = pad.saturating_sub(shift).div_ceil(stride);
        let start = skipped * stride + shift - pad;
        let (Some(result), Some(contributions)) = (result.get_mut(start..), contributions.get(skipped..)) else {
            return;
        };
        if stride == 1 {
            result.iter_mut().zip(contributions).for_each(|(sum, value)| *sum += value);
        } else {
            result.iter_mut().step_by(stride).zip(contributions).for_each(|(sum, value)| *sum += value);
        }
    }
}
