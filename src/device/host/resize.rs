//! Separable resampling of a dense tensor: each result row is a weighted sum of operand rows, resampled along the last axis.

use super::kernel::{Share, Span, Task};
use super::number::with_number;
use crate::kernels::{AxisTaps, Resize};

/// What a row of the result is made of.
struct Plan {
    /// Taps of every axis but the last; `None` for an axis that does not change.
    outer: Vec<Option<AxisTaps>>,
    /// Flags of results outside the operand, same order.
    outer_outside: Vec<Option<Vec<bool>>>,
    last: Option<AxisTaps>,
    last_outside: Option<Vec<bool>>,
    outside: f32,
    in_shape: Vec<usize>,
    out_shape: Vec<usize>,
}

/// A task for a dense operand and result.
pub fn prepare(kernel: &Resize, input: &Span, output: &Span) -> Task {
    let plan = Plan::new(kernel, &input.shape, &output.shape);
    let rows = plan.out_shape[..plan.outer.len()].iter().product();
    let (input, output) = (input.clone(), output.clone());
    if kernel.axes.iter().all(AxisTaps::picks) {
        return with_number!(input.dtype, T => Box::new(move |share: &Share| {
            for row in share.range(rows, 1) {
                // SAFETY: taps lie inside the operand, and this part alone has the row.
                unsafe { plan.pick_row(row, input.pointer::<T>(), output.pointer::<T>(), plan.outside as T) }
            }
        }));
    }
    Box::new(move |share: &Share| {
        for row in share.range(rows, 1) {
            // SAFETY: as above.
            unsafe { plan.sum_row(row, input.pointer(), output.pointer()) }
        }
    })
}

impl Plan {
    fn new(kernel: &Resize, in_shape: &[usize], out_shape: &[usize]) -> Plan {
        let rank = in_shape.len();
        let position = |axis: usize| kernel.axes.iter().position(|taps| taps.axis == axis);
        let taps = |axis: usize| position(axis).map(|index| kernel.axes[index].clone());
        let flags = |axis: usize| {
            position(axis).and_then(|index| kernel.outside.as_ref().map(|(_, flags)| flags[index].clone()))
        };
        Plan {
            outer: (0..rank - 1).map(taps).collect(),
            outer_outside: (0..rank - 1).map(flags).collect(),
            last: taps(rank - 1),
            last_outside: flags(rank - 1),
            outside: kernel.outside.as_ref().map_or(0.0, |(value, _)| *value),
            in_shape: in_shape.to_vec(),
            out_shape: out_shape.to_vec(),
        }
    }

    fn width(&self) -> (usize, usize) {
        (self.in_shape[self.outer.len()], self.out_shape[self.outer.len()])
    }

    /// Whether a row lies outside the operand along one of the outer axes.
    fn row_outside(&self, row: usize) -> bool {
        let mut rest = row;
        self.outer_outside.iter().zip(&self.out_shape).rev().any(|(flags, &extent)| {
            let index = rest % extent;
            rest /= extent;
            flags.as_ref().is_some_and(|flags| flags[index])
        })
    }

    /// The operand row and weight of one combination of taps; combinations count through the outer axes' taps.
    fn tap(&self, row: usize, mut combination: usize) -> (usize, f32) {
        let (mut rest, mut source, mut scale, mut weight) = (row, 0, 1, 1.0);
        for axis in (0..self.outer.len()).rev() {
            let index = rest % self.out_shape[axis];
            rest /= self.out_shape[axis];
            source += scale
                * match &self.outer[axis] {
                    None => index,
                    Some(taps) => {
                        let at = index * taps.taps + combination % taps.taps;
                        combination /= taps.taps;
                        weight *= taps.weights[at];
                        taps.index[at] as usize
                    }
                };
            scale *= self.in_shape[axis];
        }
        (source, weight)
    }

    /// A row in which every result is one element of the operand.
    ///
    /// # Safety
    /// Both addresses are those of dense tensors of the plan's shapes; the row is this caller's alone.
    unsafe fn pick_row<T: Copy>(&self, row: usize, input: *const T, output: *mut T, outside: T) {
        let (from, to) = self.width();
        let source = self.tap(row, 0).0 * from;
        let all_outside = self.row_outside(row);
        if let (Some(taps), None, false) = (&self.last, &self.last_outside, all_outside) {
            // SAFETY: the row lies inside the result and belongs to this caller; indices are inside the operand's row.
            unsafe {
                let row = std::slice::from_raw_parts_mut(output.add(row * to), to);
                row.iter_mut().zip(&taps.index).for_each(|(to, &index)| *to = *input.add(source + index as usize));
            }
            return;
        }
        for column in 0..to {
            let outer = all_outside || self.last_outside.as_ref().is_some_and(|flags| flags[column]);
            let index = self.last.as_ref().map_or(column, |taps| taps.index[column] as usize);
            // SAFETY: `index` is inside the operand's row, `column` inside the result's.
            unsafe { *output.add(row * to + column) = if outer { outside } else { *input.add(source + index) } };
        }
    }

    /// A row of weighted sums.
    ///
    /// # Safety
    /// As for [`Plan::pick_row`].
    unsafe fn sum_row(&self, row: usize, input: *const f32, output: *mut f32) {
        let (from, to) = self.width();
        // SAFETY: the row lies inside the result and belongs to this caller.
        let sums = unsafe { std::slice::from_raw_parts_mut(output.add(row * to), to) };
        if self.row_outside(row) {
            sums.fill(self.outside);
            return;
        }
        sums.fill(0.0);
        let combinations: usize = self.outer.iter().flatten().map(|taps| taps.taps).product();
        for combination in 0..combinations {
            let (source, weight) = self.tap(row, combination);
            // SAFETY: taps name rows inside the operand.
            let source = unsafe { std::slice::from_raw_parts(input.add(source * from), from) };
            match &self.last {
                None => sums.iter_mut().zip(source).for_each(|(sum, &x)| *sum += weight * x),
                Some(taps) => {
                    let outputs = taps.index.chunks_exact(taps.taps).zip(taps.weights.chunks_exact(taps.taps));
                    for (sum, (index, weights)) in sums.iter_mut().zip(outputs) {
                        let row: f32 = index.iter().zip(weights).map(|(&index, &w)| w * source[index as usize]).sum();
                        *sum += weight * row;
                    }
                }
            }
        }
        if let Some(flags) = &self.last_outside {
            sums.iter_mut().zip(flags).filter(|(_, outside)| **outside).for_each(|(sum, _)| *sum = self.outside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, check};
    use crate::ir::DType;
    use crate::kernels::{AxisTaps, Resize};

    /// Random taps of random weights, or picked elements.
    fn taps(random: &mut Random, axis: usize, extent: usize, out: usize, taps: usize) -> AxisTaps {
        let index = (0..out * taps).map(|_| random.below(extent) as u32).collect();
        let weights =
            (0..out * taps).map(|_| if taps == 1 { 1.0 } else { random.below(100) as f32 / 50.0 - 0.5 }).collect();
        AxisTaps { axis, out, taps, index, weights }
    }

    #[test]
    fn rows_and_columns_are_weighted_sums() {
        let mut random = Random::new(4);
        for count in [2, 4] {
            let axes = vec![taps(&mut random, 2, 5, 8, count), taps(&mut random, 3, 6, 3, count)];
            check(Resize { axes, outside: None }, &[random.floats(&[2, 3, 5, 6])], 1e-5);
            let axes = vec![taps(&mut random, 1, 3, 4, count)];
            check(Resize { axes, outside: None }, &[random.floats(&[2, 3, 5, 6])], 1e-5);
        }
    }

    #[test]
    fn picked_elements_keep_any_type() {
        let mut random = Random::new(5);
        for dtype in [DType::F32, DType::I64, DType::U8, DType::I32] {
            let axes = vec![taps(&mut random, 1, 5, 10, 1), taps(&mut random, 2, 6, 4, 1)];
            check(Resize { axes, outside: None }, &[random.tensor(dtype, &[2, 5, 6], 50)], 0.0);
        }
    }

    #[test]
    fn results_outside_the_operand_get_the_value() {
        let mut random = Random::new(6);
        let flags = vec![vec![false, true, false], vec![true, false, false, false]];
        for count in [1, 2] {
            let axes = vec![taps(&mut random, 0, 5, 3, count), taps(&mut random, 1, 6, 4, count)];
            check(Resize { axes, outside: Some((7.5, flags.clone())) }, &[random.floats(&[5, 6])], 1e-5);
        }
    }
}
