//! The k greatest or smallest elements of lines.

use super::layout::{Address, Field, arguments};
use super::memory::{Memory, read, write};
use super::operand::{Geometry, Operand, Space, occupied, small};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{Family, TopK};

/// Elements of a line up to which all of them are ranked: the work grows with their square.
const RANK_MAX: usize = 2048;
/// Threads of a block of `topk_rank`.
const RANK_THREADS: usize = 256;

arguments! {
    /// The k best elements of the last axis, best first, and where they were (I64); of equal ones the one with the lower index is better.
    /// NaN is greater than all numbers.
    ///
    /// Entry `topk_rank` counts, for each of a line's elements or candidates, how many are better. Entry `topk_select` finds the k
    /// candidates of a line before.
    pub struct TopKArguments {
        /// Indices of the operand.
        pub space: Space,
        /// Elements of a line.
        pub extent: u32,
        /// k.
        pub k: u32,
        /// Whether greatest.
        pub largest: u32,
        /// Operand: floats or integers.
        pub input: Operand,
        /// Values; the last stride is that of the rank.
        pub values: Operand,
        /// Indices.
        pub indices: Operand,
        /// The indices of the k best elements of each line in any order, 32 bits each; absent if there are no candidates.
        pub candidates: Address,
    }
}

impl TopKArguments {
    /// The best along the last axis of `shape`, to which lowering brings the axis; the results are values and indices.
    pub fn new(kernel: &TopK, shape: &[usize], input: Operand, [values, indices]: [Operand; 2]) -> Result<Self> {
        let last = shape.last().ok_or_else(|| fail!(Internal, "the best of a scalar"))?;
        Ok(TopKArguments {
            space: Space::new(shape)?,
            extent: small(*last)?,
            k: small(kernel.k)?,
            largest: kernel.largest.into(),
            input,
            values,
            indices,
            candidates: Address::NONE,
        })
    }

    fn lines(&self) -> usize {
        (self.space.count / self.extent.max(1)) as usize
    }

    /// How many candidates are to be selected, of all lines; 0 if every element is ranked, because the lines are short or much of them
    /// is kept.
    pub fn candidates(&self) -> usize {
        let (extent, k) = (self.extent as usize, self.k as usize);
        if extent > RANK_MAX && k <= extent / 4 { self.lines() * k } else { 0 }
    }

    /// Blocks and threads of `topk_select`: a block a line.
    pub fn select_launch(&self) -> Geometry {
        Geometry::line(self.lines(), 512)
    }

    /// Blocks and threads of `topk_rank`.
    pub fn rank_launch(&self) -> Geometry {
        let ranked = if self.candidates.is_none() { self.extent } else { self.k };
        Geometry::line(self.lines() * (ranked as usize).div_ceil(RANK_THREADS), RANK_THREADS as u32)
    }

    /// The best of a line by definition: values and indices.
    fn best(&self, line: Tensor) -> Result<[Tensor; 2]> {
        let kernel = TopK { axis: 0, k: self.k as usize, largest: self.largest != 0 };
        kernel.infer(&[line.ty()])?;
        let results = kernel.reference(&[line])?;
        results.try_into().map_err(|_| fail!(Internal, "the best have values and indices"))
    }

    /// The elements of each line.
    fn elements(&self, memory: &dyn Memory) -> Result<Vec<Tensor>> {
        let (shape, rank, extent) = (self.space.shape(), self.space.rank as usize, self.extent as usize);
        let input = read(memory, &self.input, &shape, &self.input.steps(rank))?;
        let bytes = (extent * input.dtype().bytes()).max(1);
        let line = |start: usize| Tensor::new(input.dtype(), vec![extent], input.data().slice(start..start + bytes));
        (0..self.lines()).map(|index| line(index * bytes)).collect()
    }
}

pub(super) fn select_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = TopKArguments::get(bytes);
    occupied(&[arguments.space.count, arguments.k])?;
    for (line, elements) in arguments.elements(memory)?.into_iter().enumerate() {
        let [_, indices] = arguments.best(elements)?;
        // The order of candidates means nothing.
        let candidates: Vec<i32> = indices.to_i64s().into_iter().rev().map(|index| index as i32).collect();
        let at = arguments.candidates.0 + (line * candidates.len() * 4) as u64;
        memory.store(at, Tensor::from_slice(&[candidates.len()], &candidates).data())?;
    }
    Ok(())
}

pub(super) fn rank_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = TopKArguments::get(bytes);
    occupied(&[arguments.space.count, arguments.k])?;
    let (k, rank) = (arguments.k as usize, arguments.space.rank as usize);
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for (line, elements) in arguments.elements(memory)?.into_iter().enumerate() {
        let mut ranked: Vec<i64> = (0..i64::from(arguments.extent)).collect();
        if !arguments.candidates.is_none() {
            let mut candidates = vec![0; k * 4];
            memory.load(arguments.candidates.0 + (line * k * 4) as u64, &mut candidates)?;
            ranked = Tensor::new(DType::I32, vec![k], candidates.into())?.to_i64s();
            ranked.sort_unstable();
        }
        ensure!(
            ranked.iter().all(|&index| (0..i64::from(arguments.extent)).contains(&index)),
            Internal,
            "no candidates"
        );
        let chosen = ranked.iter().map(|&index| elements.at(index as usize)).collect::<Vec<_>>();
        let [best, at] = arguments.best(Tensor::from_scalars(elements.dtype(), &[ranked.len()], chosen))?;
        values.extend_from_slice(best.data());
        indices.extend(at.to_i64s().into_iter().map(|index| ranked[index as usize]));
    }
    let mut shape = arguments.space.shape();
    shape[rank - 1] = k;
    let values = Tensor::new(super::operand::dtype(arguments.input.dtype)?, shape.clone(), values.into())?;
    write(memory, &arguments.values, &arguments.values.steps(rank), values)?;
    write(memory, &arguments.indices, &arguments.indices.steps(rank), Tensor::from_slice(&shape, &indices))
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::kernels::evaluation::eighths;

    #[test]
    fn the_best_of_candidates_are_the_best_of_all() {
        let input = eighths(&[3, 40], 1);
        let kernel = TopK { axis: 1, k: 5, largest: false };
        let expected = kernel.reference(std::slice::from_ref(&input)).unwrap();
        for selects in [false, true] {
            let mut heap = Heap::default();
            let from = Operand::new(heap.put(&input), DType::F32, &[40, 1]).unwrap();
            let values = Operand::new(heap.room(60), DType::F32, &[5, 1]).unwrap();
            let indices = Operand::new(heap.room(120), DType::I64, &[5, 1]).unwrap();
            let mut arguments = TopKArguments::new(&kernel, &[3, 40], from, [values, indices]).unwrap();
            if selects {
                arguments.candidates = heap.room(60);
                select_twin(&arguments.encode(), &mut heap).unwrap();
            }
            rank_twin(&arguments.encode(), &mut heap).unwrap();
            assert_eq!(heap.tensor(values.address, DType::F32, &[3, 5]), expected[0]);
            assert_eq!(heap.tensor(indices.address, DType::I64, &[3, 5]), expected[1]);
        }
    }

    #[test]
    fn few_of_long_lines_are_selected() {
        let none = Operand::none();
        let arguments = |extent: usize, k: usize| {
            let kernel = TopK { axis: 1, k, largest: true };
            TopKArguments::new(&kernel, &[3, extent], none, [none, none]).unwrap()
        };
        assert_eq!([(2048, 9), (4000, 1001), (4000, 1000)].map(|(n, k)| arguments(n, k).candidates()), [0, 0, 3000]);
        let mut long = arguments(4000, 300);
        assert_eq!((long.select_launch().grid[0], long.rank_launch().grid[0]), (3, 48));
        long.candidates = Address(1);
        assert_eq!(long.rank_launch(), Geometry::line(6, 256));
    }
}
