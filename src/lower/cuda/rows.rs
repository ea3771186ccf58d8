//! Softmax, normalisation, reductions.

use super::{Binding, Lowering, alignment};
use crate::error::Result;
use crate::kernels::entry::{NormArguments, ReduceArguments, SoftmaxArguments};
use crate::kernels::{Norm, Reduce, Softmax};
use crate::lower::operand::Operand;
use crate::plan::Step;

impl Lowering<'_> {
    pub(super) fn softmax(&mut self, softmax: &Softmax, step: &Step) -> Result<()> {
        let (input, output) = (self.operand(&step.inputs[0])?, self.operand(&step.outputs[0])?);
        self.softmax_rows(softmax, false, &input, &output)
    }

    /// The softmax of the rows of an operand; with `guard`, rows that are -inf throughout give zeros.
    pub(super) fn softmax_rows(
        &mut self,
        softmax: &Softmax,
        guard: bool,
        input: &Operand,
        output: &Operand,
    ) -> Result<()> {
        let mut binding = Binding::default();
        let (from, to) = (binding.strided(input)?, binding.strided(output)?);
        let arguments = SoftmaxArguments::new(softmax, guard, &output.shape, from, to)?;
        self.launch(arguments.entry(), &arguments, binding, arguments.launch())
    }

    pub(super) fn norm(&mut self, norm: &Norm, step: &Step) -> Result<()> {
        let inputs = self.operands(&step.inputs)?;
        let output = self.operand(&step.outputs[0])?;
        let mut binding = Binding::default();
        let [x, scale, bias] = [0, 1, 2].map(|index| binding.strided(&inputs[index]));
        let arguments = NormArguments::new(norm, &output.shape, x?, scale?, bias?, binding.strided(&output)?)?;
        let (entry, geometry) = arguments.launch(alignment(inputs.iter().chain([&output])));
        self.launch(entry, &arguments, binding, geometry)
    }

    pub(super) fn reduce(&mut self, reduce: &Reduce, step: &Step) -> Result<()> {
        let (mut input, output) = (self.operand(&step.inputs[0])?, self.operand(&step.outputs[0])?);
        let kept: Vec<usize> = (0..input.shape.len()).filter(|axis| !reduce.axes.contains(axis)).collect();
        let order: Vec<usize> = kept.iter().chain(&reduce.axes).copied().collect();
        input.shape = order.iter().map(|&axis| input.shape[axis]).collect();
        input.strides = order.iter().map(|&axis| input.strides[axis]).collect();
        let mut binding = Binding::default();
        let (from, to) = (binding.strided(&input)?, binding.strided(&output)?);
        let arguments = ReduceArguments::new(reduce.op, &input.shape, kept.len(), from, to)?;
        self.launch(arguments.entry(), &arguments, binding, arguments.launch())
    }
}
