//! Products: how the factors are read, and what is worked on together.

use super::{BatchAxis, Finish, Patches};
use crate::lower::arena::ALIGNMENT;
use crate::lower::host::{Code, Panels, RowTiles, Simd, Strips};

/// Bytes of packed right factor that stay in the second-level cache while all row tiles pass over them.
const GROUP_BYTES: usize = 256 << 10;
/// Most panels between two rounds of the epilogue.
pub const GROUP_PANELS_MAX: usize = 16;
/// Bytes of left factor that are packed at a time.
const BLOCK_BYTES: usize = 512 << 10;
/// Rows that lie a multiple of this apart fall into the same few sets of the first-level cache.
const ALIAS_BYTES: usize = 4096;
/// From so many row tiles on it pays to pack a right factor that could be read in place.
const REPACK_TILES_MIN: usize = 3;

/// How the left factor is read. Its columns are numbered by two indices: `taps` groups of neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A constant that was packed when it was loaded.
    Packed(Strips),
    /// Where it lies; its columns lie side by side.
    InPlace,
    /// Packed tile by tile when it is needed.
    Repacked(Strips),
}

/// How the right factor is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    /// A constant that was packed when it was loaded.
    Packed,
    /// Where it lies; its columns lie side by side. A last panel that is not whole is packed when it is needed.
    InPlace,
    /// Packed panel by panel when it is needed.
    Repacked,
    /// The patches that a window sees at each of its positions, packed panel by panel when they are needed.
    Patches(Patches),
}

/// A matrix product with its tactic. Operands: left factor, right factor, those of finish and epilogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Axes of repetition, outermost first; operands are left factor, right factor, result.
    pub batch: Vec<BatchAxis<3>>,
    /// Rows of the left factor.
    pub tiles: RowTiles,
    /// Rows and columns of the right factor.
    pub panels: Panels,
    /// Factor of the product.
    pub alpha: f32,
    /// Whether elements are `I32` instead of `F32`.
    pub integer: bool,
    /// How the left factor is read.
    pub left: Left,
    /// Steps of the left factor, unless it is `Packed`: from row to row, from tap to tap, within a tap.
    pub left_strides: [isize; 3],
    /// Groups of columns of the left factor.
    pub taps: usize,
    /// Row tiles that are worked on together.
    pub block: usize,
    /// How the right factor is read.
    pub right: Right,
    /// Steps from row to row and from column to column of the right factor, if it is `InPlace` or `Repacked`.
    pub right_strides: [isize; 2],
    /// Panels that are worked on together.
    pub group: usize,
    /// Step from row to row of the result; its columns lie side by side.
    pub result_row: isize,
    /// Applied in registers.
    pub finish: Finish,
    /// Applied to the rows of the result: operand 0 is the finished product.
    pub epilogue: Option<Code>,
}

/// What a tactic is chosen by.
pub(super) struct Shape {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    /// As [`Product::taps`] and [`Product::left_strides`].
    pub taps: usize,
    pub left_strides: [isize; 3],
    /// Whether the left factor is a packed constant.
    pub left_packed: bool,
    /// `None`: a packed constant.
    pub right_strides: Option<[isize; 2]>,
    pub patches: Option<Patches>,
}

impl Product {
    /// Chooses the tactic; batch, finish and epilogue are empty.
    pub(super) fn new(simd: Simd, shape: Shape, result_row: isize) -> Product {
        let (tiles, panels) = (RowTiles::new(simd, shape.rows), Panels::new(simd, shape.depth, shape.columns));
        let strips = Strips::new(simd, shape.rows, shape.depth);
        let left = match shape.left_packed {
            true => Left::Packed(strips),
            false if must_pack_left(simd, &shape, &tiles, &panels) => Left::Repacked(strips),
            false => Left::InPlace,
        };
        let right = match (shape.patches, shape.right_strides) {
            (Some(patches), _) => Right::Patches(patches),
            (None, None) => Right::Packed,
            (None, Some([_, 1])) if tiles.count < REPACK_TILES_MIN => Right::InPlace,
            (None, Some(_)) => Right::Repacked,
        };
        let block = match left {
            Left::Repacked(strips) => (BLOCK_BYTES / (strips.strip() * 4).max(1)).clamp(1, tiles.count.max(1)),
            _ => tiles.count,
        };
        // One row tile does not come back to its panels: nothing need stay in the cache but what is packed.
        let in_cache = GROUP_BYTES / (panels.width() * shape.depth * 4).max(1);
        let streams = tiles.count == 1 && matches!(right, Right::Packed | Right::InPlace);
        let group = if streams { GROUP_PANELS_MAX } else { in_cache.clamp(1, GROUP_PANELS_MAX) };
        Product {
            batch: Vec::new(),
            tiles,
            panels,
            alpha: 1.0,
            integer: false,
            left,
            left_strides: shape.left_strides,
            taps: shape.taps,
            block,
            right,
            right_strides: shape.right_strides.unwrap_or_default(),
            group,
            result_row,
            finish: Finish::default(),
            epilogue: None,
        }
    }

    /// Number of products.
    pub fn batches(&self) -> usize {
        self.batch.iter().map(|axis| axis.extent).product()
    }

    /// Bytes of working memory for packed strips.
    pub fn left_bytes(&self) -> usize {
        match self.left {
            Left::Repacked(strips) => (self.block * strips.strip() * 4).next_multiple_of(ALIGNMENT),
            _ => 0,
        }
    }

    /// Bytes of working memory for packed panels.
    pub fn right_bytes(&self) -> usize {
        let panels = match self.right {
            Right::Packed => 0,
            Right::InPlace => usize::from(!self.panels.columns.is_multiple_of(self.panels.width())),
            Right::Repacked | Right::Patches(_) => self.group,
        };
        (panels * self.panels.width() * self.panels.depth * 4).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of working memory per worker: strips, panels, epilogue.
    pub fn scratch_bytes(&self) -> usize {
        self.left_bytes() + self.right_bytes() + self.epilogue.as_ref().map_or(0, Code::scratch_bytes)
    }
}

/// Whether the left factor must be packed: its columns have to lie side by side to be read in place, its rows should not
/// compete for the same cache sets, and then packing is to be repaid by the columns that use it.
fn must_pack_left(simd: Simd, shape: &Shape, tiles: &RowTiles, panels: &Panels) -> bool {
    let [row, _, column] = shape.left_strides;
    let height = tiles.rows.div_ceil(tiles.count.max(1));
    let beyond = row.unsigned_abs() * 4 % ALIAS_BYTES;
    let competes =
        height > simd.aliased_rows() && shape.depth >= 64 && row != 0 && beyond.min(ALIAS_BYTES - beyond) < 64;
    let apart = shape.taps > 1 || (column != 1 && shape.depth > 1);
    apart || (competes && panels.count() > 2)
}
