//! Graph and bucket to [`Plan`]: fold, fuse, analyse axes. Pure functions; nothing here knows a device, a memory layout
//! or an offset.

pub mod axes;
mod builder;
mod evaluate;
pub mod ops;
pub mod passes;
mod translate;
mod validate;
mod view;

pub use builder::Builder;
pub use evaluate::evaluate;
pub use translate::{check_bucket, describe_dims, shape_inputs, translate};
pub use validate::validate;
pub use view::{TensorId, View, dense_strides};

use crate::error::Result;
use crate::ir::{Graph, Shape, Tensor, TensorType};
use crate::kernels::Kernel;

/// Plans the graph for one bucket: translates it, then fuses.
pub fn plan(graph: &Graph, bucket: Bucket) -> Result<Plan> {
    passes::optimize(translate::translate(graph, bucket)?)
}

/// One concrete set of input shapes, and the values of the inputs that shapes are computed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Per model input, its extents.
    pub shapes: Vec<Shape>,
    /// Per model input, its value if it is a shape input.
    pub values: Vec<Option<Tensor>>,
}

/// What defines a tensor of a plan.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The model input with this index.
    Input(usize),
    /// Known at planning time: an initializer, or folded.
    Constant(Tensor),
    /// Written by one or more steps. Where several write the same elements, the last in program order wins.
    Steps,
}

/// A virtual tensor: elements in row-major order, stored who knows how.
#[derive(Clone, Debug)]
pub struct TensorDef {
    /// The ONNX name of the value it was made for.
    pub name: String,
    /// Element type and extents.
    pub ty: TensorType,
    /// Where its elements come from.
    pub origin: Origin,
}

/// One application of a kernel to views.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is computed.
    pub kernel: Kernel,
    /// Operands, in the kernel's order.
    pub inputs: Vec<View>,
    /// Results, in the kernel's order; no two elements of one view coincide.
    pub outputs: Vec<View>,
    /// The ONNX node it came from; of a fused step, the node that gave the kernel.
    pub node: String,
}

/// The semantic steps for one bucket, in program order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The bucket planned for.
    pub bucket: Bucket,
    /// All tensors, indexed by [`TensorId`].
    pub tensors: Vec<TensorDef>,
    /// The steps. An operand is written before it is read.
    pub steps: Vec<Step>,
    /// Per model input, its tensor.
    pub inputs: Vec<TensorId>,
    /// Per model output, its tensor: dense, written by steps, different for each output.
    pub outputs: Vec<TensorId>,
}

impl Plan {
    /// The definition of a tensor.
    pub fn tensor(&self, id: TensorId) -> &TensorDef {
        &self.tensors[id.0 as usize]
    }

    /// The type that a view presents.
    pub fn view_type(&self, view: &View) -> TensorType {
        TensorType { dtype: self.tensor(view.tensor).ty.dtype, shape: view.shape.clone() }
    }

    /// The constant that a view reads, if its tensor is one.
    pub fn constant(&self, view: &View) -> Option<&Tensor> {
        match &self.tensor(view.tensor).origin {
            Origin::Constant(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The view's elements as a dense constant, if its tensor is one.
    pub fn constant_value(&self, view: &View) -> Option<Result<Tensor>> {
        self.constant(view).map(|tensor| view.materialize(tensor))
    }
}
