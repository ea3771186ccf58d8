//! Indexed reads. A negative index counts from the end. An index out of range is an error in the reference; a device
//! clamps it into the range, so that no memory outside the tensor is ever read.

/// ONNX `Gather`: operands data, indices (`I32`/`I64`); result `data[..axis] + indices + data[axis + 1..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    /// The axis indexed.
    pub axis: usize,
}

/// ONNX `GatherElements`: operands data, indices of equal rank; result has the indices' shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherElements {
    /// The axis indexed.
    pub axis: usize,
}

/// ONNX `GatherND`: the last axis of the indices addresses the axes of data after the batch dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherNd {
    /// Leading axes that data and indices share.
    pub batch_dims: usize,
}
