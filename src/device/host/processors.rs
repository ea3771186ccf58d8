//! The CPUs that this process may use, and how many of its threads may spin on them.

use std::sync::OnceLock;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

/// CPUs in the affinity mask, or fewer if a control group grants less time. Found out once.
pub fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, |count| count.get()))
}

/// Worker threads of all contexts of this process.
static WORKERS: AtomicI64 = AtomicI64::new(0);
/// Threads of this process that spin on a completion.
static SPINNERS: AtomicI64 = AtomicI64::new(0);

/// Counts one worker thread as long as it lives.
#[derive(Debug)]
pub struct WorkerCount(());

impl WorkerCount {
    /// Counts one more.
    pub fn enter() -> Self {
        WORKERS.fetch_add(1, Relaxed);
        WorkerCount(())
    }
}

impl Drop for WorkerCount {
    fn drop(&mut self) {
        WORKERS.fetch_sub(1, Relaxed);
    }
}

/// Whether every worker thread of this process can have a CPU for itself, so that one that spins takes no other's.
pub fn workers_fit() -> bool {
    WORKERS.load(Relaxed) <= count() as i64
}

/// The right to spin, given back when dropped.
#[derive(Debug)]
pub struct SpinPermit(());

impl SpinPermit {
    /// The right to spin, if fewer than CPUs - 1 - workers have it.
    pub fn take() -> Option<Self> {
        let free = count() as i64 - 1 - WORKERS.load(Relaxed);
        if SPINNERS.fetch_add(1, Relaxed) < free {
            return Some(SpinPermit(()));
        }
        SPINNERS.fetch_sub(1, Relaxed);
        None
    }
}

impl Drop for SpinPermit {
    fn drop(&mut self) {
        SPINNERS.fetch_sub(1, Relaxed);
    }
}
