//! Map whose only reader is a map -> one map. Intermediate values stay in registers instead of going through memory.
//!
//! A result with several readers stays a step of its own. So does one that its reader broadcasts, unless repeating it costs next to
//! nothing: a mask of `[B, 1, 1, T]` is not computed again for every head and query.

use super::Draft;
use crate::error::Result;
use crate::kernels::{Instr, Kernel, Map, Unary};
use crate::plan::{Step, TensorId, View};

/// Instructions of a fused program; a device keeps its registers in a small buffer per tile.
pub const BODY_MAX: usize = 64;
/// Operands of a fused program.
pub const OPERANDS_MAX: usize = 16;

/// Inlines producers into their readers, last reader first: what a reader takes in is gone before its own turn comes, so every
/// program is cleaned up once, when it is complete.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in (0..draft.len()).rev() {
        while let Some((producer, step)) = fused(draft, slot) {
            draft.replace(slot, step);
            draft.prune(producer);
        }
        let Some((map, step)) = draft.map(slot) else { continue };
        let recognized = map.recognized();
        if recognized != *map
            && let Some(step) = tidied(recognized, step.inputs.clone(), step)
        {
            draft.replace(slot, step);
        }
    }
    Ok(())
}

/// The map in `slot` with one of its producers inlined, and the producer's slot.
fn fused(draft: &Draft, slot: usize) -> Option<(usize, Step)> {
    let (_, step) = draft.map(slot)?;
    step.inputs.iter().find_map(|view| {
        let producer = draft.producer(view.tensor)?;
        (draft.only_reader(view.tensor) == Some(slot)).then_some(())?;
        let (map, _) = draft.map(producer)?;
        let count = draft.tensor(view.tensor).ty.count();
        let repeats = |reader: &&View| reader.tensor == view.tensor && reader.count() > count;
        if step.inputs.iter().any(|reader| repeats(&reader)) && !is_nearly_free(map) {
            return None;
        }
        let (map, inputs) = spliced(draft, step, view.tensor)?;
        // The clean-up comes later, unless the program needs it now to stay in bounds.
        if map.body.len() <= BODY_MAX && inputs.len() <= OPERANDS_MAX {
            return Some((producer, Step { kernel: Kernel::Map(map), inputs, ..step.clone() }));
        }
        Some((producer, tidied(map, inputs, step)?))
    })
}

/// Whether a program may run once per reading instead of once per element.
fn is_nearly_free(map: &Map) -> bool {
    map.body.iter().all(|instr| match instr {
        Instr::Input(_) | Instr::Const(..) | Instr::Cast(..) => true,
        Instr::Unary(op, _) => matches!(op, Unary::Neg | Unary::Abs | Unary::Not),
        Instr::Binary(..) | Instr::Select(..) => false,
    })
}

/// The map `step` with the map that produces `tensor` in the place of every operand that reads it; `None` if there is no such
/// producer, if views do not compose, or if the program would grow out of bounds.
pub fn inlined(draft: &Draft, step: &Step, tensor: TensorId) -> Option<Step> {
    let (map, inputs) = spliced(draft, step, tensor)?;
    tidied(map, inputs, step)
}

/// The program of [`inlined`] and its operands, without any clean-up but that equal operands are one.
fn spliced(draft: &Draft, step: &Step, tensor: TensorId) -> Option<(Map, Vec<View>)> {
    let producer = draft.producer(tensor)?;
    let (part, origin) = draft.map(producer)?;
    let Kernel::Map(whole) = &step.kernel else { return None };
    if !draft.inputs_settled(producer) {
        return None;
    }
    let order = origin.outputs[0].walk_order(origin.outputs[0].count())?;
    let (mut map, mut inputs) = (whole.clone(), step.inputs.clone());
    while let Some(operand) = inputs.iter().position(|view| view.tensor == tensor) {
        let reader = inputs.remove(operand);
        for view in &origin.inputs {
            inputs.push(reader.through(&view.permute(&order))?);
        }
        map = map.splice(operand, part);
    }
    Some(merged(map, inputs))
}

/// The program with equal operands made one.
fn merged(map: Map, inputs: Vec<View>) -> (Map, Vec<View>) {
    let mut distinct: Vec<View> = Vec::with_capacity(inputs.len());
    let mut to = Vec::with_capacity(inputs.len());
    for view in inputs {
        let known = distinct.iter().position(|other| *other == view);
        to.push(known.unwrap_or(distinct.len()));
        if known.is_none() {
            distinct.push(view);
        }
    }
    (map.rewired(&to), distinct)
}

/// `step` as the given program over the given operands, equal operands merged and unused ones dropped.
pub fn tidied(map: Map, inputs: Vec<View>, step: &Step) -> Option<Step> {
    let (rewired, distinct) = merged(map, inputs);
    let (mut map, mut kept) = rewired.simplified();
    if kept.is_empty() && step.outputs[0].rank() > 0 {
        // One operand stays to give the shape.
        map.inputs.push(*rewired.inputs.first()?);
        kept.push(0);
    }
    if map.body.len() > BODY_MAX || kept.len() > OPERANDS_MAX {
        return None;
    }
    let inputs = kept.iter().map(|&index| distinct[index].clone()).collect();
    Some(Step { kernel: Kernel::Map(map), inputs, ..step.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::kernels::Binary;
    use crate::plan::passes::trial::{Trial, kernels};
    use crate::plan::passes::{Draft, scalars};

    fn optimized(trial: &Trial) -> crate::plan::Plan {
        trial.check(|draft: &mut Draft| {
            scalars::run(draft)?;
            run(draft)
        })
    }

    #[test]
    fn a_written_out_gelu_becomes_one_instruction() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3]);
        let bias = trial.weight(&[3]);
        let constants = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|value| trial.scalar(value));
        let b = &mut trial.builder;
        let x = b.binary(Binary::Add, &x, &bias).unwrap();
        let scaled = b.binary(Binary::Div, &x, &constants[0]).unwrap();
        let erf = b.unary(Unary::Erf, &scaled).unwrap();
        let one_plus = b.binary(Binary::Add, &erf, &constants[1]).unwrap();
        let product = b.binary(Binary::Mul, &x, &one_plus).unwrap();
        let gelu = b.binary(Binary::Mul, &product, &constants[2]).unwrap();
        trial.deliver(&gelu);
        let plan = optimized(&trial);
        assert_eq!(plan.steps.len(), 1);
        let Kernel::Map(map) = &plan.steps[0].kernel else { panic!("{plan:?}") };
        assert_eq!(map.body.last(), Some(&Instr::Unary(Unary::Gelu, 2)));
        assert_eq!(map.inputs.len(), 2, "x once and the bias");
    }

    #[test]
    fn views_of_an_intermediate_result_become_views_of_its_operands() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3, 4]);
        let bias = trial.weight(&[4]);
        let sum = trial.builder.binary(Binary::Add, &x, &bias).unwrap();
        let heads = sum.reshape(&[2, 3, 2, 2]).unwrap().permute(&[0, 2, 1, 3]);
        let moved = trial.builder.copy(&heads).unwrap();
        trial.deliver(&moved);
        let plan = optimized(&trial);
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(plan.steps[0].inputs[0].strides, [12, 2, 4, 1]);
    }

    #[test]
    fn a_result_with_two_readers_and_a_broadcast_result_stay() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3]);
        let shared = trial.builder.unary(Unary::Exp, &x).unwrap();
        let a = trial.builder.unary(Unary::Neg, &shared).unwrap();
        let b = trial.builder.unary(Unary::Abs, &shared).unwrap();
        trial.deliver(&a);
        trial.deliver(&b);
        assert_eq!(kernels(&optimized(&trial)).len(), 3);

        let mut trial = Trial::empty();
        let mask = trial.input(&[3]);
        let x = trial.input(&[2, 3]);
        let penalty = trial.builder.unary(Unary::Exp, &mask).unwrap();
        let sum = trial.builder.binary(Binary::Add, &x, &penalty).unwrap();
        trial.deliver(&sum);
        assert_eq!(optimized(&trial).steps.len(), 2);
    }

    #[test]
    fn an_operand_that_changes_in_between_is_not_read_later() {
        let mut trial = Trial::empty();
        let x = trial.input(&[4]);
        let room = trial.room(&[4]);
        trial.write(Map::copy(DType::F32), &[&x], &room);
        let early = trial.builder.unary(Unary::Exp, &room).unwrap();
        trial.write(Map::unary(Unary::Neg, DType::F32), &[&x], &room);
        let late = trial.builder.unary(Unary::Neg, &early).unwrap();
        trial.deliver(&late);
        trial.deliver(&room);
        assert_eq!(optimized(&trial).steps.len(), 4);
    }

    #[test]
    fn long_chains_break_into_bounded_programs() {
        let mut trial = Trial::empty();
        let mut x = trial.input(&[2]);
        for _ in 0..200 {
            x = trial.builder.unary(Unary::Sin, &x).unwrap();
        }
        trial.deliver(&x);
        let plan = optimized(&trial);
        let longest = plan.steps.iter().map(|step| match &step.kernel {
            Kernel::Map(map) => map.body.len(),
            _ => 0,
        });
        assert_eq!(longest.max(), Some(BODY_MAX));
        assert_eq!(plan.steps.len(), 200_usize.div_ceil(BODY_MAX - 1));
    }
}
