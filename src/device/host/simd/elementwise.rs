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

struct UnaryRow {
    op: Unary,
    from: *const f32,
    to: *mut f32,
    count: usize,
}

impl Routine for UnaryRow {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY (all): the caller of `unary` promised instructions and rows.
        match self.op {
            Unary::Neg => unsafe { self.each(|x: V| x * x.lanes(-1.0)) },
            Unary::Abs => unsafe { self.each(|x: V| x.abs()) },
            Unary::Ceil => unsafe { self.each(|x: V| x.ceil()) },
            Unary::Floor => unsafe { self.each(|x: V| x.floor()) },
            Unary::Round => unsafe { self.each(|x: V| x.round()) },
            Unary::Sqrt => unsafe { self.each(|x: V| x.sqrt()) },
            Unary::Reciprocal => unsafe { self.each(|x: V| x.lanes(1.0) / x) },
            Unary::Exp => unsafe { self.each(math::exp::<V>) },
            Unary::Log => unsafe { self.each(math::log::<V>) },
            Unary::Sin => unsafe { self.trigonometric(math::sin::<V>, f32::sin) },
            Unary::Cos => unsafe { self.trigonometric(math::cos::<V>, f32::cos) },
            Unary::Tanh => unsafe { self.each(math::tanh::<V>) },
            Unary::Erf => unsafe { self.each(math::erf::<V>) },
            Unary::Sigmoid => unsafe { self.each(math::sigmoid::<V>) },
            Unary::Relu => unsafe { self.each(math::relu::<V>) },
            Unary::Gelu => unsafe { self.each(math::gelu::<V>) },
            Unary::GeluTanh => unsafe { self.each(math::gelu_tanh::<V>) },
            Unary::Silu => unsafe { self.each(math::silu::<V>) },
            Unary::Softplus => unsafe { self.each(math::softplus::<V>) },
            Unary::Sign | Unary::Not | Unary::IsNan | Unary::IsInf => {}
        }
    }
}

impl UnaryRow {
    /// # Safety
    /// As [`unary`], with the instructions of `V` enabled.
    #[inline(always)]
    unsafe fn each<V: Vector>(&self, function: impl Fn(V) -> V) {
        let whole = self.count / V::LANES * V::LANES;
        // SAFETY: all positions are below `count`.
        unsafe {
            for at in (0..whole).step_by(V::LANES) {
                function(V::load(self.from.add(at))).store(self.to.add(at));
            }
            if whole < self.count {
                let rest = self.count - whole;
                function(V::load_partial(self.from.add(whole), rest)).store_partial(self.to.add(whole), rest);
            }
        }
    }

    /// The vector function, but the scalar one for rows in which an argument is too large for it, infinite or NaN.
    ///
    /// # Safety
    /// As [`unary`], with the instructions of `V` enabled.
    #[inline(always)]
    unsafe fn trigonometric<V: Vector>(&self, vector: impl Fn(V) -> V, scalar: fn(f32) -> f32) {
        // SAFETY: all positions are below `count`.
        unsafe {
            let moderate = (0..self.count).all(|at| self.from.add(at).read().abs() <= math::TRIGONOMETRIC_MAX);
            if moderate {
                return self.each(vector);
            }
            for at in 0..self.count {
                self.to.add(at).write(scalar(self.from.add(at).read()));
            }
        }
    }
}
