//! The thread of an engine that closes batches at their time. It starts with the engine's first batcher, and sleeps while nothing is
//! due.

use super::ledger::Entry;
use crate::device::host::{clock, futex, process, threads};
use crate::error::{Error, Result, Status};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

/// Something that has to be done at certain times.
pub trait Timed: Send + Sync {
    /// Does what is due; answers when the next is, `u64::MAX` for never. [`Alarm::set`] says that it has become earlier.
    fn tend(&self) -> u64;
}

/// What wakes the thread.
#[derive(Default)]
pub struct Alarm {
    /// Changes when the thread is to look; the word that it sleeps on.
    signal: AtomicU32,
    /// When it looks by itself.
    due_ns: AtomicU64,
    is_stopped: AtomicBool,
    tasks: Mutex<Vec<Weak<dyn Timed>>>,
}

impl Alarm {
    /// Something is due at that time. A system call only if the thread would sleep longer.
    pub fn set(&self, due_ns: u64) {
        if due_ns < self.due_ns.fetch_min(due_ns, SeqCst) {
            self.ring();
        }
    }

    fn ring(&self) {
        self.signal.fetch_add(1, SeqCst);
        futex::wake_all(&self.signal);
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Weak<dyn Timed>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after a task as long as it lives.
    pub fn enter(&self, task: Weak<dyn Timed>) {
        self.tasks().push(task);
    }

    /// Tends every task; answers when the next is due.
    fn tend(&self) -> u64 {
        let (mut next_ns, mut index) = (u64::MAX, 0);
        loop {
            // Without the lock while the task works, and when the last reference goes.
            let Some(task) = self.tasks().get(index).cloned() else { return next_ns };
            match task.upgrade() {
                Some(task) => {
                    // One task's panic is not to stop the others.
                    let due_ns = catch_unwind(AssertUnwindSafe(|| task.tend())).unwrap_or(u64::MAX);
                    next_ns = due_ns.min(next_ns);
                    index += 1;
                }
                None => drop(self.tasks().swap_remove(index)),
            }
        }
    }

    fn run(&self) {
        loop {
            let heard = self.signal.load(SeqCst);
            if self.is_stopped.load(SeqCst) {
                return;
            }
            // Before the look: what becomes due after it rings.
            self.due_ns.store(u64::MAX, SeqCst);
            let next_ns = self.tend();
            let due_ns = self.due_ns.fetch_min(next_ns, SeqCst).min(next_ns);
            futex::wait_until(&self.signal, heard, due_ns);
        }
    }
}

/// The thread. Dropping it stops it.
pub struct Timer {
    alarm: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
    /// The process that the thread belongs to.
    process: u64,
    _thread: Entry,
}

impl Timer {
    /// Starts the thread, which `entry` counts.
    pub fn start(entry: Entry) -> Result<Self> {
        let alarm = Arc::new(Alarm::default());
        let shared = alarm.clone();
        let body = move || {
            clock::sharpen_sleeps();
            shared.run();
        };
        let builder = std::thread::Builder::new().name("si-timer".into());
        let thread = threads::start(builder, body);
        let thread = thread.map_err(|error| Error::io(Status::LimitReached, "no thread for batchers", &error))?;
        Ok(Timer { alarm, thread: Some(thread), process: process::number(), _thread: entry })
    }

    /// What wakes it.
    pub fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.alarm.is_stopped.store(true, SeqCst);
        self.alarm.ring();
        let Some(thread) = self.thread.take() else { return };
        if self.process != process::number() {
            // A forked child has none of the threads: neither waiting for one nor letting it go means anything.
            std::mem::forget(thread);
        } else if thread.thread().id() != std::thread::current().id() {
            // It catches the panics of its tasks.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ledger::{Account, Ledger};
    use std::sync::mpsc;

    /// Says when it is tended, and when it wants to be next.
    struct Task {
        tended: Mutex<mpsc::Sender<u64>>,
        next_ns: AtomicU64,
    }

    impl Timed for Task {
        fn tend(&self) -> u64 {
            let _ = self.tended.lock().unwrap().send(clock::monotonic_ns());
            self.next_ns.swap(u64::MAX, SeqCst)
        }
    }

    #[test]
    fn a_task_is_tended_at_its_time_or_when_the_alarm_is_set() {
        let ledger = Ledger::new(u64::MAX);
        let timer = Timer::start(ledger.enter(Account::Threads, 1).unwrap()).unwrap();
        let (sender, tended) = mpsc::channel();
        let later = clock::monotonic_ns() + 20_000_000;
        let task = Arc::new(Task { tended: Mutex::new(sender), next_ns: AtomicU64::new(later) });
        let weak: Weak<Task> = Arc::downgrade(&task);
        timer.alarm().enter(weak);
        timer.alarm().set(0);
        let first = tended.recv().unwrap();
        assert!(first < tended.recv().unwrap() && clock::monotonic_ns() >= later);
        for _ in 0..100 {
            timer.alarm().set(clock::monotonic_ns());
            tended.recv().unwrap();
        }
        drop(task);
        timer.alarm().set(0);
        assert!(tended.recv().is_err(), "nobody keeps the task");
        drop(timer);
        assert_eq!(ledger.total(Account::Threads), 0);
    }
}
