//! Functions of one argument over rows of f32.

use super::{Routine, Vector, dispatch, math};
use crate::kernels::Unary;
use crate::lower::host::Simd;

/// Whether [`unary`] has the function.
pub fn unary_is_vectorised(op: Unary) -> bool {
    !matches!(op, Unary::Sign | Unary::Not | Unary::IsNan | Unary::IsInf)
}

/// `to[i] = op(from[i])` for `i` below `count`; the rows may be the same. Functions that [`unary_is_vectorised`] denies do nothing.
///
/// # Safety
/// The machine has the instructions of `simd`; the rows are readable and writable and equal or disjoint.
pub unsafe fn unary(simd: Simd, op: Unary, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { dispatch(simd, UnaryRow { op, from, to, count }) }
}

/// Applies a vector function along the row. A macro and no function of a function: the call of a generic parameter need not
/// be inlined, and outside a function that enables the instructions each intrinsic is a call of its own.
macro_rules! each {
    ($row:expr, $vector:ty, $function:expr) => {{
        let (row, lanes) = (&$row, <$vector>::LANES);
        let whole = row.count / lanes * lanes;
        // SAFETY: all positions are below `count`; the caller enables the instructions.
        unsafe {
            for at in (0..whole).step_by(lanes) {
                $function(<$vector>::load(row.from.add(at))).store(row.to.add(at));
            }
            if whole < row.count {
                let rest = row.count - whole;
                $function(<$vector>::load_partial(row.from.add(whole), rest)).store_partial(row.to.add(whole), rest);
            }
        }
    }};
}

struct UnaryRow {
    op: Unary,
    from: *const f32,
    to: *mut f32,
    count: usize,
}

impl Routine for UnaryRow {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        match self.op {
            Unary::Neg => each!(self, V, |x: V| x * x.lanes(-1.0)),
            Unary::Abs => each!(self, V, |x: V| x.abs()),
            Unary::Ceil => each!(self, V, |x: V| x.ceil()),
            Unary::Floor => each!(self, V, |x: V| x.floor()),
            Unary::Round => each!(self, V, |x: V| x.round()),
            Unary::Sqrt => each!(self, V, |x: V| x.sqrt()),
            Unary::Reciprocal => each!(self, V, |x: V| x.lanes(1.0) / x),
            Unary::Exp => each!(self, V, math::exp::<V>),
            Unary::Log => each!(self, V, math::log::<V>),
            // SAFETY: the caller of `unary` promised the rows.
            Unary::Sin if unsafe { !self.is_moderate() } => unsafe { self.each_scalar(f32::sin) },
            Unary::Sin => each!(self, V, math::sin::<V>),
            // SAFETY: the caller of `unary` promised the rows.
            Unary::Cos if unsafe { !self.is_moderate() } => unsafe { self.each_scalar(f32::cos) },
            Unary::Cos => each!(self, V, math::cos::<V>),
            Unary::Tanh => each!(self, V, math::tanh::<V>),
            Unary::Erf => each!(self, V, math::erf::<V>),
            Unary::Sigmoid => each!(self, V, math::sigmoid::<V>),
            Unary::Relu => each!(self, V, math::relu::<V>),
            Unary::Gelu => each!(self, V, math::gelu::<V>),
            Unary::GeluTanh => each!(self, V, math::gelu_tanh::<V>),
            Unary::Silu => each!(self, V, math::silu::<V>),
            Unary::Softplus => each!(self, V, math::softplus::<V>),
            Unary::Sign | Unary::Not | Unary::IsNan | Unary::IsInf => {}
        }
    }
}

impl UnaryRow {
    /// Whether no argument is too large for the vector functions of angles, infinite or NaN.
    ///
    /// # Safety
    /// As [`unary`].
    #[inline(always)]
    unsafe fn is_moderate(&self) -> bool {
        // SAFETY: all positions are below `count`.
        (0..self.count).all(|at| unsafe { self.from.add(at).read() }.abs() <= math::TRIGONOMETRIC_MAX)
    }

    /// # Safety
    /// As [`unary`].
    unsafe fn each_scalar(&self, function: fn(f32) -> f32) {
        for at in 0..self.count {
            // SAFETY: all positions are below `count`.
            unsafe { self.to.add(at).write(function(self.from.add(at).read())) };
        }
    }
}
