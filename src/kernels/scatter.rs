//! Indexed writes. Index rules are those of the gathers; an index out of range writes nothing on a device.

/// What happens to an element that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterOp {
    /// The update replaces it; of several, the last in row-major order.
    Set,
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// Maximum.
    Max,
    /// Minimum.
    Min,
}

/// ONNX `ScatterND`: operands data, indices (`I64`), updates; result is data with the updates applied in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterNd {
    /// How an update is combined.
    pub op: ScatterOp,
}
