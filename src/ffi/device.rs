//! The devices of this machine.

use super::error::{si_error, si_result, text_field};
use super::guard;
use super::pointer::{Out, place, versioned};
use crate::error::{Status, fail};
use crate::runtime::{DeviceInfo, DeviceKind, devices};
use std::ffi::c_char;
use std::mem::MaybeUninit;

/// The CPUs of this machine.
pub const SI_DEVICE_KIND_HOST: u32 = 1;
/// A CUDA GPU.
pub const SI_DEVICE_KIND_CUDA: u32 = 2;

/// The device works.
pub const SI_DEVICE_STATE_OK: u32 = 1;
/// The device had a fault that may be its last.
pub const SI_DEVICE_STATE_SUSPECT: u32 = 2;
/// The device is lost for this process.
pub const SI_DEVICE_STATE_DEAD: u32 = 3;

/// Bytes of `si_device_info.name` and `si_device_info.id`, terminating zero included.
pub const SI_DEVICE_NAME_BYTES: usize = 64;

/// A device that an engine can be opened on.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_device_info {
    /// Set by the caller to sizeof(si_device_info).
    pub struct_size: u32,
    /// One of `SI_DEVICE_KIND_*`.
    pub kind: u32,
    /// Processors: CPUs that this process may use, or multiprocessors of a GPU.
    pub processors: u32,
    /// Zero.
    pub reserved: u32,
    /// Memory of the device in bytes.
    pub memory_bytes: u64,
    /// What `si_engine_options.device` takes, for example "host". Zero-terminated.
    pub id: [c_char; SI_DEVICE_NAME_BYTES],
    /// The maker's name for it. Zero-terminated.
    pub name: [c_char; SI_DEVICE_NAME_BYTES],
}

versioned! { si_device_info: 152 }

impl From<&DeviceInfo> for si_device_info {
    fn from(info: &DeviceInfo) -> Self {
        si_device_info {
            struct_size: size_of::<Self>() as u32,
            kind: match info.kind {
                DeviceKind::Host => SI_DEVICE_KIND_HOST,
                DeviceKind::Cuda => SI_DEVICE_KIND_CUDA,
            },
            processors: info.processors as u32,
            reserved: 0,
            memory_bytes: info.memory_bytes,
            id: text_field(&info.id),
            name: text_field(&info.name),
        }
    }
}

/// Counts the devices of this machine. The host is always one of them, and always the last.
///
/// @param out_count Receives the number, at least 1. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_device_count(
    out_count: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        place(out_count, "out_count")?.write(devices().len() as u32);
        Ok(Status::Ok)
    })
}

/// Describes one device.
///
/// @param device_index From 0, below the count of `si_device_count`.
/// @param out_info Receives the description. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_NO_DEVICE for an index that is too high.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_device_describe(
    device_index: u32,
    out_info: Out<si_device_info>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_info = out_info.check("out_info")?;
        let devices = devices();
        let device = devices.get(device_index as usize);
        let device =
            device.ok_or_else(|| fail!(NoDevice, "there is no device {device_index}, only {}", devices.len()))?;
        out_info.write(&si_device_info::from(device))?;
        Ok(Status::Ok)
    })
}
