//! Scaled dot-product attention, one row tile of queries at a time: its scores for all keys stay in the cache, where they
//! are masked and exponentiated; the sums divide the result, which is shorter.

use super::RowMap;
use super::gemm::{Packing, Tile, TileFinish, TileSet};
use super::kernel::{Share, Span, Task};
use super::simd::{Routine, Vector, dispatch, math};
use crate::lower::host::{BatchAxis, FusedAttention, Panels, Simd};

/// A task that computes `attention` of queries, keys, values and the score map's operands into `output`.
pub fn prepare(attention: &FusedAttention, inputs: &[Span], output: &Span, simd: Simd) -> Task {
    let [queries, keys, values] = [0, 1, 2].map(|index: usize| inputs[index].address.cast::<f32>().cast_const());
    let score = attention.score.as_ref().map(|code| {
        let mut shape = inputs[0].shape.clone();
        *shape.last_mut().expect("queries have two axes") = attention.keys.columns;
        RowMap::new(code, &inputs[3..], &shape, simd)
    });
    let bound = BoundAttention {
        attention: attention.clone(),
        simd,
        set: TileSet::of(simd, false),
        queries,
        keys,
        values,
        result: output.address.cast(),
        score,
        scratch: attention.scratch(simd).expect("lowering has checked the size"),
    };
    Box::new(move |share: &Share| {
        // SAFETY: whoever bound the launch promised that its operands are readable and its result is writable.
        unsafe { bound.run(share) }
    })
}

struct BoundAttention {
    attention: FusedAttention,
    simd: Simd,
    set: &'static TileSet,
    queries: *const f32,
    keys: *const f32,
    values: *const f32,
    result: *mut f32,
    score: Option<RowMap>,
    scratch: [usize; 6],
}

// SAFETY: addresses only; who runs the attention answers for the accesses.
unsafe impl Send for BoundAttention {}
// SAFETY: as above.
unsafe impl Sync for BoundAttention {}

/// A matrix of the working memory or of an operand: the first element and the step from row to row.
#[derive(Clone, Copy)]
struct Rows {
    first: *const f32,
    row: isize,
    step: usize,
}

impl BoundAttention {
    /// # Safety
    /// Operands and result are as the attention says, and the scratch too.
    unsafe fn run(&self, share: &Share) {
        let tiles = self.attention.tiles.count;
        let range = share.range(self.attention.batches() * tiles, 1);
        let mut packed = None;
        for unit in range {
            let (batch, tile) = (unit / tiles, unit % tiles);
            let offsets = BatchAxis::offsets(&self.attention.batch, batch);
            // SAFETY: the batch and the tile are the attention's.
            unsafe {
                if packed != Some(batch) {
                    self.pack(offsets, share.scratch);
                    packed = Some(batch);
                }
                self.tile(batch, tile, offsets, share.scratch);
            }
        }
    }

    fn area(&self, scratch: *mut u8, part: usize) -> *mut f32 {
        scratch.wrapping_add(self.scratch[part]).cast()
    }

    /// Packs keys and values of a batch.
    ///
    /// # Safety
    /// As [`BoundAttention::run`].
    unsafe fn pack(&self, [_, keys, values, _]: [isize; 4], scratch: *mut u8) {
        let [_, key_strides, value_strides] = self.attention.strides;
        let (first, [row, column]) = (self.keys.wrapping_offset(keys), key_strides);
        // SAFETY: the scratch has room for both.
        unsafe {
            // Keys are transposed: a column of the panels is a key.
            self.pack_panels(&self.attention.keys, first, [column, row], self.area(scratch, 0));
            let first = self.values.wrapping_offset(values);
            self.pack_panels(&self.attention.values, first, value_strides, self.area(scratch, 1));
        }
    }

    /// # Safety
    /// The matrix is readable, `to` has room for its panels.
    unsafe fn pack_panels(&self, panels: &Panels, first: *const f32, [row, column]: [isize; 2], to: *mut f32) {
        for panel in 0..panels.count() {
            let packing = Packing {
                from: first.wrapping_offset((panel * panels.width()) as isize * column),
                from_step: row,
                from_lane: column,
                to: to.wrapping_add(panels.start(panel)),
                pitch: panels.pitch(panel),
                steps: panels.depth,
                lanes: panels.used(panel),
            };
            // SAFETY: the caller's promise.
            unsafe { packing.run(self.simd) }
        }
    }

    /// One row tile of the queries of a batch whose keys and values are packed.
    ///
    /// # Safety
    /// As [`BoundAttention::run`].
    unsafe fn tile(&self, batch: usize, tile: usize, offsets: [isize; 4], scratch: *mut u8) {
        let attention = &self.attention;
        let (first, height) = (attention.tiles.start(tile), attention.tiles.height(tile));
        let (scores, pitch) = (self.area(scratch, 2), attention.score_pitch());
        let result = self.result.wrapping_offset(offsets[3] + first as isize * attention.result_row);
        let count = attention.keys.columns;
        // SAFETY: the tile lies in operands and result; the parts of the scratch are as large as the attention says.
        unsafe {
            let queries = self.query_rows(offsets[0], tile, scratch);
            let keys = self.area(scratch, 0);
            self.multiply(height, attention.scale, queries, &attention.keys, keys, scores, pitch as isize);
            let mut sums = [0f32; super::gemm::ROWS_MAX];
            for (row, sum) in sums.iter_mut().enumerate().take(height) {
                let scores = scores.add(row * pitch);
                if let Some(map) = &self.score {
                    let row = batch * attention.tiles.rows + first + row;
                    map.run(row, 0, scores.cast(), scores.cast(), count, self.area(scratch, 4).cast());
                }
                let guard = attention.guard_empty_rows;
                dispatch(self.simd, Exponentials { row: scores, count, guard, sum });
            }
            let weights = Rows { first: scores, row: pitch as isize, step: 1 };
            let values = self.area(scratch, 1);
            self.multiply(height, 1.0, weights, &attention.values, values, result, attention.result_row);
            for (row, &sum) in sums.iter().enumerate().take(height) {
                let row = result.offset(row as isize * attention.result_row);
                dispatch(self.simd, Scaling { row, count: attention.values.columns, factor: 1.0 / sum });
            }
        }
    }

    /// The queries of a tile: where they lie, or packed into a strip.
    ///
    /// # Safety
    /// As [`BoundAttention::tile`].
    unsafe fn query_rows(&self, offset: isize, tile: usize, scratch: *mut u8) -> Rows {
        let [row, column] = self.attention.strides[0];
        let start = self.attention.tiles.start(tile);
        let first = self.queries.wrapping_offset(offset + start as isize * row);
        let Some(strips) = self.attention.strips else { return Rows { first, row, step: 1 } };
        let packing = Packing {
            from: first,
            from_step: column,
            from_lane: row,
            to: self.area(scratch, 3),
            pitch: strips.pitch,
            steps: strips.depth,
            lanes: self.attention.tiles.height(tile),
        };
        // SAFETY: the scratch has room for a strip.
        unsafe { packing.run(self.simd) };
        Rows { first: packing.to, row: 1, step: strips.pitch }
    }

    /// `height` rows of a left factor times packed panels.
    ///
    /// # Safety
    /// The factors are readable, the rows of the result are writable.
    #[expect(clippy::too_many_arguments, reason = "a product has two factors, a result and their shapes")]
    unsafe fn multiply(
        &self,
        height: usize,
        alpha: f32,
        left: Rows,
        panels: &Panels,
        right: *const f32,
        result: *mut f32,
        result_row: isize,
    ) {
        let strip = left.step != 1;
        for panel in 0..panels.count() {
            let columns = panels.used(panel);
            let tile = Tile {
                depth: panels.depth,
                alpha,
                a: left.first,
                a_row: left.row,
                a_step: left.step,
                b: right.wrapping_add(panels.start(panel)),
                b_step: panels.pitch(panel) as isize,
                c: result.wrapping_add(panel * panels.width()),
                c_row: result_row,
                columns,
                finish: TileFinish::NONE,
            };
            // SAFETY: the caller's promise.
            unsafe { self.set.kernel(height, columns, strip)(&tile) }
        }
    }
}

/// Replaces a row by `exp(x - max)` and delivers the sum.
struct Exponentials<'a> {
    row: *mut f32,
    count: usize,
    guard: bool,
    sum: &'a mut f32,
}

impl Routine for Exponentials<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let whole = self.count / V::LANES * V::LANES;
        let rest = self.count - whole;
        // SAFETY: all positions are below `count`.
        unsafe {
            let low = V::splat(f32::NEG_INFINITY);
            let mut greatest = low;
            for at in (0..whole).step_by(V::LANES) {
                greatest = V::load(self.row.add(at)).max(greatest);
            }
            let mut greatest = greatest.greatest();
            for at in whole..self.count {
                greatest = greatest.max(*self.row.add(at));
            }
            if self.count == 0 || self.guard && greatest == f32::NEG_INFINITY {
                std::slice::from_raw_parts_mut(self.row, self.count).fill(0.0);
                *self.sum = 1.0;
                return;
            }
            let shift = V::splat(greatest);
            let mut sums = V::splat(0.0);
            for at in (0..whole).step_by(V::LANES) {
                let value = math::exp(V::load(self.row.add(at)) - shift);
                value.store(self.row.add(at));
                sums = sums + value;
            }
            let mut sum = sums.sum();
            if rest > 0 {
                let value = math::exp(V::load_partial(self.row.add(whole), rest) - shift);
                value.store_partial(self.row.add(whole), rest);
                sum += (whole..self.count).map(|at| *self.row.add(at)).sum::<f32>();
            }
            *self.sum = sum;
        }
    }
}

/// Multiplies a row.
struct Scaling {
    row: *mut f32,
    count: usize,
    factor: f32,
}

impl Routine for Scaling {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let whole = self.count / V::LANES * V::LANES;
        // SAFETY: all positions are below `count`.
        unsafe {
            let factor = V::splat(self.factor);
            for at in (0..whole).step_by(V::LANES) {
                (V::load(self.row.add(at)) * factor).store(self.row.add(at));
            }
            if whole < self.count {
                let rest = self.count - whole;
                (V::load_partial(self.row.add(whole), rest) * factor).store_partial(self.row.add(whole), rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::device::host::testing::{Random, check, check_views};
    use crate::ir::{DType, Scalar, Tensor};
    use crate::kernels::{Attention, Binary, Instr, Map};

    const TOLERANCE: f64 = 1e-5;

    fn plain() -> Attention {
        Attention { scale: 0.3, score: None, guard_empty_rows: false }
    }

    fn masked(guard_empty_rows: bool) -> Attention {
        let body = vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Add, 0, 1)];
        let map = Map { inputs: vec![DType::F32; 2], body, output: DType::F32 };
        Attention { scale: 1.0, score: Some(map), guard_empty_rows }
    }

    #[test]
    fn attention_of_every_size_follows_its_definition() {
        let mut random = Random::new(11);
        for (queries, keys) in [(1, 1), (1, 40), (7, 33), (14, 64), (15, 16), (43, 100)] {
            for (depth, width) in [(1, 1), (32, 32), (20, 70)] {
                let q = random.floats(&[2, queries, depth]);
                let k = random.floats(&[2, keys, depth]);
                let v = random.floats(&[2, keys, width]);
                check(plain(), &[q, k, v], TOLERANCE);
            }
        }
    }

    #[test]
    fn attention_without_keys_gives_zeros() {
        let mut random = Random::new(17);
        let operands = [[2, 5, 16], [2, 0, 16], [2, 0, 9]].map(|shape| random.floats(&shape));
        check(plain(), &operands, 0.0);
    }

    #[test]
    fn heads_of_merged_tensors_are_read_in_place() {
        let mut random = Random::new(12);
        let merged = random.floats(&[2, 19, 3 * 4 * 16]);
        let inputs = [merged.clone(), merged.clone(), merged];
        check_views(plain(), &inputs, TOLERANCE, |index, view| {
            let part = view.slice(2, index * 64, 64, 1);
            part.reshape(&[2, 19, 4, 16]).unwrap().permute(&[0, 2, 1, 3])
        });
        // Neither operand has its last axis side by side.
        let turned = || [[2, 8, 19], [2, 8, 23], [2, 9, 23]];
        let inputs = turned().map(|shape| random.floats(&shape));
        check_views(plain(), &inputs, TOLERANCE, |_, view| view.swap(1, 2));
    }

    #[test]
    fn masks_are_broadcast_and_empty_rows_are_guarded() {
        let mut random = Random::new(13);
        let inputs = |random: &mut Random, mask: Tensor| {
            [random.floats(&[2, 3, 17, 8]), random.floats(&[2, 3, 21, 8]), random.floats(&[2, 3, 21, 8]), mask]
        };
        let wide = |index: usize, view: crate::plan::View| match index {
            3 => view.broadcast(&[2, 3, 17, 21]).unwrap(),
            _ => view,
        };
        for shape in [[2, 1, 1, 21], [1, 1, 17, 21], [2, 3, 17, 21], [2, 1, 17, 1]] {
            let mask = random.floats(&shape);
            check_views(masked(false), &inputs(&mut random, mask), TOLERANCE, wide);
        }
        // Row 5 sees nothing, the others all but key 2.
        let hidden = |position: usize| position / 21 == 5 || position % 21 == 2;
        let values = (0..17 * 21).map(|at| Scalar::Float(if hidden(at) { f64::NEG_INFINITY } else { 0.0 }));
        let mask = Tensor::from_scalars(DType::F32, &[1, 1, 17, 21], values);
        for guard in [false, true] {
            check_views(masked(guard), &inputs(&mut random, mask.clone()), TOLERANCE, wide);
        }
    }

    #[test]
    fn no_keys_and_no_queries() {
        let mut random = Random::new(14);
        check(plain(), &[random.floats(&[2, 0, 4]), random.floats(&[2, 5, 4]), random.floats(&[2, 5, 6])], 0.0);
    }
}
