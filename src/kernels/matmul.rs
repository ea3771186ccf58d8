//! Matrix products.

use super::operands::{mapped, mapped_integers, mapped_type, one_type};
use super::{Family, Map};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, TensorType};

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

impl Family for MatMul {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        ensure!(inputs.len() >= 2, InvalidArgument, "MatMul takes at least 2 operands, not {}", inputs.len());
        let (a, b) = (&inputs[0], &inputs[1]);
        let dtype = one_type("MatMul", &inputs[..2])?;
        ensure!(
            dtype.is_float() || (dtype == DType::I32 && self.alpha == 1.0),
            Unsupported,
            "MatMul is defined for floats, and for int32 without a factor, not for {dtype} times {}",
            self.alpha
        );
        let rank = a.shape.len();
        let agree = rank >= 2
            && b.shape.len() == rank
            && a.shape[..rank - 2] == b.shape[..rank - 2]
            && a.shape[rank - 1] == b.shape[rank - 2];
        ensure!(agree, ShapeMismatch, "MatMul: shapes {:?} and {:?} do not multiply", a.shape, b.shape);
        let shape = [&a.shape[..rank - 1], &b.shape[rank - 1..]].concat();
        Ok(vec![mapped_type("MatMul", self.epilogue.as_ref(), dtype, &shape, &inputs[2..])?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (a, b, further) = (&inputs[0], &inputs[1], &inputs[2..]);
        let rank = a.shape().len();
        let (m, k, n) = (a.shape()[rank - 2], a.shape()[rank - 1], b.shape()[rank - 1]);
        let shape = [&a.shape()[..rank - 1], &[n]].concat();
        let count = shape.iter().product();
        let epilogue = self.epilogue.as_ref();
        let result = if a.dtype().is_float() {
            let mut sums = products(count, [m, k, n], &a.to_f64s(), &b.to_f64s(), |sum, a, b| sum + a * b);
            sums.iter_mut().for_each(|sum| *sum *= f64::from(self.alpha));
            mapped(epilogue, a.dtype(), &shape, &sums, further)?
        } else {
            let sums = products(count, [m, k, n], &a.to_i64s(), &b.to_i64s(), |sum: i64, a, b| {
                sum.wrapping_add(a.wrapping_mul(b))
            });
            mapped_integers(epilogue, a.dtype(), &shape, &sums, further)?
        };
        Ok(vec![result])
    }

    fn work(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let depth = inputs[0].shape.last().map_or(0, |&depth| depth as u64);
        let elements = outputs.iter().map(|ty| ty.count() as u64).fold(0, u64::saturating_add);
        elements.saturating_mul(depth.saturating_mul(2).saturating_add(1))
    }
}

/// The `count` elements of the products of a batch of `[M, K]` and `[K, N]` matrices, by rows of B so that memory is read in order.
fn products<T: Copy + Default>(
    count: usize,
    [m, k, n]: [usize; 3],
    a: &[T],
    b: &[T],
    fused: impl Fn(T, T, T) -> T,
) -> Vec<T> {
    let mut sums = vec![T::default(); count];
    if count == 0 || k == 0 {
        return sums;
    }
    for (row, (a, sums)) in a.chunks_exact(k).zip(sums.chunks_exact_mut(n)).enumerate() {
        let b = &b[row / m * k * n..][..k * n];
        for (&a, b) in a.iter().zip(b.chunks_exact(n)) {
            sums.iter_mut().zip(b).for_each(|(sum, &b)| *sum = fused(*sum, a, b));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::kernels::evaluation::{evaluated, floats, refused};
    use crate::kernels::{Binary, Instr, Unary};

    #[test]
    fn batches_of_rectangles_multiply() {
        let a = floats(&[2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = floats(&[2, 3, 2], &[1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0, 0.0, -1.0]);
        let c = evaluated(MatMul { alpha: 0.5, epilogue: None }, &[a, b]).swap_remove(0);
        assert_eq!((c.shape(), c.to_vec::<f32>().unwrap()), (&[2, 1, 2][..], vec![3.5, 4.0, 4.5, -1.0]));
    }

    #[test]
    fn the_epilogue_sees_the_scaled_product() {
        let body =
            vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Add, 0, 1), Instr::Unary(Unary::Relu, 2)];
        let epilogue = Some(Map { inputs: vec![DType::F32, DType::F16], body, output: DType::F16 });
        let [a, b, bias] = [[1.0, -2.0], [3.0, 1.0], [1.5, -9.0]].map(|x| x.map(half::f16::from_f32));
        let operands =
            [Tensor::from_slice(&[2, 1], &a), Tensor::from_slice(&[1, 1], &b[..1]), Tensor::from_slice(&[2, 1], &bias)];
        let c = evaluated(MatMul { alpha: 2.0, epilogue }, &operands).swap_remove(0);
        assert_eq!((c.dtype(), c.to_f64s()), (DType::F16, vec![7.5, 0.0]));
    }

    #[test]
    fn integers_wrap_and_no_depth_gives_zeros() {
        let product = MatMul { alpha: 1.0, epilogue: None };
        let operands = [Tensor::from_slice(&[1, 2], &[i32::MAX, 1]), Tensor::from_slice(&[2, 1], &[2i32, 3])];
        assert_eq!(evaluated(product.clone(), &operands)[0].to_vec::<i32>().unwrap(), [1]);
        let empty = product.reference(&[floats(&[3, 2, 0], &[]), floats(&[3, 0, 1], &[])]).unwrap();
        assert_eq!(empty[0].to_vec::<f32>().unwrap(), [0.0; 6]);
    }

    #[test]
    fn shapes_that_do_not_multiply_are_refused() {
        let refuse = |alpha, epilogue, a: &[usize], b: &[usize], dtype| {
            refused(MatMul { alpha, epilogue }, &[(dtype, a), (dtype, b)])
        };
        assert_eq!(refuse(1.0, None, &[2, 3], &[2, 3], DType::F32), Status::ShapeMismatch);
        assert_eq!(refuse(1.0, None, &[2], &[2], DType::F32), Status::ShapeMismatch);
        assert_eq!(refuse(1.0, None, &[2, 1, 1], &[3, 1, 1], DType::F32), Status::ShapeMismatch);
        assert_eq!(refuse(1.0, None, &[1, 1], &[1, 1], DType::I8), Status::Unsupported);
        assert_eq!(refuse(2.0, None, &[1, 1], &[1, 1], DType::I32), Status::Unsupported);
        assert_eq!(
            refuse(1.0, Some(Map::binary(Binary::Add, DType::F32)), &[1, 1], &[1, 1], DType::F32),
            Status::InvalidArgument
        );
        assert_eq!(refuse(1.0, None, &[1 << 40, 1], &[1, 1 << 40], DType::F32), Status::TooLarge);
    }
}
