//! Element types, tensor descriptions and views.

use super::pointer::versioned;
use std::ffi::{c_char, c_void};

/// IEEE 754 binary32, 4 bytes. Element types are little-endian.
pub const SI_DTYPE_F32: u32 = 1;
/// IEEE 754 binary16, 2 bytes.
pub const SI_DTYPE_F16: u32 = 2;
/// The upper half of a binary32, 2 bytes.
pub const SI_DTYPE_BF16: u32 = 3;
/// Signed integer, 8 bytes.
pub const SI_DTYPE_I64: u32 = 4;
/// Signed integer, 4 bytes.
pub const SI_DTYPE_I32: u32 = 5;
/// Signed integer, 1 byte.
pub const SI_DTYPE_I8: u32 = 6;
/// Unsigned integer, 1 byte.
pub const SI_DTYPE_U8: u32 = 7;
/// Truth value, 1 byte: 0 or 1.
pub const SI_DTYPE_BOOL: u32 = 8;

/// Highest rank of a tensor.
pub const SI_RANK_MAX: usize = 12;

/// `si_tensor_info.flags`: the file declares no shape for this input or output; `rank` is 0 and says nothing.
pub const SI_TENSOR_RANK_OPEN: u32 = 1;
/// `si_tensor_info.flags`: a shape input. Its values are part of a bucket's key.
pub const SI_TENSOR_SHAPE_INPUT: u32 = 2;
/// `si_tensor_info.flags`: an initializer that the load options made overridable.
pub const SI_TENSOR_OVERRIDABLE: u32 = 4;

/// An input or output as the model declares it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_tensor_info {
    /// Set by the caller to sizeof(si_tensor_info).
    pub struct_size: u32,
    /// One of `SI_DTYPE_*`; 0 for an output whose type only a bucket tells.
    pub dtype: u32,
    /// Number of axes.
    pub rank: u32,
    /// A sum of `SI_TENSOR_*`.
    pub flags: u32,
    /// Extents, outermost first; -1 where the model leaves one open.
    pub dims: [i64; SI_RANK_MAX],
    /// Names of symbolic axes, null where there is none. Owned by the model, valid until it is freed.
    pub dim_names: [*const c_char; SI_RANK_MAX],
    /// ONNX name. Owned by the model, valid until it is freed.
    pub name: *const c_char,
}

/// Where one input or output of a context lies for the bucket selected. The memory is owned by the context and stays at
/// its address from `si_context_prepare` until the context is freed. Element (i, j, ..) is at
/// `data + i * strides_bytes[0] + j * strides_bytes[1] + ..`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_tensor_view {
    /// Set by the caller to sizeof(si_tensor_view).
    pub struct_size: u32,
    /// One of `SI_DTYPE_*`.
    pub dtype: u32,
    /// Number of axes.
    pub rank: u32,
    /// Zero.
    pub reserved: u32,
    /// Extents, outermost first.
    pub dims: [i64; SI_RANK_MAX],
    /// Distance in bytes between neighbours along each axis. They belong to the prepared bucket, so a shape that is
    /// padded to a larger bucket has gaps between its rows.
    pub strides_bytes: [i64; SI_RANK_MAX],
    /// First element. Owned by the context, valid until it is freed; never null.
    pub data: *mut c_void,
    /// Bytes that may be touched from `data` on.
    pub capacity_bytes: u64,
}

versioned! { si_tensor_info: 216, si_tensor_view: 224 }
