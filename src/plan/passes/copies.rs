//! Copy, read through views -> views of the copy's source.
//!
//! A Reshape of a transposed view is a copy (a view cannot show it), but what reads the copy usually splits the axes again.
//! [`View::through`] composes the two; where a batch axis of the reader runs across two axes of the source (keys repeated for
//! grouped queries), the reader's batch axis is split in all its views. The copy goes if every reader can do without.

use super::Draft;
use super::draft::is_copy;
use crate::error::Result;
use crate::kernels::Kernel;
use crate::limits::RANK_MAX;
use crate::plan::{Step, View};

/// Looks through every copy that all its readers can look through.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in 0..draft.len() {
        if let Some(changes) = looked_through(draft, slot) {
            for (reader, step) in changes {
                draft.replace(reader, step);
            }
            draft.prune(slot);
        }
    }
    Ok(())
}

/// The readers of the copy in `slot`, rewritten to read its source.
fn looked_through(draft: &Draft, slot: usize) -> Option<Vec<(usize, Step)>> {
    let step = draft.step(slot).filter(|step| is_copy(step))?;
    let (source, copy) = (&step.inputs[0], &step.outputs[0]);
    if draft.is_delivered(copy.tensor)
        || draft.producer(copy.tensor) != Some(slot)
        || !draft.is_settled(source.tensor, slot)
    {
        return None;
    }
    let source = source.permute(&copy.walk_order(copy.count())?);
    draft.readers(copy.tensor).map(|reader| Some((reader, redirect(draft.step(reader)?, copy, &source)?))).collect()
}

/// The step with each operand that reads `copy`'s tensor, a dense copy of `source`, reading `source` instead.
pub fn redirect(step: &Step, copy: &View, source: &View) -> Option<Step> {
    let mut step = step.clone();
    for operand in 0..step.inputs.len() {
        while step.inputs[operand].tensor == copy.tensor {
            match step.inputs[operand].through(source) {
                Some(view) => step.inputs[operand] = view,
                None => {
                    let (axis, inner) = step.inputs[operand].split_for(source)?;
                    step = split_axis(&step, axis, inner)?;
                }
            }
        }
    }
    Some(step)
}

/// The step with an axis of its first operand split in two in every view that has it; `None` if the kernel does more with
/// that axis than run along it.
fn split_axis(step: &Step, axis: usize, inner: usize) -> Option<Step> {
    let rank = step.inputs.first()?.rank();
    let free = match &step.kernel {
        Kernel::Map(_) => axis < rank,
        Kernel::MatMul(_) | Kernel::Attention(_) => axis + 2 < rank,
        Kernel::Softmax(_) => axis + 1 < rank,
        Kernel::Norm(norm) => axis + norm.axes < rank,
        _ => false,
    };
    let fits = |view: &View| view.rank() == rank && rank < RANK_MAX && view.shape[axis].is_multiple_of(inner);
    if !free || !step.inputs.iter().chain(&step.outputs).all(fits) {
        return None;
    }
    let split = |views: &[View]| views.iter().map(|view| view.split(axis, inner)).collect();
    Some(Step { inputs: split(&step.inputs), outputs: split(&step.outputs), ..step.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::kernels::{Map, MatMul, Unary};
    use crate::plan::passes::trial::{Trial, kernels};

    fn matmul() -> MatMul {
        MatMul { alpha: 1.0, epilogue: None }
    }

    #[test]
    fn the_copies_of_both_exporters_vanish_from_the_operands_of_a_product() {
        let (b, s, h, d) = (2, 3, 2, 4);
        let mut trial = Trial::empty();
        let q = trial.input(&[b, s, h * d]);
        let k = trial.input(&[b, s, h * d]);
        let heads = |view: &View| view.reshape(&[b, s, h, d]).unwrap().swap(1, 2);
        let q = trial.builder.copy(&heads(&q)).unwrap();
        let k = trial.builder.copy(&heads(&k)).unwrap().reshape(&[b * h, s, d]).unwrap();
        let k = trial.builder.copy(&k.swap(1, 2)).unwrap();
        let scores = trial.emit(matmul(), &[&q, &k.reshape(&[b, h, d, s]).unwrap()]);
        trial.deliver(&scores);
        let plan = trial.check(run);
        assert_eq!(kernels(&plan), ["MatMul"]);
        assert!(plan.steps[0].inputs.iter().all(|view| plan.inputs.contains(&view.tensor)));
    }

    #[test]
    fn keys_repeated_for_grouped_queries_are_read_in_place() {
        let (b, kv, g, t, d) = (2, 2, 3, 4, 2);
        let mut trial = Trial::empty();
        let q = trial.input(&[b, kv * g, t, d]);
        let k = trial.input(&[b, kv, t, d]);
        let repeated = k.insert_axis(2).broadcast(&[b, kv, g, t, d]).unwrap();
        let k = trial.builder.reshape(&repeated, &[b, kv * g, t, d]).unwrap();
        let scores = trial.emit(matmul(), &[&q, &k.swap(2, 3)]);
        trial.deliver(&scores);
        let plan = trial.check(run);
        assert_eq!(kernels(&plan), ["MatMul"]);
        assert_eq!(plan.steps[0].inputs[1].strides[2], 0, "one key head serves its group");
    }

    #[test]
    fn a_reader_that_needs_the_new_order_keeps_the_copy() {
        let mut trial = Trial::empty();
        let x = trial.input(&[3, 4]);
        let flat = trial.builder.reshape(&x.swap(0, 1), &[12]).unwrap();
        let y = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&flat]);
        let rows = flat.reshape(&[4, 3]).unwrap();
        let z = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&rows]);
        trial.deliver(&y);
        trial.deliver(&z);
        // The map over 12 elements could run over [4, 3]: its axis splits.
        assert_eq!(kernels(&trial.check(run)), ["Map", "Map"]);

        let mut trial = Trial::empty();
        let x = trial.input(&[3, 4]);
        let flat = trial.builder.reshape(&x.swap(0, 1), &[12]).unwrap();
        let sums = trial.emit(crate::kernels::Softmax { log: false }, &[&flat]);
        trial.deliver(&sums);
        assert_eq!(kernels(&trial.check(run)), ["Map", "Softmax"]);
    }

    #[test]
    fn a_source_that_is_written_again_is_not_looked_through() {
        let mut trial = Trial::empty();
        let x = trial.input(&[4]);
        let room = trial.room(&[4]);
        trial.write(Map::copy(DType::F32), &[&x], &room);
        let copy = trial.builder.copy(&room).unwrap();
        trial.write(Map::unary(Unary::Neg, DType::F32), &[&x.slice(0, 0, 2, 1)], &room.slice(0, 0, 2, 1));
        let y = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&copy]);
        trial.deliver(&y);
        trial.deliver(&room);
        assert_eq!(trial.check(run).steps.len(), 4);
    }
}
