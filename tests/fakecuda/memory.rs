//! The memory of the simulated device, and page-locked host memory.

use crate::driver::{Code, fault};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use streaminfer::error::{Error, Result, Status};
use streaminfer::kernels::entry::Memory as Accessible;

/// What fresh device memory holds: no sensible number of any type.
const RUBBISH: u8 = 0xFD;
/// Device addresses begin here: no process has memory there, so that a host that uses one as a pointer dies.
const BASE: u64 = 0x6000_0000_0000;
/// What the host's memory is registered in.
const PAGE: u64 = 4096;
/// Alignment of every allocation, and of every row.
const ALIGNMENT: u64 = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Device,
    Host,
    /// The host's own, page-locked.
    Registered,
}

struct Area {
    kind: Kind,
    bytes: usize,
    /// Where its bytes really are.
    place: *mut u8,
}

// SAFETY: accessed under the lock, but for host memory that the host itself writes, as with a real device.
unsafe impl Send for Area {}

#[derive(Default)]
struct Areas {
    by_address: BTreeMap<u64, Area>,
    device_bytes: usize,
    next: u64,
}

/// All memory that the driver has handed out.
#[derive(Default)]
pub struct Memory {
    areas: Mutex<Areas>,
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 4096).expect("a size that fits")
}

/// Pages that a child of this process has not: nothing of the driver's is to be used there.
fn map(bytes: usize) -> *mut u8 {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping, and advice that is about it alone.
    let (place, code) = unsafe {
        let place = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
        (place, libc::madvise(place, bytes, libc::MADV_DONTFORK))
    };
    assert!(place != libc::MAP_FAILED && code == 0, "no memory for {bytes} bytes");
    place.cast()
}

impl Memory {
    fn areas(&self) -> MutexGuard<'_, Areas> {
        self.areas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take_device(&self, bytes: usize, most: usize) -> std::result::Result<u64, Code> {
        let mut areas = self.areas();
        if bytes == 0 {
            return Err(1);
        }
        if areas.device_bytes.checked_add(bytes).is_none_or(|bytes| bytes > most) {
            return Err(2);
        }
        // SAFETY: not empty.
        let place = unsafe { alloc_zeroed(layout(bytes)) };
        // SAFETY: taken above.
        unsafe { place.write_bytes(RUBBISH, bytes) };
        areas.device_bytes += bytes;
        let address = BASE + areas.next;
        // A gap behind each area, so that running over its end is seen.
        areas.next += (bytes as u64 + ALIGNMENT).next_multiple_of(ALIGNMENT);
        areas.by_address.insert(address, Area { kind: Kind::Device, bytes, place });
        Ok(address)
    }

    pub fn take_host(&self, bytes: usize) -> std::result::Result<u64, Code> {
        if bytes == 0 {
            return Err(1);
        }
        let place = map(bytes);
        self.areas().by_address.insert(place as u64, Area { kind: Kind::Host, bytes, place });
        Ok(place as u64)
    }

    /// Page-locks memory of the host's own.
    pub fn register(&self, address: u64, bytes: usize) -> std::result::Result<(), Code> {
        let end = address.checked_add(bytes as u64).filter(|_| address != 0 && bytes > 0).ok_or(1)?;
        if !address.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) {
            fault(&format!("{bytes} bytes at {address:#x} are registered and are no whole pages"));
        }
        let mut areas = self.areas();
        let before = areas.by_address.range(..end).next_back();
        if before.is_some_and(|(start, area)| start + area.bytes as u64 > address) {
            return Err(712);
        }
        let place = address as *mut u8;
        areas.by_address.insert(address, Area { kind: Kind::Registered, bytes, place });
        Ok(())
    }

    /// Ends that; gives the range.
    pub fn unregister(&self, address: u64) -> std::ops::Range<u64> {
        match self.areas().by_address.remove(&address) {
            Some(area) if area.kind == Kind::Registered => address..address + area.bytes as u64,
            _ => fault(&format!("{address:#x} is unregistered and was not registered")),
        }
    }

    /// Rows, each at a multiple of the pitch.
    pub fn take_rows(
        &self,
        row_bytes: usize,
        rows: usize,
        element: u32,
        most: usize,
    ) -> std::result::Result<(u64, usize), Code> {
        if row_bytes == 0 || rows == 0 || !matches!(element, 4 | 8 | 16) {
            return Err(1);
        }
        let pitch = row_bytes.checked_next_multiple_of(ALIGNMENT as usize).ok_or(2)?;
        Ok((self.take_device(pitch.checked_mul(rows).ok_or(2)?, most)?, pitch))
    }

    pub fn free(&self, address: u64, kind: Kind) -> std::result::Result<(), Code> {
        let mut areas = self.areas();
        match areas.by_address.remove(&address) {
            Some(area) if area.kind == kind => {
                if kind == Kind::Device {
                    areas.device_bytes -= area.bytes;
                    // SAFETY: taken with this layout.
                    unsafe { dealloc(area.place, layout(area.bytes)) };
                } else {
                    // SAFETY: mapped with this size.
                    unsafe { libc::munmap(area.place.cast(), area.bytes) };
                }
                Ok(())
            }
            _ => fault(&format!("{address:#x} is freed and is no {kind:?} memory")),
        }
    }

    pub fn is_host(&self, address: u64) -> bool {
        let areas = self.areas();
        let before = areas.by_address.range(..=address).next_back();
        before.is_some_and(|(start, area)| area.kind != Kind::Device && address < start + area.bytes as u64)
    }

    /// Areas of each kind.
    pub fn count(&self) -> usize {
        self.areas().by_address.len()
    }

    fn with<T>(&self, address: u64, bytes: usize, access: impl FnOnce(*mut u8) -> T) -> Result<T> {
        let areas = self.areas();
        let found = areas.by_address.range(..=address).next_back();
        let found = found.filter(|(start, area)| address - **start + bytes as u64 <= area.bytes as u64);
        match found {
            Some((start, area)) => Ok(access(area.place.wrapping_add((address - start) as usize))),
            None => Err(Error::new(Status::Internal, format!("{bytes} bytes at {address:#x} are not allocated"))),
        }
    }

    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<()> {
        let count = to.len();
        // SAFETY: inside one area.
        self.with(address, count, |place| unsafe { std::ptr::copy_nonoverlapping(place, to.as_mut_ptr(), count) })
    }

    /// A number of eight bytes, read at once.
    pub fn read_u64(&self, address: u64) -> Result<u64> {
        // SAFETY: inside one area, and aligned.
        self.with(address, 8, |place| unsafe { place.cast::<u64>().read_volatile() })
    }

    pub fn write(&self, address: u64, from: &[u8]) -> Result<()> {
        let count = from.len();
        self.with(address, count, |place| match count {
            // Completion words are stored at once, as a device stores them.
            // SAFETY: inside one area; aligned where it is read as one number.
            8 if address.is_multiple_of(8) => unsafe {
                let bytes = [from[0], from[1], from[2], from[3], from[4], from[5], from[6], from[7]];
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                place.cast::<u64>().write_volatile(u64::from_le_bytes(bytes));
            },
            // SAFETY: inside one area.
            _ => unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), place, count) },
        })
    }
}

/// Memory as the twins see it.
pub struct Access<'a>(pub &'a Memory);

impl Accessible for Access<'_> {
    fn load(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.0.read(address, bytes)
    }

    fn store(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.0.write(address, bytes)
    }
}
