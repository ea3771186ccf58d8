//! What stands between C and the library: every fallible export runs inside [`call`].

use super::error::{si_error, si_status};
use crate::error::{Error, Result, Status};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs an export: catches panics, fills the error, answers the status.
#[inline]
pub fn call(error: Option<&mut MaybeUninit<si_error>>, body: impl FnOnce() -> Result<Status>) -> si_status {
    // What a panic may have left half done lies behind a handle: an entered context is poisoned on the way out, other
    // objects keep their state behind locks and atomics that are never left inconsistent.
    let result = catch_unwind(AssertUnwindSafe(body));
    match result {
        Ok(Ok(status)) => status as si_status,
        Ok(Err(failure)) => fill(error, &failure),
        Err(panic) => fill(error, &describe(panic.as_ref())),
    }
}

#[cold]
fn fill(error: Option<&mut MaybeUninit<si_error>>, failure: &Error) -> si_status {
    if let Some(place) = error {
        place.write(si_error::from(failure));
    }
    failure.status as si_status
}

fn describe(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::new(Status::Panicked, format!("a panic was caught: {text}"))
}
