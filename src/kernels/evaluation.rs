//! What the tests of the families and of the devices share.

use super::Kernel;
use crate::error::Status;
use crate::ir::{DType, Scalar, Tensor, TensorType};

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

/// Panics unless every element is within `tolerance` of the expected one, relative to the larger of that and 1.
pub fn compare(result: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(result.ty(), expected.ty(), "{what}");
    for (index, (got, wanted)) in result.scalars().zip(expected.scalars()).enumerate() {
        let same = match (got, wanted) {
            (Scalar::Float(got), Scalar::Float(wanted)) => {
                (got.is_nan() && wanted.is_nan())
                    || got == wanted
                    || (got - wanted).abs() <= tolerance * wanted.abs().max(1.0)
            }
            (got, wanted) => got == wanted,
        };
        assert!(same, "{what}: element {index} is {got:?}, expected {wanted:?}");
    }
}

/// A small reproducible generator (Marsaglia's xorshift64).
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 32 bits.
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// A whole number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.bits() as usize % bound
    }

    /// Floats in -2..2, or integers in `-limit..=limit` (0 or 1 for truth values, no negative ones for `U8`).
    pub fn tensor(&mut self, dtype: DType, shape: &[usize], limit: i64) -> Tensor {
        let count = shape.iter().product();
        let values: Vec<Scalar> = (0..count)
            .map(|_| match dtype {
                dtype if dtype.is_float() => Scalar::Float(f64::from(self.bits()) / f64::from(u32::MAX) * 4.0 - 2.0),
                DType::Bool => Scalar::Int((self.bits() & 1).into()),
                DType::U8 => Scalar::Int(self.below(limit as usize + 1) as i64),
                _ => Scalar::Int(self.below(2 * limit as usize + 1) as i64 - limit),
            })
            .collect();
        Tensor::from_scalars(dtype, shape, values)
    }

    /// Floats of the default type.
    pub fn floats(&mut self, shape: &[usize]) -> Tensor {
        self.tensor(DType::F32, shape, 0)
    }
}
