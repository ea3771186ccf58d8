//! Elementwise launches: the loop nest around the block executor.

mod copy;
mod exec;
mod fetch;
mod row;
#[cfg(test)]
mod tests;

pub use row::RowMap;

use super::cursor::Cursor;
use super::kernel::{Share, Span, Task};
use crate::lower::host::{Access, BLOCK, Code, Elementwise, Simd};
use exec::Frame;
use std::ops::Range;

/// Elements that a part's range is a multiple of, so that no two parts write the same cache line of a dense result.
const GRAIN: usize = 64;

/// A task that evaluates a map; operands and result have the same (simplified) axes.
pub fn prepare(map: &Elementwise, inputs: &[Span], output: &Span, simd: Simd) -> Task {
    if map.code.is_copy() {
        let source = &inputs[map.code.loads[0].operand];
        return copy::prepare(source, output);
    }
    let nest = Nest::new(map, inputs, output, simd);
    Box::new(move |share: &Share| {
        let range = share.range(nest.count, GRAIN);
        // SAFETY: whoever bound the launch promised that its operands are readable and its result is writable.
        unsafe { nest.run(range, share.scratch) }
    })
}

/// A map over its operands.
struct Nest {
    code: Code,
    simd: Simd,
    flat: bool,
    inputs: Vec<Span>,
    output: Span,
    count: usize,
    /// Whether the last instruction may write the result where it belongs.
    direct: bool,
}

impl Nest {
    fn new(map: &Elementwise, inputs: &[Span], output: &Span, simd: Simd) -> Self {
        let code = map.code.clone();
        let computed = code.instrs.last().is_some_and(|last| last.register == code.result && !last.is_uniform());
        let direct = computed
            && code.class == code.output
            && Access::of(&output.shape, &output.strides, map.flat) == Access::Unit;
        let (inputs, output) = (inputs.to_vec(), output.clone());
        Nest { count: output.count(), flat: map.flat, code, simd, inputs, output, direct }
    }

    /// # Safety
    /// The operands' elements in `range` are readable, the result's writable; the scratch is as large as the code says.
    unsafe fn run(&self, range: Range<usize>, scratch: *mut u8) {
        // SAFETY: the caller's promise.
        let frame = unsafe { Frame::new(&self.code, scratch) };
        let mut cursor = Cursor::new(&self.output.shape, range.start);
        let mut left = range.len();
        while left > 0 {
            let n = left.min(BLOCK).min(if self.flat { BLOCK } else { cursor.row_left() });
            // SAFETY: the block lies in the range.
            unsafe { self.block(&cursor, &frame, n) };
            if self.flat {
                let mut rest = n;
                while rest > 0 {
                    let run = rest.min(cursor.row_left());
                    cursor.advance(run);
                    rest -= run;
                }
            } else {
                cursor.advance(n);
            }
            left -= n;
        }
    }

    /// # Safety
    /// As [`Nest::run`], for `n` elements from the cursor on.
    unsafe fn block(&self, cursor: &Cursor, frame: &Frame, n: usize) {
        // SAFETY: operands and result hold the block's elements; registers are the program's.
        unsafe {
            for load in &self.code.loads {
                let span = &self.inputs[load.operand];
                let first = span.element(cursor.offset(&span.strides));
                let room = frame.room(load.register, load.slot);
                let values = match load.access {
                    Access::Uniform => fetch::widen(span.dtype, first, room, 1),
                    Access::Unit if load.slot.is_none() => first,
                    Access::Unit => fetch::widen(span.dtype, first, room, n),
                    Access::Scattered if self.flat => fetch::gather_rows(span, cursor, room, n),
                    Access::Scattered => fetch::gather(span.dtype, first, span.inner_stride(), room, n),
                };
                frame.set(load.register, values);
            }
            let to = self.output.element(cursor.offset(&self.output.strides));
            exec::execute(self.simd, &self.code, frame, n, self.direct.then_some(to));
            if !self.direct {
                let values = frame.value(self.code.result);
                fetch::store(&self.code, values, &self.output, cursor, self.flat, n);
            }
        }
    }
}
