//! What is checked: one file a family of step kinds.

mod attention;
mod elementwise;
mod indexing;
mod movement;
mod products;
mod recurrent;
mod rows;
mod windows;

use crate::net::{Layout, Net};
use streaminfer::ir::Tensor;

/// A model to be built in several layouts.
pub struct Case {
    pub name: String,
    pub build: Box<dyn Fn(&mut Net) + Send + Sync>,
    pub layouts: &'static [Layout],
    /// The answer where the definition has none, and devices have one all the same.
    pub answer: Option<fn() -> Vec<Tensor>>,
    /// Whether it takes long by definition or on a simulated driver.
    pub is_heavy: bool,
}

/// Cases that are reported together.
pub struct Group {
    pub name: &'static str,
    pub cases: Vec<Case>,
}

/// A case for all layouts.
fn case(name: impl Into<String>, build: impl Fn(&mut Net) + Send + Sync + 'static) -> Case {
    Case { name: name.into(), build: Box::new(build), layouts: &Layout::ALL, answer: None, is_heavy: false }
}

impl Case {
    /// Not with rounded operands: a small step of one makes a large step of the result.
    fn exact(self) -> Case {
        Case { layouts: &Layout::EXACT, ..self }
    }

    /// Only as it is written.
    fn plain(self) -> Case {
        Case { layouts: &[Layout::Dense], ..self }
    }

    /// As it is written, and stored in the precision's type.
    fn stored(self) -> Case {
        Case { layouts: &[Layout::Dense, Layout::Inner], ..self }
    }

    /// With an answer that the definition does not give.
    fn answering(self, answer: fn() -> Vec<Tensor>) -> Case {
        Case { answer: Some(answer), ..self }
    }

    fn heavy(self) -> Case {
        Case { is_heavy: true, ..self }
    }
}

/// Everything.
pub fn groups() -> Vec<Group> {
    let group = |name, cases| Group { name, cases };
    vec![
        group("elementwise", elementwise::cases()),
        group("movement", movement::cases()),
        group("products", products::cases()),
        group("attention", attention::cases()),
        group("rows", rows::cases()),
        group("indexing", indexing::cases()),
        group("windows", windows::cases()),
        group("recurrent", recurrent::cases()),
    ]
}
