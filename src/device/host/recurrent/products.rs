//! Products of one matrix with a few vectors, by dot products along its rows.

use super::super::simd::{Routine, Vector, dispatch};
use crate::lower::host::Simd;

/// Rows of the matrix whose dot products are taken at once.
const ROWS: usize = 4;

/// `to[s * rows + r] = weights[r] . x[s]` for `s` below `count`. Each dot product is summed in one order,
/// whatever `count` is.
pub struct Products {
    /// `rows * depth` elements, row by row.
    pub weights: *const f32,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub depth: usize,
    /// The first vector.
    pub x: *const f32,
    /// Elements from one vector to the next.
    pub x_step: isize,
    /// Number of vectors.
    pub count: usize,
    /// `count * rows` results.
    pub to: *mut f32,
}

impl Products {
    /// Does it.
    ///
    /// # Safety
    /// The machine has the instructions of `simd`, and the addresses are as the fields say.
    pub unsafe fn run(self, simd: Simd) {
        // SAFETY: the caller's promise.
        unsafe { dispatch(simd, self) }
    }

    /// `R` rows from `row` with vector `step`.
    ///
    /// # Safety
    /// As [`Products::run`], with the instructions of `V` enabled; rows and vector exist.
    #[inline(always)]
    unsafe fn dots<V: Vector, const R: usize>(&self, row: usize, step: usize) {
        // SAFETY: the caller's promise; partial loads stop at the end of the row.
        unsafe {
            let x = self.x.offset(step as isize * self.x_step);
            let mut sums = [V::splat(0.0); R];
            let mut at = 0;
            while at < self.depth {
                let left = self.depth - at;
                let whole = left >= V::LANES;
                let load = |from: *const f32| if whole { V::load(from) } else { V::load_partial(from, left) };
                let x = load(x.add(at));
                for (index, sum) in sums.iter_mut().enumerate() {
                    *sum = load(self.weights.add((row + index) * self.depth + at)).mul_add(x, *sum);
                }
                at += V::LANES;
            }
            for (index, sum) in sums.into_iter().enumerate() {
                *self.to.add(step * self.rows + row + index) = sum.sum();
            }
        }
    }
}

impl Routine for Products {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let whole = self.rows / ROWS * ROWS;
        // SAFETY: the caller's promise; rows and vectors are inside their counts.
        unsafe {
            for row in (0..whole).step_by(ROWS) {
                (0..self.count).for_each(|step| self.dots::<V, ROWS>(row, step));
            }
            for row in whole..self.rows {
                (0..self.count).for_each(|step| self.dots::<V, 1>(row, step));
            }
        }
    }
}
