//! Maps: copies, chains in registers, interpreted programs.

use super::binding::unbound;
use super::{Binding, Lowering, alignment};
use crate::error::Result;
use crate::ir::Scalar;
use crate::kernels::entry::{Chain, ChainArguments, CopyArguments, MapArguments};
use crate::kernels::{Instr, Map};
use crate::lower::nest;
use crate::lower::operand::Operand;
use crate::lower::uniform::absorb_constants;
use crate::plan::{Step, View};

/// Whether a map moves elements without looking at them.
fn is_copy(map: &Map) -> bool {
    map.body == [Instr::Input(0)] && map.inputs == [map.output]
}

impl Lowering<'_> {
    pub(super) fn map_step(&mut self, map: &Map, step: &Step) -> Result<()> {
        let (map, left) = absorb_constants(map, 0, &step.inputs, |view| self.plan.constant(view));
        let views: Vec<View> = left.iter().map(|&index| step.inputs[index].clone()).collect();
        let inputs = self.operands(&views)?;
        let output = self.operand(&step.outputs[0])?;
        self.map(&map, inputs, output)
    }

    /// One launch that writes zeros.
    pub(super) fn fill(&mut self, output: Operand) -> Result<()> {
        let zero = if output.dtype.is_float() { Scalar::Float(0.0) } else { Scalar::Int(0) };
        let map = Map { inputs: vec![], body: vec![Instr::Const(output.dtype, zero)], output: output.dtype };
        self.map(&map, vec![], output)
    }

    /// One launch that applies a map to operands of the result's shape.
    pub(super) fn map(&mut self, map: &Map, mut inputs: Vec<Operand>, mut output: Operand) -> Result<()> {
        let mut all: Vec<&mut Operand> = inputs.iter_mut().chain([&mut output]).collect();
        nest::simplify(&mut all);
        let shape = output.shape.clone();
        let aligned = alignment(inputs.iter().chain([&output]));
        let mut binding = Binding::default();
        if is_copy(map) {
            let new = |from, to| CopyArguments::new(output.dtype, &shape, from, to, aligned);
            let lanes = new(unbound(&inputs[0])?, unbound(&output)?)?.bytes as usize / output.dtype.bytes();
            let to = binding.together(&output, lanes)?;
            let arguments = new(binding.together(&inputs[0], lanes)?, to)?;
            return self.launch("copy", &arguments, binding, arguments.launch());
        }
        let to = binding.strided(&output)?;
        let chains = (0..inputs.len()).filter(|&index| map.inputs[index].is_float());
        let chain = chains.filter_map(|index| Some((index, Chain::of(map, index)?))).next();
        if let Some((first, (mut chain, operands))) = chain {
            let from = binding.strided(&inputs[first])?;
            for (index, operand) in operands.into_iter().enumerate() {
                chain = chain.with(index, binding.strided(&inputs[operand])?);
            }
            let arguments = ChainArguments::new(chain, &shape, from, to, aligned)?;
            return self.launch("map_chain", &arguments, binding, arguments.launch());
        }
        let from = inputs.iter().map(|input| binding.strided(input)).collect::<Result<Vec<_>>>()?;
        let arguments = MapArguments::new(map, &shape, &from, to, aligned)?;
        self.launch(MapArguments::entry(map)?, &arguments, binding, arguments.launch())
    }
}
