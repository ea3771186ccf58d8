//! Attention in one pass over the keys (Dao et al., 2022, "FlashAttention", algorithm 1).

use super::chain::{CHAIN_OPERANDS, Chain, Stage};
use super::layout::{Field, arguments};
use super::matmul::{Arithmetic, is_vectors};
use super::memory::{Memory, read, read_wide, write};
use super::opcode::{self, SELECT};
use super::operand::{AXES, Geometry, Operand, Space, code, small};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Tensor};
use crate::kernels::{Attention, Binary, Family, Instr};

/// Queries of a warp.
const WARP_ROWS: usize = 16;
/// Most warps of a block.
const WARPS_MAX: usize = 4;

arguments! {
    /// `softmax(chain(scale Q K^T)) V` over batch axes. Entries `attention_<arithmetic>_<head size>`.
    ///
    /// Q is `[batch.., S, D]`, K `[batch.., T, D]`, V `[batch.., T, E]`, the result `[batch.., S, E]`; D and E are at most the head size
    /// of the entry, T is not 0. All are [`Operand::matrix`], the chain's operands too, which present `[batch.., S, T]`.
    pub struct AttentionArguments {
        /// Batch axes.
        pub batch: Space,
        /// S.
        pub queries: u32,
        /// T.
        pub keys: u32,
        /// D.
        pub depth: u32,
        /// E.
        pub width: u32,
        /// Factor of the scores.
        pub scale: f32,
        /// Whether a row of scores that is -inf throughout gives zeros.
        pub guard: u32,
        /// Whether K may be read 16 bytes at a time: rows are whole multiples of that, address and steps too.
        pub k_vectors: u32,
        /// The same for V.
        pub v_vectors: u32,
        /// Queries.
        pub q: Operand,
        /// Keys.
        pub k: Operand,
        /// Values.
        pub v: Operand,
        /// Result, of any float type.
        pub output: Operand,
        /// Applied to the scaled scores.
        pub chain: Chain,
    }
}

/// The entries, by arithmetic and head size.
const ENTRIES: [[&str; 3]; 3] = [
    ["attention_tf32_32", "attention_tf32_64", "attention_tf32_128"],
    ["attention_f16_32", "attention_f16_64", "attention_f16_128"],
    ["attention_bf16_32", "attention_bf16_64", "attention_bf16_128"],
];
/// The head sizes of the entries.
const SIZES: [usize; 3] = [32, 64, 128];
/// The arithmetics of the entries.
const ARITHMETICS: [Arithmetic; 3] = [Arithmetic::Tf32, Arithmetic::F16, Arithmetic::BF16];

/// The images of the entries, by arithmetic.
const FAMILIES: [&str; 3] = ["attention_tf32", "attention_f16", "attention_bf16"];

/// Image, name and dynamic shared memory of every entry.
pub(super) fn entries() -> impl Iterator<Item = (&'static str, &'static str, usize)> {
    let all = ENTRIES.iter().zip(FAMILIES).zip(ARITHMETICS);
    all.flat_map(|((names, family), arithmetic)| {
        names.iter().zip(SIZES).map(move |(name, size)| (family, *name, shared_bytes(arithmetic, size)))
    })
}

/// Two stages of tiles of keys and of values, whose rows are 16 bytes longer than their elements.
fn shared_bytes(arithmetic: Arithmetic, size: usize) -> usize {
    let bytes = arithmetic.storage().bytes();
    let keys = if bytes == 4 && size > 64 { 32 } else { 64 };
    4 * keys * (size * bytes + 16)
}

/// What is computed at each element of the batch.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// S.
    pub queries: usize,
    /// T.
    pub keys: usize,
    /// D.
    pub depth: usize,
    /// E.
    pub width: usize,
}

impl AttentionArguments {
    /// The arguments without a chain; `alignment` is what the addresses of K and V are multiples of, in bytes.
    pub fn new(
        attention: &Attention,
        batch: &[usize],
        extents: Extents,
        [q, k, v, output]: [Operand; 4],
        alignment: usize,
    ) -> Result<Self> {
        let batch = Space::new(batch)?;
        ensure!(batch.rank as usize <= AXES - 2, TooLarge, "attention has {} batch axes", batch.rank);
        let Extents { queries, keys, depth, width } = extents;
        small(queries.saturating_mul(keys.max(width)).saturating_mul(batch.count as usize))?;
        Ok(AttentionArguments {
            batch,
            queries: small(queries)?,
            keys: small(keys)?,
            depth: small(depth)?,
            width: small(width)?,
            scale: attention.scale,
            guard: attention.guard_empty_rows.into(),
            k_vectors: is_vectors(&k, depth, alignment).into(),
            v_vectors: is_vectors(&v, width, alignment).into(),
            q,
            k,
            v,
            output,
            chain: Chain::empty(),
        })
    }

    /// The entry, if there is one for this arithmetic and head size.
    pub fn entry(arithmetic: Arithmetic, size: usize) -> Option<&'static str> {
        let row = ARITHMETICS.iter().position(|&known| known == arithmetic)?;
        let column = SIZES.iter().position(|&most| size <= most)?;
        Some(ENTRIES[row][column])
    }

    /// Whether the entries can apply a chain: what masks and biases are made of, with operands that are floats or truth values, and no
    /// score that is kept for later.
    pub fn takes(chain: &Chain) -> bool {
        let simple = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Min, Binary::Max].map(opcode::binary);
        let known = [DType::F32, DType::F16, DType::BF16, DType::Bool].map(code);
        let mut stages = chain.stages[..chain.count as usize].iter();
        let is_simple = |stage: &Stage| stage.op == SELECT || simple.contains(&stage.op);
        chain.keep >= chain.count
            && stages.all(is_simple)
            && chain.operands.iter().all(|operand| known.contains(&operand.dtype))
    }

    /// Blocks and threads on a GPU with so many multiprocessors: blocks are as large as fills it.
    pub fn launch(&self, arithmetic: Arithmetic, multiprocessors: usize) -> Geometry {
        let blocks = |warps: usize| (self.queries as usize).div_ceil(warps * WARP_ROWS) * self.batch.count as usize;
        let warps = if blocks(WARPS_MAX) >= multiprocessors { WARPS_MAX } else { WARPS_MAX / 2 };
        let size = self.depth.max(self.width) as usize;
        let size = SIZES.into_iter().find(|&most| size <= most).unwrap_or(SIZES[2]);
        let shared_bytes = shared_bytes(arithmetic, size) as u32;
        Geometry { shared_bytes, ..Geometry::line(blocks(warps), 32 * warps as u32) }
    }

    fn shape(&self, rows: u32, columns: u32) -> Vec<usize> {
        let mut shape = self.batch.shape();
        shape.extend([rows as usize, columns as usize]);
        shape
    }
}

pub(super) fn attention_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = AttentionArguments::get(bytes);
    let AttentionArguments { queries, keys, depth, width, .. } = arguments;
    let steps = |operand: &Operand| operand.matrix_steps(arguments.batch.rank as usize);
    let mut operands = Vec::with_capacity(3 + CHAIN_OPERANDS);
    for (operand, rows, columns) in
        [(&arguments.q, queries, depth), (&arguments.k, keys, depth), (&arguments.v, keys, width)]
    {
        operands.push(read_wide(memory, operand, &arguments.shape(rows, columns), &steps(operand))?);
    }
    let map = arguments.chain.to_map(DType::F32)?;
    let scores = arguments.shape(queries, keys);
    for (index, operand) in arguments.chain.operands.iter().enumerate() {
        operands.push(if map.body.contains(&Instr::Input(index + 1)) {
            read(memory, operand, &scores, &steps(operand))?
        } else {
            Tensor::from_scalars(map.inputs[index + 1], &scores, vec![Scalar::Int(0); scores.iter().product()])
        });
    }
    let kernel = Attention { scale: arguments.scale, score: Some(map), guard_empty_rows: arguments.guard != 0 };
    let types: Vec<_> = operands.iter().map(Tensor::ty).collect();
    kernel.infer(&types)?;
    let result = kernel.reference(&operands)?.swap_remove(0);
    write(memory, &arguments.output, &steps(&arguments.output), result)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::kernels::Map;
    use crate::kernels::evaluation::{close, eighths};

    #[test]
    fn heads_beside_each_other_are_attended_in_place() {
        // Queries, keys and values of two heads of 4 in rows of 24, 5 positions; the result in rows of 8.
        let merged = eighths(&[5, 24], 1);
        let mask = eighths(&[5], 2);
        let mut heap = Heap::default();
        let base = heap.put(&merged);
        let part =
            |first: u64| Operand::matrix(super::super::Address(base.0 + 4 * first), DType::F32, &[4, 24, 1]).unwrap();
        let output = Operand::matrix(heap.room(160), DType::F32, &[4, 8, 1]).unwrap();
        let masked = Map::binary(Binary::Add, DType::F32);
        let kernel = Attention { scale: 0.5, score: Some(masked.clone()), guard_empty_rows: false };
        let extents = Extents { queries: 5, keys: 5, depth: 4, width: 4 };
        let operands = [part(0), part(8), part(16), output];
        let mut arguments = AttentionArguments::new(&kernel, &[2], extents, operands, 16).unwrap();
        assert_eq!((arguments.k_vectors, arguments.v_vectors), (1, 1));
        let (chain, _) = Chain::of(&masked, 0).unwrap();
        assert!(AttentionArguments::takes(&chain));
        arguments.chain = chain.with(0, Operand::matrix(heap.put(&mask), DType::F32, &[0, 0, 1]).unwrap());
        attention_twin(&arguments.encode(), &mut heap).unwrap();
        let values = merged.to_vec::<f32>().unwrap();
        let head = |first: usize| {
            let at = |index: usize| values[index / 4 % 5 * 24 + first + index / 20 * 4 + index % 4];
            Tensor::from_slice(&[2, 5, 4], &(0..40).map(at).collect::<Vec<f32>>())
        };
        let wide = Tensor::from_slice(&[2, 5, 5], &mask.to_vec::<f32>().unwrap().repeat(10));
        let expected = kernel.reference(&[head(0), head(8), head(16), wide]).unwrap()[0].to_f64s();
        let got = heap.tensor(output.address, DType::F32, &[5, 8]).to_f64s();
        let ordered: Vec<f64> = (0..40).map(|index| got[index / 4 % 5 * 8 + index / 20 * 4 + index % 4]).collect();
        assert!(close(&ordered, &expected, 1e-6));
    }

    #[test]
    fn launches_fit_head_and_batch() {
        let none = Operand::none();
        let kernel = Attention { scale: 1.0, score: None, guard_empty_rows: false };
        let arguments = |batch: usize, queries: usize, depth: usize| {
            let extents = Extents { queries, keys: 128, depth, width: depth };
            AttentionArguments::new(&kernel, &[batch], extents, [none; 4], 16).unwrap()
        };
        let few = arguments(12, 128, 64).launch(Arithmetic::F16, 132);
        assert_eq!((few.grid[0], few.block, few.shared_bytes), (48, 64, 4 * 64 * 144));
        assert_eq!(arguments(96, 128, 64).launch(Arithmetic::F16, 132).block, 128);
        assert_eq!(AttentionArguments::entry(Arithmetic::BF16, 48), Some("attention_bf16_64"));
        assert_eq!(AttentionArguments::entry(Arithmetic::F16, 129), None);
        assert_eq!(AttentionArguments::entry(Arithmetic::F32, 64), None);
        assert!(entries().all(|(_, _, bytes)| bytes <= 96 << 10));
        let exponential = Map::unary(crate::kernels::Unary::Exp, DType::F32);
        assert!(!AttentionArguments::takes(&Chain::of(&exponential, 0).unwrap().0));
        let body =
            vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Mul, 0, 1), Instr::Binary(Binary::Add, 0, 2)];
        let kept = Map { inputs: vec![DType::F32; 2], body, output: DType::F32 };
        assert!(!AttentionArguments::takes(&Chain::of(&kept, 0).unwrap().0));
    }
}
