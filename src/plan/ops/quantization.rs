//! Linear quantisation and integer products.

use super::body::Body;
use super::call::Call;
use super::contraction;
use super::convolution::convolve;
use super::elementwise::element_type;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Shape};
use crate::kernels::{Binary, Reduce, ReduceOp, Reg, Unary};
use crate::plan::{Builder, View};

/// Scale or zero point as a view of the operand's shape: one for all, one per position of `axis`, or one per block.
fn spread(b: &mut Builder, call: &Call<'_>, x: &View, factor: &View) -> Result<View> {
    if factor.count() == 1 && factor.rank() <= 1 {
        return b.reshape(factor, &[])?.broadcast(&x.shape);
    }
    let axis = call.axis("axis", 1, x.rank())?;
    let block = call.int("block_size", 0)?;
    if block == 0 {
        return over_axis(factor, x, axis);
    }
    let block = usize::try_from(block).map_err(|_| fail!(Malformed, "attribute 'block_size' is {block}"))?;
    let mut blocks = x.shape.clone();
    blocks[axis] = x.shape[axis].div_ceil(block);
    ensure!(factor.shape == blocks, ShapeMismatch, "{:?} for {:?} in blocks of {block}", factor.shape, x.shape);
    let mut repeated = factor.insert_axis(axis + 1).shape;
    repeated[axis + 1] = block;
    crate::ir::element_count(&repeated)?;
    let view = factor.insert_axis(axis + 1).broadcast(&repeated)?;
    let mut merged = x.shape.clone();
    merged[axis] = blocks[axis] * block;
    Ok(b.reshape(&view, &merged)?.slice(axis, 0, x.shape[axis], 1))
}

/// A vector along `axis` of `x`, or a scalar, broadcast to the shape of `x`.
fn over_axis(vector: &View, x: &View, axis: usize) -> Result<View> {
    if vector.rank() == 0 {
        return vector.broadcast(&x.shape);
    }
    let fits = vector.rank() == 1 && (vector.shape[0] == x.shape[axis] || vector.shape[0] == 1);
    ensure!(fits, ShapeMismatch, "{:?} along axis {axis} of {:?}", vector.shape, x.shape);
    (axis + 1..x.rank()).fold(vector.clone(), |view, _| view.insert_axis(view.rank())).broadcast(&x.shape)
}

/// Rounds to even, moves by the zero point in a register, saturates to `dtype`.
pub fn quantize(body: &mut Body, scaled: Reg, zero_point: Option<Reg>, dtype: DType) -> Result<Reg> {
    let (least, most) = match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        other => return Err(fail!(Unsupported, "quantising to {other} is not supported")),
    };
    let mut value = body.unary(Unary::Round, scaled);
    if let Some(zero_point) = zero_point {
        let zero_point = body.cast(DType::F32, zero_point);
        value = body.binary(Binary::Add, value, zero_point);
    }
    let (least, most) = (body.float(least), body.float(most));
    let value = body.binary(Binary::Max, value, least);
    let value = body.binary(Binary::Min, value, most);
    Ok(body.cast(dtype, value))
}

/// `QuantizeLinear`.
pub fn quantize_linear(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let scale = spread(b, call, &x, call.input(1)?)?;
    let stated = match call.int("output_dtype", 0)? {
        0 => None,
        code => Some(element_type(code)?),
    };
    let dtype = call.optional(2).map(|view| b.dtype(view)).or(stated).unwrap_or(DType::U8);
    let mut operands = vec![x.clone(), scale];
    if let Some(zero_point) = call.optional(2) {
        operands.push(spread(b, call, &x, zero_point)?);
    }
    let mut body = Body::with_inputs(operands.len());
    let value = body.cast(DType::F32, 0);
    let scaled = body.binary(Binary::Div, value, 1);
    quantize(&mut body, scaled, (operands.len() == 3).then_some(2), dtype)?;
    Ok(vec![b.map(&operands.iter().collect::<Vec<_>>(), body.finish(), dtype)?])
}

/// `DequantizeLinear`.
pub fn dequantize_linear(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let dtype = match call.int("output_dtype", 0)? {
        0 => b.dtype(call.input(1)?),
        code => element_type(code)?,
    };
    let mut operands = vec![x.clone(), spread(b, call, &x, call.input(1)?)?];
    if let Some(zero_point) = call.optional(2) {
        operands.push(spread(b, call, &x, zero_point)?);
    }
    let mut body = Body::with_inputs(operands.len());
    let mut value = body.cast(DType::I32, 0);
    if operands.len() == 3 {
        let zero_point = body.cast(DType::I32, 2);
        value = body.binary(Binary::Sub, value, zero_point);
    }
    let value = body.cast(DType::F32, value);
    body.binary(Binary::Mul, value, 1);
    Ok(vec![b.map(&operands.iter().collect::<Vec<_>>(), body.finish(), dtype)?])
}

/// `DynamicQuantizeLinear`: to `uint8` over the operand's own range, which includes 0.
pub fn dynamic_quantize_linear(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let axes: Shape = (0..x.rank()).collect();
    let least = b.emit1(Reduce { op: ReduceOp::Min, axes: axes.clone() }, std::slice::from_ref(&x))?;
    let most = b.emit1(Reduce { op: ReduceOp::Max, axes }, std::slice::from_ref(&x))?;
    let mut body = Body::with_inputs(2);
    let (zero, one, steps) = (body.float(0.0), body.float(1.0), body.float(255.0));
    let low = body.binary(Binary::Min, 0, zero);
    let high = body.binary(Binary::Max, 1, zero);
    let range = body.binary(Binary::Sub, high, low);
    let scale = body.binary(Binary::Div, range, steps);
    let flat = body.binary(Binary::Equal, range, zero);
    body.select(flat, one, scale);
    let scale = b.map(&[&least, &most], body.finish(), DType::F32)?;
    let mut body = Body::with_inputs(2);
    let zero = body.float(0.0);
    let low = body.binary(Binary::Min, 0, zero);
    let negated = body.unary(Unary::Neg, low);
    let scaled = body.binary(Binary::Div, negated, 1);
    quantize(&mut body, scaled, None, DType::U8)?;
    let zero_point = b.map(&[&least, &scale], body.finish(), DType::U8)?;
    let mut body = Body::with_inputs(3);
    let scaled = body.binary(Binary::Div, 0, 1);
    quantize(&mut body, scaled, Some(2), DType::U8)?;
    let y = b.map(&[&x, &scale, &zero_point], body.finish(), DType::U8)?;
    Ok(vec![y, scale, zero_point])
}

/// The operand minus its zero point, in `int32`. A vector of zero points lies along `axis`.
pub fn centred(b: &mut Builder, x: &View, zero_point: Option<&View>, axis: usize) -> Result<View> {
    let dtype = b.dtype(x);
    ensure!(matches!(dtype, DType::I8 | DType::U8), Unsupported, "element type {dtype} is not supported");
    let Some(zero_point) = zero_point else { return b.cast(x, DType::I32) };
    let zero_point =
        if zero_point.rank() <= 1 { over_axis(zero_point, x, axis)? } else { zero_point.broadcast(&x.shape)? };
    let mut body = Body::with_inputs(2);
    let (value, zero) = (body.cast(DType::I32, 0), body.cast(DType::I32, 1));
    body.binary(Binary::Sub, value, zero);
    b.map(&[x, &zero_point], body.finish(), DType::I32)
}

/// Both operands of an integer matrix product: A's zero points lie along its rows, B's along its columns.
fn centred_matrices(b: &mut Builder, call: &Call<'_>, positions: [usize; 4]) -> Result<[View; 2]> {
    let [left, left_zero, right, right_zero] = positions;
    let (x, y) = (call.input(left)?, call.input(right)?);
    ensure!(x.rank() > 0 && y.rank() > 0, ShapeMismatch, "a product of a scalar");
    let x = centred(b, x, call.optional(left_zero), x.rank().saturating_sub(2))?;
    let y = centred(b, y, call.optional(right_zero), y.rank() - 1)?;
    Ok([x, y])
}

/// `MatMulInteger`.
pub fn matmul_integer(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let [x, y] = centred_matrices(b, call, [0, 2, 1, 3])?;
    Ok(vec![contraction::product(b, &x, &y)?])
}

/// `ConvInteger`: padding holds the zero point, which is 0 after centring.
pub fn conv_integer(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = centred(b, call.input(0)?, call.optional(2), 1)?;
    let w = centred(b, call.input(1)?, call.optional(3), 0)?;
    Ok(vec![convolve(b, call, x, w, None)?])
}

/// Scales an `int32` result to the quantised type of operand `zero_point`.
fn requantize(b: &mut Builder, call: &Call<'_>, sum: &View, scales: [View; 3], zero_point: usize) -> Result<View> {
    let zero_point = call.input(zero_point)?;
    let dtype = b.dtype(zero_point);
    let zero_point = b.reshape(&zero_point.clone(), &[])?;
    let mut body = Body::with_inputs(5);
    let value = body.cast(DType::F32, 0);
    let factor = body.binary(Binary::Mul, 1, 2);
    let factor = body.binary(Binary::Div, factor, 3);
    let scaled = body.binary(Binary::Mul, value, factor);
    quantize(&mut body, scaled, Some(4), dtype)?;
    let [left, right, out] = &scales;
    b.map(&[sum, left, right, out, &zero_point], body.finish(), dtype)
}

/// `QLinearMatMul`.
pub fn qlinear_matmul(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let [x, y] = centred_matrices(b, call, [0, 2, 3, 5])?;
    let sum = contraction::product(b, &x, &y)?;
    let row_scale = call.input(1)?;
    let row_scale =
        if row_scale.rank() == 1 && row_scale.shape != [1] { row_scale.insert_axis(1) } else { row_scale.clone() };
    let scales = [row_scale, call.input(4)?.clone(), call.input(6)?.clone()];
    let scales = scales.map(|scale| if scale.shape == [1] { scale.remove_axis(0) } else { scale });
    Ok(vec![requantize(b, call, &sum, scales, 7)?])
}

/// `QLinearConv`: the bias is `int32` at the scale of the product.
pub fn qlinear_conv(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = centred(b, call.input(0)?, call.optional(2), 1)?;
    let w = centred(b, call.input(3)?, call.optional(5), 0)?;
    let sum = convolve(b, call, x, w, call.optional(8).cloned())?;
    let mut scales = Vec::new();
    for index in [1, 4, 6] {
        let scale = call.input(index)?.clone();
        scales.push(over_axis(&if scale.shape == [1] { scale.remove_axis(0) } else { scale }, &sum, 1)?);
    }
    let scales: [View; 3] = scales.try_into().expect("three scales");
    Ok(vec![requantize(b, call, &sum, scales, 7)?])
}
