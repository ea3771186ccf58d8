//! How the elements of a constant are arranged in memory.

/// An arrangement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row-major without gaps.
    Dense,
}
