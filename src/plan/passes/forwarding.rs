//! A step's whole result, then a copy of it -> the step writes where the copy would. The parts of a Concat, the inside of a Pad, a
//! transposed attention context and a model output are written by whoever computes them.
//!
//! Where the producer stays depends on who else looks. If the copy alone reads the result, the producer moves down into the
//! copy's slot, so that writes to the destination keep their order. Otherwise it stays, its other readers read the
//! destination, and nothing may touch that part of it in between or later.

use super::Draft;
use super::draft::is_copy;
use super::epilogues::is_streamable;
use crate::error::Result;
use crate::kernels::Kernel;
use crate::plan::{Step, View};

/// Writers of one destination that are compared with a part of it before giving up.
const WRITERS_MAX: usize = 64;

/// Forwards the source of every copy it can.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in 0..draft.len() {
        let Some(forwarded) = forwarded(draft, slot) else { continue };
        draft.remove(slot);
        draft.remove(forwarded.producer);
        draft.replace(forwarded.place, forwarded.step);
        for (reader, step) in forwarded.readers {
            draft.replace(reader, step);
        }
    }
    Ok(())
}

struct Forwarded {
    producer: usize,
    /// Where the producer goes: its own slot or the copy's.
    place: usize,
    step: Step,
    readers: Vec<(usize, Step)>,
}

fn forwarded(draft: &Draft, slot: usize) -> Option<Forwarded> {
    let copy = draft.step(slot).filter(|step| is_copy(step))?;
    let (source, destination) = (&copy.inputs[0], &copy.outputs[0]);
    if draft.is_delivered(source.tensor) || source.tensor == destination.tensor {
        return None;
    }
    let producer = draft.producer(source.tensor)?;
    let order = source.walk_order(draft.tensor(source.tensor).ty.count())?;
    // The source tensor, row by row, as a view of the destination.
    let image = destination.permute(&order);
    let mut step = draft.step(producer)?.clone();
    let result = step.outputs.iter_mut().find(|view| view.tensor == source.tensor)?;
    *result = result.through(&image)?;
    if !matches!(step.kernel, Kernel::Map(_)) && !is_streamable(result) {
        return None;
    }
    let others: Vec<usize> = draft.readers(source.tensor).filter(|&reader| reader != slot).collect();
    let alone = others.is_empty() && step.outputs.len() == 1;
    let place = if alone && draft.inputs_settled(producer) {
        slot
    } else if is_untouched(draft, producer, slot, &image, !others.is_empty()) {
        producer
    } else {
        return None;
    };
    let redirected = |reader: usize| {
        let mut step = draft.step(reader)?.clone();
        for view in step.inputs.iter_mut().filter(|view| view.tensor == source.tensor) {
            *view = view.through(&image)?;
        }
        Some((reader, step))
    };
    let readers = others.into_iter().map(redirected).collect::<Option<Vec<_>>>()?;
    Some(Forwarded { producer, place, step, readers })
}

/// Whether the part of its tensor that `image` shows can be written at `producer` instead of at `slot`: nobody else writes to
/// it or reads the tensor in between, nor, if it is to be read later, overwrites it.
fn is_untouched(draft: &Draft, producer: usize, slot: usize, image: &View, read_later: bool) -> bool {
    let id = image.tensor;
    let shape = &draft.tensor(id).ty.shape;
    let apart = |writer: usize| {
        let parts = draft.step(writer).map_or(&[][..], |step| &step.outputs);
        parts.iter().filter(|view| view.tensor == id).all(|part| part.is_apart(image, shape))
    };
    let concerns = |writer: &usize| *writer != slot && (read_later || *writer < slot);
    let mut writers = draft.writers_behind(id, producer).take_while(|&writer| read_later || writer <= slot);
    let mut writers = writers.by_ref().filter(concerns);
    let read_between = draft.next_reader(id, producer).is_some_and(|reader| reader < slot);
    !read_between && writers.by_ref().take(WRITERS_MAX).all(apart) && writers.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::kernels::{Map, Norm, NormKind, Softmax, Unary};
    use crate::plan::Plan;
    use crate::plan::passes::trial::{Trial, kernels};

    fn softmax(trial: &mut Trial, x: &View) -> View {
        trial.emit(Softmax { log: false }, &[x])
    }

    fn copies(plan: &Plan) -> usize {
        plan.steps.iter().filter(|step| is_copy(step)).count()
    }

    #[test]
    fn parts_of_a_concatenation_are_written_in_place() {
        let mut trial = Trial::empty();
        let (x, y) = (trial.input(&[2, 3]), trial.input(&[2, 2]));
        let (a, b) = (softmax(&mut trial, &x), softmax(&mut trial, &y));
        let room = trial.room(&[2, 8]);
        trial.write(Map::copy(DType::F32), &[&a], &room.slice(1, 0, 3, 1));
        trial.write(Map::copy(DType::F32), &[&b], &room.slice(1, 3, 2, 1));
        trial.write(Map::copy(DType::F32), &[&x], &room.slice(1, 5, 3, 1));
        trial.deliver(&room);
        // Part a is also read elsewhere, before the concatenation is complete.
        let other = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&a.swap(0, 1)]);
        trial.deliver(&other);
        let plan = trial.check(run);
        assert_eq!(copies(&plan), 1, "a model input has to be copied");
        assert_eq!(kernels(&plan), ["Softmax", "Softmax", "Map", "Map"]);
    }

    #[test]
    fn the_inside_of_a_padding_is_written_after_the_fill() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3]);
        let room = trial.room(&[4, 5]);
        let inside = softmax(&mut trial, &x);
        let zero = trial.scalar(0.0).broadcast(&[4, 5]).unwrap();
        trial.write(Map::copy(DType::F32), &[&zero], &room);
        trial.write(Map::copy(DType::F32), &[&inside], &room.slice(0, 1, 2, 1).slice(1, 1, 3, 1));
        trial.deliver(&room);
        assert_eq!(kernels(&trial.check(run)), ["Map", "Softmax"]);

        // With a second reader the producer cannot move behind the fill.
        let other = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&inside]);
        trial.deliver(&other);
        assert_eq!(trial.check(run).steps.len(), 4);
    }

    #[test]
    fn a_permuted_copy_turns_into_a_permuted_result() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3, 4]);
        let (scale, shift) = (trial.weight(&[4]), trial.weight(&[4]));
        let [scale, shift] = [scale, shift].map(|view| view.broadcast(&[2, 3, 4]).unwrap());
        let norm = trial.emit(Norm { kind: NormKind::Layer, axes: 1, epsilon: 1e-5 }, &[&x, &scale, &shift]);
        let swapped = trial.builder.copy(&norm.permute(&[1, 0, 2])).unwrap();
        trial.deliver(&swapped);
        let flipped = softmax(&mut trial, &x);
        let flipped = trial.builder.copy(&flipped.swap(1, 2)).unwrap();
        trial.deliver(&flipped);
        let plan = trial.check(run);
        assert_eq!(kernels(&plan), ["Norm", "Softmax", "Map"], "rows stay contiguous");
        assert_eq!(plan.steps[0].outputs[0].strides, [4, 8, 1]);
    }

    #[test]
    fn a_destination_that_is_overwritten_later_is_not_read_instead_of_the_source() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3]);
        let a = softmax(&mut trial, &x);
        let room = trial.room(&[2, 3]);
        trial.write(Map::copy(DType::F32), &[&a], &room);
        trial.write(Map::unary(Unary::Neg, DType::F32), &[&x], &room);
        let other = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&a]);
        trial.deliver(&other);
        trial.deliver(&room);
        assert_eq!(trial.check(run).steps.len(), 4);
    }
}
