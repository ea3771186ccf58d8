//! Where an input or output lies.

use crate::ir::{DType, TensorType};

/// The elements of an input or output for the bucket selected: element `(i, j, ..)` lies
/// `i strides_bytes[0] + j strides_bytes[1] + ..` behind `address`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Element type.
    pub dtype: DType,
    /// Extents of the request.
    pub shape: &'a [usize],
    /// Extents of the prepared bucket, at least those of the request: the elements lie dense under this shape.
    pub bucket_shape: &'a [usize],
    /// The first element.
    pub address: *mut u8,
    /// Bytes that may be touched.
    pub capacity_bytes: usize,
}

impl<'a> View<'a> {
    /// A request of `shape` in memory prepared for `ty`.
    pub(super) fn new(ty: &'a TensorType, shape: &'a [usize], address: *mut u8, capacity_bytes: usize) -> Self {
        View { dtype: ty.dtype, shape, bucket_shape: &ty.shape, address, capacity_bytes }
    }

    /// Distance in bytes of neighbours along each axis, outermost first.
    pub fn strides_bytes(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let after =
            |axis: usize| self.bucket_shape[axis + 1..].iter().map(|extent| (*extent).max(1)).product::<usize>();
        (0..self.bucket_shape.len()).map(move |axis| after(axis) * self.dtype.bytes())
    }
}
