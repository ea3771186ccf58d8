//! Arithmetic, comparison, logic and conversion, element by element.

use super::body::Body;
use super::call::Call;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar};
use crate::kernels::{Binary, Unary};
use crate::plan::{Builder, View};

macro_rules! unary {
    ($($name:ident => $op:ident),* $(,)?) => {$(
        pub fn $name(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
            Ok(vec![b.unary(Unary::$op, call.input(0)?)?])
        }
    )*};
}

unary!(
    neg => Neg, abs => Abs, sign => Sign, ceil => Ceil, floor => Floor, round => Round, sqrt => Sqrt,
    reciprocal => Reciprocal, exp => Exp, log => Log, sin => Sin, cos => Cos, tanh => Tanh, erf => Erf,
    sigmoid => Sigmoid, relu => Relu, softplus => Softplus, not => Not, is_nan => IsNan,
);

macro_rules! binary {
    ($($name:ident => $op:ident),* $(,)?) => {$(
        pub fn $name(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
            Ok(vec![b.binary(Binary::$op, call.input(0)?, call.input(1)?)?])
        }
    )*};
}

binary!(
    add => Add, sub => Sub, mul => Mul, div => Div, and => And, or => Or, xor => Xor,
    equal => Equal, less => Less, less_or_equal => LessOrEqual,
);

/// `Greater`: `Less` of the exchanged operands.
pub fn greater(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    Ok(vec![b.binary(Binary::Less, call.input(1)?, call.input(0)?)?])
}

/// `GreaterOrEqual`: `LessOrEqual` of the exchanged operands.
pub fn greater_or_equal(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    Ok(vec![b.binary(Binary::LessOrEqual, call.input(1)?, call.input(0)?)?])
}

/// `Mod`: the divisor's sign, or with `fmod` the dividend's.
pub fn modulo(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let op = if call.flag("fmod", false)? { Binary::Fmod } else { Binary::Mod };
    Ok(vec![b.binary(op, call.input(0)?, call.input(1)?)?])
}

/// `Pow`: the result has the base's type. Small constant exponents become products, which is what fusion looks for.
pub fn pow(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (base, exponent) = (call.input(0)?, call.input(1)?);
    let (dtype, power) = (b.dtype(base), b.dtype(exponent));
    let uniform = exponent.count() == 1 && exponent.rank() <= base.rank();
    if let Some(value) = if uniform { b.value(exponent)? } else { None } {
        let mut body = Body::with_inputs(1);
        match value.at(0).as_f64() {
            1.0 => return Ok(vec![base.clone()]),
            2.0 => {
                body.binary(Binary::Mul, 0, 0);
                return Ok(vec![b.map(&[base], body.finish(), dtype)?]);
            }
            3.0 => {
                let square = body.binary(Binary::Mul, 0, 0);
                body.binary(Binary::Mul, square, 0);
                return Ok(vec![b.map(&[base], body.finish(), dtype)?]);
            }
            _ => {}
        }
    }
    if dtype == power {
        return Ok(vec![b.binary(Binary::Pow, base, exponent)?]);
    }
    let compute = if dtype.is_float() || power.is_float() { DType::F32 } else { dtype };
    let mut body = Body::with_inputs(2);
    let (x, y) = (body.cast(compute, 0), body.cast(compute, 1));
    let result = body.binary(Binary::Pow, x, y);
    body.cast(dtype, result);
    Ok(vec![b.map(&[base, exponent], body.finish(), dtype)?])
}

fn fold_pairs(b: &mut Builder, call: &Call<'_>, op: Binary) -> Result<View> {
    let operands = call.variadic()?;
    let (first, rest) = operands.split_first().expect("at least one");
    rest.iter().try_fold(first.clone(), |result, operand| b.binary(op, &result, operand))
}

/// `Max` of any number of operands.
pub fn max(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    Ok(vec![fold_pairs(b, call, Binary::Max)?])
}

/// `Min` of any number of operands.
pub fn min(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    Ok(vec![fold_pairs(b, call, Binary::Min)?])
}

/// `Sum` of any number of operands.
pub fn sum(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    Ok(vec![fold_pairs(b, call, Binary::Add)?])
}

/// `Mean` of any number of operands.
pub fn mean(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let sum = fold_pairs(b, call, Binary::Add)?;
    let mut body = Body::with_inputs(1);
    let count = body.float(call.inputs.len() as f32);
    body.binary(Binary::Div, 0, count);
    let dtype = b.dtype(&sum);
    Ok(vec![b.map(&[&sum], body.finish(), dtype)?])
}

/// `Where`.
pub fn select(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (condition, yes, no) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (dtype, other) = (b.dtype(yes), b.dtype(no));
    ensure!(dtype == other, ShapeMismatch, "the choices are {dtype} and {other}");
    let mut body = Body::with_inputs(3);
    body.select(0, 1, 2);
    Ok(vec![b.map(&[condition, yes, no], body.finish(), dtype)?])
}

/// `Cast`. An integer becomes a float64 only where binary32 holds it as well.
pub fn cast(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (x, code) = (call.input(0)?, call.required_int("to")?);
    let to = element_type(code)?;
    if code == i64::from(DType::FLOAT64) && matches!(b.dtype(x), DType::I64 | DType::I32) {
        let known = b.value(x)?;
        let exact = known.is_some_and(|value| value.scalars().all(|value| value.as_i64().unsigned_abs() <= 1 << 24));
        ensure!(exact, Unsupported, "float64 is computed in binary32, which does not hold every {}", b.dtype(x));
    }
    Ok(vec![b.cast(x, to)?])
}

/// `CastLike`: the target type is that of the second operand.
pub fn cast_like(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let to = b.dtype(call.input(1)?);
    Ok(vec![b.cast(call.input(0)?, to)?])
}

/// The element type in which values of a `TensorProto.DataType` number from an attribute are computed.
pub fn element_type(code: i64) -> Result<DType> {
    let dtype = i32::try_from(code).ok().and_then(DType::computed_from_onnx);
    dtype.ok_or_else(|| fail!(Unsupported, "element type {code} is not supported"))
}

/// `Clip`: bounds are attributes before opset 11, then optional scalar operands.
pub fn clip(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    let dtype = b.dtype(&x);
    let mut operands = vec![x];
    let mut body = Body::with_inputs(1 + (1..3).filter(|&index| call.optional(index).is_some()).count());
    let mut result = 0;
    for (index, name, op) in [(1, "min", Binary::Max), (2, "max", Binary::Min)] {
        let bound = if let Some(bound) = call.optional(index) {
            ensure!(
                b.dtype(bound) == dtype,
                ShapeMismatch,
                "the bounds are {}, the operand is {dtype}",
                b.dtype(bound)
            );
            ensure!(bound.count() == 1, ShapeMismatch, "operand {index} has shape {:?}, not one element", bound.shape);
            operands.push(b.reshape(bound, &[])?);
            operands.len() - 1
        } else if let Some(bound) = call.optional_float(name)? {
            body.number(dtype, bound.into())
        } else {
            continue;
        };
        result = body.binary(op, result, bound);
    }
    if result == 0 {
        return Ok(vec![operands.swap_remove(0)]);
    }
    Ok(vec![b.map(&operands.iter().collect::<Vec<_>>(), body.finish(), dtype)?])
}

/// `IsInf`, of either sign or of both.
pub fn is_inf(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let (positive, negative) = (call.flag("detect_positive", true)?, call.flag("detect_negative", true)?);
    let mut body = Body::with_inputs(1);
    let infinite = body.unary(Unary::IsInf, 0);
    match (positive, negative) {
        (true, true) => {}
        (false, false) => return Ok(vec![b.fill(DType::Bool, Scalar::Int(0), &x.shape)?]),
        _ => {
            let zero = body.float(0.0);
            let side = if positive { body.binary(Binary::Less, zero, 0) } else { body.binary(Binary::Less, 0, zero) };
            body.binary(Binary::And, infinite, side);
        }
    }
    Ok(vec![b.map(&[x], body.finish(), DType::Bool)?])
}

/// `Identity`.
pub fn identity(_: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    Ok(vec![call.input(0)?.clone()])
}

/// `Dropout`, which does nothing in inference; its mask keeps everything.
pub fn dropout(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    if let Some(training) = call.optional_constant(b, 2)? {
        ensure!(training.count() == 1, Malformed, "operand 2 has shape {:?}, not one element", training.shape());
        if training.at(0).as_i64() != 0 {
            let ratio = call.optional_constant(b, 1)?.filter(|ratio| ratio.count() == 1);
            let none = ratio.is_some_and(|ratio| ratio.at(0).as_f64() == 0.0);
            ensure!(none, Unsupported, "operand 2 (training_mode) asks for random numbers");
        }
    }
    let kind = if call.opset < 10 { b.dtype(&x) } else { DType::Bool };
    let kept = if kind.is_float() { Scalar::Float(1.0) } else { Scalar::Int(1) };
    let mask = b.fill(kind, kept, &x.shape)?;
    Ok(vec![x, mask])
}
