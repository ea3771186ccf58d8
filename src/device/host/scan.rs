//! Running sums along an axis of a dense tensor.

use super::kernel::{Share, Span, Task};
use super::number::{Number, with_number};
use crate::kernels::CumSum;

/// A task for a dense operand and result.
pub fn prepare(kernel: &CumSum, input: &Span, output: &Span) -> Task {
    with_number!(input.dtype, T => lines::<T>(kernel, input, output))
}

fn lines<T: Number>(kernel: &CumSum, input: &Span, output: &Span) -> Task {
    let extent = input.shape[kernel.axis];
    let inner: usize = input.shape[kernel.axis + 1..].iter().product();
    let lines = input.shape[..kernel.axis].iter().product::<usize>() * inner;
    let (input, output, kernel) = (input.clone(), output.clone(), kernel.clone());
    Box::new(move |share: &Share| {
        for line in share.range(lines, 1) {
            let first = line / inner * extent * inner + line % inner;
            let mut sum = T::default();
            for step in 0..extent {
                let index = if kernel.reverse { extent - 1 - step } else { step };
                let at = first + index * inner;
                // SAFETY: `at` is below the element count of both dense tensors; no other part has this line.
                unsafe {
                    let next = sum.add(*input.pointer::<T>().add(at));
                    *output.pointer::<T>().add(at) = if kernel.exclusive { sum } else { next };
                    sum = next;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, check};
    use crate::ir::DType;
    use crate::kernels::CumSum;

    #[test]
    fn sums_run_along_any_axis_in_either_direction() {
        let mut random = Random::new(1);
        for axis in 0..3 {
            for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
                let kernel = CumSum { axis, exclusive, reverse };
                check(kernel.clone(), &[random.floats(&[3, 5, 4])], 1e-6);
                check(kernel, &[random.tensor(DType::I64, &[3, 5, 4], 1000)], 0.0);
            }
        }
    }
}
