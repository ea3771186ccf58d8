//! Which process this is. A child made by fork(2) has a copy of the memory and none of the threads, so what its parent started
//! is lost to it.

use super::memory::Pages;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_another_number() {
        let here = number();
        assert_eq!(number(), here);
        // SAFETY: the child calls nothing but what this file has, and leaves at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let differs = number() != here && number() == number();
            // SAFETY: ends the child without any handler.
            unsafe { libc::_exit(differs.into()) };
        }
        let mut status = 0;
        // SAFETY: our own child.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 1);
        assert_eq!(number(), here);
    }
}
