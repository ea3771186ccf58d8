//! Indexed writes. Index rules are those of the gathers; an index out of range writes nothing on a device.

use super::Family;
use super::gather::tuple_position;
use super::operands::{arity, from_floats, from_integers, index_type, shape_is};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, TensorType};

/// What happens to an element that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterOp {
    /// The update replaces it; of several, the last in row-major order.
    Set,
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// Maximum.
    Max,
    /// Minimum.
    Min,
}

/// ONNX `ScatterND`: operands data, indices (`I64`), updates; result is data with the updates applied in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterNd {
    /// How an update is combined.
    pub op: ScatterOp,
}

impl Family for ScatterNd {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("ScatterND", inputs, 3)?;
        let (data, indices, updates) = (&inputs[0], &inputs[1], &inputs[2]);
        index_type("ScatterND", indices)?;
        let depth = addressed_axes(&data.shape, &indices.shape)?;
        let tuples = &indices.shape[..indices.shape.len() - 1];
        shape_is("ScatterND", "updates", updates, &[tuples, &data.shape[depth..]].concat())?;
        ensure!(
            updates.dtype == data.dtype,
            ShapeMismatch,
            "ScatterND: updates are {}, data is {}",
            updates.dtype,
            data.dtype
        );
        ensure!(
            self.op == ScatterOp::Set || data.dtype != DType::Bool,
            Unsupported,
            "ScatterND: {:?} is not defined for bool",
            self.op
        );
        Ok(vec![data.clone()])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (data, indices, updates) = (&inputs[0], &inputs[1], &inputs[2]);
        let depth = addressed_axes(data.shape(), indices.shape())?;
        let (addressed, block) = data.shape().split_at(depth);
        let rows = indices
            .to_i64s()
            .chunks_exact(depth)
            .map(|tuple| tuple_position("ScatterND", tuple, addressed))
            .collect::<Result<Vec<_>>>()?;
        let block: usize = block.iter().product();
        let (dtype, shape) = (data.dtype(), data.shape());
        Ok(vec![if dtype.is_float() {
            let combine: fn(f64, f64) -> f64 = match self.op {
                ScatterOp::Set => |_, update| update,
                ScatterOp::Add => |a, b| a + b,
                ScatterOp::Mul => |a, b| a * b,
                ScatterOp::Max => |a, b| if a > b || a.is_nan() { a } else { b },
                ScatterOp::Min => |a, b| if a < b || a.is_nan() { a } else { b },
            };
            from_floats(dtype, shape, &scattered(data.to_f64s(), &rows, block, &updates.to_f64s(), combine))
        } else {
            let combine: fn(i64, i64) -> i64 = match self.op {
                ScatterOp::Set => |_, update| update,
                ScatterOp::Add => i64::wrapping_add,
                ScatterOp::Mul => i64::wrapping_mul,
                ScatterOp::Max => i64::max,
                ScatterOp::Min => i64::min,
            };
            from_integers(dtype, shape, &scattered(data.to_i64s(), &rows, block, &updates.to_i64s(), combine))
        }])
    }
}

/// How many leading axes of data one tuple of indices addresses.
fn addressed_axes(data: &[usize], indices: &[usize]) -> Result<usize> {
    match indices.last() {
        Some(&depth) if (1..=data.len()).contains(&depth) => Ok(depth),
        _ => Err(fail!(ShapeMismatch, "ScatterND: indices of shape {indices:?} do not address data of shape {data:?}")),
    }
}

fn scattered<T: Copy>(
    mut data: Vec<T>,
    rows: &[usize],
    block: usize,
    updates: &[T],
    combine: impl Fn(T, T) -> T,
) -> Vec<T> {
    for (index, &row) in rows.iter().enumerate() {
        let targets = &mut data[row * block..(row + 1) * block];
        for (target, &update) in targets.iter_mut().zip(&updates[index * block..]) {
            *target = combine(*target, update);
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::kernels::evaluation::{evaluated, floats, refused};

    fn scatter(op: ScatterOp) -> Vec<f32> {
        let indices = Tensor::from_slice(&[3, 1], &[1i64, -1, 1]);
        let operands = [floats(&[4], &[1.0, 2.0, 3.0, 4.0]), indices, floats(&[3], &[10.0, 20.0, 0.5])];
        evaluated(ScatterNd { op }, &operands)[0].to_vec().unwrap()
    }

    #[test]
    fn updates_apply_in_order() {
        assert_eq!(scatter(ScatterOp::Set), [1.0, 0.5, 3.0, 20.0]);
        assert_eq!(scatter(ScatterOp::Add), [1.0, 12.5, 3.0, 24.0]);
        assert_eq!(scatter(ScatterOp::Mul), [1.0, 10.0, 3.0, 80.0]);
        assert_eq!(scatter(ScatterOp::Max), [1.0, 10.0, 3.0, 20.0]);
        assert_eq!(scatter(ScatterOp::Min), [1.0, 0.5, 3.0, 4.0]);
    }

    #[test]
    fn a_tuple_may_address_a_whole_block() {
        let data = Tensor::from_slice(&[2, 2], &[1i64, 2, 3, 4]);
        let operands = [data, Tensor::from_slice(&[1, 1], &[1i64]), Tensor::from_slice(&[1, 2], &[8i64, 9])];
        assert_eq!(evaluated(ScatterNd { op: ScatterOp::Set }, &operands)[0].to_vec::<i64>().unwrap(), [1, 2, 8, 9]);
    }

    #[test]
    fn updates_that_do_not_fit_are_refused() {
        let data = (DType::F32, &[2, 2][..]);
        let indices = (DType::I64, &[1, 1][..]);
        let set = ScatterNd { op: ScatterOp::Set };
        assert_eq!(refused(set.clone(), &[data, indices, (DType::F32, &[1, 3])]), Status::ShapeMismatch);
        assert_eq!(refused(set.clone(), &[data, indices, (DType::I64, &[1, 2])]), Status::ShapeMismatch);
        assert_eq!(refused(set.clone(), &[data, (DType::I64, &[1, 3]), data]), Status::ShapeMismatch);
        assert_eq!(refused(set, &[(DType::F32, &[]), (DType::I64, &[1]), (DType::F32, &[])]), Status::ShapeMismatch);
    }
}
