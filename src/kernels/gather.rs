//! Indexed reads. A negative index counts from the end. An index out of range is an error in the reference; a device
//! clamps it into the range, so that no memory outside the tensor is ever read.

use super::Family;
use super::operands::{arity, around, axis_within, index_type, resolve_index};
use super::walk::{Walk, row_major};
use crate::error::{Result, ensure, fail};
use crate::ir::{Tensor, TensorType};

/// ONNX `Gather`: operands data, indices (`I32`/`I64`); result `data[..axis] + indices + data[axis + 1..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    /// The axis indexed.
    pub axis: usize,
}

/// ONNX `GatherElements`: operands data, indices of equal rank; result has the indices' shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherElements {
    /// The axis indexed.
    pub axis: usize,
}

/// ONNX `GatherND`: the last axis of the indices addresses the axes of data after the batch dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherNd {
    /// Leading axes that data and indices share.
    pub batch_dims: usize,
}

impl Family for Gather {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("Gather", inputs, 2)?;
        let (data, indices) = (&inputs[0], &inputs[1]);
        index_type("Gather", indices)?;
        axis_within("Gather", self.axis, &data.shape)?;
        let shape = [&data.shape[..self.axis], &indices.shape, &data.shape[self.axis + 1..]].concat();
        Ok(vec![TensorType::new(data.dtype, shape)?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (data, indices) = (&inputs[0], inputs[1].to_i64s());
        let (outer, extent, inner) = around(data.shape(), self.axis);
        let row = inner * data.dtype().bytes();
        let rows = indices.iter().map(|&index| resolve_index("Gather", index, extent)).collect::<Result<Vec<_>>>()?;
        let mut gathered = Vec::with_capacity(outer * rows.len() * row);
        let blocks = if row == 0 { 0 } else { outer };
        for block in 0..blocks {
            for &index in &rows {
                let start = (block * extent + index) * row;
                gathered.extend_from_slice(&data.data()[start..start + row]);
            }
        }
        let shape = [&data.shape()[..self.axis], inputs[1].shape(), &data.shape()[self.axis + 1..]].concat();
        Ok(vec![Tensor::new(data.dtype(), shape, gathered.into())?])
    }
}

impl Family for GatherElements {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("GatherElements", inputs, 2)?;
        let (data, indices) = (&inputs[0], &inputs[1]);
        index_type("GatherElements", indices)?;
        axis_within("GatherElements", self.axis, &data.shape)?;
        let within = data.shape.len() == indices.shape.len()
            && (0..data.shape.len()).all(|axis| axis == self.axis || indices.shape[axis] <= data.shape[axis]);
        ensure!(
            within,
            ShapeMismatch,
            "GatherElements: indices of shape {:?} do not fit data of shape {:?} beside axis {}",
            indices.shape,
            data.shape,
            self.axis
        );
        Ok(vec![TensorType::new(data.dtype, indices.shape.clone())?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (data, indices) = (&inputs[0], &inputs[1]);
        let size = data.dtype().bytes();
        let strides = row_major(data.shape());
        let (step, extent) = (strides[self.axis], data.shape()[self.axis]);
        let mut across = strides.clone();
        across[self.axis] = 0;
        let mut gathered = Vec::with_capacity(indices.count() * size);
        for (position, index) in Walk::new(indices.shape(), &across).zip(indices.to_i64s()) {
            let start = (position + resolve_index("GatherElements", index, extent)? * step) * size;
            gathered.extend_from_slice(&data.data()[start..start + size]);
        }
        Ok(vec![Tensor::new(data.dtype(), indices.shape().to_vec(), gathered.into())?])
    }
}

impl Family for GatherNd {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        arity("GatherND", inputs, 2)?;
        let (data, indices) = (&inputs[0], &inputs[1]);
        index_type("GatherND", indices)?;
        let depth = self.addressed_axes(&data.shape, &indices.shape)?;
        let tuples = &indices.shape[..indices.shape.len() - 1];
        let shape = [tuples, &data.shape[self.batch_dims + depth..]].concat();
        Ok(vec![TensorType::new(data.dtype, shape)?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (data, indices) = (&inputs[0], &inputs[1]);
        let depth = self.addressed_axes(data.shape(), indices.shape())?;
        let (batch, rest) = data.shape().split_at(self.batch_dims);
        let (addressed, block) = rest.split_at(depth);
        let tuples = &indices.shape()[..indices.shape().len() - 1];
        let tuples_per_batch: usize = tuples[batch.len()..].iter().product();
        let block_bytes = block.iter().product::<usize>() * data.dtype().bytes();
        let batch_blocks: usize = addressed.iter().product();
        let mut gathered = Vec::new();
        for (tuple, index) in indices.to_i64s().chunks_exact(depth).enumerate() {
            let row = tuple / tuples_per_batch * batch_blocks + tuple_position("GatherND", index, addressed)?;
            gathered.extend_from_slice(&data.data()[row * block_bytes..(row + 1) * block_bytes]);
        }
        Ok(vec![Tensor::new(data.dtype(), [tuples, block].concat(), gathered.into())?])
    }
}

impl GatherNd {
    /// How many axes of data one tuple of indices addresses.
    fn addressed_axes(&self, data: &[usize], indices: &[usize]) -> Result<usize> {
        let batch = self.batch_dims;
        let shared = batch < data.len() && batch < indices.len() && data[..batch] == indices[..batch];
        ensure!(
            shared,
            ShapeMismatch,
            "GatherND: data {data:?} and indices {indices:?} do not share {batch} batch dimensions"
        );
        let depth = indices[indices.len() - 1];
        ensure!(
            (1..=data.len() - batch).contains(&depth),
            ShapeMismatch,
            "GatherND: indices {indices:?} address {depth} axes of data {data:?} after {batch} batch dimensions"
        );
        Ok(depth)
    }
}

/// The row-major position of the element that a tuple of indices names in `extents`.
pub(super) fn tuple_position(family: &str, tuple: &[i64], extents: &[usize]) -> Result<usize> {
    tuple
        .iter()
        .zip(extents)
        .try_fold(0, |position, (&index, &extent)| Ok(position * extent + resolve_index(family, index, extent)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::ir::DType;
    use crate::kernels::evaluation::{evaluated, refused};

    #[test]
    fn gather_takes_rows_along_any_axis() {
        let data = Tensor::from_slice(&[2, 3], &[1i32, 2, 3, 4, 5, 6]);
        let indices = Tensor::from_slice(&[1, 2], &[-1i64, 0]);
        let rows = evaluated(Gather { axis: 0 }, &[data.clone(), indices.clone()]).swap_remove(0);
        assert_eq!((rows.shape(), rows.to_vec::<i32>().unwrap()), (&[1, 2, 3][..], vec![4, 5, 6, 1, 2, 3]));
        let columns = evaluated(Gather { axis: 1 }, &[data, indices]).swap_remove(0);
        assert_eq!((columns.shape(), columns.to_vec::<i32>().unwrap()), (&[2, 1, 2][..], vec![3, 1, 6, 4]));
    }

    #[test]
    fn gather_elements_reads_beside_its_own_position() {
        let data = Tensor::from_slice(&[2, 3], &[1i32, 2, 3, 4, 5, 6]);
        let indices = Tensor::from_slice(&[1, 3], &[1i32, 0, -1]);
        let down = evaluated(GatherElements { axis: 0 }, &[data.clone(), indices.clone()]);
        assert_eq!(down[0].to_vec::<i32>().unwrap(), [4, 2, 6]);
        let across = evaluated(GatherElements { axis: 1 }, &[data, indices]);
        assert_eq!(across[0].to_vec::<i32>().unwrap(), [2, 1, 3]);
    }

    #[test]
    fn gather_nd_addresses_after_the_batch() {
        let data = Tensor::from_slice(&[2, 2, 2], &[0i32, 1, 2, 3, 4, 5, 6, 7]);
        let pairs = Tensor::from_slice(&[2, 2], &[0i64, 1, 1, -2]);
        let rows = evaluated(GatherNd { batch_dims: 0 }, &[data.clone(), pairs]);
        assert_eq!(rows[0].to_vec::<i32>().unwrap(), [2, 3, 4, 5]);
        let singles = Tensor::from_slice(&[2, 1], &[1i64, 0]);
        let batched = evaluated(GatherNd { batch_dims: 1 }, &[data, singles]);
        assert_eq!((batched[0].shape(), batched[0].to_vec::<i32>().unwrap()), (&[2, 2][..], vec![2, 3, 4, 5]));
    }

    #[test]
    fn an_index_outside_is_an_error() {
        let data = Tensor::from_slice(&[2], &[1i32, 2]);
        for index in [2, -3, i64::MIN, i64::MAX] {
            let indices = Tensor::from_slice(&[1], &[index]);
            let error = Gather { axis: 0 }.reference(&[data.clone(), indices]).unwrap_err();
            assert_eq!(error.status, Status::InvalidArgument, "{index}");
        }
    }

    #[test]
    fn shapes_that_do_not_address_are_refused() {
        let data = (DType::F32, &[2, 3][..]);
        let floats = (DType::F32, &[1][..]);
        assert_eq!(refused(Gather { axis: 2 }, &[data, (DType::I64, &[1])]), Status::InvalidArgument);
        assert_eq!(refused(Gather { axis: 0 }, &[data, floats]), Status::Unsupported);
        assert_eq!(refused(GatherElements { axis: 0 }, &[data, (DType::I64, &[1, 4])]), Status::ShapeMismatch);
        assert_eq!(refused(GatherNd { batch_dims: 0 }, &[data, (DType::I64, &[1, 3])]), Status::ShapeMismatch);
        assert_eq!(refused(GatherNd { batch_dims: 2 }, &[data, (DType::I64, &[2, 3, 1])]), Status::ShapeMismatch);
        assert_eq!(refused(GatherNd { batch_dims: 0 }, &[data, (DType::I64, &[])]), Status::ShapeMismatch);
        let huge: (DType, &[usize]) = (DType::I64, &[1 << 30, 1 << 30]);
        assert_eq!(refused(Gather { axis: 0 }, &[data, huge]), Status::TooLarge);
    }
}
