//! The queue in which parked requests announce their end.

use crate::device::host::eventfd::EventFd;
use crate::error::{Result, Status};
use crossbeam::queue::ArrayQueue;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

/// The end of a parked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// [`super::Context::id`] of its context or [`super::Batcher::id`] of its batcher, which may have been dropped since.
    pub context: u64,
    /// The request's token.
    pub token: u64,
    /// The request's number; 0 for a batcher's slot.
    pub sequence: u32,
    /// How it ended.
    pub status: Status,
}

/// Where completions come from.
pub trait Origin: Send + Sync {
    /// A completion has reached the caller; `number` is what it was pushed with.
    fn reaped(&self, number: u64);
}

/// A completion on its way.
struct Arrival {
    origin: Arc<dyn Origin>,
    number: u64,
    completion: Completion,
}

/// Holds one completion at most per context and per slot of a batcher, each of which has a [`super::seat::Seat`], so it has room
/// for every one.
pub struct CompletionQueue {
    arrivals: ArrayQueue<Arrival>,
    signal: EventFd,
    /// Whether the signal is raised, or about to be.
    raised: AtomicBool,
}

impl CompletionQueue {
    /// A queue for so many seats.
    pub fn new(seats: usize) -> Result<Self> {
        let arrivals = ArrayQueue::new(seats.max(1));
        Ok(CompletionQueue { arrivals, signal: EventFd::new()?, raised: AtomicBool::new(false) })
    }

    /// Queues a completion; [`CompletionQueue::raise`] is to follow. Whoever calls it has moved the request from parked to queued.
    pub fn push(&self, origin: Arc<dyn Origin>, number: u64, completion: Completion) {
        let pushed = self.arrivals.push(Arrival { origin, number, completion });
        debug_assert!(pushed.is_ok(), "the queue has a place for every seat");
    }

    /// Raises the signal.
    pub fn raise(&self) {
        if !self.raised.swap(true, SeqCst) {
            self.signal.raise();
        }
    }

    /// Takes completions out, oldest first, until there is none or `accept` has been given `count`.
    pub fn reap(&self, count: usize, mut accept: impl FnMut(Completion)) -> usize {
        // In this order, and both before the queue is looked at. Whoever pushes before the store may raise nothing, but is seen
        // below; whoever pushes after it raises the signal again. Cleared after the store, a signal raised between the two
        // would be lost, and with it all later ones. Cleared only when `raised` is set, it could stay up for good.
        self.signal.clear();
        self.raised.store(false, SeqCst);
        let mut taken = 0;
        while taken < count
            && let Some(arrival) = self.arrivals.pop()
        {
            arrival.origin.reaped(arrival.number);
            accept(arrival.completion);
            taken += 1;
        }
        if !self.arrivals.is_empty() {
            self.raise();
        }
        taken
    }

    /// Completions that wait.
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// A descriptor that is readable while completions wait.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        self.signal.duplicate()
    }

    /// Drops what nobody will reap, and with it the origins that hold this queue.
    pub fn close(&self) {
        while self.arrivals.pop().is_some() {}
    }
}
