//! What the simulated driver has beside the driver's functions: it can be held up.

use libloading::os::unix::Library;
use std::time::Duration;

/// Work on streams.
pub const WORK: u32 = 1;
/// Answers to `cuStreamQuery`.
pub const QUERIES: u32 = 2;
/// Kernels of products.
pub const PRODUCTS: u32 = 4;
/// Kernels of sums over axes.
pub const REDUCTIONS: u32 = 8;

/// The simulated driver that the library has loaded.
pub struct Fake {
    hold: unsafe extern "C" fn(u32),
    held: unsafe extern "C" fn(u32) -> usize,
}

impl Fake {
    pub fn find() -> Fake {
        // SAFETY: the library has loaded it already, and it stays loaded; its functions of these names have these types.
        unsafe {
            let library = Library::new("libcuda.so.1").unwrap();
            let fake =
                Fake { hold: *library.get(b"fakecudaHold").unwrap(), held: *library.get(b"fakecudaHeld").unwrap() };
            std::mem::forget(library);
            fake
        }
    }

    /// Holds up what the flags name, and nothing else.
    pub fn hold(&self, flags: u32) {
        // SAFETY: it takes a number.
        unsafe { (self.hold)(flags) };
    }

    /// Returns once so many threads are held up.
    pub fn await_held(&self, flags: u32, count: usize) {
        // SAFETY: it takes a number and gives one.
        while unsafe { (self.held)(flags) } < count {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
