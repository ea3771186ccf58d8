//! Threads as owners of contexts: each has a number that is never used again, and is known to be dead once it has ended.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A thread that owns or has owned a context.
#[derive(Debug)]
pub struct Thread {
    number: u64,
    alive: AtomicBool,
}

impl Thread {
    /// Whether this is the calling thread.
    pub fn is_current(&self) -> bool {
        self.number == NUMBER.get()
    }

    /// Whether the thread has not ended.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Acquire)
    }
}

/// Marks its thread dead when the thread ends, and does nothing else then.
struct Life(Arc<Thread>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.alive.store(false, Release);
    }
}

thread_local! {
    /// This thread's number, 0 until it owns something. Needs no destructor, so it can be read at any time.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    static LIFE: Life = {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Relaxed) + 1;
        NUMBER.set(number);
        Life(Arc::new(Thread { number, alive: AtomicBool::new(true) }))
    };
}

/// The calling thread; `None` while it ends.
pub fn current() -> Option<Arc<Thread>> {
    LIFE.try_with(|life| life.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_itself_until_it_ends() {
        let here = current().unwrap();
        let other = std::thread::spawn(|| {
            let thread = current().unwrap();
            assert!(thread.is_current() && thread.is_alive());
            thread
        });
        let other = other.join().unwrap();
        assert!(here.is_current() && here.is_alive());
        assert!(!other.is_current() && !other.is_alive());
        assert_ne!(here.number, other.number);
    }
}
