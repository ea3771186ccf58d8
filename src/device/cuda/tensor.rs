//! Matrices described for the tensor memory accelerator.

use super::gpu::Current;
use super::sys::{
    TENSOR_BF16, TENSOR_F16, TENSOR_FILL_ZERO, TENSOR_INTERLEAVE_NONE, TENSOR_PROMOTE_256, TENSOR_SWIZZLE_128,
};
use crate::error::{Result, fail};
use crate::ir::DType;
use crate::kernels::entry::{BOX_ELEMENTS, BOX_LINES, MatrixMap, TensorMap, code};
use std::ffi::c_void;

/// The driver's description of a matrix.
pub fn encode(current: &Current<'_>, map: &MatrixMap) -> Result<TensorMap> {
    let dtype = match map.dtype {
        found if found == code(DType::F16) => TENSOR_F16,
        found if found == code(DType::BF16) => TENSOR_BF16,
        other => return Err(fail!(Internal, "a tensor map of elements of type {other}")),
    };
    let mut encoded = TensorMap::default();
    let extents = [u64::from(map.elements), u64::from(map.lines)];
    let (extent_of_box, steps) = ([BOX_ELEMENTS, BOX_LINES], [1u32; 2]);
    // SAFETY: the driver reads the arrays, of as many numbers as the rank says, and writes the map; it does not follow the address.
    let code = unsafe {
        current.table().tensor_map(
            &raw mut encoded,
            dtype,
            2,
            map.address as *mut c_void,
            extents.as_ptr(),
            &raw const map.line_bytes,
            extent_of_box.as_ptr(),
            steps.as_ptr(),
            TENSOR_INTERLEAVE_NONE,
            TENSOR_SWIZZLE_128,
            TENSOR_PROMOTE_256,
            TENSOR_FILL_ZERO,
        )
    };
    current.check(code, "cuTensorMapEncodeTiled")?;
    Ok(encoded)
}
