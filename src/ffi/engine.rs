//! Engines.

use super::context::si_context;
use super::device::{SI_DEVICE_STATE_DEAD, SI_DEVICE_STATE_OK, SI_DEVICE_STATE_SUSPECT, si_device_info};
use super::error::{SI_OK, si_error, si_result, text_field};
use super::guard;
use super::objects::ENGINES;
use super::pointer::{In, ManyOut, Out, Text, place, versioned};
use crate::error::{Result, Status, ensure, fail};
use crate::runtime::{Completion, DeviceState, Engine, EngineOptions, Stats};
use std::mem::MaybeUninit;
use std::os::fd::IntoRawFd;

/// One opened device. Any thread may use it, several at once. Models, contexts, events and memories keep what they need of it, so
/// it may be closed before them; completions that are then still parked can no longer be reaped.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_engine {
    /// 0 is no engine.
    pub handle: u64,
}

/// How an engine is opened. All zero (but struct_size) means every default; a null pointer does too.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_engine_options {
    /// Set by the caller to sizeof(si_engine_options).
    pub struct_size: u32,
    /// Host threads that a context computes with unless its own options say otherwise. 0: 1.
    pub threads: u32,
    /// "auto", "host", "cuda:0" or a GPU's UUID. Borrowed for the call; null: "auto", the best device there is.
    pub device: Text,
    /// Requests that may be in flight on the device at once; a further submit answers SI_AGAIN. Of a GPU that several engines of
    /// the process have open, the requests of all of them count, each engine against its own number: give them the same. 0: no bound.
    pub in_flight_max: u32,
    /// Live contexts, freed ones whose completion has not been reaped yet, and slots of batchers: all that may have a completion on
    /// its way. A batcher takes one for each of its contexts and for each row of their largest batch. 0: 4096.
    pub contexts_max: u32,
    /// Bytes that weights, arenas, inputs, outputs and memories (but registered ones) may take together. 0: no bound.
    pub memory_bytes_max: u64,
    /// Sum of `SI_ENGINE_*`. 0: none.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// For development: inputs are read-only while their request is in flight, so that writing to one too early is a fault (SIGSEGV)
/// at that instruction. It costs two system calls a request. Only the host device does it, and neither for inputs that are attached to
/// memory of the host's choice nor for batchers, where who came too late for a batch may write on.
pub const SI_ENGINE_GUARD_INPUTS: u32 = 1;

/// What is alive and what it takes, at one moment.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_stats {
    /// Set by the caller to sizeof(si_stats).
    pub struct_size: u32,
    /// One of `SI_DEVICE_STATE_*`.
    pub device_state: u32,
    /// Models alive, those included whose handle is freed while a context uses them.
    pub models: u32,
    /// Contexts alive, those included that are freed and not drained yet.
    pub contexts: u32,
    /// Events alive.
    pub events: u32,
    /// Threads that the engine's contexts and reactor run, and the one that closes batches, if there has been a batcher.
    pub threads: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Completions queued for `si_engine_reap`.
    pub completions: u32,
    /// Bytes of weights on the device, packed.
    pub weights_bytes: u64,
    /// Bytes of model files kept because the model was loaded from memory.
    pub retained_bytes: u64,
    /// Bytes of arenas.
    pub arena_bytes: u64,
    /// Bytes of inputs and outputs.
    pub pinned_bytes: u64,
    /// Requests ended since the engine was opened.
    pub requests: u64,
    /// Those of them that failed, expired or were cancelled.
    pub failures: u64,
    /// Batchers alive, those included that are freed and not drained yet.
    pub batchers: u32,
    /// Memories alive, those included that are freed while a context uses them.
    pub memories: u32,
    /// Bytes of memories, registered ones left out.
    pub memory_bytes: u64,
    /// Bytes of registered memories.
    pub registered_bytes: u64,
}

/// The end of a parked request or slot. Its layout is frozen.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_completion {
    /// The context; for a slot, its batcher's handle. It may have been freed since.
    pub context: si_context,
    /// `si_submit_options.token` of the request, or what `si_slot_commit` was given.
    pub token: u64,
    /// The request's sequence number; 0 for a slot.
    pub sequence: u32,
    /// How it ended: SI_OK, SI_EXPIRED, SI_CANCELLED, SI_DEVICE_LOST or the failure of the computation.
    pub status: si_result,
}

versioned! { si_engine_options: 32, si_stats: 80 }

impl si_engine_options {
    fn options(&self) -> Result<EngineOptions> {
        let unknown = self.flags & !SI_ENGINE_GUARD_INPUTS;
        ensure!(unknown == 0, InvalidArgument, "options.flags has {unknown:#x}, which is no SI_ENGINE_ value");
        ensure!(self.reserved == 0, InvalidArgument, "options.reserved is {}, and must be zero", self.reserved);
        Ok(EngineOptions {
            device: self.device.read("options.device")?.unwrap_or_default(),
            threads: self.threads as usize,
            in_flight_max: self.in_flight_max as usize,
            contexts_max: self.contexts_max as usize,
            memory_bytes_max: self.memory_bytes_max,
            guard_inputs: self.flags & SI_ENGINE_GUARD_INPUTS != 0,
            copy_engines: None,
        })
    }
}

impl From<&Stats> for si_stats {
    fn from(stats: &Stats) -> Self {
        si_stats {
            struct_size: size_of::<Self>() as u32,
            device_state: match stats.device_state {
                DeviceState::Ok => SI_DEVICE_STATE_OK,
                DeviceState::Suspect => SI_DEVICE_STATE_SUSPECT,
                DeviceState::Dead => SI_DEVICE_STATE_DEAD,
            },
            models: stats.models as u32,
            contexts: stats.contexts as u32,
            events: stats.events as u32,
            threads: stats.threads as u32,
            in_flight: stats.in_flight as u32,
            completions: stats.completions as u32,
            weights_bytes: stats.weights_bytes,
            retained_bytes: stats.retained_bytes,
            arena_bytes: stats.arena_bytes,
            pinned_bytes: stats.pinned_bytes,
            requests: stats.requests,
            failures: stats.failures,
            batchers: stats.batchers as u32,
            memories: stats.memories as u32,
            memory_bytes: stats.memory_bytes,
            registered_bytes: stats.registered_bytes,
        }
    }
}

impl From<&Completion> for si_completion {
    fn from(completion: &Completion) -> Self {
        let context = si_context { handle: completion.context };
        let status = completion.status as si_result;
        si_completion { context, token: completion.token, sequence: completion.sequence, status }
    }
}

/// Opens a device.
///
/// @param options Borrowed for the call; null means every default.
/// @param out_engine Receives the engine, owned by the caller, free with si_engine_close.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_NO_DEVICE (the message says what was looked for), SI_LIMIT_REACHED,
///     SI_OUT_OF_MEMORY, SI_DRIVER.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_engine_open(
    options: In<si_engine_options>,
    out_engine: Option<&mut MaybeUninit<si_engine>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_engine = place(out_engine, "out_engine")?;
        let options = options.read()?.map_or_else(|| Ok(EngineOptions::default()), |given| given.options())?;
        let handle = ENGINES.insert(Engine::open(&options)?, (), |_, ()| ())?;
        out_engine.write(si_engine { handle });
        Ok(Status::Ok)
    })
}

/// Closes an engine. Its models, contexts and events stay usable; the device is released with the last of them.
///
/// @param engine Consumed. The zero handle is a no-op.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_engine_close(engine: si_engine, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        ENGINES.remove(engine.handle, |_| ())?;
        Ok(Status::Ok)
    })
}

/// Counts what is alive.
///
/// @param engine Borrowed for the call.
/// @param out_stats Receives the figures. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_engine_stats(
    engine: si_engine,
    out_stats: Out<si_stats>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_stats = out_stats.check("out_stats")?;
        let stats = ENGINES.pin(engine.handle, |engine| Ok(engine.stats()))?;
        out_stats.write(&si_stats::from(&stats))?;
        Ok(Status::Ok)
    })
}

/// Describes the device that an engine was opened on, which "auto" has chosen.
///
/// @param engine Borrowed for the call.
/// @param out_info Receives the description. Owned by the caller.
/// @param out_passed_over Receives why "auto" has taken the host: the failure to open a GPU. SI_OK and no message if it did not have to.
///     Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_engine_device(
    engine: si_engine,
    out_info: Out<si_device_info>,
    out_passed_over: Option<&mut MaybeUninit<si_error>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let (out_info, out_passed_over) = (out_info.check("out_info")?, place(out_passed_over, "out_passed_over")?);
        let (info, passed_over) = ENGINES.pin(engine.handle, |engine| {
            let none = si_error { status: SI_OK, native: 0, message: text_field("") };
            Ok((engine.device(), engine.passed_over().map_or(none, si_error::from)))
        })?;
        out_info.write(&si_device_info::from(&info))?;
        out_passed_over.write(passed_over);
        Ok(Status::Ok)
    })
}

/// Gives a file descriptor that becomes readable when completions of parked requests wait for `si_engine_reap`. It is an
/// eventfd: non-blocking, close-on-exec. One read of 8 bytes clears it; reading before reaping never loses a completion,
/// and a host that only polls the descriptor need not read at all, since reaping clears it too.
///
/// @param engine Borrowed for the call.
/// @param out_fd Receives a fresh duplicate, owned by the caller, free with close().
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_DRIVER (no descriptor left).
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_engine_completion_fd(
    engine: si_engine,
    out_fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_fd = place(out_fd, "out_fd")?;
        let descriptor = ENGINES.pin(engine.handle, Engine::completion_descriptor)?;
        out_fd.write(descriptor.into_raw_fd());
        Ok(Status::Ok)
    })
}

/// Takes completions of parked requests and slots out of the engine's queue, oldest first. Each is given exactly once, to
/// one caller. Its context is idle from then on.
///
/// @param engine Borrowed for the call.
/// @param out_completions Receives the completions, room for completions_max. Owned by the caller.
/// @param completions_max How many at most, at least 1.
/// @param out_count Receives how many were taken, 0 if none waits. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_engine_reap(
    engine: si_engine,
    out_completions: ManyOut<si_completion>,
    completions_max: u32,
    out_count: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_count = place(out_count, "out_count")?;
        ensure!(completions_max > 0, InvalidArgument, "completions_max is 0");
        let mut places = out_completions.places(completions_max as usize, "out_completions")?.iter_mut();
        let count = ENGINES.pin(engine.handle, |engine| {
            let accept = |completion: Completion| {
                if let Some(place) = places.next() {
                    place.write(si_completion::from(&completion));
                }
            };
            Ok(engine.reap(completions_max as usize, accept))
        })?;
        out_count.write(count as u32);
        Ok(Status::Ok)
    })
}
