//! Normalisation over trailing axes.

/// Which statistic is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `(x - mean) / sqrt(var + epsilon)` (Ba et al., 2016); also instance and group normalisation, on other views.
    Layer,
    /// `x / sqrt(mean(x^2) + epsilon)` (Zhang and Sennrich, 2019).
    Rms,
}

/// Normalises over the last `axes` axes, then scales and shifts.
///
/// Operands: X, scale, bias, all of X's shape (scale and bias are broadcast views). Result: X's shape. Floats of one type,
/// statistics in binary32.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// The statistic.
    pub kind: NormKind,
    /// How many trailing axes are normalised together.
    pub axes: usize,
    /// Added to the variance or mean square.
    pub epsilon: f32,
}
