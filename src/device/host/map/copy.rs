//! Copies of one view into another: rows, fills, blocked transpositions.

use super::GRAIN;
use crate::device::host::cursor::Cursor;
use crate::device::host::kernel::{Share, Span, Task};

/// Edge of the square tiles of a transposition: a tile's rows stay in the first-level cache.
const TILE: usize = 16;

/// A task that copies `source` to `target`, of one element type and the same (simplified) axes.
pub fn prepare(source: &Span, target: &Span) -> Task {
    match source.dtype.bytes() {
        1 => typed::<u8>(source, target),
        2 => typed::<u16>(source, target),
        4 => typed::<u32>(source, target),
        _ => typed::<u64>(source, target),
    }
}

fn typed<T: Copy + 'static>(source: &Span, target: &Span) -> Task {
    let (source, target) = (source.clone(), target.clone());
    let rank = target.shape.len();
    // The source's rows run along `across`, the target's along its last axis.
    let across = (0..rank.saturating_sub(1)).find(|&axis| source.strides[axis] == 1);
    match across {
        Some(across) if target.inner_stride() == 1 && source.inner_stride() != 0 => {
            let transposition = Transposition::new(source, target, across);
            Box::new(move |share: &Share| {
                // SAFETY: whoever bound the launch promised that its operand is readable and its result is writable.
                unsafe { transposition.run::<T>(share) }
            })
        }
        _ => Box::new(move |share: &Share| {
            // SAFETY: as above.
            unsafe { rows::<T>(&source, &target, share) }
        }),
    }
}

/// # Safety
/// The source is readable, the target writable, they do not overlap.
unsafe fn rows<T: Copy>(source: &Span, target: &Span, share: &Share) {
    let range = share.range(target.count(), GRAIN);
    let mut cursor = Cursor::new(&target.shape, range.start);
    let (from_step, to_step) = (source.inner_stride(), target.inner_stride());
    let mut left = range.len();
    while left > 0 {
        let n = cursor.row_left().min(left);
        let from = source.element(cursor.offset(&source.strides)).cast::<T>();
        let to = target.element(cursor.offset(&target.strides)).cast::<T>();
        // SAFETY: the run lies in both; elements are aligned for their type.
        unsafe {
            match (from_step, to_step) {
                (1, 1) => std::ptr::copy_nonoverlapping(from, to, n),
                (0, 1) => std::slice::from_raw_parts_mut(to, n).fill(*from),
                _ => (0..n as isize).for_each(|i| *to.offset(i * to_step) = *from.offset(i * from_step)),
            }
        }
        cursor.advance(n);
        left -= n;
    }
}

/// A copy whose source runs along another axis than its target.
struct Transposition {
    source: Span,
    target: Span,
    /// Steps along the source's unit axis in the target, and along the target's unit axis in the source.
    target_step: isize,
    source_step: isize,
    /// Extents along the source's and the target's unit axis.
    tall: usize,
    wide: usize,
}

impl Transposition {
    fn new(mut source: Span, mut target: Span, across: usize) -> Self {
        let last = target.shape.len() - 1;
        let (tall, wide) = (target.shape[across], target.shape[last]);
        let (target_step, source_step) = (target.strides[across], source.strides[last]);
        for span in [&mut source, &mut target] {
            for axis in [last, across] {
                span.shape.remove(axis);
                span.strides.remove(axis);
            }
        }
        Transposition { source, target, target_step, source_step, tall, wide }
    }

    /// # Safety
    /// As [`rows`].
    unsafe fn run<T: Copy>(&self, share: &Share) {
        let strips = self.tall.div_ceil(TILE);
        let range = share.range(self.target.count() * strips, 1);
        for unit in range {
            let cursor = Cursor::new(&self.target.shape, unit / strips);
            let from = self.source.element(cursor.offset(&self.source.strides)).cast::<T>();
            let to = self.target.element(cursor.offset(&self.target.strides)).cast::<T>();
            let top = unit % strips * TILE;
            let height = TILE.min(self.tall - top);
            for left in (0..self.wide).step_by(TILE) {
                let width = TILE.min(self.wide - left);
                // SAFETY: the tile lies in both; elements are aligned for their type.
                unsafe {
                    let from = from.offset(top as isize + left as isize * self.source_step);
                    let to = to.offset(top as isize * self.target_step + left as isize);
                    self.tile(from, to, height, width);
                }
            }
        }
    }

    /// # Safety
    /// The tile lies in source and target.
    unsafe fn tile<T: Copy>(&self, from: *const T, to: *mut T, height: usize, width: usize) {
        for row in 0..height as isize {
            for column in 0..width as isize {
                // SAFETY: the caller's promise.
                unsafe { *to.offset(row * self.target_step + column) = *from.offset(row + column * self.source_step) };
            }
        }
    }
}
