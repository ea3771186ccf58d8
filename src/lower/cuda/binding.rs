//! The operands of a launch in the making, none of which reaches further than kernels count.
//!
//! Kernels add up the steps to an element in 32 bits with a sign (kernels/walk.cuh), for positions in 64 bits would cost more than what
//! they do there. A position that wraps lies outside the tensor, and a GPU that reads there is lost to the whole process. So every operand
//! goes through here, by the way in which its kernel counts.

use super::Location;
use crate::error::{Error, Result, Status, ensure, fail};
use crate::kernels::entry::{self, Address, spatial_operand};
use crate::lower::operand::Operand;
use crate::plan::{Plan, Step};

/// The greatest distance, in elements, from an operand's first element that kernels count.
const REACH_MAX: usize = i32::MAX as usize;

/// The operands of a launch in the making.
#[derive(Clone, Default)]
pub(super) struct Binding {
    locations: Vec<Location>,
}

/// How far the elements of such axes lie from the first one, in elements.
fn reach(shape: &[usize], strides: &[isize]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    let (mut behind, mut ahead) = (0usize, 0usize);
    for (&extent, stride) in shape.iter().zip(strides) {
        let side = if *stride < 0 { &mut behind } else { &mut ahead };
        *side = side.saturating_add((extent - 1).saturating_mul(stride.unsigned_abs()));
    }
    behind.max(ahead)
}

impl Binding {
    fn address(&mut self, operand: &Operand) -> Address {
        self.locations.push(Location { region: operand.region, byte_offset: operand.byte_offset });
        Address(self.locations.len() as u64)
    }

    /// The operand's address, if no element along its first `axes` axes is too far for kernels that count `lanes` at a time.
    fn within(&mut self, operand: &Operand, axes: usize, lanes: usize) -> Result<Address> {
        let Operand { shape, strides, .. } = operand;
        ensure!(shape.len() == strides.len(), Internal, "an operand of shape {shape:?} has the steps {strides:?}");
        // Of an operand without elements nothing is walked.
        let reach = if shape.contains(&0) { 0 } else { reach(&shape[..axes], &strides[..axes]) / lanes };
        ensure!(
            reach <= REACH_MAX,
            TooLarge,
            "an operand of shape {shape:?} with the steps {strides:?} reaches element {reach}; the GPU's kernels count to {REACH_MAX}"
        );
        Ok(self.address(operand))
    }

    /// An operand with its strides, whose elements kernels count along all axes.
    pub(super) fn strided(&mut self, operand: &Operand) -> Result<entry::Operand> {
        self.together(operand, 1)
    }

    /// The same where so many neighbours are moved, and counted, as one.
    pub(super) fn together(&mut self, operand: &Operand, lanes: usize) -> Result<entry::Operand> {
        entry::Operand::new(self.within(operand, operand.shape.len(), lanes)?, operand.dtype, &operand.strides)
    }

    /// An operand whose last two axes are those of a matrix. Kernels count from matrix to matrix, and go on in 64 bits.
    pub(super) fn matrix(&mut self, operand: &Operand) -> Result<entry::Operand> {
        let batch = operand.shape.len().saturating_sub(2);
        entry::Operand::matrix(self.within(operand, batch, 1)?, operand.dtype, &operand.strides)
    }

    /// An image, `[N, C, spatial..]`, of kernels that count in 64 bits (kernels/slide.cuh).
    pub(super) fn image(&mut self, operand: &Operand) -> Result<entry::Operand> {
        spatial_operand(self.address(operand), operand.dtype, &operand.strides)
    }

    /// The address alone: of tables and working memory, whose dense elements kernels count in 64 bits.
    pub(super) fn memory(&mut self, operand: &Operand) -> Address {
        self.address(operand)
    }

    /// What the addresses stand for.
    pub(super) fn into_locations(self) -> Vec<Location> {
        self.locations
    }
}

/// An operand that is nowhere: to find out how its elements would be moved.
pub(super) fn unbound(operand: &Operand) -> Result<entry::Operand> {
    entry::Operand::new(Address::NONE, operand.dtype, &operand.strides)
}

/// The error of a step with those of its tensors in front of which it sees more than kernels count.
pub(super) fn named(error: Error, plan: &Plan, steps: &[&Step]) -> Error {
    if error.status != Status::TooLarge {
        return error;
    }
    let views = steps.iter().flat_map(|step| step.inputs.iter().chain(&step.outputs));
    let far = views.filter(|view| reach(&view.shape, &view.strides) > REACH_MAX);
    let mut names: Vec<&str> = far.map(|view| plan.tensor(view.tensor).name.as_str()).collect();
    names.dedup();
    if names.is_empty() { error } else { error.within(format!("tensor {}", names.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TRAITS;
    use super::super::{Program, lower};
    use super::*;
    use crate::ir::{DType, TensorType};
    use crate::kernels::{Attention, Gather, Kernel, Map, MatMul};
    use crate::lower::Precision;
    use crate::lower::operand::Region;
    use crate::plan::{Bucket, Builder, Origin, View};

    /// The program of one step over `view`s of inputs, of which no element ever exists.
    fn lowered(
        kernel: impl Into<Kernel>,
        inputs: &[(DType, &[usize])],
        view: impl Fn(usize, View) -> View,
    ) -> Result<Program> {
        let shapes = inputs.iter().map(|(_, shape)| shape.to_vec()).collect();
        let mut builder = Builder::new(Bucket { shapes, values: vec![None; inputs.len()] });
        let mut views = Vec::new();
        for (index, (dtype, shape)) in inputs.iter().enumerate() {
            let whole = builder.tensor(TensorType::new(*dtype, shape.to_vec()).unwrap(), Origin::Input(index));
            builder.plan.inputs.push(whole.tensor);
            builder.plan.tensors[whole.tensor.0 as usize].name = format!("x{index}");
            views.push(view(index, whole));
        }
        let results = builder.emit(kernel, &views).unwrap();
        builder.plan.outputs = results.iter().map(|result| result.tensor).collect();
        builder.plan.steps[0].node = "node".into();
        lower(&builder.plan, Precision::Fp16, &TRAITS)
    }

    /// Asserts that a program is refused because of a tensor.
    fn refused(program: Result<Program>, tensor: &str) {
        let error = program.map(|program| program.launches).expect_err("positions that wrap");
        assert_eq!(error.status, Status::TooLarge, "{error}");
        let (start, end) = (format!("node: tensor {tensor}: "), "count to 2147483647 (TooLarge)");
        assert!(error.to_string().starts_with(&start) && error.to_string().ends_with(end), "{error}");
    }

    #[test]
    fn a_slice_of_what_is_larger_than_kernels_count() {
        let cast = |rows: usize, row: usize, columns: usize| {
            lowered(Map::cast(DType::U8, DType::F32), &[(DType::U8, &[rows, row])], |_, view| {
                view.slice(1, 0, columns, 1)
            })
        };
        refused(cast(40_000, 60_000, 100), "x0");
        assert!(cast(32_768, 65_536, 100).is_ok(), "2^31 elements, of which the last is counted");
        refused(cast(32_769, 65_536, 1), "x0");
        assert!(cast(1, i32::MAX as usize, i32::MAX as usize).is_ok());
        let copy = |columns: usize, step: isize| {
            lowered(Map::copy(DType::U8), &[(DType::U8, &[40_000, 60_000])], |_, view| {
                let start = if step < 0 { 39_999 } else { 0 };
                view.slice(0, start, 40_000, step).slice(1, 0, columns, 1)
            })
        };
        refused(copy(99, 1), "x0");
        refused(copy(99, -1), "x0");
        assert!(copy(100, 1).is_ok(), "four neighbours are counted as one");
    }

    #[test]
    fn parts_of_a_result_that_is_larger_than_kernels_count() {
        // As Concat writes its parts.
        let part = |columns: usize| {
            let mut builder = Builder::new(Bucket { shapes: vec![vec![40_000, 100]], values: vec![None] });
            let input = builder.tensor(TensorType::new(DType::U8, vec![40_000, 100]).unwrap(), Origin::Input(0));
            builder.plan.inputs.push(input.tensor);
            let whole = TensorType::new(DType::U8, vec![40_000, columns]).unwrap();
            let result = builder.tensor(whole, Origin::Steps);
            builder.plan.tensors[result.tensor.0 as usize].name = "y".into();
            let outputs = vec![result.slice(1, 51, 100, 1)];
            let kernel = Map::copy(DType::U8).into();
            builder.plan.steps.push(Step { kernel, inputs: vec![input], outputs, node: "node".into() });
            builder.plan.outputs = vec![result.tensor];
            lower(&builder.plan, Precision::Fp32, &TRAITS)
        };
        refused(part(60_000), "y");
        assert!(part(50_000).is_ok());
    }

    #[test]
    fn heads_and_matrices_that_begin_too_far() {
        let attention = |batch: usize| {
            let kernel = Attention { scale: 1.0, score: None, guard_empty_rows: false };
            let (q, k): (&[usize], &[usize]) = (&[batch, 32, 1, 128], &[batch, 32, 8192, 128]);
            lowered(kernel, &[(DType::F16, q), (DType::F16, k), (DType::F16, k)], |_, view| view)
        };
        refused(attention(72), "x1, x2");
        assert!(attention(64).is_ok(), "the last head begins within reach");
        let product = |batch: usize| {
            let kernel = MatMul { alpha: 1.0, epilogue: None };
            let (a, b): (&[usize], &[usize]) = (&[batch, 1024, 1024], &[batch, 1024, 8]);
            lowered(kernel, &[(DType::F16, a), (DType::F16, b)], |_, view| view)
        };
        refused(product(4096), "x0");
        assert!(product(2048).is_ok(), "the last matrix begins within reach");
        // Rows and columns of one matrix are counted in 64 bits.
        let kernel = MatMul { alpha: 1.0, epilogue: None };
        let (a, b): (&[usize], &[usize]) = (&[1, 60_000], &[60_000, 40_000]);
        assert!(lowered(kernel, &[(DType::F16, a), (DType::F16, b)], |_, view| view).is_ok());
    }

    #[test]
    fn a_table_of_rows_may_be_larger_than_kernels_count() {
        let gather = |axis: usize, data: &[usize]| {
            lowered(Gather { axis }, &[(DType::F16, data), (DType::I64, &[7])], |_, view| view)
        };
        assert!(gather(0, &[40_000_000, 64]).is_ok(), "an index is multiplied in 64 bits");
        refused(gather(1, &[40_000, 60_000]), "x0");
    }

    #[test]
    fn reach_is_that_of_the_furthest_element() {
        let mut dice = 1u64;
        let mut roll = |sides: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) as usize % sides
        };
        for _ in 0..2000 {
            let rank = roll(4);
            let shape: Vec<usize> = (0..rank).map(|_| roll(4)).collect();
            let strides: Vec<isize> = (0..rank).map(|_| roll(41) as isize - 20).collect();
            let mut positions = vec![0isize];
            for (&extent, &stride) in shape.iter().zip(&strides) {
                positions = positions
                    .iter()
                    .flat_map(|at| (0..extent as isize).map(move |index| at + index * stride))
                    .collect();
            }
            let furthest = positions.iter().map(|position| position.unsigned_abs()).max().unwrap_or(0);
            assert_eq!(reach(&shape, &strides), furthest, "{shape:?} {strides:?}");
        }
        assert_eq!(reach(&[usize::MAX, 3], &[isize::MAX, 5]), usize::MAX);
    }

    #[test]
    fn steps_belong_to_axes() {
        let (region, dtype) = (Region::Arena, DType::F32);
        let operand = Operand { region, byte_offset: 0, dtype, shape: vec![2, 3], strides: vec![1] };
        assert_eq!(Binding::default().strided(&operand).unwrap_err().status, Status::Internal);
    }
}
