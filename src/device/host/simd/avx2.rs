//! Eight lanes: AVX2 with FMA.

use super::Vector;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

/// A YMM register.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(__m256);

macro_rules! operator {
    ($($trait:ident $method:ident $intrinsic:ident),*) => {$(
        impl $trait for Avx2 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: `self` exists, so AVX2 does.
                Avx2(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}
operator!(Add add _mm256_add_ps, Sub sub _mm256_sub_ps, Mul mul _mm256_mul_ps, Div div _mm256_div_ps);

/// Eight times all ones, then eight times zero: read from `8 - count`, the first `count` lanes are chosen.
static CHOSEN: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Lanes `0..count`.
///
/// # Safety
/// AVX2 exists; `count` is at most 8.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    debug_assert!(count <= 8);
    // SAFETY: at most 8 in, 8 elements from there are inside the table.
    unsafe { _mm256_loadu_si256(CHOSEN.as_ptr().add(8 - count).cast()) }
}

/// `2^n` for integral n in -126..=127.
///
/// # Safety
/// AVX2 exists.
#[inline(always)]
unsafe fn power_of_two(n: __m256i) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
}

/// [`Vector::transpose_8x8`] with 8-lane registers: pairs of rows are interleaved, then pairs of pairs, then halves swapped.
///
/// # Safety
/// AVX exists, and as [`Vector::transpose_8x8`].
#[inline(always)]
pub(super) unsafe fn transpose_8x8(from: *const f32, stride: isize, rows: usize, to: *mut f32, pitch: usize) {
    // SAFETY: the caller's promise; rows that are missing are not read.
    unsafe {
        let row = |row: usize| match row < rows {
            true => _mm256_loadu_ps(from.offset(row as isize * stride)),
            false => _mm256_setzero_ps(),
        };
        let r = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
        let pair = |i: usize| (_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i], r[i + 1]));
        let (a, b, c, d) = (pair(0), pair(2), pair(4), pair(6));
        let quads = |a: (__m256, __m256), b: (__m256, __m256)| {
            [
                _mm256_shuffle_ps::<0x44>(a.0, b.0),
                _mm256_shuffle_ps::<0xee>(a.0, b.0),
                _mm256_shuffle_ps::<0x44>(a.1, b.1),
                _mm256_shuffle_ps::<0xee>(a.1, b.1),
            ]
        };
        let (upper, lower) = (quads(a, b), quads(c, d));
        for i in 0..4 {
            _mm256_storeu_ps(to.add(i * pitch), _mm256_permute2f128_ps::<0x20>(upper[i], lower[i]));
            _mm256_storeu_ps(to.add((i + 4) * pitch), _mm256_permute2f128_ps::<0x31>(upper[i], lower[i]));
        }
    }
}

impl Vector for Avx2 {
    const LANES: usize = 8;
    const TURN: usize = 4;
    type Mask = __m256;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise.
        Avx2(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Avx2(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's promise; masked lanes are not read.
        Avx2(unsafe { _mm256_maskload_ps(from, first(count)) })
    }
    #[inline(always)]
    unsafe fn load_lanes(from: *const f32, bits: u32) -> Self {
        // SAFETY: the caller's promise; masked lanes are not read.
        unsafe {
            let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let chosen = _mm256_and_si256(_mm256_set1_epi32(bits as i32), lane);
            Avx2(_mm256_maskload_ps(from, _mm256_cmpeq_epi32(chosen, lane)))
        }
    }
    #[inline(always)]
    unsafe fn merge(self, from: *const f32, start: usize, count: usize) -> Self {
        // SAFETY: the caller's promise; masked lanes are not read.
        unsafe {
            let mask = _mm256_andnot_si256(first(start), first(start + count));
            let read = _mm256_maskload_ps(from.wrapping_sub(start), mask);
            Avx2(_mm256_blendv_ps(self.0, read, _mm256_castsi256_ps(mask)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        // Not by a masked store, which is dozens of operations on Zen: halves, quarters and one element.
        // SAFETY: the caller's promise; `count` lanes are written.
        unsafe {
            let (mut to, mut lanes) = (to, _mm256_castps256_ps128(self.0));
            if count >= Self::LANES {
                return self.store(to);
            }
            if count & 4 != 0 {
                _mm_storeu_ps(to, lanes);
                (to, lanes) = (to.add(4), _mm256_extractf128_ps::<1>(self.0));
            }
            if count & 2 != 0 {
                _mm_storel_pd(to.cast(), _mm_castps_pd(lanes));
                (to, lanes) = (to.add(2), _mm_movehl_ps(lanes, lanes));
            }
            if count & 1 != 0 {
                _mm_store_ss(to, lanes);
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose_8x8(from: *const f32, stride: isize, rows: usize, to: *mut f32, pitch: usize) {
        // SAFETY: the caller's promise.
        unsafe { transpose_8x8(from, stride, rows, to, pitch) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: `self` exists, so AVX2 and FMA do.
        Avx2(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx2(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx2(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: as above.
        Avx2(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        // SAFETY: as above.
        Avx2(unsafe {
            let mask = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(mask, self.0), _mm256_and_ps(mask, sign.0))
        })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: as above.
        Avx2(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as above.
        Avx2(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn floor(self) -> Self {
        // SAFETY: as above.
        Avx2(unsafe { _mm256_floor_ps(self.0) })
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        // SAFETY: as above.
        Avx2(unsafe { _mm256_ceil_ps(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: as above. Two steps, each with a factor that is a normal number; only the second can round.
        unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            Avx2(_mm256_mul_ps(_mm256_mul_ps(self.0, power_of_two(half)), power_of_two(rest)))
        }
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        // SAFETY: as above.
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let above = _mm256_sub_epi32(bits, _mm256_set1_epi32(super::math::SQRT_HALF_BITS));
            let exponent = _mm256_srai_epi32::<23>(above);
            let mantissa = _mm256_sub_epi32(bits, _mm256_slli_epi32::<23>(exponent));
            (Avx2(_mm256_castsi256_ps(mantissa)), Avx2(_mm256_cvtepi32_ps(exponent)))
        }
    }
    #[inline(always)]
    fn unzip(self, next: Self) -> (Self, Self) {
        // SAFETY: as above. The shuffles leave the quarters in the order 0, 2, 1, 3.
        unsafe {
            let order = |lanes| Avx2(_mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(lanes))));
            (order(_mm256_shuffle_ps::<0x88>(self.0, next.0)), order(_mm256_shuffle_ps::<0xdd>(self.0, next.0)))
        }
    }
    #[inline(always)]
    fn less(self, other: Self) -> Self::Mask {
        // SAFETY: as above.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn equal(self, other: Self) -> Self::Mask {
        // SAFETY: as above.
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        // SAFETY: `a` exists, so AVX2 does.
        Avx2(unsafe { _mm256_blendv_ps(b.0, a.0, mask) })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: `self` exists, so AVX2 does.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn greatest(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
