//! Attention in one pass over the keys (Dao et al., 2022, "FlashAttention", algorithm 1).

use super::chain::{CHAIN_OPERANDS, Chain, Stage};
use super::layout::{Field, arguments};
use super::matmul::{Arithmetic, is_vectors};
use super::memory::{Memory, read, read_wide, write};
use super::opcode::{self, SELECT};
use super::operand::{AXES, Geometry, Operand, Space, code, occupied, small, tiled};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Tensor};
use crate::kernels::{Attention, Binary, Family, Instr};

/// Queries of a warp.
const WARP_ROWS: usize = 16;
/// Warps of a block.
const WARPS: usize = 4;

arguments! {
    /// `softmax(chain(scale Q K^T)) V` over batch axes. Entries `attention_<arithmetic>_<head size>`, of which every warp has queries of
    /// its own, and `.._few`, of which the warps of a block have the same ones and share the keys.
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

/// The entries of one arithmetic, by head size: for many queries, and for few.
struct Entries {
    arithmetic: Arithmetic,
    family: &'static str,
    many: [&'static str; 3],
    few: [&'static str; 3],
}

macro_rules! entries {
    ($arithmetic:ident, $name:literal) => {
        Entries {
            arithmetic: Arithmetic::$arithmetic,
            family: concat!("attention_", $name),
            many: [
                concat!("attention_", $name, "_32"),
                concat!("attention_", $name, "_64"),
                concat!("attention_", $name, "_128"),
            ],
            few: [
                concat!("attention_", $name, "_32_few"),
                concat!("attention_", $name, "_64_few"),
                concat!("attention_", $name, "_128_few"),
            ],
        }
    };
}

/// All entries.
const ENTRIES: [Entries; 3] = [entries!(Tf32, "tf32"), entries!(F16, "f16"), entries!(BF16, "bf16")];
/// The head sizes of the entries.
const SIZES: [usize; 3] = [32, 64, 128];

/// How the queries of a launch are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// Every warp has queries of its own.
    Many,
    /// The warps of a block have the same queries, and each a part of every tile of keys.
    Few,
}

/// Image, name and dynamic shared memory of every entry.
pub(super) fn entries() -> impl Iterator<Item = (&'static str, &'static str, usize)> {
    ENTRIES.iter().flat_map(|Entries { arithmetic, family, many, few }| {
        let sized = |names: &'static [&'static str; 3], sharing| {
            names.iter().zip(SIZES).map(move |(name, size)| (*family, *name, shared_bytes(*arithmetic, size, sharing)))
        };
        sized(many, Sharing::Many).chain(sized(few, Sharing::Few))
    })
}

/// Two stages of tiles of keys and of values, whose rows are 16 bytes longer than their elements.
fn shared_bytes(arithmetic: Arithmetic, size: usize, sharing: Sharing) -> usize {
    let bytes = arithmetic.storage().bytes();
    let keys = match (bytes, size) {
        (4, 128) => 32,
        (2, 32 | 64) if sharing == Sharing::Few => 128,
        _ => 64,
    };
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
            queries: tiled(queries)?,
            keys: tiled(keys)?,
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

    /// The head size of the entry that takes these heads; none if they are too long.
    fn size(&self) -> Option<usize> {
        SIZES.into_iter().find(|&most| self.depth.max(self.width) as usize <= most)
    }

    /// Entry, blocks and threads on a GPU with so many multiprocessors, if there is an entry for this arithmetic and head size. Warps
    /// share queries as long as no multiprocessor has more than two such blocks, for then each has less to do; measured on an H100.
    pub fn launch(&self, arithmetic: Arithmetic, multiprocessors: usize) -> Option<(&'static str, Geometry)> {
        let entries = ENTRIES.iter().find(|entries| entries.arithmetic == arithmetic)?;
        let size = self.size()?;
        let blocks = |rows: usize| (self.queries as usize).div_ceil(rows) * self.batch.count as usize;
        let (names, sharing, rows) = if blocks(WARP_ROWS) > 2 * multiprocessors {
            (&entries.many, Sharing::Many, WARPS * WARP_ROWS)
        } else {
            (&entries.few, Sharing::Few, WARP_ROWS)
        };
        let name = names[SIZES.iter().position(|&known| known == size)?];
        let shared_bytes = shared_bytes(arithmetic, size, sharing) as u32;
        Some((name, Geometry { shared_bytes, ..Geometry::line(blocks(rows), 32 * WARPS as u32) }))
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

    fn shape(&self, rows: u32, columns: u32) -> Vec<usize> {
        let mut shape = self.batch.shape();
        shape.extend([rows as usize, columns as usize]);
        shape
    }
}

pub(super) fn attention_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = AttentionArguments::get(bytes);
    occupied(&[arguments.batch.count, arguments.queries, arguments.keys])?;
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
        let launch = |batch, depth, arithmetic| arguments(batch, 128, depth).launch(arithmetic, 132);
        let (name, few) = launch(12, 64, Arithmetic::F16).unwrap();
        assert_eq!((name, few.grid[0], few.block, few.shared_bytes), ("attention_f16_64_few", 96, 128, 4 * 128 * 144));
        let (name, many) = launch(96, 48, Arithmetic::BF16).unwrap();
        assert_eq!((name, many.grid[0], many.block, many.shared_bytes), ("attention_bf16_64", 192, 128, 4 * 64 * 144));
        assert!(launch(96, 129, Arithmetic::F16).is_none());
        assert!(launch(96, 64, Arithmetic::F32).is_none());
        assert!(entries().all(|(_, _, bytes)| bytes <= 96 << 10));
        let exponential = Map::unary(crate::kernels::Unary::Exp, DType::F32);
        assert!(!AttentionArguments::takes(&Chain::of(&exponential, 0).unwrap().0));
        let body =
            vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Mul, 0, 1), Instr::Binary(Binary::Add, 0, 2)];
        let kept = Map { inputs: vec![DType::F32; 2], body, output: DType::F32 };
        assert!(!AttentionArguments::takes(&Chain::of(&kept, 0).unwrap().0));
    }
}
