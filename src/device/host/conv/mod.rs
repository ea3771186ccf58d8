//! Convolutions that are not matrix products.

mod depthwise;
#[cfg(test)]
mod tests;
mod transposed;

pub use depthwise::prepare as prepare_depthwise;
pub use transposed::prepare as prepare_transposed;
