//! Register tiles of `I32`: the sum of products, wrapping.

use super::tile::Tile;

/// `M` rows times `N` columns. The compiler makes vectors of the inner loops.
///
/// # Safety
/// As [`super::tile::TileKernel`], with 4-byte integers for the elements.
#[inline(always)]
unsafe fn multiply<const M: usize, const N: usize, const PACKED: bool>(tile: &Tile) {
    let (a_row, a_step) = if PACKED { (1, tile.a_step) } else { (tile.a_row, 1) };
    let mut sums = [[0i32; N]; M];
    let (a, b, c) = (tile.a.cast::<i32>(), tile.b.cast::<[i32; N]>(), tile.c.cast::<i32>());
    for k in 0..tile.depth {
        // SAFETY: the caller's promise: row `k` of B is readable for whole vectors.
        let columns = unsafe { b.wrapping_byte_offset(k as isize * tile.b_step * 4).read_unaligned() };
        for (i, row) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise: row `i` of A has `depth` elements.
            let factor = unsafe { a.wrapping_offset(i as isize * a_row).wrapping_add(k * a_step).read_unaligned() };
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = sum.wrapping_add(factor.wrapping_mul(column));
            }
        }
    }
    for (i, row) in sums.iter().enumerate() {
        // SAFETY: the caller's promise: row `i` of C has `columns` elements.
        unsafe {
            let c = c.offset(i as isize * tile.c_row);
            std::ptr::copy_nonoverlapping(row.as_ptr(), c, tile.columns.min(N));
        }
    }
}

/// As [`multiply`].
///
/// # Safety
/// As [`multiply`], where the instructions exist.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2")]
pub(super) unsafe fn avx512<const M: usize, const N: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<M, N, PACKED>(tile) }
}

/// As [`multiply`].
///
/// # Safety
/// As [`multiply`], where the instructions exist.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2<const M: usize, const N: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<M, N, PACKED>(tile) }
}

/// As [`multiply`].
///
/// # Safety
/// As [`multiply`], where the instructions exist.
pub(super) unsafe fn portable<const M: usize, const N: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<M, N, PACKED>(tile) }
}
