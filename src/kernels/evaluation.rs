//! What the tests of the families share.

use super::Kernel;
use crate::error::Status;
use crate::ir::{DType, Tensor, TensorType};

/// The results of a kernel, after a check that they are of the types that were inferred.
pub(super) fn evaluated(kernel: impl Into<Kernel>, operands: &[Tensor]) -> Vec<Tensor> {
    let kernel = kernel.into();
    let types: Vec<TensorType> = operands.iter().map(Tensor::ty).collect();
    let inferred = kernel.family().infer(&types).unwrap();
    let results = kernel.family().reference(operands).unwrap();
    assert_eq!(inferred, results.iter().map(Tensor::ty).collect::<Vec<_>>());
    assert!(kernel.family().work(&types, &inferred) > 0);
    results
}

/// Why a kernel refuses operands of these types.
pub(super) fn refused(kernel: impl Into<Kernel>, operands: &[(DType, &[usize])]) -> Status {
    let types: Vec<TensorType> =
        operands.iter().map(|(dtype, shape)| TensorType { dtype: *dtype, shape: shape.to_vec() }).collect();
    kernel.into().family().infer(&types).unwrap_err().status
}

/// A binary32 tensor.
pub(super) fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values)
}

/// A binary32 tensor of small multiples of 1/8, always the same for one seed.
pub(super) fn eighths(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 17) as f32 / 8.0 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    floats(shape, &values)
}

/// Whether two lists of floats differ by at most `tolerance` anywhere.
pub(super) fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}
