//! Operators on shapes: they cost no step, but for a reshape that needs a copy.

use super::call::{self, Call};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Shape, Tensor, TensorType, element_count};
use crate::plan::builder::broadcast_shape;
use crate::plan::{Builder, View};

/// `Shape`, or since opset 15 a part of it.
pub fn shape(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let extents: Vec<i64> = call.input(0)?.shape.iter().map(|&extent| extent as i64).collect();
    let rank = extents.len() as i64;
    let clamp = |position: i64| if position < 0 { position.saturating_add(rank) } else { position }.clamp(0, rank);
    let (start, end) = (clamp(call.int("start", 0)?), clamp(call.int("end", rank)?));
    let part = extents.get(start as usize..end as usize).unwrap_or(&[]);
    Ok(vec![b.constant(Tensor::from_slice(&[part.len()], part))])
}

/// `Size`.
pub fn size(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let count = call.input(0)?.count() as i64;
    Ok(vec![b.constant(Tensor::scalar(count))])
}

/// `Reshape`: 0 copies an extent (unless `allowzero`), one -1 takes what is left.
pub fn reshape(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let target = call.constant_ints(b, 1)?;
    let allow_zero = call.flag("allowzero", false)?;
    let mut shape = Shape::new();
    let mut open = None;
    for (axis, &value) in target.iter().enumerate() {
        shape.push(match value {
            -1 => {
                ensure!(open.replace(axis).is_none(), Malformed, "the shape {target:?} has two open extents");
                1
            }
            0 if !allow_zero => *x.shape.get(axis).ok_or_else(|| {
                fail!(ShapeMismatch, "the shape {target:?} copies axis {axis} of a tensor of rank {}", x.rank())
            })?,
            value => call::extent(value, "an extent")?,
        });
    }
    let known = element_count(&shape)?;
    if let Some(axis) = open {
        let fits = known > 0 && x.count().is_multiple_of(known);
        ensure!(fits, ShapeMismatch, "cannot reshape {:?} to {target:?}", x.shape);
        shape[axis] = x.count() / known;
    }
    Ok(vec![b.reshape(x, &shape)?])
}

/// `Flatten` to two axes.
pub fn flatten(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let rank = x.rank() as i64;
    let axis = call.int("axis", 1)?;
    ensure!((-rank..=rank).contains(&axis), Malformed, "axis {axis} is outside a tensor of rank {rank}");
    let (outer, inner) = x.shape.split_at(if axis < 0 { axis + rank } else { axis } as usize);
    let shape = [outer.iter().product(), inner.iter().product()];
    Ok(vec![b.reshape(x, &shape)?])
}

/// `Squeeze`: axes are an attribute before opset 13; without axes, every axis of extent 1 goes.
pub fn squeeze(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let axes = match call.ints_or_constant(b, "axes", 1)? {
        Some(list) => call::axes(&list, x.rank())?,
        None => (0..x.rank()).filter(|&axis| x.shape[axis] == 1).collect(),
    };
    let mut view = x.clone();
    for &axis in axes.iter().rev() {
        ensure!(view.shape[axis] == 1, ShapeMismatch, "axis {axis} of {:?} is not 1", x.shape);
        view = view.remove_axis(axis);
    }
    Ok(vec![view])
}

/// `Unsqueeze`: axes are an attribute before opset 13, and count in the result.
pub fn unsqueeze(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let list = call.ints_or_constant(b, "axes", 1)?.ok_or_else(|| fail!(Malformed, "the axes are missing"))?;
    let axes = call::axes(&list, x.rank() + list.len())?;
    let view = axes.iter().fold(x.clone(), |view, &axis| view.insert_axis(axis));
    element_count(&view.shape)?;
    Ok(vec![view])
}

/// `Expand`: the shape and the operand broadcast against each other.
pub fn expand(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let target = call.constant_ints(b, 1)?;
    let target = target.iter().map(|&value| call::extent(value, "an extent")).collect::<Result<Shape>>()?;
    let shape = broadcast_shape(&x.shape, &target)?;
    element_count(&shape)?;
    Ok(vec![x.broadcast(&shape)?])
}

/// `ConstantOfShape`: a view that shows one value everywhere.
pub fn constant_of_shape(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let extents = call.constant_ints(b, 0)?;
    let shape = extents.iter().map(|&value| call::extent(value, "an extent")).collect::<Result<Shape>>()?;
    let (dtype, value) = match call.tensor("value")? {
        Some(tensor) => {
            ensure!(tensor.count() == 1, Malformed, "attribute 'value' has {} elements, not one", tensor.count());
            (tensor.dtype(), tensor.at(0))
        }
        None => (DType::F32, Scalar::Float(0.0)),
    };
    TensorType::new(dtype, shape.clone())?;
    Ok(vec![b.fill(dtype, value, &shape)?])
}

/// `Range` of integers or floats.
pub fn range(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let mut bounds = Vec::new();
    for index in 0..3 {
        let bound = call.constant(b, index)?;
        ensure!(bound.count() == 1, Malformed, "operand {index} has shape {:?}, not one element", bound.shape());
        bounds.push(bound);
    }
    let dtype = bounds[0].dtype();
    ensure!(bounds.iter().all(|bound| bound.dtype() == dtype), ShapeMismatch, "the operands differ in type");
    let values = match dtype {
        DType::I64 | DType::I32 => integers(b, dtype, [bounds[0].at(0), bounds[1].at(0), bounds[2].at(0)])?,
        DType::F32 | DType::F16 | DType::BF16 => floats(b, dtype, [bounds[0].at(0), bounds[1].at(0), bounds[2].at(0)])?,
        other => return Err(fail!(Unsupported, "element type {other} is not supported")),
    };
    Ok(vec![b.constant(values)])
}

fn integers(b: &mut Builder, dtype: DType, bounds: [Scalar; 3]) -> Result<Tensor> {
    let [start, limit, delta] = bounds.map(|bound| i128::from(bound.as_i64()));
    ensure!(delta != 0, Malformed, "operand 2 (delta) is 0");
    let steps = (limit - start) / delta + i128::from((limit - start) % delta != 0);
    let count = usize::try_from(steps.max(0)).unwrap_or(usize::MAX);
    // A quotient that truncates to 0 from below has been rounded up too far.
    let count = if (limit - start).signum() == delta.signum() { count } else { 0 };
    let bytes = TensorType::new(dtype, vec![count])?.bytes();
    b.charge(bytes, count as u64)?;
    let values = (0..count).map(|index| Scalar::Int((start + index as i128 * delta) as i64));
    Ok(Tensor::from_scalars(dtype, &[count], values))
}

fn floats(b: &mut Builder, dtype: DType, bounds: [Scalar; 3]) -> Result<Tensor> {
    let [start, limit, delta] = bounds.map(Scalar::as_f64);
    ensure!(delta != 0.0, Malformed, "operand 2 (delta) is 0");
    let count = ((limit - start) / delta).ceil();
    ensure!(count.is_finite(), Malformed, "the range from {start} to {limit} by {delta} has no end");
    let count = count.max(0.0) as usize;
    let bytes = TensorType::new(dtype, vec![count])?.bytes();
    b.charge(bytes, count as u64)?;
    let values = (0..count).map(|index| Scalar::Float(start + index as f64 * delta));
    Ok(Tensor::from_scalars(dtype, &[count], values))
}
