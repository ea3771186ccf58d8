//! The scalar functions by definition: floats in binary32, transcendental ones in binary64 and rounded once; integers in
//! 64 bits, for the caller to wrap.

use super::{Binary, Unary};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// A float function of floats.
pub(super) fn float_unary(op: Unary, x: &[f32]) -> Vec<f32> {
    fn narrow(x: &[f32], f: impl Fn(f32) -> f32) -> Vec<f32> {
        x.iter().map(|&x| f(x)).collect()
    }
    fn wide(x: &[f32], f: impl Fn(f64) -> f64) -> Vec<f32> {
        x.iter().map(|&x| f(f64::from(x)) as f32).collect()
    }
    match op {
        Unary::Neg => narrow(x, |x| -x),
        Unary::Abs => narrow(x, f32::abs),
        Unary::Sign => narrow(x, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
        Unary::Ceil => narrow(x, f32::ceil),
        Unary::Floor => narrow(x, f32::floor),
        Unary::Round => narrow(x, f32::round_ties_even),
        Unary::Sqrt => narrow(x, f32::sqrt),
        Unary::Reciprocal => narrow(x, f32::recip),
        Unary::Relu => narrow(x, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::Exp => wide(x, f64::exp),
        Unary::Log => wide(x, f64::ln),
        Unary::Sin => wide(x, f64::sin),
        Unary::Cos => wide(x, f64::cos),
        Unary::Tanh => wide(x, f64::tanh),
        Unary::Erf => wide(x, libm::erf),
        Unary::Sigmoid => wide(x, sigmoid),
        Unary::Gelu => wide(x, |x| 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2))),
        // FRAC_2_SQRT_PI / sqrt 2 = sqrt(2 / pi)
        Unary::GeluTanh => {
            wide(x, |x| 0.5 * x * (1.0 + (FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (x + 0.044715 * x * x * x)).tanh()))
        }
        Unary::Silu => wide(x, |x| x * sigmoid(x)),
        // ln(1 + e^x) without overflow of e^x.
        Unary::Softplus => wide(x, |x| x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 }),
        Unary::Not | Unary::IsNan | Unary::IsInf => unreachable!("the type rules give {op:?} no float result"),
    }
}

/// 1 / (1 + e^-x)
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A truth value for each float.
pub(super) fn float_predicate(op: Unary, x: &[f32]) -> Vec<i64> {
    let holds: fn(f32) -> bool = if op == Unary::IsNan { f32::is_nan } else { f32::is_infinite };
    x.iter().map(|&x| holds(x).into()).collect()
}

/// A function of integers or truth values.
pub(super) fn integer_unary(op: Unary, x: &[i64]) -> Vec<i64> {
    let f: fn(i64) -> i64 = match op {
        Unary::Neg => i64::wrapping_neg,
        Unary::Abs => i64::wrapping_abs,
        Unary::Sign => i64::signum,
        Unary::Relu => |x| x.max(0),
        Unary::Not => |x| x ^ 1,
        _ => unreachable!("the type rules give integers no {op:?}"),
    };
    x.iter().map(|&x| f(x)).collect()
}

/// A float function of two floats.
pub(super) fn float_binary(op: Binary, a: &[f32], b: &[f32]) -> Vec<f32> {
    fn each(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
        a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
    }
    match op {
        Binary::Add => each(a, b, |a, b| a + b),
        Binary::Sub => each(a, b, |a, b| a - b),
        Binary::Mul => each(a, b, |a, b| a * b),
        Binary::Div => each(a, b, |a, b| a / b),
        Binary::Mod => each(a, b, |a, b| {
            let remainder = a % b;
            if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) { remainder + b } else { remainder }
        }),
        Binary::Fmod => each(a, b, |a, b| a % b),
        Binary::Pow => each(a, b, |a, b| f64::from(a).powf(b.into()) as f32),
        Binary::Min => each(a, b, |a, b| if a < b || a.is_nan() { a } else { b }),
        Binary::Max => each(a, b, |a, b| if a > b || a.is_nan() { a } else { b }),
        _ => unreachable!("the type rules give {op:?} no float result"),
    }
}

/// A truth value for each pair of floats.
pub(super) fn float_comparison(op: Binary, a: &[f32], b: &[f32]) -> Vec<i64> {
    let holds: fn(&f32, &f32) -> bool = match op {
        Binary::Equal => f32::eq,
        Binary::Less => f32::lt,
        _ => f32::le,
    };
    a.iter().zip(b).map(|(a, b)| holds(a, b).into()).collect()
}

/// A function of two integers or truth values, comparisons included.
pub(super) fn integer_binary(op: Binary, a: &[i64], b: &[i64]) -> Vec<i64> {
    let f: fn(i64, i64) -> i64 = match op {
        Binary::Add => i64::wrapping_add,
        Binary::Sub => i64::wrapping_sub,
        Binary::Mul => i64::wrapping_mul,
        Binary::Div => |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
        Binary::Mod => floor_remainder,
        Binary::Fmod => |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) },
        Binary::Pow => integer_power,
        Binary::Min => i64::min,
        Binary::Max => i64::max,
        Binary::And => |a, b| a & b,
        Binary::Or => |a, b| a | b,
        Binary::Xor => |a, b| a ^ b,
        Binary::Equal => |a, b| (a == b).into(),
        Binary::Less => |a, b| (a < b).into(),
        Binary::LessOrEqual => |a, b| (a <= b).into(),
    };
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

fn floor_remainder(a: i64, b: i64) -> i64 {
    if b == 0 {
        return 0;
    }
    let remainder = a.wrapping_rem(b);
    if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder }
}

/// a^b, wrapping; a negative power is the reciprocal, truncated, and 0^-1 is 0 as division by zero is.
fn integer_power(a: i64, b: i64) -> i64 {
    if b < 0 {
        return match a {
            1 => 1,
            -1 if b % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut base, mut exponent, mut power) = (a, b, 1i64);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    power
}
