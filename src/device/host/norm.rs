//! Normalisation of rows.

use super::cursor::Cursor;
use super::kernel::{Share, Span, Task};
use super::simd::{Routine, Vector, dispatch};
use crate::kernels::{Norm, NormKind};
use crate::limits::RANK_MAX;
use crate::lower::host::Simd;

/// A task for binary32 operands: input and result with dense rows over the last `axes` axes, scale and bias in any views.
pub fn prepare(kernel: &Norm, operands: &[Span], output: &Span, simd: Simd) -> Task {
    let rows = Rows::new(kernel, operands, output, simd);
    Box::new(move |share: &Share| {
        let range = share.range(rows.count, 1);
        let mut cursor = Cursor::new(&rows.outer, range.start);
        for _ in range {
            // SAFETY: whoever bound the launch promised that its operands are readable and its result is writable.
            unsafe { rows.row(&cursor) };
            cursor.advance(1);
        }
    })
}

struct Rows {
    kind: NormKind,
    epsilon: f32,
    simd: Simd,
    /// Input, scale, bias, result.
    spans: [Span; 4],
    /// Extents of the axes before the row.
    outer: Vec<usize>,
    count: usize,
    /// Extents of the row's axes, merged where scale and bias allow, with the steps of those.
    inner: Vec<usize>,
    scale_strides: Vec<isize>,
    bias_strides: Vec<isize>,
}

impl Rows {
    fn new(kernel: &Norm, operands: &[Span], output: &Span, simd: Simd) -> Self {
        let first = output.shape.len() - kernel.axes;
        let (scale, bias) = (&operands[1], &operands[2]);
        let (mut inner, mut scale_strides, mut bias_strides): (Vec<usize>, Vec<isize>, Vec<isize>) = Default::default();
        for axis in (first..output.shape.len()).filter(|&axis| output.shape[axis] != 1) {
            let (extent, steps) = (output.shape[axis], (scale.strides[axis], bias.strides[axis]));
            let last = inner.len().wrapping_sub(1);
            let whole = (steps.0 * extent as isize, steps.1 * extent as isize);
            if !inner.is_empty() && (scale_strides[last], bias_strides[last]) == whole {
                inner[last] *= extent;
                (scale_strides[last], bias_strides[last]) = steps;
            } else {
                inner.push(extent);
                scale_strides.push(steps.0);
                bias_strides.push(steps.1);
            }
        }
        let outer = output.shape[..first].to_vec();
        Rows {
            kind: kernel.kind,
            epsilon: kernel.epsilon,
            simd,
            spans: [operands[0].clone(), scale.clone(), bias.clone(), output.clone()],
            count: outer.iter().product(),
            outer,
            inner,
            scale_strides,
            bias_strides,
        }
    }

    /// # Safety
    /// The operands are readable and the result is writable at the cursor's row.
    unsafe fn row(&self, cursor: &Cursor) {
        let rank = self.outer.len();
        let [from, scale, bias, to] = [0, 1, 2, 3].map(|operand| {
            let span = &self.spans[operand];
            span.element(cursor.offset(&span.strides[..rank])).cast::<f32>()
        });
        let length: usize = self.inner.iter().product();
        let mut moments = Moments::default();
        // SAFETY: the row has `length` elements; the level of instructions was detected.
        unsafe {
            dispatch(self.simd, Measure { from, length, kind: self.kind, moments: &mut moments });
            let factor = 1.0 / (moments.mean_square + self.epsilon).sqrt();
            let run = self.inner.last().copied().unwrap_or(1);
            let mut inner = Cursor { extents: &self.inner, index: [0; RANK_MAX] };
            for start in (0..length).step_by(run) {
                let last = self.inner.len().saturating_sub(1);
                dispatch(
                    self.simd,
                    Scale {
                        from: from.add(start),
                        to: to.add(start),
                        length: run,
                        mean: moments.mean,
                        factor,
                        scale: scale.offset(inner.offset(&self.scale_strides)),
                        bias: bias.offset(inner.offset(&self.bias_strides)),
                        steps: (
                            self.scale_strides.get(last).copied().unwrap_or(0),
                            self.bias_strides.get(last).copied().unwrap_or(0),
                        ),
                    },
                );
                inner.advance(run);
            }
        }
    }
}

/// Mean (0 for the root mean square) and mean square of the deviations from it.
#[derive(Default)]
struct Moments {
    mean: f32,
    mean_square: f32,
}

/// Computes the moments of a row in two passes, which does not cancel.
struct Measure<'a> {
    from: *const f32,
    length: usize,
    kind: NormKind,
    moments: &'a mut Moments,
}

impl Routine for Measure<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let count = self.length as f32;
        // SAFETY: the row has `length` elements, and the instructions of `V` are enabled.
        unsafe {
            let mean = match self.kind {
                NormKind::Layer => sum(self.from, self.length, |x: V| x, |x| x) / count,
                NormKind::Rms => 0.0,
            };
            let shift = V::splat(mean);
            let square = |x: V| (x - shift) * (x - shift);
            let squares = sum(self.from, self.length, square, |x| (x - mean) * (x - mean));
            *self.moments = Moments { mean, mean_square: squares / count };
        }
    }
}

/// The sum of a function over a row; the lanes take turns, which also keeps rounding errors small.
///
/// # Safety
/// The row has `length` elements; the instructions of `V` are enabled.
#[inline(always)]
unsafe fn sum<V: Vector>(from: *const f32, length: usize, f: impl Fn(V) -> V, g: impl Fn(f32) -> f32) -> f32 {
    let whole = length / (2 * V::LANES) * (2 * V::LANES);
    // SAFETY: all positions are below the length.
    unsafe {
        let (mut even, mut odd) = (V::splat(0.0), V::splat(0.0));
        for at in (0..whole).step_by(2 * V::LANES) {
            even = even + f(V::load(from.add(at)));
            odd = odd + f(V::load(from.add(at + V::LANES)));
        }
        (whole..length).fold((even + odd).sum(), |sum, at| sum + g(*from.add(at)))
    }
}

/// `to = (from - mean) factor scale + bias` over a run.
struct Scale {
    from: *const f32,
    to: *mut f32,
    length: usize,
    mean: f32,
    factor: f32,
    scale: *const f32,
    bias: *const f32,
    steps: (isize, isize),
}

impl Routine for Scale {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Scale { from, to, length, mean, factor, scale, bias, steps } = self;
        // SAFETY: all positions are below the length, and the instructions of `V` are enabled.
        unsafe {
            let mut done = 0;
            if matches!(steps, (0 | 1, 0 | 1)) {
                let (shift, factors) = (V::splat(mean), V::splat(factor));
                let at = |row: *const f32, step: isize, at: usize| {
                    if step == 0 { V::splat(*row) } else { V::load(row.add(at)) }
                };
                while done + V::LANES <= length {
                    let normal = (V::load(from.add(done)) - shift) * factors;
                    normal.mul_add(at(scale, steps.0, done), at(bias, steps.1, done)).store(to.add(done));
                    done += V::LANES;
                }
            }
            for at in done..length {
                let (scale, bias) = (*scale.offset(at as isize * steps.0), *bias.offset(at as isize * steps.1));
                *to.add(at) = (*from.add(at) - mean) * factor * scale + bias;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::device::host::testing::{Random, check_views};
    use crate::kernels::{Norm, NormKind};

    const KINDS: [NormKind; 2] = [NormKind::Layer, NormKind::Rms];

    #[test]
    fn layer_norm_rows_of_any_length() {
        let mut random = Random::new(1);
        for (kind, length) in KINDS.into_iter().flat_map(|kind| [1, 3, 16, 47, 384, 1000].map(|length| (kind, length)))
        {
            let inputs = [random.floats(&[4, 3, length]), random.floats(&[length]), random.floats(&[length])];
            let kernel = Norm { kind, axes: 1, epsilon: 1e-5 };
            check_views(kernel, &inputs, 1e-5, |_, view| view.broadcast(&[4, 3, length]).unwrap());
        }
    }

    #[test]
    fn scale_and_bias_may_vary_along_any_axis() {
        let mut random = Random::new(2);
        let shape = [2, 3, 4, 5, 6];
        for (kind, axes) in [(NormKind::Layer, 3), (NormKind::Rms, 2), (NormKind::Layer, 5)] {
            // As in group normalisation: per channel, in front of the spatial axes.
            let inputs = [random.floats(&shape), random.floats(&[3, 4, 1, 1]), random.floats(&[1, 4, 1, 6])];
            let kernel = Norm { kind, axes, epsilon: 1e-3 };
            check_views(kernel, &inputs, 1e-5, |_, view| view.broadcast(&shape).unwrap());
        }
    }

    #[test]
    fn transposed_rows_are_made_dense() {
        let mut random = Random::new(3);
        let inputs = [random.floats(&[30, 7]), random.floats(&[30]), random.floats(&[1])];
        let kernel = Norm { kind: NormKind::Layer, axes: 1, epsilon: 1e-5 };
        check_views(kernel, &inputs, 1e-5, |index, view| match index {
            0 => view.swap(0, 1),
            _ => view.broadcast(&[7, 30]).unwrap(),
        });
    }
}
