//! Keeping the host program's signals away from the library's threads.

use std::mem::MaybeUninit;

/// Runs `start` with every signal blocked on this thread, so that a thread started inside inherits that; then restores
/// the mask. A signal that arrives meanwhile is delivered afterwards, or to another thread.
pub fn blocked<T>(start: impl FnOnce() -> T) -> T {
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the mask that this thread had before.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
        }
    }
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the sets are written before they are read, and outlive the calls, which cannot fail with these arguments.
    let restore = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        Restore(before.assume_init())
    };
    let started = start();
    drop(restore);
    started
}
