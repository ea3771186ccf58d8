//! Memory that a host program takes from this device or lends it.

use super::futex;
use super::memory::{PAGE_BYTES, Pages};
use super::quarantine::Quarantine;
use crate::device::{Rectangle, RowLayout, RowMemory, SharedMemory};
use crate::error::{Error, Result, Status, ensure, fail};
use crate::limits::MEMORY_BYTES_MAX;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Rows begin at multiples of this: a cache line, and the widest register.
const ROW_ALIGNMENT: usize = 64;

/// A range of the host program's own memory.
#[derive(Debug)]
pub struct HostRange {
    address: *mut u8,
    bytes: usize,
    /// The memory, if this is its owner.
    _pages: Option<Pages>,
}

// SAFETY: whoever made it has promised that it may be used from any thread.
unsafe impl Send for HostRange {}
// SAFETY: as above.
unsafe impl Sync for HostRange {}

impl From<Pages> for HostRange {
    /// Memory that goes with the range.
    fn from(pages: Pages) -> Self {
        HostRange { address: pages.address(), bytes: pages.bytes(), _pages: Some(pages) }
    }
}

impl HostRange {
    /// Borrows memory.
    ///
    /// # Safety
    /// If the bytes can be read and written at all, they can be from any thread until the range is dropped, and nobody else touches them
    /// while this library may: while a request runs that has an input or output there, and while a borrow of the bytes lives.
    pub unsafe fn new(address: *mut u8, bytes: usize) -> Self {
        HostRange { address, bytes, _pages: None }
    }

    /// The first byte.
    pub fn address(&self) -> *mut u8 {
        self.address
    }

    /// How many there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes, which a device has found to be there.
    pub(in crate::device) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the promise of whoever made the range, and it is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.bytes) }
    }

    /// Puts memory behind every page, so that no request meets a page fault. `InvalidArgument` if a page is not there or cannot be written.
    pub(in crate::device) fn populate(&self) -> Result<()> {
        let bytes = self.bytes.next_multiple_of(PAGE_BYTES);
        let populated = match populate(self.address, bytes) {
            // Pages without the right to write, or a kernel that is older than the advice: then it is no use on any page.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !is_advice_known() => {
                touch_all(self.address, bytes)
            }
            populated => populated,
        };
        populated.map_err(|error| {
            let what = format_args!("{bytes} bytes at {:p} cannot all be read and written", self.address);
            Error::io(Status::InvalidArgument, what, &error)
        })
    }
}

/// Asks the kernel for memory behind pages that can be written.
fn populate(address: *mut u8, bytes: usize) -> std::io::Result<()> {
    // SAFETY: the kernel looks at the pages and changes no contents; it answers with an error for what is not there.
    let code = unsafe { libc::madvise(address.cast(), bytes, libc::MADV_POPULATE_WRITE) };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Whether the kernel populates a page that surely can be: Linux does from 5.14 on.
fn is_advice_known() -> bool {
    Pages::map(PAGE_BYTES).is_ok_and(|page| populate(page.address(), PAGE_BYTES).is_ok())
}

/// Does the same on any kernel, page by page.
fn touch_all(address: *mut u8, bytes: usize) -> std::io::Result<()> {
    (0..bytes).step_by(PAGE_BYTES).try_for_each(|offset| futex::touch(address.addr() + offset))
}

impl SharedMemory for HostRange {
    fn address(&self) -> *mut u8 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        HostRange::bytes_mut(self)
    }
}

/// Pages taken for a host program.
struct HostPinned {
    pages: Pages,
    bytes: usize,
}

impl SharedMemory for HostPinned {
    fn address(&self) -> *mut u8 {
        self.pages.address()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: no more than was mapped, zeroed, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pages.address(), self.bytes) }
    }
}

/// Zeroed pages that nothing else shares, whose addresses lead to nothing once they are freed.
pub fn pinned(bytes: usize, quarantine: &Arc<Quarantine>) -> Result<Arc<dyn SharedMemory>> {
    let mut pages = Pages::map_apart(bytes, quarantine)?;
    pages.touch();
    Ok(Arc::new(HostPinned { pages, bytes }))
}

/// A range that the host program goes on owning.
pub fn registered(range: HostRange) -> Result<Arc<dyn SharedMemory>> {
    range.populate()?;
    Ok(Arc::new(range))
}

/// Rows in pages of their own.
struct HostRows {
    layout: RowLayout,
    pitch_bytes: usize,
    /// Held while rows are copied.
    pages: Mutex<HostPinned>,
}

/// Rows, padded to cache lines unless the layout says otherwise.
pub fn rows(layout: &RowLayout, quarantine: &Quarantine) -> Result<Box<dyn RowMemory>> {
    let alignment = if layout.element_bytes.is_some() { ROW_ALIGNMENT } else { 1 };
    let pitch = layout.row_bytes.checked_next_multiple_of(alignment);
    let bytes = pitch.and_then(|pitch| pitch.checked_mul(layout.rows));
    let (Some(pitch_bytes), Some(bytes)) = (pitch, bytes) else {
        return Err(fail!(TooLarge, "{} rows of {} bytes exceed the address space", layout.rows, layout.row_bytes));
    };
    ensure!(
        bytes <= MEMORY_BYTES_MAX,
        TooLarge,
        "{} rows, {pitch_bytes} bytes apart, are above {MEMORY_BYTES_MAX} bytes",
        layout.rows
    );
    let mut pages = Pages::map_beside(bytes, quarantine)?;
    pages.touch();
    Ok(Box::new(HostRows { layout: *layout, pitch_bytes, pages: Mutex::new(HostPinned { pages, bytes }) }))
}

impl HostRows {
    fn pages(&self) -> MutexGuard<'_, HostPinned> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RowMemory for HostRows {
    fn pitch_bytes(&self) -> usize {
        self.pitch_bytes
    }

    fn write(&self, rectangle: &Rectangle, from: &[u8]) -> Result<()> {
        rectangle.check(&self.layout, from.len())?;
        let mut pages = self.pages();
        let rows = pages.bytes_mut();
        for (inside, outside) in rectangle.spans(self.pitch_bytes) {
            rows[inside].copy_from_slice(&from[outside]);
        }
        Ok(())
    }

    fn read(&self, rectangle: &Rectangle, into: &mut [u8]) -> Result<()> {
        rectangle.check(&self.layout, into.len())?;
        let mut pages = self.pages();
        let rows = pages.bytes_mut();
        for (inside, outside) in rectangle.spans(self.pitch_bytes) {
            into[outside].copy_from_slice(&rows[inside]);
        }
        Ok(())
    }
}

/// That a range is one that can be registered.
///
/// # Errors
/// `InvalidArgument` for one that is null, empty, or does not begin with a page.
pub fn check_range(range: &HostRange) -> Result<()> {
    let (address, bytes) = (range.address(), range.bytes());
    ensure!(!address.is_null(), InvalidArgument, "the range to be registered begins at null");
    ensure!(bytes > 0, InvalidArgument, "the range to be registered is empty");
    ensure!(
        (address as usize).is_multiple_of(PAGE_BYTES),
        InvalidArgument,
        "the range to be registered begins at {address:p}, which is no multiple of {PAGE_BYTES}"
    );
    let end = (address as usize).checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
    ensure!(end.is_some(), InvalidArgument, "{bytes} bytes at {address:p} exceed the address space");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_whole_pages_that_are_there() {
        let pages = Pages::map(3 * PAGE_BYTES).unwrap();
        let address = pages.address();
        let check = |address: *mut u8, bytes: usize| {
            // SAFETY: not used further.
            let range = unsafe { HostRange::new(address, bytes) };
            check_range(&range).and_then(|()| range.populate()).map_err(|error| error.status)
        };
        assert_eq!(check(address, 2 * PAGE_BYTES + 1), Ok(()));
        for (address, bytes) in [
            (std::ptr::null_mut(), 1),
            (address, 0),
            (address.wrapping_add(64), 64),
            (address, usize::MAX),
            (address, 1 << 60),
        ] {
            assert_eq!(check(address, bytes), Err(Status::InvalidArgument), "{bytes} bytes at {address:p}");
        }
        pages.set_writable(PAGE_BYTES, false);
        assert_eq!(check(address, PAGE_BYTES), Err(Status::InvalidArgument));
        assert_eq!(check(address.wrapping_add(PAGE_BYTES), PAGE_BYTES), Ok(()));
    }

    /// What kernels without the advice do.
    #[test]
    fn pages_are_touched_one_by_one_and_keep_their_contents() {
        let mut pages = HostRange::from(Pages::map(3 * PAGE_BYTES).unwrap());
        pages.bytes_mut().fill(7);
        let address = pages.address();
        touch_all(address, 3 * PAGE_BYTES).unwrap();
        assert!(pages.bytes_mut().iter().all(|&byte| byte == 7));
        let fault = |address, bytes| touch_all(address, bytes).unwrap_err().raw_os_error();
        assert_eq!(fault(std::ptr::null_mut(), PAGE_BYTES), Some(libc::EFAULT));
        // SAFETY: pages of the test's own, which it uses no more.
        assert_eq!(unsafe { libc::mprotect(address.wrapping_add(PAGE_BYTES).cast(), PAGE_BYTES, libc::PROT_READ) }, 0);
        assert_eq!(fault(address, 3 * PAGE_BYTES), Some(libc::EFAULT));
        touch_all(address.wrapping_add(2 * PAGE_BYTES), PAGE_BYTES).unwrap();
    }

    /// Pages of a file behind its end are mapped, and cannot be touched without a signal.
    #[test]
    fn pages_behind_the_end_of_a_file_are_refused() {
        // SAFETY: a file of the test's own with one page, and a fresh mapping of two.
        let address = unsafe {
            let file = libc::memfd_create(c"pages".as_ptr(), 0);
            assert!(file >= 0 && libc::ftruncate(file, PAGE_BYTES as libc::off_t) == 0);
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 2 * PAGE_BYTES, access, libc::MAP_SHARED, file, 0).cast::<u8>()
        };
        for (bytes, is_there) in [(PAGE_BYTES, true), (2 * PAGE_BYTES, false)] {
            // SAFETY: not used further.
            let range = unsafe { HostRange::new(address, bytes) };
            assert_eq!((range.populate().is_ok(), touch_all(address, bytes).is_ok()), (is_there, is_there));
        }
    }

    #[test]
    fn rows_are_padded_to_cache_lines_unless_they_are_dense() {
        let layout = RowLayout { rows: 3, row_bytes: 100, element_bytes: Some(4) };
        let pitch = |layout| rows(&layout, &Quarantine::default()).unwrap().pitch_bytes();
        assert_eq!((pitch(layout), pitch(RowLayout { element_bytes: None, ..layout })), (128, 100));
        let endless = RowLayout { rows: usize::MAX, ..layout };
        assert_eq!(rows(&endless, &Quarantine::default()).err().unwrap().status, Status::TooLarge);
        // The gaps between rows count.
        let sparse = RowLayout { rows: MEMORY_BYTES_MAX / 64 + 1, row_bytes: 1, element_bytes: Some(4) };
        let refusal = rows(&sparse, &Quarantine::default()).err().unwrap();
        assert!(refusal.status == Status::TooLarge && refusal.message.contains("64 bytes apart"), "{refusal}");
    }
}
