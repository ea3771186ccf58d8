//! Normalisations.

use super::body::Body;
use super::call::{self, Call};
use super::reduction::keep_axes;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Shape};
use crate::kernels::{Binary, Norm, NormKind, Pool, PoolKind, Reduce, ReduceOp, Unary, Window};
use crate::plan::{Builder, View};

/// A vector over the channels as a view that broadcasts over `[N, C, ..]`.
fn over_channels(vector: &View, rank: usize) -> View {
    (2..rank).fold(vector.clone(), |view, _| view.insert_axis(view.rank()))
}

fn check_channels(call: &Call<'_>, operands: std::ops::Range<usize>, channels: usize) -> Result<()> {
    for index in operands {
        let shape = &call.input(index)?.shape;
        ensure!(shape == &[channels], ShapeMismatch, "operand {index} has shape {shape:?}, not [{channels}]");
    }
    Ok(())
}

/// `BatchNormalization`: `x scale + shift`, where scale and shift fold if the statistics are constant. In training mode the
/// statistics are the batch's own, and the running ones are moved towards them.
pub fn batch_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    ensure!(call.flag("spatial", true)?, Unsupported, "attribute 'spatial' is 0");
    ensure!(x.rank() >= 2, ShapeMismatch, "the operand has rank {}, not 2 or more", x.rank());
    check_channels(call, 1..5, x.shape[1])?;
    let momentum = call.float("momentum", 0.9)?;
    let (mean, variance) = (call.input(3)?.clone(), call.input(4)?.clone());
    if !call.flag("training_mode", false)? {
        return Ok(vec![scale_and_shift(b, call, &x, &mean, &variance)?]);
    }
    let axes = (0..x.rank()).filter(|&axis| axis != 1).collect();
    let (batch_mean, batch_variance) = moments(b, &x, axes)?;
    let y = scale_and_shift(b, call, &x, &batch_mean, &batch_variance)?;
    let mut results = vec![y];
    for (running, current) in [(mean, batch_mean), (variance, batch_variance)] {
        let mut body = Body::with_inputs(2);
        let (kept, taken) = (body.float(momentum), body.float(1.0 - momentum));
        let old = body.binary(Binary::Mul, 0, kept);
        let new = body.binary(Binary::Mul, 1, taken);
        body.binary(Binary::Add, old, new);
        let dtype = b.dtype(&running);
        results.push(b.map(&[&running, &current], body.finish(), dtype)?);
    }
    Ok(results)
}

/// `gamma (x - mean) / sqrt(variance + epsilon) + beta` per channel, as one factor and one addend in binary32.
fn scale_and_shift(b: &mut Builder, call: &Call<'_>, x: &View, mean: &View, variance: &View) -> Result<View> {
    let (gamma, beta) = (call.input(1)?, call.input(2)?);
    let mut body = Body::with_inputs(2);
    let epsilon = body.float(call.float("epsilon", 1e-5)?);
    let shifted = body.binary(Binary::Add, 1, epsilon);
    let deviation = body.unary(Unary::Sqrt, shifted);
    body.binary(Binary::Div, 0, deviation);
    let scale = b.map(&[gamma, variance], body.finish(), DType::F32)?;
    let mut body = Body::with_inputs(3);
    let product = body.binary(Binary::Mul, 1, 2);
    body.binary(Binary::Sub, 0, product);
    let shift = b.map(&[beta, mean, &scale], body.finish(), DType::F32)?;
    let mut body = Body::with_inputs(3);
    let product = body.binary(Binary::Mul, 0, 1);
    body.binary(Binary::Add, product, 2);
    let (scale, shift) = (over_channels(&scale, x.rank()), over_channels(&shift, x.rank()));
    b.map(&[x, &scale, &shift], body.finish(), b.dtype(x))
}

/// Mean and (biased) variance over some axes, which vanish, in binary32.
fn moments(b: &mut Builder, x: &View, axes: Shape) -> Result<(View, View)> {
    let x = b.cast(x, DType::F32)?;
    let average = Reduce { op: ReduceOp::Mean, axes: axes.clone() };
    let mean = b.emit1(average.clone(), std::slice::from_ref(&x))?;
    let centred = b.binary(Binary::Sub, &x, &keep_axes(mean.clone(), &axes))?;
    let squares = b.binary(Binary::Mul, &centred, &centred)?;
    let variance = b.emit1(average, &[squares])?;
    Ok((mean, variance))
}

/// The norm over the last axes; without a bias it is 0.
pub fn norm(b: &mut Builder, kernel: Norm, x: &View, scale: &View, bias: Option<&View>) -> Result<View> {
    let zero = b.fill(b.dtype(x), Scalar::Float(0.0), &[])?;
    let bias = bias.unwrap_or(&zero);
    b.emit1(kernel, &[x.clone(), scale.broadcast(&x.shape)?, bias.broadcast(&x.shape)?])
}

/// `InstanceNormalization`.
pub fn instance_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    ensure!(x.rank() >= 3, ShapeMismatch, "the operand has rank {}, not 3 or more", x.rank());
    check_channels(call, 1..3, x.shape[1])?;
    let kernel = Norm { kind: NormKind::Layer, axes: x.rank() - 2, epsilon: call.float("epsilon", 1e-5)? };
    let (scale, bias) = (over_channels(call.input(1)?, x.rank()), over_channels(call.input(2)?, x.rank()));
    Ok(vec![norm(b, kernel, x, &scale, Some(&bias))?])
}

/// `GroupNormalization`: scale and bias are per channel, before opset 21 per group.
pub fn group_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    call.int("stash_type", 1)?;
    ensure!(x.rank() >= 3, ShapeMismatch, "the operand has rank {}, not 3 or more", x.rank());
    let groups = call::extent(call.required_int("num_groups")?, "attribute 'num_groups'")?;
    let channels = x.shape[1];
    let fits = groups > 0 && channels.is_multiple_of(groups);
    ensure!(fits, ShapeMismatch, "{channels} channels do not split into {groups} groups");
    let per_group = call.opset < 21;
    check_channels(call, 1..3, if per_group { groups } else { channels })?;
    let members = channels / groups;
    let grouped = b.reshape(&x, &[&[x.shape[0], groups, members], &x.shape[2..]].concat())?;
    let mut factors = Vec::new();
    for index in 1..3 {
        let vector = call.input(index)?.clone();
        let matrix = b.reshape(&vector, &[groups, if per_group { 1 } else { members }])?;
        factors.push((2..x.rank()).fold(matrix, |view, _| view.insert_axis(view.rank())));
    }
    let kernel = Norm { kind: NormKind::Layer, axes: x.rank() - 1, epsilon: call.float("epsilon", 1e-5)? };
    let result = norm(b, kernel, &grouped, &factors[0], Some(&factors[1]))?;
    Ok(vec![b.reshape(&result, &x.shape)?])
}

/// `LayerNormalization`; mean and inverse standard deviation only if the node wants them.
pub fn layer_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    call.int("stash_type", 1)?;
    let axis = call.axis("axis", -1, x.rank())?;
    let epsilon = call.float("epsilon", 1e-5)?;
    let kernel = Norm { kind: NormKind::Layer, axes: x.rank() - axis, epsilon };
    let mut results = vec![norm(b, kernel, &x, call.input(1)?, call.optional(2))?];
    if call.outputs_wanted(1) || call.outputs_wanted(2) {
        results.extend(statistics(b, &x, axis, epsilon)?);
    }
    Ok(results)
}

/// Mean and inverse standard deviation over the axes from `axis` on, in binary32.
fn statistics(b: &mut Builder, x: &View, axis: usize, epsilon: f32) -> Result<[View; 2]> {
    let axes: Shape = (axis..x.rank()).collect();
    let (mean, variance) = moments(b, x, axes.clone())?;
    let (mean, variance) = (keep_axes(mean, &axes), keep_axes(variance, &axes));
    let mut body = Body::with_inputs(1);
    let epsilon = body.float(epsilon);
    let shifted = body.binary(Binary::Add, 0, epsilon);
    let deviation = body.unary(Unary::Sqrt, shifted);
    body.unary(Unary::Reciprocal, deviation);
    let inverse = b.map(&[&variance], body.finish(), DType::F32)?;
    Ok([mean, inverse])
}

/// `RMSNormalization`.
pub fn rms_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    call.int("stash_type", 1)?;
    let axes = x.rank() - call.axis("axis", -1, x.rank())?;
    let kernel = Norm { kind: NormKind::Rms, axes, epsilon: call.float("epsilon", 1e-5)? };
    Ok(vec![norm(b, kernel, x, call.input(1)?, None)?])
}

/// `LpNormalization`: the quotient of x and its norm along an axis, 0 where that is 0.
pub fn lp_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let axes = vec![call.axis("axis", -1, x.rank())?];
    let norm = match call.int("p", 2)? {
        1 => {
            let magnitudes = b.unary(Unary::Abs, &x)?;
            b.emit1(Reduce { op: ReduceOp::Sum, axes: axes.clone() }, &[magnitudes])?
        }
        2 => b.emit1(Reduce { op: ReduceOp::L2, axes: axes.clone() }, std::slice::from_ref(&x))?,
        other => return Err(fail!(Unsupported, "attribute 'p' is {other}")),
    };
    let mut body = Body::with_inputs(2);
    let zero = body.float(0.0);
    let quotient = body.binary(Binary::Div, 0, 1);
    let flat = body.binary(Binary::Equal, 1, zero);
    body.select(flat, zero, quotient);
    let dtype = b.dtype(&x);
    Ok(vec![b.map(&[&x, &keep_axes(norm, &axes)], body.finish(), dtype)?])
}

/// `LRN` (Krizhevsky et al., 2012): `x / (bias + alpha mean)^beta`, the mean of squares over `size` channels around each.
pub fn local_response(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    ensure!(x.rank() >= 2, ShapeMismatch, "the operand has rank {}, not 2 or more", x.rank());
    let size = call::extent(call.required_int("size")?, "attribute 'size'")?;
    ensure!((1..1 << 31).contains(&size), Malformed, "attribute 'size' is {size}");
    let (channels, inner) = (x.shape[1], x.shape[2..].iter().product());
    let squares = b.binary(Binary::Mul, &x, &x)?;
    let planes = b.reshape(&squares, &[x.shape[0], 1, channels, inner])?;
    let window = Window {
        kernel: vec![size, 1],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads_begin: vec![(size - 1) / 2, 0],
        pads_end: vec![size / 2, 0],
    };
    let pool = Pool { kind: PoolKind::AverageIncludingPads, window, out: vec![channels, inner], indices: None };
    let mean = b.emit1(pool, &[planes])?;
    let mean = b.reshape(&mean, &x.shape)?;
    let mut body = Body::with_inputs(2);
    let (alpha, bias) = (body.float(call.float("alpha", 1e-4)?), body.float(call.float("bias", 1.0)?));
    let beta = body.float(call.float("beta", 0.75)?);
    let scaled = body.binary(Binary::Mul, 1, alpha);
    let sum = body.binary(Binary::Add, scaled, bias);
    let power = body.binary(Binary::Pow, sum, beta);
    body.binary(Binary::Div, 0, power);
    let dtype = b.dtype(&x);
    Ok(vec![b.map(&[&x, &mean], body.finish(), dtype)?])
}
