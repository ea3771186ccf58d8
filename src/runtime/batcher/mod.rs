//! Batchers: a bounded queue in front of contexts of one model that merges requests into batches.
//!
//! The queue is the contexts' own memory: a request reserves a slot, which is rows of a batch that forms, writes its inputs there
//! and commits. `board.rs` and `closing.rs` are the state, `class.rs` says where rows lie, `core.rs` moves batches, `service.rs` knows how long
//! they take.

mod batch;
mod board;
#[cfg(test)]
mod board_tests;
mod class;
mod closing;
mod core;
mod failure;
mod service;
mod slot;

pub use batch::{BatchTimings, Closing, Occupancy, Totals};
pub use class::{Axes, Shapes, SlotView};
pub use slot::SlotId;

use self::core::{Core, Ear, Memory, Shared};
use super::bucket::Bucket;
use super::context::{Context, ContextOptions};
use super::ledger::Account;
use super::model::{Model, ModelCore};
use super::wait::WaitPolicy;
use crate::device::Priority;
use crate::device::host::clock;
use crate::error::{Result, Status, ensure, fail};
use crate::limits::{
    BATCH_DELAY_NS_DEFAULT, BATCH_WAKE_NS_MAX, BATCH_WAKE_NS_MIN, BATCHER_CONTEXTS_DEFAULT, BATCHER_CONTEXTS_MAX,
    BATCHER_SLOTS_MAX, CONTEXT_THREADS_MAX,
};
use batch::{Misuse, Place, Size};
use board::Board;
use class::{Classes, Part};
use service::Service;
use slot::{Parking, Phase};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, Weak};

/// How a batcher is made.
#[derive(Clone, Debug, Default)]
pub struct BatcherOptions {
    /// Contexts, each of which holds one batch that forms, runs or is read; 0: [`BATCHER_CONTEXTS_DEFAULT`].
    pub contexts: usize,
    /// Host threads that each context computes with; 0: the engine's default.
    pub threads: usize,
    /// Before whose work a GPU begins the batches; nothing on the host device.
    pub priority: Priority,
    /// How long a batch waits for more requests after its first, nanoseconds; 0: [`BATCH_DELAY_NS_DEFAULT`].
    pub delay_ns: u64,
    /// The model's buckets to use; none: all that it has now.
    pub buckets: Vec<Bucket>,
}

/// What a batcher is at, and what has happened since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatcherStats {
    /// Kinds of requests that are not merged with each other: the model's buckets, without their batch.
    pub classes: usize,
    /// What is under way.
    pub occupancy: Occupancy,
    /// What has happened.
    pub totals: Totals,
}

/// Merges requests to one model into batches. Any thread may use it, several at once. Dropping it gives every slot up; memory and
/// threads go when the device is done.
///
/// Nothing is allocated after it is made, but for the words of errors.
pub struct Batcher {
    core: Arc<Core>,
}

/// The sizes of all classes, whose times are yet to be measured.
fn sizes_of(classes: &Classes) -> Vec<Vec<Size>> {
    let size = |&(rows, bucket): &(usize, usize)| Size { rows, bucket, service: Service::default() };
    classes.list.iter().map(|class| class.sizes.iter().map(size).collect()).collect()
}

impl Batcher {
    /// Makes the contexts and measures how long each bucket takes.
    ///
    /// # Errors
    /// `Unsupported` if the model was loaded without a padding of the kind batch, which proves that rows are independent, or has
    /// an input without batch axis; `NoBucket`, `InvalidArgument`, `LimitReached`, and those of [`Context::prepare`] and
    /// [`Context::run`].
    pub fn new(model: &Model, options: &BatcherOptions) -> Result<Batcher> {
        let model = &model.core;
        let engine = &model.engine;
        engine.ensure_alive()?;
        let batches = if options.contexts == 0 { BATCHER_CONTEXTS_DEFAULT } else { options.contexts };
        ensure!(
            batches <= BATCHER_CONTEXTS_MAX,
            InvalidArgument,
            "{batches} contexts are above {BATCHER_CONTEXTS_MAX}"
        );
        let threads = options.threads;
        ensure!(threads <= CONTEXT_THREADS_MAX, InvalidArgument, "{threads} threads are above {CONTEXT_THREADS_MAX}");
        let wanted = options.buckets.iter().map(|bucket| model.find(&bucket.resolve(&model.inputs)?));
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        let buckets = if wanted.is_empty() { model.prepared() } else { wanted };
        let classes = Classes::new(model, &buckets)?;
        let delay_ns = if options.delay_ns == 0 { BATCH_DELAY_NS_DEFAULT } else { options.delay_ns };
        let board = Board::new(batches, sizes_of(&classes), delay_ns, (BATCH_WAKE_NS_MIN, BATCH_WAKE_NS_MAX));
        let slots = board.slot_count();
        ensure!(slots <= BATCHER_SLOTS_MAX, TooLarge, "{slots} rows of all batches are above {BATCHER_SLOTS_MAX}");
        let entry = engine.ledger.enter(Account::Batchers, 1)?;
        let shared = Shared::new(board, batches, classes.list, model, entry)?;
        let context_options = ContextOptions {
            threads,
            wait: WaitPolicy::Block,
            priority: options.priority,
            buckets: buckets.iter().map(|prepared| Bucket::of(&prepared.bucket)).collect(),
        };
        let mut contexts = Vec::new();
        for batch in 0..batches {
            let ear = Arc::new(Ear { shared: shared.clone(), batch });
            let mut context = Context::new(model, &context_options, Some(ear))?;
            context.prepare()?;
            contexts.push(context);
        }
        calibrate(&mut contexts[0], &shared)?;
        let areas = |context: &Context| context.areas().map(|(inputs, outputs)| Memory { inputs, outputs });
        let memory = contexts.iter().map(areas).collect::<Result<Vec<_>>>()?;
        let contexts = contexts.into_iter().map(Mutex::new).collect();
        let core = Arc::new(Core { shared, contexts, memory, model: model.clone() });
        let task: Weak<Core> = Arc::downgrade(&core);
        core.shared.alarm.enter(task);
        Ok(Batcher { core })
    }

    /// What completions name this batcher.
    pub fn id(&self) -> u64 {
        self.core.shared.id.load(Relaxed)
    }

    /// Makes completions name this batcher otherwise.
    pub fn set_id(&self, id: u64) {
        self.core.shared.id.store(id, Relaxed);
    }

    fn model(&self) -> &Arc<ModelCore> {
        &self.core.model
    }

    /// Takes the first free rows of a batch that forms for requests of these shapes, and fills what the shapes leave unused of
    /// them. The batch's axis may have any extent up to that of the largest bucket. `deadline_ns` is of `CLOCK_MONOTONIC`,
    /// 0 for none.
    ///
    /// # Errors
    /// `Again` while every batch is full, running or being read; `Expired` if the deadline cannot be met; `NoBucket`,
    /// `ShapeMismatch`, `InvalidArgument`; `DeviceLost`, `Poisoned`.
    pub fn reserve(&self, shapes: &impl Shapes, deadline_ns: u64) -> Result<SlotId> {
        self.model().engine.ensure_alive()?;
        let shared = &self.core.shared;
        let fit = Classes::fit(&shared.classes, shapes)?;
        let Some((class, fit)) = fit else {
            return Err(fail!(NoBucket, "no bucket of the batcher holds a request of these shapes"));
        };
        let deadline_ns = if deadline_ns == 0 { u64::MAX } else { deadline_ns };
        let now_ns = clock::monotonic_ns();
        let (reserved, due_ns) = {
            let mut board = shared.board();
            let reserved = board.reserve(class, fit.rows, deadline_ns, fit.extents, now_ns);
            (reserved.map(|id| (id, board.place(id))), board.due_ns())
        };
        let (id, place) = reserved.map_err(|refusal| failure::refused(refusal, self.core.contexts.len()))?;
        let place = place.map_err(|misuse| failure::misused(id, misuse))?;
        let memory = self.memory(&place);
        shared.classes[class].fill(&part(&place), &memory.inputs);
        self.core.follow_up(due_ns, now_ns);
        Ok(id)
    }

    fn memory(&self, place: &Place) -> &Memory {
        &self.core.memory[place.batch]
    }

    /// The state, which in a forked child may be held for ever.
    fn shared(&self) -> Result<&Arc<Shared>> {
        self.model().engine.ensure_here()?;
        Ok(&self.core.shared)
    }

    fn place(&self, id: SlotId) -> Result<Place> {
        self.shared()?.board().place(id).map_err(|misuse| failure::misused(id, misuse))
    }

    /// Where a slot's rows of an input lie. Its owner writes there from `reserve` to `commit`.
    ///
    /// # Errors
    /// `InFlight` from `commit` to the slot's end, or how it ended; `InvalidArgument` for the index, `WrongState` for a shape input,
    /// whose values are the bucket's; `InvalidHandle`, `StaleHandle`.
    pub fn input_view(&self, id: SlotId, index: usize) -> Result<SlotView> {
        let place = self.place(id)?;
        if !matches!(place.phase, Phase::Reserved | Phase::Ended(Status::Ok)) {
            return Err(failure::misused(id, Misuse::Phase(place.phase)));
        }
        let memory = self.memory(&place);
        let count = memory.inputs.len();
        let area = memory.inputs.get(index);
        let area = area.ok_or_else(|| fail!(InvalidArgument, "there is no input {index}; the model has {count}"))?;
        let view = self.core.shared.classes[place.class].input(index, &part(&place), area)?;
        view.ok_or_else(|| fail!(WrongState, "input {index} is a shape input, whose values are those of the bucket"))
    }

    /// Where a slot's rows of an output lie; all of an output that is the same for every batch. Its owner reads there from the
    /// slot's end until `release`.
    ///
    /// # Errors
    /// `WrongState` before `commit`, `InFlight` before the slot's end, or how it failed; `InvalidArgument` for the index;
    /// `InvalidHandle`, `StaleHandle`.
    pub fn output_view(&self, id: SlotId, index: usize) -> Result<SlotView> {
        let place = self.place(id)?;
        if place.phase != Phase::Ended(Status::Ok) {
            return Err(failure::misused(id, Misuse::Phase(place.phase)));
        }
        let memory = self.memory(&place);
        let count = memory.outputs.len();
        let area = memory.outputs.get(index);
        let area = area.ok_or_else(|| fail!(InvalidArgument, "there is no output {index}; the model has {count}"))?;
        self.core.shared.classes[place.class].output(index, &part(&place), area)
    }

    /// Where the time of the batch went in which a slot has run.
    ///
    /// # Errors
    /// `WrongState` before `commit`, `InFlight` before the slot's end, or how it failed; `InvalidHandle`, `StaleHandle`.
    pub fn timings(&self, id: SlotId) -> Result<BatchTimings> {
        let place = self.place(id)?;
        if place.phase != Phase::Ended(Status::Ok) {
            return Err(failure::misused(id, Misuse::Phase(place.phase)));
        }
        // As long as the slot is held nothing else is launched there.
        let (submit_ns, stamps) = self.core.last_stamps(place.batch);
        Ok(BatchTimings { closing: self.core.shared.board().closing(place.batch), submit_ns, stamps })
    }

    /// The slot's inputs are written: it runs with its batch. `token` comes back in its completion.
    ///
    /// # Errors
    /// `Expired` if its batch has closed without it, `WrongState` if it has ended or `InFlight` if it was committed before,
    /// `InvalidHandle`, `StaleHandle`.
    pub fn commit(&self, id: SlotId, token: u64) -> Result<()> {
        let due_ns = {
            let mut board = self.shared()?.board();
            board.commit(id, token).map_err(|misuse| failure::misused(id, misuse))?;
            board.due_ns()
        };
        self.core.follow_up(due_ns, clock::monotonic_ns());
        Ok(())
    }

    /// Gives a slot back that has not been committed.
    ///
    /// # Errors
    /// `InFlight` or `WrongState` if it has been committed, `InvalidHandle`, `StaleHandle`.
    pub fn abandon(&self, id: SlotId) -> Result<()> {
        let due_ns = {
            let mut board = self.shared()?.board();
            board.abandon(id).map_err(|misuse| failure::kept(id, misuse))?;
            board.due_ns()
        };
        self.core.follow_up(due_ns, clock::monotonic_ns());
        Ok(())
    }

    /// Gives a slot back that has ended: its memory is another's as soon as the device is done with it.
    ///
    /// # Errors
    /// `WrongState` if it has not been committed, `InFlight` if it has not ended, `InvalidHandle`, `StaleHandle`.
    pub fn release(&self, id: SlotId) -> Result<()> {
        self.shared()?.board().release(id).map_err(|misuse| failure::kept(id, misuse))
    }

    /// Whether a slot has ended: `Ok`, `Pending` or `Parked`.
    ///
    /// # Errors
    /// How it failed: `Expired`, `Cancelled`, `Timeout`, or the failure of its batch; `WrongState` before `commit`;
    /// `InvalidHandle`, `StaleHandle`.
    pub fn poll(&self, id: SlotId) -> Result<Status> {
        let place = self.place(id)?;
        match place.phase {
            Phase::Committed | Phase::Ended(_) if place.parking != Parking::None => Ok(Status::Parked),
            Phase::Committed => Ok(Status::Pending),
            Phase::Ended(Status::Ok) => Ok(Status::Ok),
            phase => Err(failure::misused(id, Misuse::Phase(phase))),
        }
    }

    /// Waits until a slot has ended, at most `timeout_ns`: 0 polls, `u64::MAX` waits for good. Answers as [`Batcher::poll`].
    ///
    /// # Errors
    /// Those of [`Batcher::poll`], and `Timeout`: the slot is given up as by [`Batcher::cancel`].
    pub fn wait(&self, id: SlotId, timeout_ns: u64) -> Result<Status> {
        // A forked child would wait for threads that it has not.
        self.model().engine.ensure_alive()?;
        let until_ns = match timeout_ns {
            0 | u64::MAX => timeout_ns,
            _ => clock::monotonic_ns().saturating_add(timeout_ns),
        };
        loop {
            let place = self.place(id)?;
            let status = self.poll(id)?;
            if status != Status::Pending || timeout_ns == 0 {
                return Ok(status);
            }
            let is_over = || !matches!(self.poll(id), Ok(Status::Pending));
            let sleeper = self.core.shared.changes[place.batch].sleeper();
            if !sleeper.sleep_until(until_ns, is_over) {
                self.give_up(id, Status::Timeout)?;
            }
        }
    }

    /// Asks for a completion in the engine's queue instead of waiting. Success promises exactly one.
    ///
    /// # Errors
    /// `WrongState` if the slot has not been committed or one was asked for already, `Expired`, `InvalidHandle`, `StaleHandle`.
    pub fn park(&self, id: SlotId) -> Result<()> {
        let parked = self.shared()?.change(|board, notify| board.park(id, notify));
        parked.map_err(|misuse| failure::misused(id, misuse))
    }

    /// Gives a committed slot up: its owner is told `Cancelled` at once, and its rows are not used again before its batch is
    /// over. Answers `TooLate` if it has ended.
    ///
    /// # Errors
    /// `WrongState` if it has not been committed, `InvalidHandle`, `StaleHandle`.
    pub fn cancel(&self, id: SlotId) -> Result<Status> {
        Ok(if self.give_up(id, Status::Cancelled)? { Status::Ok } else { Status::TooLate })
    }

    fn give_up(&self, id: SlotId, status: Status) -> Result<bool> {
        let shared = self.shared()?;
        let given_up = shared.change(|board, notify| {
            let is_ours = board.give_up(id, status, notify)?;
            Ok((is_ours, board.place(id)?.batch, board.due_ns()))
        });
        let (is_ours, batch, due_ns) = given_up.map_err(|misuse| failure::misused(id, misuse))?;
        if is_ours {
            shared.changes[batch].tell();
            self.core.follow_up(due_ns, clock::monotonic_ns());
        }
        Ok(is_ours)
    }

    /// What it is at; nothing in a forked child.
    pub fn stats(&self) -> BatcherStats {
        let Ok(shared) = self.shared() else { return BatcherStats::default() };
        let board = shared.board();
        BatcherStats { classes: self.core.shared.classes.len(), occupancy: board.occupancy(), totals: board.totals() }
    }

    /// Gives every slot up, for good. Waiters are told `Cancelled`, parked slots have their completions. In a forked child there are none.
    pub fn close(&self) {
        if let Ok(shared) = self.shared() {
            shared.close();
        }
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.close();
    }
}

fn part(place: &Place) -> Part {
    Part { row: place.row, rows: place.rows, extents: place.extents }
}

/// Measures every size of every class on one context: the second request, since the first meets cold caches.
fn calibrate(context: &mut Context, shared: &Shared) -> Result<()> {
    for (index, class) in shared.classes.iter().enumerate() {
        for (size, &(_, bucket)) in class.sizes.iter().enumerate() {
            let mut took_ns = 0;
            for _ in 0..2 {
                shared.board().rehearse(0, index, size);
                took_ns = context.measure(bucket)?;
                // The device's thread may still be about to tell of the end, which must not be taken for that of a later batch.
                shared.changes[0].sleeper().sleep_until(u64::MAX, || shared.board().is_idle(0));
            }
            shared.board().calibrate(index, size, took_ns);
        }
    }
    Ok(())
}
