//! Softmax along rows.

use super::cursor::Cursor;
use super::kernel::{Share, Span, Task};
use super::simd::{Routine, Vector, dispatch, math};
use crate::kernels::Softmax;
use crate::lower::host::Simd;

/// A task for a binary32 operand and result whose last axes are dense.
pub fn prepare(kernel: &Softmax, input: &Span, output: &Span, simd: Simd) -> Task {
    let (log, input, output) = (kernel.log, input.clone(), output.clone());
    let (length, outer) = output.shape.split_last().map_or((1, 1), |(&length, outer)| (length, outer.iter().product()));
    Box::new(move |share: &Share| {
        let rank = output.shape.len() - 1;
        let range = share.range(outer, 1);
        let mut cursor = Cursor::new(&output.shape[..rank], range.start);
        for _ in range {
            let from = input.element(cursor.offset(&input.strides[..rank])).cast::<f32>();
            let to = output.element(cursor.offset(&output.strides[..rank])).cast::<f32>();
            // SAFETY: both rows have `length` elements; the level of instructions was detected.
            unsafe { dispatch(simd, Row { from, to, length, log }) };
            cursor.advance(1);
        }
    })
}

/// One row, or two equal rows.
struct Row {
    from: *const f32,
    to: *mut f32,
    length: usize,
    log: bool,
}

impl Routine for Row {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Row { from, to, length, log } = self;
        let whole = length / V::LANES * V::LANES;
        // SAFETY: all positions are below the length, and the instructions of `V` are enabled.
        unsafe {
            let mut greatest = V::splat(f32::NEG_INFINITY);
            for at in (0..whole).step_by(V::LANES) {
                greatest = V::load(from.add(at)).max(greatest);
            }
            let mut max = greatest.greatest();
            for at in whole..length {
                max = max.max(*from.add(at));
            }
            let mut sums = V::splat(0.0);
            let shift = V::splat(max);
            for at in (0..whole).step_by(V::LANES) {
                let power = math::exp(V::load(from.add(at)) - shift);
                sums = sums + power;
                if !log {
                    power.store(to.add(at));
                }
            }
            let mut sum = sums.sum();
            if whole < length {
                let mut tail = [0f32; 64];
                let power = math::exp(V::load_partial(from.add(whole), length - whole) - shift);
                power.store(tail.as_mut_ptr());
                sum += tail[..length - whole].iter().sum::<f32>();
                if !log {
                    power.store_partial(to.add(whole), length - whole);
                }
            }
            if log {
                let shift = max + sum.ln();
                (0..length).for_each(|at| *to.add(at) = *from.add(at) - shift);
            } else {
                let factor = 1.0 / sum;
                (0..length).for_each(|at| *to.add(at) *= factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::device::host::testing::{Random, check, check_views};
    use crate::ir::{DType, Tensor};
    use crate::kernels::Softmax;

    #[test]
    fn rows_of_any_length_agree_with_the_reference() {
        let mut random = Random::new(1);
        for length in [1, 2, 7, 16, 33, 128, 1000] {
            for log in [false, true] {
                check(Softmax { log }, &[random.floats(&[3, 5, length])], 1e-6);
            }
        }
        check(Softmax { log: false }, &[random.tensor(DType::F16, &[4, 19], 0)], 1e-3);
    }

    #[test]
    fn strided_rows_and_columns_are_found() {
        let x = Random::new(2).floats(&[6, 5, 20]);
        for order in [[1, 0, 2], [0, 2, 1], [2, 1, 0]] {
            check_views(Softmax { log: false }, std::slice::from_ref(&x), 1e-6, |_, view| view.permute(&order));
        }
    }

    #[test]
    fn large_and_infinite_elements_follow_the_reference() {
        let rows = [
            [1e30f32, -1e30, 0.0, 3.0],
            [f32::NEG_INFINITY, 0.0, 1.0, f32::NEG_INFINITY],
            [f32::NEG_INFINITY; 4],
            [f32::NAN, 0.0, 1.0, 2.0],
            [0.0, 1.0, 2.0, f32::NAN],
        ];
        for log in [false, true] {
            check(Softmax { log }, &[Tensor::from_slice(&[5, 4], rows.as_flattened())], 1e-6);
        }
    }
}
