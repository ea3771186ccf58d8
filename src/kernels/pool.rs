//! Windowed pooling. Global pooling is a [`super::Reduce`].

use super::Window;

/// What a window is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Maximum; padding never wins.
    Max,
    /// Mean over the elements inside the input.
    Average,
    /// Mean over the elements inside the input or its declared padding.
    AverageIncludingPads,
}

/// ONNX `MaxPool` and `AveragePool`.
///
/// Operand: X `[N, C, spatial..]`, float (or `I8`/`U8` for `Max`). Results: Y `[N, C, out..]`, then, if `indices`, the
/// flat row-major position of each maximum in X (`I64`), counted over the whole tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Maximum or mean.
    pub kind: PoolKind,
    /// Kernel, strides, dilations, padding.
    pub window: Window,
    /// Extents of the result's spatial dimensions (`ceil_mode` has been resolved; a window may hang over the end).
    pub out: Vec<usize>,
    /// Whether positions are delivered too (`Max` only), column-major over the spatial dimensions if `Some(true)`.
    pub indices: Option<bool>,
}
