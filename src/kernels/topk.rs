//! The k greatest or smallest elements.

/// ONNX `TopK` along one axis: results values and indices (`I64`), best first; equal values keep ascending indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopK {
    /// The axis.
    pub axis: usize,
    /// How many are kept.
    pub k: usize,
    /// Greatest or smallest.
    pub largest: bool,
}
