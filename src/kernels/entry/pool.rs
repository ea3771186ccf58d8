//! Pooling.

use super::layout::{Field, arguments};
use super::memory::{Memory, converted, read, write};
use super::operand::{AXES, Geometry, Operand, occupied, small};
use super::slide::{Quads, Slide};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;
use crate::kernels::{Family, Pool, PoolKind, Window};

arguments! {
    /// Maximum or mean of the taps inside the input. Entry `pool`.
    pub struct PoolArguments {
        /// The results.
        pub quads: Quads,
        /// The window, cut to the taps that can lie inside the padded input.
        pub slide: Slide,
        /// Number of the kind, in the order of [`PoolKind`]'s variants.
        pub kind: u32,
        /// Whether positions of maxima are counted with the first spatial axis running fastest.
        pub column_major: u32,
        /// Spatial extents with padding on both sides.
        pub padded: [u32; AXES],
        /// Input, with the steps of image, channel and spatial axes.
        pub input: Operand,
        /// Result, of the input's kind of type.
        pub output: Operand,
        /// Where the positions of the maxima go, I64, if it has an address.
        pub indices: Operand,
    }
}

const KINDS: [PoolKind; 3] = [PoolKind::Max, PoolKind::Average, PoolKind::AverageIncludingPads];

impl PoolArguments {
    /// The pooling of an input of extents `spatial`. Window and extents have been lifted.
    pub fn new(
        kind: PoolKind,
        column_major: bool,
        quads: Quads,
        window: &Window,
        spatial: &[usize],
        [input, output, indices]: [Operand; 3],
    ) -> Result<Self> {
        let shape = quads.shape();
        let mut cut = window.clone();
        let mut padded = [1; AXES];
        for axis in 0..spatial.len() {
            let all = window.padded("Pool", axis, spatial[axis])?;
            cut.kernel[axis] = window.kernel[axis].min(all.div_ceil(window.dilations[axis]));
            padded[axis] = small(all)?;
        }
        let slide = Slide::new(&cut, spatial, &shape[2..])?;
        let number = KINDS.iter().position(|&known| known == kind).unwrap_or(0) as u32;
        Ok(PoolArguments {
            quads,
            slide,
            kind: number,
            column_major: column_major.into(),
            padded,
            input,
            output,
            indices,
        })
    }

    /// The entry.
    pub fn entry(&self) -> &'static str {
        if self.slide.has_few_axes() { "pool" } else { "pool_any" }
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        self.quads.launch()
    }
}

pub(super) fn pool_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = PoolArguments::get(bytes);
    occupied(&[arguments.quads.space.count])?;
    let shape = arguments.quads.shape();
    let (rank, spatial) = (shape.len(), arguments.slide.input());
    let input_shape = [&shape[..2], &spatial[..]].concat();
    let mut input = read(memory, &arguments.input, &input_shape, &arguments.input.steps(rank))?;
    if input.dtype().is_float() {
        input = converted(input, DType::F32)?;
    }
    let kind = KINDS.get(arguments.kind as usize).copied();
    let kind = kind.ok_or_else(|| fail!(Internal, "there is no pooling {}", arguments.kind))?;
    let mut window = arguments.slide.window(&shape[2..]);
    for (axis, end) in window.pads_end.iter_mut().enumerate() {
        *end = arguments.padded[axis] as usize - spatial[axis] - window.pads_begin[axis];
    }
    let with_indices = !arguments.indices.address.is_none();
    let indices = with_indices.then_some(arguments.column_major != 0);
    let pool = Pool { kind, window, out: shape[2..].to_vec(), indices };
    pool.infer(&[input.ty()])?;
    let mut results = pool.reference(&[input])?;
    ensure!(results[0].shape() == shape, Internal, "a pooling of {:?} for {shape:?}", results[0].shape());
    if with_indices {
        write(memory, &arguments.indices, &arguments.indices.steps(rank), results.swap_remove(1))?;
    }
    write(memory, &arguments.output, &arguments.output.steps(rank), results.swap_remove(0))
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::super::slide::lifted_window;
    use super::*;
    use crate::kernels::evaluation::floats;

    #[test]
    fn a_window_is_cut_to_the_padded_input() {
        let mut heap = Heap::default();
        let huge = Window {
            kernel: vec![1 << 60],
            strides: vec![1],
            dilations: vec![2],
            pads_begin: vec![1],
            pads_end: vec![2],
        };
        let x = heap.put(&floats(&[1, 1, 4], &[1.0, 2.0, 3.0, 5.0]));
        let operand = |address, dtype| Operand::new(address, dtype, &[4, 4, 0, 1]).unwrap();
        let operands = [operand(x, DType::F32), operand(heap.room(16), DType::F32), operand(heap.room(32), DType::I64)];
        let quads = Quads::new(1, 1, &[1, 2], false).unwrap();
        let window = lifted_window(&huge).unwrap();
        let of = |kind, indices| {
            PoolArguments::new(kind, false, quads, &window, &[1, 4], [operands[0], operands[1], indices]).unwrap()
        };
        let arguments = of(PoolKind::Max, operands[2]);
        assert_eq!(arguments.slide.kernel.shape(), [1, 4], "seven elements, every second of them");
        pool_twin(&arguments.encode(), &mut heap).unwrap();
        // Positions -1, 1, 3 and 0, 2.
        assert_eq!(heap.tensor(operands[1].address, DType::F32, &[2]).to_vec::<f32>().unwrap(), [5.0, 3.0]);
        assert_eq!(heap.tensor(operands[2].address, DType::I64, &[2]).to_vec::<i64>().unwrap(), [3, 2]);
        // All of the padding counts, too: four and three taps.
        pool_twin(&of(PoolKind::AverageIncludingPads, Operand::none()).encode(), &mut heap).unwrap();
        let means = heap.tensor(operands[1].address, DType::F32, &[2]).to_vec::<f32>().unwrap();
        assert_eq!(means, [7.0 / 4.0, 4.0 / 3.0]);
    }
}
