//! Windowed pooling. Global pooling is a [`super::Reduce`].

use super::operands::{arity, from_floats, from_integers, one_type};
use super::walk::Coordinates;
use super::{Family, Window};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, TensorType};

/// What a window is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Maximum; padding never wins.
    Max,
    /// Mean over the elements inside the input.
    Average,
    /// Mean over the elements inside the input or its declared padding.
    AverageIncludingPads,
}

/// ONNX `MaxPool` and `AveragePool`.
///
/// Operand: X `[N, C, spatial..]`, float (or `I8`/`U8` for `Max`). Results: Y `[N, C, out..]`, then, if `indices`, the
/// flat row-major position of each maximum in X (`I64`), counted over the whole tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Maximum or mean.
    pub kind: PoolKind,
    /// Kernel, strides, dilations, padding.
    pub window: Window,
    /// Extents of the result's spatial dimensions (`ceil_mode` has been resolved; a window may hang over the end).
    pub out: Vec<usize>,
    /// Whether positions are delivered too (`Max` only), column-major over the spatial dimensions if `Some(true)`.
    pub indices: Option<bool>,
}

impl Family for Pool {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("Pool", inputs, 1)?;
        let dtype = one_type("Pool", inputs)?;
        let bytes = self.kind == PoolKind::Max && matches!(dtype, DType::I8 | DType::U8);
        ensure!(dtype.is_float() || bytes, Unsupported, "{:?} pooling is not defined for {dtype}", self.kind);
        let shape = &inputs[0].shape;
        ensure!(shape.len() >= 3, ShapeMismatch, "Pool: the operand's shape {shape:?} has no spatial dimensions");
        self.window.check("Pool", shape.len() - 2)?;
        ensure!(
            self.out.len() == shape.len() - 2,
            InvalidArgument,
            "Pool: {} result extents for {} spatial dimensions",
            self.out.len(),
            shape.len() - 2
        );
        for (axis, (&out, &extent)) in self.out.iter().zip(&shape[2..]).enumerate() {
            let padded = self.window.padded("Pool", axis, extent)?;
            let last = out.checked_sub(1).and_then(|last| last.checked_mul(self.window.strides[axis]));
            ensure!(
                last.is_some_and(|start| start < padded),
                InvalidArgument,
                "Pool: {out} windows do not all begin inside the {padded} elements of spatial dimension {axis}"
            );
        }
        ensure!(
            self.indices.is_none() || self.kind == PoolKind::Max,
            InvalidArgument,
            "Pool: only maxima have positions"
        );
        let result = [&shape[..2], &self.out].concat();
        let mut results = vec![TensorType::new(dtype, result.clone())?];
        if self.indices.is_some() {
            results.push(TensorType::new(DType::I64, result)?);
        }
        Ok(results)
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        let (planes, spatial) = x.shape().split_at(2);
        let planes = planes[0] * planes[1];
        let values = x.to_f64s();
        let area: usize = spatial.iter().product();
        let out_area: usize = self.out.iter().product();
        let mut pooled = vec![0.0; planes * out_area];
        let mut indices = vec![0i64; if self.indices.is_some() { pooled.len() } else { 0 }];
        // Without planes there may be very many places where nothing is to be done.
        let places = Coordinates::new(if planes == 0 { &[0] } else { &self.out });
        for (output, at) in places.enumerate() {
            let taps: Vec<usize> = self.window.taps(spatial, &at).into_iter().map(|(_, input)| input).collect();
            let divisor = self.divisor(spatial, &at, taps.len());
            for plane in 0..planes {
                let window = taps.iter().map(|&input| values[plane * area + input]);
                let position = plane * out_area + output;
                if self.kind != PoolKind::Max {
                    pooled[position] = window.sum::<f64>() / divisor;
                    continue;
                }
                let (best, value) = greatest(window, x.dtype());
                pooled[position] = value;
                if let Some(column_major) = self.indices {
                    let input = match taps.get(best) {
                        Some(&input) if column_major => transposed(input, spatial),
                        Some(&input) => input,
                        None => 0,
                    };
                    indices[position] = (plane * area + input) as i64;
                }
            }
        }
        let shape = [&x.shape()[..2], &self.out].concat();
        let mut results = vec![from_floats(x.dtype(), &shape, &pooled)];
        if self.indices.is_some() {
            results.push(from_integers(DType::I64, &shape, &indices));
        }
        Ok(results)
    }

    fn work(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let per_output = self.window.volume().min(inputs[0].shape[2..].iter().product::<usize>() as u64);
        (outputs[0].count() as u64).saturating_mul(per_output.saturating_add(1))
    }
}

impl Pool {
    /// What the sum of the window at output `at` is divided by.
    fn divisor(&self, spatial: &[usize], at: &[usize], inside: usize) -> f64 {
        if self.kind == PoolKind::Average {
            // A window without any element averages to 0.
            return inside.max(1) as f64;
        }
        let window = &self.window;
        let counted = |axis: usize| {
            let padded = spatial[axis] + window.pads_begin[axis] + window.pads_end[axis];
            let left = padded - at[axis] * window.strides[axis];
            left.div_ceil(window.dilations[axis]).min(window.kernel[axis]) as f64
        };
        (0..spatial.len()).map(counted).product()
    }
}

/// Position and value of the first maximum; a NaN wins. Of nothing, the least value of the type.
fn greatest(window: impl Iterator<Item = f64>, dtype: DType) -> (usize, f64) {
    let least = match dtype {
        DType::I8 => f64::from(i8::MIN),
        DType::U8 => 0.0,
        _ => f64::NEG_INFINITY,
    };
    let mut best: Option<(usize, f64)> = None;
    for (index, value) in window.enumerate() {
        if best.is_none_or(|(_, champion)| value > champion || (value.is_nan() && !champion.is_nan())) {
            best = Some((index, value));
        }
    }
    best.unwrap_or((0, least))
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
    use super::*;
    use crate::error::Status;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    fn window(kernel: [usize; 2], strides: [usize; 2], dilations: [usize; 2], pads: [usize; 4]) -> Window {
        Window {
            kernel: kernel.to_vec(),
            strides: strides.to_vec(),
            dilations: dilations.to_vec(),
            pads_begin: pads[..2].to_vec(),
            pads_end: pads[2..].to_vec(),
        }
    }

    fn counting(side: usize) -> Tensor {
        let values: Vec<f32> = (1..=side * side).map(|x| x as f32).collect();
        floats(&[1, 1, side, side], &values)
    }

    #[test]
    fn maxima_come_with_positions_in_either_order() {
        let pool = Pool {
            kind: PoolKind::Max,
            window: window([2, 2], [2, 1], [1, 2], [1, 0, 1, 1]),
            out: vec![3, 3],
            indices: Some(false),
        };
        let results = evaluated(pool, &[counting(4)]);
        assert_eq!(results[0].to_vec::<f32>().unwrap(), [3.0, 4.0, 3.0, 11.0, 12.0, 11.0, 15.0, 16.0, 15.0]);
        assert_eq!(results[1].to_vec::<i64>().unwrap(), [2, 3, 2, 10, 11, 10, 14, 15, 14]);
        let pool = Pool {
            kind: PoolKind::Max,
            window: window([2, 2], [2, 1], [1, 1], [1, 0, 1, 1]),
            out: vec![3, 4],
            indices: Some(true),
        };
        let results = evaluated(pool, &[counting(4)]);
        assert_eq!(results[1].to_vec::<i64>().unwrap(), [4, 8, 12, 12, 6, 10, 14, 14, 7, 11, 15, 15]);
    }

    #[test]
    fn means_count_padding_only_if_asked_and_never_the_overhang() {
        let mean = |kind, window, out: [usize; 2]| -> Vec<f32> {
            evaluated(Pool { kind, window, out: out.to_vec(), indices: None }, &[counting(5)])[0].to_vec().unwrap()
        };
        let overhanging = || window([3, 3], [2, 2], [1, 1], [1, 1, 0, 0]);
        assert_eq!(
            mean(PoolKind::AverageIncludingPads, overhanging(), [3, 3]),
            [16.0 / 9.0, 33.0 / 9.0, 28.0 / 6.0, 69.0 / 9.0, 13.0, 14.5, 76.0 / 6.0, 20.5, 22.0]
        );
        assert_eq!(mean(PoolKind::Average, overhanging(), [3, 3]), [4.0, 5.5, 7.0, 11.5, 13.0, 14.5, 19.0, 20.5, 22.0]);
        let dilated = window([2, 2], [2, 1], [2, 3], [1, 0, 1, 1]);
        assert_eq!(
            mean(PoolKind::AverageIncludingPads, dilated, [3, 3]),
            [3.75, 4.25, 2.0, 12.5, 13.5, 6.5, 8.75, 9.25, 4.5]
        );
    }

    #[test]
    fn hostile_windows_are_refused() {
        let refuse = |window: Window, out: [usize; 2]| {
            let pool = Pool { kind: PoolKind::Max, window, out: out.to_vec(), indices: None };
            refused(pool, &[(DType::F32, &[1, 1, 4, 4])])
        };
        let (one, none) = ([1, 1], [0; 4]);
        assert_eq!(refuse(window([2, 2], [0, 1], one, none), [3, 3]), Status::InvalidArgument);
        assert_eq!(refuse(window([2, 2], one, [1, 0], none), [3, 3]), Status::InvalidArgument);
        assert_eq!(refuse(window([0, 2], one, one, none), [3, 3]), Status::InvalidArgument);
        assert_eq!(refuse(window([2, 2], one, one, none), [5, 3]), Status::InvalidArgument);
        assert_eq!(refuse(window([2, 2], one, one, none), [0, 3]), Status::InvalidArgument);
        assert_eq!(refuse(window([2, 2], [usize::MAX; 2], one, none), [3, 3]), Status::InvalidArgument);
        assert_eq!(refuse(window([2, 2], one, one, [usize::MAX, 0, 1, 0]), [3, 3]), Status::TooLarge);
        assert_eq!(refuse(window([2, 2], one, one, [1 << 60; 4]), [1 << 50, 1 << 50]), Status::TooLarge);
    }

    #[test]
    fn a_huge_kernel_costs_no_more_than_the_input() {
        let pool = Pool {
            kind: PoolKind::Max,
            window: window([1 << 60, 1 << 60], [1, 1], [1, 1], [0; 4]),
            out: vec![1, 1],
            indices: None,
        };
        assert_eq!(evaluated(pool, &[counting(4)])[0].to_vec::<f32>().unwrap(), [16.0]);
    }
}
