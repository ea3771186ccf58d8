//! Device memory and page-locked host memory. What is given back is kept for the next taker of that size: the driver's own
//! functions for it wait for the whole GPU, and would stall replays.

use super::gpu::{Current, Gpu};
use super::sys::{CuAddress, HOST_PORTABLE_MAPPED, OUT_OF_MEMORY};
use crate::device::host::numa;
use crate::device::host::process::Lock;
use crate::error::{Result, ensure, fail};
use crate::limits::CONTEXT_BYTES_MAX;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// Alignment of every area: what the driver guarantees, and what every kernel may rely on.
pub const ALIGNMENT: usize = 256;

/// Areas given back, by size.
#[derive(Default)]
struct Free {
    device: HashMap<usize, Vec<CuAddress>>,
    host: HashMap<usize, Vec<(usize, CuAddress)>>,
}

/// The areas of one GPU that nobody uses.
#[derive(Default)]
pub struct Pools {
    free: Lock<Free>,
}

/// The size actually taken, coarse enough that areas of nearly equal size can replace each other.
fn rounded(bytes: usize) -> Result<usize> {
    let step = match bytes {
        0..0x10_0000 => 0x1000,
        0x10_0000..0x100_0000 => 0x1_0000,
        _ => 0x20_0000,
    };
    let rounded = bytes.max(1).checked_next_multiple_of(step);
    rounded.ok_or_else(|| fail!(TooLarge, "{bytes} bytes exceed the address space"))
}

impl Pools {
    /// Gives everything unused back to the driver.
    pub fn empty(&self, current: &Current<'_>) {
        let Ok(free) = self.free.lock().map(|mut free| std::mem::take(&mut *free)) else { return };
        for address in free.device.into_values().flatten() {
            // SAFETY: taken from the driver, and used by nobody.
            let _ = current.check(unsafe { current.table().memory_free(address) }, "cuMemFree");
        }
        for (address, _) in free.host.into_values().flatten() {
            // SAFETY: as above.
            let _ = current.check(unsafe { current.table().host_free(address as *mut c_void) }, "cuMemFreeHost");
        }
    }
}

/// Runs a driver's allocation, and once more after everything unused has been given back.
pub(super) fn with_retry<T>(
    gpu: &Gpu,
    current: &Current<'_>,
    what: &str,
    mut allocate: impl FnMut(&mut T) -> i32,
    mut out: T,
) -> Result<T> {
    let mut code = allocate(&mut out);
    if code == OUT_OF_MEMORY {
        gpu.pools.empty(current);
        code = allocate(&mut out);
    }
    current.check(code, what).map(|()| out)
}

/// Memory of a GPU.
pub struct DeviceMemory {
    gpu: Arc<Gpu>,
    address: CuAddress,
    /// What it counts as in the pool.
    bytes: usize,
}

impl DeviceMemory {
    /// Takes at least so many bytes; what they hold is left over from others.
    pub fn take(gpu: &Arc<Gpu>, bytes: usize) -> Result<Self> {
        let bytes = rounded(bytes)?;
        gpu.ensure_here()?;
        let pooled = gpu.pools.free.lock()?.device.get_mut(&bytes).and_then(Vec::pop);
        let address = match pooled {
            Some(address) => address,
            None => {
                let current = gpu.enter()?;
                // SAFETY: the driver stores an address.
                let allocate = |out: &mut CuAddress| unsafe { current.table().memory_allocate(out, bytes) };
                with_retry(gpu, &current, "cuMemAlloc", allocate, 0)
                    .map_err(|error| error.within(format_args!("{bytes} bytes of device memory")))?
            }
        };
        Ok(DeviceMemory { gpu: gpu.clone(), address, bytes })
    }

    /// The first byte, a multiple of [`ALIGNMENT`].
    pub fn address(&self) -> CuAddress {
        self.address
    }

    /// Bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // A forked child leaves it to the parent, whose it is.
        if let Ok(mut free) = self.gpu.pools.free.lock() {
            free.device.entry(self.bytes).or_default().push(self.address);
        }
    }
}

/// Page-locked host memory that the GPU reads and writes.
pub struct HostMemory {
    gpu: Arc<Gpu>,
    address: *mut u8,
    device: CuAddress,
    bytes: usize,
}

// SAFETY: addresses of memory that is owned; who accesses it answers for the access.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// Takes at least so many bytes, zeroed.
    pub fn take(gpu: &Arc<Gpu>, bytes: usize) -> Result<Self> {
        ensure!(bytes <= CONTEXT_BYTES_MAX, TooLarge, "{bytes} bytes of host memory are above {CONTEXT_BYTES_MAX}");
        let bytes = rounded(bytes)?;
        gpu.ensure_here()?;
        let pooled = gpu.pools.free.lock()?.host.get_mut(&bytes).and_then(Vec::pop);
        let (address, device) = match pooled {
            Some((address, device)) => (address as *mut u8, device),
            None => allocate_host(gpu, bytes)?,
        };
        // SAFETY: that many bytes, and nobody else's.
        unsafe { address.write_bytes(0, bytes) };
        Ok(HostMemory { gpu: gpu.clone(), address, device, bytes })
    }

    /// Where the host finds byte `offset`.
    pub fn host(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.bytes);
        self.address.wrapping_add(offset)
    }

    /// Where the GPU finds byte `offset`.
    pub fn device(&self, offset: usize) -> CuAddress {
        self.device + offset as u64
    }

    /// Bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn allocate_host(gpu: &Arc<Gpu>, bytes: usize) -> Result<(*mut u8, CuAddress)> {
    let current = gpu.enter()?;
    let table = current.table();
    // SAFETY: the driver stores an address.
    let allocate = |out: &mut *mut c_void| unsafe { table.host_allocate(out, bytes, HOST_PORTABLE_MAPPED) };
    let take = || with_retry(gpu, &current, "cuMemHostAlloc", allocate, std::ptr::null_mut());
    let address = numa::near(gpu.identity().node.as_ref(), take)
        .map_err(|error| error.within(format_args!("{bytes} bytes of page-locked host memory")))?;
    let mut device = 0;
    // SAFETY: mapped memory, taken above.
    let code = unsafe { table.host_address(&raw mut device, address, 0) };
    if let Err(error) = current.check(code, "cuMemHostGetDevicePointer") {
        // SAFETY: taken above and used by nobody.
        let _ = current.check(unsafe { table.host_free(address) }, "cuMemFreeHost");
        return Err(error);
    }
    Ok((address.cast(), device))
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Ok(mut free) = self.gpu.pools.free.lock() {
            free.host.entry(self.bytes).or_default().push((self.address as usize, self.device));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_so_that_areas_can_be_reused() {
        let sizes = [0, 1, 4097, 0x10_0001, 0x100_0001].map(|bytes| rounded(bytes).unwrap());
        assert_eq!(sizes, [0x1000, 0x1000, 0x2000, 0x11_0000, 0x120_0000]);
        assert!(rounded(usize::MAX).is_err());
    }
}
