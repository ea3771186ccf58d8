//! Contexts.

use super::error::{si_error, si_result};
use super::guard;
use super::model::{si_bucket, si_model};
use super::objects::{CONTEXTS, MODELS};
use super::pointer::{In, Out, place, versioned};
use super::record::si_completion_record;
use super::tensor::si_tensor_view;
use crate::error::{Error, Result, Status, ensure, fail};
use crate::runtime::{Context, ContextOptions, Controller, Priority, SubmitOptions, Timings, WaitPolicy};
use std::mem::MaybeUninit;

/// One lane of a model: its own stream, its own input and output memory, one request in flight.
///
/// One thread at a time: a call that meets another answers SI_BUSY. A bound context belongs to the thread that bound it;
/// calls from elsewhere answer SI_WRONG_THREAD. si_context_cancel and si_context_free are exempt from both, and the end of the
/// owning thread unbinds. Order of calls: new, link and attach, prepare, then any number of requests, then free.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_context {
    /// 0 is no context.
    pub handle: u64,
}

/// Spin within a budget learnt from the last requests, while fewer threads spin than there are idle CPUs; then block.
pub const SI_WAIT_HYBRID: u32 = 1;
/// Spin while fewer threads spin than there are idle CPUs, without budget; else block.
pub const SI_WAIT_SPIN: u32 = 2;
/// Give the CPU away between looks.
pub const SI_WAIT_YIELD: u32 = 3;
/// Sleep at once.
pub const SI_WAIT_BLOCK: u32 = 4;

/// After the work of others.
pub const SI_PRIORITY_LOW: u32 = 1;
/// As others. The default.
pub const SI_PRIORITY_NORMAL: u32 = 2;
/// Before the work of others.
pub const SI_PRIORITY_HIGH: u32 = 3;

/// A timeout that never ends.
pub const SI_TIMEOUT_INFINITE: u64 = u64::MAX;

/// How a context is made. All zero (but struct_size) means every default; a null pointer does too.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_context_options {
    /// Set by the caller to sizeof(si_context_options).
    pub struct_size: u32,
    /// Host threads to compute with. 0: the engine's default.
    pub threads: u32,
    /// One of `SI_WAIT_*`. 0: SI_WAIT_HYBRID.
    pub wait_policy: u32,
    /// Elements of buckets.
    pub bucket_count: u32,
    /// The model's buckets to prepare. Borrowed for the call. With none: all that the model has when the context is
    /// prepared.
    pub buckets: In<si_bucket>,
    /// One of `SI_PRIORITY_*`. 0: SI_PRIORITY_NORMAL. Of kernels that wait for a place on the GPU, those of the higher priority get it;
    /// what runs is not interrupted. It does nothing on the host device, where the host's own scheduler decides.
    pub priority: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a priority is called in options.
pub(super) fn priority(number: u32) -> Result<Priority> {
    Ok(match number {
        0 | SI_PRIORITY_NORMAL => Priority::Normal,
        SI_PRIORITY_LOW => Priority::Low,
        SI_PRIORITY_HIGH => Priority::High,
        other => return Err(fail!(InvalidArgument, "options.priority {other} is no SI_PRIORITY_ value")),
    })
}

/// One request. All zero (but struct_size) means every default; a null pointer does too.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_submit_options {
    /// Set by the caller to sizeof(si_submit_options).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Comes back in `si_completion.token`.
    pub token: u64,
    /// CLOCK_MONOTONIC nanoseconds; a request that has not started by then ends with SI_EXPIRED. 0: none.
    pub deadline_ns: u64,
}

/// Where the time of a context's last ended request went, in nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_timings {
    /// Set by the caller to sizeof(si_timings).
    pub struct_size: u32,
    /// The request.
    pub sequence: u32,
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

versioned! { si_context_options: 24, si_submit_options: 24, si_timings: 48 }

impl si_context_options {
    fn options(&self) -> Result<ContextOptions> {
        let wait = match self.wait_policy {
            0 | SI_WAIT_HYBRID => WaitPolicy::Hybrid,
            SI_WAIT_SPIN => WaitPolicy::Spin,
            SI_WAIT_YIELD => WaitPolicy::Yield,
            SI_WAIT_BLOCK => WaitPolicy::Block,
            other => return Err(fail!(InvalidArgument, "options.wait_policy {other} is no SI_WAIT_ value")),
        };
        let buckets = self.buckets.read_array(self.bucket_count, "options.buckets")?;
        let buckets = buckets.iter().map(si_bucket::bucket).collect::<Result<_>>()?;
        ensure!(self.reserved == 0, InvalidArgument, "options.reserved is {}, and must be zero", self.reserved);
        let priority = priority(self.priority)?;
        Ok(ContextOptions { threads: self.threads as usize, wait, priority, buckets })
    }
}

impl TryFrom<In<si_submit_options>> for SubmitOptions {
    type Error = Error;

    fn try_from(options: In<si_submit_options>) -> Result<Self> {
        let Some(given) = options.read()? else { return Ok(SubmitOptions::default()) };
        ensure!(given.reserved == 0, InvalidArgument, "options.reserved is {}, and must be zero", given.reserved);
        Ok(SubmitOptions { token: given.token, deadline_ns: given.deadline_ns })
    }
}

impl From<&Timings> for si_timings {
    fn from(timings: &Timings) -> Self {
        si_timings {
            struct_size: size_of::<Self>() as u32,
            sequence: timings.sequence,
            submit_ns: timings.submit_ns,
            start_ns: timings.stamps.start_ns,
            inputs_ns: timings.stamps.inputs_ns,
            compute_ns: timings.stamps.compute_ns,
            done_ns: timings.stamps.done_ns,
        }
    }
}

/// Makes a context. It has no memory and no threads before si_context_prepare.
///
/// @param model Borrowed for the call; the context keeps what it needs of it.
/// @param options Borrowed for the call; null means every default.
/// @param out_context Receives the context, owned by the caller, free with si_context_free.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_NO_BUCKET (an option names a bucket
///     that the model has not), SI_LIMIT_REACHED, SI_DEVICE_LOST.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_new(
    model: si_model,
    options: In<si_context_options>,
    out_context: Option<&mut MaybeUninit<si_context>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_context = place(out_context, "out_context")?;
        let given = options.read()?;
        let context = MODELS.pin(model.handle, |entry| {
            let options = given.map_or_else(|| Ok(ContextOptions::default()), |given| given.options())?;
            entry.model.context(&options)
        })?;
        let handle = CONTEXTS.insert(context.controller(), context, |handle, context| context.set_id(handle))?;
        out_context.write(si_context { handle });
        Ok(Status::Ok)
    })
}

/// Makes an input of the target be an output of the source, on the device, without a copy or a host round trip. Every
/// request of the target starts after what the source had been given before, and the source's next request starts after the
/// target's. Bucket i of the target belongs to bucket i of the source. The source must be prepared; target and source may be
/// the same context, whose output then becomes its own next input (state that stays on the device, zero at first). The target
/// reads the whole of the bucket's output, also when the source's request was padded.
///
/// @param target Borrowed for the call; not prepared yet. It keeps the source's memory alive.
/// @param input_index The target's input. It has no host memory of its own any more.
/// @param source Borrowed for the call; of the same engine.
/// @param output_index The source's output. It stays readable by the host.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (an index is too high, the input is linked or attached already, the engines differ), SI_INVALID_HANDLE,
///     SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE, SI_SHAPE_MISMATCH (element type, number of buckets or a bucket's shape),
///     SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
/// Threads: the rule of both contexts. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_link(
    target: si_context,
    input_index: u32,
    source: si_context,
    output_index: u32,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let (input, output) = (input_index as usize, output_index as usize);
        CONTEXTS.enter(target.handle, |to| {
            if target.handle == source.handle {
                return to.link_self(input, output);
            }
            CONTEXTS.enter(source.handle, |from| to.link(input, from, output))
        })?;
        Ok(Status::Ok)
    })
}

/// Takes all memory, starts the threads and makes the replay of every bucket. The first bucket is selected. Nothing is
/// allocated afterwards. After a failure the context is as before.
///
/// @param context Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (prepared already), SI_NO_BUCKET (the model has
///     none; the message names the open dimensions), SI_INVALID_ARGUMENT (a bucket was added, and an attached memory is too small for it),
///     SI_TOO_LARGE, SI_OUT_OF_MEMORY, SI_WRONG_THREAD, SI_BUSY, SI_POISONED,
///     SI_DRIVER, SI_DEVICE_LOST.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_prepare(context: si_context, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        CONTEXTS.enter(context.handle, Context::prepare)?;
        Ok(Status::Ok)
    })
}

/// Makes the calling thread the context's owner.
///
/// @param context Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (this thread owns it already),
///     SI_WRONG_THREAD (another does), SI_BUSY, SI_POISONED, SI_DRIVER, SI_DEVICE_LOST.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_bind(context: si_context, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        CONTEXTS.enter(context.handle, Context::bind)?;
        Ok(Status::Ok)
    })
}

/// Gives the context up again: any one thread at a time may use it.
///
/// @param context Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not bound), SI_WRONG_THREAD, SI_BUSY,
///     SI_POISONED, SI_DRIVER.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_unbind(context: si_context, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        CONTEXTS.enter(context.handle, Context::unbind)?;
        Ok(Status::Ok)
    })
}

/// Selects the prepared bucket for the next request. Exactly these shapes, or, along axes that the load options made
/// paddable, the smallest bucket that holds them; the views then have these shapes within the bucket's strides. Contents of
/// inputs and outputs are undefined afterwards.
///
/// @param context Borrowed for the call.
/// @param bucket Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_NO_BUCKET, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not
///     prepared), SI_IN_FLIGHT, SI_DRAINING, SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_shape(
    context: si_context,
    bucket: In<si_bucket>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let bucket = bucket.required("bucket")?.bucket()?;
        CONTEXTS.enter(context.handle, |context| context.select(&bucket))?;
        Ok(Status::Ok)
    })
}

/// Says where an input lies. The host writes there while the context is idle.
///
/// @param context Borrowed for the call.
/// @param input_index From 0.
/// @param out_view Receives the view, whose data is owned by the context. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE
///     (not prepared, or the input is linked), SI_DRAINING, SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_input(
    context: si_context,
    input_index: u32,
    out_view: Out<si_tensor_view>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_view = out_view.check("out_view")?;
        CONTEXTS.enter(context.handle, |context| {
            out_view.write(&si_tensor_view::from(&context.input_view(input_index as usize)?))
        })?;
        Ok(Status::Ok)
    })
}

/// Says where an output lies. The host reads there after a request has ended with SI_OK and before the next submit.
///
/// @param context Borrowed for the call.
/// @param output_index From 0.
/// @param out_view Receives the view, whose data is owned by the context. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE
///     (not prepared), SI_DRAINING, SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_output(
    context: si_context,
    output_index: u32,
    out_view: Out<si_tensor_view>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_view = out_view.check("out_view")?;
        CONTEXTS.enter(context.handle, |context| {
            out_view.write(&si_tensor_view::from(&context.output_view(output_index as usize)?))
        })?;
        Ok(Status::Ok)
    })
}

/// Starts a request on the inputs as they are, and returns at once. The host leaves inputs and outputs alone until the
/// request has ended. It launches or refuses, it never queues, and a refusal uses no sequence number.
///
/// @param context Borrowed for the call.
/// @param options Borrowed for the call; null means every default.
/// @param out_sequence Receives the request's number, from 1 upwards, never 0. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_AGAIN (the device's in-flight permits are out), SI_IN_FLIGHT, SI_DRAINING, SI_EXPIRED, SI_INVALID_ARGUMENT,
///     SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not prepared), SI_WRONG_THREAD, SI_BUSY, SI_POISONED,
///     SI_DRIVER, SI_DEVICE_LOST.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_submit(
    context: si_context,
    options: In<si_submit_options>,
    out_sequence: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_sequence = place(out_sequence, "out_sequence")?;
        let options = SubmitOptions::try_from(options)?;
        out_sequence.write(CONTEXTS.enter(context.handle, |context| context.submit(&options))?);
        Ok(Status::Ok)
    })
}

/// Gives the completion record, for a host that spins by itself.
///
/// @param context Borrowed for the call.
/// @param out_record Receives a pointer that is owned by the context, valid until it is freed.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not prepared),
///     SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_completion(
    context: si_context,
    out_record: Option<&mut MaybeUninit<*const si_completion_record>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_record = place(out_record, "out_record")?;
        out_record.write(CONTEXTS.enter(context.handle, |context| context.record_address())?.cast());
        Ok(Status::Ok)
    })
}

/// Says whether a request has ended, without waiting. For the last ended request it repeats the answer.
///
/// @param context Borrowed for the call.
/// @param sequence The context's last request.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK (it has ended and its outputs may be read), SI_PENDING, SI_PARKED, or how it failed: SI_EXPIRED, SI_CANCELLED,
///     SI_TIMEOUT, SI_DEVICE_LOST, or the failure of the computation. Of the call itself: SI_INVALID_ARGUMENT (not the last
///     request), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not prepared), SI_WRONG_THREAD, SI_BUSY,
///     SI_POISONED.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_poll(
    context: si_context,
    sequence: u32,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || CONTEXTS.enter(context.handle, |context| context.poll(sequence)))
}

/// Waits until a request has ended, as the context's wait policy says.
///
/// @param context Borrowed for the call.
/// @param sequence The context's last request.
/// @param timeout_ns At most this long; 0 polls, SI_TIMEOUT_INFINITE waits for good.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return As si_context_poll, without SI_PENDING (a timeout of 0 excepted), and SI_TIMEOUT when the time runs out: the request
///     goes on, its memory must not be touched, and the context is draining until the device is done.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_wait(
    context: si_context,
    sequence: u32,
    timeout_ns: u64,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || CONTEXTS.enter(context.handle, |context| context.wait(sequence, timeout_ns)))
}

/// Asks for a completion in the engine's queue instead of a waiting thread. Success promises exactly one completion, also
/// when the request has ended already, is cancelled, or its context is freed.
///
/// @param context Borrowed for the call.
/// @param sequence The request in flight.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (not the last request), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (no
///     request in flight, or parked already), SI_DRAINING, SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_park(
    context: si_context,
    sequence: u32,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        CONTEXTS.enter(context.handle, |context| context.park(sequence))?;
        Ok(Status::Ok)
    })
}

/// Takes a parked request back.
///
/// @param context Borrowed for the call.
/// @param sequence The parked request.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK (no completion will come; poll or wait again), SI_TOO_LATE (one will), SI_INVALID_ARGUMENT (not the last
///     request), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not parked), SI_WRONG_THREAD, SI_BUSY,
///     SI_POISONED.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_unpark(
    context: si_context,
    sequence: u32,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || CONTEXTS.enter(context.handle, |context| context.unpark(sequence)))
}

/// Gives a request up. Whoever waits for it gets SI_CANCELLED at once. Its memory must not be touched, and the context is
/// draining, until the device is done: until si_context_input and si_context_output no longer answer SI_DRAINING.
///
/// @param context Borrowed for the call.
/// @param sequence The request in flight.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_TOO_LATE (it has ended or was given up before), SI_INVALID_ARGUMENT (no such
///     request yet), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any, also while another thread waits, also for a context bound elsewhere. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_cancel(
    context: si_context,
    sequence: u32,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || CONTEXTS.pin(context.handle, |controller| controller.cancel(sequence)))
}

/// Submits and waits.
///
/// @param context Borrowed for the call.
/// @param options Borrowed for the call; null means every default.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return As si_context_submit and si_context_wait without timeout.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_run(
    context: si_context,
    options: In<si_submit_options>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let options = SubmitOptions::try_from(options)?;
        CONTEXTS.enter(context.handle, |context| context.run_with(&options))?;
        Ok(Status::Ok)
    })
}

/// Says where the time of the last ended request went.
///
/// @param context Borrowed for the call.
/// @param out_timings Receives the time stamps. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (no request has ended yet,
///     or one is in flight), SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_timings(
    context: si_context,
    out_timings: Out<si_timings>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_timings = out_timings.check("out_timings")?;
        let timings = CONTEXTS.enter(context.handle, |context| context.timings())?;
        out_timings.write(&si_timings::from(&timings))?;
        Ok(Status::Ok)
    })
}

/// Frees a context. A request in flight is cancelled first; its memory and threads go when the device is done, and the call
/// does not wait for that. A thread that is inside a call on it leaves that call first. A freed memory that nothing else uses goes
/// with it: on a GPU, parked requests of the engine may be told of their ends later by the time that the driver takes for that.
///
/// @param context Consumed. The zero handle is a no-op.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any, also for a context bound elsewhere. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_free(context: si_context, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        CONTEXTS.remove(context.handle, Controller::abandon)?;
        Ok(Status::Ok)
    })
}
