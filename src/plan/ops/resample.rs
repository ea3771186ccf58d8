//! `Resize` and `Upsample`: how large the result is. The weights are in [`super::taps`].

use super::call::{self, Call};
use super::taps::{AxisScale, Coordinates, Sampling};
use crate::error::{Result, ensure, fail};
use crate::ir::TensorType;
use crate::kernels::Resize;
use crate::plan::{Builder, View};

/// `Upsample`: scales are an attribute before opset 9.
pub fn upsample(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let scales = match call.floats("scales")? {
        [] => floats(b, call, 1)?,
        scales => scales.to_vec(),
    };
    let x = call.input(0)?;
    let axes = (0..x.rank()).collect::<Vec<_>>();
    let axes = scaled_axes(x, &axes, &scales, &[])?;
    Ok(vec![resample(b, call, axes)?])
}

/// `Resize`: by scales or to sizes.
pub fn resize(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let axes = match call.ints("axes")? {
        Some(list) => {
            call::axes(list, x.rank())?;
            list.iter().map(|&axis| call::axis(axis, x.rank())).collect::<Result<Vec<_>>>()?
        }
        None => (0..x.rank()).collect(),
    };
    if call.opset < 11 {
        let axes = scaled_axes(x, &axes, &floats(b, call, 1)?, &[])?;
        return Ok(vec![resample(b, call, axes)?]);
    }
    let crops = call.string("coordinate_transformation_mode", "half_pixel")? == "tf_crop_and_resize";
    let roi = if crops { floats(b, call, 1)? } else { Vec::new() };
    ensure!(!crops || roi.len() == 2 * axes.len(), Malformed, "{} regions for {} axes", roi.len(), axes.len());
    let scales = if call.optional(2).is_some() { floats(b, call, 2)? } else { Vec::new() };
    let sizes = call.optional(3).map(|_| call.constant_ints(b, 3)).transpose()?.unwrap_or_default();
    ensure!(scales.is_empty() != sizes.is_empty(), Malformed, "exactly one of scales and sizes must be given");
    let axes = if sizes.is_empty() {
        scaled_axes(x, &axes, &scales, &roi)?
    } else {
        sized_axes(call, x, &axes, &sizes, &roi)?
    };
    Ok(vec![resample(b, call, axes)?])
}

fn floats(b: &Builder, call: &Call<'_>, index: usize) -> Result<Vec<f32>> {
    Ok(call.constant(b, index)?.to_f64s().into_iter().map(|value| value as f32).collect())
}

fn region(roi: &[f32], index: usize, count: usize) -> (f32, f32) {
    if roi.is_empty() { (0.0, 1.0) } else { (roi[index], roi[count + index]) }
}

fn scaled_axes(x: &View, axes: &[usize], scales: &[f32], roi: &[f32]) -> Result<Vec<AxisScale>> {
    ensure!(scales.len() == axes.len(), Malformed, "{} scales for {} axes", scales.len(), axes.len());
    let scaled = axes.iter().zip(scales).enumerate().map(|(index, (&axis, &scale))| {
        ensure!(scale > 0.0 && scale.is_finite(), Malformed, "a scale is {scale}");
        let input = x.shape[axis];
        // In binary32, as runtimes agree: 0.7 * 10 is 7 there.
        let out = (input as f32 * scale).floor();
        let fits = out <= u32::MAX as f32;
        ensure!(fits, TooLarge, "axis {axis} of {input} is scaled by {scale}");
        Ok(AxisScale { axis, input, out: out as usize, scale, roi: region(roi, index, axes.len()) })
    });
    scaled.collect()
}

fn sized_axes(call: &Call<'_>, x: &View, axes: &[usize], sizes: &[i64], roi: &[f32]) -> Result<Vec<AxisScale>> {
    ensure!(sizes.len() == axes.len(), Malformed, "{} sizes for {} axes", sizes.len(), axes.len());
    let mut sized = Vec::new();
    for (index, (&axis, &size)) in axes.iter().zip(sizes).enumerate() {
        let (input, out) = (x.shape[axis], call::extent(size, "a size")?);
        ensure!(input > 0 || out == 0, ShapeMismatch, "axis {axis} is empty");
        ensure!(u32::try_from(out).is_ok(), TooLarge, "axis {axis} is resized to {out}");
        let scale = if input == 0 { 1.0 } else { out as f32 / input as f32 };
        sized.push(AxisScale { axis, input, out, scale, roi: region(roi, index, axes.len()) });
    }
    let scales = sized.iter().map(|axis| axis.scale);
    let common = match call.string("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => return Ok(sized),
        "not_larger" => scales.fold(f32::INFINITY, f32::min),
        "not_smaller" => scales.fold(0.0, f32::max),
        other => return Err(fail!(Unsupported, "attribute 'keep_aspect_ratio_policy' is '{other}'")),
    };
    for axis in &mut sized {
        axis.scale = common;
        let out = (axis.input as f32 * common + 0.5).floor();
        let fits = out <= u32::MAX as f32;
        ensure!(fits, TooLarge, "axis {} is resized to {out}", axis.axis);
        axis.out = out as usize;
    }
    Ok(sized)
}

fn resample(b: &mut Builder, call: &Call<'_>, mut axes: Vec<AxisScale>) -> Result<View> {
    let x = call.input(0)?.clone();
    let sampling = Sampling::from_attributes(call)?;
    axes.sort_by_key(|axis| axis.axis);
    axes.retain(|axis| !sampling.is_identity(axis));
    let mut shape = x.shape.clone();
    axes.iter().for_each(|axis| shape[axis.axis] = axis.out);
    TensorType::new(b.dtype(&x), shape)?;
    if axes.is_empty() {
        return Ok(x);
    }
    let (mut taps, mut outside) = (Vec::new(), Vec::new());
    for axis in &axes {
        let (axis_taps, flags) = sampling.taps(b, axis)?;
        taps.push(axis_taps);
        outside.push(flags);
    }
    let extrapolation = call.float("extrapolation_value", 0.0)?;
    let crops = sampling.coordinates == Coordinates::CropAndResize;
    let outside = (crops && outside.iter().flatten().any(|&flag| flag)).then_some((extrapolation, outside));
    b.emit1(Resize { axes: taps, outside }, &[x])
}
