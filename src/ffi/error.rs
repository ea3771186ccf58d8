//! Statuses and the error struct.

use crate::error::{Error, Status};
use crate::limits::ERROR_MESSAGE_BYTES;
use std::ffi::{CStr, c_char};

/// What a call answers: 0 is success, 1 to 99 are answers that are no failure, everything else is a failure, grouped by
/// what the caller can do about it. Numbers are never reused; treat one you do not know by its group. (The name says
/// result because `<signal.h>` has a macro that says status.)
pub type si_result = i32;

/// Done.
pub const SI_OK: si_result = 0;
/// The request has not ended yet.
pub const SI_PENDING: si_result = 1;
/// The request is parked: a completion will announce it, or has been queued for `si_engine_reap`.
pub const SI_PARKED: si_result = 2;
/// The call came too late: `si_context_unpark` finds the completion on its way, `si_context_cancel` the request ended.
pub const SI_TOO_LATE: si_result = 3;

/// 1xx, the calling program is wrong: a pointer is null, a value out of range, or two values contradict each other.
pub const SI_INVALID_ARGUMENT: si_result = 100;
/// The handle is zero or was never issued by this library.
pub const SI_INVALID_HANDLE: si_result = 101;
/// The handle was valid once and has been freed.
pub const SI_STALE_HANDLE: si_result = 102;
/// The handle belongs to another noun.
pub const SI_WRONG_TYPE: si_result = 103;
/// The context is bound to another thread.
pub const SI_WRONG_THREAD: si_result = 104;
/// The object is in a state in which this call makes no sense.
pub const SI_WRONG_STATE: si_result = 105;
/// Another thread is inside a call on this context.
pub const SI_BUSY: si_result = 106;
/// The context already has a request in flight.
pub const SI_IN_FLIGHT: si_result = 107;
/// The event has not been recorded yet.
pub const SI_NOT_RECORDED: si_result = 108;
/// No prepared bucket has these shapes and shape-input values.
pub const SI_NO_BUCKET: si_result = 109;
/// A shape, rank or element type differs from what the model declares.
pub const SI_SHAPE_MISMATCH: si_result = 110;

/// 2xx, the model or its file is at fault: there is no such file.
pub const SI_NOT_FOUND: si_result = 200;
/// The file could not be read; `native` is the errno.
pub const SI_IO: si_result = 201;
/// The path leads outside the model's directory or is not a plain file.
pub const SI_FORBIDDEN_PATH: si_result = 202;
/// The file is not a well-formed ONNX model.
pub const SI_MALFORMED: si_result = 203;
/// The model, or an option, asks for something that this library or device does not support.
pub const SI_UNSUPPORTED: si_result = 204;
/// An extent depends on tensor data.
pub const SI_UNSUPPORTED_DYNAMIC: si_result = 205;
/// The model exceeds a bound of the library.
pub const SI_TOO_LARGE: si_result = 206;

/// 3xx, not now: the device's in-flight permits are out. Nothing happened; try again after a completion.
pub const SI_AGAIN: si_result = 300;
/// A bound on live objects is reached.
pub const SI_LIMIT_REACHED: si_result = 301;
/// Memory could not be had, or would exceed the engine's budget.
pub const SI_OUT_OF_MEMORY: si_result = 302;
/// The time ran out before the request ended; it goes on and the context is draining.
pub const SI_TIMEOUT: si_result = 303;
/// The request was cancelled; the context is draining until the device is done.
pub const SI_CANCELLED: si_result = 304;
/// The deadline passed before the request was started; nothing was computed.
pub const SI_EXPIRED: si_result = 305;
/// The context's last request was given up and the device has not finished it.
pub const SI_DRAINING: si_result = 306;

/// 4xx, the device: there is no such device, or no driver for it.
pub const SI_NO_DEVICE: si_result = 400;
/// A driver or operating system call failed; `native` is its code.
pub const SI_DRIVER: si_result = 401;
/// The device had a fatal fault; this process can no longer use it.
pub const SI_DEVICE_LOST: si_result = 402;

/// 5xx, the library: a defect in it. Please report the message.
pub const SI_INTERNAL: si_result = 500;
/// A panic was caught at the border; a context that was in use is poisoned.
pub const SI_PANICKED: si_result = 501;
/// An earlier panic poisoned this context: free it.
pub const SI_POISONED: si_result = 502;

/// Bytes of `si_error.message`, terminating zero included.
pub const SI_ERROR_MESSAGE_BYTES: usize = 496;

/// A failure in words. Owned by the caller; its layout is frozen, so it has no `struct_size`. Every function writes it
/// only when it fails (never for `SI_PENDING`, `SI_PARKED` or `SI_TOO_LATE`), and a null pointer is always allowed.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_error {
    /// The status that the function returned.
    pub status: si_result,
    /// The operating system's or driver's own code, 0 if there is none.
    pub native: i32,
    /// One sentence in UTF-8, zero-terminated, naming the node, file, argument or symbol at fault.
    pub message: [c_char; SI_ERROR_MESSAGE_BYTES],
}

const _: () = assert!(SI_ERROR_MESSAGE_BYTES == ERROR_MESSAGE_BYTES && size_of::<si_error>() == 504);

/// A text as the zero-terminated field of a struct: what fits of it, up to the zero byte that a model's node name might smuggle in.
pub fn text_field<const BYTES: usize>(text: &str) -> [c_char; BYTES] {
    let text = text.split('\0').next().unwrap_or_default();
    let end = (0..=text.len().min(BYTES - 1)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    let mut field = [0; BYTES];
    for (to, from) in field.iter_mut().zip(text[..end].bytes()) {
        *to = from as c_char;
    }
    field
}

impl From<&Error> for si_error {
    fn from(error: &Error) -> Self {
        si_error { status: error.status as si_result, native: error.native, message: text_field(&error.message) }
    }
}

macro_rules! statuses {
    ($($constant:ident = $status:ident),* $(,)?) => {
        $(const _: () = assert!($constant == Status::$status as si_result);)*

        fn name(status: si_result) -> &'static CStr {
            match Status::from_code(status) {
                $(Some(Status::$status) => {
                    const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($constant), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => unreachable!(),
                    };
                    NAME
                })*
                None => c"unknown status",
            }
        }

        /// Every status constant with the status it stands for.
        #[cfg(test)]
        const ALL: &[(si_result, Status)] = &[$(($constant, Status::$status)),*];
    };
}

statuses! {
    SI_OK = Ok, SI_PENDING = Pending, SI_PARKED = Parked, SI_TOO_LATE = TooLate,
    SI_INVALID_ARGUMENT = InvalidArgument, SI_INVALID_HANDLE = InvalidHandle, SI_STALE_HANDLE = StaleHandle,
    SI_WRONG_TYPE = WrongType, SI_WRONG_THREAD = WrongThread, SI_WRONG_STATE = WrongState, SI_BUSY = Busy,
    SI_IN_FLIGHT = InFlight, SI_NOT_RECORDED = NotRecorded, SI_NO_BUCKET = NoBucket,
    SI_SHAPE_MISMATCH = ShapeMismatch, SI_NOT_FOUND = NotFound, SI_IO = Io, SI_FORBIDDEN_PATH = ForbiddenPath,
    SI_MALFORMED = Malformed, SI_UNSUPPORTED = Unsupported, SI_UNSUPPORTED_DYNAMIC = UnsupportedDynamic,
    SI_TOO_LARGE = TooLarge, SI_AGAIN = Again, SI_LIMIT_REACHED = LimitReached, SI_OUT_OF_MEMORY = OutOfMemory,
    SI_TIMEOUT = Timeout, SI_CANCELLED = Cancelled, SI_EXPIRED = Expired, SI_DRAINING = Draining,
    SI_NO_DEVICE = NoDevice, SI_DRIVER = Driver, SI_DEVICE_LOST = DeviceLost, SI_INTERNAL = Internal,
    SI_PANICKED = Panicked, SI_POISONED = Poisoned,
}

/// The name of a status.
///
/// @param status Any number.
/// @return A static string such as "SI_NO_BUCKET", valid for ever; "unknown status" for any other number.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_status_name(status: si_result) -> *const c_char {
    name(status).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_own_constant_and_name() {
        for &(code, status) in ALL {
            assert_eq!(Status::from_code(code), Some(status));
            assert_ne!(name(code), c"unknown status");
        }
        let known = (0..1000).filter(|&code| Status::from_code(code).is_some()).count();
        assert_eq!(ALL.len(), known);
        assert_eq!(name(99), c"unknown status");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character_border() {
        let error = Error::new(Status::Internal, "é".repeat(ERROR_MESSAGE_BYTES));
        let cut = si_error::from(&error);
        let bytes: Vec<u8> = cut.message.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
        assert_eq!(bytes.len(), ERROR_MESSAGE_BYTES - 2);
        assert!(String::from_utf8(bytes).unwrap().chars().all(|c| c == 'é'));
    }
}
