//! Dense constant tensors and the arithmetic of shapes.

use super::dtype::{DType, Element, Scalar};
use crate::error::{Result, ensure, fail};
use crate::limits::{RANK_MAX, TENSOR_BYTES_MAX};
use bytes::Bytes;

/// Extents, outermost first. Every extent of a plan is concrete.
pub type Shape = Vec<usize>;

/// The product of the extents; overflow or more than [`TENSOR_BYTES_MAX`] elements is `TooLarge`.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    ensure!(shape.len() <= RANK_MAX, TooLarge, "rank {} is above the limit of {RANK_MAX}", shape.len());
    // A zero extent makes the product zero, but must not hide an overflow of the others' strides.
    let mut nonzero = shape.iter().filter(|&&extent| extent != 0);
    let product = nonzero.try_fold(1usize, |product, &extent| product.checked_mul(extent));
    match product {
        Some(count) if count <= TENSOR_BYTES_MAX => Ok(if shape.contains(&0) { 0 } else { count }),
        _ => Err(fail!(TooLarge, "a tensor of shape {shape:?} is above the limit of {TENSOR_BYTES_MAX} bytes")),
    }
}

/// Element type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
}

impl TensorType {
    /// A type whose size has been checked against the limits.
    pub fn new(dtype: DType, shape: Shape) -> Result<Self> {
        let bytes = element_count(&shape)?.saturating_mul(dtype.bytes());
        ensure!(bytes <= TENSOR_BYTES_MAX, TooLarge, "a {dtype} tensor of shape {shape:?} takes {bytes} bytes");
        Ok(TensorType { dtype, shape })
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the dense row-major tensor.
    pub fn bytes(&self) -> usize {
        self.count() * self.dtype.bytes()
    }
}

/// A dense row-major constant. Cloning shares the bytes; those of an initializer are a slice of the model file, so
/// they may be unaligned: read through the accessors.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    data: Bytes,
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        if self.count() <= 8 {
            write!(f, " {:?}", self.scalars().collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

impl Tensor {
    /// Wraps bytes, which must be exactly the size that type and shape ask for.
    pub fn new(dtype: DType, shape: Shape, data: Bytes) -> Result<Self> {
        let expected = TensorType::new(dtype, shape.clone())?.bytes();
        ensure!(
            data.len() == expected,
            Malformed,
            "a {dtype} tensor of shape {shape:?} needs {expected} bytes and has {}",
            data.len()
        );
        Ok(Tensor { dtype, shape, data })
    }

    /// Copies typed values. Panics if their number is not the shape's.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values do not fill the shape");
        let mut data = Vec::with_capacity(values.len() * T::DTYPE.bytes());
        values.iter().for_each(|value| value.push_le(&mut data));
        Tensor { dtype: T::DTYPE, shape: shape.to_vec(), data: data.into() }
    }

    /// Narrows scalars to `dtype` as [`Element::from_scalar`] does. Panics if their number is not the shape's.
    pub fn from_scalars(dtype: DType, shape: &[usize], values: impl IntoIterator<Item = Scalar>) -> Self {
        fn build<T: Element>(shape: &[usize], values: impl IntoIterator<Item = Scalar>) -> Tensor {
            Tensor::from_slice(shape, &values.into_iter().map(T::from_scalar).collect::<Vec<T>>())
        }
        match dtype {
            DType::F32 => build::<f32>(shape, values),
            DType::F16 => build::<half::f16>(shape, values),
            DType::BF16 => build::<half::bf16>(shape, values),
            DType::I64 => build::<i64>(shape, values),
            DType::I32 => build::<i32>(shape, values),
            DType::I8 => build::<i8>(shape, values),
            DType::U8 => build::<u8>(shape, values),
            DType::Bool => build::<bool>(shape, values),
        }
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Self {
        Tensor::from_slice(&[], &[value])
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type and shape.
    pub fn ty(&self) -> TensorType {
        TensorType { dtype: self.dtype, shape: self.shape.clone() }
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The raw little-endian bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The same elements under another shape of the same size.
    pub fn reshaped(&self, shape: Shape) -> Result<Self> {
        ensure!(element_count(&shape)? == self.count(), Internal, "cannot view {:?} as {shape:?}", self.shape);
        Ok(Tensor { dtype: self.dtype, shape, data: self.data.clone() })
    }

    /// The elements, if `T` is the type stored.
    pub fn to_vec<T: Element>(&self) -> Option<Vec<T>> {
        (T::DTYPE == self.dtype).then(|| self.data.chunks_exact(T::DTYPE.bytes()).map(T::read_le).collect())
    }

    /// Element `index` in row-major order, widened.
    pub fn at(&self, index: usize) -> Scalar {
        let size = self.dtype.bytes();
        let bytes = &self.data[index * size..(index + 1) * size];
        match self.dtype {
            DType::F32 => f32::read_le(bytes).to_scalar(),
            DType::F16 => half::f16::read_le(bytes).to_scalar(),
            DType::BF16 => half::bf16::read_le(bytes).to_scalar(),
            DType::I64 => i64::read_le(bytes).to_scalar(),
            DType::I32 => i32::read_le(bytes).to_scalar(),
            DType::I8 => i8::read_le(bytes).to_scalar(),
            DType::U8 => u8::read_le(bytes).to_scalar(),
            DType::Bool => bool::read_le(bytes).to_scalar(),
        }
    }

    /// All elements in row-major order, widened.
    pub fn scalars(&self) -> impl Iterator<Item = Scalar> + '_ {
        (0..self.count()).map(|index| self.at(index))
    }

    /// All elements as integers (shapes, axes, indices).
    pub fn to_i64s(&self) -> Vec<i64> {
        self.converted(Scalar::as_i64)
    }

    /// All elements as floats.
    pub fn to_f64s(&self) -> Vec<f64> {
        self.converted(Scalar::as_f64)
    }

    /// All elements, widened and converted; the element type is looked at once and not for each.
    fn converted<R>(&self, convert: impl Fn(Scalar) -> R) -> Vec<R> {
        fn each<T: Element, R>(data: &[u8], convert: impl Fn(Scalar) -> R) -> Vec<R> {
            data.chunks_exact(T::DTYPE.bytes()).map(|bytes| convert(T::read_le(bytes).to_scalar())).collect()
        }
        match self.dtype {
            DType::F32 => each::<f32, R>(&self.data, convert),
            DType::F16 => each::<half::f16, R>(&self.data, convert),
            DType::BF16 => each::<half::bf16, R>(&self.data, convert),
            DType::I64 => each::<i64, R>(&self.data, convert),
            DType::I32 => each::<i32, R>(&self.data, convert),
            DType::I8 => each::<i8, R>(&self.data, convert),
            DType::U8 => each::<u8, R>(&self.data, convert),
            DType::Bool => each::<bool, R>(&self.data, convert),
        }
    }
}
