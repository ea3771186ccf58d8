//! Windowed pooling of a dense tensor, a row of results at a time: every tap of the window adds one operand row, shifted,
//! to the row of results.

use super::kernel::{Share, Span, Task};
use super::number::{Number, with_number};
use crate::kernels::{Pool, PoolKind, Window};
use crate::limits::RANK_MAX;

/// A task for a dense operand and dense results.
pub fn prepare(kernel: &Pool, input: &Span, outputs: &[Span]) -> Task {
    let geometry = Geometry::new(kernel, &input.shape);
    let (source, target) = (input.clone(), outputs[0].clone());
    if let Some(column_major) = kernel.indices {
        let indices = outputs[1].clone();
        return with_number!(input.dtype, T => Box::new(move |share: &Share| {
            for row in share.range(geometry.rows, 1) {
                // SAFETY: operand and results have the geometry's shapes; this part alone has the row.
                unsafe { geometry.positions::<T>(row, source.pointer(), target.pointer(), indices.pointer(), column_major) }
            }
        }));
    }
    match kernel.kind {
        PoolKind::Max => with_number!(input.dtype, T => Box::new(move |share: &Share| {
            for row in share.range(geometry.rows, 1) {
                // SAFETY: as above.
                unsafe { geometry.fold::<T>(row, source.pointer(), target.pointer(), T::LEAST, |best, x| Number::max(x, best)) };
            }
        })),
        PoolKind::Average | PoolKind::AverageIncludingPads => Box::new(move |share: &Share| {
            for row in share.range(geometry.rows, 1) {
                // SAFETY: as above.
                unsafe {
                    geometry.fold::<f32>(row, source.pointer(), target.pointer(), 0.0, |sum, x| sum + x);
                    geometry.divide(row, target.pointer());
                }
            }
        }),
    }
}

/// Where windows lie, worked out beforehand.
struct Geometry {
    window: Window,
    spatial: Vec<usize>,
    out: Vec<usize>,
    /// Per spatial axis and output position, the taps `first..end` that lie inside the operand.
    inside: Vec<Vec<(usize, usize)>>,
    /// Per spatial axis and output position, what a mean is divided by along that axis.
    divisors: Vec<Vec<f32>>,
    /// Rows of results: planes times all spatial extents but the last.
    rows: usize,
}

impl Geometry {
    fn new(kernel: &Pool, shape: &[usize]) -> Geometry {
        let (window, spatial, out) = (kernel.window.clone(), shape[2..].to_vec(), kernel.out.clone());
        let inside: Vec<Vec<(usize, usize)>> = (0..spatial.len())
            .map(|axis| (0..out[axis]).map(|at| taps_inside(&window, axis, spatial[axis], at)).collect())
            .collect();
        let divisor = |axis: usize, at: usize| {
            let (first, end) = inside[axis][at];
            if kernel.kind != PoolKind::AverageIncludingPads {
                return (end - first).max(1) as f32;
            }
            let padded = spatial[axis] + window.pads_begin[axis] + window.pads_end[axis];
            let left = padded - at * window.strides[axis];
            left.div_ceil(window.dilations[axis]).min(window.kernel[axis]) as f32
        };
        let divisors = (0..spatial.len()).map(|axis| (0..out[axis]).map(|at| divisor(axis, at)).collect()).collect();
        let rows = shape[0] * shape[1] * out[..out.len() - 1].iter().product::<usize>();
        Geometry { window, spatial, out, inside, divisors, rows }
    }

    /// The plane of a row of results, and its position along every spatial axis but the last.
    fn locate(&self, row: usize) -> (usize, [usize; RANK_MAX]) {
        let (mut at, mut rest) = ([0; RANK_MAX], row);
        for axis in (0..self.out.len() - 1).rev() {
            at[axis] = rest % self.out[axis];
            rest /= self.out[axis];
        }
        (rest, at)
    }

    /// Operand position along an axis of a tap that lies inside.
    fn source(&self, axis: usize, at: usize, tap: usize) -> usize {
        at * self.window.strides[axis] + tap * self.window.dilations[axis] - self.window.pads_begin[axis]
    }

    /// Calls `visit` with the offset of each operand row that the windows of a row of results touch.
    fn each_source_row(&self, row: usize, mut visit: impl FnMut(usize)) {
        let (plane, at) = self.locate(row);
        let outer = self.out.len() - 1;
        let extents: [usize; RANK_MAX] = std::array::from_fn(|axis| {
            if axis < outer { self.inside[axis][at[axis]].1 - self.inside[axis][at[axis]].0 } else { 1 }
        });
        for mut combination in 0..extents[..outer].iter().product() {
            let (mut offset, mut scale) = (0, 1);
            for axis in (0..outer).rev() {
                let tap = self.inside[axis][at[axis]].0 + combination % extents[axis];
                combination /= extents[axis];
                offset += scale * self.source(axis, at[axis], tap);
                scale *= self.spatial[axis];
            }
            visit((plane * scale + offset) * self.spatial[outer]);
        }
    }

    /// Folds every window of a row into its result.
    ///
    /// # Safety
    /// The addresses are those of dense tensors of the geometry's shapes; the row is this caller's alone.
    unsafe fn fold<T: Copy>(&self, row: usize, input: *const T, output: *mut T, start: T, combine: impl Fn(T, T) -> T) {
        let last = self.out.len() - 1;
        let (width, stride) = (self.out[last], self.window.strides[last]);
        // SAFETY: the row lies inside the result and belongs to this caller.
        let results = unsafe { std::slice::from_raw_parts_mut(output.add(row * width), width) };
        results.fill(start);
        self.each_source_row(row, |offset| {
            // SAFETY: the offset is that of a row of the operand.
            let source = unsafe { std::slice::from_raw_parts(input.add(offset), self.spatial[last]) };
            for tap in 0..self.window.kernel[last] {
                let (first, end) = self.columns(tap);
                if first >= end {
                    continue;
                }
                let source = &source[self.source(last, first, tap)..];
                let results = &mut results[first..end];
                match stride {
                    1 => results.iter_mut().zip(source).for_each(|(result, &x)| *result = combine(*result, x)),
                    2 => {
                        // Whole pairs, which the compiler turns into vectors; the last element may have no neighbour.
                        let (pairs, rest) = source.as_chunks::<2>();
                        let last = results.get_mut(pairs.len()).zip(rest.first());
                        last.into_iter().for_each(|(result, &x)| *result = combine(*result, x));
                        results.iter_mut().zip(pairs).for_each(|(result, x)| *result = combine(*result, x[0]));
                    }
                    _ => results
                        .iter_mut()
                        .zip(source.chunks(stride))
                        .for_each(|(result, x)| *result = combine(*result, x[0])),
                }
            }
        });
    }

    /// The columns of results for which a tap of the last axis lies inside the operand.
    fn columns(&self, tap: usize) -> (usize, usize) {
        let last = self.out.len() - 1;
        let (stride, shift) = (self.window.strides[last], tap * self.window.dilations[last]);
        let pad = self.window.pads_begin[last];
        let first = pad.saturating_sub(shift).div_ceil(stride);
        let end = (self.spatial[last] + pad).saturating_sub(shift).div_ceil(stride);
        (first, end.min(self.out[last]))
    }

    /// Turns a row of sums into means.
    ///
    /// # Safety
    /// As for [`Geometry::fold`].
    unsafe fn divide(&self, row: usize, output: *mut f32) {
        let last = self.out.len() - 1;
        let (_, at) = self.locate(row);
        let outer: f32 = (0..last).map(|axis| self.divisors[axis][at[axis]]).product();
        // SAFETY: the row lies inside the result and belongs to this caller.
        let sums = unsafe { std::slice::from_raw_parts_mut(output.add(row * self.out[last]), self.out[last]) };
        sums.iter_mut().zip(&self.divisors[last]).for_each(|(sum, divisor)| *sum /= outer * divisor);
    }

    /// Maxima of a row with their positions in the whole operand.
    ///
    /// # Safety
    /// As for [`Geometry::fold`]; `indices` is a dense tensor of the result's shape.
    unsafe fn positions<T: Number>(
        &self,
        row: usize,
        input: *const T,
        output: *mut T,
        indices: *mut i64,
        column_major: bool,
    ) {
        let last = self.out.len() - 1;
        let plane = self.locate(row).0;
        let area: usize = self.spatial.iter().product();
        for column in 0..self.out[last] {
            let (first, end) = self.inside[last][column];
            let mut best: Option<(usize, T)> = None;
            self.each_source_row(row, |offset| {
                for tap in first..end {
                    let position = offset + self.source(last, column, tap);
                    // SAFETY: the tap lies inside the operand.
                    let x = unsafe { *input.add(position) };
                    if best.is_none_or(|(_, champion)| x > champion || x.is_nan() && !champion.is_nan()) {
                        best = Some((position, x));
                    }
                }
            });
            let (position, value) = best.unwrap_or((plane * area, T::LEAST));
            let inner = position - plane * area;
            let inner = if column_major { transposed(inner, &self.spatial) } else { inner };
            // SAFETY: the column lies inside both results and belongs to this caller.
            unsafe {
                *output.add(row * self.out[last] + column) = value;
                *indices.add(row * self.out[last] + column) = (plane * area + inner) as i64;
            }
        }
    }
}

/// The taps of the window at output `at` that lie inside an axis of `extent` elements.
fn taps_inside(window: &Window, axis: usize, extent: usize, at: usize) -> (usize, usize) {
    let (start, dilation, pad) = (at * window.strides[axis], window.dilations[axis], window.pads_begin[axis]);
    let first = pad.saturating_sub(start).div_ceil(dilation).min(window.kernel[axis]);
    let end = (extent + pad).saturating_sub(start).div_ceil(dilation).min(window.kernel[axis]);
    (first, end.max(first))
}

/// The column-major position of the element at a row-major position.
fn transposed(mut position: usize, extents: &[usize]) -> usize {
    let mut weight: usize = extents.iter().product();
    let mut result = 0;
    for &extent in extents.iter().rev() {
        weight /= extent;
        result += position % extent * weight;
        position /= extent;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, check};
    use crate::ir::{DType, Tensor};
    use crate::kernels::{Pool, PoolKind, Window};

    fn window(kernel: &[usize], strides: &[usize], dilations: &[usize], begin: &[usize], end: &[usize]) -> Window {
        let [kernel, strides, dilations, pads_begin, pads_end] =
            [kernel, strides, dilations, begin, end].map(<[usize]>::to_vec);
        Window { kernel, strides, dilations, pads_begin, pads_end }
    }

    fn shapes() -> Vec<(Vec<usize>, Window, Vec<usize>)> {
        vec![
            (vec![2, 3, 9], window(&[3], &[1], &[1], &[1], &[1]), vec![9]),
            (vec![1, 2, 8, 11], window(&[3, 3], &[2, 2], &[1, 1], &[1, 1], &[1, 1]), vec![4, 6]),
            (vec![1, 2, 7, 10], window(&[2, 3], &[3, 2], &[2, 1], &[0, 2], &[1, 2]), vec![2, 6]),
            // The last windows hang over the end.
            (vec![1, 1, 6, 7], window(&[3, 3], &[2, 3], &[1, 1], &[0, 0], &[0, 0]), vec![3, 3]),
            (vec![1, 2, 4, 5, 6], window(&[2, 2, 3], &[1, 2, 1], &[1, 1, 2], &[0, 1, 1], &[1, 0, 1]), vec![4, 3, 4]),
        ]
    }

    #[test]
    fn windows_give_means_and_maxima() {
        let mut random = Random::new(7);
        for (shape, window, out) in shapes() {
            for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageIncludingPads] {
                let kernel = Pool { kind, window: window.clone(), out: out.clone(), indices: None };
                check(kernel, &[random.floats(&shape)], 1e-6);
            }
            for dtype in [DType::I8, DType::U8] {
                let kernel = Pool { kind: PoolKind::Max, window: window.clone(), out: out.clone(), indices: None };
                check(kernel, &[random.tensor(dtype, &shape, 100)], 0.0);
            }
        }
    }

    #[test]
    fn maxima_have_positions() {
        let mut random = Random::new(8);
        for (shape, window, out) in shapes() {
            for indices in [Some(false), Some(true)] {
                let kernel = Pool { kind: PoolKind::Max, window: window.clone(), out: out.clone(), indices };
                check(kernel, &[random.tensor(DType::I8, &shape, 3)], 0.0);
            }
        }
    }

    #[test]
    fn nan_is_the_maximum_of_its_windows() {
        let x = Tensor::from_slice(&[1, 1, 5], &[1.0f32, f32::NAN, 2.0, 3.0, 4.0]);
        let window = window(&[2], &[1], &[1], &[0], &[0]);
        check(Pool { kind: PoolKind::Max, window, out: vec![4], indices: None }, &[x], 0.0);
    }
}
