//! A product in pieces: blocks of row tiles times groups of panels, each followed by the epilogue while it is in the cache.

use super::pack::Packing;
use super::patches::PatchPacking;
use super::tile::{Tile, TileFinish, TileSet};
use crate::device::host::RowMap;
use crate::device::host::kernel::{Share, Span, Task};
use crate::device::host::simd::dispatch;
use crate::lower::host::{BatchAxis, Finish, GROUP_PANELS_MAX, Left, Panels, Product, Right, Simd};
use std::ops::Range;

/// A task that computes `product` of `inputs` (left, right, then those of finish and epilogue) into `output`.
pub fn prepare(product: &Product, inputs: &[Span], output: &Span, simd: Simd) -> Task {
    let epilogue = product.epilogue.as_ref().map(|code| RowMap::new(code, &inputs[2..], &output.shape, simd));
    let bound = BoundProduct {
        product: product.clone(),
        simd,
        set: TileSet::of(simd, product.integer),
        left: inputs[0].address.cast(),
        right: inputs[1].address.cast(),
        result: output.address.cast(),
        finish: BoundFinish::new(&product.finish, inputs, output),
        epilogue,
    };
    Box::new(move |share: &Share| {
        // SAFETY: whoever bound the launch promised that its operands are readable and its result is writable.
        unsafe { bound.run(share) }
    })
}

/// A finish with the addresses of its operands.
pub struct BoundFinish {
    /// As for the first element of the result.
    first: TileFinish,
    /// Rows after which the row bias repeats.
    rows: usize,
    result: *const f32,
}

impl BoundFinish {
    /// Binds `finish` to the operands of its launch.
    pub fn new(finish: &Finish, inputs: &[Span], output: &Span) -> Self {
        let address = |operand: usize| inputs[operand].address.cast::<f32>().cast_const();
        let first = TileFinish {
            row_bias: finish.row_bias.map_or(std::ptr::null(), |bias| address(bias.operand)),
            row_bias_step: finish.row_bias.map_or(0, |bias| bias.step),
            column_bias: finish.column_bias.map_or(std::ptr::null(), address),
            residual: finish.residual.map_or(std::ptr::null(), address),
            clamp: finish.is_bounded().then_some((finish.low, finish.high)),
            gate: finish.gate,
            scale: finish.is_scaled().then_some((finish.scale, finish.shift)),
        };
        BoundFinish { first, rows: finish.row_bias.map_or(1, |bias| bias.count.max(1)), result: output.address.cast() }
    }

    /// The finish for a part of the result that begins at `result`, in row `row` (over all batches) and column `column`. The
    /// part does not reach over the last row of the bias.
    pub fn at(&self, result: *const f32, row: usize, column: usize) -> TileFinish {
        let mut finish = self.first;
        finish.row_bias = finish.row_bias.wrapping_offset((row % self.rows) as isize * finish.row_bias_step);
        if !finish.column_bias.is_null() {
            finish.column_bias = finish.column_bias.wrapping_add(column);
        }
        if !finish.residual.is_null() {
            let offset = (result as usize).wrapping_sub(self.result as usize);
            finish.residual = finish.residual.wrapping_byte_add(offset);
        }
        finish
    }
}

struct BoundProduct {
    product: Product,
    simd: Simd,
    set: &'static TileSet,
    left: *const f32,
    right: *const f32,
    result: *mut f32,
    finish: BoundFinish,
    epilogue: Option<RowMap>,
}

// SAFETY: addresses only; who runs the product answers for the accesses.
unsafe impl Send for BoundProduct {}
// SAFETY: as above.
unsafe impl Sync for BoundProduct {}

/// One worker's rectangle of row tiles (counted over all batches) and panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Row tiles, counted over all batches.
    pub tiles: Range<usize>,
    /// Panels.
    pub panels: Range<usize>,
}

/// The rectangle of part `part` of `parts`: the grid of parts is chosen for the least time of the busiest part.
/// `tile_cost` is the time of a tile, `panel_cost` that of fetching a panel, per step of the sum.
pub fn region(part: usize, parts: usize, tiles: usize, panels: usize, tile_cost: usize, panel_cost: usize) -> Region {
    let cost = |down: usize| {
        let (high, wide) = (tiles.div_ceil(down), panels.div_ceil(parts / down));
        high * wide * tile_cost + wide * panel_cost + high * LEFT_COST
    };
    let divisors = (1..=parts).filter(|down| parts.is_multiple_of(*down));
    let down = divisors.min_by_key(|&down| cost(down)).unwrap_or(1);
    let across = parts / down;
    let cut = |count: usize, index: usize, pieces: usize| count * index / pieces..count * (index + 1) / pieces;
    Region { tiles: cut(tiles, part / across, down), panels: cut(panels, part % across, across) }
}

/// Time of fetching a row tile of the left factor, in the unit of [`region`]'s costs.
const LEFT_COST: usize = 3;

/// What a piece works on: one block of one batch, one group of panels.
struct Piece {
    /// Offsets of the batch.
    left: isize,
    right: isize,
    result: isize,
    /// Rows of the result (over all batches) before the batch's first.
    row: usize,
    tiles: Range<usize>,
    panels: Range<usize>,
}

impl BoundProduct {
    /// # Safety
    /// Operands and result are as the product says, and the scratch too.
    unsafe fn run(&self, share: &Share) {
        let product = &self.product;
        let count = product.tiles.count;
        let panel_cost = match product.right {
            Right::Packed | Right::InPlace => 4,
            Right::Repacked => 10,
            Right::Patches(_) => 16,
        };
        let height = product.tiles.rows.div_ceil(count.max(1));
        let tiles = product.batches() * count;
        let region = region(share.part, share.parts, tiles, product.panels.count(), 2 * height, panel_cost);
        let mut next = region.tiles.start;
        while next < region.tiles.end && !region.panels.is_empty() {
            let (batch, first) = (next / count, next % count);
            let end = (first + product.block).min(count).min(first + region.tiles.end - next);
            let mut piece = self.batch(batch);
            piece.tiles = first..end;
            // SAFETY: the block lies in the matrices.
            unsafe {
                self.pack_left(&piece, share.scratch.cast());
                for panel in region.panels.clone().step_by(product.group) {
                    piece.panels = panel..(panel + product.group).min(region.panels.end);
                    self.piece(&piece, share.scratch);
                }
            }
            next += end - first;
        }
    }

    /// A piece of a batch that has nothing in it yet.
    fn batch(&self, batch: usize) -> Piece {
        let [left, right, result] = BatchAxis::offsets(&self.product.batch, batch);
        Piece { left, right, result, row: batch * self.product.tiles.rows, tiles: 0..0, panels: 0..0 }
    }

    /// # Safety
    /// As [`BoundProduct::run`].
    unsafe fn pack_left(&self, piece: &Piece, to: *mut f32) {
        let Left::Repacked(strips) = self.product.left else { return };
        let [row, tap_step, column] = self.product.left_strides;
        let steps = strips.depth / self.product.taps.max(1);
        for (index, tile) in piece.tiles.clone().enumerate() {
            let start = self.product.tiles.start(tile);
            for tap in 0..self.product.taps {
                let from = self.left.wrapping_offset(piece.left + start as isize * row + tap as isize * tap_step);
                let packing = Packing {
                    from,
                    from_step: column,
                    from_lane: row,
                    to: to.wrapping_add(index * strips.strip() + tap * steps * strips.pitch),
                    pitch: strips.pitch,
                    steps,
                    lanes: self.product.tiles.height(tile),
                };
                // SAFETY: the tile lies in the left factor, its strip in the scratch.
                unsafe { packing.run(self.simd) }
            }
        }
    }

    /// Where a panel of the right factor is, and the step between its rows; packs it if it must be.
    ///
    /// # Safety
    /// As [`BoundProduct::run`].
    unsafe fn panel(&self, piece: &Piece, panel: usize, room: *mut f32) -> (*const f32, isize) {
        let panels: &Panels = &self.product.panels;
        let [row, column] = self.product.right_strides;
        let whole = panels.used(panel) == panels.width();
        if self.product.right == Right::Packed {
            return (self.right.wrapping_add(panels.start(panel)), panels.pitch(panel) as isize);
        }
        if let Right::Patches(patches) = &self.product.right {
            let (first, used) = (panel * panels.width(), panels.used(panel));
            let (input, pitch) = (self.right.wrapping_offset(piece.right), panels.pitch(panel));
            // SAFETY: the positions are the convolution's, the room is as large as a panel.
            unsafe { dispatch(self.simd, PatchPacking { patches, input, first, used, to: room, pitch }) };
            return (room, pitch as isize);
        }
        let from = self.right.wrapping_offset(piece.right + (panel * panels.width()) as isize * column);
        if self.product.right == Right::InPlace && whole {
            return (from, row);
        }
        let (pitch, lanes) = (panels.pitch(panel), panels.used(panel));
        let packing = Packing { from, from_step: row, from_lane: column, to: room, pitch, steps: panels.depth, lanes };
        // SAFETY: the panel lies in the right factor, the room is as large as a panel.
        unsafe { packing.run(self.simd) };
        (room, pitch as isize)
    }

    /// # Safety
    /// As [`BoundProduct::run`], with the strips of the piece's tiles packed.
    unsafe fn piece(&self, piece: &Piece, scratch: *mut u8) {
        let product = &self.product;
        let room = scratch.wrapping_add(product.left_bytes()).cast::<f32>();
        let mut panels = [(std::ptr::null::<f32>(), 0isize); GROUP_PANELS_MAX];
        for (index, panel) in piece.panels.clone().enumerate() {
            // Of a factor that is read in place only the last panel is packed: there is room for one.
            let slot = if product.right == Right::InPlace { 0 } else { index };
            let room = room.wrapping_add(slot * product.panels.width() * product.panels.depth);
            // SAFETY: the panel is the product's, the room is in the scratch.
            panels[index] = unsafe { self.panel(piece, panel, room) };
        }
        for (index, tile) in piece.tiles.clone().enumerate() {
            // SAFETY: the tile is the product's.
            unsafe { self.row_tile(piece, index, tile, &panels, scratch) }
        }
    }

    /// One row tile over a group of panels.
    ///
    /// # Safety
    /// As [`BoundProduct::piece`].
    unsafe fn row_tile(
        &self,
        piece: &Piece,
        index: usize,
        tile: usize,
        panels: &[(*const f32, isize); GROUP_PANELS_MAX],
        scratch: *mut u8,
    ) {
        let product = &self.product;
        let (first, height) = (product.tiles.start(tile), product.tiles.height(tile));
        let result = self.result.wrapping_offset(piece.result + first as isize * product.result_row);
        let (a, a_row, a_step) = match product.left {
            Left::Packed(strips) => {
                (self.left.wrapping_offset(piece.left).wrapping_add(tile * strips.strip()), 1, strips.pitch)
            }
            Left::Repacked(strips) => {
                (scratch.cast::<f32>().wrapping_add(index * strips.strip()).cast_const(), 1, strips.pitch)
            }
            Left::InPlace => {
                let row = product.left_strides[0];
                (self.left.wrapping_offset(piece.left + first as isize * row), row, 1)
            }
        };
        let packed = product.left != Left::InPlace;
        let width = product.panels.width();
        for (panel, &(b, b_step)) in piece.panels.clone().zip(panels) {
            let columns = product.panels.used(panel);
            let c = result.wrapping_add(panel * width);
            let tile = Tile {
                depth: product.panels.depth,
                alpha: product.alpha,
                a,
                a_row,
                a_step,
                b,
                b_step,
                c,
                c_row: product.result_row,
                columns,
                finish: self.finish.at(c, piece.row + first, panel * width),
            };
            // SAFETY: the factors are readable as packed or as they lie; this worker alone writes these rows and columns.
            unsafe { self.set.kernel(height, columns, packed)(&tile) }
        }
        let Some(epilogue) = &self.epilogue else { return };
        let column = piece.panels.start * width;
        let count = (piece.panels.end * width).min(product.panels.columns) - column;
        let scratch = scratch.wrapping_add(product.left_bytes() + product.right_bytes());
        for row in 0..height {
            let c = result.wrapping_offset(row as isize * product.result_row).wrapping_add(column).cast::<u8>();
            // SAFETY: the segment was written above and lies in the result.
            unsafe { epilogue.run(piece.row + first + row, column, c, c, count, scratch) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_cover_everything_once() {
        for (tiles, panels) in [(1, 12), (10, 12), (7, 1), (3, 5), (0, 4), (120, 2)] {
            for parts in 1..9 {
                let mut seen = vec![0; tiles * panels];
                for part in 0..parts {
                    let region = region(part, parts, tiles, panels, 28, 4);
                    for tile in region.tiles {
                        region.panels.clone().for_each(|panel| seen[tile * panels + panel] += 1);
                    }
                }
                assert!(seen.iter().all(|&times| times == 1), "{tiles} {panels} {parts}");
            }
        }
    }

    #[test]
    fn parts_are_balanced_along_rows_or_columns() {
        assert_eq!(region(0, 2, 1, 12, 2, 4), Region { tiles: 0..1, panels: 0..6 });
        assert_eq!(region(1, 2, 74, 13, 28, 4), Region { tiles: 37..74, panels: 0..13 });
    }
}
