//! Element types, tensor descriptions and views.

use super::pointer::versioned;
use crate::ir::DType;
use crate::runtime::{InputInfo, Model, OutputInfo, SlotView, View};
use std::ffi::{CString, c_char, c_void};

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

/// Where one input or output of a context lies for the bucket selected, or a slot's rows of it. The memory is owned by the
/// context and stays at its address from `si_context_prepare` until the context is freed; that of a slot is the slot's until it is
/// released or abandoned, or its batcher is freed. Afterwards it must not be touched. On the host device it lies in pages that no
/// other context shares; once a freed context's last request has ended (and those of contexts linked to it are freed), touching it is a
/// fault (SIGSEGV), and nothing else gets its address until 1024 more contexts of the engine, or 4 GiB of their inputs and outputs, have
/// been freed, the engine is gone, or memory runs out. On a GPU page-locked memory serves the engine's next context of about the same size, since giving it
/// back stalls the GPU: there a view that is used too late may read and overwrite that context's tensors. Element (i, j, ..) is at
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
    /// First element. Owned by the context, valid until it is freed, or by the slot, valid until it is given back; never null.
    pub data: *mut c_void,
    /// Bytes that may be touched from `data` on.
    pub capacity_bytes: u64,
}

versioned! { si_tensor_info: 216, si_tensor_view: 224 }

/// The number of an element type.
fn dtype_number(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => SI_DTYPE_F32,
        DType::F16 => SI_DTYPE_F16,
        DType::BF16 => SI_DTYPE_BF16,
        DType::I64 => SI_DTYPE_I64,
        DType::I32 => SI_DTYPE_I32,
        DType::I8 => SI_DTYPE_I8,
        DType::U8 => SI_DTYPE_U8,
        DType::Bool => SI_DTYPE_BOOL,
    }
}

/// The names of one input or output as C strings.
pub struct TensorNames {
    name: CString,
    dim_names: Vec<Option<CString>>,
}

/// The names of a model as C strings, which live as long as its handle.
pub struct ModelNames {
    pub(super) inputs: Vec<TensorNames>,
    pub(super) outputs: Vec<TensorNames>,
}

/// A C string; a name that has zero bytes ends at the first.
fn c_string(name: &str) -> CString {
    CString::new(name.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

impl ModelNames {
    /// The names of a model.
    pub fn of(model: &Model) -> Self {
        let input = |input: &InputInfo| TensorNames {
            name: c_string(&input.name),
            dim_names: input.dim_names.iter().map(|name| name.as_deref().map(c_string)).collect(),
        };
        let output = |output: &OutputInfo| TensorNames { name: c_string(&output.name), dim_names: Vec::new() };
        ModelNames {
            inputs: model.inputs().iter().map(input).collect(),
            outputs: model.outputs().iter().map(output).collect(),
        }
    }
}

impl si_tensor_info {
    fn new(names: &TensorNames, dtype: Option<DType>, dims: Option<&[Option<usize>]>, flags: u32) -> Self {
        let mut info = si_tensor_info {
            struct_size: size_of::<Self>() as u32,
            dtype: dtype.map_or(0, dtype_number),
            rank: dims.map_or(0, <[_]>::len) as u32,
            flags: if dims.is_none() { flags | SI_TENSOR_RANK_OPEN } else { flags },
            dims: [0; SI_RANK_MAX],
            dim_names: [std::ptr::null(); SI_RANK_MAX],
            name: names.name.as_ptr(),
        };
        for (to, dim) in info.dims.iter_mut().zip(dims.unwrap_or_default()) {
            *to = dim.map_or(-1, |extent| extent as i64);
        }
        for (to, name) in info.dim_names.iter_mut().zip(&names.dim_names) {
            *to = name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        }
        info
    }

    /// An input.
    pub(super) fn input(input: &InputInfo, names: &TensorNames) -> Self {
        let shape = if input.is_shape_input { SI_TENSOR_SHAPE_INPUT } else { 0 };
        let overridable = if input.is_overridable { SI_TENSOR_OVERRIDABLE } else { 0 };
        Self::new(names, Some(input.dtype), input.dims.as_deref(), shape | overridable)
    }

    /// An output.
    pub(super) fn output(output: &OutputInfo, names: &TensorNames) -> Self {
        Self::new(names, output.dtype, output.dims.as_deref(), 0)
    }
}

impl si_tensor_view {
    fn new(
        dtype: DType,
        shape: &[usize],
        strides: impl IntoIterator<Item = usize>,
        address: *mut u8,
        bytes: usize,
    ) -> Self {
        let mut result = si_tensor_view {
            struct_size: size_of::<Self>() as u32,
            dtype: dtype_number(dtype),
            rank: shape.len() as u32,
            reserved: 0,
            dims: [0; SI_RANK_MAX],
            strides_bytes: [0; SI_RANK_MAX],
            data: address.cast(),
            capacity_bytes: bytes as u64,
        };
        for (to, &extent) in result.dims.iter_mut().zip(shape) {
            *to = extent as i64;
        }
        for (to, stride) in result.strides_bytes.iter_mut().zip(strides) {
            *to = stride as i64;
        }
        result
    }
}

impl From<&View<'_>> for si_tensor_view {
    fn from(view: &View) -> Self {
        Self::new(view.dtype, view.shape, view.strides_bytes(), view.address, view.capacity_bytes)
    }
}

impl From<&SlotView> for si_tensor_view {
    fn from(view: &SlotView) -> Self {
        let strides = view.strides_bytes.as_slice().iter().copied();
        Self::new(view.dtype, view.shape.as_slice(), strides, view.address, view.capacity_bytes)
    }
}
