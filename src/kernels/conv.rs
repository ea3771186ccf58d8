//! Convolution and its transpose, any number of spatial dimensions.

use super::Map;

/// A sliding window over the spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Extent of the kernel.
    pub kernel: Vec<usize>,
    /// Step from one output to the next; never 0.
    pub strides: Vec<usize>,
    /// Distance of neighbouring kernel elements; never 0.
    pub dilations: Vec<usize>,
    /// Padding before the first element.
    pub pads_begin: Vec<usize>,
    /// Padding after the last element.
    pub pads_end: Vec<usize>,
}

/// Cross-correlation as ONNX `Conv`.
///
/// Operands: X `[N, C, spatial..]`, W `[O, C / groups, kernel..]`, bias `[O]`, then the epilogue's further operands, each
/// with the result's shape. Result: `[N, O, out..]` with `out = (in + pads - dilation (kernel - 1) - 1) / stride + 1`.
/// All floats of one type, accumulated in binary32; or X, W and bias `I32` (wrapping).
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Channel groups; C and O are multiples of it.
    pub groups: usize,
    /// Kernel, strides, dilations, padding.
    pub window: Window,
    /// As in [`super::MatMul`]: operand 0 is the biased sum, operand `i` is the step's operand `i + 2`.
    pub epilogue: Option<Map>,
}

/// Transposed convolution as ONNX `ConvTranspose`.
///
/// Operands: X `[N, C, spatial..]`, W `[C, O / groups, kernel..]`, bias `[O]`. Result: `[N, O, out..]` with
/// `out = stride (in - 1) + output_padding + dilation (kernel - 1) + 1 - pads`. Floats of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose {
    /// Channel groups.
    pub groups: usize,
    /// Kernel, strides, dilations, padding (cut off the result here).
    pub window: Window,
    /// Rows added at the end of each spatial dimension.
    pub output_padding: Vec<usize>,
}
