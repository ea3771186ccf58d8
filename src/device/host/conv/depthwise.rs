//! Convolutions with one input channel per output channel, computed directly: a band of input rows is copied with its padding
//! and, for strides above 1, sorted by column modulo the stride. Then every tap is one contiguous load. Rows are computed
//! together: their chains of multiply-adds hide each other's latency, and a load serves each of them that sees it.

use crate::device::host::RowMap;
use crate::device::host::gemm::{BoundFinish, TileFinish};
use crate::device::host::kernel::{Share, Span, Task};
use crate::device::host::simd::{Routine, Vector, dispatch};
use crate::lower::host::{DEPTHWISE_ROWS, Depthwise, Simd};
use std::mem::MaybeUninit;

/// Lanes of the widest vector.
const LANES_MAX: usize = 16;

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
        phase_seen: conv.phase_seen(),
        phase_pitch: conv.phase_pitch(),
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
    phase_seen: usize,
    phase_pitch: usize,
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
                phase_seen: self.phase_seen,
                phase_pitch: self.phase_pitch,
                row_pitch: self.phase_pitch * conv.window.strides[1],
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
    /// Elements of a padded row's phase that taps see.
    phase_seen: usize,
    /// Elements from phase to phase.
    phase_pitch: usize,
    /// Elements from padded row to padded row: one phase per residue of the stride.
    row_pitch: usize,
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
        let window = &self.conv.window;
        // SAFETY: all of it is the caller's promise.
        unsafe {
            self.pad::<V>();
            match (&window.kernel[..], window.strides[0], window.dilations[0]) {
                ([3, 3], 1, 1) => self.taps::<V, 3, 3, 1>(),
                ([3, 3], 2, 1) => self.taps::<V, 3, 3, 2>(),
                ([5, 5], 1, 1) => self.taps::<V, 5, 5, 1>(),
                ([5, 5], 2, 1) => self.taps::<V, 5, 5, 2>(),
                _ => self.any_taps::<V>(),
            }
            self.finish::<V>();
        }
    }
}

/// Repeats a statement for constants, so that whatever depends on them is decided by the compiler.
macro_rules! for_each_constant {
    ($name:ident in [$($value:literal)*] $body:stmt) => {$({ const $name: usize = $value; $body })*};
}

impl Band<'_> {
    /// Copies the input rows that the band sees, sorted into phases, between zeros.
    ///
    /// # Safety
    /// As [`BoundDepthwise::run`].
    #[inline(always)]
    unsafe fn pad<V: Vector>(&self) {
        let window = &self.conv.window;
        let rows = (self.rows - 1) * window.strides[0] + (window.kernel[0] - 1) * window.dilations[0] + 1;
        let top = (self.first * window.strides[0]) as isize - window.pads_begin[0] as isize;
        let ([height, width], stride, pad) = (self.conv.input, window.strides[1], window.pads_begin[1]);
        for phase in 0..stride {
            // Input column `first + i * stride` goes to position `start + i` of the phase.
            let first = (phase + stride - pad % stride) % stride;
            let start = (pad + first) / stride;
            let seen = self.phase_seen.saturating_sub(start);
            let count = width.saturating_sub(first).div_ceil(stride).min(seen);
            for row in 0..rows {
                let at = top + row as isize;
                let count = if at >= 0 && at < height as isize { count } else { 0 };
                let from = self.input.wrapping_offset(at * width as isize).wrapping_add(first);
                let to = self.padded.wrapping_add(row * self.row_pitch + phase * self.phase_pitch);
                // SAFETY: a row of the padded band, and of the input if it exists.
                unsafe { self.pad_row::<V>((from, count, width - first.min(width)), start, to) };
            }
        }
    }

    /// Copies `count` elements of a phase of an input row to position `start` and zeros the others that are seen. `available`
    /// elements are readable.
    ///
    /// # Safety
    /// What it says; a vector behind what is seen is writable, too.
    #[inline(always)]
    unsafe fn pad_row<V: Vector>(
        &self,
        (from, count, available): (*const f32, usize, usize),
        start: usize,
        to: *mut f32,
    ) {
        let stride = self.conv.window.strides[1];
        // SAFETY: the caller's promise.
        unsafe {
            let blank = V::splat(0.0);
            (0..start.min(self.phase_seen)).step_by(V::LANES).for_each(|at| blank.store(to.add(at)));
            let inside = to.wrapping_add(start);
            if stride == 1 {
                let whole = count / V::LANES * V::LANES;
                (0..whole).step_by(V::LANES).for_each(|at| V::load(from.add(at)).store(inside.add(at)));
                if whole < count {
                    V::load_partial(from.add(whole), count - whole).store(inside.add(whole));
                }
            } else if count > 0 {
                copy_strided::<V>(from, stride, inside, count, available);
            }
            (start + count..self.phase_seen).step_by(V::LANES).for_each(|at| blank.store(to.add(at)));
        }
    }

    /// The band with a window known to the compiler: its taps stay in registers. `S` is the stride of rows.
    ///
    /// # Safety
    /// As [`BoundDepthwise::run`], with the band padded.
    #[inline(always)]
    unsafe fn taps<V: Vector, const H: usize, const W: usize, const S: usize>(&self) {
        // SAFETY: taps of the window.
        unsafe {
            let mut weights = [[V::splat(0.0); W]; H];
            for (tap, weight) in weights.as_flattened_mut().iter_mut().enumerate() {
                *weight = V::splat(*self.weights.add(tap));
            }
            let mut offsets = [0; W];
            for (column, offset) in offsets.iter_mut().enumerate() {
                *offset = self.tap_offset(0, column);
            }
            let mut row = 0;
            while row < self.rows {
                if self.rows - row > 2 {
                    self.strip::<V, H, W, S, DEPTHWISE_ROWS, 1>(row, &weights, &offsets);
                    row += DEPTHWISE_ROWS;
                } else {
                    self.strip::<V, H, W, S, 2, 2>(row, &weights, &offsets);
                    row += 2;
                }
            }
        }
    }

    /// `R` rows from `row` on, `C` vectors of columns at a time.
    ///
    /// # Safety
    /// As [`Band::taps`].
    #[inline(always)]
    unsafe fn strip<V: Vector, const H: usize, const W: usize, const S: usize, const R: usize, const C: usize>(
        &self,
        row: usize,
        weights: &[[V; W]; H],
        offsets: &[usize; W],
    ) {
        let from = self.padded.wrapping_add(row * S * self.row_pitch);
        for column in (0..self.conv.output[1]).step_by(C * V::LANES) {
            let from = from.wrapping_add(column).cast_const();
            // SAFETY: vectors of the padded rows; those of rows that do not exist are thrown away.
            unsafe {
                let mut sums = [[V::splat(0.0); C]; R];
                for_each_constant!(I in [0 1 2 3 4 5 6 7 8 9 10] self.input_row::<V, H, W, S, R, C, I>(from, weights, offsets, &mut sums));
                self.store(sums.as_flattened(), C, row, column);
            }
        }
    }

    /// What row `I` of the input of a strip adds to its rows.
    ///
    /// # Safety
    /// As [`Band::taps`].
    #[inline(always)]
    unsafe fn input_row<
        V: Vector,
        const H: usize,
        const W: usize,
        const S: usize,
        const R: usize,
        const C: usize,
        const I: usize,
    >(
        &self,
        from: *const f32,
        weights: &[[V; W]; H],
        offsets: &[usize; W],
        sums: &mut [[V; C]; R],
    ) {
        if I >= (R - 1) * S + H {
            return;
        }
        let from = from.wrapping_add(I * self.row_pitch);
        for (column, &offset) in offsets.iter().enumerate() {
            for vector in 0..C {
                // SAFETY: a vector of the padded row.
                let x = unsafe { V::load(from.wrapping_add(offset + vector * V::LANES)) };
                for (row, sums) in sums.iter_mut().enumerate() {
                    if I >= row * S && I - row * S < H {
                        sums[vector] = weights[I - row * S][column].mul_add(x, sums[vector]);
                    }
                }
            }
        }
    }

    /// The band with any window.
    ///
    /// # Safety
    /// As [`Band::taps`].
    #[inline(always)]
    unsafe fn any_taps<V: Vector>(&self) {
        let [height, width] = [self.conv.window.kernel[0], self.conv.window.kernel[1]];
        let step = self.conv.window.strides[0] * self.row_pitch;
        for row in (0..self.rows).step_by(DEPTHWISE_ROWS) {
            for column in (0..self.conv.output[1]).step_by(V::LANES) {
                let from = self.padded.wrapping_add(row * step + column).cast_const();
                // SAFETY: taps of the window; vectors of padded rows, thrown away for rows that do not exist.
                unsafe {
                    let mut sums = [V::splat(0.0); DEPTHWISE_ROWS];
                    for (tap_row, tap) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                        let weight = V::splat(*self.weights.add(tap_row * width + tap));
                        let from = from.wrapping_add(self.tap_offset(tap_row, tap));
                        for (index, sum) in sums.iter_mut().enumerate() {
                            *sum = weight.mul_add(V::load(from.wrapping_add(index * step)), *sum);
                        }
                    }
                    self.store(&sums, 1, row, column);
                }
            }
        }
    }

    /// Stores what of some rows of sums, `across` vectors each, lies in the band.
    ///
    /// # Safety
    /// The band is writable; there are at most [`DEPTHWISE_ROWS`] vectors.
    #[inline(always)]
    unsafe fn store<V: Vector>(&self, sums: &[V], across: usize, row: usize, column: usize) {
        let width = self.conv.output[1];
        // Where a sum is stored only on a condition the compiler moves its whole chain of multiply-adds behind the condition,
        // one chain after the other. So all of them go to a buffer first.
        let mut buffer = [const { MaybeUninit::<f32>::uninit() }; DEPTHWISE_ROWS * LANES_MAX];
        let buffer = buffer.as_mut_ptr().cast::<f32>();
        // SAFETY: the buffer has room for the vectors; of a row of the band at most the rest is written.
        unsafe {
            for (index, sum) in sums.iter().enumerate() {
                sum.store(buffer.add(index * V::LANES));
            }
            let length = across * V::LANES;
            for index in 0..(sums.len() / across).min(self.rows - row) {
                let (from, to) = (buffer.add(index * length), self.result.add((row + index) * width + column));
                let count = length.min(width - column);
                let whole = count / V::LANES * V::LANES;
                for at in (0..whole).step_by(V::LANES) {
                    V::load(from.add(at)).store(to.add(at));
                }
                if whole < count {
                    V::load(from.add(whole)).store_partial(to.add(whole), count - whole);
                }
            }
        }
    }

    /// Applies the finish to the sums while they are in the cache; rows lie one after the other.
    ///
    /// # Safety
    /// The band has been computed.
    #[inline(always)]
    unsafe fn finish<V: Vector>(&self) {
        const TOGETHER: usize = 4;
        let count = self.rows * self.conv.output[1];
        let whole = count / (TOGETHER * V::LANES) * (TOGETHER * V::LANES);
        // SAFETY: elements of the band.
        unsafe {
            for at in (0..whole).step_by(TOGETHER * V::LANES) {
                let (to, residual) = (self.result.add(at), self.finish.residual.wrapping_add(at));
                let mut x = [V::splat(0.0); TOGETHER];
                x.iter_mut().enumerate().for_each(|(index, x)| *x = V::load(to.add(index * V::LANES)));
                let x = self.finish.apply_all(x, 0, at, residual, TOGETHER * V::LANES);
                x.iter().enumerate().for_each(|(index, x)| x.store(to.add(index * V::LANES)));
            }
            for at in (whole..count).step_by(V::LANES) {
                let (to, residual, left) = (self.result.add(at), self.finish.residual.wrapping_add(at), count - at);
                if left >= V::LANES {
                    self.finish.apply(V::load(to), 0, at, residual, left).store(to);
                } else {
                    let x = V::load_partial(to, left);
                    self.finish.apply(x, 0, at, residual, left).store_partial(to, left);
                }
            }
        }
    }

    /// Where a tap sees its input, from that of the first tap.
    #[inline(always)]
    fn tap_offset(&self, row: usize, column: usize) -> usize {
        let window = &self.conv.window;
        let across = column * window.dilations[1];
        let (phase, position) = (across % window.strides[1], across / window.strides[1]);
        row * window.dilations[0] * self.row_pitch + phase * self.phase_pitch + position
    }
}

/// `to[i] = from[i * stride]` for `i < count`, and anything in the rest of the last vector; `available` elements are readable
/// from `from` on.
///
/// # Safety
/// What it says is readable and writable, whole vectors of it.
#[inline(always)]
unsafe fn copy_strided<V: Vector>(from: *const f32, stride: usize, to: *mut f32, count: usize, available: usize) {
    // SAFETY: elements below `available`; positions below `count`.
    unsafe {
        if stride != 2 {
            (0..count).for_each(|index| to.add(index).write(*from.add(index * stride)));
            return;
        }
        for done in (0..count).step_by(V::LANES) {
            let (pair, left) = (from.add(2 * done), available - 2 * done);
            let even = if left >= 2 * V::LANES {
                V::load(pair).unzip(V::load(pair.add(V::LANES))).0
            } else {
                let second = V::load_partial(pair.wrapping_add(V::LANES), left.saturating_sub(V::LANES));
                V::load_partial(pair, left.min(V::LANES)).unzip(second).0
            };
            even.store(to.add(done));
        }
    }
}
