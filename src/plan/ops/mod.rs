//! ONNX operators in terms of views and steps. Each translation reads a node's operands and attributes and gives one
//! view per output; what is pure data movement becomes view arithmetic, what is constant folds on the way.

mod activation;
mod body;
mod call;
mod contraction;
mod convolution;
mod einsum;
mod elementwise;
mod indexing;
mod movement;
mod normalization;
mod pooling;
mod quantization;
mod recurrent;
mod reduction;
mod resample;
mod shape;
mod table;
mod taps;
mod window;

pub use call::Call;
pub use table::{Operator, lookup, shape_operands};

use super::{Builder, View};
use crate::error::Result;

/// A translation, as [`Operator::translate`] describes it.
type Translate = fn(&mut Builder, &Call<'_>) -> Result<Vec<View>>;
