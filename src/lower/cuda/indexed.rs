//! Indexed writes, running sums, the k best: kernels that work along places or lines.

use super::{Binding, Lowering};
use crate::error::Result;
use crate::ir::DType;
use crate::kernels::entry::{CumSumArguments, ScatterArguments, TopKArguments, Tuples};
use crate::kernels::{CumSum, ScatterNd, ScatterOp, TopK};
use crate::lower::operand::Operand;
use crate::plan::Step;

/// The operand with one of its axes at the end.
fn along(operand: &Operand, axis: usize) -> Operand {
    let mut operand = operand.clone();
    let (extent, stride) = (operand.shape.remove(axis), operand.strides.remove(axis));
    operand.shape.push(extent);
    operand.strides.push(stride);
    operand
}

impl Lowering<'_> {
    pub(super) fn cumsum(&mut self, kernel: &CumSum, step: &Step) -> Result<()> {
        let input = along(&self.operand(&step.inputs[0])?, kernel.axis);
        let output = along(&self.operand(&step.outputs[0])?, kernel.axis);
        let mut binding = Binding::default();
        let (from, to) = (binding.strided(&input)?, binding.strided(&output)?);
        let arguments = CumSumArguments::new(kernel, &input.shape, from, to)?;
        self.launch(arguments.entry(), &arguments, binding, arguments.launch())
    }

    /// Lines that are long and of which few elements are kept are sorted after their best have been selected.
    pub(super) fn topk(&mut self, kernel: &TopK, step: &Step) -> Result<()> {
        let input = along(&self.operand(&step.inputs[0])?, kernel.axis);
        let mut binding = Binding::default();
        let from = binding.strided(&input)?;
        let mut results = Vec::with_capacity(2);
        for view in &step.outputs {
            let result = along(&self.operand(view)?, kernel.axis);
            results.push(binding.strided(&result)?);
        }
        let mut arguments = TopKArguments::new(kernel, &input.shape, from, [results[0], results[1]])?;
        let candidates = arguments.candidates();
        if candidates > 0 {
            let selected = self.scratch(DType::I32, &[candidates])?;
            arguments.candidates = binding.memory(&selected);
            self.launch("topk_select", &arguments, binding.clone(), arguments.select_launch())?;
        }
        self.launch("topk_rank", &arguments, binding, arguments.rank_launch())
    }

    pub(super) fn scatter(&mut self, kernel: &ScatterNd, step: &Step) -> Result<()> {
        let (data, mut index) = (self.operand(&step.inputs[0])?, self.operand(&step.inputs[1])?);
        let (updates, output) = (self.operand(&step.inputs[2])?, self.operand(&step.outputs[0])?);
        let (depth, index_step) = (index.shape.pop().unwrap_or(0), index.strides.pop().unwrap_or(0));
        let mut binding = Binding::default();
        let operands =
            [binding.strided(&data)?, binding.strided(&index)?, binding.strided(&updates)?, binding.strided(&output)?];
        let tuples = Tuples { shape: &index.shape, depth, step: index_step };
        let mut arguments = ScatterArguments::new(kernel, &data.shape, tuples, operands)?;
        let places = arguments.places();
        let sets = kernel.op == ScatterOp::Set;
        // Marks, then counts; both begin with 0.
        let marks = self.scratch(DType::I32, &[if sets { places } else { 2 * places }])?;
        self.fill(marks.clone())?;
        arguments.marks.address = binding.memory(&marks);
        if !sets {
            let counts = Operand { byte_offset: marks.byte_offset + 4 * places, ..marks };
            arguments.counts = binding.memory(&counts);
            let positions = self.scratch(DType::I32, &[arguments.tuples.count as usize])?;
            arguments.positions = binding.memory(&positions);
        }
        self.launch("scatter_index", &arguments, binding.clone(), arguments.index_launch())?;
        self.launch("scatter_apply", &arguments, binding, arguments.apply_launch())
    }
}

#[cfg(test)]
mod tests {
    use super::super::lower;
    use super::super::testing::{Random, TRAITS, check, check_views, launches, plan_of, run};
    use super::*;
    use crate::ir::Tensor;
    use crate::lower::Precision;

    #[test]
    fn sums_run_along_any_axis_in_either_direction() {
        let mut random = Random::new(1);
        for axis in 0..3 {
            for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
                let kernel = CumSum { axis, exclusive, reverse };
                check(kernel.clone(), &[random.floats(&[3, 50, 4])], 1e-5);
                check_views(kernel.clone(), &[random.floats(&[4, 3, 50])], 1e-5, |_, view| view.permute(&[1, 2, 0]));
                check(kernel, &[random.tensor(DType::I64, &[3, 5, 4], i64::MAX / 4)], 0.0);
            }
        }
        check(CumSum { axis: 0, exclusive: false, reverse: false }, &[random.floats(&[0, 2])], 0.0);
    }

    #[test]
    fn updates_apply_in_order() {
        let mut random = Random::new(2);
        let tuples = Tensor::from_slice(&[2, 3, 2], &[0i64, 1, -1, 2, 0, 1, 2, 0, -3, 1, 2, 2]);
        for op in [ScatterOp::Set, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Max, ScatterOp::Min] {
            for dtype in [DType::F32, DType::I64, DType::U8, DType::F16, DType::BF16] {
                let (data, updates) = (random.tensor(dtype, &[3, 4, 5], 9), random.tensor(dtype, &[2, 3, 5], 9));
                check(ScatterNd { op }, &[data, tuples.clone(), updates], 1e-6);
            }
            let operands = [
                random.floats(&[5, 4, 3]),
                Tensor::from_slice(&[2, 2, 3], &[0i32, 0, -1, 2, 2, 0, 1, 1, 2, 2, 1, 1]),
                random.floats(&[5, 3, 2]),
            ];
            let order = [[2, 1, 0], [1, 2, 0], [2, 1, 0]];
            check_views(ScatterNd { op }, &operands, 1e-6, |index, view| view.permute(&order[index]));
        }
        let flags = [random.tensor(DType::Bool, &[6], 1), Tensor::from_slice(&[2, 1], &[5i64, 5])];
        let [data, tuples] = flags;
        check(ScatterNd { op: ScatterOp::Set }, &[data, tuples, Tensor::from_slice(&[2], &[true, false])], 0.0);
    }

    #[test]
    fn a_tuple_outside_writes_nothing_and_none_at_all_copies() {
        let data = Tensor::from_slice(&[3], &[1.0f32, 2.0, 3.0]);
        for op in [ScatterOp::Set, ScatterOp::Add] {
            for far in [3, -4, i64::MIN, i64::MAX] {
                let inputs = [data.clone(), Tensor::from_slice(&[1, 1], &[far]), Tensor::from_slice(&[1], &[9.0f32])];
                let (plan, inputs) = plan_of(ScatterNd { op }, &inputs, &[], |_, view| view);
                let program = lower(&plan, Precision::Fp32, &TRAITS).unwrap();
                assert_eq!(run(&program, &inputs), std::slice::from_ref(&data));
            }
            let none = Tensor::from_slice::<i64>(&[0, 1], &[]);
            check(ScatterNd { op }, &[data.clone(), none, Tensor::from_slice::<f32>(&[0], &[])], 0.0);
        }
    }

    #[test]
    fn the_best_come_first_and_equals_keep_their_order() {
        let mut random = Random::new(3);
        for (axis, k, largest) in [(0, 1, true), (1, 3, false), (2, 7, true), (1, 0, true), (0, 4, false)] {
            let kernel = TopK { axis, k, largest };
            check(kernel.clone(), &[random.floats(&[4, 5, 7])], 0.0);
            check_views(kernel.clone(), &[random.floats(&[7, 4, 5])], 0.0, |_, view| view.permute(&[1, 2, 0]));
            // Few different values, so that many are equal.
            for dtype in [DType::I64, DType::I32, DType::U8, DType::F16] {
                check(kernel.clone(), &[random.tensor(dtype, &[4, 5, 7], 2)], 0.0);
            }
        }
    }

    #[test]
    fn few_of_a_long_line_are_selected_first() {
        let mut random = Random::new(4);
        let long = random.tensor(DType::I32, &[2, 5000], 900);
        for (k, expected) in [(40, &["topk_select", "topk_rank"][..]), (4000, &["topk_rank"][..])] {
            let kernel = TopK { axis: 1, k, largest: true };
            assert_eq!(launches(kernel.clone(), std::slice::from_ref(&long)), expected);
            check(kernel, std::slice::from_ref(&long), 0.0);
        }
    }

    #[test]
    fn nan_is_above_all_numbers() {
        let x = Tensor::from_slice(&[5], &[1.0f32, f32::NAN, f32::INFINITY, -0.0, 0.0]);
        for largest in [true, false] {
            check(TopK { axis: 0, k: 4, largest }, std::slice::from_ref(&x), 0.0);
        }
    }
}
