//! A plan while passes rewrite it: its steps in fixed slots, and the indices that keep every pass near-linear.

use crate::ir::{Tensor, TensorType};
use crate::kernels::{Instr, Kernel, Map};
use crate::plan::{Origin, Plan, Step, TensorDef, TensorId, View};
use std::collections::BTreeSet;

/// A plan under revision. Slot numbers are program order; a fused step takes the slot of its last part, so that whatever the parts
/// needed is there, and a removed step leaves its slot empty.
#[derive(Debug)]
pub struct Draft {
    /// All but the steps.
    plan: Plan,
    slots: Vec<Option<Step>>,
    readers: BTreeSet<(TensorId, usize)>,
    writers: BTreeSet<(TensorId, usize)>,
    delivered: Vec<bool>,
}

impl Draft {
    /// Takes a plan apart.
    pub fn new(mut plan: Plan) -> Draft {
        let slots: Vec<Option<Step>> = std::mem::take(&mut plan.steps).into_iter().map(Some).collect();
        let mut delivered = vec![false; plan.tensors.len()];
        for id in &plan.outputs {
            delivered[id.0 as usize] = true;
        }
        let uses = |views: fn(&Step) -> &[View]| {
            let steps = slots.iter().enumerate().flat_map(|(slot, step)| step.iter().map(move |step| (slot, step)));
            steps.flat_map(|(slot, step)| views(step).iter().map(move |view| (view.tensor, slot))).collect()
        };
        let readers = uses(|step| &step.inputs);
        let writers = uses(|step| &step.outputs);
        Draft { plan, slots, readers, writers, delivered }
    }

    /// The plan as it stands, for a check between passes.
    pub fn snapshot(&self) -> Plan {
        Plan { steps: self.slots.iter().flatten().cloned().collect(), ..self.plan.clone() }
    }

    /// Puts the plan together again, without the tensors that nothing uses.
    pub fn finish(self) -> Plan {
        let Draft { mut plan, slots, .. } = self;
        plan.steps = slots.into_iter().flatten().collect();
        let mut used = vec![false; plan.tensors.len()];
        let views = plan.steps.iter().flat_map(|step| step.inputs.iter().chain(&step.outputs));
        let boundary = plan.inputs.iter().chain(&plan.outputs);
        for id in views.map(|view| &view.tensor).chain(boundary) {
            used[id.0 as usize] = true;
        }
        let mut renumbered = vec![TensorId(0); plan.tensors.len()];
        let mut kept = Vec::new();
        for (index, def) in plan.tensors.drain(..).enumerate().filter(|(index, _)| used[*index]) {
            renumbered[index] = TensorId(kept.len() as u32);
            kept.push(def);
        }
        plan.tensors = kept;
        let views = plan.steps.iter_mut().flat_map(|step| step.inputs.iter_mut().chain(&mut step.outputs));
        let boundary = plan.inputs.iter_mut().chain(&mut plan.outputs);
        for id in views.map(|view| &mut view.tensor).chain(boundary) {
            *id = renumbered[id.0 as usize];
        }
        plan
    }

    /// Number of slots, empty ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The step in a slot.
    pub fn step(&self, slot: usize) -> Option<&Step> {
        self.slots[slot].as_ref()
    }

    /// The map in a slot.
    pub fn map(&self, slot: usize) -> Option<(&Map, &Step)> {
        let step = self.step(slot)?;
        if let Kernel::Map(map) = &step.kernel { Some((map, step)) } else { None }
    }

    /// The definition of a tensor.
    pub fn tensor(&self, id: TensorId) -> &TensorDef {
        self.plan.tensor(id)
    }

    /// Ids of all tensors.
    pub fn tensors(&self) -> impl Iterator<Item = TensorId> + use<> {
        (0..self.plan.tensors.len() as u32).map(TensorId)
    }

    /// The constant that a view reads, if its tensor is one.
    pub fn constant(&self, view: &View) -> Option<&Tensor> {
        self.plan.constant(view)
    }

    /// Slots of the steps that read a tensor, in program order.
    pub fn readers(&self, id: TensorId) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.readers.range((id, 0)..=(id, usize::MAX)).map(|&(_, slot)| slot)
    }

    /// The first step behind `slot` that reads a tensor.
    pub fn next_reader(&self, id: TensorId, slot: usize) -> Option<usize> {
        self.readers.range((id, slot + 1)..=(id, usize::MAX)).map(|&(_, slot)| slot).next()
    }

    /// Slots of the steps that write a tensor, in program order.
    pub fn writers(&self, id: TensorId) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.writers.range((id, 0)..=(id, usize::MAX)).map(|&(_, slot)| slot)
    }

    /// [`Draft::writers`] behind `slot`.
    pub fn writers_behind(&self, id: TensorId, slot: usize) -> impl Iterator<Item = usize> + '_ {
        self.writers.range((id, slot + 1)..=(id, usize::MAX)).map(|&(_, slot)| slot)
    }

    /// Whether the tensor is a model output.
    pub fn is_delivered(&self, id: TensorId) -> bool {
        self.delivered[id.0 as usize]
    }

    /// The slot of the one step that reads a tensor, if nothing else does, the model's caller included.
    pub fn only_reader(&self, id: TensorId) -> Option<usize> {
        let mut readers = self.readers(id);
        let first = readers.next()?;
        (readers.next().is_none() && !self.is_delivered(id)).then_some(first)
    }

    /// The slot of the one step that writes a tensor, if it writes all of it.
    pub fn producer(&self, id: TensorId) -> Option<usize> {
        let mut writers = self.writers(id);
        let slot = writers.next()?;
        if writers.next().is_some() {
            return None;
        }
        let mut views = self.step(slot)?.outputs.iter().filter(|view| view.tensor == id);
        let whole = views.next()?.count() == self.tensor(id).ty.count() && views.next().is_none();
        whole.then_some(slot)
    }

    /// Whether nothing writes the tensor at or after `slot`, so that it may be read anywhere later with the same result.
    pub fn is_settled(&self, id: TensorId, slot: usize) -> bool {
        self.writers(id).next_back().is_none_or(|last| last < slot)
    }

    /// Whether all that the step in `slot` reads may be read at any later place as well.
    pub fn inputs_settled(&self, slot: usize) -> bool {
        self.step(slot).is_some_and(|step| step.inputs.iter().all(|view| self.is_settled(view.tensor, slot)))
    }

    /// Puts a step into a slot, in place of what was there.
    pub fn replace(&mut self, slot: usize, step: Step) {
        self.remove(slot);
        self.readers.extend(step.inputs.iter().map(|view| (view.tensor, slot)));
        self.writers.extend(step.outputs.iter().map(|view| (view.tensor, slot)));
        self.slots[slot] = Some(step);
    }

    /// Puts a step into a slot, and removes the steps before it that only served what was there.
    pub fn supersede(&mut self, slot: usize, step: Step) {
        let operands: BTreeSet<TensorId> =
            self.step(slot).map_or(BTreeSet::new(), |old| old.inputs.iter().map(|view| view.tensor).collect());
        self.replace(slot, step);
        for id in operands {
            if self.readers(id).next().is_none() {
                let writers: Vec<usize> = self.writers(id).collect();
                writers.into_iter().for_each(|writer| self.prune(writer));
            }
        }
    }

    /// Empties a slot.
    pub fn remove(&mut self, slot: usize) {
        if let Some(step) = self.slots[slot].take() {
            for view in &step.inputs {
                self.readers.remove(&(view.tensor, slot));
            }
            for view in &step.outputs {
                self.writers.remove(&(view.tensor, slot));
            }
        }
    }

    /// Removes the step in `slot`, and the steps before it that only served it, if nothing needs their results.
    pub fn prune(&mut self, slot: usize) {
        let mut pending = vec![slot];
        while let Some(slot) = pending.pop() {
            let Some(step) = self.step(slot) else { continue };
            let needed = |view: &View| self.is_delivered(view.tensor) || self.readers(view.tensor).next().is_some();
            if step.outputs.iter().any(needed) {
                continue;
            }
            let operands: BTreeSet<TensorId> = step.inputs.iter().map(|view| view.tensor).collect();
            self.remove(slot);
            for id in operands {
                if self.readers(id).next().is_none() {
                    pending.extend(self.writers(id));
                }
            }
        }
    }

    /// Adds a tensor and gives the view of its whole.
    pub fn add(&mut self, name: &str, ty: TensorType, origin: Origin) -> View {
        let id = TensorId(self.plan.tensors.len() as u32);
        let view = View::dense(id, &ty.shape);
        self.plan.tensors.push(TensorDef { name: name.to_owned(), ty, origin });
        self.delivered.push(false);
        view
    }
}

/// Whether a step does nothing but copy its operand.
pub fn is_copy(step: &Step) -> bool {
    match &step.kernel {
        Kernel::Map(map) => map.body == [Instr::Input(0)] && map.inputs == [map.output],
        _ => false,
    }
}
