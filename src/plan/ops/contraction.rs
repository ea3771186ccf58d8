//! Matrix products.

use super::body::Body;
use super::call::Call;
use crate::error::{Result, ensure, fail};
use crate::kernels::{Binary, MatMul};
use crate::plan::builder::broadcast_shape;
use crate::plan::{Builder, View};

/// `MatMul` by numpy's rules.
pub fn matmul(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    Ok(vec![product(b, call.input(0)?, call.input(1)?)?])
}

/// The matrix product of two views by numpy's rules: a vector is a row on the left and a column on the right, leading
/// dimensions broadcast. Where B is one matrix, the leading dimensions of A become rows if its strides allow.
pub fn product(b: &mut Builder, left: &View, right: &View) -> Result<View> {
    scaled_product(b, left, right, 1.0)
}

/// [`product`] times `alpha`.
pub fn scaled_product(b: &mut Builder, left: &View, right: &View, alpha: f32) -> Result<View> {
    ensure!(left.rank() > 0 && right.rank() > 0, ShapeMismatch, "a product of a scalar");
    let (row, column) = (left.rank() == 1, right.rank() == 1);
    let left = if row { left.insert_axis(0) } else { left.clone() };
    let right = if column { right.insert_axis(1) } else { right.clone() };
    let (m, k) = (left.shape[left.rank() - 2], left.shape[left.rank() - 1]);
    let (inner, n) = (right.shape[right.rank() - 2], right.shape[right.rank() - 1]);
    ensure!(k == inner, ShapeMismatch, "{:?} times {:?}", left.shape, right.shape);
    let batch = broadcast_shape(&left.shape[..left.rank() - 2], &right.shape[..right.rank() - 2])?;
    let kernel = MatMul { alpha, epilogue: None };
    let mut result = if let Some((left, right)) = as_one_product(&left, &right) {
        let product = b.emit1(kernel, &[left, right])?;
        b.reshape(&product, &[&batch[..], &[m, n]].concat())?
    } else {
        let left = left.broadcast(&[&batch[..], &[m, k]].concat())?;
        let right = right.broadcast(&[&batch[..], &[k, n]].concat())?;
        b.emit1(kernel, &[left, right])?
    };
    if column {
        result = result.remove_axis(result.rank() - 1);
    }
    if row {
        result = result.remove_axis(result.rank() - 1 - usize::from(!column));
    }
    Ok(result)
}

/// The operands as plain matrices, if B is the same matrix for all of A and A's rows are evenly spaced.
fn as_one_product(left: &View, right: &View) -> Option<(View, View)> {
    if left.rank() == 2 && right.rank() == 2 {
        return Some((left.clone(), right.clone()));
    }
    let (rank, batch) = (right.rank(), right.rank() - 2);
    let single = right.shape[..batch].iter().all(|&extent| extent == 1) && left.rank() >= right.rank();
    if !single || left.count() == 0 {
        return None;
    }
    let right = right.reshape(&[right.shape[rank - 2], right.shape[rank - 1]])?;
    let k = left.shape[left.rank() - 1];
    let left = left.reshape(&[left.count() / k, k])?;
    Some((left, right))
}

/// `Gemm`: `alpha A' B' + beta C`.
pub fn gemm(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let (left, right) = (call.input(0)?, call.input(1)?);
    let matrices = left.rank() == 2 && right.rank() == 2;
    ensure!(matrices, ShapeMismatch, "{:?} and {:?} are not two matrices", left.shape, right.shape);
    let left = if call.flag("transA", false)? { left.swap(0, 1) } else { left.clone() };
    let right = if call.flag("transB", false)? { right.swap(0, 1) } else { right.clone() };
    ensure!(left.shape[1] == right.shape[0], ShapeMismatch, "{:?} times {:?}", left.shape, right.shape);
    let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
    let product = b.emit1(MatMul { alpha, epilogue: None }, &[left, right])?;
    let Some(addend) = call.optional(2).filter(|_| beta != 0.0) else { return Ok(vec![product]) };
    let mut addend = addend.broadcast(&product.shape)?;
    if beta != 1.0 {
        let dtype = b.dtype(&addend);
        let mut body = Body::with_inputs(1);
        let factor = body.number(dtype, beta.into());
        body.binary(Binary::Mul, 0, factor);
        addend = b.map(&[&addend], body.finish(), dtype)?;
    }
    Ok(vec![b.binary(Binary::Add, &product, &addend)?])
}
