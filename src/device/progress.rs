//! How far a lane has come: the completion record that C sees, and what threads sleep on.

use super::cuda::MappedRecord;
use super::host::futex::Changes;
use super::host::process::Local;
use crate::error::Status;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

/// When the parts of a request happened, nanoseconds of the device's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// It was started.
    pub start_ns: u64,
    /// Its inputs were in place.
    pub inputs_ns: u64,
    /// Its outputs were computed.
    pub compute_ns: u64,
    /// Its outputs were visible to the host.
    pub done_ns: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Its number.
    pub sequence: u32,
    /// Its position in the lane.
    pub ordinal: u64,
    /// `Ok` or the failure.
    pub status: Status,
    /// When what happened.
    pub stamps: Stamps,
}

/// The completion record: a line that the device writes, and one that the host writes. `ffi::record` shows it to C.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(super) struct Record {
    done: AtomicU32,
    reserved: u32,
    stamps: [AtomicU64; 4],
    /// Ordinal of the last request that ended.
    ended: AtomicU64,
    reserved_device: [u64; 10],
    failed_sequence: AtomicU32,
    status: AtomicI32,
    reserved_host: [u64; 15],
}

impl Record {
    /// Makes it that of a lane without a request yet. Nobody else uses it.
    pub(super) fn clear(&self) {
        self.done.store(0, Relaxed);
        self.failed_sequence.store(0, Relaxed);
        self.stamps.iter().for_each(|stamp| stamp.store(0, Relaxed));
        self.ended.store(0, Release);
    }
}

/// Where a record lies.
#[expect(clippy::large_enum_variant, reason = "one per context, and the host reads it without another indirection")]
enum Place {
    /// Here: the host writes it.
    Own(Record),
    /// Where a GPU writes it, too.
    Mapped(Local<MappedRecord>),
}

impl Deref for Place {
    type Target = Record;

    #[inline]
    fn deref(&self) -> &Record {
        match self {
            Place::Own(record) => record,
            Place::Mapped(record) => record,
        }
    }
}

/// Told when a thread is about to sleep until a record changes that no thread of the device writes.
pub trait Watcher: Send + Sync {
    /// Somebody sleeps, or waits for a completion.
    fn watch(&self);
}

/// How far a lane has come. Its device writes it, anyone reads it and may sleep until it changes.
pub struct Progress {
    record: Place,
    watcher: Option<Arc<dyn Watcher>>,
    /// Ordinal of the last request that nobody wants any more.
    given_up: AtomicU64,
    /// With every end and every cancel.
    changes: Changes,
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new(Place::Own(Record::default()), None)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("record", &*self.record).finish_non_exhaustive()
    }
}

impl Progress {
    fn new(record: Place, watcher: Option<Arc<dyn Watcher>>) -> Self {
        Progress { record, watcher, given_up: AtomicU64::new(0), changes: Changes::default() }
    }

    /// A progress that a GPU writes; `watcher` looks after those who sleep.
    pub(super) fn mapped(record: MappedRecord, watcher: Arc<dyn Watcher>) -> Self {
        Progress::new(Place::Mapped(Local::new(record)), Some(watcher))
    }

    /// The record, if a GPU writes it.
    pub(super) fn mapped_record(&self) -> Option<&MappedRecord> {
        match &self.record {
            Place::Own(_) => None,
            Place::Mapped(record) => Some(record),
        }
    }

    /// The frozen 256 bytes that C reads, valid as long as `self`.
    pub fn record_address(&self) -> *const u8 {
        std::ptr::from_ref(&*self.record).cast()
    }

    /// Writes the end of a request and wakes every sleeper. Everything that the request wrote is visible to whoever reads
    /// the end.
    pub fn end(&self, outcome: &Outcome) {
        let stamps = &outcome.stamps;
        let values = [stamps.start_ns, stamps.inputs_ns, stamps.compute_ns, stamps.done_ns];
        for (place, value) in self.record.stamps.iter().zip(values) {
            place.store(value, Relaxed);
        }
        if outcome.status == Status::Ok {
            self.record.done.store(outcome.sequence, Release);
        } else {
            self.record.status.store(outcome.status as i32, Relaxed);
            self.record.failed_sequence.store(outcome.sequence, Release);
        }
        self.record.ended.store(outcome.ordinal, Release);
        self.wake();
    }

    /// Whether the request with this ordinal, and so every earlier one, has ended.
    #[inline]
    pub fn has_reached(&self, ordinal: u64) -> bool {
        self.record.ended.load(Acquire) >= ordinal
    }

    /// Whether the end of the last request, which has this number, can be seen by whoever reads the record, though perhaps not yet by
    /// [`Progress::has_reached`]: the ordinal is written after the number.
    pub fn is_seen(&self, sequence: u32) -> bool {
        [&self.record.done, &self.record.failed_sequence].iter().any(|number| number.load(Acquire) == sequence)
    }

    /// How the last request ended, of which [`Progress::has_reached`] is known.
    #[inline]
    pub fn status_of(&self, sequence: u32) -> Status {
        if self.record.failed_sequence.load(Acquire) == sequence { self.failure() } else { Status::Ok }
    }

    #[cold]
    fn failure(&self) -> Status {
        Status::from_code(self.record.status.load(Relaxed)).unwrap_or(Status::Internal)
    }

    /// The time stamps of the last request that ended.
    pub fn stamps(&self) -> Stamps {
        let [start_ns, inputs_ns, compute_ns, done_ns] = self.record.stamps.each_ref().map(|stamp| stamp.load(Relaxed));
        Stamps { start_ns, inputs_ns, compute_ns, done_ns }
    }

    /// Says that the request with this ordinal, and every earlier one, need not be finished.
    pub fn give_up(&self, ordinal: u64) {
        self.given_up.fetch_max(ordinal, Relaxed);
    }

    /// Whether nobody wants the request any more: its device may end it early.
    pub fn is_given_up(&self, ordinal: u64) -> bool {
        self.given_up.load(Relaxed) >= ordinal
    }

    /// Whether anyone sleeps until it changes.
    pub(super) fn has_sleepers(&self) -> bool {
        self.changes.has_sleepers()
    }

    /// Says that somebody waits for the end without looking.
    pub fn watch(&self) {
        if let Some(watcher) = &self.watcher {
            watcher.watch();
        }
    }

    /// Makes every sleeper look again.
    pub fn wake(&self) {
        self.changes.tell();
    }

    /// Sleeps until `is_over` holds or the monotonic clock passes `until_ns` (`u64::MAX`: never). Answers `is_over`.
    pub fn sleep_until(&self, until_ns: u64, is_over: impl Fn() -> bool) -> bool {
        let sleeper = self.changes.sleeper();
        self.watch();
        sleeper.sleep_until(until_ns, is_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::host::clock;
    use std::sync::Arc;

    fn outcome(sequence: u32, status: Status) -> Outcome {
        let stamps = Stamps { start_ns: 1, inputs_ns: 2, compute_ns: 3, done_ns: 4 };
        Outcome { sequence, ordinal: sequence.into(), status, stamps }
    }

    #[test]
    fn the_record_has_the_layout_of_the_abi() {
        assert_eq!((size_of::<Record>(), align_of::<Record>()), (256, 128));
        assert_eq!(std::mem::offset_of!(Record, failed_sequence), 128);
        assert_eq!((std::mem::offset_of!(Record, stamps), std::mem::offset_of!(Record, ended)), (8, 40));
    }

    #[test]
    fn a_failure_is_remembered_with_its_sequence() {
        let progress = Progress::default();
        progress.end(&outcome(1, Status::Ok));
        progress.end(&outcome(2, Status::Expired));
        assert!(progress.has_reached(2) && !progress.has_reached(3));
        assert_eq!((progress.status_of(1), progress.status_of(2)), (Status::Ok, Status::Expired));
    }

    #[test]
    fn sleepers_wake_at_the_end_and_at_their_time() {
        let progress = Arc::new(Progress::default());
        let soon = clock::monotonic_ns() + 2_000_000;
        assert!(!progress.sleep_until(soon, || progress.has_reached(1)));
        assert!(clock::monotonic_ns() >= soon);
        let sleeper = {
            let progress = progress.clone();
            std::thread::spawn(move || progress.sleep_until(u64::MAX, || progress.has_reached(1)))
        };
        progress.end(&outcome(1, Status::Ok));
        assert!(sleeper.join().unwrap());
    }
}
