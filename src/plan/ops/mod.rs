//! ONNX operators in terms of views and steps. Each translation reads a node's operands and attributes and gives one
//! view per output; what is pure data movement becomes view arithmetic, what is constant folds on the way.

mod activation;
mod attention;
mod body;
mod call;
mod contraction;
mod convolution;
mod einsum;
mod elementwise;
mod fused;
mod indexing;
mod movement;
mod normalization;
mod pooling;
mod preparation;
mod qlinear;
mod quantization;
mod recurrent;
mod reduction;
mod resample;
mod shape;
mod table;
mod taps;
#[cfg(test)]
mod tests;
mod window;

pub use call::Call;
pub use table::{Operator, lookup, shape_operands};

use super::{Builder, View};
use crate::error::Result;
use crate::ir::Node;

/// What the planner does not know of a node: the operator, or attributes. `If` it walks itself.
pub fn gaps(node: &Node, opset: i64) -> Vec<String> {
    match lookup(&node.domain, &node.op) {
        Some(operator) => {
            operator.unknown_attributes(node).map(|name| format!("attribute '{name}' is not supported")).collect()
        }
        None if node.domain.is_empty() && node.op == "If" => Vec::new(),
        None => {
            let dot = if node.domain.is_empty() { "" } else { "." };
            vec![format!("operator {}{dot}{} (opset {opset}) is not supported", node.domain, node.op)]
        }
    }
}

/// A translation, as [`Operator::translate`] describes it.
type Translate = fn(&mut Builder, &Call<'_>) -> Result<Vec<View>>;
