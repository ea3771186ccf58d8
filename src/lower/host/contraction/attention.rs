//! Attention: geometry, operands' strides and working memory.

use super::BatchAxis;
use crate::kernels::Attention;
use crate::lower::arena::ALIGNMENT;
use crate::lower::host::{Code, Operand, Panels, RowTiles, Simd, Strips};

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
    pub(super) fn new(simd: Simd, kernel: &Attention, inputs: &[Operand], result: &Operand) -> Self {
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
