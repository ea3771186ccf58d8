//! The operator graph, as the file states it: nothing is inferred, nothing rewritten, but names are resolved,
//! model-local functions inlined and `Constant` nodes turned into initializers.

use super::dtype::DType;
use super::tensor::Tensor;
use std::collections::BTreeMap;

/// A value of the model, unique across the main graph and all subgraphs (which may use outer values).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// An operator graph in topological order, or the body of a control-flow node.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Version of the default operator set that the file imports.
    pub opset: i64,
    /// Version of `ai.onnx.ml`, 0 if it is not imported.
    pub opset_ml: i64,
    /// Inputs that a caller supplies, in file order.
    pub inputs: Vec<Input>,
    /// Outputs, in file order.
    pub outputs: Vec<Output>,
    /// Nodes, each after the producers of its inputs.
    pub nodes: Vec<Node>,
    /// Constant values.
    pub initializers: Vec<Initializer>,
    /// The ONNX name of every value of this graph and its subgraphs, indexed by [`ValueId`]; empty in a subgraph.
    pub names: Vec<String>,
}

/// An input of the model.
#[derive(Clone, Debug)]
pub struct Input {
    /// The value it becomes.
    pub value: ValueId,
    /// ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Declared extents, `None` for a dimension left open; `None` altogether if the file declares no shape.
    pub dims: Option<Vec<Option<usize>>>,
    /// The names of symbolic dimensions, same order, `None` where there is none.
    pub dim_names: Vec<Option<String>>,
}

/// An output of the model.
#[derive(Clone, Debug)]
pub struct Output {
    /// The value delivered.
    pub value: ValueId,
    /// ONNX name.
    pub name: String,
    /// Declared element type. Declared shapes are not kept: exporters get them wrong.
    pub dtype: Option<DType>,
}

/// A constant.
#[derive(Clone, Debug)]
pub struct Initializer {
    /// The value it defines.
    pub value: ValueId,
    /// Its data.
    pub tensor: Tensor,
}

/// One operator application.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name from the file, or `<op>_<index>` if it has none.
    pub name: String,
    /// Operator, for example `MatMul`.
    pub op: String,
    /// Operator domain: empty for the default set, else for example `ai.onnx.ml`.
    pub domain: String,
    /// Inputs; `None` for an optional one left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; `None` for an optional one left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// The value of an attribute.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// `INT`
    Int(i64),
    /// `FLOAT`
    Float(f32),
    /// `STRING`, which ONNX does not promise to be UTF-8; invalid bytes are replaced.
    String(String),
    /// `TENSOR`
    Tensor(Tensor),
    /// `GRAPH`
    Graph(Box<Graph>),
    /// `INTS`
    Ints(Vec<i64>),
    /// `FLOATS`
    Floats(Vec<f32>),
    /// `STRINGS`
    Strings(Vec<String>),
}
