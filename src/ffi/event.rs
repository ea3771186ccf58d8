//! Events.

use super::context::si_context;
use super::engine::si_engine;
use super::error::{si_error, si_result};
use super::guard;
use super::objects::{CONTEXTS, ENGINES, EVENTS};
use super::pointer::place;
use crate::error::Status;
use crate::runtime::Event;
use std::mem::MaybeUninit;

/// A mark in one context's order of work that other contexts can wait for, without the host waiting. Any thread may use
/// it, several at once. It may outlive the context that it marks.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_event {
    /// 0 is no event.
    pub handle: u64,
}

/// Makes an event, not recorded yet.
///
/// @param engine Borrowed for the call; contexts of this engine may use the event.
/// @param out_event Receives the event, owned by the caller, free with si_event_free.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_LIMIT_REACHED, SI_DRIVER.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_event_new(
    engine: si_engine,
    out_event: Option<&mut MaybeUninit<si_event>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_event = place(out_event, "out_event")?;
        let event = ENGINES.pin(engine.handle, Event::new)?;
        let handle = EVENTS.insert(event, (), |_, ()| ())?;
        out_event.write(si_event { handle });
        Ok(Status::Ok)
    })
}

/// Moves the mark behind everything submitted to the context so far. Waits that were asked for earlier keep the mark that
/// they saw.
///
/// @param event Borrowed for the call.
/// @param context Borrowed for the call; of the event's engine.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (different engines), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE,
///     SI_WRONG_STATE (the context is not prepared), SI_WRONG_THREAD, SI_BUSY, SI_POISONED, SI_DEVICE_LOST.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_event_record(
    event: si_event,
    context: si_context,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        EVENTS.pin(event.handle, |event| CONTEXTS.enter(context.handle, |context| event.record(context)))?;
        Ok(Status::Ok)
    })
}

/// Lets the context's next submit start only after the mark. The call itself returns at once: the stream waits, not the
/// host.
///
/// @param event Borrowed for the call.
/// @param context Borrowed for the call; of the event's engine.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_NOT_RECORDED, SI_INVALID_ARGUMENT (different engines), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE,
///     SI_WRONG_STATE (the context is not prepared), SI_LIMIT_REACHED (too many waits before one submit), SI_WRONG_THREAD,
///     SI_BUSY, SI_POISONED, SI_DEVICE_LOST.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_event_wait(
    event: si_event,
    context: si_context,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        EVENTS.pin(event.handle, |event| CONTEXTS.enter(context.handle, |context| event.wait(context)))?;
        Ok(Status::Ok)
    })
}

/// Frees an event. Waits that were asked for stay in force.
///
/// @param event Consumed. The zero handle is a no-op.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_event_free(event: si_event, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        EVENTS.remove(event.handle, |_| ())?;
        Ok(Status::Ok)
    })
}
