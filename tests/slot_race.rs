//! Every interleaving of a use that races a free, under loom: the slot word never lets a user at an object that is
//! destroyed, and exactly one caller destroys it.

#[path = "../src/ffi/slot.rs"]
#[allow(dead_code, reason = "the library uses the rest")]
mod slot;

/// What `slot` counts with here.
mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use slot::{Departure, Refusal, SlotWord};

/// A slot as `src/ffi/table.rs` has it: a part of the object for calls that enter and one for calls that pin. loom's cells panic
/// when two entered calls, or any call and the destruction, overlap.
struct Place {
    word: SlotWord,
    own: UnsafeCell<u32>,
    shared: UnsafeCell<u32>,
    destroyed: AtomicUsize,
}

impl Place {
    fn new() -> Arc<Self> {
        let (own, shared) = (UnsafeCell::new(7), UnsafeCell::new(7));
        let place = Place { word: SlotWord::new(), own, shared, destroyed: AtomicUsize::new(0) };
        place.word.publish();
        Arc::new(place)
    }

    fn depart(&self, departure: Departure) {
        if departure == Departure::Last {
            for part in [&self.own, &self.shared] {
                part.with_mut(|part| {
                    // SAFETY: the word says that nobody else is inside; loom checks it.
                    unsafe { *part = 0 }
                });
            }
            self.destroyed.fetch_add(1, Relaxed);
            assert!(self.word.retire());
        }
    }

    fn enter(&self) -> Result<(), Refusal> {
        self.word.enter(1)?;
        self.own.with_mut(|own| {
            // SAFETY: entered, so nobody else has this part; loom checks it.
            assert_eq!(unsafe { *own }, 7, "used after it was destroyed");
        });
        self.depart(self.word.leave());
        Ok(())
    }

    fn pin(&self) -> Result<(), Refusal> {
        self.word.pin(1)?;
        self.shared.with(|shared| {
            // SAFETY: pinned, so nobody writes this part; loom checks it.
            assert_eq!(unsafe { *shared }, 7, "used after it was destroyed");
        });
        self.depart(self.word.unpin());
        Ok(())
    }

    fn free(&self) -> Result<(), Refusal> {
        self.word.pin(1)?;
        let closed = self.word.close(1);
        self.depart(self.word.unpin());
        closed
    }
}

/// What a thread does to a place.
type Use = fn(&Place) -> Result<(), Refusal>;

fn race(uses: &'static [Use]) {
    let mut explorer = loom::model::Builder::new();
    // All interleavings of three threads take five minutes (`LOOM_MAX_PREEMPTIONS=100` runs them); those with at most three
    // switches that nothing forces take seconds, and no known race of this size needs more.
    if uses.len() > 1 && explorer.preemption_bound.is_none() {
        explorer.preemption_bound = Some(3);
    }
    explorer.check(move || {
        let place = Place::new();
        let spawn = |body: Use| {
            let place = place.clone();
            thread::spawn(move || body(&place))
        };
        let users: Vec<_> = uses.iter().copied().map(spawn).collect();
        let freed = place.free();
        let answers: Vec<_> = users.into_iter().map(|user| user.join().unwrap()).collect();
        for answer in answers.iter().chain([&freed]) {
            assert!(matches!(answer, Ok(()) | Err(Refusal::Stale | Refusal::Busy)), "{answer:?}");
        }
        assert_eq!(place.destroyed.load(Relaxed), 1, "destroyed once");
        assert_eq!(place.word.enter(1), Err(Refusal::Stale));
        assert_eq!(place.word.enter(2), Err(Refusal::Forged));
    });
}

#[test]
fn a_call_races_a_free() {
    race(&[Place::enter]);
}

#[test]
fn a_pin_races_a_free() {
    race(&[Place::pin]);
}

#[test]
fn two_frees_race() {
    race(&[Place::free]);
}

#[test]
fn a_call_and_a_cancel_race_a_free() {
    race(&[Place::enter, Place::pin]);
}

#[test]
fn of_two_calls_at_once_one_is_busy() {
    loom::model(|| {
        let place = Place::new();
        let other = place.clone();
        let first = thread::spawn(move || other.enter());
        let second = place.enter();
        let answers = [first.join().unwrap(), second];
        assert!(
            answers.contains(&Ok(())) && answers.iter().all(|answer| matches!(answer, Ok(()) | Err(Refusal::Busy)))
        );
    });
}
