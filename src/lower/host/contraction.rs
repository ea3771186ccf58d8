//! Lowering of matrix products: axes are merged, constant factors packed, and the tactic chosen.

use super::elementwise::absorb_constants;
use super::{Access, Code, Layout, Lowering, Op, Operand, Panels, RowTiles, Simd, Strips};
use crate::error::{Result, fail};
use crate::ir::DType;
use crate::kernels::{Attention, Map, MatMul};
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

/// An axis along which a whole computation is repeated, with its step in each of `N` operands, in elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchAxis<const N: usize> {
    /// Number of repetitions.
    pub extent: usize,
    /// Steps from one to the next.
    pub steps: [isize; N],
}

impl<const N: usize> BatchAxis<N> {
    /// The axes but the last `kept` of operands of one shape; those of extent 1 are left out.
    pub fn of(operands: [&Operand; N], kept: usize) -> Vec<Self> {
        let shape = &operands[N - 1].shape;
        let axes = (0..shape.len() - kept).filter(|&axis| shape[axis] != 1);
        axes.map(|axis| BatchAxis { extent: shape[axis], steps: operands.map(|operand| operand.strides[axis]) })
            .collect()
    }

    /// Where repetition `index` begins in each operand.
    pub fn offsets(axes: &[Self], mut index: usize) -> [isize; N] {
        let mut offsets = [0; N];
        for axis in axes.iter().rev() {
            let position = (index % axis.extent) as isize;
            index /= axis.extent;
            offsets.iter_mut().zip(axis.steps).for_each(|(offset, step)| *offset += position * step);
        }
        offsets
    }
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
        let shared = Operand { strides: vec![0; rank], ..result.clone() };
        let mut batch = BatchAxis::of([left, right.unwrap_or(&shared), result], 2);
        let (mut left_row, mut result_row) = (left.strides[rank - 2], result.strides[rank - 2]);
        // Products that share the right factor are one product of more rows.
        while let Some(axis) = batch.last().copied() {
            let [left, right, result] = axis.steps;
            let follows = left == left_row * rows as isize && result == result_row * rows as isize;
            if right != 0 || !(follows || rows == 1) {
                break;
            }
            if rows == 1 {
                (left_row, result_row) = (left, result);
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

/// An attention with its tactic. Operands: queries, keys, values, the score map's further operands.
#[derive(Clone, Debug, PartialEq)]
pub struct FusedAttention {
    /// Axes of repetition, outermost first; operands are queries, keys, values, result.
    pub batch: Vec<BatchAxis<4>>,
    /// Rows of queries.
    pub tiles: RowTiles,
    /// The transposed keys: one column per key.
    pub keys: Panels,
    /// The values: one row per key.
    pub values: Panels,
    /// Factor of the scores.
    pub scale: f32,
    /// Steps from row to row and from column to column of queries, keys and values.
    pub strides: [[isize; 2]; 3],
    /// Strips of the queries if their columns do not lie side by side.
    pub strips: Option<Strips>,
    /// Step from row to row of the result; its columns lie side by side.
    pub result_row: isize,
    /// Applied to the rows of scores: operand 0 is the scaled score.
    pub score: Option<Code>,
    /// Whether a row of scores that is -inf throughout gives zeros.
    pub guard_empty_rows: bool,
}

impl FusedAttention {
    /// The tactic for operands `[batch.., S, D]`, `[batch.., T, D]`, `[batch.., T, E]` and `[batch.., S, E]`.
    fn new(simd: Simd, kernel: &Attention, inputs: &[Operand], result: &Operand) -> Self {
        let [queries, keys, values] = [&inputs[0], &inputs[1], &inputs[2]];
        let last = |operand: &Operand| {
            let (shape, strides) = (operand.shape.as_slice(), operand.strides.as_slice());
            let outer = shape.len() - 2;
            ([shape[outer], shape[outer + 1]], [strides[outer], strides[outer + 1]])
        };
        let ([rows, depth], query_strides) = last(queries);
        let ([count, width], value_strides) = last(values);
        let strips = (query_strides[1] != 1 && depth > 1).then(|| Strips::new(simd, rows, depth));
        FusedAttention {
            batch: BatchAxis::of([queries, keys, values, result], 2),
            tiles: RowTiles::new(simd, rows),
            keys: Panels::new(simd, depth, count),
            values: Panels::new(simd, count, width),
            scale: kernel.scale,
            strides: [query_strides, last(keys).1, value_strides],
            strips,
            result_row: last(result).1[0],
            score: None,
            guard_empty_rows: kernel.guard_empty_rows,
        }
    }

    /// Number of repetitions.
    pub fn batches(&self) -> usize {
        self.batch.iter().map(|axis| axis.extent).product()
    }

    /// Elements from one row of scores to the next: whole vectors, and never a multiple of the distance at which rows
    /// compete for cache sets.
    pub fn score_pitch(&self) -> usize {
        self.keys.columns.next_multiple_of(16) + 16
    }

    /// Where the parts of the working memory begin, in bytes: packed keys, packed values, scores, strip of queries, working
    /// memory of the score map; last, the end. `None` if that exceeds the address space.
    pub fn scratch(&self, simd: Simd) -> Option<[usize; 6]> {
        let parts = [
            self.keys.elements()?,
            self.values.elements()?,
            self.score_pitch().checked_mul(simd.tile_rows())?,
            self.strips.map_or(0, |strips| strips.strip()),
        ];
        let mut starts = [0usize; 6];
        for (index, elements) in parts.into_iter().enumerate() {
            let bytes = elements.checked_mul(4)?.checked_next_multiple_of(ALIGNMENT)?;
            starts[index + 1] = starts[index].checked_add(bytes)?;
        }
        starts[5] = starts[4].checked_add(self.score.as_ref().map_or(0, Code::scratch_bytes))?;
        Some(starts)
    }
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

    /// Lowers an attention.
    pub(super) fn attention(&mut self, kernel: &Attention, step: &Step) -> Result<(Op, Vec<Operand>, Vec<Operand>)> {
        let simd = self.traits.simd;
        let mut inputs = self.operands(&step.inputs[..3])?;
        let result = self.operand(&step.outputs[0])?;
        let mut attention = FusedAttention::new(simd, kernel, &inputs, &result);
        if let Some(map) = &kernel.score {
            let (map, mut operands) = self.epilogue(map, &step.inputs[3..])?;
            attention.score = Some(compile_epilogue(&map, &operands));
            inputs.append(&mut operands);
        }
        let scratch = attention.scratch(simd).ok_or_else(|| fail!(TooLarge, "an attention is too large"))?;
        self.scratch = self.scratch.max(scratch[5]);
        Ok((Op::Attention(attention), inputs, vec![result]))
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
