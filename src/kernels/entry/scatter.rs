//! Indexed writes.

use super::layout::{Address, Field, arguments};
use super::memory::{Memory, read, read_wide, write};
use super::operand::{AXES, Geometry, Operand, Space, occupied};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::walk::row_major;
use crate::kernels::{Family, ScatterNd, ScatterOp};

arguments! {
    /// The result is the data with updates applied in the order of their tuples of indices. A negative index counts from the end; a tuple
    /// with an index out of range writes nothing. Places are what the leading `depth` axes of the data address, row-major.
    ///
    /// Entry `scatter_index` finds and marks the place of each tuple; marks and counts are 0 before. Entry `scatter_apply` then writes
    /// the result.
    pub struct ScatterArguments {
        /// Indices of data and result.
        pub space: Space,
        /// Indices of the tuples.
        pub tuples: Space,
        /// Number of the operation, in the order of [`ScatterOp`]'s variants.
        pub op: u32,
        /// Axes of the data that a tuple addresses.
        pub depth: u32,
        /// Step from one index of a tuple to the next.
        pub index_step: i32,
        /// The indices, I32 or I64, by the axes of the tuples.
        pub index: Operand,
        /// The data.
        pub data: Operand,
        /// The updates, by the axes of the tuples.
        pub updates: Operand,
        /// Steps of the updates along the axes of the data; 0 for those addressed.
        pub steps: [i32; AXES],
        /// The result; other memory than the data's.
        pub output: Operand,
        /// A number for each place, I32: 0, or 1 more than the last tuple that names it (set), or how many tuples there are from the first
        /// one on (other operations).
        pub marks: Operand,
        /// How many tuples name each place, 32 bits; absent for set.
        pub counts: Address,
        /// The place of each tuple, 32 bits, or -1.
        pub positions: Address,
    }
}

/// Tuples of indices.
#[derive(Clone, Copy, Debug)]
pub struct Tuples<'a> {
    /// Extents of the axes over which there are tuples.
    pub shape: &'a [usize],
    /// Indices of a tuple.
    pub depth: usize,
    /// Step from one index of a tuple to the next, in elements.
    pub step: isize,
}

/// The operations in the order of their numbers.
const OPERATIONS: [ScatterOp; 5] = [ScatterOp::Set, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Max, ScatterOp::Min];

impl ScatterArguments {
    /// The arguments for data of `shape`. The operands are data, indices (by the axes of the tuples), updates (all their axes) and
    /// result; the caller adds the working memory.
    pub fn new(
        kernel: &ScatterNd,
        shape: &[usize],
        Tuples { shape: tuples, depth, step }: Tuples<'_>,
        [data, index, updates, output]: [Operand; 4],
    ) -> Result<Self> {
        ensure!((1..=shape.len()).contains(&depth), Internal, "{depth} axes of {shape:?} are addressed");
        let op = OPERATIONS.iter().position(|&known| known == kernel.op).unwrap_or(0) as u32;
        let (mut updates, mut steps) = (updates, [0; AXES]);
        let within = shape.len() - depth;
        steps[depth..shape.len()].copy_from_slice(&updates.strides[tuples.len()..tuples.len() + within]);
        updates.strides[tuples.len()..].fill(0);
        let mut strides: Vec<isize> = row_major(&shape[..depth]).into_iter().map(|stride| stride as isize).collect();
        strides.resize(shape.len(), 0);
        let index_step = i32::try_from(step).map_err(|_| fail!(TooLarge, "a step of {step} indices"))?;
        Ok(ScatterArguments {
            space: Space::new(shape)?,
            tuples: Space::new(tuples)?,
            op,
            depth: depth as u32,
            index_step,
            index,
            data,
            updates,
            steps,
            output,
            marks: Operand::new(Address::NONE, DType::I32, &strides)?,
            counts: Address::NONE,
            positions: Address::NONE,
        })
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.space.extents[..self.depth as usize].iter().map(|&extent| extent as usize).product()
    }

    /// Blocks and threads of `scatter_index`.
    pub fn index_launch(&self) -> Geometry {
        Geometry::line((self.tuples.count as usize).div_ceil(128), 128)
    }

    /// Blocks and threads of `scatter_apply`.
    pub fn apply_launch(&self) -> Geometry {
        Geometry::line((self.space.count as usize).div_ceil(128), 128)
    }

    /// The place of each tuple.
    fn found(&self, memory: &dyn Memory) -> Result<Vec<Option<usize>>> {
        let (rank, depth) = (self.tuples.rank as usize, self.depth as usize);
        let (mut shape, mut steps) = (self.tuples.shape(), self.index.steps(rank));
        shape.push(depth);
        steps.push(self.index_step as isize);
        let indices = read(memory, &self.index, &shape, &steps)?.to_i64s();
        let place = |tuple: &[i64]| {
            tuple.iter().zip(self.space.extents).try_fold(0usize, |place, (&index, extent)| {
                let extent = i64::from(extent);
                let index = if index < 0 { index.saturating_add(extent) } else { index };
                (0..extent).contains(&index).then(|| place * extent as usize + index as usize)
            })
        };
        Ok(indices.chunks_exact(depth).map(place).collect())
    }

    /// Marks, counts and positions for the places of the tuples, each with its address.
    fn noted(&self, found: &[Option<usize>]) -> [(Address, Vec<i32>); 3] {
        let mut marks = vec![0i32; self.places()];
        let mut counts = marks.clone();
        for (tuple, place) in found.iter().enumerate() {
            if let &Some(place) = place {
                let mark = if self.op == 0 { tuple + 1 } else { found.len() - tuple };
                marks[place] = marks[place].max(mark as i32);
                counts[place] += 1;
            }
        }
        let positions = found.iter().map(|place| place.map_or(-1, |place| place as i32)).collect();
        [(self.marks.address, marks), (self.counts, counts), (self.positions, positions)]
    }
}

pub(super) fn index_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = ScatterArguments::get(bytes);
    occupied(&[arguments.tuples.count, arguments.space.count])?;
    let found = arguments.found(memory)?;
    for (address, values) in arguments.noted(&found) {
        if !address.is_none() {
            memory.store(address.0, Tensor::from_slice(&[values.len()], &values).data())?;
        }
    }
    Ok(())
}

pub(super) fn apply_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = ScatterArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let (shape, rank, depth) = (arguments.space.shape(), arguments.space.rank as usize, arguments.depth as usize);
    let data = read_wide(memory, &arguments.data, &shape, &arguments.data.steps(rank))?;
    let mut update_shape = arguments.tuples.shape();
    let mut steps = arguments.updates.steps(update_shape.len());
    update_shape.extend(&shape[depth..]);
    steps.extend(arguments.steps[depth..rank].iter().map(|&step| step as isize));
    let updates = read_wide(memory, &arguments.updates, &update_shape, &steps)?;
    // The tuples that lie inside, as places in data of two axes.
    let (places, count) = (arguments.places(), arguments.tuples.count as usize);
    let (block, size) = (shape[depth..].iter().product::<usize>(), updates.dtype().bytes());
    let found = arguments.found(memory)?;
    // The device relies on what has been noted.
    for (address, values) in arguments.noted(&found) {
        let mut noted = vec![0; values.len() * 4];
        if !address.is_none() {
            memory.load(address.0, &mut noted)?;
            let expected = Tensor::from_slice(&[values.len()], &values);
            ensure!(
                expected.data()[..] == noted[..],
                Internal,
                "marks, counts or positions are not those of the tuples"
            );
        }
    }
    let (mut inside, mut kept) = (Vec::with_capacity(count), Vec::new());
    for (tuple, place) in found.iter().enumerate() {
        if let &Some(place) = place {
            inside.push(place as i64);
            kept.extend_from_slice(&updates.data()[tuple * block * size..(tuple + 1) * block * size]);
        }
    }
    let operands = [
        Tensor::new(data.dtype(), vec![places, block], data.data().clone())?,
        Tensor::from_slice(&[inside.len(), 1], &inside),
        Tensor::new(updates.dtype(), vec![inside.len(), block], kept.into())?,
    ];
    let op = OPERATIONS.get(arguments.op as usize).copied();
    let op = op.ok_or_else(|| fail!(Internal, "there is no operation {}", arguments.op))?;
    let kernel = ScatterNd { op };
    kernel.infer(&operands.each_ref().map(Tensor::ty))?;
    let result = kernel.reference(&operands)?.swap_remove(0);
    let result = Tensor::new(result.dtype(), shape, result.data().clone())?;
    write(memory, &arguments.output, &arguments.output.steps(rank), result)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::kernels::evaluation::floats;

    #[test]
    fn marks_name_the_last_tuple_of_a_set_and_the_first_of_a_sum() {
        // Places of a [2, 3] in which tuples 0 and 2 meet; the third tuple lies outside.
        let tuples = Tensor::from_slice(&[4, 2], &[1i64, 2, 0, 3, -1, -1, 0, 0]);
        for (op, marks, sums) in [
            (ScatterOp::Set, [4, 0, 0, 0, 0, 3], [8.0, 2.0, 3.0, 4.0, 5.0, 7.0]),
            (ScatterOp::Add, [1, 0, 0, 0, 0, 4], [9.0, 2.0, 3.0, 4.0, 5.0, 18.0]),
        ] {
            let mut heap = Heap::default();
            let operands = [
                Operand::new(heap.put(&floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), DType::F32, &[3, 1]),
                Operand::new(heap.put(&tuples), DType::I64, &[2]),
                Operand::new(heap.put(&floats(&[4], &[5.0, 6.0, 7.0, 8.0])), DType::F32, &[1]),
                Operand::new(heap.room(24), DType::F32, &[3, 1]),
            ];
            let operands = operands.map(Result::unwrap);
            let addressing = Tuples { shape: &[4], depth: 2, step: 1 };
            let mut arguments = ScatterArguments::new(&ScatterNd { op }, &[2, 3], addressing, operands).unwrap();
            assert_eq!((arguments.places(), &arguments.marks.strides[..2]), (6, &[3, 1][..]));
            arguments.marks.address = heap.put(&Tensor::from_slice(&[6], &[0i32; 6]));
            arguments.positions = heap.room(16);
            index_twin(&arguments.encode(), &mut heap).unwrap();
            apply_twin(&arguments.encode(), &mut heap).unwrap();
            let integers = |address, count| heap.tensor(address, DType::I32, &[count]).to_vec::<i32>().unwrap();
            assert_eq!(integers(arguments.marks.address, 6), marks);
            assert_eq!(integers(arguments.positions, 4), [5, -1, 5, 0]);
            assert_eq!(heap.tensor(operands[3].address, DType::F32, &[6]).to_vec::<f32>().unwrap(), sums);
        }
    }
}
