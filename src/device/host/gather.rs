//! Indexed reads. An index out of range is clamped into it, so that no memory outside the operand is ever read.

use super::cursor::Cursor;
use super::kernel::{Share, Span, Task};
use crate::ir::DType;
use crate::kernels::{Gather, GatherElements, GatherNd};
use crate::limits::RANK_MAX;

/// Evaluates an expression with `$t` standing for an unsigned type as wide as an element.
macro_rules! with_width {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype.bytes() {
            1 => {
                type $t = u8;
                $body
            }
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            _ => {
                type $t = u64;
                $body
            }
        }
    };
}

/// The index at an element of `indices`, counted from the end if negative, clamped into `0..extent`.
///
/// # Safety
/// The element is readable; the extent is not 0.
unsafe fn index_at(indices: &Span, offset: isize, extent: usize) -> usize {
    let element = indices.element(offset);
    // SAFETY: the caller's promise; indices are of one of these types.
    let index = unsafe {
        match indices.dtype {
            DType::I32 => i64::from(*element.cast::<i32>()),
            _ => *element.cast::<i64>(),
        }
    };
    let counted = if index < 0 { index.saturating_add(extent as i64) } else { index };
    counted.clamp(0, extent as i64 - 1) as usize
}

/// A task for operands and result in any views.
pub fn prepare(kernel: &Gather, data: &Span, indices: &Span, output: &Span) -> Task {
    with_width!(data.dtype, T => rows::<T>(kernel.axis, data, indices, output))
}

fn rows<T: Copy + Default + 'static>(axis: usize, data: &Span, indices: &Span, output: &Span) -> Task {
    let indexed = axis + indices.shape.len();
    let (data, indices, output) = (data.clone(), indices.clone(), output.clone());
    let extent = data.shape[axis];
    // The axes behind the index, as a copy of its own.
    let row = Row {
        shape: output.shape[indexed..].to_vec(),
        from: data.strides[axis + 1..].to_vec(),
        to: output.strides[indexed..].to_vec(),
    };
    let count: usize = output.shape[..indexed].iter().product();
    Box::new(move |share: &Share| {
        let range = share.range(count, 1);
        let mut cursor = Cursor::new(&output.shape[..indexed], range.start);
        for _ in range {
            let to = output.element(cursor.offset(&output.strides[..indexed])).cast::<T>();
            let place = dot(&cursor.index[axis..indexed], &indices.strides);
            // SAFETY: the cursor stands on an element of the indices; the index is inside the axis if that has elements.
            unsafe {
                if extent == 0 {
                    row.fill(to);
                } else {
                    let index = index_at(&indices, place, extent) as isize;
                    let from = data.element(dot(&cursor.index[..axis], &data.strides) + index * data.strides[axis]);
                    row.copy(from.cast::<T>(), to);
                }
            }
            cursor.advance(1);
        }
    })
}

fn dot(index: &[usize], strides: &[isize]) -> isize {
    index.iter().zip(strides).map(|(&index, &stride)| index as isize * stride).sum()
}

/// A block of elements copied together.
struct Row {
    shape: Vec<usize>,
    from: Vec<isize>,
    to: Vec<isize>,
}

impl Row {
    /// # Safety
    /// The block is readable at `from` and writable at `to`.
    unsafe fn copy<T: Copy>(&self, from: *const T, to: *mut T) {
        let (from_step, to_step) = (self.from.last().copied().unwrap_or(1), self.to.last().copied().unwrap_or(1));
        self.each_run(|inner, run| {
            // SAFETY: the run lies in the block.
            unsafe {
                let (from, to) = (from.offset(inner.offset(&self.from)), to.offset(inner.offset(&self.to)));
                if (from_step, to_step) == (1, 1) {
                    std::ptr::copy_nonoverlapping(from, to, run);
                } else {
                    (0..run as isize).for_each(|at| *to.offset(at * to_step) = *from.offset(at * from_step));
                }
            }
        });
    }

    /// What is read from an axis without elements.
    ///
    /// # Safety
    /// The block is writable.
    unsafe fn fill<T: Copy + Default>(&self, to: *mut T) {
        let step = self.to.last().copied().unwrap_or(1);
        self.each_run(|inner, run| {
            let to = to.wrapping_offset(inner.offset(&self.to));
            // SAFETY: the run lies in the block.
            unsafe { (0..run as isize).for_each(|at| *to.offset(at * step) = T::default()) };
        });
    }

    fn each_run(&self, mut visit: impl FnMut(&Cursor, usize)) {
        let run = self.shape.last().copied().unwrap_or(1);
        let mut inner = Cursor { extents: &self.shape, index: [0; RANK_MAX] };
        for _ in 0..self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product()) {
            visit(&inner, run);
            inner.advance(run);
        }
    }
}

/// A task for operands and result in any views.
pub fn prepare_elements(kernel: &GatherElements, data: &Span, indices: &Span, output: &Span) -> Task {
    with_width!(data.dtype, T => elements::<T>(kernel.axis, data, indices, output))
}

fn elements<T: Copy + Default + 'static>(axis: usize, data: &Span, indices: &Span, output: &Span) -> Task {
    let (data, indices, output) = (data.clone(), indices.clone(), output.clone());
    let extent = data.shape[axis];
    let mut beside = data.strides.clone();
    beside[axis] = 0;
    Box::new(move |share: &Share| {
        let range = share.range(output.count(), 16);
        let mut cursor = Cursor::new(&output.shape, range.start);
        for _ in range {
            let to = output.element(cursor.offset(&output.strides)).cast::<T>();
            // SAFETY: the cursor stands on an element of indices and result; beside the axis it is inside the data.
            unsafe {
                *to = if extent == 0 {
                    T::default()
                } else {
                    let index = index_at(&indices, cursor.offset(&indices.strides), extent) as isize;
                    *data.element(cursor.offset(&beside) + index * data.strides[axis]).cast::<T>()
                };
            }
            cursor.advance(1);
        }
    })
}

/// A task for dense operands and result.
pub fn prepare_nd(kernel: &GatherNd, data: &Span, indices: &Span, output: &Span) -> Task {
    with_width!(data.dtype, T => blocks::<T>(kernel.batch_dims, data, indices, output))
}

fn blocks<T: Copy + Default + 'static>(batch_dims: usize, data: &Span, indices: &Span, output: &Span) -> Task {
    let depth = indices.shape.last().copied().unwrap_or(0);
    let addressed = data.shape[batch_dims..batch_dims + depth].to_vec();
    let block: usize = data.shape[batch_dims + depth..].iter().product();
    let batches: usize = data.shape[..batch_dims].iter().product();
    let blocks_per_batch: usize = addressed.iter().product();
    let tuples = output.count() / block.max(1);
    let (data, indices, output) = (data.clone(), indices.clone(), output.clone());
    Box::new(move |share: &Share| {
        for tuple in share.range(tuples, 1) {
            let to = output.pointer::<T>().wrapping_add(tuple * block);
            if blocks_per_batch == 0 {
                // SAFETY: the block lies in the dense result.
                unsafe { std::slice::from_raw_parts_mut(to, block).fill(T::default()) };
                continue;
            }
            let mut position = tuple / (tuples / batches);
            for (axis, &extent) in addressed.iter().enumerate() {
                // SAFETY: the tuple lies in the dense indices, and the extent is not 0.
                position = position * extent + unsafe { index_at(&indices, (tuple * depth + axis) as isize, extent) };
            }
            // SAFETY: every index is inside its axis, so the block lies in the dense data.
            unsafe { std::ptr::copy_nonoverlapping(data.pointer::<T>().add(position * block), to, block) };
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::device::host::testing::{Random, check, check_views, plan_of, run};
    use crate::device::host::traits;
    use crate::ir::{DType, Tensor};
    use crate::kernels::{Gather, GatherElements, GatherNd};
    use crate::lower::host::lower;

    #[test]
    fn rows_of_every_width_along_any_axis() {
        let mut random = Random::new(1);
        for dtype in [DType::F32, DType::F16, DType::I64, DType::U8, DType::Bool] {
            let data = random.tensor(dtype, &[5, 6, 7], 9);
            for (axis, index) in (0..3).flat_map(|axis| [DType::I32, DType::I64].map(|index| (axis, index))) {
                let indices = random.tensor(index, &[3, 2], 4);
                check(Gather { axis }, &[data.clone(), indices.clone()], 0.0);
                check_views(Gather { axis }, &[data.clone(), indices], 0.0, |index, view| match index {
                    0 => view.permute(&[2, 1, 0]).slice(1, 5, 6, -1).broadcast(&[7, 6, 5]).unwrap(),
                    _ => view.swap(0, 1),
                });
            }
            let single = Tensor::from_slice(&[], &[-1i64]);
            check(Gather { axis: 1 }, &[data, single], 0.0);
        }
    }

    #[test]
    fn elements_and_tuples() {
        let mut random = Random::new(2);
        let data = random.floats(&[5, 6, 7]);
        for axis in 0..3 {
            let indices = random.tensor(DType::I64, &[4, 5, 5], 4);
            check(GatherElements { axis }, &[data.clone(), indices.clone()], 0.0);
        }
        for (batch_dims, shape) in [(0, vec![4, 2]), (0, vec![2, 2, 3]), (1, vec![5, 3, 2]), (2, vec![5, 6, 1])] {
            let indices = random.tensor(DType::I64, &shape, 4);
            check(GatherNd { batch_dims }, &[data.clone(), indices], 0.0);
        }
    }

    #[test]
    fn indices_out_of_range_are_clamped() {
        let data = Tensor::from_slice(&[3], &[10i32, 11, 12]);
        let indices = Tensor::from_slice(&[6, 1], &[i64::MAX, i64::MIN, 3, -4, 1, -1]);
        let flat = indices.reshaped(vec![6]).unwrap();
        let plans = [
            plan_of(Gather { axis: 0 }, &[data.clone(), flat.clone()], |_, view| view),
            plan_of(GatherElements { axis: 0 }, &[data.clone(), flat.clone()], |_, view| view),
            plan_of(GatherNd { batch_dims: 0 }, &[data.clone(), indices.clone()], |_, view| view),
        ];
        for (plan, indices) in plans.iter().zip([&flat, &flat, &indices]) {
            let program = lower(plan, &traits()).unwrap();
            let result = run(program, &[data.clone(), indices.clone()], 1).swap_remove(0);
            assert_eq!(result.to_vec::<i32>().unwrap(), [12, 10, 12, 10, 11, 12]);
        }
    }

    #[test]
    fn an_axis_without_elements_reads_zeros() {
        let data = Tensor::from_slice::<f32>(&[0, 2], &[]);
        let plan = plan_of(Gather { axis: 0 }, &[data.clone(), Tensor::from_slice(&[2], &[0i64, 5])], |_, view| view);
        let program = lower(&plan, &traits()).unwrap();
        let result = run(program, &[data, Tensor::from_slice(&[2], &[0i64, 5])], 1).swap_remove(0);
        assert_eq!(result.to_vec::<f32>().unwrap(), [0.0; 4]);
    }
}
