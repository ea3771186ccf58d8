//! The k best elements along an axis of a dense tensor.

use super::kernel::{Share, Span, Task};
use super::number::{Number, with_number};
use crate::kernels::TopK;
use std::cmp::Ordering;

/// A task for dense operands and results. Needs `4 * extent` bytes of scratch per worker.
pub fn prepare(kernel: &TopK, input: &Span, values: &Span, indices: &Span) -> Task {
    with_number!(input.dtype, T => lines::<T>(kernel, input, values, indices))
}

fn lines<T: Number>(kernel: &TopK, input: &Span, values: &Span, indices: &Span) -> Task {
    let (extent, k, largest) = (input.shape[kernel.axis], kernel.k, kernel.largest);
    let inner: usize = input.shape[kernel.axis + 1..].iter().product();
    let lines = input.shape[..kernel.axis].iter().product::<usize>() * inner;
    let (input, values, indices) = (input.clone(), values.clone(), indices.clone());
    Box::new(move |share: &Share| {
        if k == 0 {
            return;
        }
        // SAFETY: the lowering gave each worker `4 * extent` bytes of aligned scratch.
        let order = unsafe { std::slice::from_raw_parts_mut(share.scratch.cast::<u32>(), extent) };
        for line in share.range(lines, 1) {
            let (block, column) = (line / inner, line % inner);
            // SAFETY: the position is below the element count of the dense operand for every index below the extent.
            let at =
                |index: u32| unsafe { *input.pointer::<T>().add((block * extent + index as usize) * inner + column) };
            let better = |&a: &u32, &b: &u32| {
                let (x, y) = if largest { (at(b), at(a)) } else { (at(a), at(b)) };
                compare(x, y).then(a.cmp(&b))
            };
            order.iter_mut().zip(0..).for_each(|(slot, index)| *slot = index);
            if k < extent {
                order.select_nth_unstable_by(k - 1, better);
            }
            order[..k].sort_unstable_by(better);
            for (rank, &index) in order[..k].iter().enumerate() {
                let position = (block * k + rank) * inner + column;
                // SAFETY: the position is below the element count of both dense results; no other part has this line.
                unsafe {
                    *values.pointer::<T>().add(position) = at(index);
                    *indices.pointer::<i64>().add(position) = i64::from(index);
                }
            }
        }
    })
}

/// Numbers in their order, NaN above all of them.
fn compare<T: Number>(a: T, b: T) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, check};
    use crate::ir::{DType, Tensor};
    use crate::kernels::TopK;

    #[test]
    fn the_best_come_first_and_equals_keep_their_order() {
        let mut random = Random::new(2);
        for (axis, k, largest) in [(0, 1, true), (1, 3, false), (2, 7, true), (1, 0, true)] {
            let kernel = TopK { axis, k, largest };
            check(kernel.clone(), &[random.floats(&[4, 5, 7])], 0.0);
            // Few different values, so that many are equal.
            check(kernel, &[random.tensor(DType::I32, &[4, 5, 7], 2)], 0.0);
        }
    }

    #[test]
    fn nan_is_above_all_numbers() {
        let x = Tensor::from_slice(&[4], &[1.0f32, f32::NAN, f32::INFINITY, -3.0]);
        check(TopK { axis: 0, k: 3, largest: true }, std::slice::from_ref(&x), 0.0);
        check(TopK { axis: 0, k: 3, largest: false }, &[x], 0.0);
    }
}
