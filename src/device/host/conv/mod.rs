//! Convolutions that are not matrix products.

mod depthwise;
#[cfg(test)]
mod tests;

pub use depthwise::prepare as prepare_depthwise;
