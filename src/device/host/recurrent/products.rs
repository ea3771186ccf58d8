//! Products of one matrix with a few vectors, by dot products along its rows.

use super::super::simd::{Routine, Vector, dispatch, prefetch};
use crate::lower::host::Simd;

/// Rows of the matrix whose dot products with as many as [`STEPS`] vectors are taken at once: so many chains of multiply-adds
/// hide each other's latency, and each vector that is read is used several times. With one vector twice as many rows.
const ROWS: usize = 4;
const STEPS: usize = 3;
/// Elements of a cache line.
const LINE: usize = 16;

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

    /// `R` rows from `row` with `S` vectors from `step`.
    ///
    /// # Safety
    /// As [`Products::run`], with the instructions of `V` enabled; rows and vectors exist.
    #[inline(always)]
    unsafe fn dots<V: Vector, const R: usize, const S: usize>(&self, row: usize, step: usize) {
        let weights = self.weights.wrapping_add(row * self.depth);
        let x = self.x.wrapping_offset(step as isize * self.x_step);
        let whole = self.depth / V::LANES * V::LANES;
        // SAFETY: the caller's promise; partial loads stop at the end of the row.
        unsafe {
            let mut sums = [[V::splat(0.0); R]; S];
            for at in (0..whole).step_by(V::LANES) {
                if S == 1 && V::TURN > 1 {
                    // The rows are too short for the processor to see that the next ones follow.
                    let next = weights.wrapping_add(R * self.depth + at * R);
                    (0..R * V::LANES).step_by(LINE).for_each(|line| prefetch(next.wrapping_add(line)));
                }
                self.add::<V, R, S>(weights.add(at), x.wrapping_add(at), &mut sums, |from| V::load(from));
            }
            if whole < self.depth {
                let load = |from| V::load_partial(from, self.depth - whole);
                self.add::<V, R, S>(weights.add(whole), x.wrapping_add(whole), &mut sums, load);
            }
            for (vector, sums) in sums.into_iter().enumerate() {
                for (index, sum) in sums.into_iter().enumerate() {
                    *self.to.add((step + vector) * self.rows + row + index) = sum.sum();
                }
            }
        }
    }

    /// Adds what one vector of columns contributes.
    ///
    /// # Safety
    /// As [`Products::dots`]; `load` reads a vector of columns.
    #[inline(always)]
    unsafe fn add<V: Vector, const R: usize, const S: usize>(
        &self,
        weights: *const f32,
        x: *const f32,
        sums: &mut [[V; R]; S],
        load: impl Fn(*const f32) -> V,
    ) {
        let mut vectors = [load(x); S];
        for (step, vector) in vectors.iter_mut().enumerate().skip(1) {
            *vector = load(x.wrapping_offset(step as isize * self.x_step));
        }
        for row in 0..R {
            let weight = load(weights.wrapping_add(row * self.depth));
            for (sums, &x) in sums.iter_mut().zip(&vectors) {
                sums[row] = weight.mul_add(x, sums[row]);
            }
        }
    }

    /// `R` rows from `row` with all vectors.
    ///
    /// # Safety
    /// As [`Products::dots`].
    #[inline(always)]
    unsafe fn all_steps<V: Vector, const R: usize>(&self, row: usize) {
        let together = self.count / STEPS * STEPS;
        // SAFETY: the caller's promise.
        unsafe {
            (0..together).step_by(STEPS).for_each(|step| self.dots::<V, R, STEPS>(row, step));
            (together..self.count).for_each(|step| self.dots::<V, R, 1>(row, step));
        }
    }
}

impl Routine for Products {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let mut row = 0;
        // SAFETY: the caller's promise; rows and vectors are inside their counts.
        unsafe {
            while self.count == 1 && row + 2 * ROWS <= self.rows {
                self.dots::<V, { 2 * ROWS }, 1>(row, 0);
                row += 2 * ROWS;
            }
            while row + ROWS <= self.rows {
                self.all_steps::<V, ROWS>(row);
                row += ROWS;
            }
            (row..self.rows).for_each(|row| self.all_steps::<V, 1>(row));
        }
    }
}
