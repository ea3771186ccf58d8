//! A product whose sums are split, and the normalisation of its result: the launch that normalises adds the parts up itself.

use super::contraction::{Product, is_split};
use super::{Binding, Lowering, Traits, alignment};
use crate::error::{Result, fail};
use crate::kernels::entry::{Chain, NormArguments, Operand};
use crate::kernels::{Kernel, Map, MatMul, Norm};
use crate::lower::uniform::absorb_constants;
use crate::plan::{Plan, Step, TensorId, View};

/// For every step, whether it is a product that is lowered together with the next step, which normalises its result.
pub fn pairs(plan: &Plan, traits: &Traits) -> Vec<bool> {
    let joint = |index: usize| {
        let (step, next) = (&plan.steps[index], plan.steps.get(index + 1)?);
        let (Kernel::MatMul(product), Kernel::Norm(norm)) = (&step.kernel, &next.kernel) else { return None };
        fits(plan, traits, (product, step), (norm, next)).then_some(())
    };
    (0..plan.steps.len()).map(|index| joint(index).is_some()).collect()
}

fn fits(plan: &Plan, traits: &Traits, (product, step): (&MatMul, &Step), (norm, next): (&Norm, &Step)) -> bool {
    let (a, result) = (&step.inputs[0], &step.outputs[0]);
    let rank = result.rank();
    let extents = [result.shape[rank - 2], result.shape[rank - 1], a.shape[rank - 1]];
    let batch = result.shape[..rank - 2].iter().product();
    // The rows of both are the same, in however many axes.
    let rows = &next.inputs[0];
    let alike = (rows.tensor, rows.offset, rows.count()) == (result.tensor, result.offset, result.count())
        && rows.shape.last() == result.shape.last()
        && rows.is_dense()
        && result.is_dense();
    norm.axes == 1
        && alike
        && next.inputs[1..].iter().all(|view| view.tensor != result.tensor)
        && result.count() > 0
        && extents[1] <= NormArguments::PROLOGUE_MAX
        && plan.tensor(a.tensor).ty.dtype.is_float()
        && chain_of(plan, product, step, &rows.shape).is_some()
        && is_split(traits, extents, batch, plan.tensor(a.tensor).ty.dtype)
}

/// What is done with the sums, and its operands seen with the axes of `shape`.
fn chain_of(plan: &Plan, product: &MatMul, step: &Step, shape: &[usize]) -> Option<(Chain, Vec<View>)> {
    let Some(map) = &product.epilogue else { return Some((Chain::empty(), Vec::new())) };
    let (map, left): (Map, Vec<usize>) = absorb_constants(map, 1, &step.inputs[2..], |view| plan.constant(view));
    let (chain, used) = Chain::of(&map, 0)?;
    let views = used.into_iter().map(|index| step.inputs[2 + left[index - 1]].reshape(shape));
    Some((chain, views.collect::<Option<Vec<View>>>()?))
}

impl Lowering<'_> {
    /// The two steps of a pair, as [`pairs`] found it.
    pub(super) fn product_and_norm(&mut self, step: &Step, next: &Step) -> Result<()> {
        let (Kernel::MatMul(product), Kernel::Norm(norm)) = (&step.kernel, &next.kernel) else {
            return Err(fail!(Internal, "a pair of {} and {}", step.kernel.name(), next.kernel.name()));
        };
        let shape = &next.inputs[0].shape;
        let chain = chain_of(self.plan, product, step, shape);
        let (mut chain, views) = chain.ok_or_else(|| fail!(Internal, "the epilogue of a pair is no chain"))?;
        let (a, b) = (self.operand(&step.inputs[0])?, self.operand(&step.inputs[1])?);
        let c = self.operand(&step.outputs[0])?;
        let arithmetic = self.arithmetic(a.dtype)?;
        let bare = Product { alpha: 1.0, a, b, c, epilogue: None };
        let split = self.sums(arithmetic, &bare, Chain::empty(), &[], 2)?;
        let split = split.ok_or_else(|| fail!(Internal, "the sums of a pair are not split"))?;
        let mut binding = Binding::default();
        let mut operands = self.operands(&views)?;
        for (index, operand) in operands.iter().enumerate() {
            chain = chain.with(index, binding.strided(operand)?);
        }
        let (scale, bias) = (self.operand(&next.inputs[1])?, self.operand(&next.inputs[2])?);
        let output = self.operand(&next.outputs[0])?;
        let bound = [&scale, &bias, &output].map(|operand| binding.strided(operand));
        let [scale_at, bias_at, to] = bound;
        let mut arguments = NormArguments::new(norm, &output.shape, Operand::none(), scale_at?, bias_at?, to?)?;
        (arguments.splits, arguments.alpha, arguments.chain) = (split.arguments.splits, product.alpha, chain);
        arguments.partials = binding.memory(&split.partials);
        operands.extend([scale, bias, output]);
        if self.is_needed(step.outputs[0].tensor) {
            let sum = self.operand(&next.inputs[0])?;
            arguments.sum = binding.strided(&sum)?;
            operands.push(sum);
        }
        let (entry, geometry) = arguments.launch(alignment(&operands));
        self.launch(entry, &arguments, binding, geometry)
    }

    /// Whether a tensor is read by more than one step, or delivered.
    fn is_needed(&self, tensor: TensorId) -> bool {
        let readers = self.plan.steps.iter().flat_map(|step| &step.inputs).filter(|view| view.tensor == tensor);
        readers.count() > 1 || self.plan.outputs.contains(&tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, TRAITS, check_plan};
    use super::super::{Location, lower};
    use super::*;
    use crate::ir::{DType, Tensor};
    use crate::kernels::{Binary, NormKind, Unary};
    use crate::lower::Precision;
    use crate::plan::{Bucket, Builder, Origin};
    use std::collections::HashSet;

    /// `relu(norm(x W + relu(residual)))`; with `kept`, the sum is delivered too.
    fn plan(random: &mut Random, kept: bool) -> (Plan, Vec<Tensor>) {
        let inputs = vec![random.floats(&[2, 4, 1100]), random.floats(&[2, 4, 72])];
        let shapes = inputs.iter().map(|input| input.shape().to_vec()).collect();
        let mut builder = Builder::new(Bucket { shapes, values: vec![None; 2] });
        let views: Vec<View> = inputs
            .iter()
            .enumerate()
            .map(|(index, input)| {
                let view = builder.tensor(input.ty(), Origin::Input(index));
                builder.plan.inputs.push(view.tensor);
                view
            })
            .collect();
        let relu = |builder: &mut Builder, view: &View| {
            builder.emit1(Map::unary(Unary::Relu, DType::F32), std::slice::from_ref(view)).unwrap()
        };
        let residual = relu(&mut builder, &views[1]);
        let weight = builder.constant(random.floats(&[1100, 72]));
        let weight = weight.broadcast(&[2, 1100, 72]).unwrap();
        let product = MatMul { alpha: 0.05, epilogue: Some(Map::binary(Binary::Add, DType::F32)) };
        let sum = builder.emit1(product, &[views[0].clone(), weight, residual]).unwrap();
        let wide = |builder: &mut Builder, tensor: Tensor| builder.constant(tensor).broadcast(&[8, 72]).unwrap();
        let (scale, bias) = (random.floats(&[72]), random.floats(&[72]));
        let operands = [sum.reshape(&[8, 72]).unwrap(), wide(&mut builder, scale), wide(&mut builder, bias)];
        let normal = builder.emit1(Norm { kind: NormKind::Layer, axes: 1, epsilon: 1e-5 }, &operands).unwrap();
        let result = relu(&mut builder, &normal);
        builder.plan.outputs = if kept { vec![result.tensor, sum.tensor] } else { vec![result.tensor] };
        (builder.plan, inputs)
    }

    #[test]
    fn split_sums_are_normalised_where_they_are_added_up() {
        let mut random = Random::new(1);
        for kept in [false, true] {
            let (plan, inputs) = plan(&mut random, kept);
            check_plan(&plan, &inputs, 1e-4);
            let program = lower(&plan, Precision::Fp32, &TRAITS).unwrap();
            let names: Vec<&str> = program.launches.iter().map(|launch| launch.entry.name).collect();
            assert_eq!(names, ["map_chain", "matmul_f32_32x64_nn", "normalize_warps", "map_chain"]);
            // The residual is read while the result is written.
            let places: Vec<&Location> = program.launches[2].operands.iter().collect();
            assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len(), "{places:?}");
        }
    }

    #[test]
    fn what_is_not_split_or_read_otherwise_is_no_pair() {
        let mut random = Random::new(2);
        let (plan, _) = plan(&mut random, false);
        let found = |plan: &Plan| pairs(plan, &TRAITS).iter().filter(|pair| **pair).count();
        assert_eq!(found(&plan), 1);
        assert_eq!(pairs(&plan, &Traits { multiprocessors: 1, ..TRAITS }), [false; 4]);
        let mut apart = plan.clone();
        apart.steps[2].inputs[0] = apart.steps[1].outputs[0].swap(0, 1);
        assert_eq!(found(&apart), 0);
        let mut exponential = plan;
        if let Kernel::MatMul(product) = &mut exponential.steps[1].kernel {
            // The square of a square is no chain, which keeps one value, not two.
            let square = |of| crate::kernels::Instr::Binary(Binary::Mul, of, of);
            let body = vec![crate::kernels::Instr::Input(0), square(0), square(1)];
            product.epilogue = Some(Map { inputs: vec![DType::F32; 2], body, output: DType::F32 });
        }
        assert_eq!(found(&exponential), 0);
    }
}
