//! Resampling by tables of taps.

use super::layout::{Address, Field, arguments};
use super::memory::{Memory, converted, read, write};
use super::operand::{AXES, Geometry, Operand, Space, occupied, small};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{AxisTaps, Family, Resize};

arguments! {
    /// Every result is a weighted sum over the product of the taps of the axes that change. Entry `resize`.
    ///
    /// The tables hold, for one changing axis after the other, `out * taps` positions (I32) and weights. A position of -1 says that
    /// the output lies outside the input.
    pub struct ResizeArguments {
        /// Indices of the result.
        pub space: Space,
        /// The taps of the axes that change.
        pub taps: Space,
        /// Which axis of the space each of them is.
        pub axes: [u32; AXES],
        /// Where the table of each of them begins.
        pub starts: [u32; AXES],
        /// Extents of the input along them.
        pub extents: [u32; AXES],
        /// Steps of the input along them, in elements.
        pub steps: [i32; AXES],
        /// What outputs outside the input are.
        pub outside: f32,
        /// The input's positions.
        pub positions: Address,
        /// The weights of the taps, binary32.
        pub weights: Address,
        /// Input, with the steps of the axes that do not change.
        pub input: Operand,
        /// Result.
        pub output: Operand,
    }
}

impl ResizeArguments {
    /// The tables of a resize: positions and weights.
    pub fn tables(resize: &Resize) -> (Vec<i32>, Vec<f32>) {
        let weights = resize.axes.iter().flat_map(|taps| taps.weights.iter().copied()).collect();
        let outside =
            |axis: usize, output: usize| resize.outside.as_ref().is_some_and(|(_, flags)| flags[axis][output]);
        let mut positions = Vec::new();
        for (axis, taps) in resize.axes.iter().enumerate() {
            let position = |(at, &index): (usize, &u32)| if outside(axis, at / taps.taps) { -1 } else { index as i32 };
            positions.extend(taps.index.iter().enumerate().map(position));
        }
        (positions, weights)
    }

    /// The resize to `shape` of an input of extents `from` and these steps. `order` lists the result's axes in the order of the launch's
    /// space, outermost first; the output's steps are in that order.
    pub fn new(
        resize: &Resize,
        order: &[usize],
        (shape, from): (&[usize], &[usize]),
        input: (Address, DType, &[isize]),
        output: Operand,
        [positions, weights]: [Address; 2],
    ) -> Result<Self> {
        let (address, dtype, steps) = input;
        let place = |axis: usize| order.iter().position(|&known| known == axis).unwrap_or(0);
        let mut changing: Vec<(usize, usize, &AxisTaps)> = Vec::new();
        let mut start = 0;
        for taps in &resize.axes {
            changing.push((place(taps.axis), start, taps));
            start = small(start + taps.index.len())? as usize;
        }
        changing.sort_by_key(|&(place, ..)| place);
        let kept = |&axis: &usize| if changing.iter().any(|(.., taps)| taps.axis == axis) { 0 } else { steps[axis] };
        let kept: Vec<isize> = order.iter().map(kept).collect();
        let extents: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
        let mut arguments = ResizeArguments {
            space: Space::new(&extents)?,
            taps: Space::new(&changing.iter().map(|(.., taps)| taps.taps).collect::<Vec<_>>())?,
            axes: [0; AXES],
            starts: [0; AXES],
            extents: [1; AXES],
            steps: [0; AXES],
            outside: resize.outside.as_ref().map_or(0.0, |(value, _)| *value),
            positions,
            weights,
            input: Operand::new(address, dtype, &kept)?,
            output,
        };
        let moving: Vec<isize> = changing.iter().map(|(.., taps)| steps[taps.axis]).collect();
        arguments.steps = Operand::new(address, dtype, &moving)?.strides;
        for (slot, (place, start, taps)) in changing.iter().enumerate() {
            arguments.axes[slot] = *place as u32;
            arguments.starts[slot] = *start as u32;
            arguments.extents[slot] = small(from[taps.axis])?;
        }
        Ok(arguments)
    }

    /// One thread a result.
    pub fn launch(&self) -> Geometry {
        Geometry::line((self.space.count as usize).div_ceil(128), 128)
    }

    /// The step kind, read from the tables, over the axes of the space.
    fn kernel(&self, memory: &dyn Memory) -> Result<Resize> {
        let (shape, taps) = (self.space.shape(), self.taps.shape());
        let (mut axes, mut flags) = (Vec::new(), Vec::new());
        for (slot, &taps) in taps.iter().enumerate() {
            let (axis, start) = (self.axes[slot] as usize, self.starts[slot]);
            let table = |address: Address, dtype: DType| -> Result<Tensor> {
                let operand = Operand::new(Address(address.0 + u64::from(start) * 4), dtype, &[1])?;
                read(memory, &operand, &[shape[axis] * taps], &[1])
            };
            let positions = table(self.positions, DType::I32)?.to_i64s();
            let weights = table(self.weights, DType::F32)?.to_vec().unwrap_or_default();
            flags.push(positions.iter().step_by(taps).map(|&position| position < 0).collect());
            let index = positions.iter().map(|&position| position.max(0) as u32).collect();
            axes.push(AxisTaps { axis, out: shape[axis], taps, index, weights });
        }
        Ok(Resize { axes, outside: Some((self.outside, flags)) })
    }
}

pub(super) fn resize_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = ResizeArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let resize = arguments.kernel(memory)?;
    let (mut shape, rank) = (arguments.space.shape(), arguments.space.rank as usize);
    let mut steps = arguments.input.steps(rank);
    for (slot, taps) in resize.axes.iter().enumerate() {
        shape[taps.axis] = arguments.extents[slot] as usize;
        steps[taps.axis] = arguments.steps[slot] as isize;
    }
    let mut input = read(memory, &arguments.input, &shape, &steps)?;
    if input.dtype().is_float() {
        input = converted(input, DType::F32)?;
    }
    resize.infer(&[input.ty()])?;
    let result = resize.reference(&[input])?.swap_remove(0);
    ensure!(result.shape() == arguments.space.shape(), Internal, "a resize to {:?}", result.shape());
    write(memory, &arguments.output, &arguments.output.steps(rank), result)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::kernels::evaluation::{close, eighths};

    fn taps(axis: usize, taps: usize, index: &[u32], weights: &[f32]) -> AxisTaps {
        AxisTaps { axis, out: index.len() / taps, taps, index: index.to_vec(), weights: weights.to_vec() }
    }

    #[test]
    fn tables_hold_taps_and_what_lies_outside() {
        let axes =
            vec![taps(0, 2, &[0, 1, 1, 1, 0, 0], &[0.5, 0.5, 1.0, 0.0, 0.25, 0.25]), taps(2, 1, &[1, 0], &[1.0, 1.0])];
        let flags = vec![vec![false, true, false], vec![false, false]];
        for outside in [None, Some((-1.5, flags))] {
            let resize = Resize { axes: axes.clone(), outside };
            let mut heap = Heap::default();
            let x = eighths(&[2, 3, 2], 5);
            let (positions, weights) = ResizeArguments::tables(&resize);
            let tables =
                [heap.put(&Tensor::from_slice(&[8], &positions)), heap.put(&Tensor::from_slice(&[8], &weights))];
            // The result lies with its middle axis outermost.
            let output = Operand::new(heap.room(72), DType::F32, &[6, 2, 1]).unwrap();
            let input = (heap.put(&x), DType::F32, &[6, 2, 1][..]);
            let shapes = (&[3, 3, 2][..], &[2, 3, 2][..]);
            let arguments = ResizeArguments::new(&resize, &[1, 0, 2], shapes, input, output, tables).unwrap();
            assert_eq!((arguments.axes[..2].to_vec(), arguments.taps.shape()), (vec![1, 2], vec![2, 1]));
            resize_twin(&arguments.encode(), &mut heap).unwrap();
            let expected = resize.reference(&[x]).unwrap()[0].to_f64s();
            let expected: Vec<f64> = (0..18).map(|at| expected[(at / 2 % 3 * 3 + at / 6) * 2 + at % 2]).collect();
            let got = heap.tensor(output.address, DType::F32, &[18]).to_f64s();
            assert!(close(&got, &expected, 1e-6), "{got:?} {expected:?}");
        }
    }
}
