//! The register tile: a few rows times a few vectors of columns, over the whole of K.
//!
//! Every element of a product is one chain of fused multiply-adds in ascending k, whatever tile computes it. So results
//! do not depend on how work is divided, nor on how many rows there are.

#[cfg(target_arch = "x86_64")]
use super::super::simd::{Avx2, Avx512};
use super::super::simd::{Portable, Vector, prefetch};
use crate::lower::host::{Gate, Simd};

/// What a tile works on: `c[i][j] = alpha * sum over k of a[i][k] b[k][j]`. Strides count elements.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Extent of the sum.
    pub depth: usize,
    /// Factor of the sum.
    pub alpha: f32,
    /// First element of A.
    pub a: *const f32,
    /// From one row of A to the next; 1 if A is packed.
    pub a_row: isize,
    /// From one column of A to the next; 1 if A is not packed.
    pub a_step: usize,
    /// First element of B, whose columns lie side by side.
    pub b: *const f32,
    /// From one row of B to the next.
    pub b_step: isize,
    /// First element of C, whose columns lie side by side.
    pub c: *mut f32,
    /// From one row of C to the next.
    pub c_row: isize,
    /// Columns of C to write.
    pub columns: usize,
    /// What is done to the elements before they are written; integer tiles do nothing.
    pub finish: TileFinish,
}

/// `gated(clamp(x + bias + residual, low, high)) * scale + shift`; what is null or `None` is left out.
#[derive(Clone, Copy, Debug)]
pub struct TileFinish {
    /// One value per row.
    pub row_bias: *const f32,
    /// From one value to the next.
    pub row_bias_step: isize,
    /// One value per column, side by side.
    pub column_bias: *const f32,
    /// Lies like C.
    pub residual: *const f32,
    /// Least and greatest value, if there are bounds.
    pub clamp: Option<(f32, f32)>,
    /// A function of one argument.
    pub gate: Option<Gate>,
    /// Factor and summand.
    pub scale: Option<(f32, f32)>,
}

impl TileFinish {
    /// Nothing.
    pub const NONE: TileFinish = TileFinish {
        row_bias: std::ptr::null(),
        row_bias_step: 0,
        column_bias: std::ptr::null(),
        residual: std::ptr::null(),
        clamp: None,
        gate: None,
        scale: None,
    };

    /// Applies it to `count` elements of row `row` from column `column` on; `residual` is that of the first of them.
    ///
    /// # Safety
    /// The instructions of `V` are enabled, and what is not null is readable there.
    #[inline(always)]
    pub unsafe fn apply<V: Vector>(&self, x: V, row: isize, column: usize, residual: *const f32, count: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { self.apply_all([x], row, column, residual, count)[0] }
    }

    /// [`TileFinish::apply`] to vectors of neighbouring columns: what is to be done is decided once for all of them. Only a single
    /// one may be partial.
    ///
    /// # Safety
    /// As [`TileFinish::apply`].
    #[inline(always)]
    pub unsafe fn apply_all<V: Vector, const K: usize>(
        &self,
        mut x: [V; K],
        row: isize,
        column: usize,
        residual: *const f32,
        count: usize,
    ) -> [V; K] {
        // SAFETY: the caller's promise.
        unsafe {
            if !self.row_bias.is_null() {
                let bias = V::splat(*self.row_bias.offset(row * self.row_bias_step));
                x.iter_mut().for_each(|x| *x = *x + bias);
            }
            if !self.column_bias.is_null() {
                let bias = self.column_bias.add(column);
                x.iter_mut().enumerate().for_each(|(at, x)| *x = *x + load::<V>(bias.add(at * V::LANES), count));
            }
            if !self.residual.is_null() {
                x.iter_mut().enumerate().for_each(|(at, x)| *x = *x + load::<V>(residual.add(at * V::LANES), count));
            }
            if let Some((low, high)) = self.clamp {
                let (low, high) = (V::splat(low), V::splat(high));
                x.iter_mut().for_each(|x| *x = high.min(low.max(*x)));
            }
            if let Some(gate) = self.gate {
                let (scale, shift) = (V::splat(gate.scale), V::splat(gate.shift));
                let (low, high) = (V::splat(gate.low), V::splat(gate.high));
                x.iter_mut().for_each(|x| *x = *x * high.min(low.max(scale.mul_add(*x, shift))));
            }
            if let Some((scale, shift)) = self.scale {
                let (scale, shift) = (V::splat(scale), V::splat(shift));
                x.iter_mut().for_each(|x| *x = x.mul_add(scale, shift));
            }
        }
        x
    }
}

/// # Safety
/// The instructions of `V` are enabled; `count` values are readable.
#[inline(always)]
unsafe fn load<V: Vector>(from: *const f32, count: usize) -> V {
    // SAFETY: the caller's promise.
    unsafe { if count >= V::LANES { V::load(from) } else { V::load_partial(from, count) } }
}

/// A tile kernel.
///
/// # Safety
/// The machine has the instructions. For all rows of the kernel: A is readable, B is readable for whole vectors, C is
/// writable in the columns to write and overlaps neither.
pub type TileKernel = unsafe fn(&Tile);

/// Adds all steps of the sums.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn sum<V: Vector, const M: usize, const N: usize, const PACKED: bool>(
    tile: &Tile,
    b_step: isize,
    sums: &mut [[V; N]; M],
) {
    let (mut a, mut b) = (tile.a, tile.b);
    let a_step = if PACKED { tile.a_step } else { 1 };
    let turns = tile.depth / V::TURN;
    // The addresses may end up outside the matrices after the last step, and those that are fetched ahead do.
    for _ in 0..turns {
        for step in 0..V::TURN {
            let b = b.wrapping_offset(step as isize * b_step);
            if V::TURN > 1 && M > 1 {
                prefetch(b.wrapping_offset(STEPS_AHEAD * b_step));
            }
            // SAFETY: the caller's promise covers the row of B and the column of A.
            unsafe { add_step::<V, M, N, PACKED>(tile, a.wrapping_add(step * a_step), b, sums) };
        }
        a = a.wrapping_add(V::TURN * a_step);
        b = b.wrapping_offset(V::TURN as isize * b_step);
    }
    for _ in turns * V::TURN..tile.depth {
        // SAFETY: as above.
        unsafe { add_step::<V, M, N, PACKED>(tile, a, b, sums) };
        a = a.wrapping_add(a_step);
        b = b.wrapping_offset(b_step);
    }
}

/// Adds the products of a column of A and a row of B.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn add_step<V: Vector, const M: usize, const N: usize, const PACKED: bool>(
    tile: &Tile,
    a: *const f32,
    b: *const f32,
    sums: &mut [[V; N]; M],
) {
    let a_row = if PACKED { 1 } else { tile.a_row };
    // SAFETY: the caller's promise covers every address below.
    unsafe {
        let mut columns = [V::splat(0.0); N];
        for (j, column) in columns.iter_mut().enumerate() {
            *column = V::load(b.add(j * V::LANES));
        }
        for (i, row) in sums.iter_mut().enumerate() {
            let factor = V::splat(*a.wrapping_offset(i as isize * a_row));
            for (sum, &column) in row.iter_mut().zip(&columns) {
                *sum = factor.mul_add(column, *sum);
            }
        }
    }
}

/// `M` rows times `N` vectors. If `PACKED`, the rows of A lie side by side, else its columns do.
///
/// # Safety
/// As [`TileKernel`], with the instructions of `V` enabled.
#[inline(always)]
unsafe fn multiply<V: Vector, const M: usize, const N: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise covers every address below.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        let side_by_side = tile.b_step == (N * V::LANES) as isize;
        // One loop whose steps in B are constants, and so are the offsets of the loads.
        if V::TURN > 1 && side_by_side {
            sum::<V, M, N, PACKED>(tile, (N * V::LANES) as isize, &mut sums);
        } else {
            sum::<V, M, N, PACKED>(tile, tile.b_step, &mut sums);
        }
        // The loop that finishes the sums is too large to be unrolled, so it reads them from memory. From a buffer of its own:
        // an array that any rolled loop indexes lives in memory throughout, and each multiply-add above would store its sum.
        let mut buffer = [std::mem::MaybeUninit::<f32>::uninit(); ROWS_MAX * PANEL_MAX];
        let buffer = buffer.as_mut_ptr().cast::<f32>();
        for (i, row) in sums.iter().enumerate() {
            for (j, sum) in row.iter().enumerate() {
                sum.store(buffer.add((i * N + j) * V::LANES));
            }
        }
        let alpha = V::splat(tile.alpha);
        for i in 0..M {
            let offset = i as isize * tile.c_row;
            let (c, residual) = (tile.c.offset(offset), tile.finish.residual.wrapping_offset(offset));
            let sums = buffer.add(i * N * V::LANES);
            if tile.columns >= N * V::LANES {
                let mut x = [alpha; N];
                x.iter_mut().enumerate().for_each(|(j, x)| *x = *x * V::load(sums.add(j * V::LANES)));
                let x = tile.finish.apply_all(x, i as isize, 0, residual, N * V::LANES);
                x.iter().enumerate().for_each(|(j, x)| x.store(c.add(j * V::LANES)));
                continue;
            }
            for at in (0..tile.columns).step_by(V::LANES) {
                let left = tile.columns - at;
                let x = alpha * V::load(sums.add(at));
                let x = tile.finish.apply(x, i as isize, at, residual.wrapping_add(at), left);
                if left >= V::LANES { x.store(c.add(at)) } else { x.store_partial(c.add(at), left) }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
unsafe fn avx512<const M: usize, const N: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<Avx512, M, N, PACKED>(tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const M: usize, const N: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<Avx2, M, N, PACKED>(tile) }
}

unsafe fn portable<const M: usize, const N: usize, const PACKED: bool>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<Portable, M, N, PACKED>(tile) }
}

/// The tile kernels of one instruction set.
#[derive(Debug)]
pub struct TileSet {
    /// Lanes of a vector.
    lanes: usize,
    /// `[packed][rows - 1]`: one panel wide.
    panel: [[TileKernel; ROWS_MAX]; 2],
    /// `[packed][rows - 1]`: one vector wide.
    narrow: [[TileKernel; ROWS_MAX]; 2],
}

/// Rows of B that are fetched before they are used: a panel that the first row tile meets is in no near cache yet. A single
/// row waits for memory anyway, and more requests only get in the way.
const STEPS_AHEAD: isize = 32;

/// Most rows of any tile of any instruction set.
pub const ROWS_MAX: usize = 14;
/// Most columns of any tile of any instruction set.
const PANEL_MAX: usize = 32;

macro_rules! rows {
    ($kernel:path, $width:literal, $packed:literal, [$($rows:literal),*]) => {{
        use $kernel as kernel;
        [$(kernel::<$rows, $width, $packed>),*]
    }};
}

macro_rules! tile_set {
    ($kernel:path, $lanes:literal, [$panel:literal, $narrow:literal], $rows:tt) => {
        TileSet {
            lanes: $lanes,
            panel: [rows!($kernel, $panel, false, $rows), rows!($kernel, $panel, true, $rows)],
            narrow: [rows!($kernel, $narrow, false, $rows), rows!($kernel, $narrow, true, $rows)],
        }
    };
}

// Tables end with the highest tile repeated: nobody asks for more rows than `Simd::tile_rows`.
#[cfg(target_arch = "x86_64")]
static AVX512: [TileSet; 2] = [
    tile_set!(avx512, 16, [2, 1], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
    tile_set!(super::integer::avx512, 16, [32, 16], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
];
#[cfg(target_arch = "x86_64")]
static AVX2: [TileSet; 2] = [
    tile_set!(avx2, 8, [2, 1], [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6]),
    tile_set!(super::integer::avx2, 8, [16, 8], [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6]),
];
static PORTABLE: [TileSet; 2] = [
    tile_set!(portable, 8, [2, 1], [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]),
    tile_set!(super::integer::portable, 8, [16, 8], [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]),
];

impl TileSet {
    /// The kernels for an instruction set, of `I32` or `F32` elements.
    pub fn of(simd: Simd, integer: bool) -> &'static TileSet {
        let sets = match simd {
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => &AVX512,
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => &AVX2,
            _ => &PORTABLE,
        };
        &sets[usize::from(integer)]
    }

    /// The kernel for `rows` rows, at most `Simd::tile_rows`, and at most a panel of columns.
    pub fn kernel(&self, rows: usize, columns: usize, packed: bool) -> TileKernel {
        let kernels = if columns <= self.lanes { &self.narrow } else { &self.panel };
        kernels[usize::from(packed)][rows - 1]
    }
}
