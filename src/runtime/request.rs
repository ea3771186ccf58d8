//! The state of a context's request, on which the context's thread, its device, whoever cancels and whoever reaps agree
//! without a lock.
//!
//! Two words, each an ordinal and a phase. `state` says what the caller has been told; `parking` decides who delivers
//! the one completion of a parked request. That the device has finished stands in [`Progress`] alone. Each transition that two
//! threads may attempt is a compare-and-swap, so exactly one of them makes it.

use super::completion::{Completion, CompletionQueue, Origin};
use super::seat::Seat;
use crate::device::Progress;
use crate::device::host::process;
use crate::error::{Error, Result, Status, ensure, fail};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// Nothing in flight: the caller knows how the last request ended.
const IDLE: u64 = 0;
/// Submitted; the caller has not been told of its end.
const FLYING: u64 = 1;
/// The caller has been told `Timeout`; the device may be at work.
const TIMED_OUT: u64 = 2;
/// The caller has been told `Cancelled`; the device may be at work.
const CANCELLED: u64 = 3;

/// Nobody waits for a completion.
const NOT_PARKED: u64 = 0;
/// A completion is promised.
const PARKED: u64 = 1;
/// The completion is in the queue.
const QUEUED: u64 = 2;

const PHASE_BITS: u32 = 8;

const fn word(ordinal: u64, phase: u64) -> u64 {
    ordinal << PHASE_BITS | phase
}

const fn ordinal_of(word: u64) -> u64 {
    word >> PHASE_BITS
}

const fn phase_of(word: u64) -> u64 {
    word & ((1 << PHASE_BITS) - 1)
}

/// The number that callers see: 1 upwards, never 0.
#[inline]
pub const fn sequence_of(ordinal: u64) -> u32 {
    if ordinal == 0 { 0 } else { ((ordinal - 1) % u32::MAX as u64 + 1) as u32 }
}

/// The request of one context.
pub struct Request {
    /// The process whose request it is.
    process: u64,
    state: AtomicU64,
    parking: AtomicU64,
    token: AtomicU64,
    context: AtomicU64,
    submit_ns: AtomicU64,
    /// The bucket of the last request, for contexts that are linked to this one.
    bucket: AtomicUsize,
    progress: Arc<Progress>,
    queue: Arc<CompletionQueue>,
    _seat: Seat,
}

impl Request {
    /// A context without a request yet.
    pub fn new(context: u64, progress: Arc<Progress>, queue: Arc<CompletionQueue>, seat: Seat) -> Arc<Self> {
        Arc::new(Request {
            process: process::number(),
            state: AtomicU64::new(word(0, IDLE)),
            parking: AtomicU64::new(word(0, NOT_PARKED)),
            token: AtomicU64::new(0),
            context: AtomicU64::new(context),
            submit_ns: AtomicU64::new(0),
            bucket: AtomicUsize::new(0),
            progress,
            queue,
            _seat: seat,
        })
    }

    /// How far the context's lane has come.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// What completions name the context.
    pub fn context(&self) -> u64 {
        self.context.load(Relaxed)
    }

    /// Gives the context another name.
    pub fn rename(&self, context: u64) {
        self.context.store(context, Relaxed);
    }

    /// Ordinal of the last request submitted.
    pub fn ordinal(&self) -> u64 {
        ordinal_of(self.state.load(SeqCst))
    }

    /// Bucket of the last request submitted.
    pub fn bucket(&self) -> usize {
        self.bucket.load(Relaxed)
    }

    /// When the last request was submitted.
    pub fn submit_ns(&self) -> u64 {
        self.submit_ns.load(Relaxed)
    }

    /// Whether this is the process whose request it is. In a child of that one the record may lie in memory that is not there, and the queue
    /// is as another thread has left it.
    fn is_here(&self) -> bool {
        process::number() == self.process
    }

    fn has_ended(&self, ordinal: u64) -> bool {
        self.progress.has_reached(ordinal)
    }

    /// Whether nothing is in flight and nothing is left to be told.
    pub fn ensure_idle(&self) -> Result<()> {
        let state = self.state.load(SeqCst);
        let (ordinal, sequence) = (ordinal_of(state), sequence_of(ordinal_of(state)));
        ensure!(
            phase_of(state) != FLYING,
            InFlight,
            "request {sequence} is in flight until poll, wait or reap says its end"
        );
        self.ensure_settled()?;
        let queued = self.parking.load(SeqCst) == word(ordinal, QUEUED);
        ensure!(!queued, InFlight, "the completion of request {sequence} has not been reaped");
        Ok(())
    }

    /// Whether the memory is the host's or that of a request in flight, not that of one given up.
    pub fn ensure_settled(&self) -> Result<()> {
        let state = self.state.load(SeqCst);
        let (ordinal, sequence) = (ordinal_of(state), sequence_of(ordinal_of(state)));
        let is_left = phase_of(state) != FLYING && !self.has_ended(ordinal);
        ensure!(!is_left, Draining, "the device is still at request {sequence}, which was given up");
        Ok(())
    }

    /// The next request is submitted; answers its ordinal. Only the context's thread calls it, after
    /// [`Request::ensure_idle`].
    pub fn begin(&self, token: u64, submit_ns: u64, bucket: usize) -> u64 {
        let ordinal = self.ordinal() + 1;
        self.token.store(token, Relaxed);
        self.submit_ns.store(submit_ns, Relaxed);
        self.bucket.store(bucket, Relaxed);
        self.state.store(word(ordinal, FLYING), SeqCst);
        ordinal
    }

    /// The launch was refused: as if the request had never been.
    pub fn unwind(&self, ordinal: u64) {
        self.state.store(word(ordinal - 1, IDLE), SeqCst);
    }

    /// The state of the request that a caller names.
    #[inline]
    fn named(&self, sequence: u32) -> Result<u64> {
        let state = self.state.load(SeqCst);
        let last = sequence_of(ordinal_of(state));
        if last != sequence || last == 0 { Err(misnamed(last, sequence)) } else { Ok(state) }
    }

    /// What the caller is to be told of the request now: `Pending`, `Parked`, `Ok` or how it failed.
    #[inline]
    pub fn look(&self, sequence: u32) -> Result<Status> {
        loop {
            let state = self.named(sequence)?;
            let ordinal = ordinal_of(state);
            match phase_of(state) {
                TIMED_OUT => return Ok(Status::Timeout),
                CANCELLED => return Ok(Status::Cancelled),
                IDLE => return Ok(self.progress.status_of(sequence)),
                _ => {}
            }
            let parking = self.parking.load(SeqCst);
            if ordinal_of(parking) == ordinal && phase_of(parking) != NOT_PARKED {
                return Ok(Status::Parked);
            }
            if !self.has_ended(ordinal) {
                return Ok(Status::Pending);
            }
            // Fails when somebody cancels or reaps at this moment: look again.
            let _ = self.state.compare_exchange(state, word(ordinal, IDLE), SeqCst, SeqCst);
        }
    }

    /// Whether a waiter has anything to tell.
    pub fn is_over(&self, ordinal: u64) -> bool {
        self.state.load(SeqCst) != word(ordinal, FLYING) || self.has_ended(ordinal)
    }

    /// The waiter's time is over. `false` if the request was told of meanwhile.
    pub fn time_out(&self, ordinal: u64) -> bool {
        self.give_up(ordinal, TIMED_OUT)
    }

    /// Gives the request up. `TooLate` if it has ended or was given up before, `DeviceLost` in a forked child.
    pub fn cancel(self: &Arc<Self>, sequence: u32) -> Result<Status> {
        ensure!(self.is_here(), DeviceLost, "the request is that of the process which this one was forked from");
        let state = self.state.load(SeqCst);
        let last = sequence_of(ordinal_of(state));
        ensure!(last != 0 && sequence != 0, InvalidArgument, "there is no request {sequence} to cancel");
        if last != sequence {
            // An older one has ended; a newer one does not exist.
            let is_older = (last.wrapping_sub(sequence) as i32) > 0;
            ensure!(is_older, InvalidArgument, "the context's last request is {last}, not {sequence}");
            return Ok(Status::TooLate);
        }
        Ok(if self.abandon(ordinal_of(state)) { Status::Ok } else { Status::TooLate })
    }

    /// Gives up whatever is in flight, because the context goes away. In a forked child nothing is.
    pub fn abandon_last(self: &Arc<Self>) {
        if self.is_here() {
            self.abandon(self.ordinal());
        }
    }

    fn abandon(self: &Arc<Self>, ordinal: u64) -> bool {
        let done = phase_of(self.state.load(SeqCst)) != FLYING || self.has_ended(ordinal);
        if done || !self.give_up(ordinal, CANCELLED) {
            return false;
        }
        self.progress.wake();
        self.deliver(ordinal, Status::Cancelled);
        true
    }

    fn give_up(&self, ordinal: u64, phase: u64) -> bool {
        let flying = word(ordinal, FLYING);
        let won = self.state.compare_exchange(flying, word(ordinal, phase), SeqCst, SeqCst).is_ok();
        if won {
            self.progress.give_up(ordinal);
        }
        won
    }

    /// Promises a completion for the request in flight.
    pub fn park(self: &Arc<Self>, sequence: u32) -> Result<()> {
        let state = self.named(sequence)?;
        let ordinal = ordinal_of(state);
        ensure!(phase_of(state) != IDLE, WrongState, "request {sequence} has ended: there is nothing to park");
        ensure!(phase_of(state) == FLYING, Draining, "request {sequence} was given up");
        let parking = self.parking.load(SeqCst);
        let is_free = ordinal_of(parking) != ordinal || phase_of(parking) == NOT_PARKED;
        ensure!(is_free, WrongState, "request {sequence} is parked already");
        self.parking.store(word(ordinal, PARKED), SeqCst);
        self.progress.watch();
        // Who ended it before it was parked did not see the promise, so it is kept here.
        if self.state.load(SeqCst) == word(ordinal, CANCELLED) {
            self.deliver(ordinal, Status::Cancelled);
        } else if self.has_ended(ordinal) {
            self.deliver(ordinal, self.progress.status_of(sequence));
        }
        Ok(())
    }

    /// Whether a completion is promised and not queued yet.
    pub fn is_parked(&self) -> bool {
        phase_of(self.parking.load(SeqCst)) == PARKED
    }

    /// Takes the promise back. `TooLate` if the completion is on its way.
    pub fn unpark(&self, sequence: u32) -> Result<Status> {
        let ordinal = ordinal_of(self.named(sequence)?);
        let parked = word(ordinal, PARKED);
        match self.parking.compare_exchange(parked, word(ordinal, NOT_PARKED), SeqCst, SeqCst) {
            Ok(_) => Ok(Status::Ok),
            Err(now) if now == word(ordinal, QUEUED) => Ok(Status::TooLate),
            Err(_) => Err(fail!(WrongState, "request {sequence} is not parked")),
        }
    }

    /// Queues the completion of a request if one is promised and nobody else queues it.
    pub fn deliver(self: &Arc<Self>, ordinal: u64, status: Status) {
        let parked = word(ordinal, PARKED);
        if self.parking.compare_exchange(parked, word(ordinal, QUEUED), SeqCst, SeqCst).is_ok() {
            let (context, token) = (self.context(), self.token.load(Relaxed));
            let completion = Completion { context, token, sequence: sequence_of(ordinal), status };
            self.queue.push(self.clone(), ordinal, completion);
            self.queue.raise();
        }
    }
}

#[cold]
#[inline(never)]
fn misnamed(last: u32, sequence: u32) -> Error {
    match last {
        0 => fail!(InvalidArgument, "nothing has been submitted, so there is no request {sequence}"),
        _ => fail!(InvalidArgument, "the context's last request is {last}, not {sequence}"),
    }
}

impl Origin for Request {
    /// The caller knows of the end of the request with this ordinal.
    fn reaped(&self, ordinal: u64) {
        // In this order: who sees the request ended may submit the next one, and finds nothing of this one left.
        self.parking.store(word(ordinal, NOT_PARKED), SeqCst);
        // A request that was given up stays so. Failing means that it did, or that the caller has looked since.
        let _ = self.state.compare_exchange(word(ordinal, FLYING), word(ordinal, IDLE), SeqCst, SeqCst);
    }
}
