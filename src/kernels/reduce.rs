//! Reductions over axes.

/// How elements are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Sum.
    Sum,
    /// Arithmetic mean.
    Mean,
    /// Maximum; -inf or the least integer over nothing.
    Max,
    /// Minimum; +inf or the greatest integer over nothing.
    Min,
    /// Product.
    Prod,
    /// Square root of the sum of squares.
    L2,
    /// Position of the maximum along the single axis, `I64`.
    ArgMax {
        /// Whether the last of equal maxima wins instead of the first.
        last: bool,
    },
    /// Position of the minimum along the single axis, `I64`.
    ArgMin {
        /// Whether the last of equal minima wins instead of the first.
        last: bool,
    },
}

/// Reduces `axes`, which vanish from the shape. Operand: floats or integers (`Bool` for `Max` and `Min`); floats are
/// accumulated in binary32, integers in their own width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// How.
    pub op: ReduceOp,
    /// The axes, ascending, without duplicates.
    pub axes: Vec<usize>,
}
