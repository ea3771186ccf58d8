//! Eight lanes in plain Rust, which every compiler turns into whatever the target has.

use super::Vector;
use std::array::from_fn;
use std::ops::{Add, Div, Mul, Sub};

/// Eight values.
#[derive(Clone, Copy, Debug)]
pub struct Portable([f32; 8]);

macro_rules! operator {
    ($($trait:ident $method:ident $operator:tt),*) => {$(
        impl $trait for Portable {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Portable(from_fn(|lane| self.0[lane] $operator other.0[lane]))
            }
        }
    )*};
}
operator!(Add add +, Sub sub -, Mul mul *, Div div /);

impl Portable {
    #[inline(always)]
    fn each(self, function: impl Fn(f32) -> f32) -> Self {
        Portable(from_fn(|lane| function(self.0[lane])))
    }
}

impl Vector for Portable {
    const LANES: usize = 8;
    type Mask = [bool; 8];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array of f32 read unaligned.
        Portable(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's promise for the lanes below `count`.
        Portable(from_fn(|lane| if lane < count { unsafe { from.add(lane).read_unaligned() } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn load_lanes(from: *const f32, bits: u32) -> Self {
        let chosen = |lane: usize| bits >> lane & 1 == 1;
        // SAFETY: the caller's promise for the chosen lanes.
        Portable(from_fn(|lane| if chosen(lane) { unsafe { from.wrapping_add(lane).read_unaligned() } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn merge(self, from: *const f32, start: usize, count: usize) -> Self {
        let mut lanes = self.0;
        for (index, lane) in lanes[start..start + count].iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *lane = unsafe { from.add(index).read_unaligned() };
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: the caller's promise.
            unsafe { to.add(lane).write_unaligned(value) }
        }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // `f32::mul_add` is a library call where there is no instruction for it: much too slow.
        self * b + c
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Portable(from_fn(|lane| if self.0[lane] < other.0[lane] { self.0[lane] } else { other.0[lane] }))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Portable(from_fn(|lane| if self.0[lane] > other.0[lane] { self.0[lane] } else { other.0[lane] }))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.each(f32::abs)
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        Portable(from_fn(|lane| self.0[lane].copysign(sign.0[lane])))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.each(f32::sqrt)
    }
    #[inline(always)]
    fn round(self) -> Self {
        self.each(f32::round_ties_even)
    }
    #[inline(always)]
    fn floor(self) -> Self {
        self.each(f32::floor)
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        self.each(f32::ceil)
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
        Portable(from_fn(|lane| {
            let n = n.0[lane] as i32;
            // Two steps, each with a factor that is a normal number; only the second can round.
            self.0[lane] * power(n >> 1) * power(n - (n >> 1))
        }))
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        let bits = |lane: usize| self.0[lane].to_bits() as i32;
        let exponent = |lane: usize| bits(lane).wrapping_sub(super::math::SQRT_HALF_BITS) >> 23;
        let mantissa = |lane: usize| f32::from_bits(bits(lane).wrapping_sub(exponent(lane) << 23) as u32);
        (Portable(from_fn(mantissa)), Portable(from_fn(|lane| exponent(lane) as f32)))
    }
    #[inline(always)]
    fn unzip(self, next: Self) -> (Self, Self) {
        let lane = |index: usize| if index < 8 { self.0[index] } else { next.0[index - 8] };
        (Portable(from_fn(|index| lane(2 * index))), Portable(from_fn(|index| lane(2 * index + 1))))
    }
    #[inline(always)]
    fn less(self, other: Self) -> Self::Mask {
        from_fn(|lane| self.0[lane] < other.0[lane])
    }
    #[inline(always)]
    fn equal(self, other: Self) -> Self::Mask {
        from_fn(|lane| self.0[lane] == other.0[lane])
    }
    #[inline(always)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        Portable(from_fn(|lane| if mask[lane] { a.0[lane] } else { b.0[lane] }))
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let four: [f32; 4] = from_fn(|lane| self.0[lane] + self.0[lane + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    fn greatest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
