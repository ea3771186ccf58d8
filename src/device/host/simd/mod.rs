//! Vectors of f32 with one source for AVX-512, AVX2 and everything else.
//!
//! A [`Routine`] is written once over a [`Vector`] type; [`dispatch`] runs the instance whose instructions the machine
//! has. Everything between the two is `#[inline(always)]`, so that it is compiled inside a function that enables the
//! instructions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod elementwise;
pub mod math;
mod portable;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use elementwise::{unary, unary_is_vectorised};
pub use portable::Portable;

use crate::lower::host::Simd;
use std::ops::{Add, Div, Mul, Sub};

/// A register of [`Vector::LANES`] f32. Only [`Vector::splat`] and the loads make one out of nothing, and they demand that the
/// machine has the instructions; whoever holds a vector may therefore use all its other functions.
pub trait Vector:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + 'static
{
    /// Number of lanes.
    const LANES: usize;
    /// Steps of a sum of products per turn of its loop. With short vectors what surrounds the multiply-adds is a good part of
    /// the instructions, and on a core that two threads share it takes their slots.
    const TURN: usize = 1;
    /// One truth value per lane.
    type Mask: Copy;

    /// The same value in every lane.
    ///
    /// # Safety
    /// The caller runs where the type's instructions exist and are enabled.
    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` values; no alignment is needed.
    ///
    /// # Safety
    /// As [`Vector::splat`], and the values are readable.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads `count` values, at most `LANES`, and zeros the other lanes.
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn load_partial(from: *const f32, count: usize) -> Self;
    /// Reads the lanes whose bits are set and zeros the others.
    ///
    /// # Safety
    /// As [`Vector::load`] for those lanes; the others need not be readable.
    unsafe fn load_lanes(from: *const f32, bits: u32) -> Self;
    /// This vector with lanes `start..start + count` read from `from` on.
    ///
    /// # Safety
    /// As [`Vector::load`] for `count` values; the lanes exist.
    unsafe fn merge(self, from: *const f32, start: usize, count: usize) -> Self;
    /// Writes `LANES` values; no alignment is needed.
    ///
    /// # Safety
    /// The values are writable.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count` lanes, at most `LANES`.
    ///
    /// # Safety
    /// They are writable.
    unsafe fn store_partial(self, to: *mut f32, count: usize);

    /// `self * b + c`, rounded once where the machine can.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self < other ? self : other`: the other if either is NaN.
    fn min(self, other: Self) -> Self;
    /// `self > other ? self : other`: the other if either is NaN.
    fn max(self, other: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The magnitude with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Nearest integer, ties to even.
    fn round(self) -> Self;
    /// Greatest integer not above.
    fn floor(self) -> Self;
    /// Least integer not below.
    fn ceil(self) -> Self;
    /// `self * 2^n` for integral `n` within -300..300, rounded once.
    fn scale(self, n: Self) -> Self;
    /// For positive normal values: mantissa in `[sqrt(1/2), sqrt(2))` and exponent, with `self = mantissa * 2^exponent`.
    fn split(self) -> (Self, Self);
    /// The lanes with even and those with odd numbers of two vectors in a row.
    fn unzip(self, next: Self) -> (Self, Self);
    /// Lanes where `self < other`.
    fn less(self, other: Self) -> Self::Mask;
    /// Lanes where both are equal (never where one is NaN).
    fn equal(self, other: Self) -> Self::Mask;
    /// `a` where the mask holds, else `b`.
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self;
    /// Sum of the lanes, in an order fixed per type.
    fn sum(self) -> f32;
    /// Greatest lane; unspecified if one is NaN.
    fn greatest(self) -> f32;

    /// Transposes 8 columns of `rows` rows, at most 8: `to[column * pitch + row]` becomes `from[row * stride + column]`, and
    /// 0 in the rows missing to 8.
    ///
    /// # Safety
    /// As [`Vector::splat`]; the elements are readable or writable and do not overlap.
    #[inline(always)]
    unsafe fn transpose_8x8(from: *const f32, stride: isize, rows: usize, to: *mut f32, pitch: usize) {
        for column in 0..8 {
            for row in 0..8 {
                // SAFETY: the caller's promise.
                unsafe {
                    let present = row < rows;
                    let from = from.wrapping_offset(row as isize * stride).wrapping_add(column);
                    to.add(column * pitch + row).write(if present { from.read_unaligned() } else { 0.0 });
                }
            }
        }
    }

    /// The same value in every lane, where a vector is at hand.
    #[inline(always)]
    fn lanes(self, value: f32) -> Self {
        // SAFETY: `self` exists, so its instructions do.
        unsafe { Self::splat(value) }
    }
}

/// Fetches a cache line that will be read soon; the address may be any.
#[inline(always)]
pub fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which never faults; every x86-64 has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Work written over any vector type.
pub trait Routine {
    /// Does it. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The caller runs where the instructions of `V` exist and are enabled; an implementation may demand more.
    unsafe fn run<V: Vector>(self);
}

/// Runs a routine with the instructions of `simd`.
///
/// # Safety
/// The machine has the instructions of `simd`, and what the routine demands holds.
pub unsafe fn dispatch<R: Routine>(simd: Simd, routine: R) {
    match simd {
        // SAFETY: the caller's promise.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => unsafe { run_avx512(routine) },
        // SAFETY: the caller's promise.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => unsafe { run_avx2(routine) },
        // SAFETY: the portable vector needs no particular instructions.
        _ => unsafe { routine.run::<Portable>() },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn run_avx512<R: Routine>(routine: R) {
    // SAFETY: the caller's promise.
    unsafe { routine.run::<Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<R: Routine>(routine: R) {
    // SAFETY: the caller's promise.
    unsafe { routine.run::<Avx2>() }
}
