//! Matrix products.

use super::Map;

/// `epilogue(alpha * A B)` over equal leading batch dimensions.
///
/// Operands: A `[batch.., M, K]`, B `[batch.., K, N]`, then the epilogue's further operands, each with the result's
/// shape. Result: `[batch.., M, N]`. Element types: A and B both float of one type (accumulated in binary32), or both
/// `I32` (accumulated in `I32`, wrapping; `alpha` is 1).
#[derive(Clone, Debug, PartialEq)]
pub struct MatMul {
    /// Factor of the product.
    pub alpha: f32,
    /// Applied to each element: its operand 0 is the scaled product (binary32, or `I32`), operand `i` is the
    /// step's operand `i + 1`.
    pub epilogue: Option<Map>,
}
