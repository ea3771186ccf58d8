//! Scaled dot-product attention (Vaswani et al., 2017, equation 1).

use super::Map;

/// `softmax(score(scale * Q K^T)) V` over equal leading batch dimensions, softmax along the keys.
///
/// Operands: Q `[batch.., S, D]`, K `[batch.., T, D]`, V `[batch.., T, E]`, then the score map's further operands, each of
/// shape `[batch.., S, T]`. Result: `[batch.., S, E]`. All of Q, K, V are float of one type; scores and sums are binary32.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Factor of the scores.
    pub scale: f32,
    /// Applied to each scaled score (operand 0), for example to add a mask; operand `i` is the step's operand `i + 2`.
    pub score: Option<Map>,
    /// Whether a row of scores that is -inf throughout gives zeros instead of NaN.
    pub guard_empty_rows: bool,
}
