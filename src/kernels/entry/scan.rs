//! Running sums.

use super::layout::{Field, arguments};
use super::memory::{Memory, read_wide, write};
use super::operand::{Geometry, Operand, Space, occupied, small};
use crate::error::{Result, fail};
use crate::kernels::{CumSum, Family};

/// Elements up to which a thread takes a line alone.
const THREAD_MAX: u32 = 32;
/// Lines from which on they fill the GPU with a thread each.
const LINES_MIN: u32 = 8192;

arguments! {
    /// Running sums along the last axis. Entries `cumsum_threads` (a thread a line) and `cumsum_blocks` (a block a line).
    pub struct CumSumArguments {
        /// Indices of operand and result.
        pub space: Space,
        /// Elements of a line.
        pub extent: u32,
        /// Whether an element's own value is left out of its sum.
        pub exclusive: u32,
        /// Whether the sum runs from the end.
        pub reverse: u32,
        /// Operand: floats or integers.
        pub input: Operand,
        /// Result.
        pub output: Operand,
    }
}

impl CumSumArguments {
    /// The sums along the last axis of `shape`; lowering brings the axis there.
    pub fn new(kernel: &CumSum, shape: &[usize], input: Operand, output: Operand) -> Result<Self> {
        let last = shape.last().ok_or_else(|| fail!(Internal, "running sums of a scalar"))?;
        Ok(CumSumArguments {
            space: Space::new(shape)?,
            extent: small(*last)?,
            exclusive: kernel.exclusive.into(),
            reverse: kernel.reverse.into(),
            input,
            output,
        })
    }

    fn lines(&self) -> u32 {
        self.space.count / self.extent.max(1)
    }

    /// The entry, by the length and number of the lines.
    pub fn entry(&self) -> &'static str {
        if self.extent <= THREAD_MAX || self.lines() >= LINES_MIN { "cumsum_threads" } else { "cumsum_blocks" }
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        match self.entry() {
            "cumsum_threads" => Geometry::line((self.lines() as usize).div_ceil(128), 128),
            _ => Geometry::line(self.lines() as usize, 256),
        }
    }
}

pub(super) fn cumsum_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = CumSumArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let (shape, rank) = (arguments.space.shape(), arguments.space.rank as usize);
    let input = read_wide(memory, &arguments.input, &shape, &arguments.input.steps(rank))?;
    let kernel = CumSum { axis: rank - 1, exclusive: arguments.exclusive != 0, reverse: arguments.reverse != 0 };
    kernel.infer(&[input.ty()])?;
    let sums = kernel.reference(&[input])?.swap_remove(0);
    write(memory, &arguments.output, &arguments.output.steps(rank), sums)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::ir::{DType, Tensor};

    #[test]
    fn sums_wrap_in_the_type_that_is_stored() {
        let mut heap = Heap::default();
        let input = Tensor::from_slice(&[2, 3], &[100i8, 100, 1, -128, -1, 5]);
        let from = Operand::new(heap.put(&input), DType::I8, &[3, 1]).unwrap();
        let to = Operand::new(heap.room(6), DType::I8, &[1, 2]).unwrap();
        let kernel = CumSum { axis: 1, exclusive: false, reverse: false };
        let arguments = CumSumArguments::new(&kernel, &[2, 3], from, to).unwrap();
        assert_eq!((arguments.entry(), arguments.launch()), ("cumsum_threads", Geometry::line(1, 128)));
        cumsum_twin(&arguments.encode(), &mut heap).unwrap();
        let sums = heap.tensor(to.address, DType::I8, &[6]).to_vec::<i8>().unwrap();
        assert_eq!(sums, [100, -128, -56, 127, -55, -124]);
    }

    #[test]
    fn long_lines_take_blocks_unless_they_are_many() {
        let entry = |shape: &[usize]| {
            let kernel = CumSum { axis: 1, exclusive: false, reverse: false };
            CumSumArguments::new(&kernel, shape, Operand::none(), Operand::none()).unwrap().entry()
        };
        assert_eq!(
            [entry(&[9, 33]), entry(&[9, 32]), entry(&[9000, 33])],
            ["cumsum_blocks", "cumsum_threads", "cumsum_threads"]
        );
    }
}
