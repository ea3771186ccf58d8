//! What a host that opens the library at run time checks before its first call.

use super::batcher::{si_batch_stats, si_batch_timings, si_batcher_options};
use super::context::{si_context_options, si_submit_options, si_timings};
use super::device::si_device_info;
use super::engine::{si_completion, si_engine_options, si_stats};
use super::error::si_error;
use super::memory::{si_copy_options, si_memory_info, si_memory_options};
use super::model::{si_bucket, si_bucket_input, si_model_info, si_model_options, si_padding};
use super::record::si_completion_record;
use super::tensor::{si_tensor_info, si_tensor_view};
use std::ffi::{CStr, c_char};

/// Version of the binary interface. It grows only when a host built against an older header would break.
pub const SI_ABI_VERSION: u32 = 1;

/// Numbers of the structs, for `si_struct_bytes`.
pub const SI_STRUCT_ERROR: u32 = 1;
/// `si_device_info`
pub const SI_STRUCT_DEVICE_INFO: u32 = 2;
/// `si_engine_options`
pub const SI_STRUCT_ENGINE_OPTIONS: u32 = 3;
/// `si_stats`
pub const SI_STRUCT_STATS: u32 = 4;
/// `si_completion`
pub const SI_STRUCT_COMPLETION: u32 = 5;
/// `si_model_options`
pub const SI_STRUCT_MODEL_OPTIONS: u32 = 6;
/// `si_bucket`
pub const SI_STRUCT_BUCKET: u32 = 7;
/// `si_bucket_input`
pub const SI_STRUCT_BUCKET_INPUT: u32 = 8;
/// `si_padding`
pub const SI_STRUCT_PADDING: u32 = 9;
/// `si_model_info`
pub const SI_STRUCT_MODEL_INFO: u32 = 10;
/// `si_tensor_info`
pub const SI_STRUCT_TENSOR_INFO: u32 = 11;
/// `si_tensor_view`
pub const SI_STRUCT_TENSOR_VIEW: u32 = 12;
/// `si_context_options`
pub const SI_STRUCT_CONTEXT_OPTIONS: u32 = 13;
/// `si_submit_options`
pub const SI_STRUCT_SUBMIT_OPTIONS: u32 = 14;
/// `si_completion_record`
pub const SI_STRUCT_COMPLETION_RECORD: u32 = 15;
/// `si_timings`
pub const SI_STRUCT_TIMINGS: u32 = 16;
/// `si_batcher_options`
pub const SI_STRUCT_BATCHER_OPTIONS: u32 = 17;
/// `si_batch_stats`
pub const SI_STRUCT_BATCH_STATS: u32 = 18;
/// `si_memory_options`
pub const SI_STRUCT_MEMORY_OPTIONS: u32 = 19;
/// `si_memory_info`
pub const SI_STRUCT_MEMORY_INFO: u32 = 20;
/// `si_copy_options`
pub const SI_STRUCT_COPY_OPTIONS: u32 = 21;
/// `si_batch_timings`
pub const SI_STRUCT_BATCH_TIMINGS: u32 = 22;

/// The library's binary interface version.
///
/// @return The `SI_ABI_VERSION` that the library was built with. Refuse to go on when it is not the header's.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_abi_version() -> u32 {
    SI_ABI_VERSION
}

/// The library's version.
///
/// @return A static string such as "0.1.0", valid for ever.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_version_string() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => unreachable!(),
    };
    VERSION.as_ptr()
}

/// The size that the library gives a struct.
///
/// @param struct_id One of the `SI_STRUCT_*` numbers.
/// @return Bytes; 0 for a number that the library does not know. A library that is newer than the header may answer
///     more than the header's size; less means that the library is older, and fields at the end are ignored.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_struct_bytes(struct_id: u32) -> u32 {
    let bytes = match struct_id {
        SI_STRUCT_ERROR => size_of::<si_error>(),
        SI_STRUCT_DEVICE_INFO => size_of::<si_device_info>(),
        SI_STRUCT_ENGINE_OPTIONS => size_of::<si_engine_options>(),
        SI_STRUCT_STATS => size_of::<si_stats>(),
        SI_STRUCT_COMPLETION => size_of::<si_completion>(),
        SI_STRUCT_MODEL_OPTIONS => size_of::<si_model_options>(),
        SI_STRUCT_BUCKET => size_of::<si_bucket>(),
        SI_STRUCT_BUCKET_INPUT => size_of::<si_bucket_input>(),
        SI_STRUCT_PADDING => size_of::<si_padding>(),
        SI_STRUCT_MODEL_INFO => size_of::<si_model_info>(),
        SI_STRUCT_TENSOR_INFO => size_of::<si_tensor_info>(),
        SI_STRUCT_TENSOR_VIEW => size_of::<si_tensor_view>(),
        SI_STRUCT_CONTEXT_OPTIONS => size_of::<si_context_options>(),
        SI_STRUCT_SUBMIT_OPTIONS => size_of::<si_submit_options>(),
        SI_STRUCT_COMPLETION_RECORD => size_of::<si_completion_record>(),
        SI_STRUCT_TIMINGS => size_of::<si_timings>(),
        SI_STRUCT_BATCHER_OPTIONS => size_of::<si_batcher_options>(),
        SI_STRUCT_BATCH_STATS => size_of::<si_batch_stats>(),
        SI_STRUCT_MEMORY_OPTIONS => size_of::<si_memory_options>(),
        SI_STRUCT_MEMORY_INFO => size_of::<si_memory_info>(),
        SI_STRUCT_COPY_OPTIONS => size_of::<si_copy_options>(),
        SI_STRUCT_BATCH_TIMINGS => size_of::<si_batch_timings>(),
        _ => 0,
    };
    bytes as u32
}
