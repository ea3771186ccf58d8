//! Seats: the right to have a completion on its way.

use crate::error::{Result, ensure, fail};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Places in the completion queue of an engine, given back when dropped: one of a context, or those of a batcher's slots.
#[derive(Debug)]
pub struct Seat {
    taken: Arc<AtomicUsize>,
    places: usize,
}

impl Seat {
    /// So many places, if of all `seats` as many are free.
    pub fn take(taken: &Arc<AtomicUsize>, seats: usize, places: usize) -> Result<Self> {
        let seat = Seat { taken: taken.clone(), places };
        let before = taken.fetch_add(places, Relaxed);
        // On refusal the places are given back.
        ensure!(
            before + places <= seats,
            LimitReached,
            "the engine has room for {seats} contexts and slots of batchers, as its options say, and {before} are there"
        );
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.places, Relaxed);
    }
}
