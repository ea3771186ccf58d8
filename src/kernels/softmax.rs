//! Softmax along the last axis.

/// `exp(x - max) / sum` along the last axis, or its logarithm. Operand and result: float, any shape of rank >= 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// Whether the logarithm of the result is delivered.
    pub log: bool,
}
