//! Which process this is. A child made by fork(2) has a copy of the memory and none of the threads, so what its parent started
//! is lost to it.
//!
//! [`Local`] is for what must not be torn down there, [`Lock`] for what a thread that is not there may hold.

use super::memory::Pages;
use crate::error::{Result, fail};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

/// A word that is zero again after a fork; `None` where the kernel cannot do that.
fn word() -> Option<&'static AtomicU64> {
    static PAGE: OnceLock<Option<Pages>> = OnceLock::new();
    let page = PAGE.get_or_init(|| {
        let page = Pages::map(size_of::<AtomicU64>()).ok()?;
        page.wipe_on_fork().then_some(page)
    });
    // SAFETY: the page is mapped for good, aligned, and used as this word alone.
    page.as_ref().map(|page| unsafe { AtomicU64::from_ptr(page.address().cast()) })
}

/// This process's number, another one after each fork. One atomic read.
#[inline]
pub fn number() -> u64 {
    match word() {
        Some(word) => Some(word.load(Relaxed)).filter(|&number| number != 0).unwrap_or_else(|| assign(word)),
        None => 0,
    }
}

#[cold]
fn assign(word: &AtomicU64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let fresh = LAST.fetch_add(1, Relaxed) + 1;
    word.compare_exchange(0, fresh, Relaxed, Relaxed).map_or_else(|other| other, |_| fresh)
}

/// Something that only the process that made it tears down. Elsewhere dropping it does nothing: what it consists of stays as it is, for it is
/// the parent's to end, and a thread that the child has not may have been about to change it.
#[derive(Debug)]
pub struct Local<T> {
    process: u64,
    value: ManuallyDrop<T>,
}

impl<T> Local<T> {
    /// It is this process's.
    pub fn new(value: T) -> Self {
        Local { process: number(), value: ManuallyDrop::new(value) }
    }

    /// Whether this is the process that made it, and not a child of that one.
    #[inline]
    pub fn is_here(&self) -> bool {
        number() == self.process
    }
}

impl<T: Default> Default for Local<T> {
    fn default() -> Self {
        Local::new(T::default())
    }
}

impl<T> Deref for Local<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Local<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        if self.is_here() {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// A mutex that nobody waits for in a child: who held it at the fork would hold it for ever.
#[derive(Debug, Default)]
pub struct Lock<T> {
    value: Local<Mutex<T>>,
}

impl<T> Lock<T> {
    /// What it guards. `DeviceLost` in a child if somebody had it at the fork, who may have left it half changed.
    pub fn lock(&self) -> Result<MutexGuard<'_, T>> {
        if self.value.is_here() {
            return Ok(self.value.lock().unwrap_or_else(PoisonError::into_inner));
        }
        match self.value.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(error)) => Ok(error.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(fail!(DeviceLost, "another thread was at it when this process was forked"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    /// Whether `body` holds in a child.
    fn holds_in_a_child(body: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child calls nothing but what this file has, and leaves at once; the alarm ends one that waits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above, and the child ends without any handler.
            unsafe {
                libc::alarm(20);
                libc::_exit(body().into());
            }
        }
        let mut status = 0;
        // SAFETY: our own child.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1
    }

    #[test]
    fn a_child_has_another_number() {
        let here = number();
        assert_eq!(number(), here);
        assert!(holds_in_a_child(|| number() != here && number() == number()));
        assert_eq!(number(), here);
    }

    #[test]
    fn what_is_local_is_torn_down_at_home_alone() {
        let counted = Arc::new(());
        let local = Local::new(counted.clone());
        assert!(local.is_here());
        let seen = counted.clone();
        assert!(holds_in_a_child(move || {
            let was_here = local.is_here();
            drop(local);
            !was_here && Arc::strong_count(&seen) == 3
        }));
        assert_eq!(Arc::strong_count(&counted), 1, "the parent has dropped it, too");
    }

    #[test]
    fn a_lock_that_was_held_at_the_fork_is_not_waited_for() {
        let lock: Arc<Lock<u32>> = Arc::default();
        assert!(holds_in_a_child(|| lock.lock().is_ok()), "nobody has it");
        let ((tell, told), (release, released)) = (channel(), channel());
        let held = lock.clone();
        let holder = std::thread::spawn(move || {
            let guard = held.lock();
            tell.send(()).unwrap();
            released.recv().unwrap();
            drop(guard);
        });
        told.recv().unwrap();
        assert!(holds_in_a_child(|| lock.lock().is_err()));
        release.send(()).unwrap();
        holder.join().unwrap();
        assert_eq!(lock.lock().map(|guard| *guard), Ok(0));
    }
}
