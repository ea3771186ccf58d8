//! Matrix products in tiles, with split sums.

use super::chain::Chain;
use super::layout::{Address, Field, arguments};
use super::memory::{Memory, read_wide, write};
use super::operand::{AXES, Geometry, Operand, Space, dtype, occupied, small, tiled};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{Family, MatMul};

arguments! {
    /// `chain(alpha A B)` over batch axes. Entries `matmul_*`, and `combine` for the second half of a split product.
    ///
    /// A is `[batch.., M, K]` with K side by side, B `[batch.., K, N]` with N (`nn`) or K (`nt`) side by side, C `[batch.., M, N]`;
    /// all are [`Operand::matrix`], the chain's operands too.
    pub struct MatMulArguments {
        /// Rows.
        pub m: u32,
        /// Columns.
        pub n: u32,
        /// Length of the sums.
        pub k: u32,
        /// In how many parts the sums are split; each but the last has `depth` terms.
        pub splits: u32,
        /// Terms of a part, a multiple of 64.
        pub depth: u32,
        /// Whether A may be read 16 bytes at a time: rows are whole multiples of that, address and steps too.
        pub a_vectors: u32,
        /// The same for B.
        pub b_vectors: u32,
        /// Whether no request changes B, so that it may be read before the launch before has ended.
        pub b_constant: u32,
        /// Factor of the product.
        pub alpha: f32,
        /// Zero.
        pub reserved: u32,
        /// Left factor.
        pub a: Operand,
        /// Right factor.
        pub b: Operand,
        /// Result, of any float type.
        pub c: Operand,
        /// Where `splits` partial results `[splits, batch.., M, N]` go in binary32, before factor and chain; absent if there is one.
        pub partials: Address,
        /// Batch axes.
        pub batch: Space,
        /// Applied to the scaled sums.
        pub chain: Chain,
    }
}

/// The arithmetic of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// binary32 operands, fused multiply-add.
    F32,
    /// binary32 operands, rounded to TensorFloat-32, tensor cores.
    Tf32,
    /// binary16 operands, tensor cores.
    F16,
    /// bfloat16 operands, tensor cores.
    BF16,
    /// int32 operands and result, wrapping.
    I32,
}

/// Rows and columns of C that a block of threads computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// 128 by 128.
    Large,
    /// 64 by 64.
    Medium,
    /// 32 by 64, for few rows.
    Flat,
}

/// How the right factor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Columns side by side.
    Rows,
    /// Terms of a sum side by side.
    Columns,
}

impl Arithmetic {
    /// The element type of A and B.
    pub fn storage(self) -> DType {
        match self {
            Arithmetic::F32 | Arithmetic::Tf32 => DType::F32,
            Arithmetic::F16 => DType::F16,
            Arithmetic::BF16 => DType::BF16,
            Arithmetic::I32 => DType::I32,
        }
    }
}

impl Arithmetic {
    /// The image that has the entries.
    pub(super) fn family(self) -> &'static str {
        match self {
            Arithmetic::F32 => "matmul_f32",
            Arithmetic::Tf32 => "matmul_tf32",
            Arithmetic::F16 => "matmul_f16",
            Arithmetic::BF16 => "matmul_bf16",
            Arithmetic::I32 => "integers",
        }
    }
}

impl Tile {
    /// All of them, the largest first.
    pub const ALL: [Tile; 3] = [Tile::Large, Tile::Medium, Tile::Flat];

    /// Rows and columns.
    pub fn extents(self) -> (usize, usize) {
        match self {
            Tile::Large => (128, 128),
            Tile::Medium => (64, 64),
            Tile::Flat => (32, 64),
        }
    }

    /// Threads of a block that multiplies floats.
    pub fn threads(self) -> u32 {
        if self == Tile::Flat { 128 } else { 256 }
    }

    /// Groups of warps with sums of their own.
    fn groups(self) -> usize {
        if self == Tile::Medium { 2 } else { 1 }
    }

    /// Bytes of K that a stage of the pipeline holds of each row.
    fn stage_bytes(self) -> usize {
        if self == Tile::Large { 64 } else { 128 }
    }
}

/// Stages of the pipeline from global to shared memory.
const STAGES: usize = 4;
/// What the larger two tiles take on GPUs whose warps multiply in groups: three stages of 64 terms of 16 bits, or six, on a multiple of
/// 1024 bytes.
const WIDE_BYTES: usize = 3 * (128 + 128) * 128 + 1024;

/// Threads of a block that multiplies integers.
const INTEGER_THREADS: u32 = 128;

/// Bytes of shared memory of a tile's block: the pipeline, or the tiles of sums that take its place.
pub(super) fn shared_bytes(storage: DType, tile: Tile, right: Right, has_warpgroups: bool) -> usize {
    let (rows, columns) = tile.extents();
    let (size, stage) = (storage.bytes(), tile.stage_bytes());
    // Rows are 16 bytes longer than their elements, or 32, so that fragments come from different banks.
    let b = match right {
        Right::Columns => columns * (stage + 16),
        Right::Rows => stage / size * (columns * size + if size == 2 { 16 } else { 32 }),
    };
    let pipeline = STAGES * (rows * (stage + 16) + b);
    let bytes = pipeline.max(tile.groups() * rows * (columns + 4) * 4);
    if has_warpgroups && tile != Tile::Flat && size == 2 { bytes.max(WIDE_BYTES) } else { bytes }
}

/// The names of the products, by arithmetic, tile and right factor.
const ENTRIES: [[[&str; 2]; 3]; 5] = [
    [
        ["matmul_f32_128x128_nn", "matmul_f32_128x128_nt"],
        ["matmul_f32_64x64_nn", "matmul_f32_64x64_nt"],
        ["matmul_f32_32x64_nn", "matmul_f32_32x64_nt"],
    ],
    [
        ["matmul_tf32_128x128_nn", "matmul_tf32_128x128_nt"],
        ["matmul_tf32_64x64_nn", "matmul_tf32_64x64_nt"],
        ["matmul_tf32_32x64_nn", "matmul_tf32_32x64_nt"],
    ],
    [
        ["matmul_f16_128x128_nn", "matmul_f16_128x128_nt"],
        ["matmul_f16_64x64_nn", "matmul_f16_64x64_nt"],
        ["matmul_f16_32x64_nn", "matmul_f16_32x64_nt"],
    ],
    [
        ["matmul_bf16_128x128_nn", "matmul_bf16_128x128_nt"],
        ["matmul_bf16_64x64_nn", "matmul_bf16_64x64_nt"],
        ["matmul_bf16_32x64_nn", "matmul_bf16_32x64_nt"],
    ],
    [["matmul_i32"; 2]; 3],
];

/// The entry for a product. Of integers there is one, for [`Tile::Medium`] and right factors of any kind.
pub fn entry(arithmetic: Arithmetic, tile: Tile, right: Right) -> &'static str {
    ENTRIES[arithmetic as usize][tile as usize][right as usize]
}

/// Whether an operand's rows of `length` elements may be read 16 bytes at a time, if its address is a multiple of `alignment` bytes.
/// Elements lie side by side along one axis; a second such axis (a column, overlapping windows) has rows that begin anywhere.
pub(super) fn is_vectors(operand: &Operand, length: usize, alignment: usize) -> bool {
    let storage = dtype(operand.dtype).map_or(16, DType::bytes);
    let is_whole = |elements: usize| (elements * storage).is_multiple_of(16);
    let broken = operand.strides.iter().filter(|&&stride| !is_whole(stride.unsigned_abs() as usize));
    is_whole(length) && alignment.is_multiple_of(16) && broken.eq([&1])
}

impl MatMulArguments {
    /// The product of the last two axes of these shapes. `alignment` is what the addresses of A and B are multiples of, in bytes.
    pub fn new(
        [m, n, k]: [usize; 3],
        batch: &[usize],
        [a, b, c]: [Operand; 3],
        splits: usize,
        alignment: usize,
    ) -> Result<Self> {
        let batch = Space::new(batch)?;
        ensure!(batch.rank as usize <= AXES - 2, TooLarge, "a product has {} batch axes", batch.rank);
        small(m.saturating_mul(n).saturating_mul(batch.count as usize))?;
        let depth = k.div_ceil(splits.max(1)).next_multiple_of(64);
        let splits = k.div_ceil(depth.max(1)).max(1);
        Ok(MatMulArguments {
            m: tiled(m)?,
            n: tiled(n)?,
            k: tiled(k)?,
            splits: small(splits)?,
            depth: small(depth)?,
            a_vectors: is_vectors(&a, k, alignment).into(),
            b_vectors: is_vectors(&b, if b.column() == 1 { n } else { k }, alignment).into(),
            b_constant: 0,
            alpha: 1.0,
            reserved: 0,
            a,
            b,
            c,
            partials: Address::NONE,
            batch,
            chain: Chain::empty(),
        })
    }

    /// Bytes of the partial results; 0 if the sums are not split.
    pub fn partial_bytes(&self) -> usize {
        if self.splits == 1 {
            return 0;
        }
        self.splits as usize * self.results() * 4
    }

    fn results(&self) -> usize {
        self.batch.count as usize * self.m as usize * self.n as usize
    }

    /// Refuses a product without results.
    pub(super) fn occupied(&self) -> Result<()> {
        occupied(&[self.m, self.n, self.batch.count])
    }

    /// Blocks and threads of the product, on a GPU whose warps multiply in groups or not.
    pub fn launch(&self, arithmetic: Arithmetic, tile: Tile, right: Right, has_warpgroups: bool) -> Geometry {
        debug_assert!(arithmetic != Arithmetic::I32 || tile == Tile::Medium, "integers have one tile");
        let (rows, columns) = tile.extents();
        let tiles = (self.m as usize).div_ceil(rows) * (self.n as usize).div_ceil(columns);
        let blocks = tiles * self.batch.count as usize * self.splits as usize;
        if arithmetic == Arithmetic::I32 {
            return Geometry::line(blocks, INTEGER_THREADS);
        }
        let shared_bytes = shared_bytes(arithmetic.storage(), tile, right, has_warpgroups) as u32;
        Geometry { shared_bytes, ..Geometry::line(blocks, tile.threads()) }
    }

    /// Blocks and threads of `combine`.
    pub fn combine_launch(&self) -> Geometry {
        let matrix = self.m as usize * (self.n as usize).div_ceil(4);
        Geometry::line(self.batch.count as usize * matrix.div_ceil(128), 128)
    }

    /// The scaled sums with the chain applied go to C.
    pub(super) fn finish(&self, memory: &mut dyn Memory, sums: Tensor) -> Result<()> {
        let batch = self.batch.rank as usize;
        let output = dtype(self.c.dtype)?;
        let steps = |operand: &Operand| operand.matrix_steps(batch);
        let result = if output.is_float() { self.chain.apply(memory, sums, output, steps)? } else { sums };
        write(memory, &self.c, &steps(&self.c), result)
    }

    pub(super) fn shape(&self, rows: u32, columns: u32) -> Vec<usize> {
        let mut shape = self.batch.shape();
        shape.extend([rows as usize, columns as usize]);
        shape
    }
}

pub(super) fn matmul_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = MatMulArguments::get(bytes);
    arguments.occupied()?;
    let MatMulArguments { m, n, k, .. } = arguments;
    let batch = arguments.batch.rank as usize;
    let (a_steps, b_steps) = (arguments.a.matrix_steps(batch), arguments.b.matrix_steps(batch));
    let product = |memory: &dyn Memory, start: u32, end: u32, alpha: f32| -> Result<Tensor> {
        let part = |operand: &Operand, step: i32| -> Result<Operand> {
            let bytes = dtype(operand.dtype)?.bytes() as i64 * i64::from(step) * i64::from(start);
            Ok(Operand { address: Address(operand.address.0.wrapping_add_signed(bytes)), ..*operand })
        };
        let a = part(&arguments.a, arguments.a.column())?;
        let b = part(&arguments.b, arguments.b.row())?;
        let a = read_wide(memory, &a, &arguments.shape(m, end - start), &a_steps)?;
        let b = read_wide(memory, &b, &arguments.shape(end - start, n), &b_steps)?;
        let kernel = MatMul { alpha, epilogue: None };
        kernel.infer(&[a.ty(), b.ty()])?;
        Ok(kernel.reference(&[a, b])?.swap_remove(0))
    };
    if arguments.splits == 1 {
        let sums = product(memory, 0, k, arguments.alpha)?;
        let sums = if sums.dtype() == DType::I32 && dtype(arguments.c.dtype)?.is_float() {
            super::memory::converted(sums, DType::F32)?
        } else {
            sums
        };
        return arguments.finish(memory, sums);
    }
    for split in 0..arguments.splits {
        let start = split * arguments.depth;
        let sums = product(memory, start, k.min(start + arguments.depth), 1.0)?;
        let offset = u64::from(split) * arguments.results() as u64 * 4;
        memory.store(arguments.partials.0 + offset, sums.data())?;
    }
    Ok(())
}

pub(super) fn combine_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = MatMulArguments::get(bytes);
    arguments.occupied()?;
    let shape = arguments.shape(arguments.m, arguments.n);
    let sums = partial_sums(memory, arguments.partials, arguments.splits, arguments.results())?;
    let scaled: Vec<f32> = sums.iter().map(|sum| sum * arguments.alpha).collect();
    arguments.finish(memory, Tensor::from_slice(&shape, &scaled))
}

/// The sums of partial results in the order of the parts.
pub(super) fn partial_sums(memory: &dyn Memory, partials: Address, splits: u32, count: usize) -> Result<Vec<f32>> {
    let mut sums = vec![0f32; count];
    let mut part = vec![0u8; count * 4];
    for split in 0..u64::from(splits) {
        memory.load(partials.0 + split * count as u64 * 4, &mut part)?;
        for (sum, bytes) in sums.iter_mut().zip(part.chunks_exact(4)) {
            *sum += f32::from_le_bytes(bytes.try_into().map_err(|_| fail!(Internal, "four bytes"))?);
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::super::memory::{converted, read};
    use super::*;
    use crate::kernels::evaluation::{close, eighths};
    use crate::kernels::{Binary, Instr, Map, Unary};

    const SHAPE: [usize; 3] = [5, 3, 70];

    /// relu(x + bias) stored as binary16.
    fn epilogue() -> Map {
        let body =
            vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Add, 0, 1), Instr::Unary(Unary::Relu, 2)];
        Map { inputs: vec![DType::F32; 2], body, output: DType::F16 }
    }

    /// A product of two batches with transposed B; its arguments, and where the result goes.
    fn product(heap: &mut Heap, splits: usize) -> (MatMulArguments, Tensor) {
        let [m, n, k] = SHAPE;
        let (a, b, bias) = (eighths(&[2, m, k], 1), eighths(&[n, k], 2), eighths(&[n], 3));
        let half = |tensor: &Tensor| converted(tensor.clone(), DType::F16).unwrap();
        let matrix = |address, dtype, strides: &[isize]| Operand::matrix(address, dtype, strides).unwrap();
        let operands = [
            matrix(heap.put(&half(&a)), DType::F16, &[350, 70, 1]),
            matrix(heap.put(&half(&b)), DType::F16, &[0, 1, 70]),
            matrix(heap.room(60), DType::F16, &[15, 3, 1]),
        ];
        let mut arguments = MatMulArguments::new(SHAPE, &[2], operands, splits, 256).unwrap();
        let bias_operand = matrix(heap.put(&bias), DType::F32, &[0, 0, 1]);
        arguments.alpha = 0.5;
        arguments.chain = Chain::of(&epilogue(), 0).unwrap().0.with(0, bias_operand);
        let columns = b.to_vec::<f32>().unwrap();
        let transposed: Vec<f32> = (0..2 * k * n).map(|at| columns[at % n * k + at / n % k]).collect();
        let wide = Tensor::from_slice(&[2, m, n], &bias.to_vec::<f32>().unwrap().repeat(2 * m));
        let kernel = MatMul { alpha: 0.5, epilogue: Some(epilogue()) };
        let expected = kernel.reference(&[a, Tensor::from_slice(&[2, k, n], &transposed), wide]).unwrap();
        (arguments, expected[0].clone())
    }

    #[test]
    fn rows_that_begin_anywhere_are_not_read_in_vectors() {
        let is = |strides: &[isize]| {
            let operand = Operand::matrix(Address(256), DType::F32, strides).unwrap();
            is_vectors(&operand, 8, 256)
        };
        let whole = Operand::matrix(Address(256), DType::F32, &[8, 1]).unwrap();
        assert!(is_vectors(&whole, 8, 16) && !is_vectors(&whole, 8, 8) && !is_vectors(&whole, 6, 256));
        assert!(is(&[8, 1]) && is(&[1, 8]) && is(&[0, 1]) && is(&[64, 8, 1]));
        assert!(!is(&[1, 1]) && !is(&[7, 1]) && !is(&[3, 8, 1]) && !is(&[8, 2]) && !is(&[1, 8, 1]));
    }

    #[test]
    fn a_product_with_its_chain() {
        let mut heap = Heap::default();
        let (arguments, expected) = product(&mut heap, 1);
        assert_eq!((arguments.splits, arguments.a_vectors), (1, 0), "70 halves are no multiple of 16 bytes");
        assert_eq!(arguments.launch(Arithmetic::F16, Tile::Medium, Right::Columns, false).grid, [2, 1, 1]);
        matmul_twin(&arguments.encode(), &mut heap).unwrap();
        let got = read(&heap, &arguments.c, &[2, 5, 3], &[15, 3, 1]).unwrap();
        assert_eq!(got, expected);
    }

    #[test]
    fn split_sums_are_combined() {
        let mut heap = Heap::default();
        let (mut arguments, expected) = product(&mut heap, 2);
        assert_eq!((arguments.splits, arguments.depth, arguments.partial_bytes()), (2, 64, 240));
        arguments.partials = heap.room(240);
        matmul_twin(&arguments.encode(), &mut heap).unwrap();
        combine_twin(&arguments.encode(), &mut heap).unwrap();
        let got = read(&heap, &arguments.c, &[2, 5, 3], &[15, 3, 1]).unwrap();
        assert!(close(&got.to_f64s(), &expected.to_f64s(), 1e-3));
    }

    #[test]
    fn integers_wrap_and_keep_their_type() {
        let mut heap = Heap::default();
        let a = heap.put(&Tensor::from_slice(&[1, 2], &[i32::MAX, 3]));
        let b = heap.put(&Tensor::from_slice(&[2, 1], &[2, 5]));
        let c = heap.room(4);
        let matrix = |address, strides: &[isize]| Operand::matrix(address, DType::I32, strides).unwrap();
        let operands = [matrix(a, &[2, 1]), matrix(b, &[1, 1]), matrix(c, &[1, 1])];
        let arguments = MatMulArguments::new([1, 1, 2], &[], operands, 1, 256).unwrap();
        matmul_twin(&arguments.encode(), &mut heap).unwrap();
        assert_eq!(heap.tensor(c, DType::I32, &[1]).to_vec::<i32>().unwrap(), [13]);
    }

    #[test]
    fn every_tile_fits_into_the_shared_memory_of_every_gpu() {
        for storage in [DType::F32, DType::F16] {
            for tile in [Tile::Large, Tile::Medium, Tile::Flat] {
                for right in [Right::Rows, Right::Columns] {
                    assert!(shared_bytes(storage, tile, right, true) <= 99 << 10, "{storage} {tile:?} {right:?}");
                }
            }
        }
        assert_eq!(entry(Arithmetic::BF16, Tile::Flat, Right::Columns), "matmul_bf16_32x64_nt");
    }
}
