//! Convolutions with one input channel per output channel, computed directly: a band of input rows is copied with its padding
//! and, for strides above 1, sorted by column modulo the stride. Then every tap is one contiguous load.

use crate::device::host::RowMap;
use crate::device::host::gemm::{BoundFinish, TileFinish};
use crate::device::host::kernel::{Share, Span, Task};
use crate::device::host::simd::{Routine, Vector, dispatch};
use crate::lower::host::{Depthwise, Simd};

/// A task that computes `conv` of `inputs` (input, weights, then those of finish and epilogue) into `output`.
pub fn prepare(conv: &Depthwise, inputs: &[Span], output: &Span, simd: Simd) -> Task {
    let epilogue = conv.epilogue.as_ref().map(|code| RowMap::new(code, &inputs[2..], &output.shape, simd));
    let bound = BoundDepthwise {
        conv: conv.clone(),
        simd,
        input: inputs[0].address.cast(),
        weights: inputs[1].address.cast(),
        result: output.address.cast(),
        finish: BoundFinish::new(&conv.finish, inputs, output),
        epilogue,
        epilogue_scratch: conv.scratch().expect("lowering has checked the size")[0],
    };
    Box::new(move |share: &Share| {
        // SAFETY: whoever bound the launch promised that its operands are readable and its result is writable.
        unsafe { bound.run(share) }
    })
}

struct BoundDepthwise {
    conv: Depthwise,
    simd: Simd,
    input: *const f32,
    weights: *const f32,
    result: *mut f32,
    finish: BoundFinish,
    epilogue: Option<RowMap>,
    epilogue_scratch: usize,
}

// SAFETY: addresses only; who runs the convolution answers for the accesses.
unsafe impl Send for BoundDepthwise {}
// SAFETY: as above.
unsafe impl Sync for BoundDepthwise {}

impl BoundDepthwise {
    /// # Safety
    /// Operands, result and scratch are as the convolution says.
    unsafe fn run(&self, share: &Share) {
        let conv = &self.conv;
        let bands = conv.output[0].div_ceil(conv.band);
        let range = share.range(conv.batch.extent * conv.channels * bands, 1);
        for unit in range {
            let (row, band) = (unit / bands, unit % bands);
            let (batch, channel) = (row / conv.channels, row % conv.channels);
            let first = band * conv.band;
            let rows = conv.band.min(conv.output[0] - first);
            let [from, to] = conv.batch.steps.map(|step| batch as isize * step);
            let from = from + (channel / conv.multiplier) as isize * conv.channel_steps[0];
            let to = to + channel as isize * conv.channel_steps[1];
            let column = first * conv.output[1];
            let taps = conv.window.kernel[0] * conv.window.kernel[1];
            let result = self.result.wrapping_offset(to).wrapping_add(column);
            let band = Band {
                conv,
                input: self.input.wrapping_offset(from),
                weights: self.weights.wrapping_add(channel * taps),
                padded: share.scratch.cast(),
                result,
                first,
                rows,
                finish: self.finish.at(result, row, column),
            };
            // SAFETY: the band lies in operands and result; the scratch has room for it, and for the epilogue behind it.
            unsafe {
                dispatch(self.simd, band);
                if let Some(epilogue) = &self.epilogue {
                    let scratch = share.scratch.wrapping_add(self.epilogue_scratch);
                    let count = rows * conv.output[1];
                    epilogue.run(row, column, result.cast(), result.cast(), count, scratch);
                }
            }
        }
    }
}

/// Some rows of one output channel.
struct Band<'a> {
    conv: &'a Depthwise,
    /// The input channel.
    input: *const f32,
    /// The channel's taps.
    weights: *const f32,
    /// Room for the padded input.
    padded: *mut f32,
    /// The first of the rows.
    result: *mut f32,
    /// Number of the first row.
    first: usize,
    /// How many.
    rows: usize,
    finish: TileFinish,
}

impl Routine for Band<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: all of it is the caller's promise.
        unsafe {
            self.pad::<V>();
            match self.conv.window.kernel[..] {
                [3, 3] => self.taps::<V, 3, 3>(),
                [5, 5] => self.taps::<V, 5, 5>(),
                _ => self.any_taps::<V>(),
            }
        }
    }
}

impl Band<'_> {
    /// Elements of a padded row: one phase per residue of the stride.
    #[inline(always)]
    fn row_pitch(&self) -> usize {
        self.conv.phase_pitch() * self.conv.window.strides[1]
    }

    /// Copies the input rows that the band sees.
    ///
    /// # Safety
    /// As [`BoundDepthwise::run`].
    #[inline(always)]
    unsafe fn pad<V: Vector>(&self) {
        let window = &self.conv.window;
        let rows = (self.rows - 1) * window.strides[0] + (window.kernel[0] - 1) * window.dilations[0] + 1;
        let top = (self.first * window.strides[0]) as isize - window.pads_begin[0] as isize;
        for row in 0..rows {
            let at = top + row as isize;
            // SAFETY: the rows of the padded band; those of the input that exist.
            unsafe {
                let to = self.padded.add(row * self.row_pitch());
                if at < 0 || at >= self.conv.input[0] as isize {
                    std::slice::from_raw_parts_mut(to, self.row_pitch()).fill(0.0);
                } else {
                    self.pad_row::<V>(self.input.add(at as usize * self.conv.input[1]), to);
                }
            }
        }
    }

    /// Copies one input row, sorted into phases, between zeros.
    ///
    /// # Safety
    /// The row is readable, the phases are writable.
    #[inline(always)]
    unsafe fn pad_row<V: Vector>(&self, from: *const f32, to: *mut f32) {
        let (stride, pad) = (self.conv.window.strides[1], self.conv.window.pads_begin[1]);
        let (pitch, width) = (self.conv.phase_pitch(), self.conv.input[1]);
        for phase in 0..stride {
            // Input column `first + i * stride` goes to position `start + i` of the phase.
            let first = (phase + stride - pad % stride) % stride;
            let start = (pad + first) / stride;
            let count = width.saturating_sub(first).div_ceil(stride).min(pitch.saturating_sub(start));
            // SAFETY: positions below the pitch; columns below the width.
            unsafe {
                let to = to.add(phase * pitch);
                let row = std::slice::from_raw_parts_mut(to, pitch);
                row[..start.min(pitch)].fill(0.0);
                row[(start + count).min(pitch)..].fill(0.0);
                if count > 0 {
                    copy_strided::<V>(from.add(first), stride, to.add(start), count, width - first);
                }
            }
        }
    }

    /// The band with a window known to the compiler: its taps stay in registers.
    ///
    /// # Safety
    /// As [`BoundDepthwise::run`], with the band padded.
    #[inline(always)]
    unsafe fn taps<V: Vector, const H: usize, const W: usize>(&self) {
        // SAFETY: taps of the window; vectors of a padded row.
        unsafe {
            let mut weights = [[V::splat(0.0); W]; H];
            for (tap, weight) in weights.as_flattened_mut().iter_mut().enumerate() {
                *weight = V::splat(*self.weights.add(tap));
            }
            self.each_vector::<V>(|from| {
                let mut sum = V::splat(0.0);
                for (row, weights) in weights.iter().enumerate() {
                    for (column, &weight) in weights.iter().enumerate() {
                        sum = weight.mul_add(V::load(from.wrapping_add(self.tap_offset(row, column))), sum);
                    }
                }
                sum
            });
        }
    }

    /// The band with any window.
    ///
    /// # Safety
    /// As [`Band::taps`].
    #[inline(always)]
    unsafe fn any_taps<V: Vector>(&self) {
        let [height, width] = [self.conv.window.kernel[0], self.conv.window.kernel[1]];
        // SAFETY: taps of the window; vectors of a padded row.
        unsafe {
            self.each_vector::<V>(|from| {
                let mut sum = V::splat(0.0);
                for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                    let weight = V::splat(*self.weights.add(row * width + column));
                    sum = weight.mul_add(V::load(from.wrapping_add(self.tap_offset(row, column))), sum);
                }
                sum
            });
        }
    }

    /// Where a tap sees its input, from that of the first tap.
    #[inline(always)]
    fn tap_offset(&self, row: usize, column: usize) -> usize {
        let window = &self.conv.window;
        let across = column * window.dilations[1];
        let (phase, position) = (across % window.strides[1], across / window.strides[1]);
        row * window.dilations[0] * self.row_pitch() + phase * self.conv.phase_pitch() + position
    }

    /// Computes every vector of the band from the address of its first tap's input.
    ///
    /// # Safety
    /// As [`Band::taps`].
    #[inline(always)]
    unsafe fn each_vector<V: Vector>(&self, sum: impl Fn(*const f32) -> V) {
        let width = self.conv.output[1];
        for row in 0..self.rows {
            let from = self.padded.wrapping_add(row * self.conv.window.strides[0] * self.row_pitch());
            for at in (0..width).step_by(V::LANES) {
                let (count, column) = ((width - at).min(V::LANES), row * width + at);
                // SAFETY: `count` elements of the row.
                unsafe {
                    let residual = self.finish.residual.wrapping_add(column);
                    let x = self.finish.apply(sum(from.wrapping_add(at)), 0, column, residual, count);
                    let to = self.result.add(column);
                    if count == V::LANES { x.store(to) } else { x.store_partial(to, count) }
                }
            }
        }
    }
}

/// `to[i] = from[i * stride]` for `i < count`; `available` elements are readable from `from` on.
///
/// # Safety
/// What it says is readable and writable.
#[inline(always)]
unsafe fn copy_strided<V: Vector>(from: *const f32, stride: usize, to: *mut f32, count: usize, available: usize) {
    let mut done = 0;
    // SAFETY: both vectors lie below `available`; positions below `count`.
    unsafe {
        match stride {
            1 => return std::ptr::copy_nonoverlapping(from, to, count),
            2 => {
                while done + V::LANES <= count && 2 * (done + V::LANES) <= available {
                    let pair = from.add(2 * done);
                    V::load(pair).unzip(V::load(pair.add(V::LANES))).0.store(to.add(done));
                    done += V::LANES;
                }
            }
            _ => {}
        }
        for index in done..count {
            to.add(index).write(*from.add(index * stride));
        }
    }
}
