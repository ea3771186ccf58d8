//! Functions of f32 by polynomial, a few units in the last place at most; `tests.rs` states and checks each bound.

use super::Vector;

/// Bits of sqrt(1/2): the lower end of the mantissas of [`Vector::split`].
pub(super) const SQRT_HALF_BITS: i32 = 0x3f35_04f3;

/// ln 2 in two parts; the first has trailing zeros, so that its product with a small integer is exact.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// `c[0] x^n + c[1] x^(n-1) + .. + c[n]` by Horner's rule.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(x: V, coefficients: [f32; N]) -> V {
    let mut sum = x.lanes(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = sum.mul_add(x, x.lanes(coefficient));
    }
    sum
}

/// e^x. Range reduction by multiples of ln 2, then a Taylor-like polynomial of degree 6 (Cephes, `expf`).
#[inline(always)]
pub fn exp<V: Vector>(x: V) -> V {
    // Beyond these the result is 0 or infinite anyway. NaN passes both: it is the second operand.
    let x = x.lanes(89.0).min(x);
    let x = x.lanes(-104.0).max(x);
    let n = (x * x.lanes(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(x.lanes(-LN2_HIGH), x);
    let r = n.mul_add(x.lanes(-LN2_LOW), r);
    let p = polynomial(r, [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let p = p.mul_add(r * r, r) + x.lanes(1.0);
    p.scale(n)
}

/// Natural logarithm (Cephes, `logf`): NaN below 0, -inf at 0, subnormal numbers included.
#[inline(always)]
pub fn log<V: Vector>(x: V) -> V {
    let zero = x.lanes(0.0);
    let subnormal = x.less(x.lanes(f32::MIN_POSITIVE));
    let normal = V::select(subnormal, x * x.lanes(8_388_608.0), x);
    let (mantissa, exponent) = normal.split();
    let exponent = exponent - V::select(subnormal, x.lanes(23.0), zero);
    let f = mantissa - x.lanes(1.0);
    let square = f * f;
    let p = polynomial(
        f,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_8e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_7e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let y = exponent.mul_add(x.lanes(-2.121_944_4e-4), f * square * p);
    let y = square.mul_add(x.lanes(-0.5), y);
    let result = exponent.mul_add(x.lanes(0.693_359_4), f + y);
    let infinity = x.lanes(f32::INFINITY);
    let result = V::select(x.equal(infinity), infinity, result);
    let result = V::select(x.equal(zero), x.lanes(f32::NEG_INFINITY), result);
    let result = V::select(x.less(zero), x.lanes(f32::NAN), result);
    keep_nan(x, result)
}

/// `result`, but NaN where `x` is.
#[inline(always)]
fn keep_nan<V: Vector>(x: V, result: V) -> V {
    V::select(x.equal(x), result, x)
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub fn sigmoid<V: Vector>(x: V) -> V {
    let one = x.lanes(1.0);
    one / (one + exp(x.lanes(0.0) - x))
}

/// x / (1 + e^-x)
#[inline(always)]
pub fn silu<V: Vector>(x: V) -> V {
    let decay = exp(x.lanes(0.0) - x);
    let result = x / (x.lanes(1.0) + decay);
    // -inf / inf: the limit is -0.
    V::select(x.equal(x.lanes(f32::NEG_INFINITY)), x.lanes(-0.0), result)
}

/// Hyperbolic tangent (Cephes, `tanhf`): a polynomial near 0, else by the exponential.
#[inline(always)]
pub fn tanh<V: Vector>(x: V) -> V {
    let magnitude = x.abs();
    let square = x * x;
    let p = polynomial(square, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let near = (p * square).mul_add(x, x);
    let one = x.lanes(1.0);
    let far = one - x.lanes(2.0) / (exp(magnitude + magnitude) + one);
    V::select(magnitude.less(x.lanes(0.625)), near, far.copysign(x))
}

/// Error function: `x + x p(x^2)` near 0, else `1 - exp(q(|x|))`, both minimax (N. Juffa, 2014).
#[inline(always)]
pub fn erf<V: Vector>(x: V) -> V {
    let t = x.abs();
    let square = x * x;
    let near = polynomial(
        square,
        [-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1],
    );
    let near = near.mul_add(x, x);
    let high = t.mul_add(x.lanes(-1.728_534_7e-5), x.lanes(3.831_971_3e-4));
    let low = t.mul_add(x.lanes(-3.883_964_4e-3), x.lanes(2.425_462_2e-2));
    let q = high.mul_add(square, low);
    let q = q.mul_add(t, x.lanes(-1.067_778_8e-1));
    let q = q.mul_add(t, x.lanes(-6.348_467e-1));
    let q = q.mul_add(t, x.lanes(-1.287_175_1e-1));
    let q = q.mul_add(t, x.lanes(0.0) - t);
    let far = (x.lanes(1.0) - exp(q)).copysign(x);
    keep_nan(x, V::select(x.lanes(0.927_734_4).less(t), far, near))
}

/// x/2 (1 + erf(x / sqrt 2))
#[inline(always)]
pub fn gelu<V: Vector>(x: V) -> V {
    let half = x * x.lanes(0.5);
    let result = half.mul_add(erf(x * x.lanes(std::f32::consts::FRAC_1_SQRT_2)), half);
    // -inf * 0: the limit is -0.
    V::select(x.equal(x.lanes(f32::NEG_INFINITY)), x.lanes(-0.0), result)
}

/// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), computed as `x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))`.
#[inline(always)]
pub fn gelu_tanh<V: Vector>(x: V) -> V {
    let inner = (x * x).mul_add(x.lanes(0.044_715), x.lanes(1.0)) * x;
    let argument = inner * x.lanes(-2.0 * 0.797_884_6);
    let result = x / (x.lanes(1.0) + exp(argument));
    V::select(x.equal(x.lanes(f32::NEG_INFINITY)), x.lanes(-0.0), result)
}

/// ln(1 + e^x), as `max(x, 0) + log1p(e^-|x|)`.
#[inline(always)]
pub fn softplus<V: Vector>(x: V) -> V {
    let zero = x.lanes(0.0);
    let small = exp(zero - x.abs());
    let one = x.lanes(1.0);
    let above = one + small;
    // What the addition to 1 lost is added to the logarithm in first order.
    let log1p = log(above) + (small - (above - one)) / above;
    keep_nan(x, zero.max(x) + log1p)
}

/// max(x, 0); a NaN stays a NaN.
#[inline(always)]
pub fn relu<V: Vector>(x: V) -> V {
    x.lanes(0.0).max(x)
}

/// Sine and cosine are reduced exactly enough below this magnitude.
pub const TRIGONOMETRIC_MAX: f32 = 32_768.0;

/// Sine for magnitudes up to [`TRIGONOMETRIC_MAX`].
#[inline(always)]
pub fn sin<V: Vector>(x: V) -> V {
    quarter_waves(x, 0.0)
}

/// Cosine for magnitudes up to [`TRIGONOMETRIC_MAX`].
#[inline(always)]
pub fn cos<V: Vector>(x: V) -> V {
    quarter_waves(x, 1.0)
}

/// sin(x + quarters pi/2): reduction by multiples of pi/2 in three parts (Cody and Waite), then one of two polynomials.
#[inline(always)]
fn quarter_waves<V: Vector>(x: V, quarters: f32) -> V {
    let n = (x * x.lanes(std::f32::consts::FRAC_2_PI)).round();
    let r = n.mul_add(x.lanes(-1.570_312_5), x);
    let r = n.mul_add(x.lanes(-4.837_513e-4), r);
    let r = n.mul_add(x.lanes(-7.549_79e-8), r);
    let square = r * r;
    let p = polynomial(square, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let sine = (p * square).mul_add(r, r);
    let p = polynomial(square, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let cosine = (p * square).mul_add(square, square.mul_add(x.lanes(-0.5), x.lanes(1.0)));
    // The quarter within a full wave: 0, 1, 2 or 3.
    let n = n + x.lanes(quarters);
    let quarter = n - (n * x.lanes(0.25)).floor() * x.lanes(4.0);
    let odd = (quarter * x.lanes(0.5)).floor() * x.lanes(2.0) - quarter;
    let value = V::select(odd.less(x.lanes(-0.5)), cosine, sine);
    V::select(x.lanes(1.5).less(quarter), x.lanes(0.0) - value, value)
}
