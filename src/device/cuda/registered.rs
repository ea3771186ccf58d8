//! Memory that a host program takes or lends, as the GPU sees it: page-locked and mapped.

use super::gpu::Gpu;
use super::memory::{HostMemory, with_retry};
use super::sys::{ALREADY_REGISTERED, CuAddress, REGISTER_PORTABLE_MAPPED};
use crate::device::SharedMemory;
use crate::device::host::memory::PAGE_BYTES;
use crate::device::host::{HostRange, check_range};
use crate::error::{Error, Result, Status};
use std::ffi::c_void;
use std::sync::Arc;

/// A range that the GPU reads and writes in place.
pub enum MappedRange {
    /// Of the GPU's pool, as inputs and outputs of contexts are.
    Pinned { memory: HostMemory, bytes: usize },
    /// The host program's own.
    Registered(Registered),
}

impl MappedRange {
    /// Takes zeroed memory.
    pub fn pinned(gpu: &Arc<Gpu>, bytes: usize) -> Result<Self> {
        Ok(MappedRange::Pinned { memory: HostMemory::take(gpu, bytes)?, bytes })
    }

    /// Lends memory.
    pub fn registered(gpu: &Arc<Gpu>, range: HostRange) -> Result<Self> {
        Ok(MappedRange::Registered(Registered::new(gpu, range)?))
    }

    /// Where the host finds byte `offset`.
    pub fn host(&self, offset: usize) -> *mut u8 {
        self.address().wrapping_add(offset)
    }

    /// Where the GPU finds byte `offset`.
    pub fn device(&self, offset: usize) -> CuAddress {
        match self {
            MappedRange::Pinned { memory, .. } => memory.device(offset),
            MappedRange::Registered(registered) => registered.device + offset as u64,
        }
    }
}

impl SharedMemory for MappedRange {
    fn address(&self) -> *mut u8 {
        match self {
            MappedRange::Pinned { memory, .. } => memory.host(0),
            MappedRange::Registered(registered) => registered.range.address(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            MappedRange::Pinned { bytes, .. } => *bytes,
            MappedRange::Registered(registered) => registered.range.bytes(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            // SAFETY: no more than was taken, zeroed; borrowed mutably, and attached to nothing, so that the GPU leaves it alone.
            MappedRange::Pinned { memory, bytes } => unsafe { std::slice::from_raw_parts_mut(memory.host(0), *bytes) },
            MappedRange::Registered(registered) => registered.range.bytes_mut(),
        }
    }
}

/// A range of the host program's, page-locked until it is dropped.
pub struct Registered {
    gpu: Arc<Gpu>,
    device: CuAddress,
    range: HostRange,
}

impl Registered {
    fn new(gpu: &Arc<Gpu>, range: HostRange) -> Result<Self> {
        check_range(&range)?;
        range.populate()?;
        let current = gpu.enter()?;
        let table = current.table();
        let address = range.address().cast::<c_void>();
        // Pages are locked as a whole, so the last one is registered as a whole, too.
        let bytes = range.bytes().next_multiple_of(PAGE_BYTES);
        // SAFETY: pages that are there, as was just found.
        let register = |(): &mut ()| unsafe { table.host_register(address, bytes, REGISTER_PORTABLE_MAPPED) };
        with_retry(gpu, &current, "cuMemHostRegister", register, ()).map_err(|error| explain(error, address, bytes))?;
        let mut device = 0;
        // SAFETY: mapped above; the driver stores an address.
        let code = unsafe { table.host_address(&raw mut device, address, 0) };
        if let Err(error) = current.check(code, "cuMemHostGetDevicePointer") {
            // SAFETY: registered above and used by nobody.
            let _ = current.check(unsafe { table.host_unregister(address) }, "cuMemHostUnregister");
            return Err(error);
        }
        drop(current);
        Ok(Registered { gpu: gpu.clone(), device, range })
    }
}

/// Says what was to be registered, and whose fault it is that it cannot be.
fn explain(mut error: Error, address: *mut c_void, bytes: usize) -> Error {
    if error.native == ALREADY_REGISTERED {
        error.status = Status::InvalidArgument;
    }
    error.within(format_args!("{bytes} bytes at {address:p}"))
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Ok(current) = self.gpu.enter() {
            let address = self.range.address().cast();
            // SAFETY: registered once, and used by no lane any more.
            let _ = current.check(unsafe { current.table().host_unregister(address) }, "cuMemHostUnregister");
        }
    }
}
