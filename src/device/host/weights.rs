//! Packed constants, shared by all buckets and contexts of a model.

use super::gemm::{pack_panels, pack_strips};
use crate::error::{Result, fail};
use crate::lower::arena::ALIGNMENT;
use crate::lower::host::{ConstantDef, Layout};
use std::alloc;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// From this size on an allocation is aligned to huge pages and the kernel is asked for them.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The memory of one packed constant.
#[derive(Debug)]
pub struct Weights {
    address: NonNull<u8>,
    layout: alloc::Layout,
}

// SAFETY: the memory is owned, and written only while it is built.
unsafe impl Send for Weights {}
// SAFETY: as above.
unsafe impl Sync for Weights {}

impl Weights {
    /// Zeroed memory of so many bytes, at least one.
    fn allocate(bytes: usize) -> Result<Self> {
        let alignment = if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { ALIGNMENT };
        let layout = alloc::Layout::from_size_align(bytes.max(1), alignment)
            .map_err(|_| fail!(TooLarge, "a constant of {bytes} bytes exceeds the address space"))?;
        // SAFETY: the size is not zero.
        let address = unsafe { alloc::alloc_zeroed(layout) };
        let address =
            NonNull::new(address).ok_or_else(|| fail!(OutOfMemory, "no memory for {bytes} bytes of weights"))?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE_BYTES {
            // SAFETY: the range is ours; the advice changes no contents. A refusal only costs speed.
            unsafe { libc::madvise(address.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Weights { address, layout })
    }

    /// The first byte, aligned to 64 bytes or more.
    pub fn address(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the allocation is that long, initialised, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { alloc::dealloc(self.address.as_ptr(), self.layout) };
    }
}

/// The packed constants of one model by their keys. Programs own them: what no program needs any more is gone.
#[derive(Debug, Default)]
pub struct WeightStore {
    by_key: Mutex<HashMap<u128, Weak<Weights>>>,
}

impl WeightStore {
    /// An empty store.
    pub fn new() -> Self {
        WeightStore::default()
    }

    /// Bytes of all constants that programs hold.
    pub fn bytes(&self) -> usize {
        let mut held = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, weights| weights.strong_count() > 0);
        held.values().filter_map(Weak::upgrade).map(|weights| weights.layout.size()).sum()
    }

    /// The constant, packed now unless it is held already.
    pub fn pack(&self, constant: &ConstantDef) -> Result<Arc<Weights>> {
        // Held while packing, so that two buckets loaded at once do not pack the same constant twice.
        let mut held = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(weights) = held.get(&constant.key).and_then(Weak::upgrade) {
            return Ok(weights);
        }
        let mut weights = Weights::allocate(constant.bytes)?;
        pack(constant, weights.bytes_mut());
        let weights = Arc::new(weights);
        held.insert(constant.key, Arc::downgrade(&weights));
        Ok(weights)
    }
}

/// Arranges the elements of a constant's view in its layout.
fn pack(constant: &ConstantDef, packed: &mut [u8]) {
    let (simd, source, view) = (super::traits().simd, &constant.source, &constant.view);
    match &constant.layout {
        Layout::Dense => pack_dense(constant, packed),
        Layout::Panels(panels) => pack_panels(simd, panels, source, view, packed),
        Layout::Strips(strips) => pack_strips(simd, strips, source, view, packed),
    }
}

fn pack_dense(constant: &ConstantDef, packed: &mut [u8]) {
    let (data, view) = (constant.source.data(), &constant.view);
    let size = constant.source.dtype().bytes();
    if view.is_dense() {
        let start = view.offset * size;
        let bytes = view.count() * size;
        packed[..bytes].copy_from_slice(if bytes == 0 { &[] } else { &data[start..start + bytes] });
        return;
    }
    let mut elements = packed.chunks_exact_mut(size);
    view.for_each_position(|position| {
        if let Some(element) = elements.next() {
            element.copy_from_slice(&data[position * size..(position + 1) * size]);
        }
    });
}
