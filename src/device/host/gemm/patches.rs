//! Panels of the patches that a window sees (im2col), made when a product needs them.

use crate::device::host::simd::{Routine, Vector};
use crate::limits::RANK_MAX;
use crate::lower::host::Patches;

/// Columns of the widest panel.
const COLUMNS_MAX: usize = 32;

/// Neighbouring output positions of one row of the result within a panel.
#[derive(Clone, Copy)]
struct Run {
    /// First column of the panel.
    lane: usize,
    /// Number of columns.
    count: usize,
    /// Per axis, the input coordinate that the first tap of the first column sees; it may be in the padding.
    origin: [isize; RANK_MAX],
}

/// A stretch of a panel's row that is read from the input.
#[derive(Clone, Copy, Default)]
struct Piece {
    /// First lane of its vector.
    lane: usize,
    /// Number of lanes.
    count: usize,
    /// First element in a channel.
    offset: usize,
}

/// Packs columns `first..first + used` of `patches` of the channels from `input` on: row `tap * channels + channel` in
/// `pitch` elements from `to` on.
#[derive(Clone, Copy)]
pub struct PatchPacking<'a> {
    /// The geometry.
    pub patches: &'a Patches,
    /// The first channel of the group.
    pub input: *const f32,
    /// First output position.
    pub first: usize,
    /// Number of output positions.
    pub used: usize,
    /// Where to.
    pub to: *mut f32,
    /// Elements of a row: whole vectors.
    pub pitch: usize,
}

impl Routine for PatchPacking<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (runs, count) = self.runs();
        let kernel = &self.patches.window.kernel;
        let mut tap = [0usize; RANK_MAX];
        let taps: usize = kernel.iter().product();
        for index in 0..taps {
            let to = self.to.wrapping_add(index * self.patches.channels * self.pitch);
            // SAFETY: the caller's promise: the rows of a tap.
            unsafe { self.tap::<V>(&runs[..count], &tap, to) }
            for axis in (0..kernel.len()).rev() {
                tap[axis] += 1;
                if tap[axis] < kernel[axis] {
                    break;
                }
                tap[axis] = 0;
            }
        }
    }
}

impl PatchPacking<'_> {
    /// The panel's columns by rows of the result.
    #[inline(always)]
    fn runs(&self) -> ([Run; COLUMNS_MAX], usize) {
        let (window, output) = (&self.patches.window, &self.patches.output);
        let rank = output.len();
        let mut runs = [Run { lane: 0, count: 0, origin: [0; RANK_MAX] }; COLUMNS_MAX];
        let (mut lane, mut count) = (0, 0);
        while lane < self.used {
            let mut position = self.first + lane;
            let run = &mut runs[count];
            for axis in (0..rank).rev() {
                let coordinate = position % output[axis];
                position /= output[axis];
                run.origin[axis] = (coordinate * window.strides[axis]) as isize - window.pads_begin[axis] as isize;
                if axis == rank - 1 {
                    (run.lane, run.count) = (lane, (output[axis] - coordinate).min(self.used - lane));
                }
            }
            lane += run.count;
            count += 1;
        }
        (runs, count)
    }

    /// The element of a channel that column 0 of a run sees at a tap, disregarding the last axis; `None` in the padding.
    #[inline(always)]
    fn row(&self, run: &Run, tap: &[usize; RANK_MAX]) -> Option<usize> {
        let (input, dilations) = (&self.patches.input, &self.patches.window.dilations);
        let last = input.len() - 1;
        let mut row = 0;
        for axis in 0..last {
            let at = run.origin[axis] + (tap[axis] * dilations[axis]) as isize;
            if at < 0 || at >= input[axis] as isize {
                return None;
            }
            row = (row + at as usize) * input[axis + 1];
        }
        Some(row)
    }

    /// All channels of one tap.
    ///
    /// # Safety
    /// The input is readable; the rows of the tap are writable.
    #[inline(always)]
    unsafe fn tap<V: Vector>(&self, runs: &[Run], tap: &[usize; RANK_MAX], to: *mut f32) {
        let last = self.patches.input.len() - 1;
        let (width, stride) = (self.patches.input[last] as isize, self.patches.window.strides[last] as isize);
        // Pieces lie within one vector; a run is cut at most once more than there are vectors.
        let mut pieces = [Piece::default(); COLUMNS_MAX + 4];
        let (mut count, mut ends) = (0, [0usize; COLUMNS_MAX / 4]);
        let vectors = self.pitch / V::LANES;
        let mut vector = 0;
        for run in runs {
            let Some(row) = self.row(run, tap) else { continue };
            let start = run.origin[last] + (tap[last] * self.patches.window.dilations[last]) as isize;
            // Columns from `low` to `high` see the input, the others padding.
            let low = if start < 0 { (-start + stride - 1) / stride } else { 0 };
            let high = if start < width { ((width - start + stride - 1) / stride).min(run.count as isize) } else { 0 };
            let mut low = low as usize;
            while (low as isize) < high {
                let lane = run.lane + low;
                while lane / V::LANES > vector {
                    ends[vector] = count;
                    vector += 1;
                }
                let piece = (high as usize - low).min(V::LANES - lane % V::LANES);
                let offset = row + (start + low as isize * stride) as usize;
                pieces[count] = Piece { lane: lane % V::LANES, count: piece, offset };
                count += 1;
                low += piece;
            }
        }
        ends[vector..vectors].fill(count);
        // SAFETY: the pieces lie in the channels and in the rows.
        unsafe { self.channels::<V>(&pieces[..count], &ends[..vectors], stride as usize, to) }
    }

    /// All channels of a tap from the pieces of its row; those of vector `v` end at `ends[v]`.
    ///
    /// # Safety
    /// The pieces lie in every channel; the rows of the tap are writable.
    #[inline(always)]
    unsafe fn channels<V: Vector>(&self, pieces: &[Piece], ends: &[usize], stride: usize, to: *mut f32) {
        let mut reads = [Read::default(); 2];
        let mut begin = 0;
        let mut single = ends.len() <= reads.len();
        for (read, &end) in reads.iter_mut().zip(ends) {
            single &= read.take(&pieces[begin..end], stride, V::LANES);
            begin = end;
        }
        // What is decided here is the same for all channels, so that their loop is loads and stores.
        let whole = reads[..ends.len().min(2)].iter().all(|read| read.bits == u32::MAX >> (32 - V::LANES));
        // SAFETY: the caller's promise.
        unsafe {
            match (single, stride, whole, ends.len()) {
                (true, 1, true, 2) => {
                    self.each_channel::<V, 2>(to, |from, v| V::load(from.wrapping_offset(reads[v].base)))
                }
                (true, 1, _, 2) => self.each_channel::<V, 2>(to, |from, v| reads[v].masked::<V>(from)),
                (true, 1, _, 1) => self.each_channel::<V, 1>(to, |from, v| reads[v].masked::<V>(from)),
                (true, 2, true, 2) => self.each_channel::<V, 2>(to, |from, v| reads[v].even::<V>(from)),
                (true, 2, true, 1) => self.each_channel::<V, 1>(to, |from, v| reads[v].even::<V>(from)),
                _ => {
                    for channel in 0..self.patches.channels {
                        let (from, to) = self.channel(channel, to);
                        let mut begin = 0;
                        for (vector, &end) in ends.iter().enumerate() {
                            gather::<V>(&pieces[begin..end], from, stride, to.add(vector * V::LANES));
                            begin = end;
                        }
                    }
                }
            }
        }
    }

    /// Stores `N` vectors for each channel.
    ///
    /// # Safety
    /// They are writable; `read` delivers the vector of a number from a channel.
    #[inline(always)]
    unsafe fn each_channel<V: Vector, const N: usize>(&self, to: *mut f32, read: impl Fn(*const f32, usize) -> V) {
        for channel in 0..self.patches.channels {
            let (from, to) = self.channel(channel, to);
            for vector in 0..N {
                // SAFETY: the caller's promise.
                unsafe { read(from, vector).store(to.wrapping_add(vector * V::LANES)) };
            }
        }
    }

    /// The first element of a channel, and its row among those of a tap.
    #[inline(always)]
    fn channel(&self, channel: usize, to: *mut f32) -> (*const f32, *mut f32) {
        let from = self.input.wrapping_offset(channel as isize * self.patches.channel_step);
        (from, to.wrapping_add(channel * self.pitch))
    }
}

/// A vector of a panel's row that one load delivers: of the rows of an input as wide as the result neighbours are neighbours,
/// too, and what lies between is padding.
#[derive(Clone, Copy, Default)]
struct Read {
    /// Where lane 0 would be in a channel.
    base: isize,
    /// The lanes to read; the others are 0.
    bits: u32,
}

impl Read {
    /// Becomes the load for some pieces; answers whether one suffices.
    #[inline(always)]
    fn take(&mut self, pieces: &[Piece], stride: usize, lanes: usize) -> bool {
        let base = |piece: &Piece| piece.offset as isize - (piece.lane * stride) as isize;
        *self = Read { base: pieces.first().map_or(0, base), bits: 0 };
        for piece in pieces {
            self.bits |= u32::MAX >> (32 - piece.count.min(lanes)) << piece.lane;
        }
        pieces.iter().all(|piece| base(piece) == self.base)
    }

    /// # Safety
    /// The lanes are readable.
    #[inline(always)]
    unsafe fn masked<V: Vector>(&self, from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_lanes(from.wrapping_offset(self.base), self.bits) }
    }

    /// Every second element.
    ///
    /// # Safety
    /// They are readable, for all lanes.
    #[inline(always)]
    unsafe fn even<V: Vector>(&self, from: *const f32) -> V {
        let from = from.wrapping_offset(self.base);
        // SAFETY: the caller's promise: the last one is 2 (LANES - 1) behind the first.
        unsafe { V::load(from).unzip(V::load_partial(from.wrapping_add(V::LANES), V::LANES - 1)).0 }
    }
}

/// Fills one vector from its pieces, the rest with zeros.
///
/// # Safety
/// The pieces are readable behind `from`; a vector is writable.
#[inline(always)]
unsafe fn gather<V: Vector>(pieces: &[Piece], from: *const f32, stride: usize, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        if let [piece] = pieces
            && piece.count == V::LANES
            && stride == 1
        {
            return V::load(from.add(piece.offset)).store(to);
        }
        let mut lanes = V::splat(0.0);
        if stride == 1 {
            for piece in pieces {
                lanes = lanes.merge(from.add(piece.offset), piece.lane, piece.count);
            }
            return lanes.store(to);
        }
        lanes.store(to);
        for piece in pieces {
            if stride == 2 {
                let (from, last) = (from.add(piece.offset), 2 * piece.count - 1);
                let next = V::load_partial(from.wrapping_add(V::LANES), last.saturating_sub(V::LANES));
                let even = V::load_partial(from, last.min(V::LANES)).unzip(next).0;
                even.store_partial(to.add(piece.lane), piece.count);
                continue;
            }
            for index in 0..piece.count {
                to.add(piece.lane + index).write(*from.add(piece.offset + index * stride));
            }
        }
    }
}
