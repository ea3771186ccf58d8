//! Packing: the columns of a strip or the rows of a panel one after the other.

use crate::device::host::simd::{Routine, Vector, dispatch};
use crate::ir::Tensor;
use crate::lower::host::{Panels, Simd, Strips};
use crate::plan::View;

/// A stretch of 4-byte elements to pack: `to[step * pitch + lane]` becomes `from[step * from_step + lane * from_lane]`, for
/// `lane < lanes` and `step < steps`. What lies between `lanes` and `pitch` is overwritten with anything.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// First element.
    pub from: *const f32,
    /// Elements between steps of the source.
    pub from_step: isize,
    /// Elements between lanes of the source.
    pub from_lane: isize,
    /// Where to.
    pub to: *mut f32,
    /// Elements between steps of the result: a multiple of 8, at least `lanes`.
    pub pitch: usize,
    /// Columns of A, rows of B.
    pub steps: usize,
    /// Rows of A, columns of B.
    pub lanes: usize,
}

impl Packing {
    /// Packs.
    ///
    /// # Safety
    /// The machine has the instructions of `simd`; the source is readable, `steps * pitch` elements from `to` on are
    /// writable and overlap it nowhere. Neither need be aligned.
    pub unsafe fn run(self, simd: Simd) {
        // SAFETY: the caller's promise.
        unsafe { dispatch(simd, self) }
    }
}

impl Routine for Packing {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller of `run` promised the rows and columns.
        unsafe {
            match (self.from_step, self.from_lane) {
                (_, 1) => self.rows::<V>(),
                (1, _) => self.transpose::<V>(),
                _ => self.gather(0..self.steps),
            }
        }
    }
}

impl Packing {
    /// # Safety
    /// As [`Packing::run`], with lanes side by side.
    #[inline(always)]
    unsafe fn rows<V: Vector>(&self) {
        for step in 0..self.steps {
            // SAFETY: the step's lanes.
            unsafe {
                let from = self.from.offset(step as isize * self.from_step);
                let to = self.to.add(step * self.pitch);
                let whole = self.lanes / V::LANES * V::LANES;
                for lane in (0..whole).step_by(V::LANES) {
                    V::load(from.add(lane)).store(to.add(lane));
                }
                if whole < self.lanes {
                    V::load_partial(from.add(whole), self.lanes - whole)
                        .store_partial(to.add(whole), self.lanes - whole);
                }
            }
        }
    }

    /// # Safety
    /// As [`Packing::run`], with steps side by side.
    #[inline(always)]
    unsafe fn transpose<V: Vector>(&self) {
        let whole = self.steps / 8 * 8;
        for lane in (0..self.lanes).step_by(8) {
            let rows = (self.lanes - lane).min(8);
            for step in (0..whole).step_by(8) {
                // SAFETY: 8 steps of at most 8 lanes; the pitch has room for 8 from every eighth lane on.
                unsafe {
                    let from = self.from.offset(lane as isize * self.from_lane).add(step);
                    let to = self.to.add(step * self.pitch + lane);
                    V::transpose_8x8(from, self.from_lane, rows, to, self.pitch);
                }
            }
        }
        // SAFETY: the steps left.
        unsafe { self.gather(whole..self.steps) }
    }

    /// # Safety
    /// As [`Packing::run`], for a range of the steps.
    #[inline(always)]
    unsafe fn gather(&self, steps: std::ops::Range<usize>) {
        for step in steps {
            for lane in 0..self.lanes {
                let at = step as isize * self.from_step + lane as isize * self.from_lane;
                // SAFETY: a lane of a step.
                unsafe { self.to.add(step * self.pitch + lane).write(self.from.offset(at).read_unaligned()) }
            }
        }
    }
}

/// Packs the constant right factor `view`, `[depth, columns]`, into `to`, which is zeroed.
pub fn pack_panels(simd: Simd, panels: &Panels, source: &Tensor, view: &View, to: &mut [u8]) {
    assert!(panels.elements().is_some_and(|elements| elements * 4 <= to.len()), "the panels do not fit");
    for panel in 0..panels.count() {
        let part = view.slice(1, panel * panels.width(), panels.used(panel), 1);
        let to = to.as_mut_ptr().cast::<f32>().wrapping_add(panels.start(panel));
        let lanes = (part.shape[1], part.strides[1]);
        // SAFETY: a panel lies inside the memory asserted above.
        unsafe { pack_constant(simd, source, &part, (part.shape[0], part.strides[0]), lanes, to, panels.pitch(panel)) };
    }
}

/// Packs the constant left factors `view`, `[batch, rows, taps, columns of a tap]`, into `to`, which is zeroed.
pub fn pack_strips(simd: Simd, strips: &Strips, source: &Tensor, view: &View, to: &mut [u8]) {
    let matrix = strips.elements().expect("lowering has checked the size");
    assert!(matrix * 4 * view.shape[0] <= to.len(), "the strips do not fit");
    let (taps, columns) = (view.shape[2], view.shape[3]);
    for (batch, tile) in (0..view.shape[0]).flat_map(|batch| (0..strips.tiles.count).map(move |tile| (batch, tile))) {
        let rows = view.slice(0, batch, 1, 1).slice(1, strips.tiles.start(tile), strips.tiles.height(tile), 1);
        let to = to.as_mut_ptr().cast::<f32>().wrapping_add(batch * matrix + tile * strips.strip());
        for tap in 0..taps {
            let part = rows.slice(2, tap, 1, 1);
            let to = to.wrapping_add(tap * columns * strips.pitch);
            let lanes = (part.shape[1], part.strides[1]);
            // SAFETY: a strip lies inside the memory asserted above.
            unsafe { pack_constant(simd, source, &part, (columns, part.strides[3]), lanes, to, strips.pitch) };
        }
    }
}

/// # Safety
/// The machine has the instructions; `to` has room for the steps.
unsafe fn pack_constant(
    simd: Simd,
    source: &Tensor,
    part: &View,
    (steps, from_step): (usize, isize),
    (lanes, from_lane): (usize, isize),
    to: *mut f32,
    pitch: usize,
) {
    if steps == 0 || lanes == 0 {
        return;
    }
    assert_eq!(source.dtype().bytes(), 4, "only 4-byte elements are packed");
    assert!(part.bounds().is_some_and(|(_, last)| last < source.count()), "the view leaves its tensor");
    let from = source.data().as_ptr().cast::<f32>().wrapping_add(part.offset);
    // SAFETY: the view lies inside its source, as asserted; the caller answers for the result.
    unsafe { Packing { from, from_step, from_lane, to, pitch, steps, lanes }.run(simd) }
}
