//! Operators that ONNX Runtime's optimiser puts in place of several of ONNX's: each becomes again what it stands for, and
//! the passes fuse for the device at hand. Semantics: `docs/ContribOperators.md` of ONNX Runtime.

use super::body::Body;
use super::call::{self, Call};
use super::quantization::{centred, dynamic_quantize_linear};
use super::{contraction, convolution, indexing, normalization};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar};
use crate::kernels::{Binary, Norm, NormKind, Reduce, ReduceOp, Unary};
use crate::plan::{Builder, View};

/// The sum of two operands, or the first alone.
pub fn plus(b: &mut Builder, x: &View, addend: Option<&View>) -> Result<View> {
    addend.map_or_else(|| Ok(x.clone()), |addend| b.binary(Binary::Add, x, addend))
}

/// `Gelu` and `BiasGelu`: GELU by erf, of the sum with a bias if there is one.
pub fn gelu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let sum = plus(b, call.input(0)?, call.optional(1))?;
    Ok(vec![b.unary(Unary::Gelu, &sum)?])
}

/// `FastGelu`: GELU by tanh, of the sum with a bias if there is one.
pub fn fast_gelu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let sum = plus(b, call.input(0)?, call.optional(1))?;
    Ok(vec![b.unary(Unary::GeluTanh, &sum)?])
}

/// `QuickGelu`: `x sigmoid(alpha x)`.
pub fn quick_gelu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let mut body = Body::with_inputs(1);
    let alpha = body.float(call.float("alpha", 1.702)?);
    let scaled = body.binary(Binary::Mul, 0, alpha);
    let gate = body.unary(Unary::Sigmoid, scaled);
    body.binary(Binary::Mul, 0, gate);
    Ok(vec![b.map(&[x], body.finish(), b.dtype(x))?])
}

/// `FusedMatMul` and `TransposeMatMul`: a scaled product by numpy's rules of operands whose last two axes may be swapped.
pub fn matmul(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    for name in ["transBatchA", "transBatchB"] {
        ensure!(!call.flag(name, false)?, Unsupported, "attribute '{name}' is 1");
    }
    let side = |index: usize, name: &str| {
        let x = call.input(index)?;
        let swaps = call.flag(name, false)? && x.rank() >= 2;
        Ok(if swaps { x.swap(x.rank() - 2, x.rank() - 1) } else { x.clone() })
    };
    let (left, right) = (side(0, "transA")?, side(1, "transB")?);
    Ok(vec![contraction::scaled_product(b, &left, &right, call.float("alpha", 1.0)?)?])
}

/// `FusedConv`: a convolution, then an addend, then an activation.
pub fn conv(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (x, w) = (call.input(0)?.clone(), call.input(1)?.clone());
    let result = convolution::convolve(b, call, x, w, call.optional(2).cloned())?;
    let sum = plus(b, &result, call.optional(3))?;
    Ok(vec![activated(b, call, &sum, call.floats("activation_params")?)?])
}

/// `FusedGemm`: a `Gemm`, then an activation.
pub fn gemm(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let result = contraction::gemm(b, call)?;
    let mut parameters = Vec::new();
    for name in ["activation_alpha", "activation_beta", "activation_gamma"] {
        parameters.extend(call.optional_float(name)?);
    }
    Ok(vec![activated(b, call, &result[0], &parameters)?])
}

/// The function that attribute `activation` names, with its constants.
fn activated(b: &mut Builder, call: &Call<'_>, x: &View, parameters: &[f32]) -> Result<View> {
    let name = call.string("activation", "")?;
    let parameter = |index: usize| {
        let value = parameters.get(index).copied();
        value.ok_or_else(|| fail!(Malformed, "activation '{name}' has {} parameters", parameters.len()))
    };
    let mut body = Body::with_inputs(1);
    match name {
        "" => return Ok(x.clone()),
        "Relu" => body.unary(Unary::Relu, 0),
        "Sigmoid" => body.unary(Unary::Sigmoid, 0),
        "Tanh" => body.unary(Unary::Tanh, 0),
        "LeakyRelu" => {
            let (alpha, zero) = (body.float(parameter(0)?), body.float(0.0));
            let scaled = body.binary(Binary::Mul, 0, alpha);
            let negative = body.binary(Binary::Less, 0, zero);
            body.select(negative, scaled, 0)
        }
        "Clip" => {
            let (least, most) = (body.float(parameter(0)?), body.float(parameter(1)?));
            let above = body.binary(Binary::Max, 0, least);
            body.binary(Binary::Min, above, most)
        }
        other => return Err(fail!(Unsupported, "attribute 'activation' is '{other}'")),
    };
    b.map(&[x], body.finish(), b.dtype(x))
}

/// `SkipLayerNormalization`: the norm of `input + skip + bias`, and last that sum.
pub fn skip_layer_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let sum = plus(b, call.input(0)?, Some(call.input(1)?))?;
    let sum = plus(b, &sum, call.optional(4))?;
    let y = normalization::norm(b, over_last_axis(call, NormKind::Layer)?, &sum, call.input(2)?, call.optional(3))?;
    with_sum(call, y, sum)
}

/// `SkipSimplifiedLayerNormalization`: the same with the root mean square.
pub fn skip_rms_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let sum = plus(b, call.input(0)?, Some(call.input(1)?))?;
    let sum = plus(b, &sum, call.optional(3))?;
    let y = normalization::norm(b, over_last_axis(call, NormKind::Rms)?, &sum, call.input(2)?, None)?;
    with_sum(call, y, sum)
}

fn over_last_axis(call: &Call<'_>, kind: NormKind) -> Result<Norm> {
    Ok(Norm { kind, axes: 1, epsilon: call.float("epsilon", 1e-12)? })
}

/// Outputs of a norm with a skip connection. Mean and inverse deviation, which only training reads, are refused.
fn with_sum(call: &Call<'_>, y: View, sum: View) -> Result<Vec<View>> {
    for index in 1..3 {
        ensure!(!call.outputs_wanted(index), Unsupported, "output {index} is not supported");
    }
    Ok(vec![y.clone(), y.clone(), y, sum])
}

/// `EmbedLayerNormalization`: the norm of the sum of word, position and segment embeddings; then the number of words
/// that each row of the mask keeps, and the sum.
pub fn embed_layer_normalization(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let ids = call.input(0)?.clone();
    ensure!(ids.rank() == 2, ShapeMismatch, "operand 0 has rank {}, not 2", ids.rank());
    let words = indexing::pick(b, call.input(2)?, &ids, 0)?;
    let positions = match call.optional(8) {
        Some(positions) => positions.clone(),
        None => indexing::iota(b, ids.shape[1])?,
    };
    let positions = indexing::pick(b, call.input(3)?, &positions, 0)?;
    let mut sum = b.binary(Binary::Add, &words, &positions)?;
    if let (Some(segments), Some(table)) = (call.optional(1), call.optional(4)) {
        let segments = indexing::pick(b, table, &segments.clone(), 0)?;
        sum = b.binary(Binary::Add, &sum, &segments)?;
    }
    let y = normalization::norm(b, over_last_axis(call, NormKind::Layer)?, &sum, call.input(5)?, call.optional(6))?;
    let kept = match call.optional(7) {
        Some(mask) => {
            let mask = b.cast(mask, DType::I32)?;
            b.emit1(Reduce { op: ReduceOp::Sum, axes: vec![1] }, &[mask])?
        }
        None => b.fill(DType::I32, Scalar::Int(0), &[ids.shape[0]])?,
    };
    Ok(vec![y, kept, sum])
}

/// `DynamicQuantizeMatMul`: the product of A, rounded to its dynamic quantisation, with quantised weights.
pub fn dynamic_quantize_matmul(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let operand = Call { node: call.node, opset: call.opset, inputs: vec![Some(call.input(0)?.clone())] };
    let quantised = dynamic_quantize_linear(b, &operand)?;
    let scale = b.binary(Binary::Mul, &quantised[1], call.input(2)?)?;
    let sum = integer_product(b, [&quantised[0], call.input(1)?], [Some(&quantised[2]), call.optional(3)])?;
    Ok(vec![rescaled(b, &sum, &scale, call.optional(4))?])
}

/// `MatMulIntegerToFloat`: an integer product times both scales.
pub fn matmul_integer_to_float(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let scale = b.binary(Binary::Mul, call.input(2)?, call.input(3)?)?;
    let sum = integer_product(b, [call.input(0)?, call.input(1)?], [call.optional(4), call.optional(5)])?;
    Ok(vec![rescaled(b, &sum, &scale, call.optional(6))?])
}

/// The product of centred operands; zero points of the right one may be per column.
fn integer_product(b: &mut Builder, operands: [&View; 2], zero_points: [Option<&View>; 2]) -> Result<View> {
    let [left, right] = operands;
    ensure!(left.rank() > 0 && right.rank() > 0, ShapeMismatch, "a product of a scalar");
    let whole = zero_points[0].is_none_or(|view| view.count() == 1);
    ensure!(whole, Unsupported, "zero points of operand 0 per row are not supported");
    let left_zero = zero_points[0].map(|view| b.reshape(view, &[])).transpose()?;
    let left = centred(b, left, left_zero.as_ref(), 0)?;
    let right = centred(b, right, zero_points[1], right.rank() - 1)?;
    contraction::product(b, &left, &right)
}

/// `sum scale + bias` in binary32.
fn rescaled(b: &mut Builder, sum: &View, scale: &View, bias: Option<&View>) -> Result<View> {
    let mut body = Body::with_inputs(2);
    let value = body.cast(DType::F32, 0);
    body.binary(Binary::Mul, value, 1);
    let product = b.map(&[sum, scale], body.finish(), DType::F32)?;
    plus(b, &product, bias)
}

/// A count from attribute `name`, at least 1.
pub fn required_count(call: &Call<'_>, name: &str) -> Result<usize> {
    let count = call::extent(call.required_int(name)?, &format!("attribute '{name}'"))?;
    ensure!(count > 0, Malformed, "attribute '{name}' is 0");
    Ok(count)
}
