//! Memory of contexts: whole pages of our own, zeroed, so that nothing else of the host shares them.

use super::quarantine::Quarantine;
use crate::error::{Error, Result, Status, ensure, fail};
use crate::ir::Element;
use crate::limits::CONTEXT_BYTES_MAX;
use std::ptr::NonNull;
use std::sync::Arc;

/// Distance from which on memory can have rights of its own.
pub const PAGE_BYTES: usize = 4096;

/// Mappings from this size on ask for huge pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Anonymous pages.
#[derive(Debug)]
pub struct Pages {
    address: NonNull<u8>,
    bytes: usize,
    /// Where the addresses go; without it, the system may give them to the next who asks.
    quarantine: Option<Arc<Quarantine>>,
}

// SAFETY: the mapping is owned; who accesses its bytes answers for the access.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Zeroed pages of at least so many bytes.
    pub fn map(bytes: usize) -> Result<Self> {
        ensure!(bytes <= CONTEXT_BYTES_MAX, TooLarge, "a context of {bytes} bytes is above {CONTEXT_BYTES_MAX}");
        let bytes = bytes.max(1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping; nothing is replaced.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            let error = std::io::Error::last_os_error();
            return Err(Error::io(Status::OutOfMemory, format_args!("no memory for {bytes} bytes"), &error));
        }
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE_BYTES {
            // SAFETY: our own mapping; the advice changes no contents, and a refusal only costs speed.
            unsafe { libc::madvise(address, bytes, libc::MADV_HUGEPAGE) };
        }
        let address = NonNull::new(address.cast()).ok_or_else(|| fail!(OutOfMemory, "no memory for {bytes} bytes"))?;
        Ok(Pages { address, bytes, quarantine: None })
    }

    /// As [`Pages::map`]; if there is no room, addresses in quarantine make some.
    pub fn map_beside(bytes: usize, quarantine: &Quarantine) -> Result<Self> {
        Pages::map(bytes).or_else(|error| match error.status {
            Status::OutOfMemory => {
                quarantine.empty();
                Pages::map(bytes)
            }
            _ => Err(error),
        })
    }

    /// As [`Pages::map_beside`], for memory that hosts have addresses of: when it is gone, they lead to nothing.
    pub fn map_apart(bytes: usize, quarantine: &Arc<Quarantine>) -> Result<Self> {
        let mut pages = Pages::map_beside(bytes, quarantine)?;
        pages.quarantine = Some(quarantine.clone());
        Ok(pages)
    }

    /// Lets this process write the first so many bytes, whole pages, or only read them. A refusal changes nothing.
    pub fn set_writable(&self, bytes: usize, writable: bool) {
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let bytes = bytes.min(self.bytes);
        // SAFETY: our own mapping, whose contents stay; who loses the right to write has promised not to.
        unsafe { libc::mprotect(self.address.as_ptr().cast(), bytes, access) };
    }

    /// Has a forked child find zeros here. Answers whether the kernel can.
    pub fn wipe_on_fork(&self) -> bool {
        // SAFETY: our own mapping; in this process nothing changes.
        unsafe { libc::madvise(self.address.as_ptr().cast(), self.bytes, libc::MADV_WIPEONFORK) == 0 }
    }

    /// The first byte, at the start of a page.
    pub fn address(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// Bytes mapped.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Touches every page, so that no request meets a page fault.
    pub fn touch(&mut self) {
        for offset in (0..self.bytes).step_by(PAGE_BYTES) {
            // SAFETY: inside the mapping, which is borrowed mutably.
            unsafe { self.address().add(offset).write_volatile(0) };
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let address = self.address.as_ptr();
        if let Some(quarantine) = &self.quarantine {
            // SAFETY: mapped with this address and size, owned, and used no more.
            unsafe { quarantine.keep(address, self.bytes) };
        } else {
            // SAFETY: as above.
            unsafe { libc::munmap(address.cast(), self.bytes) };
        }
    }
}

/// An element type all of whose bit patterns are values, so that bytes written by anyone can be read as it. `bool` is none:
/// look at truth values as `u8`.
pub trait Plain: Element {}

impl Plain for f32 {}
impl Plain for half::f16 {}
impl Plain for half::bf16 {}
impl Plain for i64 {}
impl Plain for i32 {}
impl Plain for i8 {}
impl Plain for u8 {}

/// Bytes as elements; whatever does not fill an element at either end is left out.
pub fn elements<T: Plain>(bytes: &[u8]) -> &[T] {
    // SAFETY: every bit pattern is a `T`.
    unsafe { bytes.align_to().1 }
}

/// Bytes as elements to be written; whatever does not fill an element at either end is left out.
pub fn elements_mut<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: every bit pattern is a `T`, and every `T` is bytes without padding.
    unsafe { bytes.align_to_mut().1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_RANGES};

    #[test]
    fn pages_are_zeroed_aligned_and_bounded() {
        let mut pages = Pages::map(10_000).unwrap();
        assert_eq!(pages.address() as usize % 4096, 0);
        pages.touch();
        assert_eq!(Pages::map(CONTEXT_BYTES_MAX + 1).unwrap_err().status, Status::TooLarge);
    }

    /// Whether the kernel can read and write at an address, without a signal if it cannot.
    fn access(address: *mut u8) -> (bool, bool) {
        let mut ends = [0; 2];
        // SAFETY: a pipe of our own; the kernel copies one byte from and to the address, or answers EFAULT.
        unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let readable = libc::write(ends[1], address.cast(), 1) == 1;
            if !readable {
                assert_eq!(libc::write(ends[1], [0u8].as_ptr().cast(), 1), 1);
            }
            let writable = libc::read(ends[0], address.cast(), 1) == 1;
            ends.iter().for_each(|&end| assert_eq!(libc::close(end), 0));
            (readable, writable)
        }
    }

    #[test]
    fn freed_addresses_lead_to_nothing_until_enough_others_are_freed() {
        let quarantine = Arc::default();
        let pages = Pages::map_apart(3 * PAGE_BYTES, &quarantine).unwrap();
        let address = pages.address();
        assert_eq!(access(address), (true, true));
        drop(pages);
        for _ in 0..QUARANTINE_RANGES - 1 {
            let next = Pages::map_apart(3 * PAGE_BYTES, &quarantine).unwrap();
            assert!(next.address().addr().abs_diff(address.addr()) >= 3 * PAGE_BYTES);
            assert_eq!((access(next.address()), access(address)), ((true, true), (false, false)));
        }
        // What was freed first leaves first.
        assert_eq!(quarantine.ranges(), QUARANTINE_RANGES);
        drop(Pages::map_apart(PAGE_BYTES, &quarantine).unwrap());
        assert_eq!(quarantine.ranges(), QUARANTINE_RANGES);
        assert!(!quarantine.has(address));
    }

    #[test]
    fn a_few_large_ranges_are_as_many_as_are_kept() {
        let quarantine: Arc<Quarantine> = Arc::default();
        let large = QUARANTINE_BYTES_MAX / 4;
        let addresses = [(); 6].map(|()| Pages::map_apart(large, &quarantine).unwrap().address());
        assert_eq!(addresses.map(|address| quarantine.has(address)), [false, false, true, true, true, true]);
        quarantine.empty();
        assert_eq!((quarantine.ranges(), quarantine.has(addresses[5])), (0, false));
    }

    #[test]
    fn the_first_pages_can_be_made_read_only() {
        let pages = Pages::map(2 * PAGE_BYTES).unwrap();
        let (first, second) = (pages.address(), pages.address().wrapping_add(PAGE_BYTES));
        pages.set_writable(PAGE_BYTES, false);
        assert_eq!((access(first), access(second)), ((true, false), (true, true)));
        pages.set_writable(PAGE_BYTES, true);
        assert_eq!(access(first), (true, true));
    }

    #[test]
    fn bytes_are_elements_in_place() {
        let mut values = [1.0f32, 2.0];
        let address = values.as_ptr();
        // SAFETY: two floats are eight bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), 8) };
        elements_mut::<f32>(bytes)[1] = 3.0;
        assert_eq!(elements::<f32>(bytes), [1.0, 3.0]);
        assert_eq!(elements::<f32>(bytes).as_ptr(), address);
    }
}
