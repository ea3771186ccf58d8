//! How the library's threads start.

use std::io;
use std::mem::MaybeUninit;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that blocks all signals: they are the host program's. It has begun when this returns, since a thread allocates as it
/// begins, and that is to be over before the first request.
pub fn start(builder: Builder, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let (ready, begun) = mpsc::channel();
    let thread = blocked(|| {
        builder.spawn(move || {
            // The receiver waits below.
            let _ = ready.send(());
            drop(ready);
            body();
        })
    })?;
    let _ = begun.recv();
    Ok(thread)
}

/// Runs `start` with every signal blocked on this thread, so that a thread started inside inherits that; then restores
/// the mask. A signal that arrives meanwhile is delivered afterwards, or to another thread.
fn blocked<T>(start: impl FnOnce() -> T) -> T {
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
