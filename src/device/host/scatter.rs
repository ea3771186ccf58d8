//! Indexed writes into a copy of a dense tensor.

use super::kernel::{Share, Span, Task};
use super::number::{Number, with_number};
use crate::ir::DType;
use crate::kernels::{ScatterNd, ScatterOp};

/// A task for dense operands and result, to be run by one worker: updates apply in row-major order.
pub fn prepare(kernel: &ScatterNd, data: &Span, indices: &Span, updates: &Span, output: &Span) -> Task {
    if kernel.op == ScatterOp::Set {
        // Moving bits does not ask what they mean, so 16-bit floats need no conversion.
        return match data.dtype.bytes() {
            1 => blocks::<u8>(data, indices, updates, output, |_, update| update),
            2 => blocks::<u16>(data, indices, updates, output, |_, update| update),
            4 => blocks::<u32>(data, indices, updates, output, |_, update| update),
            _ => blocks::<u64>(data, indices, updates, output, |_, update| update),
        };
    }
    with_number!(data.dtype, T => {
        let combine: fn(T, T) -> T = match kernel.op {
            ScatterOp::Add => Number::add,
            ScatterOp::Mul => Number::mul,
            ScatterOp::Max => Number::max,
            _ => Number::min,
        };
        blocks::<T>(data, indices, updates, output, combine)
    })
}

fn blocks<T: Copy + 'static>(
    data: &Span,
    indices: &Span,
    updates: &Span,
    output: &Span,
    combine: fn(T, T) -> T,
) -> Task {
    let depth = indices.shape.last().copied().unwrap_or(0);
    let addressed = data.shape[..depth].to_vec();
    let block: usize = data.shape[depth..].iter().product();
    let (count, rows) = (data.count(), updates.count() / block.max(1));
    let (data, indices, updates, output) = (data.clone(), indices.clone(), updates.clone(), output.clone());
    Box::new(move |share: &Share| {
        if share.part != 0 {
            return;
        }
        let target = output.pointer::<T>();
        // SAFETY: operand and result are dense, of `count` elements each, in different memory.
        unsafe { std::ptr::copy_nonoverlapping(data.pointer::<T>(), target, count) };
        for row in 0..rows {
            let Some(position) = address(&indices, row * depth, &addressed) else { continue };
            for element in 0..block {
                // SAFETY: `position` lies inside the addressed axes and `row` inside the updates.
                unsafe {
                    let slot = target.add(position * block + element);
                    *slot = combine(*slot, *updates.pointer::<T>().add(row * block + element));
                }
            }
        }
    })
}

/// The row-major position that the tuple at `first` names, if it lies inside.
fn address(indices: &Span, first: usize, addressed: &[usize]) -> Option<usize> {
    addressed.iter().enumerate().try_fold(0usize, |position, (axis, &extent)| {
        // SAFETY: the tuple lies inside the dense indices.
        let index = unsafe {
            match indices.dtype {
                DType::I32 => i64::from(*indices.pointer::<i32>().add(first + axis)),
                _ => *indices.pointer::<i64>().add(first + axis),
            }
        };
        let index = if index < 0 { index.checked_add(extent as i64)? } else { index };
        (0..extent as i64).contains(&index).then(|| position * extent + index as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, check, plan_of, run};
    use crate::ir::{DType, Tensor};
    use crate::kernels::{ScatterNd, ScatterOp};
    use crate::lower::host::lower;

    #[test]
    fn updates_apply_in_order() {
        let mut random = Random::new(3);
        let indices = Tensor::from_slice(&[4, 2], &[0i64, 1, -1, 2, 0, 1, 2, 0]);
        for op in [ScatterOp::Set, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Max, ScatterOp::Min] {
            for dtype in [DType::F32, DType::I64, DType::U8, DType::F16] {
                let (data, updates) = (random.tensor(dtype, &[3, 4, 5], 9), random.tensor(dtype, &[4, 5], 9));
                check(ScatterNd { op }, &[data, indices.clone(), updates], 1e-6);
            }
        }
    }

    #[test]
    fn an_index_outside_writes_nothing() {
        let data = Tensor::from_slice(&[3], &[1.0f32, 2.0, 3.0]);
        for far in [3, -4, i64::MIN, i64::MAX] {
            let inputs = [data.clone(), Tensor::from_slice(&[1, 1], &[far]), Tensor::from_slice(&[1], &[9.0f32])];
            let plan = plan_of(ScatterNd { op: ScatterOp::Set }, &inputs, |_, view| view);
            let program = lower(&plan, &super::super::traits()).unwrap();
            assert_eq!(run(program, &inputs, 1), std::slice::from_ref(&data));
        }
    }
}
