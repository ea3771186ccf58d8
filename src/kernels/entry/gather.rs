//! Indexed reads, one entry for all of them.

use super::layout::{Field, arguments};
use super::memory::{Memory, positions, read, shifted};
use super::operand::{AXES, Geometry, Operand, Space, occupied};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;

arguments! {
    /// `out[i] = data[i data_strides + sum over d of clamp(index[i index_strides + d index_step]) steps[d]]`. Entry `gather`.
    ///
    /// A negative index counts from the end; one out of range is clamped.
    pub struct GatherArguments {
        /// Indices of the result.
        pub space: Space,
        /// Bytes of an element: 1, 2, 4, 8 or 16.
        pub bytes: u32,
        /// Axes of the data that indices address.
        pub depth: u32,
        /// Step from one index of a tuple to the next.
        pub index_step: i32,
        /// The data, with the steps of the axes that no index addresses.
        pub data: Operand,
        /// The indices, I32 or I64.
        pub index: Operand,
        /// The result.
        pub output: Operand,
        /// Extents of the addressed axes.
        pub extents: [u32; AXES],
        /// Steps of the addressed axes, in elements.
        pub steps: [i32; AXES],
    }
}

/// An axis of the data that an index addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// Extent.
    pub extent: usize,
    /// Step from one position to the next, in elements.
    pub step: isize,
}

impl GatherArguments {
    /// The arguments for a result of `shape` and data of `dtype`; rows that lie side by side are read up to 16 bytes at a time as far as
    /// `alignment`, which the addresses of data and result are multiples of, allows.
    pub fn new(
        dtype: DType,
        shape: &[usize],
        [data, index, output]: [Operand; 3],
        addressed: &[Addressed],
        index_step: isize,
        alignment: usize,
    ) -> Result<Self> {
        ensure!(addressed.len() <= AXES, TooLarge, "{} axes are addressed", addressed.len());
        let step = i32::try_from(index_step).map_err(|_| fail!(TooLarge, "a step of {index_step} indices"))?;
        let (mut shape, bytes) = (shape.to_vec(), dtype.bytes());
        let mut arguments = GatherArguments {
            space: Space::new(&shape)?,
            bytes: bytes as u32,
            depth: addressed.len() as u32,
            index_step: step,
            data,
            index,
            output,
            extents: [1; AXES],
            steps: [0; AXES],
        };
        let steps = Operand::new(data.address, dtype, &addressed.iter().map(|axis| axis.step).collect::<Vec<_>>())?;
        arguments.steps = steps.strides;
        for (extent, axis) in arguments.extents.iter_mut().zip(addressed) {
            *extent = super::operand::small(axis.extent)?;
        }
        while arguments.is_pair(&shape, alignment) {
            let last = shape.len() - 1;
            shape[last] /= 2;
            arguments.bytes *= 2;
            for operand in [&mut arguments.data, &mut arguments.output] {
                operand.strides[..last].iter_mut().for_each(|stride| *stride /= 2);
            }
            arguments.steps.iter_mut().for_each(|step| *step /= 2);
        }
        arguments.space = Space::new(&shape)?;
        Ok(arguments)
    }

    /// Whether elements can be moved in pairs along the last axis.
    fn is_pair(&self, shape: &[usize], alignment: usize) -> bool {
        let Some((&extent, outer)) = shape.split_last() else { return false };
        let last = outer.len();
        let aligned = alignment.is_multiple_of(2 * self.bytes as usize) && self.bytes < 16 && extent % 2 == 0;
        let runs = self.index.strides[last] == 0
            && [&self.data, &self.output].iter().all(|operand| {
                operand.strides[last] == 1 && operand.strides[..last].iter().all(|stride| stride % 2 == 0)
            });
        aligned && runs && self.steps.iter().all(|step| step % 2 == 0)
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        Geometry::line((self.space.count as usize).div_ceil(128), 128)
    }
}

/// The position that an index names on an axis, which is not empty; out of range it is clamped.
pub(super) fn clamped(index: i64, extent: u32) -> i64 {
    let extent = i64::from(extent);
    let index = if index < 0 { index.saturating_add(extent) } else { index };
    index.clamp(0, extent - 1)
}

pub(super) fn gather_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = GatherArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let (mut shape, rank) = (arguments.space.shape(), arguments.space.rank as usize);
    let size = arguments.bytes as usize;
    let from = positions(&shape, &arguments.data.steps(rank));
    let to = positions(&shape, &arguments.output.steps(rank));
    let depth = arguments.depth as usize;
    ensure!(arguments.extents[..depth].iter().all(|&extent| extent > 0), Internal, "an empty axis is addressed");
    shape.push(depth);
    let mut index_steps = arguments.index.steps(rank);
    index_steps.push(arguments.index_step as isize);
    let indices = read(memory, &arguments.index, &shape, &index_steps)?.to_i64s();
    let mut element = vec![0; size];
    for ((from, to), tuple) in from.into_iter().zip(to).zip(indices.chunks_exact(depth.max(1))) {
        let mut position = from;
        for (axis, &index) in tuple.iter().enumerate() {
            position += clamped(index, arguments.extents[axis]) as isize * arguments.steps[axis] as isize;
        }
        memory.load(shifted(arguments.data.address, position * size as isize), &mut element)?;
        memory.store(shifted(arguments.output.address, to * size as isize), &element)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::ir::Tensor;
    use crate::kernels::evaluation::eighths;
    use crate::kernels::{Family, Gather, GatherElements, GatherNd};

    struct Trial {
        heap: Heap,
        data: Tensor,
        index: Tensor,
    }

    impl Trial {
        fn new(data: Tensor, index: Tensor) -> Trial {
            Trial { heap: Heap::default(), data, index }
        }

        /// Runs the entry with these strides of data and indices, and compares.
        fn compare(
            mut self,
            kernel: &dyn Family,
            strides: [&[isize]; 2],
            addressed: &[Addressed],
            step: isize,
            bytes: u32,
        ) {
            let expected = kernel.reference(&[self.data.clone(), self.index.clone()]).unwrap().swap_remove(0);
            let dense: Vec<isize> =
                crate::kernels::walk::row_major(expected.shape()).into_iter().map(|stride| stride as isize).collect();
            let operands = [
                Operand::new(self.heap.put(&self.data), self.data.dtype(), strides[0]).unwrap(),
                Operand::new(self.heap.put(&self.index), self.index.dtype(), strides[1]).unwrap(),
                Operand::new(self.heap.room(expected.data().len()), self.data.dtype(), &dense).unwrap(),
            ];
            let shape = expected.shape();
            let arguments = GatherArguments::new(self.data.dtype(), shape, operands, addressed, step, 256).unwrap();
            assert_eq!(arguments.bytes, bytes);
            gather_twin(&arguments.encode(), &mut self.heap).unwrap();
            assert_eq!(self.heap.tensor(operands[2].address, expected.dtype(), shape), expected);
        }
    }

    #[test]
    fn rows_by_index() {
        let trial = Trial::new(eighths(&[2, 5, 4], 1), Tensor::from_slice(&[3], &[4i64, -5, 1]));
        let strides: [&[isize]; 2] = [&[20, 0, 1], &[0, 1, 0]];
        trial.compare(&Gather { axis: 1 }, strides, &[Addressed { extent: 5, step: 4 }], 0, 16);
    }

    #[test]
    fn elements_by_index() {
        let trial = Trial::new(eighths(&[3, 2], 1), Tensor::from_slice(&[2, 2], &[2i32, 0, -1, 1]));
        let strides: [&[isize]; 2] = [&[0, 1], &[2, 1]];
        trial.compare(&GatherElements { axis: 0 }, strides, &[Addressed { extent: 3, step: 2 }], 0, 4);
    }

    #[test]
    fn tuples_of_indices() {
        let trial =
            Trial::new(eighths(&[2, 3, 4, 2], 1), Tensor::from_slice(&[2, 2, 2], &[0i64, 3, 2, -1, 1, 1, 0, 0]));
        let addressed = [Addressed { extent: 3, step: 8 }, Addressed { extent: 4, step: 2 }];
        trial.compare(&GatherNd { batch_dims: 1 }, [&[24, 0, 1], &[4, 2, 0]], &addressed, 1, 8);
    }

    #[test]
    fn indices_out_of_range_are_clamped() {
        assert_eq!([-9, -3, -1, 0, 2, 3, i64::MAX, i64::MIN].map(|index| clamped(index, 3)), [0, 0, 2, 0, 2, 2, 2, 0]);
    }
}
