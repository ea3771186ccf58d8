//! Gives every tensor of a plan its memory.

use super::arena::{self, Block};
use super::operand::Region;
use crate::error::Result;
use crate::plan::{Origin, Plan, TensorId};
use std::collections::HashMap;

/// Where each tensor lies, by its number: memory and offset in bytes; `None` for a constant.
pub type Places = Vec<Option<(Region, usize)>>;

/// Gives every tensor its memory (a constant gets none here); the bytes are those of the arena. What step `i` reads and writes is kept
/// until the end of step `until(i)`, the same one or a later one.
pub fn place(plan: &Plan, until: impl Fn(usize) -> usize) -> Result<(Places, usize)> {
    let mut places = vec![None; plan.tensors.len()];
    let mut lives: HashMap<TensorId, (usize, usize)> = HashMap::new();
    for (index, step) in plan.steps.iter().enumerate() {
        for view in step.inputs.iter().chain(&step.outputs) {
            let life = lives.entry(view.tensor).or_insert((index, index));
            life.1 = life.1.max(until(index));
        }
    }
    for (index, &id) in plan.inputs.iter().enumerate() {
        places[id.0 as usize] = Some((Region::Input(index), 0));
    }
    for (index, &id) in plan.outputs.iter().enumerate() {
        places[id.0 as usize] = Some((Region::Output(index), 0));
    }
    let mut temporaries: Vec<TensorId> = lives.keys().copied().collect();
    temporaries.retain(|&id| places[id.0 as usize].is_none() && !matches!(plan.tensor(id).origin, Origin::Constant(_)));
    temporaries.sort_unstable();
    let block = |id: &TensorId| Block { bytes: plan.tensor(*id).ty.bytes(), first: lives[id].0, last: lives[id].1 };
    let layout = arena::place(&temporaries.iter().map(block).collect::<Vec<_>>(), &[])?;
    for (id, &offset) in temporaries.iter().zip(&layout.offsets) {
        places[id.0 as usize] = Some((Region::Arena, offset));
    }
    Ok((places, layout.bytes))
}
