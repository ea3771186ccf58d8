//! Batchers and their slots.

use super::context::priority;
use super::error::{si_error, si_result};
use super::guard;
use super::model::{si_bucket, si_model};
use super::objects::{BATCHERS, MODELS};
use super::pointer::{In, Out, place, versioned};
use super::tensor::si_tensor_view;
use crate::error::{Result, Status, ensure, fail};
use crate::runtime::{BatchTimings, Batcher, BatcherOptions, BatcherStats, SlotId};
use std::mem::MaybeUninit;

/// A bounded queue in front of contexts of one model that merges requests into batches. Any thread may use it, several at once.
///
/// The queue is the contexts' own memory: a request reserves a slot, which is rows of a batch that forms, writes its inputs
/// there, commits, and reads its outputs there. A batch closes when it is full and all of it is committed, after its delay, or in
/// time for the earliest deadline of its slots, and runs in the smallest of the model's buckets that holds it. What is not
/// committed by then has expired, and runs as padding; rows are proved independent when the model is loaded, so it changes nothing.
/// Requests are merged whose buckets differ in their batch alone.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_batcher {
    /// 0 is no batcher.
    pub handle: u64,
}

/// The part of a batch that one request has: si_batcher_reserve, then si_slot_commit or si_slot_abandon, after a commit the end,
/// then si_slot_release. Its calls may come from different threads, one after the other; si_slot_cancel may come at any time.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_slot {
    /// Its batcher's handle.
    pub batcher: u64,
    /// What the batcher calls it, never twice the same; 0 is no slot.
    pub number: u64,
}

/// How a batcher is made. All zero (but struct_size) means every default; a null pointer does too.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_batcher_options {
    /// Set by the caller to sizeof(si_batcher_options).
    pub struct_size: u32,
    /// Contexts, each of which holds one batch that forms, runs or is read, at most 64. 0: 2.
    pub contexts: u32,
    /// Host threads that each context computes with. 0: the engine's default.
    pub threads: u32,
    /// Elements of buckets.
    pub bucket_count: u32,
    /// The model's buckets to use. Borrowed for the call. With none: all that the model has now.
    pub buckets: In<si_bucket>,
    /// How long a batch waits for more requests after its first. 0: a millisecond.
    pub delay_ns: u64,
    /// One of `SI_PRIORITY_*`, as of a context. 0: SI_PRIORITY_NORMAL.
    pub priority: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a batcher is at, and what has happened since it was made.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_batch_stats {
    /// Set by the caller to sizeof(si_batch_stats).
    pub struct_size: u32,
    /// Kinds of requests that are not merged with each other: the model's buckets, without their batch.
    pub class_count: u32,
    /// Slots that are not given back.
    pub slots: u32,
    /// Batches that take reservations or wait for their slots.
    pub forming: u32,
    /// Batches on the device, or refused by it for now.
    pub running: u32,
    /// Zero.
    pub reserved: u32,
    /// Slots reserved.
    pub reservations: u64,
    /// Reservations refused with SI_AGAIN.
    pub refusals: u64,
    /// Slots that ended with SI_OK.
    pub completed: u64,
    /// Slots abandoned.
    pub abandoned: u64,
    /// Reservations refused and slots ended with SI_EXPIRED.
    pub expired: u64,
    /// Slots ended with SI_CANCELLED or SI_TIMEOUT.
    pub cancelled: u64,
    /// Slots whose batch failed.
    pub failed: u64,
    /// Batches launched.
    pub batches: u64,
    /// Rows that they ran for slots.
    pub rows: u64,
    /// Rows that they ran for nobody.
    pub padding_rows: u64,
}

/// Where the time of a slot's batch went. Moments are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_batch_timings {
    /// Set by the caller to sizeof(si_batch_timings).
    pub struct_size: u32,
    /// Rows that the batch ran for slots.
    pub rows: u32,
    /// Rows of the bucket that it ran in.
    pub bucket_rows: u32,
    /// Zero.
    pub reserved: u32,
    /// The batch: its batcher counts them from 1.
    pub batch: u64,
    /// What its bucket usually took from submit to end, when it was closed. No moment but a time.
    pub service_ns: u64,
    /// When its first slot was reserved.
    pub open_ns: u64,
    /// When it closed.
    pub close_ns: u64,
    /// When it was submitted.
    pub submit_ns: u64,
    /// When the device started it.
    pub start_ns: u64,
    /// When its inputs were in place.
    pub inputs_ns: u64,
    /// When its outputs were computed.
    pub compute_ns: u64,
    /// When its outputs were visible to the host.
    pub done_ns: u64,
}

versioned! { si_batcher_options: 32, si_batch_stats: 104, si_batch_timings: 88 }

impl si_batcher_options {
    fn options(&self) -> Result<BatcherOptions> {
        let buckets = self.buckets.read_array(self.bucket_count, "options.buckets")?;
        ensure!(self.reserved == 0, InvalidArgument, "options.reserved is {}, and must be zero", self.reserved);
        Ok(BatcherOptions {
            priority: priority(self.priority)?,
            contexts: self.contexts as usize,
            threads: self.threads as usize,
            delay_ns: self.delay_ns,
            buckets: buckets.iter().map(si_bucket::bucket).collect::<Result<_>>()?,
        })
    }
}

impl From<&BatcherStats> for si_batch_stats {
    fn from(stats: &BatcherStats) -> Self {
        let (now, totals) = (&stats.occupancy, &stats.totals);
        si_batch_stats {
            struct_size: size_of::<Self>() as u32,
            class_count: stats.classes as u32,
            slots: now.slots as u32,
            forming: now.forming as u32,
            running: now.running as u32,
            reserved: 0,
            reservations: totals.reserved,
            refusals: totals.refused,
            completed: totals.completed,
            abandoned: totals.abandoned,
            expired: totals.expired,
            cancelled: totals.cancelled,
            failed: totals.failed,
            batches: totals.batches,
            rows: totals.rows,
            padding_rows: totals.padding_rows,
        }
    }
}

impl From<&BatchTimings> for si_batch_timings {
    fn from(timings: &BatchTimings) -> Self {
        let (closing, stamps) = (&timings.closing, &timings.stamps);
        si_batch_timings {
            struct_size: size_of::<Self>() as u32,
            rows: closing.rows as u32,
            bucket_rows: closing.bucket_rows as u32,
            reserved: 0,
            batch: closing.number,
            service_ns: closing.usual_ns,
            open_ns: closing.opened_ns,
            close_ns: closing.closed_ns,
            submit_ns: timings.submit_ns,
            start_ns: stamps.start_ns,
            inputs_ns: stamps.inputs_ns,
            compute_ns: stamps.compute_ns,
            done_ns: stamps.done_ns,
        }
    }
}

/// Runs a call on a slot.
fn on_slot<T>(slot: si_slot, call: impl FnOnce(&Batcher, SlotId) -> Result<T>) -> Result<T> {
    BATCHERS.pin(slot.batcher, |batcher| call(batcher, SlotId::from_number(slot.number)))
}

/// Makes a batcher with its contexts, and measures how long each bucket takes: it runs each of them twice. Nothing is
/// allocated afterwards.
///
/// @param model Borrowed for the call; the batcher keeps what it needs of it. It was loaded with one padding dimension of the kind
///     SI_PADDING_BATCH, which every input but shape inputs has.
/// @param options Borrowed for the call; null means every default.
/// @param out_batcher Receives the batcher, owned by the caller, free with si_batcher_free.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_UNSUPPORTED (no batch dimension, more than one, or an input without it), SI_NO_BUCKET, SI_SHAPE_MISMATCH,
///     SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_TOO_LARGE, SI_LIMIT_REACHED
///     (si_engine_options.contexts_max, or no thread), SI_OUT_OF_MEMORY, SI_AGAIN, SI_DRIVER, SI_DEVICE_LOST.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_batcher_new(
    model: si_model,
    options: In<si_batcher_options>,
    out_batcher: Option<&mut MaybeUninit<si_batcher>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_batcher = place(out_batcher, "out_batcher")?;
        let given = options.read()?;
        let batcher = MODELS.pin(model.handle, |entry| {
            let options = given.map_or_else(|| Ok(BatcherOptions::default()), |given| given.options())?;
            Batcher::new(&entry.model, &options)
        })?;
        let handle = BATCHERS.insert(batcher, (), |_, ()| ())?;
        // Nobody else knows the handle yet.
        BATCHERS.pin(handle, |batcher| {
            batcher.set_id(handle);
            Ok(())
        })?;
        out_batcher.write(si_batcher { handle });
        Ok(Status::Ok)
    })
}

/// Takes rows of a batch that forms. They are filled where the request is smaller than its bucket; what the request has of
/// them holds anything.
///
/// @param batcher Borrowed for the call.
/// @param bucket The request's shapes, and the values of shape inputs. Borrowed for the call. Its batch is the number of rows to take, at
///     most that of the largest bucket; other axes that the load options made paddable may be smaller than the bucket's, too.
/// @param deadline_ns CLOCK_MONOTONIC nanoseconds. The batch closes early enough that it usually ends by then; a slot that cannot
///     have its result by then does not run. 0: none.
/// @param out_slot Receives the slot, owned by the caller, free with si_slot_abandon or, once committed, si_slot_release.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_AGAIN (every batch is full, running or being read), SI_EXPIRED (the deadline cannot be met),
///     SI_NO_BUCKET, SI_SHAPE_MISMATCH (the number of inputs), SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE,
///     SI_WRONG_STATE (the batcher is being freed), SI_POISONED (panics have left no context), SI_DEVICE_LOST.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_batcher_reserve(
    batcher: si_batcher,
    bucket: In<si_bucket>,
    deadline_ns: u64,
    out_slot: Option<&mut MaybeUninit<si_slot>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_slot = place(out_slot, "out_slot")?;
        let bucket = bucket.required("bucket")?;
        ensure!(bucket.input_count <= u16::MAX.into(), InvalidArgument, "bucket.input_count is {}", bucket.input_count);
        let id = BATCHERS.pin(batcher.handle, |batcher| batcher.reserve(&bucket, deadline_ns))?;
        out_slot.write(si_slot { batcher: batcher.handle, number: id.number() });
        Ok(Status::Ok)
    })
}

/// Counts what the batcher is at and has done.
///
/// @param batcher Borrowed for the call.
/// @param out_stats Receives the figures. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_batcher_stats(
    batcher: si_batcher,
    out_stats: Out<si_batch_stats>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_stats = out_stats.check("out_stats")?;
        let stats = BATCHERS.pin(batcher.handle, |batcher| Ok(batcher.stats()))?;
        out_stats.write(&si_batch_stats::from(&stats))?;
        Ok(Status::Ok)
    })
}

/// Frees a batcher. Its slots are cancelled first: waiters return, and parked slots have their completions. Nobody may touch a
/// slot's memory any more. Contexts, memory and threads go when the device is done, and the call does not wait for that.
///
/// @param batcher Consumed. The zero handle is a no-op.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_batcher_free(batcher: si_batcher, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        BATCHERS.remove(batcher.handle, Batcher::close)?;
        Ok(Status::Ok)
    })
}

/// Says where a slot's rows of an input lie. Its owner writes there from si_batcher_reserve to si_slot_commit, in place: there is no
/// copy. A slot that has expired meanwhile keeps its rows until it is abandoned.
///
/// @param slot Borrowed for the call.
/// @param input_index From 0.
/// @param out_view Receives the view, whose data is owned by the slot. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_WRONG_STATE (a shape input, whose values are the bucket's),
///     SI_IN_FLIGHT (committed, and not ended), or how the slot ended; SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_input(
    slot: si_slot,
    input_index: u32,
    out_view: Out<si_tensor_view>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_view = out_view.check("out_view")?;
        let view = on_slot(slot, |batcher, id| batcher.input_view(id, input_index as usize))?;
        out_view.write(&si_tensor_view::from(&view))?;
        Ok(Status::Ok)
    })
}

/// Says where a slot's rows of an output lie, or the whole of an output that does not depend on the batch. Its owner reads there
/// from the slot's end with SI_OK to si_slot_release.
///
/// @param slot Borrowed for the call.
/// @param output_index From 0.
/// @param out_view Receives the view, whose data is owned by the slot. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_WRONG_STATE (not committed), SI_IN_FLIGHT (not ended), or how the
///     slot failed; SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_output(
    slot: si_slot,
    output_index: u32,
    out_view: Out<si_tensor_view>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_view = out_view.check("out_view")?;
        let view = on_slot(slot, |batcher, id| batcher.output_view(id, output_index as usize))?;
        out_view.write(&si_tensor_view::from(&view))?;
        Ok(Status::Ok)
    })
}

/// Says where the time of the batch went in which a slot has run.
///
/// @param slot Borrowed for the call.
/// @param out_timings Receives the times. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_WRONG_STATE (not committed), SI_IN_FLIGHT (not ended), or how the slot failed;
///     SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_timings(
    slot: si_slot,
    out_timings: Out<si_batch_timings>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_timings = out_timings.check("out_timings")?;
        let timings = on_slot(slot, |batcher, id| batcher.timings(id))?;
        out_timings.write(&si_batch_timings::from(&timings))?;
        Ok(Status::Ok)
    })
}

/// Says that a slot's inputs are written: it runs with its batch. The call that completes a batch launches it.
///
/// @param slot Borrowed for the call. Its owner leaves its memory alone until it has ended.
/// @param token Comes back in `si_completion.token`.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_EXPIRED (its batch has closed without it: abandon it), SI_IN_FLIGHT (committed before), SI_WRONG_STATE (it has
///     ended with SI_OK), or how it ended; SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_commit(slot: si_slot, token: u64, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        on_slot(slot, |batcher, id| batcher.commit(id, token))?;
        Ok(Status::Ok)
    })
}

/// Gives a slot back that has not been committed. Its rows are another's at once, unless its batch runs.
///
/// @param slot Consumed.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_IN_FLIGHT (committed: cancel it), SI_WRONG_STATE (it has ended: release it), SI_INVALID_HANDLE, SI_STALE_HANDLE,
///     SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_abandon(slot: si_slot, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        on_slot(slot, Batcher::abandon)?;
        Ok(Status::Ok)
    })
}

/// Says whether a slot has ended, without waiting.
///
/// @param slot Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK (it has ended and its outputs may be read), SI_PENDING, SI_PARKED (until its completion is reaped), or how it failed:
///     SI_EXPIRED, SI_CANCELLED, SI_TIMEOUT, SI_DEVICE_LOST, or the failure of its batch. Of the call itself: SI_WRONG_STATE (not
///     committed), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_poll(slot: si_slot, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || on_slot(slot, Batcher::poll))
}

/// Waits until a slot has ended. The thread sleeps.
///
/// @param slot Borrowed for the call.
/// @param timeout_ns At most this long; 0 polls, SI_TIMEOUT_INFINITE waits for good.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return As si_slot_poll, without SI_PENDING (a timeout of 0 excepted), and SI_TIMEOUT when the time runs out: the slot is given up,
///     as by si_slot_cancel.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_wait(slot: si_slot, timeout_ns: u64, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || on_slot(slot, |batcher, id| batcher.wait(id, timeout_ns)))
}

/// Asks for a completion in the engine's queue instead of a waiting thread. Success promises exactly one, also when the slot has
/// ended already, is cancelled or released, or its batcher is freed.
///
/// @param slot Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_WRONG_STATE (not committed, or asked for before), SI_EXPIRED (its batch has closed without it),
///     SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_park(slot: si_slot, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        on_slot(slot, Batcher::park)?;
        Ok(Status::Ok)
    })
}

/// Gives a committed slot up. Whoever waits for it gets SI_CANCELLED at once; it can be released at once, too. Its rows are
/// nobody else's before its batch is over.
///
/// @param slot Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_TOO_LATE (it has ended or was given up before), SI_WRONG_STATE (not committed: abandon it), SI_INVALID_HANDLE,
///     SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any, also while another thread waits. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_cancel(slot: si_slot, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || on_slot(slot, Batcher::cancel))
}

/// Gives a slot back that has ended. Its memory is another's once all slots of its batch are given back and their completions
/// reaped.
///
/// @param slot Consumed.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_IN_FLIGHT (not ended: cancel it first), SI_WRONG_STATE (not committed: abandon it), SI_INVALID_HANDLE,
///     SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_slot_release(slot: si_slot, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        on_slot(slot, Batcher::release)?;
        Ok(Status::Ok)
    })
}
