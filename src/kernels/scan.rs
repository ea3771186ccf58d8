//! Running sums.

/// ONNX `CumSum` along one axis; floats (binary32) or integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CumSum {
    /// The axis.
    pub axis: usize,
    /// Whether an element's own value is left out of its sum.
    pub exclusive: bool,
    /// Whether the sum runs from the end.
    pub reverse: bool,
}
