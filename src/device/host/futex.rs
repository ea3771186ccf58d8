//! Sleeping on a word until another thread changes it (futex(2)).

use super::clock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

/// Sleeps while the word is `seen`, at most until the monotonic clock passes `until_ns` (`u64::MAX`: without bound). May wake
/// for no reason. `false` once the time is over.
pub fn wait_until(word: &AtomicU32, seen: u32, until_ns: u64) -> bool {
    if until_ns != u64::MAX && clock::monotonic_ns() >= until_ns {
        return false;
    }
    let time = libc::timespec {
        tv_sec: (until_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (until_ns % 1_000_000_000) as libc::c_long,
    };
    let timeout = if until_ns == u64::MAX { std::ptr::null() } else { &raw const time };
    // SAFETY: word and time outlive the call. FUTEX_WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC. Whatever it
    // answers, the caller looks again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
            seen,
            timeout,
            std::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        );
    }
    true
}

/// Wakes every thread that sleeps on the word.
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: the word outlives the call; waking has no other precondition.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX) };
}

/// Has the kernel write the word at an address as it is, in one step, so that no write of another thread is lost: there is memory behind its
/// page then. An error if the page is not there or cannot be written; no signal.
pub fn touch(word: usize) -> std::io::Result<()> {
    // FUTEX_WAKE_OP writes `word | 0`, and wakes whoever sleeps on it if the word was below -2048: they look again, as after any wake.
    const OR_NOTHING: u32 = (libc::FUTEX_OP_OR as u32) << 28 | (libc::FUTEX_OP_CMP_LT as u32) << 24 | 0x800;
    let own = AtomicU32::new(0);
    // SAFETY: the own word outlives the call; what is at the other address stays, and what cannot be written is answered with EFAULT.
    let code = unsafe {
        libc::syscall(
            libc::SYS_futex,
            own.as_ptr(),
            libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG,
            0,
            std::ptr::null::<libc::timespec>(),
            word,
            OR_NOTHING,
        )
    };
    if code >= 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Something that changes from time to time, and threads that sleep until it is as they want it.
#[derive(Debug, Default)]
pub struct Changes {
    /// Changes with every change; the word slept on.
    count: AtomicU32,
    /// Threads that sleep or are about to.
    sleepers: AtomicU32,
}

/// A thread that is about to sleep, counted until this is dropped.
pub struct Sleeper<'a> {
    changes: &'a Changes,
}

impl Changes {
    /// It has changed: every sleeper looks again.
    pub fn tell(&self) {
        // The bump and the read of `sleepers` are ordered against `sleeper`'s increment and its caller's look: one side sees
        // the other.
        self.count.fetch_add(1, SeqCst);
        if self.has_sleepers() {
            wake_all(&self.count);
        }
    }

    /// Whether anyone sleeps or is about to.
    pub fn has_sleepers(&self) -> bool {
        self.sleepers.load(SeqCst) > 0
    }

    /// Counts the calling thread among those to be woken.
    pub fn sleeper(&self) -> Sleeper<'_> {
        self.sleepers.fetch_add(1, SeqCst);
        Sleeper { changes: self }
    }
}

impl Sleeper<'_> {
    /// Sleeps until `is_over` holds or the monotonic clock passes `until_ns` (`u64::MAX`: never). Answers `is_over`.
    pub fn sleep_until(&self, until_ns: u64, is_over: impl Fn() -> bool) -> bool {
        loop {
            let seen = self.changes.count.load(SeqCst);
            if is_over() {
                return true;
            }
            if !wait_until(&self.changes.count, seen, until_ns) {
                return is_over();
            }
        }
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.changes.sleepers.fetch_sub(1, SeqCst);
    }
}
