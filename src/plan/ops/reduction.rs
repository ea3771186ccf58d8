//! Reductions, positions of extremes, running sums and top-k.

use super::body::Body;
use super::call::{self, Call};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Shape};
use crate::kernels::{Binary, CumSum, Reduce, ReduceOp, TopK, Unary};
use crate::plan::{Builder, View};

/// The axes that a reduction removes; `None` if it is to do nothing. They are an attribute before opset 18 (13 for
/// `ReduceSum`), then an operand; none at all means every axis, unless `noop_with_empty_axes`.
fn reduced_axes(b: &Builder, call: &Call<'_>) -> Result<Option<Vec<usize>>> {
    let rank = call.input(0)?.rank();
    let list = call.ints_or_constant(b, "axes", 1)?.unwrap_or_default();
    if list.is_empty() {
        return Ok((!call.flag("noop_with_empty_axes", false)?).then(|| (0..rank).collect()));
    }
    Ok(Some(call::axes(&list, rank)?))
}

/// Puts reduced axes back as extents of 1.
pub fn keep_axes(view: View, axes: &[usize]) -> View {
    axes.iter().fold(view, |view, &axis| view.insert_axis(axis))
}

fn reduce_axes(b: &mut Builder, call: &Call<'_>, op: ReduceOp, x: &View, axes: &[usize]) -> Result<View> {
    let result = if axes.is_empty() && op != ReduceOp::L2 {
        x.clone()
    } else {
        b.emit1(Reduce { op, axes: axes.to_vec() }, std::slice::from_ref(x))?
    };
    Ok(if call.flag("keepdims", true)? { keep_axes(result, axes) } else { result })
}

fn plain(b: &mut Builder, call: &Call<'_>, op: ReduceOp) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let view = match reduced_axes(b, call)? {
        Some(axes) => reduce_axes(b, call, op, x, &axes)?,
        None => x.clone(),
    };
    Ok(vec![view])
}

/// `ReduceSum`.
pub fn sum(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    plain(b, call, ReduceOp::Sum)
}

/// `ReduceMean`.
pub fn mean(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    plain(b, call, ReduceOp::Mean)
}

/// `ReduceMax`.
pub fn max(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    plain(b, call, ReduceOp::Max)
}

/// `ReduceMin`.
pub fn min(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    plain(b, call, ReduceOp::Min)
}

/// `ReduceProd`.
pub fn prod(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    plain(b, call, ReduceOp::Prod)
}

/// `ReduceL2`.
pub fn l2(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    plain(b, call, ReduceOp::L2)
}

/// `ReduceL1`: the sum of magnitudes.
pub fn l1(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let Some(axes) = reduced_axes(b, call)? else { return Ok(vec![call.input(0)?.clone()]) };
    let magnitudes = b.unary(Unary::Abs, call.input(0)?)?;
    Ok(vec![reduce_axes(b, call, ReduceOp::Sum, &magnitudes, &axes)?])
}

/// `ReduceSumSquare`.
pub fn sum_square(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let Some(axes) = reduced_axes(b, call)? else { return Ok(vec![x.clone()]) };
    let squares = b.binary(Binary::Mul, x, x)?;
    Ok(vec![reduce_axes(b, call, ReduceOp::Sum, &squares, &axes)?])
}

/// `ReduceLogSum`.
pub fn log_sum(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let Some(axes) = reduced_axes(b, call)? else { return Ok(vec![x.clone()]) };
    let sum = reduce_axes(b, call, ReduceOp::Sum, x, &axes)?;
    Ok(vec![b.unary(Unary::Log, &sum)?])
}

/// `ReduceLogSumExp`: `m + log(sum(exp(x - m)))` with the maximum m, or 0 in its place where it is infinite.
pub fn log_sum_exp(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let dtype = b.dtype(x);
    let Some(axes) = reduced_axes(b, call)? else { return Ok(vec![x.clone()]) };
    let max = b.emit1(Reduce { op: ReduceOp::Max, axes: axes.clone() }, std::slice::from_ref(x))?;
    let mut body = Body::with_inputs(1);
    let infinite = body.unary(Unary::IsInf, 0);
    let zero = body.float(0.0);
    body.select(infinite, zero, 0);
    let max = keep_axes(b.map(&[&max], body.finish(), dtype)?, &axes);
    let mut body = Body::with_inputs(2);
    let shifted = body.binary(Binary::Sub, 0, 1);
    body.unary(Unary::Exp, shifted);
    let terms = b.map(&[x, &max], body.finish(), dtype)?;
    let sum = b.emit1(Reduce { op: ReduceOp::Sum, axes: axes.clone() }, &[terms])?;
    let mut body = Body::with_inputs(2);
    let log = body.unary(Unary::Log, 0);
    body.binary(Binary::Add, log, 1);
    let result = b.map(&[&keep_axes(sum, &axes), &max], body.finish(), dtype)?;
    if call.flag("keepdims", true)? {
        return Ok(vec![result]);
    }
    Ok(vec![axes.iter().rev().fold(result, |view, &axis| view.remove_axis(axis))])
}

fn extreme(b: &mut Builder, call: &Call<'_>, op: fn(bool) -> ReduceOp) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let axis = call.axis("axis", 0, x.rank())?;
    ensure!(x.shape[axis] > 0, ShapeMismatch, "axis {axis} of {:?} is empty", x.shape);
    let op = op(call.flag("select_last_index", false)?);
    Ok(vec![reduce_axes(b, call, op, x, &[axis])?])
}

/// `ArgMax`.
pub fn arg_max(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    extreme(b, call, |last| ReduceOp::ArgMax { last })
}

/// `ArgMin`.
pub fn arg_min(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    extreme(b, call, |last| ReduceOp::ArgMin { last })
}

fn global(b: &mut Builder, call: &Call<'_>, op: ReduceOp) -> Result<Vec<View>> {
    let x = call.input(0)?;
    ensure!(x.rank() >= 2, ShapeMismatch, "the operand has rank {}, not 2 or more", x.rank());
    let axes: Vec<usize> = (2..x.rank()).collect();
    if axes.is_empty() {
        return Ok(vec![x.clone()]);
    }
    let result = b.emit1(Reduce { op, axes: axes.clone() }, std::slice::from_ref(x))?;
    Ok(vec![keep_axes(result, &axes)])
}

/// `GlobalAveragePool`.
pub fn global_average_pool(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    global(b, call, ReduceOp::Mean)
}

/// `GlobalMaxPool`.
pub fn global_max_pool(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    global(b, call, ReduceOp::Max)
}

/// `CumSum`.
pub fn cum_sum(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let axis = call::axis(call.constant_int(b, 1)?, x.rank())?;
    let kernel = CumSum { axis, exclusive: call.flag("exclusive", false)?, reverse: call.flag("reverse", false)? };
    Ok(vec![b.emit1(kernel, &[x])?])
}

/// `TopK`: k is an attribute before opset 10.
pub fn top_k(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let axis = call.axis("axis", -1, x.rank())?;
    let k = match call.optional_int("k")? {
        Some(k) => k,
        None => call.constant_int(b, 1)?,
    };
    let k = call::extent(k, "k")?;
    ensure!(k <= x.shape[axis], ShapeMismatch, "k is {k} and axis {axis} has {}", x.shape[axis]);
    // Sorted results are a valid answer to `sorted = 0` too.
    call.flag("sorted", true)?;
    let largest = call.flag("largest", true)?;
    if k == 0 {
        let shape: Shape = x.shape.iter().enumerate().map(|(i, &extent)| if i == axis { 0 } else { extent }).collect();
        let zero = crate::ir::Scalar::Int(0);
        return Ok(vec![x.slice(axis, 0, 0, 1), b.fill(DType::I64, zero, &shape)?]);
    }
    b.emit(TopK { axis, k, largest }, &[x])
}
