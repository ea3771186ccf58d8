//! Separable resampling. The planner turns ONNX `Resize`'s modes into weights, so a device knows only weighted sums.

/// How the outputs along one axis are made of inputs: output `i` is the sum of `weights[i][t] * input[index[i][t]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisTaps {
    /// The axis.
    pub axis: usize,
    /// Extent of the result along it.
    pub out: usize,
    /// Inputs per output: 1 for nearest, 2 for linear, 4 for cubic, more when antialiased.
    pub taps: usize,
    /// `out * taps` positions, all inside the input.
    pub index: Vec<u32>,
    /// `out * taps` weights.
    pub weights: Vec<f32>,
}

/// Applies each axis's taps. Operand and result: one type, float or (with one tap of weight 1) any.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// The axes that change, ascending.
    pub axes: Vec<AxisTaps>,
    /// Outputs that lie outside the input (`tf_crop_and_resize`) get the value: per axis of `axes`, `out` flags.
    pub outside: Option<(f32, Vec<Vec<bool>>)>,
}
