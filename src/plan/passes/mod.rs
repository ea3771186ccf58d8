//! Passes: plan to plan, same numbers, fewer and larger steps. They know kernels and views and nothing of ONNX.

mod attention;
mod channels;
mod copies;
mod cse;
mod dead;
mod draft;
mod epilogues;
mod factor;
mod forwarding;
mod maps;
mod merge;
mod norms;
mod scalars;
#[cfg(test)]
mod trial;

use super::{Plan, validate};
use crate::error::Result;
use draft::Draft;

type Pass = fn(&mut Draft) -> Result<()>;

/// The passes in the order in which they run.
const PASSES: &[(&str, Pass)] = &[
    ("dead", dead::run),
    ("scalars", scalars::run),
    ("copies", copies::run),
    ("cse", cse::run),
    ("norms", norms::run),
    ("attention", attention::run),
    ("maps", maps::run),
    ("channels", channels::run),
    ("epilogues", epilogues::run),
    ("merge", merge::run),
    ("forwarding", forwarding::run),
    ("dead", dead::run),
];

/// Fuses and cleans a plan. A debug build checks [`validate`] after every pass.
pub fn optimize(plan: Plan) -> Result<Plan> {
    let mut draft = Draft::new(plan);
    for (name, pass) in PASSES {
        pass(&mut draft).map_err(|error| error.within(format!("pass '{name}'")))?;
        if cfg!(debug_assertions) {
            validate(&draft.snapshot()).map_err(|error| error.within(format!("after pass '{name}'")))?;
        }
    }
    Ok(draft.finish())
}
