//! Parts of a lane's memory that several threads of the host write at once, each its own.

use crate::device::LaneMemory;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// One input or output of a lane. Nobody has it for himself: elements are written and read one by one, as atomics.
pub struct Area {
    address: *mut u8,
    bytes: usize,
    /// Keeps the memory.
    _memory: Arc<dyn LaneMemory>,
}

// SAFETY: the memory is kept, and this type reads and writes it as atomics only.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    /// The bytes that `place` says of a lane whose memory this is.
    pub fn new(place: (*mut u8, usize), memory: Arc<dyn LaneMemory>) -> Self {
        Area { address: place.0, bytes: place.1, _memory: memory }
    }

    /// The address of so many bytes; `None` if they are not all inside.
    pub fn at(&self, offset: usize, bytes: usize) -> Option<*mut u8> {
        let is_inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        is_inside.then(|| self.address.wrapping_add(offset))
    }

    /// Writes an element `count` times, one behind the other. What lies outside, or is not aligned, is left out.
    pub fn fill(&self, offset: usize, element: &[u8], count: usize) {
        let size = element.len();
        let Some(address) = self.at(offset, size.saturating_mul(count)) else { return };
        if size == 0 || !(address as usize).is_multiple_of(size) {
            return;
        }
        for index in 0..count {
            store(address.wrapping_add(index * size), element);
        }
    }
}

/// Stores one element of 1, 2, 4 or 8 bytes. Only [`Area::fill`] calls it, with an aligned address inside of an area.
fn store(address: *mut u8, element: &[u8]) {
    macro_rules! store_as {
        ($atomic:ty, $integer:ty) => {{
            let mut bytes = [0; size_of::<$integer>()];
            bytes.copy_from_slice(element);
            // SAFETY: aligned, inside memory that is kept, and accessed as atomics by this library's own code.
            unsafe { <$atomic>::from_ptr(address.cast()) }.store(<$integer>::from_ne_bytes(bytes), Relaxed);
        }};
    }
    match element.len() {
        1 => store_as!(AtomicU8, u8),
        2 => store_as!(AtomicU16, u16),
        4 => store_as!(AtomicU32, u32),
        8 => store_as!(AtomicU64, u64),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Pages;
    use super::*;

    impl LaneMemory for Pages {}

    #[test]
    fn elements_are_filled_in_place_and_nothing_else() {
        let pages = Arc::new(Pages::map(4096).unwrap());
        let area = Area::new((pages.address(), 64), pages.clone());
        area.fill(8, &7u32.to_ne_bytes(), 3);
        area.fill(24, &[9], 2);
        area.fill(60, &1u64.to_ne_bytes(), 1);
        area.fill(2, &1u32.to_ne_bytes(), 1);
        // SAFETY: inside of the page, and nobody writes now.
        let bytes = unsafe { std::slice::from_raw_parts(pages.address(), 128) };
        let mut expected = [0u8; 128];
        for place in [8, 12, 16] {
            expected[place] = 7;
        }
        expected[24..26].fill(9);
        assert_eq!(bytes, expected);
        assert!(area.at(60, 4).is_some() && area.at(60, 5).is_none() && area.at(usize::MAX, 2).is_none());
    }
}
