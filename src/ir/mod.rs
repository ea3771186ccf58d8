//! ONNX bytes to [`Graph`]: pure data, nothing here knows a device.

mod dtype;
mod graph;
pub mod import;
mod tensor;

pub use dtype::{DType, Element, Scalar};
pub use graph::{Attribute, Graph, Initializer, Input, Node, Output, ValueId};
pub use tensor::{Shape, Tensor, TensorType, element_count};
