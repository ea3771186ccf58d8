//! Rows of device memory, padded as the driver finds best or dense.

use super::gpu::Gpu;
use super::graph::Stream;
use super::memory::with_retry;
use super::sys::{CuAddress, CuCopyRows, CuRowsSide, MEMORY_DEVICE, MEMORY_HOST};
use crate::device::{Priority, Rectangle, RowLayout, RowMemory};
use crate::error::{Result, fail};
use std::ffi::{c_uint, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

/// Rows, with a stream of their own: copies wait for nothing else, and nothing else for them.
pub struct CudaRows {
    gpu: Arc<Gpu>,
    address: CuAddress,
    pitch_bytes: usize,
    layout: RowLayout,
    stream: Stream,
}

impl CudaRows {
    /// Takes memory; what it holds is undefined.
    pub fn take(gpu: &Arc<Gpu>, layout: &RowLayout) -> Result<Self> {
        let RowLayout { rows, row_bytes, element_bytes } = *layout;
        let stream = Stream::new(gpu, Priority::Normal, None)?;
        let current = gpu.enter()?;
        let table = current.table();
        let what = if element_bytes.is_some() { "cuMemAllocPitch" } else { "cuMemAlloc" };
        let dense = rows.checked_mul(row_bytes);
        let dense =
            dense.ok_or_else(|| fail!(TooLarge, "{rows} rows of {row_bytes} bytes exceed the address space"))?;
        let allocate = |(address, pitch): &mut (CuAddress, usize)| match element_bytes {
            // SAFETY: the driver stores an address and a number.
            Some(element) => unsafe { table.memory_allocate_rows(address, pitch, row_bytes, rows, element as c_uint) },
            // SAFETY: the driver stores an address.
            None => unsafe { table.memory_allocate(address, dense) },
        };
        let (address, pitch_bytes) = with_retry(gpu, &current, what, allocate, (0, row_bytes))
            .map_err(|error| error.within(format_args!("{rows} rows of {row_bytes} bytes of device memory")))?;
        drop(current);
        Ok(CudaRows { gpu: gpu.clone(), address, pitch_bytes, layout: *layout, stream })
    }

    fn inside(&self, rectangle: &Rectangle) -> CuRowsSide {
        let position = [rectangle.first_byte, rectangle.first_row];
        let (memory, device, pitch) = (MEMORY_DEVICE, self.address, self.pitch_bytes);
        CuRowsSide { position, memory, host: null_mut(), device, array: null_mut(), pitch }
    }

    fn outside(rectangle: &Rectangle, host: *mut c_void) -> CuRowsSide {
        // One row may have any pitch; the driver wants one that it can have.
        let pitch = if rectangle.rows < 2 { rectangle.row_bytes } else { rectangle.host_pitch_bytes };
        CuRowsSide { position: [0; 2], memory: MEMORY_HOST, host, device: 0, array: null_mut(), pitch }
    }

    /// Copies a rectangle that was checked, unless there is nothing in it.
    ///
    /// # Safety
    /// The host's side is memory that the copy may access.
    unsafe fn copy(&self, rectangle: &Rectangle, from: CuRowsSide, to: CuRowsSide) -> Result<()> {
        let current = self.gpu.enter()?;
        if rectangle.rows == 0 || rectangle.row_bytes == 0 {
            return Ok(());
        }
        let copy = CuCopyRows { from, to, extent: [rectangle.row_bytes, rectangle.rows] };
        // SAFETY: the device's side was checked to be inside of memory that is owned, the other one is the caller's.
        unsafe { self.stream.copy_rows(&current, &copy) }
    }
}

impl RowMemory for CudaRows {
    fn pitch_bytes(&self) -> usize {
        self.pitch_bytes
    }

    fn write(&self, rectangle: &Rectangle, from: &[u8]) -> Result<()> {
        rectangle.check(&self.layout, from.len())?;
        let outside = Self::outside(rectangle, from.as_ptr().cast_mut().cast());
        // SAFETY: the driver reads inside of `from`, as was checked, and writes nothing there.
        unsafe { self.copy(rectangle, outside, self.inside(rectangle)) }
    }

    fn read(&self, rectangle: &Rectangle, into: &mut [u8]) -> Result<()> {
        rectangle.check(&self.layout, into.len())?;
        let outside = Self::outside(rectangle, into.as_mut_ptr().cast());
        // SAFETY: the driver writes inside of `into`, as was checked.
        unsafe { self.copy(rectangle, self.inside(rectangle), outside) }
    }
}

impl Drop for CudaRows {
    fn drop(&mut self) {
        if let Ok(current) = self.gpu.enter() {
            // SAFETY: taken here; every copy has been waited for.
            let _ = current.check(unsafe { current.table().memory_free(self.address) }, "cuMemFree");
        }
    }
}
