//! Attention: one launch where the scores of a head fit the registers as they come, else two products with a softmax between them.

use super::contraction::Product;
use super::{Binding, Lowering, alignment};
use crate::error::Result;
use crate::ir::DType;
use crate::kernels::entry::{AttentionArguments, Chain, Extents};
use crate::kernels::{Attention, Softmax};
use crate::lower::operand::Operand;
use crate::plan::Step;

/// Keys up to which a block goes through all of them though there are not enough blocks to fill the GPU.
const SERIAL_KEYS_MAX: usize = 512;

impl Lowering<'_> {
    pub(super) fn attention(&mut self, attention: &Attention, step: &Step) -> Result<()> {
        let inputs = self.operands(&step.inputs)?;
        let output = self.operand(&step.outputs[0])?;
        if !self.attend(attention, &inputs, &output)? {
            self.attend_in_steps(attention, &inputs, output)?;
        }
        Ok(())
    }

    /// Attention in one launch, if its kernels take these operands.
    fn attend(&mut self, attention: &Attention, inputs: &[Operand], output: &Operand) -> Result<bool> {
        let [q, k, v] = [0, 1, 2].map(|index| &inputs[index]);
        let rank = q.shape.len();
        let extents = Extents {
            queries: q.shape[rank - 2],
            keys: k.shape[rank - 2],
            depth: q.shape[rank - 1],
            width: v.shape[rank - 1],
        };
        let arithmetic = self.arithmetic(q.dtype)?;
        let chain = match &attention.score {
            None => Some((Chain::empty(), Vec::new())),
            Some(map) => Chain::of(map, 0),
        };
        let Some((mut chain, used)) = chain.filter(|(chain, _)| AttentionArguments::takes(chain)) else {
            return Ok(false);
        };
        let mut binding = Binding::default();
        let operands = [binding.matrix(q)?, binding.matrix(k)?, binding.matrix(v)?, binding.matrix(output)?];
        for (index, operand) in used.into_iter().enumerate() {
            chain = chain.with(index, binding.matrix(&inputs[2 + operand])?);
        }
        let batch = &q.shape[..rank - 2];
        let mut arguments = AttentionArguments::new(attention, batch, extents, operands, alignment([k, v]))?;
        arguments.chain = chain;
        let multiprocessors = self.traits.multiprocessors as usize;
        let Some((entry, geometry)) = arguments.launch(arithmetic, multiprocessors) else { return Ok(false) };
        let fills = geometry.grid[0] as usize >= multiprocessors;
        if extents.keys == 0 || (extents.keys > SERIAL_KEYS_MAX && !fills) {
            return Ok(false);
        }
        self.launch(entry, &arguments, binding, geometry)?;
        Ok(true)
    }

    fn attend_in_steps(&mut self, attention: &Attention, inputs: &[Operand], output: Operand) -> Result<()> {
        let [q, k, v] = [0, 1, 2].map(|index| inputs[index].clone());
        let rank = q.shape.len();
        let mut transposed = k.clone();
        transposed.shape.swap(rank - 2, rank - 1);
        transposed.strides.swap(rank - 2, rank - 1);
        let shape = [&q.shape[..rank - 1], &k.shape[rank - 2..rank - 1]].concat();
        let scores = self.scratch(DType::F32, &shape)?;
        let epilogue = attention.score.as_ref().map(|map| (map, inputs[3..].to_vec()));
        let product = Product { alpha: attention.scale, a: q, b: transposed, c: scores.clone(), epilogue };
        self.multiply(product)?;
        let weights = self.scratch(v.dtype, &shape)?;
        self.softmax_rows(&Softmax { log: false }, attention.guard_empty_rows, &scores, &weights)?;
        self.multiply(Product { alpha: 1.0, a: weights, b: v, c: output, epilogue: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::lower;
    use super::super::testing::{Random, TRAITS, check, check_plan, check_views, plan_of};
    use super::*;
    use crate::ir::Tensor;
    use crate::kernels::{Binary, Instr, Map, Unary};
    use crate::lower::Precision;
    use crate::plan::View;

    fn names(kernel: &Attention, operands: &[Tensor], precision: Precision) -> Vec<&'static str> {
        let (plan, _) = plan_of(kernel.clone(), operands, &[], |_, view| view);
        lower(&plan, precision, &TRAITS).unwrap().launches.iter().map(|launch| launch.entry.name).collect()
    }

    fn operands(random: &mut Random, [batch, queries, keys, depth, width]: [usize; 5]) -> Vec<Tensor> {
        let shapes = [[batch, queries, depth], [batch, keys, depth], [batch, keys, width]];
        shapes.map(|shape| random.floats(&shape)).to_vec()
    }

    #[test]
    fn one_launch_where_tensor_cores_multiply() {
        let mut random = Random::new(1);
        let kernel = Attention { scale: 0.25, score: None, guard_empty_rows: false };
        for (shape, precision, expected) in [
            ([2, 5, 7, 16, 16], Precision::Tf32, "attention_tf32_32_few"),
            ([2, 5, 7, 64, 40], Precision::Fp16, "attention_f16_64_few"),
            ([2, 5, 7, 100, 128], Precision::Bf16, "attention_bf16_128_few"),
            ([300, 3, 4, 8, 8], Precision::Fp16, "attention_f16_32"),
        ] {
            let operands = operands(&mut random, shape);
            let names = names(&kernel, &operands, precision);
            assert_eq!(names.iter().filter(|name| name.starts_with("attention")).collect::<Vec<_>>(), [&expected]);
            assert!(!names.contains(&"softmax_warp"));
            check(kernel.clone(), &operands, 1e-4);
        }
        for (shape, precision) in [
            ([2, 5, 7, 16, 16], Precision::Fp32),
            ([2, 5, 7, 16, 129], Precision::Fp16),
            ([2, 5, 513, 16, 16], Precision::Fp16),
        ] {
            let names = names(&kernel, &operands(&mut random, shape), precision);
            assert!(names.contains(&"softmax_warp"), "{shape:?}: {names:?}");
        }
        check(kernel, &operands(&mut random, [2, 3, 0, 4, 5]), 1e-6);
    }

    #[test]
    fn masks_are_applied_to_the_scores_and_empty_rows_guarded() {
        let mut random = Random::new(2);
        let shape = [2, 6, 6, 8, 8];
        let add = Map::binary(Binary::Add, DType::F32);
        let minus_infinity = crate::ir::Scalar::Float(f64::NEG_INFINITY);
        let body =
            vec![Instr::Input(0), Instr::Input(1), Instr::Const(DType::F32, minus_infinity), Instr::Select(1, 0, 2)];
        let select = Map { inputs: vec![DType::F32, DType::Bool], body, output: DType::F32 };
        // Additive of one row for all queries; then causal, in which the first row of the second batch sees nothing.
        let additive = random.floats(&[2, 1, 6]);
        let seen: Vec<bool> = (0..72).map(|at| at % 6 <= at / 6 % 6 && at / 6 != 6).collect();
        let causal = Tensor::from_slice(&[2, 6, 6], &seen);
        for (score, mask) in [(add, additive), (select, causal)] {
            let kernel = Attention { scale: 0.5, score: Some(score), guard_empty_rows: true };
            let inputs = [operands(&mut random, shape), vec![mask]].concat();
            let wide = |index, view: View| if index == 3 { view.broadcast(&[2, 6, 6]).unwrap() } else { view };
            check_views(kernel.clone(), &inputs, 1e-4, wide);
            let (plan, inputs) = plan_of(kernel, &inputs, &[], wide);
            let program = lower(&plan, Precision::Tf32, &TRAITS).unwrap();
            assert_eq!(program.launches.len(), 1);
            check_plan(&plan, &inputs, 1e-4);
        }
        let squashed =
            Attention { scale: 1.0, score: Some(Map::unary(Unary::Tanh, DType::F32)), guard_empty_rows: false };
        let inputs = operands(&mut random, shape);
        assert_eq!(names(&squashed, &inputs, Precision::Tf32).len(), 3, "a function of scores that no mask is");
        check(squashed, &inputs, 1e-4);
    }

    #[test]
    fn heads_lie_beside_each_other() {
        // [b, s, h d] seen as [b, h, s, d].
        let mut random = Random::new(3);
        let kernel = Attention { scale: 0.3, score: None, guard_empty_rows: false };
        let inputs = [7, 9, 9].map(|rows| random.floats(&[2, rows, 24])).to_vec();
        let heads = |_, view: View| view.reshape(&[2, view.shape[1], 3, 8]).unwrap().swap(1, 2);
        check_views(kernel.clone(), &inputs, 1e-4, heads);
        let (plan, _) = plan_of(kernel, &inputs, &[], heads);
        assert_eq!(lower(&plan, Precision::Tf32, &TRAITS).unwrap().launches.len(), 1, "nothing is copied");
    }
}
