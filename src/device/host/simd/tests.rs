//! Every function against double precision, for every instruction set of this machine.

use super::*;
use crate::device::host::traits;
use crate::kernels::Unary;

/// The instruction sets of this machine.
fn levels() -> Vec<Simd> {
    [Simd::Portable, Simd::Avx2, Simd::Avx512].into_iter().filter(|&simd| simd <= traits().simd).collect()
}

/// By its Maclaurin series; below 1e-9 off for |x| < 4.
fn erf(x: f64) -> f64 {
    if x.abs() >= 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn exact(op: Unary, x: f64) -> f64 {
    let gelu_inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Ceil => x.ceil(),
        Unary::Floor => x.floor(),
        Unary::Round => x.round_ties_even(),
        Unary::Sqrt => x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tanh => x.tanh(),
        Unary::Erf => erf(x),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Relu => x.max(0.0),
        Unary::Gelu => x / 2.0 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::GeluTanh => x / (1.0 + (-2.0 * gelu_inner).exp()),
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Unary::Sign | Unary::Not | Unary::IsNan | Unary::IsInf => unreachable!("not vectorised"),
    }
}

/// Largest relative error allowed, and the magnitude of the result below which the error counts as if it had that magnitude.
fn bound(op: Unary, x: f64) -> (f64, f64) {
    let epsilon = f64::from(f32::EPSILON);
    match op {
        Unary::Neg | Unary::Abs | Unary::Ceil | Unary::Floor | Unary::Round | Unary::Relu => (0.0, 0.0),
        // Where 1 + erf cancels, the error is that of the larger term.
        Unary::Gelu => (2.0 * epsilon, x.abs() / 2.0),
        // The argument of the exponential carries an error of its own size.
        Unary::GeluTanh => ((3.0 + x.abs().powi(3) / 4.0) * epsilon, 1e-29),
        Unary::Sin | Unary::Cos => (2.0 * epsilon, 0.1),
        // e^-x overflows before the quotient leaves the range: what is lost is below 1e-36.
        Unary::Sigmoid | Unary::Silu => (2.0 * epsilon, 1e-29),
        _ => (2.0 * epsilon, f64::from(f32::MIN_POSITIVE)),
    }
}

const ALL: [Unary; 19] = [
    Unary::Neg,
    Unary::Abs,
    Unary::Ceil,
    Unary::Floor,
    Unary::Round,
    Unary::Sqrt,
    Unary::Reciprocal,
    Unary::Exp,
    Unary::Log,
    Unary::Sin,
    Unary::Cos,
    Unary::Tanh,
    Unary::Erf,
    Unary::Sigmoid,
    Unary::Relu,
    Unary::Gelu,
    Unary::GeluTanh,
    Unary::Silu,
    Unary::Softplus,
];

fn apply(simd: Simd, op: Unary, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len()];
    // SAFETY: `levels` gives what the machine has; the rows are as long as said.
    unsafe { unary(simd, op, x.as_ptr(), y.as_mut_ptr(), x.len()) };
    y
}

#[test]
fn functions_are_close_to_double_precision() {
    let mut points: Vec<f32> = (-40_000..40_000).map(|i| i as f32 * 0.002_51).collect();
    points.extend((-150..128).map(|n| 1.37 * (n as f32).exp2()));
    for simd in levels() {
        for op in ALL {
            let positive = matches!(op, Unary::Sqrt | Unary::Log);
            let moderate = matches!(op, Unary::Sin | Unary::Cos);
            let inside = |x: &&f32| (!positive || **x > 0.0) && (!moderate || x.abs() <= math::TRIGONOMETRIC_MAX);
            let x: Vec<f32> = points.iter().filter(inside).copied().collect();
            for (&x, y) in x.iter().zip(apply(simd, op, &x)) {
                let expected = exact(op, x.into());
                let (relative, floor) = bound(op, x.into());
                let error = (f64::from(y) - expected).abs();
                let overflows = y.is_infinite() && expected.abs() > f64::from(f32::MAX) * (1.0 - 1e-6);
                let allowed = relative * expected.abs().max(floor).max(f64::from(f32::MIN_POSITIVE));
                assert!(error <= allowed || overflows, "{simd:?} {op:?}({x:e}) is {y:e}, expected {expected:e}");
            }
        }
    }
}

#[test]
fn special_values_follow_ieee() {
    let inf = f32::INFINITY;
    for simd in levels() {
        for op in ALL {
            assert!(apply(simd, op, &[f32::NAN])[0].is_nan(), "{simd:?} {op:?}(NaN)");
        }
        let cases = [
            (Unary::Exp, -inf, 0.0),
            (Unary::Exp, inf, inf),
            (Unary::Exp, 0.0, 1.0),
            (Unary::Log, 0.0, -inf),
            (Unary::Log, inf, inf),
            (Unary::Log, 1.0, 0.0),
            (Unary::Tanh, inf, 1.0),
            (Unary::Tanh, -inf, -1.0),
            (Unary::Erf, -inf, -1.0),
            (Unary::Erf, inf, 1.0),
            (Unary::Sigmoid, -inf, 0.0),
            (Unary::Sigmoid, inf, 1.0),
            (Unary::Relu, -inf, 0.0),
            (Unary::Gelu, -inf, 0.0),
            (Unary::Gelu, inf, inf),
            (Unary::GeluTanh, -inf, 0.0),
            (Unary::GeluTanh, inf, inf),
            (Unary::Silu, -inf, 0.0),
            (Unary::Silu, inf, inf),
            (Unary::Softplus, -inf, 0.0),
            (Unary::Softplus, inf, inf),
        ];
        for (op, x, expected) in cases {
            assert_eq!(apply(simd, op, &[x])[0], expected, "{simd:?} {op:?}({x})");
        }
        assert!(apply(simd, Unary::Log, &[-1.0])[0].is_nan());
        assert!(apply(simd, Unary::Sin, &[inf])[0].is_nan());
        let far = apply(simd, Unary::Sin, &[1e9, 0.5]);
        assert_eq!(far, [1e9f32.sin(), 0.5f32.sin()]);
    }
}

#[test]
fn tails_are_computed_and_nothing_beyond_them_is_touched() {
    for simd in levels() {
        for count in 0..40 {
            let x: Vec<f32> = (0..count).map(|i| i as f32 * 0.25 - 3.0).collect();
            let mut y = vec![7.0; count + 20];
            // SAFETY: both rows hold `count` values.
            unsafe { unary(simd, Unary::Tanh, x.as_ptr(), y.as_mut_ptr(), count) };
            for at in 0..count {
                assert_eq!(y[at], apply(simd, Unary::Tanh, &x[at..at + 1])[0], "{simd:?} {count} {at}");
            }
            assert!(y[count..].iter().all(|&v| v == 7.0));
        }
    }
}

/// Reads the chosen lanes of a row, and stores the vector behind them.
struct Chosen<'a> {
    from: *const f32,
    bits: u32,
    to: &'a mut Vec<f32>,
}

impl Routine for Chosen<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        self.to.resize(V::LANES, 7.0);
        // SAFETY: the caller's promise for the chosen lanes; the result has room for a vector.
        unsafe { V::load_lanes(self.from, self.bits).store(self.to.as_mut_ptr()) }
    }
}

#[test]
fn lanes_that_are_not_chosen_are_zero_and_not_read() {
    let row = [1.0, 2.0, 3.0, 4.0f32];
    for simd in levels() {
        for bits in 0..16u32 {
            // Lanes 2 to 5 are the row; what lies before and behind it is not ours.
            let mut lanes = Vec::new();
            let from = row.as_ptr().wrapping_sub(2);
            // SAFETY: the chosen lanes are those of the row.
            unsafe { dispatch(simd, Chosen { from, bits: bits << 2, to: &mut lanes }) };
            for (lane, &value) in lanes.iter().enumerate() {
                let chosen = (2..6).contains(&lane) && bits >> (lane - 2) & 1 == 1;
                assert_eq!(value, if chosen { row[lane - 2] } else { 0.0 }, "{simd:?} {bits} {lane}");
            }
        }
    }
}
