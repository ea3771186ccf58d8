//! Sleeping on a word until another thread changes it (futex(2)).

use super::clock;
use std::sync::atomic::AtomicU32;

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
