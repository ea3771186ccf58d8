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
mod gathers;
mod maps;
mod merge;
mod norms;
mod scalars;
#[cfg(test)]
pub mod trial;

use super::{Plan, validate};
use crate::error::Result;
use draft::Draft;

type Pass = fn(&mut Draft) -> Result<()>;

/// The passes in the order in which they run.
const PASSES: &[(&str, Pass)] = &[
    ("dead", dead::run),
    ("scalars", scalars::run),
    ("gathers", gathers::run),
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

#[cfg(test)]
mod tests {
    use super::trial::{Trial, kernels};
    use super::*;
    use crate::ir::DType;
    use crate::kernels::{Map, MatMul, Unary};

    const MANY: usize = 100_000;

    /// These plans are built so that any scan per step over all readers or writers of a tensor takes hours.
    #[test]
    fn a_hundred_thousand_steps_are_no_trouble() {
        let mut chain = Trial::empty();
        let mut x = chain.input(&[2]);
        for _ in 0..MANY {
            x = chain.builder.unary(Unary::Sin, &x).unwrap();
        }
        chain.deliver(&x);
        assert!(optimize(chain.builder.plan).unwrap().steps.len() < MANY / 60);

        let mut star = Trial::empty();
        let x = star.input(&[2, 4]);
        let room = star.room(&[MANY, 8]);
        let shared = star.emit(Map::unary(Unary::Exp, DType::F32), &[&x]);
        for row in 0..MANY / 4 {
            let w = star.weight(&[4, 4]);
            let y = star.emit(MatMul { alpha: row as f32, epilogue: None }, &[&shared, &w]);
            star.write(
                Map::copy(DType::F32),
                &[&y],
                &room.reshape(&[MANY, 2, 4]).unwrap().slice(0, row, 1, 1).remove_axis(0),
            );
        }
        for row in 0..MANY / 4 {
            let part = room.slice(0, row, 1, 1);
            let copy = star.builder.copy(&part.swap(0, 1)).unwrap();
            let target = room.slice(0, MANY - 1 - row, 1, 1).swap(0, 1);
            star.write(Map::unary(Unary::Neg, DType::F32), &[&copy], &target);
        }
        let out = star.emit(Map::copy(DType::F32), &[&room.slice(0, 0, 1, 1)]);
        star.deliver(&out);
        let plan = optimize(star.builder.plan).unwrap();
        assert!(kernels(&plan).len() <= MANY);
    }
}
