//! The word that decides who may use a handle's object, and who destroys it.
//!
//! Generation (40 bits), flags (8 bits), pins (16 bits). A context's call takes the slot for itself with one
//! compare-and-swap from idle to busy; calls on other nouns, and the calls on a context that any thread may make, pin it.
//! Closing refuses all newcomers. Whoever leaves a closing slot last destroys the object: exactly one caller sees
//! [`Departure::Last`]. `tests/slot_race.rs` runs this file under loom.

use super::atomic::{AtomicU64, Ordering};

/// Generations that a slot can have. It retires with the last.
pub const GENERATION_MAX: u64 = (1 << 40) - 1;

const PINS: u64 = 0xffff;
const LIVE: u64 = 1 << 16;
const BUSY: u64 = 1 << 17;
const CLOSING: u64 = 1 << 18;
const POISONED: u64 = 1 << 19;
const GENERATION_SHIFT: u32 = 24;

/// Why a slot cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The generation was never issued.
    Forged,
    /// The generation has been freed.
    Stale,
    /// Another thread has the slot for itself, or too many have pinned it.
    Busy,
    /// A panic left the object in an unknown state.
    Poisoned,
}

/// What leaving means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Departure {
    /// Others may be inside or come.
    NotLast,
    /// The slot is closing and empty: the caller destroys the object and calls [`SlotWord::retire`].
    Last,
}

/// The word.
#[derive(Debug)]
pub struct SlotWord(AtomicU64);

const fn is_last(word: u64) -> bool {
    word & CLOSING != 0 && word & (BUSY | PINS) == 0
}

impl SlotWord {
    /// A slot whose first object will have generation 1.
    pub fn new() -> Self {
        SlotWord(AtomicU64::new(1 << GENERATION_SHIFT))
    }

    /// The generation of the object that is there, or will be next.
    pub fn generation(&self) -> u64 {
        self.0.load(Ordering::Relaxed) >> GENERATION_SHIFT
    }

    /// The object is in place.
    pub fn publish(&self) {
        self.0.fetch_or(LIVE, Ordering::Release);
    }

    #[inline]
    fn admit(word: u64, generation: u64) -> Result<(), Refusal> {
        let current = word >> GENERATION_SHIFT;
        if generation != current || word & (LIVE | CLOSING) != LIVE {
            // A live slot that is closing has been freed as far as callers can tell.
            let was_issued = generation < current || (generation == current && word & LIVE != 0);
            return Err(if was_issued && generation != 0 { Refusal::Stale } else { Refusal::Forged });
        }
        Ok(())
    }

    /// Whether an object with this generation was ever published.
    pub fn has_issued(&self, generation: u64) -> bool {
        Self::admit(self.0.load(Ordering::Relaxed), generation) != Err(Refusal::Forged)
    }

    #[inline]
    fn change(&self, next: impl Fn(u64) -> Result<u64, Refusal>) -> Result<u64, Refusal> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let new = next(word)?;
            match self.0.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(new),
                Err(now) => word = now,
            }
        }
    }

    /// Takes the slot for one call that excludes every other one.
    #[inline]
    pub fn enter(&self, generation: u64) -> Result<(), Refusal> {
        self.change(|word| {
            Self::admit(word, generation)?;
            match word & (BUSY | POISONED) {
                0 => Ok(word | BUSY),
                state if state & POISONED != 0 => Err(Refusal::Poisoned),
                _ => Err(Refusal::Busy),
            }
        })
        .map(|_| ())
    }

    /// Ends [`SlotWord::enter`].
    #[inline]
    pub fn leave(&self) -> Departure {
        let word = self.0.fetch_and(!BUSY, Ordering::AcqRel) & !BUSY;
        if is_last(word) { Departure::Last } else { Departure::NotLast }
    }

    /// Keeps the object for a call that excludes nobody.
    #[inline]
    pub fn pin(&self, generation: u64) -> Result<(), Refusal> {
        self.change(|word| {
            Self::admit(word, generation)?;
            if word & PINS == PINS { Err(Refusal::Busy) } else { Ok(word + 1) }
        })
        .map(|_| ())
    }

    /// Ends [`SlotWord::pin`].
    #[inline]
    pub fn unpin(&self) -> Departure {
        let word = self.0.fetch_sub(1, Ordering::AcqRel) - 1;
        if is_last(word) { Departure::Last } else { Departure::NotLast }
    }

    /// Refuses all newcomers. Only one caller gets through with it, and it holds a pin: who leaves last is told so.
    pub fn close(&self, generation: u64) -> Result<(), Refusal> {
        self.change(|word| Self::admit(word, generation).map(|()| word | CLOSING)).map(|_| ())
    }

    /// Refuses [`SlotWord::enter`] from now on; called inside one.
    pub fn poison(&self) {
        self.0.fetch_or(POISONED, Ordering::Relaxed);
    }

    /// The object is destroyed. Answers whether the slot can have another.
    pub fn retire(&self) -> bool {
        let generation = self.generation() + 1;
        self.0.store(generation << GENERATION_SHIFT, Ordering::Release);
        generation < GENERATION_MAX
    }
}
