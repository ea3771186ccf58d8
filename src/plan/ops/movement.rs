//! Operators that move elements: view arithmetic, and copies into views of their result where that is not enough.

use super::call::{self, Call};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Shape, Tensor, TensorType, element_count};
use crate::kernels::Gather;
use crate::limits::RANK_MAX;
use crate::plan::{Builder, View};

/// `Transpose`; without `perm` the axes are reversed.
pub fn transpose(_: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let order = match call.ints("perm")? {
        None => (0..x.rank()).rev().collect(),
        Some(list) => {
            let order = list.iter().map(|&axis| call::axis(axis, x.rank())).collect::<Result<Vec<_>>>()?;
            ensure!(call::axes(list, x.rank())?.len() == x.rank(), Malformed, "attribute 'perm' is {list:?}");
            order
        }
    };
    Ok(vec![x.permute(&order)])
}

/// `Slice`: starts, ends and axes are attributes before opset 10.
pub fn slice(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let missing = |what: &str| fail!(Malformed, "the {what} are missing");
    let starts = call.ints_or_constant(b, "starts", 1)?.ok_or_else(|| missing("starts"))?;
    let ends = call.ints_or_constant(b, "ends", 2)?.ok_or_else(|| missing("ends"))?;
    let axes = call.ints_or_constant(b, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.optional(4).map(|_| call.constant_ints(b, 4)).transpose()?;
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    let agree = ends.len() == starts.len() && axes.len() == starts.len() && steps.len() == starts.len();
    ensure!(agree, Malformed, "starts, ends, axes and steps differ in length");
    let mut view = call.input(0)?.clone();
    call::axes(&axes, view.rank())?;
    for (index, &axis) in axes.iter().enumerate() {
        let axis = call::axis(axis, view.rank())?;
        let (start, len) = slice_range(starts[index], ends[index], steps[index], view.shape[axis])?;
        // A step beyond the axis takes one element at most; leaving it out keeps strides small.
        let step = if len > 1 { steps[index] as isize } else { 1 };
        view = view.slice(axis, start, len, step);
    }
    Ok(vec![view])
}

/// First position and number of elements of a slice of an axis. Unlike Python's, one that goes down from before the
/// beginning has the first element.
fn slice_range(start: i64, end: i64, step: i64, extent: usize) -> Result<(usize, usize)> {
    ensure!(step != 0, Malformed, "a step is 0");
    if extent == 0 {
        return Ok((0, 0));
    }
    let extent = extent as i64;
    let from_end = |position: i64| if position < 0 { position.saturating_add(extent) } else { position };
    let (start, end) = if step > 0 {
        (from_end(start).clamp(0, extent), from_end(end).clamp(0, extent))
    } else {
        (from_end(start).clamp(0, extent - 1), from_end(end).clamp(-1, extent - 1))
    };
    let distance = if step > 0 { end - start } else { start - end };
    let len = if distance > 0 { (distance as u64 - 1) / step.unsigned_abs() + 1 } else { 0 };
    Ok((start as usize, len as usize))
}

/// `Split`: sizes from an attribute (before opset 13), an operand, or even.
pub fn split(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let axis = call.axis("axis", 0, x.rank())?;
    let extent = x.shape[axis];
    let outputs = call.node.outputs.len();
    let sizes = match call.ints_or_constant(b, "split", 1)? {
        Some(sizes) => sizes.iter().map(|&size| call::extent(size, "a size")).collect::<Result<Vec<_>>>()?,
        None => {
            let parts = call::extent(call.int("num_outputs", outputs as i64)?, "attribute 'num_outputs'")?;
            ensure!(parts == outputs && parts > 0, Malformed, "{parts} parts for {outputs} outputs");
            let even = call.opset >= 18 || extent.is_multiple_of(parts);
            ensure!(even, ShapeMismatch, "an axis of {extent} does not split into {parts} equal parts");
            let size = extent.div_ceil(parts);
            (0..parts).map(|part| size.min(extent.saturating_sub(part * size))).collect()
        }
    };
    let total = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    let fits = total == Some(extent) && sizes.len() == outputs;
    ensure!(fits, ShapeMismatch, "sizes {sizes:?} do not split an axis of {extent} for {outputs} outputs");
    let mut start = 0;
    let parts = sizes.iter().map(|&size| {
        let part = x.slice(axis, start, size, 1);
        start += size;
        part
    });
    Ok(parts.collect())
}

/// `Concat`.
pub fn concat(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let parts = call.variadic()?;
    let axis = call::axis(call.required_int("axis")?, parts[0].rank())?;
    Ok(vec![join(b, &parts, axis)?])
}

/// The parts one after the other along an axis.
pub fn join(b: &mut Builder, parts: &[View], axis: usize) -> Result<View> {
    let mut shape = parts[0].shape.clone();
    shape[axis] = 0;
    for part in parts {
        let fits = part.rank() == shape.len() && (0..shape.len()).all(|i| i == axis || part.shape[i] == shape[i]);
        ensure!(fits, ShapeMismatch, "shapes {:?} and {:?} do not join along axis {axis}", parts[0].shape, part.shape);
        shape[axis] += part.shape[axis];
    }
    let filled: Vec<View> = parts.iter().filter(|part| part.shape[axis] > 0).cloned().collect();
    if let [only] = filled.as_slice() {
        return Ok(only.clone());
    }
    let dtype = b.dtype(&parts[0]);
    b.assemble(TensorType { dtype, shape }, &filled, |whole| {
        let mut start = 0;
        let places = filled.iter().map(|part| {
            let place = whole.slice(axis, start, part.shape[axis], 1);
            start += part.shape[axis];
            place
        });
        places.collect()
    })
}

/// `Tile`: every axis repeats as a broadcast axis before it, and one copy merges the two.
pub fn tile(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let repeats = call.constant_ints(b, 1)?;
    ensure!(repeats.len() == x.rank(), ShapeMismatch, "{} repeats for rank {}", repeats.len(), x.rank());
    let repeats = repeats.iter().map(|&count| call::extent(count, "a repeat")).collect::<Result<Shape>>()?;
    let dims = x.shape.iter().zip(&repeats);
    let shape = dims.map(|(&extent, &count)| extent.checked_mul(count)).collect::<Option<Shape>>();
    let shape = shape.ok_or_else(|| fail!(TooLarge, "{:?} repeated {repeats:?} times", x.shape))?;
    TensorType::new(b.dtype(&x), shape.clone())?;
    let mut view = x.clone();
    let mut spread = Shape::new();
    for (axis, &count) in repeats.iter().enumerate() {
        if count != 1 && x.shape[axis] != 1 {
            view = view.insert_axis(spread.len());
            spread.push(count);
        }
        spread.push(if x.shape[axis] == 1 { count } else { x.shape[axis] });
    }
    ensure!(spread.len() <= RANK_MAX, TooLarge, "{:?} repeats on too many axes", x.shape);
    let view = view.broadcast(&spread)?;
    Ok(vec![b.reshape(&view, &shape)?])
}

/// `Pad`: amounts are an attribute before opset 11; negative ones crop.
pub fn pad(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let amounts = call.ints_or_constant(b, "pads", 1)?.ok_or_else(|| fail!(Malformed, "the pads are missing"))?;
    let axes = match call.optional(3) {
        Some(_) => call.constant_ints(b, 3)?,
        None => (0..x.rank() as i64).collect(),
    };
    ensure!(amounts.len() == 2 * axes.len(), Malformed, "{} pads for {} axes", amounts.len(), axes.len());
    call::axes(&axes, x.rank())?;
    let mut pads = vec![(0i64, 0i64); x.rank()];
    for (index, &axis) in axes.iter().enumerate() {
        pads[call::axis(axis, x.rank())?] = (amounts[index], amounts[axes.len() + index]);
    }
    let view = match call.string("mode", "constant")? {
        "constant" => {
            let value = fill_value(b, call)?;
            pad_constant(b, x, &pads, &value)?
        }
        mode @ ("edge" | "reflect" | "wrap") => {
            let mut view = x.clone();
            for (axis, &(before, after)) in pads.iter().enumerate() {
                view = pad_axis(b, &view, axis, before, after, mode)?;
            }
            view
        }
        other => return Err(fail!(Unsupported, "attribute 'mode' is '{other}'")),
    };
    Ok(vec![view])
}

/// The rank-0 view of what `Pad` pads with.
fn fill_value(b: &mut Builder, call: &Call<'_>) -> Result<View> {
    let dtype = b.dtype(call.input(0)?);
    match call.optional(2) {
        Some(value) => {
            ensure!(value.count() == 1, Malformed, "operand 2 has shape {:?}, not one element", value.shape);
            b.reshape(value, &[])
        }
        None => {
            let value = Scalar::Float(call.float("value", 0.0)?.into());
            b.fill(dtype, if dtype.is_float() { value } else { Scalar::Int(value.as_i64()) }, &[])
        }
    }
}

/// Pads with the element `value` by (before, after) per axis; negative amounts crop.
pub fn pad_constant(b: &mut Builder, x: &View, pads: &[(i64, i64)], value: &View) -> Result<View> {
    let mut inner = x.clone();
    let mut shape = Shape::new();
    // Per axis where the operand's elements begin in the result.
    let mut begin = Shape::new();
    for (axis, &(before, after)) in pads.iter().enumerate() {
        inner = crop(&inner, axis, before.min(0), after.min(0))?;
        let extent = inner.shape[axis] as i128 + i128::from(before.max(0)) + i128::from(after.max(0));
        shape.push(usize::try_from(extent).map_err(|_| fail!(TooLarge, "axis {axis} is padded to {extent}"))?);
        begin.push(before.max(0) as usize);
    }
    element_count(&shape)?;
    if shape == inner.shape {
        return Ok(inner);
    }
    let (mut pieces, mut places) = (vec![inner.clone()], vec![(begin.clone(), inner.shape.clone())]);
    // The border in disjoint slabs: along each axis, what lies inside on the axes before it and anywhere on those after.
    for axis in 0..shape.len() {
        let end = begin[axis] + inner.shape[axis];
        for (start, len) in [(0, begin[axis]), (end, shape[axis] - end)] {
            let mut corner: Shape = begin[..axis].to_vec();
            corner.resize(shape.len(), 0);
            corner[axis] = start;
            let mut extents = [&inner.shape[..axis], &shape[axis..]].concat();
            extents[axis] = len;
            pieces.push(value.broadcast(&extents)?);
            places.push((corner, extents));
        }
    }
    let dtype = b.dtype(x);
    b.assemble(TensorType { dtype, shape }, &pieces, |whole| {
        let place = |(corner, extents): &(Shape, Shape)| {
            (0..corner.len()).fold(whole.clone(), |view, axis| view.slice(axis, corner[axis], extents[axis], 1))
        };
        places.iter().map(place).collect()
    })
}

/// Cuts off the axis what negative amounts ask for.
fn crop(x: &View, axis: usize, before: i64, after: i64) -> Result<View> {
    let extent = x.shape[axis] as i128 + i128::from(before) + i128::from(after);
    ensure!(extent >= 0, ShapeMismatch, "pads ({before}, {after}) crop more than the {} of axis {axis}", x.shape[axis]);
    Ok(if (before, after) == (0, 0) {
        x.clone()
    } else {
        x.slice(axis, before.unsigned_abs() as usize, extent as usize, 1)
    })
}

/// Pads one axis with copies of its own elements.
fn pad_axis(b: &mut Builder, x: &View, axis: usize, before: i64, after: i64, mode: &str) -> Result<View> {
    let view = crop(x, axis, before.min(0), after.min(0))?;
    let (before, after) = (before.max(0), after.max(0));
    if (before, after) == (0, 0) {
        return Ok(view);
    }
    let extent = view.shape[axis];
    ensure!(extent > 0, ShapeMismatch, "mode '{mode}' cannot pad the empty axis {axis}");
    let padded = (extent as i64).checked_add(before).and_then(|sum| sum.checked_add(after));
    let padded = padded.ok_or_else(|| fail!(TooLarge, "axis {axis} is padded by {before} and {after}"))?;
    let mut shape = view.shape.clone();
    shape[axis] = padded as usize;
    TensorType::new(b.dtype(x), shape)?;
    b.charge(TensorType::new(DType::I64, vec![padded as usize])?.bytes(), padded as u64)?;
    let last = extent as i64 - 1;
    let source = |position: i64| match mode {
        "edge" => position.clamp(0, last),
        "wrap" => position.rem_euclid(extent as i64),
        _ if last == 0 => 0,
        _ => last - (position.rem_euclid(2 * last) - last).abs(),
    };
    let indices: Vec<i64> = (0..padded).map(|position| source(position - before)).collect();
    let indices = b.constant(Tensor::from_slice(&[indices.len()], &indices));
    b.emit1(Gather { axis }, &[view, indices])
}

/// `DepthToSpace`.
pub fn depth_to_space(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let [n, c, h, w] = four_axes(&x)?;
    let block = block_size(call)?;
    let depth = block.checked_mul(block).filter(|&area| c.is_multiple_of(area)).map(|area| c / area);
    let depth = depth.ok_or_else(|| fail!(ShapeMismatch, "{c} channels do not split into blocks of {block}"))?;
    let (split, order) = match call.string("mode", "DCR")? {
        "DCR" => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        other => return Err(fail!(Unsupported, "attribute 'mode' is '{other}'")),
    };
    let view = b.reshape(&x, &split)?.permute(&order);
    Ok(vec![b.reshape(&view, &[n, depth, h * block, w * block])?])
}

/// `SpaceToDepth`.
pub fn space_to_depth(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let [n, c, h, w] = four_axes(&x)?;
    let block = block_size(call)?;
    let fits = h.is_multiple_of(block) && w.is_multiple_of(block);
    ensure!(fits, ShapeMismatch, "{h} x {w} does not split into blocks of {block}");
    let (rows, columns) = (h / block, w / block);
    let order = match call.string("mode", "DCR")? {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => return Err(fail!(Unsupported, "attribute 'mode' is '{other}'")),
    };
    let view = b.reshape(&x, &[n, c, rows, block, columns, block])?.permute(&order);
    Ok(vec![b.reshape(&view, &[n, block * block * c, rows, columns])?])
}

fn four_axes(x: &View) -> Result<[usize; 4]> {
    x.shape.as_slice().try_into().map_err(|_| fail!(ShapeMismatch, "the operand has rank {}, not 4", x.rank()))
}

fn block_size(call: &Call<'_>) -> Result<usize> {
    let block = call.required_int("blocksize")?;
    ensure!((1..=1 << 16).contains(&block), Malformed, "attribute 'blocksize' is {block}");
    Ok(block as usize)
}
