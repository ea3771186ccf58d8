//! Work that a test holds up, so that what it does meanwhile comes before the end of it for certain.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Condvar, Mutex, PoisonError};

/// Work on streams.
pub const WORK: u32 = 1;
/// Answers to `cuStreamQuery`.
pub const QUERIES: u32 = 2;
/// Kernels of products.
const PRODUCTS: u32 = 4;
/// Kernels of sums over axes.
const REDUCTIONS: u32 = 8;

/// What is held up: nearly always nothing.
static FLAGS: AtomicU32 = AtomicU32::new(0);
/// How many threads are held up by each flag.
static HELD: Mutex<[usize; 4]> = Mutex::new([0; 4]);
static CHANGED: Condvar = Condvar::new();

fn position(flag: u32) -> usize {
    flag.trailing_zeros() as usize
}

pub fn set(flags: u32) {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    FLAGS.store(flags, SeqCst);
    CHANGED.notify_all();
    drop(held);
}

pub fn count(flags: u32) -> usize {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.iter().enumerate().filter(|(position, _)| flags & (1 << position) != 0).map(|(_, count)| count).sum()
}

/// Returns once nothing with this flag is held up.
pub fn pass(flag: u32) {
    if FLAGS.load(SeqCst) & flag == 0 {
        return;
    }
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held[position(flag)] += 1;
    while FLAGS.load(SeqCst) & flag != 0 {
        held = CHANGED.wait(held).unwrap_or_else(PoisonError::into_inner);
    }
    held[position(flag)] -= 1;
}

/// The same for a kernel, by what it computes.
pub fn pass_kernel(name: &str) {
    match name {
        _ if name.starts_with("matmul") => pass(PRODUCTS),
        _ if name.starts_with("reduce") => pass(REDUCTIONS),
        _ => {}
    }
}
