//! Addresses of memory that has been freed. Hosts keep views of a context's memory, and one that is used after the context is
//! gone shall fault rather than find what another context has there by now. So the addresses stay reserved, without memory behind
//! them and without access, until enough others have been freed.

use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_RANGES};
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicU64, AtomicUsize};

const PAGE_BITS: u32 = 12;
/// A range is one word: its first page, and in so many bits their number.
const COUNT_BITS: u32 = 28;
/// No range.
const NONE: u64 = 0;

/// A ring of the last ranges that were freed. It has no lock: whoever takes one out of its place, unmaps it.
#[derive(Debug)]
pub struct Quarantine {
    ranges: Box<[AtomicU64]>,
    next: AtomicUsize,
    bytes: AtomicUsize,
}

impl Default for Quarantine {
    fn default() -> Self {
        let ranges = (0..QUARANTINE_RANGES).map(|_| AtomicU64::new(NONE)).collect();
        Quarantine { ranges, next: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }
}

impl Quarantine {
    /// Takes a mapping that nobody uses any more. Its memory is the system's at once, its addresses later.
    ///
    /// # Safety
    /// The mapping is the caller's, begins with a page, and is not used again.
    pub unsafe fn keep(&self, address: *mut u8, bytes: usize) {
        let pages = bytes.div_ceil(1 << PAGE_BITS);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: replaces the caller's own mapping, which nobody uses, by one without access.
        let reserved = unsafe { libc::mmap(address.cast(), pages << PAGE_BITS, libc::PROT_NONE, flags, -1, 0) }
            != libc::MAP_FAILED;
        let range = (address as u64 >> PAGE_BITS) << COUNT_BITS | pages as u64;
        if !reserved || pages >> COUNT_BITS != 0 {
            return unmap(range);
        }
        self.bytes.fetch_add(pages << PAGE_BITS, Relaxed);
        self.exchange(range);
        // Whatever is too much leaves, oldest first. At the latest that is all of it.
        for _ in 0..self.ranges.len() {
            if self.bytes.load(Relaxed) <= QUARANTINE_BYTES_MAX {
                break;
            }
            self.exchange(NONE);
        }
    }

    /// Gives all addresses back: something else needs them.
    pub fn empty(&self) {
        for _ in 0..self.ranges.len() {
            self.exchange(NONE);
        }
    }

    /// Puts a range in the place of the oldest.
    fn exchange(&self, range: u64) {
        let place = self.next.fetch_add(1, Relaxed) % self.ranges.len();
        let oldest = self.ranges[place].swap(range, AcqRel);
        if oldest != NONE {
            self.bytes.fetch_sub(bytes_of(oldest), Relaxed);
            unmap(oldest);
        }
    }
}

#[cfg(test)]
impl Quarantine {
    fn held(&self) -> impl Iterator<Item = u64> {
        self.ranges.iter().map(|place| place.load(Relaxed)).filter(|&range| range != NONE)
    }

    /// Ranges that are kept.
    pub fn ranges(&self) -> usize {
        self.held().count()
    }

    /// Whether a range that begins there is kept.
    pub fn has(&self, address: *mut u8) -> bool {
        self.held().any(|range| range >> COUNT_BITS << PAGE_BITS == address as u64)
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        self.empty();
    }
}

fn bytes_of(range: u64) -> usize {
    (range as usize & ((1 << COUNT_BITS) - 1)) << PAGE_BITS
}

/// Only for a range that no place of a ring has any more, so that it is unmapped once.
fn unmap(range: u64) {
    let address = (range >> COUNT_BITS << PAGE_BITS) as *mut libc::c_void;
    // SAFETY: a mapping of our own that nobody uses; a refusal leaves it reserved.
    unsafe { libc::munmap(address, bytes_of(range)) };
}
