//! Matrix products whose tiles the tensor memory accelerator of compute capability 9.0 brings.

use super::layout::{Declarations, Field, arguments};
use super::matmul::{MatMulArguments, matmul_twin};
use super::memory::Memory;
use super::operand::{Geometry, Operand};
use super::{Arithmetic, Right};
use crate::error::Result;
use std::fmt::Write;

/// What the accelerator knows of a matrix, as the driver encodes it: nobody else reads it. All zeros until it is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

impl Field for TensorMap {
    const BYTES: usize = size_of::<TensorMap>();
    fn put(&self, bytes: &mut [u8]) {
        self.0.put(bytes);
    }
    fn get(bytes: &[u8]) -> Self {
        TensorMap(Field::get(bytes))
    }
    fn addresses(_: usize, _: &mut Vec<usize>) {}
    fn declare(declarations: &mut Declarations) -> String {
        if declarations.is_new("TensorMap") {
            let _ = writeln!(declarations.text, "\nstruct alignas(64) TensorMap {{\n    uint64_t words[16];\n}};");
        }
        "TensorMap".to_owned()
    }
}

arguments! {
    /// A product of one batch whose factors consist of whole chunks of 16 bytes ([`TmaArguments::takes`]). Entries `matmul_*_tma_*`.
    pub struct TmaArguments {
        /// Of A: boxes of 64 rows and 64 columns.
        pub left: TensorMap,
        /// Of B the same, or of its transpose where K lies side by side.
        pub right: TensorMap,
        /// The product.
        pub product: MatMulArguments,
    }
}

/// A matrix of 16-bit floats that the driver shall encode, for boxes of [`BOX_LINES`] lines of [`BOX_ELEMENTS`] elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixMap {
    /// Where in the arguments the map belongs.
    pub position: usize,
    /// The first element.
    pub address: u64,
    /// The element type's number, see [`super::code`].
    pub dtype: u32,
    /// Rows; their elements lie side by side.
    pub lines: u32,
    /// Elements of a row.
    pub elements: u32,
    /// From row to row.
    pub line_bytes: u64,
}

/// Rows of a box.
pub const BOX_LINES: u32 = 64;
/// Elements of a row of a box: 128 bytes, whose chunks lie in shared memory as `wide_place` in kernels/wide.cuh says.
pub const BOX_ELEMENTS: u32 = 64;

/// Rows and columns of C that a block computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TmaTile {
    /// 128 by 128; two blocks share a multiprocessor.
    Large,
    /// 64 by 128; three share it.
    Broad,
    /// 64 by 64, with six stages for few blocks.
    Small,
}

impl TmaTile {
    /// All of them, in order.
    pub const ALL: [TmaTile; 3] = [TmaTile::Large, TmaTile::Broad, TmaTile::Small];

    /// Rows and columns.
    pub fn extents(self) -> (usize, usize) {
        match self {
            TmaTile::Large => (128, 128),
            TmaTile::Broad => (64, 128),
            TmaTile::Small => (64, 64),
        }
    }

    /// Threads of a block: a warpgroup for 64 rows, and the warp that brings tiles.
    fn threads(self) -> u32 {
        self.extents().0 as u32 * 2 + 32
    }

    /// Stages of shared memory, of 64 terms each.
    fn stages(self) -> usize {
        if self == TmaTile::Small { 6 } else { 3 }
    }

    /// Bytes of shared memory: the stages, or the sums that take their place, on a multiple of 1024 bytes.
    fn shared_bytes(self) -> usize {
        let (rows, columns) = self.extents();
        (self.stages() * (rows + columns) * 128).max(rows * (columns + 4) * 4) + 1024
    }
}

/// The names, by tile and right factor.
const ENTRIES: [[[&str; 2]; 3]; 2] = [
    [
        ["matmul_f16_tma_128x128_nn", "matmul_f16_tma_128x128_nt"],
        ["matmul_f16_tma_64x128_nn", "matmul_f16_tma_64x128_nt"],
        ["matmul_f16_tma_64x64_nn", "matmul_f16_tma_64x64_nt"],
    ],
    [
        ["matmul_bf16_tma_128x128_nn", "matmul_bf16_tma_128x128_nt"],
        ["matmul_bf16_tma_64x128_nn", "matmul_bf16_tma_64x128_nt"],
        ["matmul_bf16_tma_64x64_nn", "matmul_bf16_tma_64x64_nt"],
    ],
];

/// Family, name and bytes of shared memory of every entry.
pub(super) fn entries() -> impl Iterator<Item = (&'static str, &'static str, usize)> {
    ["tma_f16", "tma_bf16"].into_iter().zip(ENTRIES).flat_map(|(family, names)| {
        let of_tile = move |(names, tile): ([&'static str; 2], TmaTile)| {
            names.into_iter().map(move |name| (family, name, tile.shared_bytes()))
        };
        names.into_iter().zip(TmaTile::ALL).flat_map(of_tile)
    })
}

impl TmaArguments {
    /// Whether the accelerator can bring the factors of a product: one matrix each of 16-bit floats, of whole chunks.
    pub fn takes(arithmetic: Arithmetic, product: &MatMulArguments) -> bool {
        let MatMulArguments { a, b, .. } = product;
        matches!(arithmetic, Arithmetic::F16 | Arithmetic::BF16)
            && product.batch.count == 1
            && (product.a_vectors, product.b_vectors) == (1, 1)
            && product.n.is_multiple_of(8)
            && product.k > 0
            // Rows do not overlap, and go forwards.
            && a.column() == 1
            && i64::from(a.row()) >= i64::from(product.k)
            && (b.column() == 1 && i64::from(b.row()) >= i64::from(product.n)
                || b.row() == 1 && i64::from(b.column()) >= i64::from(product.k))
    }

    /// The product; its maps are encoded when the addresses are known.
    pub fn new(product: MatMulArguments) -> Self {
        TmaArguments { left: TensorMap::default(), right: TensorMap::default(), product }
    }

    /// The entry, and its blocks and threads.
    pub fn launch(&self, arithmetic: Arithmetic, tile: TmaTile, right: Right) -> (&'static str, Geometry) {
        let (rows, columns) = tile.extents();
        let (m, n, splits) = (self.product.m as usize, self.product.n as usize, self.product.splits as usize);
        let blocks = m.div_ceil(rows) * n.div_ceil(columns) * splits;
        let name = ENTRIES[usize::from(arithmetic == Arithmetic::BF16)][tile as usize][right as usize];
        (name, Geometry { shared_bytes: tile.shared_bytes() as u32, ..Geometry::line(blocks, tile.threads()) })
    }
}

/// The matrices to be encoded in arguments whose addresses are known.
pub(super) fn maps(bytes: &[u8]) -> Vec<MatrixMap> {
    let TmaArguments { product: MatMulArguments { m, n, k, a, b, .. }, .. } = TmaArguments::get(bytes);
    let map = |position: usize, operand: &Operand, [lines, elements]: [u32; 2], step: i32| MatrixMap {
        position,
        address: operand.address.0,
        dtype: operand.dtype,
        lines,
        elements,
        line_bytes: u64::from(step.unsigned_abs()) * 2,
    };
    let (extents, step) = if b.column() == 1 { ([k, n], b.row()) } else { ([n, k], b.column()) };
    let (left, right) = (std::mem::offset_of!(TmaArguments, left), std::mem::offset_of!(TmaArguments, right));
    vec![map(left, &a, [m, k], a.row()), map(right, &b, extents, step)]
}

pub(super) fn tma_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    matmul_twin(&bytes[std::mem::offset_of!(TmaArguments, product)..], memory)
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Address, Arguments};
    use super::*;
    use crate::ir::DType;

    fn product(b_steps: [isize; 2], alignment: usize) -> MatMulArguments {
        let matrix = |at, steps: [isize; 2]| Operand::matrix(Address(at), DType::BF16, &steps).unwrap();
        let operands = [matrix(4096, [72, 1]), matrix(8192, b_steps), matrix(256, [16, 1])];
        MatMulArguments::new([130, 16, 72], &[], operands, 1, alignment).unwrap()
    }

    #[test]
    fn whole_chunks_of_16_bits_in_one_batch_are_taken() {
        let taken = product([16, 1], 256);
        assert!(TmaArguments::takes(Arithmetic::BF16, &taken) && !TmaArguments::takes(Arithmetic::Tf32, &taken));
        assert!(TmaArguments::takes(Arithmetic::F16, &product([1, 72], 256)));
        assert!(!TmaArguments::takes(Arithmetic::F16, &product([16, 1], 8)), "an address between chunks");
        assert!(!TmaArguments::takes(Arithmetic::F16, &product([17, 1], 256)), "rows that begin between chunks");
        assert!(!TmaArguments::takes(Arithmetic::F16, &product([0, 1], 256)), "one row for all");
        assert!(!TmaArguments::takes(Arithmetic::F16, &product([8, 1], 256)), "rows that overlap");
        assert!(!TmaArguments::takes(Arithmetic::F16, &product([1, 64], 256)), "columns that overlap");
        let mut reversed = taken;
        reversed.a.strides[super::super::AXES - 2] = -72;
        assert!(!TmaArguments::takes(Arithmetic::F16, &reversed), "rows from the last to the first");
        assert!(!TmaArguments::takes(Arithmetic::F16, &MatMulArguments { n: 12, ..taken }), "half a chunk");
    }

    #[test]
    fn maps_describe_the_factors_as_they_lie() {
        let right = std::mem::offset_of!(TmaArguments, right);
        let dtype = super::super::code(DType::BF16);
        let left = MatrixMap { position: 0, address: 4096, dtype, lines: 130, elements: 72, line_bytes: 144 };
        for (steps, lines, elements, line_bytes) in [([16, 1], 72, 16, 32), ([1, 72], 16, 72, 144)] {
            let bytes = TmaArguments::new(product(steps, 256)).encode();
            let expected = MatrixMap { position: right, address: 8192, dtype, lines, elements, line_bytes };
            assert_eq!(maps(&bytes), [left, expected]);
        }
    }

    #[test]
    fn the_tiles_in_cuda_are_the_same() {
        let source = include_str!("../../../kernels/streamed.cuh");
        for tile in TmaTile::ALL {
            let (rows, columns) = tile.extents();
            let line = format!("STREAMED_MATMUL(name, T, {rows}, {columns}, {}, ", tile.stages());
            assert!(source.contains(&line), "{line}");
        }
        assert!(source.contains(&format!("constexpr int BOX_LINES = {BOX_LINES};")));
    }

    #[test]
    fn launches_cover_the_result() {
        let arguments = TmaArguments::new(product([16, 1], 256));
        let launch = |tile| arguments.launch(Arithmetic::F16, tile, Right::Rows);
        let (name, small) = launch(TmaTile::Small);
        assert_eq!((name, small.grid[0], small.block), ("matmul_f16_tma_64x64_nn", 3, 160));
        let (name, large) = launch(TmaTile::Large);
        assert_eq!((name, large.grid[0], large.block), ("matmul_f16_tma_128x128_nn", 2, 288));
        assert_eq!(large.shared_bytes, 3 * 256 * 128 + 1024);
        assert_eq!(entries().count(), 12);
    }
}
