//! Elementwise entries: interpreted programs, chains in registers, copies.

use super::chain::Chain;
use super::layout::{Address, Field, arguments};
use super::memory::{Memory, read, read_wide, write};
use super::operand::{Geometry, Operand, Space, dtype, occupied};
use super::program::{OPERANDS, Program, dtypes};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;
use crate::kernels::{Family, Map};

/// Elements that one thread of a program or chain works on.
const LANES: usize = 4;
/// Bytes of shared memory for one thread's slot.
const SLOT_BYTES: u32 = 16;
/// Slots of shared memory with which blocks have their full size; every supported GPU has 96 KiB for a block.
const SLOTS_FULL: u32 = 40;

arguments! {
    /// A scalar program over operands of one space. Entries `map_narrow`, for programs without 64-bit integers, and `map_wide`.
    pub struct MapArguments {
        /// Indices of the result.
        pub space: Space,
        /// The result.
        pub output: Operand,
        /// Number of operands.
        pub inputs: u32,
        /// Whether the elements of every operand that one thread works on lie side by side, at an address that is a multiple of their
        /// size together, or are one.
        pub vectors: u32,
        /// The program.
        pub program: Program,
        /// Operands.
        pub operands: [Operand; OPERANDS],
    }
}

arguments! {
    /// A chain over operands of one space. Entry `map_chain`.
    pub struct ChainArguments {
        /// Indices of the result.
        pub space: Space,
        /// The value that the chain begins with.
        pub input: Operand,
        /// The result.
        pub output: Operand,
        /// As in [`MapArguments`].
        pub vectors: u32,
        /// The chain.
        pub chain: Chain,
    }
}

arguments! {
    /// A strided copy of elements of any type. Entry `copy`.
    pub struct CopyArguments {
        /// Indices of the result.
        pub space: Space,
        /// What is copied.
        pub input: Operand,
        /// Where to.
        pub output: Operand,
        /// Bytes of an element: 1, 2, 4, 8 or 16. Elements of the space may be several of the tensor's.
        pub bytes: u32,
    }
}

/// Whether an operand can be read or written `lanes` elements at a time along the last axis of a space; its address is a
/// multiple of `alignment` bytes.
pub fn is_vector(shape: &[usize], operand: &Operand, lanes: usize, alignment: usize) -> bool {
    let Some((&last, outer)) = shape.split_last() else { return false };
    let Ok(bytes) = dtype(operand.dtype).map(DType::bytes) else { return false };
    let step = operand.strides[outer.len()];
    let whole = last % lanes == 0;
    let along = step == 0 || (step == 1 && alignment.is_multiple_of(lanes * bytes));
    let starts = operand.strides[..outer.len()].iter().all(|&stride| (stride as usize).is_multiple_of(lanes));
    whole && along && (step == 0 || starts)
}

impl MapArguments {
    /// The arguments for operands of `shape`; `alignment` is what all their addresses are multiples of, in bytes.
    pub fn new(map: &Map, shape: &[usize], inputs: &[Operand], output: Operand, alignment: usize) -> Result<Self> {
        ensure!(
            inputs.len() == map.inputs.len(),
            Internal,
            "a map of {} operands gets {}",
            map.inputs.len(),
            inputs.len()
        );
        let mut arguments = MapArguments {
            space: Space::new(shape)?,
            output,
            inputs: inputs.len() as u32,
            vectors: 0,
            program: Program::compile(map)?,
            operands: [Operand::none(); OPERANDS],
        };
        arguments.operands[..inputs.len()].copy_from_slice(inputs);
        let vectors = inputs.iter().chain([&output]).all(|operand| is_vector(shape, operand, LANES, alignment));
        arguments.vectors = vectors.into();
        Ok(arguments)
    }

    /// The entry for a map.
    pub fn entry(map: &Map) -> Result<&'static str> {
        Ok(if map.is_narrow()? { "map_narrow" } else { "map_wide" })
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        let threads = if self.program.slots > SLOTS_FULL { 64 } else { 128 };
        // 64-bit registers hold two elements in the 16 bytes of a slot, so threads of `map_wide` go over theirs twice.
        let geometry = Geometry::line((self.space.count as usize).div_ceil(threads as usize * LANES), threads);
        Geometry { shared_bytes: self.program.slots * SLOT_BYTES * threads, ..geometry }
    }
}

impl ChainArguments {
    /// The arguments for operands of `shape`, the chain's own ones included; `alignment` is what all their addresses are multiples
    /// of, in bytes.
    pub fn new(chain: Chain, shape: &[usize], input: Operand, output: Operand, alignment: usize) -> Result<Self> {
        let operands = chain.operands.iter().filter(|operand| operand.address != Address::NONE);
        let vectors = operands.chain([&input, &output]).all(|operand| is_vector(shape, operand, LANES, alignment));
        Ok(ChainArguments { space: Space::new(shape)?, input, output, vectors: vectors.into(), chain })
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        Geometry::line((self.space.count as usize).div_ceil(128 * LANES), 128)
    }
}

impl CopyArguments {
    /// The arguments for elements of `dtype`; elements that lie side by side are copied up to 16 bytes at a time as far as
    /// `alignment`, which all addresses are multiples of, allows.
    pub fn new(dtype: DType, shape: &[usize], input: Operand, output: Operand, alignment: usize) -> Result<Self> {
        let (mut shape, mut input, mut output, mut bytes) = (shape.to_vec(), input, output, dtype.bytes());
        while bytes < 16 && [input, output].iter().all(|operand| is_pair(&shape, operand, bytes, alignment)) {
            let last = shape.len() - 1;
            shape[last] /= 2;
            for operand in [&mut input, &mut output] {
                operand.strides[..last].iter_mut().for_each(|stride| *stride /= 2);
            }
            bytes *= 2;
        }
        Ok(CopyArguments { space: Space::new(&shape)?, input, output, bytes: bytes as u32 })
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        Geometry::line((self.space.count as usize).div_ceil(256 * LANES), 256)
    }
}

/// Whether an operand's elements of `bytes` bytes can be copied in pairs along the last axis.
fn is_pair(shape: &[usize], operand: &Operand, bytes: usize, alignment: usize) -> bool {
    let Some((&last, outer)) = shape.split_last() else { return false };
    let even = operand.strides[..outer.len()].iter().all(|stride| stride % 2 == 0);
    last % 2 == 0 && operand.strides[outer.len()] == 1 && even && alignment.is_multiple_of(2 * bytes)
}

pub(super) fn map_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = MapArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let (shape, rank) = (arguments.space.shape(), arguments.space.rank as usize);
    let inputs = &arguments.operands[..arguments.inputs as usize];
    let output = dtype(arguments.output.dtype)?;
    let map = arguments.program.to_map(dtypes(inputs, inputs.len())?, output)?;
    let tensors = inputs.iter().map(|operand| read(memory, operand, &shape, &operand.steps(rank)));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    let result = map.reference(&tensors)?.swap_remove(0);
    if inputs.is_empty() {
        // A program without operands is one value, whatever the space.
        let values = vec![result.at(0); arguments.space.count as usize];
        let filled = crate::ir::Tensor::from_scalars(output, &shape, values);
        return write(memory, &arguments.output, &arguments.output.steps(rank), filled);
    }
    write(memory, &arguments.output, &arguments.output.steps(rank), result)
}

pub(super) fn chain_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = ChainArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let (shape, rank) = (arguments.space.shape(), arguments.space.rank as usize);
    let input = read_wide(memory, &arguments.input, &shape, &arguments.input.steps(rank))?;
    let input = super::memory::converted(input, DType::F32)?;
    let output = dtype(arguments.output.dtype)?;
    let result = arguments.chain.apply(memory, input, output, |operand| operand.steps(rank))?;
    write(memory, &arguments.output, &arguments.output.steps(rank), result)
}

pub(super) fn copy_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = CopyArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let (shape, rank) = (arguments.space.shape(), arguments.space.rank as usize);
    let size = arguments.bytes as usize;
    let from = super::memory::positions(&shape, &arguments.input.steps(rank));
    let to = super::memory::positions(&shape, &arguments.output.steps(rank));
    let mut element = vec![0; size];
    for (from, to) in from.into_iter().zip(to) {
        memory.load(super::memory::shifted(arguments.input.address, from * size as isize), &mut element)?;
        memory.store(super::memory::shifted(arguments.output.address, to * size as isize), &element)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::ir::{Scalar, Tensor};
    use crate::kernels::evaluation::eighths;
    use crate::kernels::{Binary, Instr, Unary};

    #[test]
    fn a_program_runs_over_strided_operands() {
        let map = Map {
            inputs: vec![DType::F32, DType::F32],
            body: vec![
                Instr::Input(0),
                Instr::Input(1),
                Instr::Binary(Binary::Add, 0, 1),
                Instr::Unary(Unary::Gelu, 2),
            ],
            output: DType::F16,
        };
        let (x, bias) = (eighths(&[4, 6], 1), eighths(&[6], 2));
        let mut heap = Heap::default();
        let result = heap.room(48);
        let operand = |address, dtype, strides: &[isize]| Operand::new(address, dtype, strides).unwrap();
        // The result is stored transposed.
        let inputs = [operand(heap.put(&x), DType::F32, &[6, 1]), operand(heap.put(&bias), DType::F32, &[0, 1])];
        let output = operand(result, DType::F16, &[1, 4]);
        let arguments = MapArguments::new(&map, &[4, 6], &inputs, output, 256).unwrap();
        assert_eq!((arguments.vectors, MapArguments::entry(&map).unwrap()), (0, "map_narrow"));
        assert_eq!(arguments.launch(), Geometry { shared_bytes: 2 * 16 * 128, ..Geometry::line(1, 128) });
        map_twin(&arguments.encode(), &mut heap).unwrap();
        let values: Vec<f32> = bias.to_vec::<f32>().unwrap().repeat(4);
        let expected = map.reference(&[x.clone(), Tensor::from_slice(&[4, 6], &values)]).unwrap().swap_remove(0);
        let got = read(&heap, &output, &[4, 6], &[1, 4]).unwrap();
        assert_eq!(got, expected);
        // The same as a chain.
        let (chain, operands) = Chain::of(&map, 0).unwrap();
        assert_eq!(operands, [1]);
        let again = operand(heap.room(48), DType::F16, &[6, 1]);
        let chained = ChainArguments::new(chain.with(0, inputs[1]), &[4, 6], inputs[0], again, 256).unwrap();
        chain_twin(&chained.encode(), &mut heap).unwrap();
        assert_eq!(read(&heap, &again, &[4, 6], &[6, 1]).unwrap(), expected);
    }

    #[test]
    fn a_fill_needs_no_operand() {
        let map = Map { inputs: vec![], body: vec![Instr::Const(DType::I64, Scalar::Int(-5))], output: DType::I64 };
        let mut heap = Heap::default();
        let output = Operand::new(heap.room(24), DType::I64, &[1]).unwrap();
        let arguments = MapArguments::new(&map, &[3], &[], output, 8).unwrap();
        assert_eq!(MapArguments::entry(&map).unwrap(), "map_wide");
        map_twin(&arguments.encode(), &mut heap).unwrap();
        assert_eq!(heap.tensor(output.address, DType::I64, &[3]).to_vec::<i64>().unwrap(), [-5; 3]);
    }

    #[test]
    fn copies_widen_where_they_may() {
        let mut heap = Heap::default();
        let x = Tensor::from_slice(&[3, 8], &(0..24).map(|x| x as u8).collect::<Vec<_>>());
        let input = Operand::new(heap.put(&x), DType::U8, &[8, 1]).unwrap();
        let output = Operand::new(heap.room(48), DType::U8, &[16, 1]).unwrap();
        let arguments = CopyArguments::new(DType::U8, &[3, 8], input, output, 256).unwrap();
        assert_eq!((arguments.bytes, arguments.space.shape()), (8, vec![3, 1]));
        copy_twin(&arguments.encode(), &mut heap).unwrap();
        assert_eq!(read(&heap, &output, &[3, 8], &[16, 1]).unwrap(), x);
        let odd = CopyArguments::new(DType::U8, &[3, 8], input, output, 2).unwrap();
        assert_eq!(odd.bytes, 2);
    }

    #[test]
    fn vectors_need_alignment_and_whole_rows() {
        let operand = |strides: &[isize]| Operand::new(Address(256), DType::F16, strides).unwrap();
        assert!(is_vector(&[3, 8], &operand(&[8, 1]), 4, 16));
        assert!(is_vector(&[3, 8], &operand(&[0, 1]), 4, 8));
        assert!(is_vector(&[3, 8], &operand(&[3, 0]), 4, 2));
        assert!(!is_vector(&[3, 8], &operand(&[9, 1]), 4, 16));
        assert!(!is_vector(&[3, 8], &operand(&[8, 1]), 4, 4));
        assert!(!is_vector(&[3, 6], &operand(&[8, 1]), 4, 16));
        assert!(!is_vector(&[], &operand(&[]), 4, 16));
    }
}
