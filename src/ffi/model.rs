//! Models.

use super::engine::si_engine;
use super::error::{si_error, si_status};
use super::guard;
use super::pointer::{In, Many, Out, Text, versioned};
use super::tensor::{SI_RANK_MAX, si_tensor_info};
use std::ffi::c_void;
use std::mem::MaybeUninit;

/// One ONNX file at one precision: its weights on the device once, one program per bucket, shared by all contexts. Any
/// thread may use it, several at once. Contexts keep it alive, so it may be freed before them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_model {
    /// 0 is no model.
    pub handle: u64,
}

/// IEEE 754 binary32 throughout. The default.
pub const SI_PRECISION_FP32: u32 = 1;
/// TensorFloat-32 products, the rest binary32.
pub const SI_PRECISION_TF32: u32 = 2;
/// binary16 storage, binary32 accumulation.
pub const SI_PRECISION_FP16: u32 = 3;
/// bfloat16 storage, binary32 accumulation.
pub const SI_PRECISION_BF16: u32 = 4;

/// One input of a bucket.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_bucket_input {
    /// Set by the caller to sizeof(si_bucket_input), the same in all elements of an array.
    pub struct_size: u32,
    /// Number of axes.
    pub rank: u32,
    /// Extents, outermost first.
    pub dims: [i64; SI_RANK_MAX],
    /// For a shape input, its values in the input's element type, row-major; null for all others. Borrowed for the call.
    pub value: Many<c_void>,
    /// Bytes of value.
    pub value_bytes: u64,
}

/// One concrete set of input shapes, and the values of shape inputs.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_bucket {
    /// Set by the caller to sizeof(si_bucket), the same in all elements of an array.
    pub struct_size: u32,
    /// Elements of inputs: the model's number of inputs.
    pub input_count: u32,
    /// Per model input its shape. Borrowed for the call.
    pub inputs: In<si_bucket_input>,
}

/// The dimension counts independent rows. Proved by analysis of the model at load, or the load is refused.
pub const SI_PADDING_BATCH: u32 = 1;
/// The dimension may be padded because the model masks it. Checked at load: a padded run must equal the exact one.
pub const SI_PADDING_MASKED: u32 = 2;

/// An axis of an input that may be smaller than its bucket's. What is unused of the input is filled before the request
/// starts.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_padding {
    /// Set by the caller to sizeof(si_padding), the same in all elements of an array.
    pub struct_size: u32,
    /// One of `SI_PADDING_*`.
    pub kind: u32,
    /// A number of the caller's choice: axes with the same number always have the same extent.
    pub dimension: u32,
    /// The input.
    pub input_index: u32,
    /// The axis of that input.
    pub axis: u32,
    /// Zero.
    pub reserved: u32,
    /// What the unused part is filled with, for example 0 in an attention mask; converted to the input's element type.
    pub value: f64,
}

/// How a model is loaded. All zero (but struct_size) means every default; a null pointer does too.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_model_options {
    /// Set by the caller to sizeof(si_model_options).
    pub struct_size: u32,
    /// One of `SI_PRECISION_*`. 0: SI_PRECISION_FP32. The host device has no other.
    pub precision: u32,
    /// Buckets to make programs for at load. Borrowed for the call. With none, a model whose inputs all have fixed shapes
    /// gets that one bucket; any other gets its buckets from si_model_add_bucket.
    pub buckets: In<si_bucket>,
    /// Elements of buckets.
    pub bucket_count: u32,
    /// Elements of paddings.
    pub padding_count: u32,
    /// Axes that may be padded. Borrowed for the call. With none, a request has exactly the shapes of a bucket.
    pub paddings: In<si_padding>,
    /// Names of initializers that become inputs, after the model's own and in this order. Borrowed for the call.
    pub overridables: Many<Text>,
    /// Elements of overridables.
    pub overridable_count: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a model is and takes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_model_info {
    /// Set by the caller to sizeof(si_model_info).
    pub struct_size: u32,
    /// One of `SI_PRECISION_*`.
    pub precision: u32,
    /// Inputs, overridable initializers included.
    pub input_count: u32,
    /// Outputs.
    pub output_count: u32,
    /// Buckets that have a program.
    pub bucket_count: u32,
    /// The ONNX operator set of the file.
    pub opset: u32,
    /// Bytes of weights on the device, packed.
    pub weights_bytes: u64,
    /// Bytes of the model file kept because the model was loaded from memory.
    pub retained_bytes: u64,
    /// Equal fingerprints give bit-identical results. Over all buckets.
    pub fingerprint: u64,
}

versioned! { si_bucket_input: 120, si_bucket: 16, si_padding: 32, si_model_options: 48, si_model_info: 48 }

/// Loads an ONNX file. External data is read from the file's own directory only.
///
/// @param engine Borrowed for the call; the model keeps what it needs of it.
/// @param path Zero-terminated, borrowed for the call. si_model_add_bucket opens it again.
/// @param options Borrowed for the call; null means every default.
/// @param out_model Receives the model, owned by the caller, free with si_model_free.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_NOT_FOUND, SI_IO,
///     SI_FORBIDDEN_PATH, SI_MALFORMED, SI_UNSUPPORTED, SI_UNSUPPORTED_DYNAMIC, SI_TOO_LARGE, SI_SHAPE_MISMATCH (a bucket does
///     not suit the model), SI_LIMIT_REACHED, SI_OUT_OF_MEMORY, SI_DRIVER, SI_DEVICE_LOST.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_load(
    engine: si_engine,
    path: Text,
    options: In<si_model_options>,
    out_model: Option<&mut MaybeUninit<si_model>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_status {
    guard::todo(error, &(engine, path, options, out_model))
}

/// Loads an ONNX file from memory. The library keeps a copy of it (`si_model_info.retained_bytes`), since
/// si_model_add_bucket needs the weights once more; load from a path where that memory matters. External data is refused.
///
/// @param engine Borrowed for the call; the model keeps what it needs of it.
/// @param data The file's bytes, borrowed for the call.
/// @param data_bytes Their number.
/// @param options Borrowed for the call; null means every default.
/// @param out_model Receives the model, owned by the caller, free with si_model_free.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return As si_model_load, without SI_NOT_FOUND and SI_IO.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_load_bytes(
    engine: si_engine,
    data: Many<u8>,
    data_bytes: usize,
    options: In<si_model_options>,
    out_model: Option<&mut MaybeUninit<si_model>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_status {
    guard::todo(error, &(engine, data, data_bytes, options, out_model))
}

/// Makes a program for one more bucket. Contexts that are prepared already do not get it. A control call: it may take as
/// long as a load. A bucket that the model has already is SI_OK.
///
/// @param model Borrowed for the call.
/// @param bucket Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_SHAPE_MISMATCH, SI_NOT_FOUND, SI_IO,
///     SI_WRONG_STATE (the file has changed since the load), SI_UNSUPPORTED, SI_UNSUPPORTED_DYNAMIC, SI_TOO_LARGE,
///     SI_LIMIT_REACHED, SI_OUT_OF_MEMORY, SI_DRIVER, SI_DEVICE_LOST.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_add_bucket(
    model: si_model,
    bucket: In<si_bucket>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_status {
    guard::todo(error, &(model, bucket))
}

/// Describes a model.
///
/// @param model Borrowed for the call.
/// @param out_info Receives the description. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_describe(
    model: si_model,
    out_info: Out<si_model_info>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_status {
    guard::todo(error, &(model, out_info))
}

/// Describes one input.
///
/// @param model Borrowed for the call.
/// @param input_index From 0, in file order, then the overridable initializers.
/// @param out_info Receives the description. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_input(
    model: si_model,
    input_index: u32,
    out_info: Out<si_tensor_info>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_status {
    guard::todo(error, &(model, input_index, out_info))
}

/// Describes one output. Extents that are not the same in all buckets so far are -1.
///
/// @param model Borrowed for the call.
/// @param output_index From 0, in file order.
/// @param out_info Receives the description. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_output(
    model: si_model,
    output_index: u32,
    out_info: Out<si_tensor_info>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_status {
    guard::todo(error, &(model, output_index, out_info))
}

/// Frees a model. Its weights go with its last context.
///
/// @param model Consumed. The zero handle is a no-op.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_free(model: si_model, error: Option<&mut MaybeUninit<si_error>>) -> si_status {
    guard::todo(error, &model)
}
