//! The checks and small steps that the families share: how many operands, of which element types and shapes, and the map
//! that some families apply to each result.

use super::{Family, Map};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Tensor, TensorType};

/// Refuses any other number of operands than `expected`.
pub(super) fn arity(family: &str, inputs: &[TensorType], expected: usize) -> Result<()> {
    ensure!(inputs.len() == expected, InvalidArgument, "{family} takes {expected} operands, not {}", inputs.len());
    Ok(())
}

/// The element type that all of `inputs` share, which must be a float.
pub(super) fn one_float_type(family: &str, inputs: &[TensorType]) -> Result<DType> {
    let dtype = one_type(family, inputs)?;
    ensure!(dtype.is_float(), Unsupported, "{family} is defined for floats, not for {dtype}");
    Ok(dtype)
}

/// The element type that all of `inputs` share, which must be a float or an integer.
pub(super) fn one_number_type(family: &str, inputs: &[TensorType]) -> Result<DType> {
    let dtype = one_type(family, inputs)?;
    ensure!(dtype != DType::Bool, Unsupported, "{family} is defined for numbers, not for {dtype}");
    Ok(dtype)
}

/// The element type that all of `inputs`, at least one, share.
pub(super) fn one_type(family: &str, inputs: &[TensorType]) -> Result<DType> {
    let dtype = inputs[0].dtype;
    for (index, ty) in inputs.iter().enumerate() {
        ensure!(ty.dtype == dtype, ShapeMismatch, "{family}: operand {index} is {}, operand 0 is {dtype}", ty.dtype);
    }
    Ok(dtype)
}

/// Refuses anything but `I32` and `I64`.
pub(super) fn index_type(family: &str, indices: &TensorType) -> Result<()> {
    let dtype = indices.dtype;
    ensure!(matches!(dtype, DType::I32 | DType::I64), Unsupported, "{family}: indices are int32 or int64, not {dtype}");
    Ok(())
}

/// Refuses any other shape than `expected` for the operand called `what`.
pub(super) fn shape_is(family: &str, what: &str, ty: &TensorType, expected: &[usize]) -> Result<()> {
    ensure!(
        ty.shape == expected,
        ShapeMismatch,
        "{family}: {what} has shape {:?} and should have {expected:?}",
        ty.shape
    );
    Ok(())
}

/// Refuses an axis that `shape` does not have.
pub(super) fn axis_within(family: &str, axis: usize, shape: &[usize]) -> Result<()> {
    ensure!(axis < shape.len(), InvalidArgument, "{family}: there is no axis {axis} in the shape {shape:?}");
    Ok(())
}

/// Elements before, along and after `axis` of a row-major tensor.
pub(super) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// The type of sums over elements of `dtype`.
pub(super) fn accumulator(dtype: DType) -> DType {
    if dtype.is_float() { DType::F32 } else { dtype }
}

/// The result type of a step with sums of `shape` over elements of `dtype`, after the `map` that is applied to them.
/// `further` are the step's operands that the map takes beside the sum.
pub(super) fn mapped_type(
    family: &str,
    map: Option<&Map>,
    dtype: DType,
    shape: &[usize],
    further: &[TensorType],
) -> Result<TensorType> {
    let Some(map) = map else {
        ensure!(further.is_empty(), InvalidArgument, "{family} without a map has {} operands too many", further.len());
        return TensorType::new(dtype, shape.to_vec());
    };
    let sum = TensorType::new(accumulator(dtype), shape.to_vec())?;
    let operands: Vec<TensorType> = std::iter::once(sum).chain(further.iter().cloned()).collect();
    Ok(map.infer(&operands).map_err(|error| error.within(family))?.swap_remove(0))
}

/// The results that [`mapped_type`] announced, from sums in binary64.
pub(super) fn mapped(
    map: Option<&Map>,
    dtype: DType,
    shape: &[usize],
    sums: &[f64],
    further: &[Tensor],
) -> Result<Tensor> {
    let Some(map) = map else {
        return Ok(from_floats(dtype, shape, sums));
    };
    let operands: Vec<Tensor> =
        std::iter::once(from_floats(DType::F32, shape, sums)).chain(further.iter().cloned()).collect();
    Ok(map.reference(&operands)?.swap_remove(0))
}

/// The results that [`mapped_type`] announced, from integer sums.
pub(super) fn mapped_integers(
    map: Option<&Map>,
    dtype: DType,
    shape: &[usize],
    sums: &[i64],
    further: &[Tensor],
) -> Result<Tensor> {
    let sums = from_integers(dtype, shape, sums);
    let Some(map) = map else {
        return Ok(sums);
    };
    let operands: Vec<Tensor> = std::iter::once(sums).chain(further.iter().cloned()).collect();
    Ok(map.reference(&operands)?.swap_remove(0))
}

/// A tensor of the floating-point type `dtype`, rounded once.
pub(super) fn from_floats(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_scalars(dtype, shape, values.iter().copied().map(Scalar::Float))
}

/// A tensor of the integer type `dtype`, wrapped to its width.
pub(super) fn from_integers(dtype: DType, shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_scalars(dtype, shape, values.iter().copied().map(Scalar::Int))
}

/// The position that `index`, which may count from the end, names on an axis of `extent` elements.
pub(super) fn resolve_index(family: &str, index: i64, extent: usize) -> Result<usize> {
    let position = if index < 0 { index.checked_add(extent as i64) } else { Some(index) };
    match position {
        Some(position) if (0..extent as i64).contains(&position) => Ok(position as usize),
        _ => Err(fail!(InvalidArgument, "{family}: the index {index} is outside an axis of {extent}")),
    }
}
