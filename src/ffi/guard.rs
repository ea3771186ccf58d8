//! What stands between C and the library: every fallible export runs inside [`call`].

use super::error::{si_error, si_result};
use crate::error::{Error, Result, Status};
use std::any::Any;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs an export: catches panics, fills the error, answers the status.
#[inline]
pub fn call(error: Option<&mut MaybeUninit<si_error>>, body: impl FnOnce() -> Result<Status>) -> si_result {
    // What a panic may have left half done lies behind a handle: an entered context is poisoned on the way out, other
    // objects keep their state behind locks and atomics that are never left inconsistent.
    let result = catch_unwind(AssertUnwindSafe(body));
    match result {
        Ok(Ok(status)) => status as si_result,
        Ok(Err(failure)) => fill(error, failure),
        Err(panic) => fill_from(error, panic),
    }
}

// Failures and panics stay out of line: inlined, their message would give each export a stack frame of a kilobyte.

#[cold]
#[inline(never)]
fn fill(error: Option<&mut MaybeUninit<si_error>>, failure: Error) -> si_result {
    if let Some(place) = error {
        place.write(si_error::from(&failure));
    }
    failure.status as si_result
}

#[cold]
#[inline(never)]
fn fill_from(error: Option<&mut MaybeUninit<si_error>>, panic: Box<dyn Any + Send>) -> si_result {
    fill(error, describe(panic.as_ref()))
}

fn describe(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::new(Status::Panicked, format!("a panic was caught: {text}"))
}

#[cfg(test)]
mod tests {
    use super::super::error::{SI_OK, SI_PANICKED, SI_PENDING};
    use super::super::table::{Noun, Table};
    use super::*;
    use crate::error::fail;
    use std::ffi::CStr;

    fn text(error: &si_error) -> String {
        // SAFETY: filled by the guard, which terminates it.
        unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_becomes_a_status_and_poisons_what_was_entered() {
        static TABLE: Table<(), u32> = Table::new(Noun::Context);
        let handle = TABLE.insert((), 5, |_, _| ()).unwrap();
        let mut error = MaybeUninit::uninit();
        let panics = |_: &mut u32| -> Result<Status> { panic!("planted {}", 1) };
        assert_eq!(call(Some(&mut error), || TABLE.enter(handle, panics)), SI_PANICKED);
        // SAFETY: the guard has filled it.
        let error = unsafe { error.assume_init_ref() };
        assert_eq!((error.status, text(error).as_str()), (SI_PANICKED, "a panic was caught: planted 1"));
        let later = TABLE.enter(handle, |_| Ok(Status::Ok)).unwrap_err();
        assert_eq!(later.status, Status::Poisoned);
        TABLE.remove(handle, |()| ()).unwrap();
        assert_eq!(TABLE.enter(handle, |_| Ok(Status::Ok)).unwrap_err().status, Status::StaleHandle);
        assert_eq!(call(None, || TABLE.pin(handle, |()| panic!("never reached"))), Status::StaleHandle as si_result);
    }

    #[test]
    fn answers_that_are_no_failure_leave_the_error_alone() {
        let mut error = MaybeUninit::new(si_error::from(&fail!(Internal, "before")));
        assert_eq!(call(Some(&mut error), || Ok(Status::Pending)), SI_PENDING);
        assert_eq!(call(None, || Ok(Status::Ok)), SI_OK);
        // SAFETY: initialised above.
        assert_eq!(text(unsafe { error.assume_init_ref() }), "before");
    }
}
