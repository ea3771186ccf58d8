//! Lowering of matrix products: axes are merged, constant factors packed, and the tactic chosen.

use super::elementwise::absorb_constants;
use super::{Access, Code, Layout, Lowering, Op, Operand, Panels, RowTiles, Simd, Strips};
use crate::error::{Result, fail};
use crate::ir::DType;
use crate::kernels::{Map, MatMul};
use crate::lower::arena::ALIGNMENT;
use crate::plan::{Step, View};

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

/// An axis along which whole products are repeated: extent and strides in elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchAxis {
    /// Number of products.
    pub extent: usize,
    /// Step in the left factor.
    pub left: isize,
    /// Step in the right factor.
    pub right: isize,
    /// Step in the result.
    pub result: isize,
}

/// How the right factor is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// A constant that was packed when it was loaded.
    Packed,
    /// Where it lies; its columns lie side by side. A last panel that is not whole is packed when it is needed.
    InPlace,
    /// Packed panel by panel when it is needed.
    Repacked,
}

/// A matrix product with its tactic. Operands: left factor, right factor, the epilogue's further operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Axes of repetition, outermost first.
    pub batch: Vec<BatchAxis>,
    /// Rows of the left factor.
    pub tiles: RowTiles,
    /// Rows and columns of the right factor.
    pub panels: Panels,
    /// Factor of the product.
    pub alpha: f32,
    /// Whether elements are `I32` instead of `F32`.
    pub integer: bool,
    /// Steps from row to row and from column to column of the left factor.
    pub left: [isize; 2],
    /// Strips of the left factor if it is packed before it is used.
    pub strips: Option<Strips>,
    /// Row tiles that are worked on together.
    pub block: usize,
    /// How the right factor is read.
    pub right: Right,
    /// Steps from row to row and from column to column of the right factor, unless it is `Packed`.
    pub right_strides: [isize; 2],
    /// Panels that are worked on together.
    pub group: usize,
    /// Step from row to row of the result; its columns lie side by side.
    pub result_row: isize,
    /// Applied to the rows of the result: operand 0 is the product.
    pub epilogue: Option<Code>,
}

impl Product {
    /// Chooses the tactic for operands `[batch.., M, K]`, `[batch.., K, N]` (`None`: packed, the same for all batches) and
    /// `[batch.., M, N]`.
    pub fn new(simd: Simd, alpha: f32, left: &Operand, right: Option<&Operand>, result: &Operand) -> Product {
        let rank = result.shape.len();
        let (mut rows, depth, columns) = (result.shape[rank - 2], left.shape[rank - 1], result.shape[rank - 1]);
        let axis = |axis: usize| BatchAxis {
            extent: result.shape[axis],
            left: left.strides[axis],
            right: right.map_or(0, |right| right.strides[axis]),
            result: result.strides[axis],
        };
        let mut batch: Vec<BatchAxis> = (0..rank - 2).map(axis).filter(|axis| axis.extent != 1).collect();
        let (mut left_row, mut result_row) = (left.strides[rank - 2], result.strides[rank - 2]);
        // Products that share the right factor are one product of more rows.
        while let Some(axis) = batch.last().copied() {
            let follows = axis.left == left_row * rows as isize && axis.result == result_row * rows as isize;
            if axis.right != 0 || !(follows || rows == 1) {
                break;
            }
            if rows == 1 {
                (left_row, result_row) = (axis.left, axis.result);
            }
            rows *= axis.extent;
            batch.pop();
        }
        let left_strides = [left_row, left.strides[rank - 1]];
        let right_strides = right.map_or([0, 0], |right| [right.strides[rank - 2], right.strides[rank - 1]]);
        let (tiles, panels) = (RowTiles::new(simd, rows), Panels::new(simd, depth, columns));
        let strips = pack_left(left_strides, &tiles, &panels).then(|| Strips::new(simd, rows, depth));
        let strip_bytes = strips.map_or(1, |strips| strips.strip() * 4).max(1);
        let panel_bytes = (panels.width() * depth * 4).max(1);
        let group = if tiles.count == 1 { GROUP_PANELS_MAX } else { GROUP_BYTES / panel_bytes };
        let right_form = match right {
            None => Right::Packed,
            Some(_) if right_strides[1] == 1 && tiles.count < REPACK_TILES_MIN => Right::InPlace,
            Some(_) => Right::Repacked,
        };
        let affordable = if right_form == Right::Repacked { GROUP_BYTES / panel_bytes } else { GROUP_PANELS_MAX };
        Product {
            batch,
            tiles,
            panels,
            alpha,
            integer: left.dtype == DType::I32,
            left: left_strides,
            strips,
            block: if strips.is_some() {
                (BLOCK_BYTES / strip_bytes).clamp(1, tiles.count.max(1))
            } else {
                tiles.count
            },
            right: right_form,
            right_strides,
            group: group.min(affordable).clamp(1, GROUP_PANELS_MAX),
            result_row,
            epilogue: None,
        }
    }

    /// Number of products.
    pub fn batches(&self) -> usize {
        self.batch.iter().map(|axis| axis.extent).product()
    }

    /// Bytes of working memory for packed strips.
    pub fn left_bytes(&self) -> usize {
        self.strips.map_or(0, |strips| self.block * strips.strip() * 4).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of working memory for packed panels.
    pub fn right_bytes(&self) -> usize {
        let panels = match self.right {
            Right::Packed => 0,
            Right::InPlace => usize::from(!self.panels.columns.is_multiple_of(self.panels.width())),
            Right::Repacked => self.group,
        };
        (panels * self.panels.width() * self.panels.depth * 4).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of working memory per worker: strips, panels, epilogue.
    pub fn scratch_bytes(&self) -> usize {
        self.left_bytes() + self.right_bytes() + self.epilogue.as_ref().map_or(0, Code::scratch_bytes)
    }
}

/// Whether the left factor is packed: its columns must lie side by side to be read in place, its rows should not compete
/// for the same cache sets, and packing must be repaid by the columns that use it.
fn pack_left([row, column]: [isize; 2], tiles: &RowTiles, panels: &Panels) -> bool {
    let height = tiles.rows.div_ceil(tiles.count.max(1));
    let distance = (row.unsigned_abs() * 4 % ALIAS_BYTES).min(ALIAS_BYTES - row.unsigned_abs() * 4 % ALIAS_BYTES);
    let competes = height > 6 && panels.depth >= 64 && row != 0 && distance < 64;
    (column != 1 && panels.depth > 1) || (competes && panels.count() > 2)
}

/// Compiles an epilogue: operand 0 is a row of accumulators, `operands` are the further ones, as the kernel sees them.
pub(super) fn compile_epilogue(map: &Map, operands: &[Operand]) -> Code {
    let mut access = vec![Access::Unit];
    access.extend(operands.iter().map(|operand| Access::of(&operand.shape, &operand.strides, false)));
    Code::compile(map, &access)
}

impl Lowering<'_> {
    /// The epilogue of a step without the operands that are one constant value, and the operands left.
    pub(super) fn epilogue(&mut self, map: &Map, views: &[View]) -> Result<(Map, Vec<Operand>)> {
        let (map, left) = absorb_constants(map, 1, views, |view| self.plan.constant(view));
        let views: Vec<View> = left.iter().map(|&index| views[index].clone()).collect();
        Ok((map, self.operands(&views)?))
    }

    /// Lowers a matrix product.
    pub(super) fn matmul(&mut self, kernel: &MatMul, step: &Step) -> Result<(Op, Vec<Operand>, Vec<Operand>)> {
        let simd = self.traits.simd;
        let left = self.operand(&step.inputs[0])?;
        let result = self.operand(&step.outputs[0])?;
        let (right, packed) = match self.packed_right(&step.inputs[1])? {
            Some(right) => (right, true),
            None => (self.operand(&step.inputs[1])?, false),
        };
        let mut product = Product::new(simd, kernel.alpha, &left, (!packed).then_some(&right), &result);
        let mut inputs = vec![left, right];
        if let Some(map) = &kernel.epilogue {
            let (map, mut operands) = self.epilogue(map, &step.inputs[2..])?;
            product.epilogue = Some(compile_epilogue(&map, &operands));
            inputs.append(&mut operands);
        }
        self.scratch = self.scratch.max(product.scratch_bytes());
        Ok((Op::Product(product), inputs, vec![result]))
    }

    /// A right factor that is constant and the same in all batches, packed.
    fn packed_right(&mut self, view: &View) -> Result<Option<Operand>> {
        let rank = view.rank();
        let (outer, inner) = (rank - 2, &view.shape[rank - 2..]);
        let shared = (0..outer).all(|axis| view.shape[axis] == 1 || view.strides[axis] == 0);
        let Some(tensor) = self.plan.constant(view).filter(|_| shared) else { return Ok(None) };
        let matrix = View {
            tensor: view.tensor,
            offset: view.offset,
            shape: inner.to_vec(),
            strides: view.strides[outer..].to_vec(),
        };
        let panels = Panels::new(self.traits.simd, matrix.shape[0], matrix.shape[1]);
        let bytes = panels.elements().and_then(|elements| elements.checked_mul(4));
        let bytes = bytes.ok_or_else(|| fail!(TooLarge, "a factor of shape {inner:?} is too large to be packed"))?;
        let region = super::Region::Constant(self.constants.add(&tensor, &matrix, Layout::Panels(panels), bytes));
        let (shape, strides) = (view.shape.clone(), view.strides.clone());
        Ok(Some(Operand { region, byte_offset: 0, dtype: tensor.dtype(), shape, strides }))
    }
}
