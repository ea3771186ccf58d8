//! Activation functions. Those without an instruction of their own are short programs.

use super::body::Body;
use super::call::{self, Call};
use crate::error::{Result, ensure, fail};
use crate::kernels::{Binary, Reg, Softmax, Unary};
use crate::plan::{Builder, View};

/// A program of one float operand.
fn program(b: &mut Builder, call: &Call<'_>, write: impl FnOnce(&mut Body)) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let dtype = b.dtype(x);
    ensure!(dtype.is_float(), Unsupported, "element type {dtype} is not supported");
    let mut body = Body::with_inputs(1);
    write(&mut body);
    Ok(vec![b.map(&[x], body.finish(), dtype)?])
}

/// `Gelu`, exact or by tanh.
pub fn gelu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let op = match call.string("approximate", "none")? {
        "none" => Unary::Gelu,
        "tanh" => Unary::GeluTanh,
        other => return Err(fail!(Unsupported, "attribute 'approximate' is '{other}'")),
    };
    Ok(vec![b.unary(op, call.input(0)?)?])
}

/// `clamp(alpha x + beta, 0, 1)`
fn hard_sigmoid_of(body: &mut Body, alpha: f32, beta: f32) -> Reg {
    let (alpha, beta) = (body.float(alpha), body.float(beta));
    let (zero, one) = (body.float(0.0), body.float(1.0));
    let product = body.binary(Binary::Mul, 0, alpha);
    let sum = body.binary(Binary::Add, product, beta);
    let least = body.binary(Binary::Max, sum, zero);
    body.binary(Binary::Min, least, one)
}

/// `HardSigmoid`.
pub fn hard_sigmoid(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (alpha, beta) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
    program(b, call, |body| {
        hard_sigmoid_of(body, alpha, beta);
    })
}

/// `HardSwish`: `x clamp(x / 6 + 1 / 2, 0, 1)`.
pub fn hard_swish(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    program(b, call, |body| {
        let gate = hard_sigmoid_of(body, 1.0 / 6.0, 0.5);
        body.binary(Binary::Mul, 0, gate);
    })
}

/// `positive` where x > 0, else `alpha (e^x - 1)`.
fn exponential_below(body: &mut Body, positive: Reg, alpha: f32) -> Reg {
    let (alpha, zero, one) = (body.float(alpha), body.float(0.0), body.float(1.0));
    let exponential = body.unary(Unary::Exp, 0);
    let shifted = body.binary(Binary::Sub, exponential, one);
    let negative = body.binary(Binary::Mul, shifted, alpha);
    let above = body.binary(Binary::Less, zero, 0);
    body.select(above, positive, negative)
}

/// `Elu`.
pub fn elu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let alpha = call.float("alpha", 1.0)?;
    program(b, call, |body| {
        exponential_below(body, 0, alpha);
    })
}

/// `Selu` (Klambauer et al., 2017).
pub fn selu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (alpha, gamma) = (call.float("alpha", 1.673_263_2)?, call.float("gamma", 1.050_701)?);
    program(b, call, |body| {
        let value = exponential_below(body, 0, alpha);
        let gamma = body.float(gamma);
        body.binary(Binary::Mul, value, gamma);
    })
}

/// `Celu`: `max(x, 0) + min(alpha (e^(x / alpha) - 1), 0)`.
pub fn celu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let alpha = call.float("alpha", 1.0)?;
    program(b, call, |body| {
        let (alpha, zero, one) = (body.float(alpha), body.float(0.0), body.float(1.0));
        let quotient = body.binary(Binary::Div, 0, alpha);
        let exponential = body.unary(Unary::Exp, quotient);
        let shifted = body.binary(Binary::Sub, exponential, one);
        let product = body.binary(Binary::Mul, shifted, alpha);
        let below = body.binary(Binary::Min, product, zero);
        let above = body.unary(Unary::Relu, 0);
        body.binary(Binary::Add, above, below);
    })
}

/// `Mish`: `x tanh(ln(1 + e^x))`.
pub fn mish(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    program(b, call, |body| {
        let softplus = body.unary(Unary::Softplus, 0);
        let gate = body.unary(Unary::Tanh, softplus);
        body.binary(Binary::Mul, 0, gate);
    })
}

/// `LeakyRelu`.
pub fn leaky_relu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let alpha = call.float("alpha", 0.01)?;
    program(b, call, |body| {
        let (alpha, zero) = (body.float(alpha), body.float(0.0));
        let scaled = body.binary(Binary::Mul, 0, alpha);
        let negative = body.binary(Binary::Less, 0, zero);
        body.select(negative, scaled, 0);
    })
}

/// `PRelu`: the slope broadcasts to the operand.
pub fn p_relu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let slope = call.input(1)?.broadcast(&x.shape)?;
    let dtype = b.dtype(x);
    let mut body = Body::with_inputs(2);
    let zero = body.number(dtype, 0.0);
    let scaled = body.binary(Binary::Mul, 0, 1);
    let negative = body.binary(Binary::Less, 0, zero);
    body.select(negative, scaled, 0);
    Ok(vec![b.map(&[x, &slope], body.finish(), dtype)?])
}

/// `ThresholdedRelu`.
pub fn thresholded_relu(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let alpha = call.float("alpha", 1.0)?;
    program(b, call, |body| {
        let (alpha, zero) = (body.float(alpha), body.float(0.0));
        let above = body.binary(Binary::Less, alpha, 0);
        body.select(above, 0, zero);
    })
}

/// `Softsign`: `x / (1 + |x|)`.
pub fn softsign(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    program(b, call, |body| {
        let one = body.float(1.0);
        let magnitude = body.unary(Unary::Abs, 0);
        let sum = body.binary(Binary::Add, magnitude, one);
        body.binary(Binary::Div, 0, sum);
    })
}

/// `Softmax`.
pub fn softmax(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    normalize(b, call, false)
}

/// `LogSoftmax`.
pub fn log_softmax(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    normalize(b, call, true)
}

/// Along one axis since opset 13; before, over all axes from `axis` on together.
fn normalize(b: &mut Builder, call: &Call<'_>, log: bool) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let kernel = Softmax { log };
    if call.opset < 13 {
        let rank = x.rank() as i64;
        let axis = call.int("axis", 1)?;
        ensure!((-rank..=rank).contains(&axis), Malformed, "axis {axis} is outside a tensor of rank {rank}");
        let (outer, inner) = x.shape.split_at(if axis < 0 { axis + rank } else { axis } as usize);
        let rows = b.reshape(&x, &[outer.iter().product(), inner.iter().product()])?;
        let result = b.emit1(kernel, &[rows])?;
        return Ok(vec![b.reshape(&result, &x.shape)?]);
    }
    let axis = call.axis("axis", -1, x.rank())?;
    let last = call::axis(-1, x.rank())?;
    let result = b.emit1(kernel, &[x.swap(axis, last)])?;
    Ok(vec![result.swap(axis, last)])
}
