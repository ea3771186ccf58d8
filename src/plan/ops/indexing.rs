//! Indexed reads and writes, and the masks that are made of positions.

use super::body::Body;
use super::call::{self, Call};
use super::elementwise::element_type;
use super::movement;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Shape, Tensor, TensorType, element_count};
use crate::kernels::{Binary, Gather, GatherElements, GatherNd, Instr, ScatterNd, ScatterOp};
use crate::plan::{Builder, View};

/// `Gather`: with constant, evenly spaced indices a slice, else a step.
pub fn gather(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let data = call.input(0)?;
    let axis = call.axis("axis", 0, data.rank())?;
    Ok(vec![pick(b, data, call.input(1)?, axis)?])
}

/// `ArrayFeatureExtractor` of `ai.onnx.ml`: columns of the operand; a vector is one row.
pub fn array_feature_extractor(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    ensure!(data.rank() > 0, ShapeMismatch, "columns of a scalar");
    let data = if data.rank() == 1 { data.insert_axis(0) } else { data.clone() };
    let indices = b.reshape(indices, &[indices.count()])?;
    Ok(vec![pick(b, &data, &indices, data.rank() - 1)?])
}

/// The elements of `data` that indices name along an axis, which the indices' axes replace.
pub fn pick(b: &mut Builder, data: &View, indices: &View, axis: usize) -> Result<View> {
    let shape = [&data.shape[..axis], &indices.shape, &data.shape[axis + 1..]].concat();
    element_count(&shape)?;
    if let Some(known) = b.value(indices)?
        && indices.count() > 0
    {
        let positions = positions(&known, data.shape[axis])?;
        if let Some((start, step)) = even_spacing(&positions) {
            let view = data.slice(axis, start, positions.len(), step);
            return b.reshape(&view, &shape);
        }
    }
    b.emit1(Gather { axis }, &[data.clone(), indices.clone()])
}

/// The positions on an axis of `extent` that indices name, negative ones counting from the end.
fn positions(indices: &Tensor, extent: usize) -> Result<Vec<usize>> {
    let resolve = |index: i64| {
        let position = if index < 0 { index.checked_add(extent as i64) } else { Some(index) };
        let position = position.filter(|position| (0..extent as i64).contains(position));
        position.map(|position| position as usize)
    };
    let named = indices.scalars().map(|index| {
        let index = index.as_i64();
        resolve(index).ok_or_else(|| fail!(Malformed, "index {index} is outside an axis of {extent}"))
    });
    named.collect()
}

/// First position and distance, if the positions are evenly spaced and different.
fn even_spacing(positions: &[usize]) -> Option<(usize, isize)> {
    let (first, rest) = positions.split_first()?;
    let step = rest.first().map_or(1, |second| *second as isize - *first as isize);
    let even = positions.windows(2).all(|pair| pair[1] as isize - pair[0] as isize == step);
    (even && step != 0).then_some((*first, step))
}

/// `GatherElements`.
pub fn gather_elements(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (data, indices) = (call.input(0)?.clone(), call.input(1)?.clone());
    let axis = call.axis("axis", 0, data.rank())?;
    Ok(vec![b.emit1(GatherElements { axis }, &[data, indices])?])
}

/// `GatherND`.
pub fn gather_nd(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (data, indices) = (call.input(0)?.clone(), call.input(1)?.clone());
    let batch_dims = call::extent(call.int("batch_dims", 0)?, "attribute 'batch_dims'")?;
    Ok(vec![b.emit1(GatherNd { batch_dims }, &[data, indices])?])
}

fn scatter_op(call: &Call<'_>) -> Result<ScatterOp> {
    Ok(match call.string("reduction", "none")? {
        "none" => ScatterOp::Set,
        "add" => ScatterOp::Add,
        "mul" => ScatterOp::Mul,
        "max" => ScatterOp::Max,
        "min" => ScatterOp::Min,
        other => return Err(fail!(Unsupported, "attribute 'reduction' is '{other}'")),
    })
}

/// `ScatterElements`: a `ScatterND` whose index along every other axis is the update's own position.
pub fn scatter_elements(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let op = scatter_op(call)?;
    let (data, indices, updates) = (call.input(0)?.clone(), call.input(1)?.clone(), call.input(2)?.clone());
    let (axis, rank) = (call.axis("axis", 0, data.rank())?, data.rank());
    let fits = indices.shape == updates.shape
        && indices.rank() == rank
        && (0..rank).all(|other| other == axis || indices.shape[other] <= data.shape[other]);
    ensure!(fits, ShapeMismatch, "{:?} at {:?} of {:?}", updates.shape, indices.shape, data.shape);
    let mut places = Vec::with_capacity(rank);
    for other in 0..rank {
        let place = if other == axis {
            b.cast(&indices, DType::I64)?
        } else {
            let mut along: Shape = vec![1; rank];
            along[other] = indices.shape[other];
            let positions = iota(b, indices.shape[other])?;
            b.reshape(&positions, &along)?.broadcast(&indices.shape)?
        };
        places.push(place.insert_axis(rank));
    }
    let places = movement::join(b, &places, rank)?;
    Ok(vec![b.emit1(ScatterNd { op }, &[data, places, updates])?])
}

/// `ScatterND`.
pub fn scatter_nd(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let op = scatter_op(call)?;
    let operands = [call.input(0)?.clone(), call.input(1)?.clone(), call.input(2)?.clone()];
    Ok(vec![b.emit1(ScatterNd { op }, &operands)?])
}

/// `OneHot`: a comparison with the positions along a new axis. An index outside `-depth..depth` gives no hot element.
pub fn one_hot(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (indices, values) = (call.input(0)?.clone(), call.input(2)?.clone());
    let depth = call.constant(b, 1)?;
    ensure!(depth.count() == 1, Malformed, "operand 1 has shape {:?}, not one element", depth.shape());
    let depth = call::extent(depth.at(0).as_i64(), "the depth")?;
    ensure!(values.shape == [2], ShapeMismatch, "operand 2 has shape {:?}, not [2]", values.shape);
    let axis = call.axis("axis", -1, indices.rank() + 1)?;
    let mut shape = indices.shape.clone();
    shape.insert(axis, depth);
    let dtype = b.dtype(&values);
    TensorType::new(dtype, shape.clone())?;
    let positions = iota(b, depth)?;
    let mut along: Shape = vec![1; shape.len()];
    along[axis] = depth;
    let positions = b.reshape(&positions, &along)?;
    let indices = b.cast(&indices, DType::I64)?.insert_axis(axis);
    let scalar = |index| values.slice(0, index, 1, 1).remove_axis(0);
    let mut body = Body::with_inputs(4);
    let depth = body.number(DType::I64, depth as f64);
    let zero = body.number(DType::I64, 0.0);
    let wrapped = body.binary(Binary::Add, 0, depth);
    let negative = body.binary(Binary::Less, 0, zero);
    let index = body.select(negative, wrapped, 0);
    let hot = body.binary(Binary::Equal, index, 1);
    body.select(hot, 3, 2);
    Ok(vec![b.map(&[&indices, &positions, &scalar(0), &scalar(1)], body.finish(), dtype)?])
}

/// `EyeLike`: ones on diagonal `k`, in the operand's type unless the node names one.
pub fn eye_like(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    ensure!(x.rank() == 2, ShapeMismatch, "the operand has rank {}, not 2", x.rank());
    let diagonal = call.int("k", 0)?;
    let dtype = call.optional_int("dtype")?.map_or(Ok(b.dtype(x)), element_type)?;
    let mask = diagonal_mask(b, x.shape[0], x.shape[1], |distance| distance == diagonal)?;
    Ok(vec![b.cast(&mask, dtype)?])
}

/// `NonZero` of a value known while planning, by which old exporters write ranges: one row per axis, one column per element
/// that is not 0.
pub fn non_zero(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let known = call.constant(b, 0)?;
    let shape = if known.shape().is_empty() { &[1] } else { known.shape() };
    let found: Vec<usize> = known.scalars().enumerate().filter(|(_, x)| x.as_f64() != 0.0).map(|(at, _)| at).collect();
    let count = found.len() * shape.len();
    b.charge(TensorType::new(DType::I64, vec![count])?.bytes(), count as u64)?;
    let mut positions = Vec::with_capacity(count);
    let mut inner: usize = shape.iter().product();
    for &extent in shape {
        inner /= extent.max(1);
        positions.extend(found.iter().map(|at| (at / inner.max(1) % extent.max(1)) as i64));
    }
    Ok(vec![b.constant(Tensor::from_slice(&[shape.len(), found.len()], &positions))])
}

/// `ReverseSequence`: along one axis, the first so many elements of each position on another in reverse.
pub fn reverse_sequence(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (x, lengths) = (call.input(0)?.clone(), call.input(1)?.clone());
    let (time, batch) = (call.axis("time_axis", 0, x.rank())?, call.axis("batch_axis", 1, x.rank())?);
    ensure!(time != batch, Malformed, "attributes 'time_axis' and 'batch_axis' are both {time}");
    let fits = lengths.shape == [x.shape[batch]];
    ensure!(fits, ShapeMismatch, "{:?} lengths for axis {batch} of {:?}", lengths.shape, x.shape);
    let along = |axis: usize, count: usize| {
        let mut shape: Shape = vec![1; x.rank()];
        shape[axis] = count;
        shape
    };
    let positions = iota(b, x.shape[time])?;
    let positions = b.reshape(&positions, &along(time, x.shape[time]))?;
    let lengths = b.cast(&lengths, DType::I64)?;
    let lengths = b.reshape(&lengths, &along(batch, x.shape[batch]))?;
    let mut body = Body::with_inputs(2);
    let one = body.number(DType::I64, 1.0);
    let last = body.binary(Binary::Sub, 1, one);
    let mirrored = body.binary(Binary::Sub, last, 0);
    let inside = body.binary(Binary::Less, 0, 1);
    body.select(inside, mirrored, 0);
    let source = b.map(&[&positions, &lengths], body.finish(), DType::I64)?.broadcast(&x.shape)?;
    Ok(vec![b.emit1(GatherElements { axis: time }, &[x, source])?])
}

/// The constant 0, 1, 2, ...
pub fn iota(b: &mut Builder, count: usize) -> Result<View> {
    b.charge(TensorType::new(DType::I64, vec![count])?.bytes(), count as u64)?;
    let values: Vec<i64> = (0..count as i64).collect();
    Ok(b.constant(Tensor::from_slice(&[count], &values)))
}

/// `Trilu`: what lies on the wrong side of diagonal `k` becomes 0.
pub fn trilu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let dtype = b.dtype(x);
    ensure!(x.rank() >= 2, ShapeMismatch, "the operand has rank {}, not 2 or more", x.rank());
    let upper = call.flag("upper", true)?;
    let diagonal = call.optional(1).map(|_| call.constant_int(b, 1)).transpose()?.unwrap_or(0);
    let (rows, columns) = (x.shape[x.rank() - 2], x.shape[x.rank() - 1]);
    let mask =
        diagonal_mask(b, rows, columns, |distance| if upper { distance >= diagonal } else { distance <= diagonal })?;
    let mut body = vec![Instr::Input(0), Instr::Input(1)];
    let register = if dtype.is_float() { DType::F32 } else { dtype };
    body.push(Instr::Const(register, zero(dtype)));
    body.push(Instr::Select(0, 1, 2));
    Ok(vec![b.map(&[&mask, x], body, dtype)?])
}

fn zero(dtype: DType) -> crate::ir::Scalar {
    if dtype.is_float() { crate::ir::Scalar::Float(0.0) } else { crate::ir::Scalar::Int(0) }
}

/// A `[rows, columns]` view whose element (i, j) depends on j - i only: one constant vector, read with the row stride -1.
pub fn diagonal_mask(b: &mut Builder, rows: usize, columns: usize, keep: impl Fn(i64) -> bool) -> Result<View> {
    let count = (rows + columns).saturating_sub(1);
    b.charge(TensorType::new(DType::Bool, vec![count])?.bytes(), count as u64)?;
    let first = 1 - rows as i64;
    let values: Vec<bool> = (0..count as i64).map(|index| keep(first + index)).collect();
    let vector = b.constant(Tensor::from_slice(&[count], &values));
    Ok(View { tensor: vector.tensor, offset: rows.saturating_sub(1), shape: vec![rows, columns], strides: vec![-1, 1] })
}
