//! Maps applied to segments of a matrix row: the epilogues of matrix products and convolutions.

use super::exec::{self, Frame};
use super::fetch;
use crate::device::host::cursor::Cursor;
use crate::device::host::kernel::Span;
use crate::lower::host::{Access, BLOCK, Code, Simd};

/// A compiled map whose operand 0 is an accumulator row and whose further operands have the result's shape.
pub struct RowMap {
    code: Code,
    simd: Simd,
    operands: Vec<Span>,
    /// The result's extents but the last.
    outer: Vec<usize>,
}

impl RowMap {
    /// `code` was compiled for operand 0 in unit access and operand `i` as `operands[i - 1]` lies along its last axis; its
    /// result has 4 bytes an element. `shape` is the result's.
    pub fn new(code: &Code, operands: &[Span], shape: &[usize], simd: Simd) -> Self {
        let outer = shape[..shape.len().saturating_sub(1)].to_vec();
        RowMap { code: code.clone(), simd, operands: operands.to_vec(), outer }
    }

    /// Bytes of scratch memory that [`RowMap::run`] needs, aligned to 64 bytes.
    pub fn scratch_bytes(&self) -> usize {
        self.code.scratch_bytes()
    }

    /// Maps the accumulators at `from` to the result's elements `[row, column..column + count]`, written to `to`. `row`
    /// counts the result's rows over all its leading axes.
    ///
    /// # Safety
    /// `from` and `to` are `count` elements of 4 bytes, equal or disjoint; the operands are readable; the machine has the
    /// instructions of the `simd` given to `new`.
    pub unsafe fn run(&self, row: usize, column: usize, from: *const u8, to: *mut u8, count: usize, scratch: *mut u8) {
        // SAFETY: the caller's promise.
        let frame = unsafe { Frame::new(&self.code, scratch) };
        let cursor = Cursor::new(&self.outer, row);
        let last = self.code.instrs.last();
        let computed = last.is_some_and(|last| last.register == self.code.result && !last.is_uniform());
        let direct = computed && !std::ptr::eq(from, to) && self.code.class == self.code.output;
        for start in (0..count).step_by(BLOCK) {
            let n = BLOCK.min(count - start);
            // SAFETY: the block lies in the segment.
            unsafe {
                for load in &self.code.loads {
                    let values = if load.operand == 0 {
                        from.add(start * 4).cast_mut()
                    } else {
                        self.load(load, &cursor, column + start, &frame, n)
                    };
                    frame.set(load.register, values);
                }
                let to = to.add(start * 4);
                exec::execute(self.simd, &self.code, &frame, n, direct.then_some(to));
                let values = frame.value(self.code.result);
                if !direct && !std::ptr::eq(values, to) {
                    fetch::store_run(&self.code, values, isize::from(!self.code.uniform), to, 1, n);
                }
            }
        }
    }

    /// # Safety
    /// The operand is readable; the frame is this code's.
    unsafe fn load(
        &self,
        load: &crate::lower::host::Load,
        cursor: &Cursor,
        column: usize,
        frame: &Frame,
        n: usize,
    ) -> *mut u8 {
        let span = &self.operands[load.operand - 1];
        let (stride, outer) = span.strides.split_last().map_or((0, &[][..]), |(&stride, outer)| (stride, outer));
        let first = span.element(cursor.offset(outer) + column as isize * stride);
        // SAFETY: all of it is the caller's promise.
        unsafe {
            let room = frame.room(load.register, load.slot);
            match load.access {
                Access::Uniform => fetch::widen(span.dtype, first, room, 1),
                Access::Unit if load.slot.is_none() => first,
                Access::Unit => fetch::widen(span.dtype, first, room, n),
                Access::Scattered => fetch::gather(span.dtype, first, stride, room, n),
            }
        }
    }
}
