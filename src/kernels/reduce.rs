//! Reductions over axes.

use super::Family;
use super::operands::{arity, from_floats, from_integers};
use super::walk::{Walk, row_major};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, TensorType, element_count};

/// How elements are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Sum.
    Sum,
    /// Arithmetic mean.
    Mean,
    /// Maximum; -inf or the least integer over nothing.
    Max,
    /// Minimum; +inf or the greatest integer over nothing.
    Min,
    /// Product.
    Prod,
    /// Square root of the sum of squares.
    L2,
    /// Position of the maximum along the single axis, `I64`.
    ArgMax {
        /// Whether the last of equal maxima wins instead of the first.
        last: bool,
    },
    /// Position of the minimum along the single axis, `I64`.
    ArgMin {
        /// Whether the last of equal minima wins instead of the first.
        last: bool,
    },
}

/// Reduces `axes`, which vanish from the shape. Operand: floats or integers (`Bool` for `Max` and `Min`); floats are
/// accumulated in binary32, integers in their own width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// How.
    pub op: ReduceOp,
    /// The axes, ascending, without duplicates.
    pub axes: Vec<usize>,
}

impl Family for Reduce {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("Reduce", inputs, 1)?;
        let TensorType { dtype, shape } = &inputs[0];
        ensure!(
            self.axes.is_sorted_by(|a, b| a < b) && self.axes.last().is_none_or(|&axis| axis < shape.len()),
            InvalidArgument,
            "Reduce: {:?} are not ascending axes of the shape {shape:?}",
            self.axes
        );
        let ordered = matches!(self.op, ReduceOp::Max | ReduceOp::Min);
        ensure!(*dtype != DType::Bool || ordered, Unsupported, "Reduce: {:?} is not defined for {dtype}", self.op);
        if self.op.gives_position() {
            let [axis] = self.axes[..] else {
                return Err(fail!(InvalidArgument, "{:?} runs along one axis, not along {:?}", self.op, self.axes));
            };
            ensure!(shape[axis] > 0, ShapeMismatch, "{:?} of no elements: axis {axis} of {shape:?}", self.op);
        }
        let result = if self.op.gives_position() { DType::I64 } else { *dtype };
        Ok(vec![TensorType::new(result, self.kept(shape))?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        let shape = self.kept(x.shape());
        let strides = self.result_strides(x.shape());
        let positions = Walk::new(x.shape(), &strides);
        let count = element_count(&shape)?;
        let per_result = self.axes.iter().map(|&axis| x.shape()[axis]).product();
        let result = if self.op.gives_position() {
            let along = row_major(x.shape())[self.axes[0]];
            let axis = (along, per_result);
            let best = if x.dtype().is_float() {
                best_positions(self.op, positions, &x.to_f64s(), count, axis)
            } else {
                best_positions(self.op, positions, &x.to_i64s(), count, axis)
            };
            from_integers(DType::I64, &shape, &best)
        } else if x.dtype().is_float() {
            from_floats(x.dtype(), &shape, &reduced_floats(self.op, positions, &x.to_f64s(), count, per_result))
        } else {
            let extremes = extremes(x.dtype());
            let reduced = reduced_integers(self.op, positions, &x.to_i64s(), count, per_result, extremes);
            from_integers(x.dtype(), &shape, &reduced)
        };
        Ok(vec![result])
    }
}

impl ReduceOp {
    /// Whether the result is a position instead of a value.
    pub fn gives_position(self) -> bool {
        matches!(self, ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. })
    }
}

impl Reduce {
    fn kept(&self, shape: &[usize]) -> Vec<usize> {
        (0..shape.len()).filter(|axis| !self.axes.contains(axis)).map(|axis| shape[axis]).collect()
    }

    /// Per axis of the operand, the distance that one step along it moves in the result.
    fn result_strides(&self, shape: &[usize]) -> Vec<usize> {
        let mut kept = row_major(&self.kept(shape)).into_iter();
        let stride = |axis| if self.axes.contains(&axis) { 0 } else { kept.next().unwrap_or(0) };
        (0..shape.len()).map(stride).collect()
    }
}

/// Combines each element into the result at its position.
fn reduced_floats(op: ReduceOp, positions: Walk, x: &[f64], count: usize, per_result: usize) -> Vec<f64> {
    let start = match op {
        ReduceOp::Max => f64::NEG_INFINITY,
        ReduceOp::Min => f64::INFINITY,
        ReduceOp::Prod => 1.0,
        _ => 0.0,
    };
    let combine: fn(f64, f64) -> f64 = match op {
        ReduceOp::Max => |a, b| if a > b || a.is_nan() { a } else { b },
        ReduceOp::Min => |a, b| if a < b || a.is_nan() { a } else { b },
        ReduceOp::Prod => |a, b| a * b,
        ReduceOp::L2 => |a, b| a + b * b,
        _ => |a, b| a + b,
    };
    let mut results = vec![start; count];
    for (position, &x) in positions.zip(x) {
        results[position] = combine(results[position], x);
    }
    match op {
        ReduceOp::Mean => results.iter_mut().for_each(|sum| *sum /= per_result as f64),
        ReduceOp::L2 => results.iter_mut().for_each(|sum| *sum = sum.sqrt()),
        _ => {}
    }
    results
}

/// Least and greatest value of an integer type or `Bool`.
fn extremes(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::I32 => (i32::MIN.into(), i32::MAX.into()),
        DType::I8 => (i8::MIN.into(), i8::MAX.into()),
        DType::U8 => (0, u8::MAX.into()),
        DType::Bool => (0, 1),
        _ => (i64::MIN, i64::MAX),
    }
}

fn reduced_integers(
    op: ReduceOp,
    positions: Walk,
    x: &[i64],
    count: usize,
    per_result: usize,
    (least, greatest): (i64, i64),
) -> Vec<i64> {
    let (start, combine): (i64, fn(i64, i64) -> i64) = match op {
        ReduceOp::Max => (least, i64::max),
        ReduceOp::Min => (greatest, i64::min),
        ReduceOp::Prod => (1, i64::wrapping_mul),
        ReduceOp::L2 => (0, |a, b| a.wrapping_add(b.wrapping_mul(b))),
        _ => (0, i64::wrapping_add),
    };
    let mut results = vec![start; count];
    for (position, &x) in positions.zip(x) {
        results[position] = combine(results[position], x);
    }
    match op {
        ReduceOp::Mean => results.iter_mut().for_each(|sum| *sum /= per_result.max(1) as i64),
        ReduceOp::L2 => results.iter_mut().for_each(|sum| *sum = (*sum as f64).sqrt() as i64),
        _ => {}
    }
    results
}

/// Position along the reduced axis, whose `extent` elements lie `along` apart, of the best element of each result. A NaN
/// wins only among NaNs.
fn best_positions<T: PartialOrd + Copy>(
    op: ReduceOp,
    positions: Walk,
    x: &[T],
    count: usize,
    (along, extent): (usize, usize),
) -> Vec<i64> {
    let (greatest, last) = match op {
        ReduceOp::ArgMax { last } => (true, last),
        ReduceOp::ArgMin { last } => (false, last),
        _ => unreachable!("{op:?} gives no position"),
    };
    let is_nan = |value: T| value.partial_cmp(&value).is_none();
    let beats = |x: T, champion: T| {
        let better = if greatest { x > champion } else { x < champion };
        better || (last && x == champion) || (is_nan(champion) && !is_nan(x))
    };
    let mut best: Vec<Option<(T, i64)>> = vec![None; count];
    for ((element, position), &x) in positions.enumerate().zip(x) {
        if best[position].is_none_or(|(champion, _)| beats(x, champion)) {
            best[position] = Some((x, (element / along % extent) as i64));
        }
    }
    best.into_iter().flatten().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::ir::Element;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    fn reduce<T: Element>(op: ReduceOp, axes: &[usize], x: Tensor) -> Vec<T> {
        evaluated(Reduce { op, axes: axes.to_vec() }, &[x])[0].to_vec().unwrap()
    }

    #[test]
    fn any_axes_vanish() {
        let x = || floats(&[2, 3], &[1.0, 2.0, 3.0, -4.0, 5.0, 12.0]);
        assert_eq!(reduce::<f32>(ReduceOp::Sum, &[0], x()), [-3.0, 7.0, 15.0]);
        assert_eq!(reduce::<f32>(ReduceOp::Mean, &[1], x()), [2.0, 13.0 / 3.0]);
        assert_eq!(reduce::<f32>(ReduceOp::Max, &[0, 1], x()), [12.0]);
        assert_eq!(reduce::<f32>(ReduceOp::Prod, &[1], x()), [6.0, -240.0]);
        assert_eq!(reduce::<f32>(ReduceOp::L2, &[1], floats(&[1, 2], &[3.0, 4.0])), [5.0]);
        assert_eq!(reduce::<f32>(ReduceOp::Min, &[], x()), [1.0, 2.0, 3.0, -4.0, 5.0, 12.0]);
        let middle = reduce::<i32>(ReduceOp::Sum, &[1], Tensor::from_slice(&[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(middle, [4, 6, 12, 14]);
    }

    #[test]
    fn integers_truncate_their_mean_and_wrap_their_sum() {
        let x = |values: &[i32]| Tensor::from_slice(&[values.len()], values);
        assert_eq!(reduce::<i32>(ReduceOp::Mean, &[0], x(&[-3, -4])), [-3]);
        assert_eq!(reduce::<i32>(ReduceOp::Sum, &[0], x(&[i32::MAX, 1])), [i32::MIN]);
        assert_eq!(reduce::<i32>(ReduceOp::L2, &[0], x(&[3, 4])), [5]);
        assert_eq!(reduce::<bool>(ReduceOp::Max, &[0], Tensor::from_slice(&[2], &[false, true])), [true]);
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        let none = || floats(&[0], &[]);
        assert_eq!(reduce::<f32>(ReduceOp::Sum, &[0], none()), [0.0]);
        assert_eq!(reduce::<f32>(ReduceOp::Prod, &[0], none()), [1.0]);
        assert_eq!(reduce::<f32>(ReduceOp::Max, &[0], none()), [f32::NEG_INFINITY]);
        assert_eq!(reduce::<u8>(ReduceOp::Min, &[0], Tensor::from_slice::<u8>(&[0], &[])), [255]);
        assert!(reduce::<f32>(ReduceOp::Mean, &[0], none())[0].is_nan());
    }

    #[test]
    fn positions_respect_ties_and_skip_nan() {
        let x = || floats(&[2, 3], &[2.0, 1.0, 2.0, f32::NAN, 0.0, 0.0]);
        let (first, last) = (ReduceOp::ArgMax { last: false }, ReduceOp::ArgMax { last: true });
        assert_eq!(reduce::<i64>(first, &[1], x()), [0, 1]);
        assert_eq!(reduce::<i64>(last, &[1], x()), [2, 2]);
        assert_eq!(reduce::<i64>(ReduceOp::ArgMin { last: false }, &[0], x()), [0, 1, 1]);
        assert_eq!(reduce::<i64>(first, &[0], floats(&[2], &[f32::NAN; 2])), [0]);
    }

    #[test]
    fn bad_axes_are_refused() {
        let refuse = |op, axes: &[usize]| refused(Reduce { op, axes: axes.to_vec() }, &[(DType::F32, &[2, 0])]);
        assert_eq!(refuse(ReduceOp::Sum, &[2]), Status::InvalidArgument);
        assert_eq!(refuse(ReduceOp::Sum, &[1, 0]), Status::InvalidArgument);
        assert_eq!(refuse(ReduceOp::ArgMax { last: false }, &[0, 1]), Status::InvalidArgument);
        assert_eq!(refuse(ReduceOp::ArgMax { last: false }, &[1]), Status::ShapeMismatch);
        assert_eq!(refused(Reduce { op: ReduceOp::Sum, axes: vec![0] }, &[(DType::Bool, &[2])]), Status::Unsupported);
    }
}
