//! Operators of `com.microsoft` that ONNX Runtime's quantiser writes where ONNX has none: each computes in binary32 on
//! what its quantised operands stand for and quantises the result.

use super::call::Call;
use super::quantization::{centred, quantize};
use super::{activation, body::Body, contraction, elementwise, movement, pooling, recurrent, reduction};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;
use crate::kernels::Binary;
use crate::plan::{Builder, View};

/// A scale or zero point that holds for a whole tensor, as a scalar.
fn whole(b: &mut Builder, view: &View) -> Result<View> {
    ensure!(view.count() == 1, Unsupported, "a scale or zero point of shape {:?} is not supported", view.shape);
    b.reshape(view, &[])
}

/// What the quantised operand `first` stands for; its scale and zero point follow it.
fn real(b: &mut Builder, call: &Call<'_>, first: usize) -> Result<View> {
    let x = call.input(first)?;
    let centred = centred(b, x, call.optional(first + 2), 0)?;
    let scale = whole(b, call.input(first + 1)?)?;
    scaled(b, &centred, &scale)
}

/// `x scale` in binary32 for an `int32`.
fn scaled(b: &mut Builder, x: &View, scale: &View) -> Result<View> {
    let mut body = Body::with_inputs(2);
    let value = body.cast(DType::F32, 0);
    body.binary(Binary::Mul, value, 1);
    b.map(&[x, scale], body.finish(), DType::F32)
}

/// A real result in the type of the zero point, `uint8` without one; operand `scale` is its scale, the next its zero point.
fn stored(b: &mut Builder, call: &Call<'_>, value: &View, scale: usize) -> Result<Vec<View>> {
    let mut operands = vec![value.clone(), whole(b, call.input(scale)?)?];
    let mut dtype = DType::U8;
    if let Some(zero_point) = call.optional(scale + 1) {
        dtype = b.dtype(zero_point);
        operands.push(whole(b, zero_point)?);
    }
    let mut body = Body::with_inputs(operands.len());
    let quotient = body.binary(Binary::Div, 0, 1);
    quantize(&mut body, quotient, (operands.len() == 3).then_some(2), dtype)?;
    Ok(vec![b.map(&operands.iter().collect::<Vec<_>>(), body.finish(), dtype)?])
}

/// A translation on what operand 0 stands for.
fn unary(
    b: &mut Builder,
    call: &Call<'_>,
    translate: impl Fn(&mut Builder, &Call<'_>) -> Result<Vec<View>>,
) -> Result<Vec<View>> {
    let x = real(b, call, 0)?;
    let results = translate(b, &Call { node: call.node, opset: call.opset, inputs: vec![Some(x)] })?;
    stored(b, call, &results[0], 3)
}

fn binary(b: &mut Builder, call: &Call<'_>, op: Binary) -> Result<Vec<View>> {
    let (left, right) = (real(b, call, 0)?, real(b, call, 3)?);
    let result = b.binary(op, &left, &right)?;
    stored(b, call, &result, 6)
}

/// `QLinearAdd`.
pub fn add(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    binary(b, call, Binary::Add)
}

/// `QLinearMul`.
pub fn mul(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    binary(b, call, Binary::Mul)
}

/// `QLinearSigmoid`.
pub fn sigmoid(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    unary(b, call, elementwise::sigmoid)
}

/// `QLinearLeakyRelu`.
pub fn leaky_relu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    unary(b, call, activation::leaky_relu)
}

/// `QLinearSoftmax`: attribute `opset` says which version of `Softmax` it stands for.
pub fn softmax(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let opset = call.required_int("opset")?;
    unary(b, call, |b, call| activation::softmax(b, &Call { opset, ..call.clone() }))
}

fn channels_second(call: &Call<'_>) -> Result<()> {
    ensure!(!call.flag("channels_last", false)?, Unsupported, "attribute 'channels_last' is 1");
    Ok(())
}

/// `QLinearAveragePool`.
pub fn average_pool(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    channels_second(call)?;
    unary(b, call, pooling::average_pool)
}

/// `QLinearGlobalAveragePool`.
pub fn global_average_pool(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    channels_second(call)?;
    unary(b, call, reduction::global_average_pool)
}

/// `QLinearConcat`: the result's scale and zero point come first, then three operands for each part.
pub fn concat(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let count = call.inputs.len();
    ensure!(count >= 5 && count % 3 == 2, Malformed, "{count} operands are not two and three for each part");
    let parts = (2..count).step_by(3).map(|first| real(b, call, first)).collect::<Result<Vec<_>>>()?;
    let axis = super::call::axis(call.required_int("axis")?, parts[0].rank())?;
    let joined = movement::join(b, &parts, axis)?;
    stored(b, call, &joined, 0)
}

/// `QLinearWhere`.
pub fn select(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (yes, no) = (real(b, call, 1)?, real(b, call, 4)?);
    let mut body = Body::with_inputs(3);
    body.select(0, 1, 2);
    let chosen = b.map(&[call.input(0)?, &yes, &no], body.finish(), DType::F32)?;
    stored(b, call, &chosen, 7)
}

/// `QGemm`: an integer product; B's scale and zero point may be per column, the addend is `int32` at the scale of the
/// product. Without a scale for the result it is binary32.
pub fn gemm(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (left, right) = (call.input(0)?, call.input(3)?);
    let matrices = left.rank() == 2 && right.rank() == 2;
    ensure!(matrices, ShapeMismatch, "{:?} and {:?} are not two matrices", left.shape, right.shape);
    let left = if call.flag("transA", false)? { left.swap(0, 1) } else { left.clone() };
    let right = if call.flag("transB", false)? { right.swap(0, 1) } else { right.clone() };
    let left = centred(b, &left, call.optional(2), 0)?;
    let right = centred(b, &right, call.optional(5), 1)?;
    let mut sum = contraction::product(b, &left, &right)?;
    if let Some(addend) = call.optional(6) {
        sum = b.binary(Binary::Add, &sum, &addend.broadcast(&sum.shape)?)?;
    }
    let scale = b.binary(Binary::Mul, call.input(1)?, call.input(4)?)?;
    let mut body = Body::with_inputs(1);
    let alpha = body.float(call.float("alpha", 1.0)?);
    body.binary(Binary::Mul, 0, alpha);
    let scale = b.map(&[&scale], body.finish(), DType::F32)?;
    let value = scaled(b, &sum, &scale)?;
    if call.optional(7).is_none() { Ok(vec![value]) } else { stored(b, call, &value, 7) }
}

/// `DynamicQuantizeLSTM`: an LSTM whose weights are stored transposed and quantised. The input is rounded to its dynamic
/// quantisation as the operator says; the state is not, which leaves the recurrence more exact than ONNX Runtime's.
pub fn dynamic_quantize_lstm(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (x, w, r) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let quantised = Call { node: call.node, opset: call.opset, inputs: vec![Some(x.clone())] };
    let results = super::quantization::dynamic_quantize_linear(b, &quantised)?;
    let centred = centred(b, &results[0], Some(&results[2]), 0)?;
    let x = scaled(b, &centred, &results[1])?;
    let mut inputs: Vec<Option<View>> = call.inputs.iter().take(8).cloned().collect();
    inputs[0] = Some(x);
    for (index, weight, scale) in [(1, w, 8), (2, r, 10)] {
        inputs[index] = Some(gates(b, call, weight, scale)?);
    }
    recurrent::lstm(b, &Call { node: call.node, opset: call.opset, inputs })
}

/// The weights of all gates, `[directions, features, rows]` with scales and zero points per direction or per row, as
/// `[directions, rows, features]` in binary32.
fn gates(b: &mut Builder, call: &Call<'_>, weight: &View, scale: usize) -> Result<View> {
    ensure!(weight.rank() == 3, ShapeMismatch, "the weights have rank {}, not 3", weight.rank());
    let spread = |factor: &View| {
        let factor = if factor.rank() == 1 { factor.insert_axis(1) } else { factor.clone() };
        ensure!(factor.rank() == 2, ShapeMismatch, "{:?} is no scale or zero point of gates", factor.shape);
        factor.insert_axis(1).broadcast(&weight.shape)
    };
    let zero_point = call.optional(scale + 1).map(spread).transpose()?;
    let factor = spread(call.input(scale)?)?;
    let centred = centred(b, weight, zero_point.as_ref(), 0)?;
    Ok(scaled(b, &centred, &factor)?.swap(1, 2))
}
