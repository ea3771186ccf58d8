//! The same kernel on the same views twice -> once; the same constant twice -> once. The dynamo exporter repeats whole
//! subexpressions, masks above all, in every layer.

use super::Draft;
use crate::error::Result;
use crate::plan::{Origin, Step, TensorId, View};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::hash::{Hash, Hasher};

/// Constants up to this size are compared by content, larger ones by address: a shared initializer has one.
const COMPARED_BYTES_MAX: usize = 1 << 16;

/// Numbers values in program order; a step equal to an earlier one is dropped and its readers read the earlier result.
pub fn run(draft: &mut Draft) -> Result<()> {
    let mut stand_in: Vec<TensorId> = draft.tensors().collect();
    merge_constants(draft, &mut stand_in);
    let mut seen: HashMap<u64, Vec<usize>> = HashMap::new();
    for slot in 0..draft.len() {
        let Some(step) = draft.step(slot) else { continue };
        let mut renamed = step.clone();
        renamed.inputs.iter_mut().for_each(|view| view.tensor = stand_in[view.tensor.0 as usize]);
        if renamed.inputs != step.inputs {
            draft.replace(slot, renamed);
        }
        if !is_value(draft, slot) {
            continue;
        }
        let Some(step) = draft.step(slot) else { continue };
        let candidates = seen.entry(hash(step)).or_default();
        let twin =
            candidates.iter().copied().find(|&other| draft.step(other).is_some_and(|other| same(draft, step, other)));
        match twin.filter(|_| step.outputs.iter().all(|view| !draft.is_delivered(view.tensor))) {
            Some(twin) => {
                let earlier = draft.step(twin).map_or(&[][..], |twin| &twin.outputs);
                for (view, earlier) in step.outputs.iter().zip(earlier) {
                    stand_in[view.tensor.0 as usize] = earlier.tensor;
                }
                draft.remove(slot);
            }
            None if twin.is_none() => candidates.push(slot),
            None => {}
        }
    }
    Ok(())
}

fn merge_constants(draft: &Draft, stand_in: &mut [TensorId]) {
    let mut seen: HashMap<(bool, &[u8], _), TensorId> = HashMap::new();
    let mut large = HashMap::new();
    for id in draft.tensors() {
        let def = draft.tensor(id);
        let Origin::Constant(tensor) = &def.origin else { continue };
        let data = tensor.data();
        let first = if data.len() <= COMPARED_BYTES_MAX {
            *seen.entry((true, &data[..], &def.ty)).or_insert(id)
        } else {
            *large.entry((data.as_ptr(), data.len(), &def.ty)).or_insert(id)
        };
        stand_in[id.0 as usize] = first;
    }
}

/// Whether each result is the whole of a tensor that nothing else writes, computed from operands that never change again.
fn is_value(draft: &Draft, slot: usize) -> bool {
    let Some(step) = draft.step(slot) else { return false };
    draft.inputs_settled(slot) && step.outputs.iter().all(|view| draft.producer(view.tensor) == Some(slot))
}

fn same(draft: &Draft, a: &Step, b: &Step) -> bool {
    let same_layout =
        |(a, b): (&View, &View)| a.strides == b.strides && draft.tensor(a.tensor).ty == draft.tensor(b.tensor).ty;
    a.kernel == b.kernel
        && a.inputs == b.inputs
        && a.outputs.len() == b.outputs.len()
        && a.outputs.iter().zip(&b.outputs).all(same_layout)
}

fn hash(step: &Step) -> u64 {
    struct Digest(DefaultHasher);
    impl Write for Digest {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut digest = Digest(DefaultHasher::new());
    // Kernels hold floats and have no `Hash`; their `Debug` form says all that their equality compares. It cannot fail.
    let _ = write!(digest, "{:?}", step.kernel);
    step.inputs.hash(&mut digest.0);
    digest.0.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{DType, Tensor};
    use crate::kernels::{Binary, Map, Unary};
    use crate::plan::passes::trial::{Trial, kernels};

    #[test]
    fn equal_chains_are_computed_once() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3]);
        let mut branch = |value: f32| {
            let scale = trial.builder.constant(Tensor::from_slice(&[3], &[value, 2.0, 3.0]));
            let scaled = trial.builder.binary(Binary::Mul, &x, &scale).unwrap();
            trial.emit(Map::unary(Unary::Exp, DType::F32), &[&scaled])
        };
        let (a, b, c) = (branch(1.0), branch(1.0), branch(1.5));
        let sum = trial.builder.binary(Binary::Add, &a, &b).unwrap();
        let sum = trial.builder.binary(Binary::Add, &sum, &c).unwrap();
        trial.deliver(&sum);
        let plan = trial.check(run);
        assert_eq!(kernels(&plan).len(), 6);
        assert_eq!(plan.steps[4].inputs[0], plan.steps[4].inputs[1]);
    }

    #[test]
    fn a_model_output_is_computed_even_if_it_equals_another() {
        let mut trial = Trial::empty();
        let x = trial.input(&[4]);
        for _ in 0..2 {
            let y = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&x]);
            trial.deliver(&y);
        }
        assert_eq!(trial.check(run).steps.len(), 2);
    }

    #[test]
    fn a_tensor_read_before_and_after_it_changes_gives_two_values() {
        let mut trial = Trial::empty();
        let x = trial.input(&[4]);
        let room = trial.room(&[4]);
        trial.write(Map::copy(DType::F32), &[&x], &room);
        let before = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&room]);
        trial.write(Map::unary(Unary::Neg, DType::F32), &[&x], &room);
        let after = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&room]);
        let difference = trial.builder.binary(Binary::Sub, &before, &after).unwrap();
        trial.deliver(&difference);
        assert_eq!(trial.check(run).steps.len(), 5);
    }
}
