//! Every status the library can answer with, and the error that carries one.

use std::fmt;

/// What happened, grouped by what the caller can do about it. The numbers are part of the ABI and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,

    // Not failures: the request is on its way. No error text is written for these.
    /// The request has not ended yet.
    Pending = 1,
    /// The request has not ended and a parked completion will announce it.
    Parked = 2,
    /// `unpark` came too late: the parked completion will be delivered.
    TooLate = 3,

    // The calling program is wrong: mend the call.
    /// An argument is null, out of range or inconsistent.
    InvalidArgument = 100,
    /// The handle was never issued by this library.
    InvalidHandle = 101,
    /// The handle was valid once and has been freed.
    StaleHandle = 102,
    /// The handle belongs to another noun.
    WrongType = 103,
    /// The context is bound to another thread.
    WrongThread = 104,
    /// The object is in a state in which this call makes no sense.
    WrongState = 105,
    /// Another thread is inside a call on this object.
    Busy = 106,
    /// The context already has a request in flight.
    InFlight = 107,
    /// The event has not been recorded yet.
    NotRecorded = 108,
    /// No prepared bucket has these shapes and shape-input values.
    NoBucket = 109,
    /// Shape, rank or element type differs from what the model declares.
    ShapeMismatch = 110,

    // The model or its file is at fault: mend the model.
    /// There is no such file.
    NotFound = 200,
    /// The file could not be read.
    Io = 201,
    /// The path leads outside the model's directory or is not a plain file.
    ForbiddenPath = 202,
    /// The file is not a well-formed ONNX model.
    Malformed = 203,
    /// The model uses something this library does not support.
    Unsupported = 204,
    /// An extent depends on tensor data.
    UnsupportedDynamic = 205,
    /// The model exceeds a bound of `limits.rs`.
    TooLarge = 206,

    // Not now: try again, later or elsewhere.
    /// The device's in-flight permits are out.
    Again = 300,
    /// A bound on live objects is reached.
    LimitReached = 301,
    /// Memory could not be had.
    OutOfMemory = 302,
    /// The time ran out before the request ended; it goes on, the context is draining.
    Timeout = 303,
    /// The request was cancelled.
    Cancelled = 304,
    /// The deadline passed before the request was started.
    Expired = 305,
    /// The context's last request was given up and the device has not finished it.
    Draining = 306,

    // The device.
    /// There is no such device, or no driver for it.
    NoDevice = 400,
    /// A driver call failed; the native code is in the error.
    Driver = 401,
    /// The device had a fatal fault; this process can no longer use it.
    DeviceLost = 402,

    // The library.
    /// A defect in the library.
    Internal = 500,
    /// A panic was caught at the border; the object is poisoned.
    Panicked = 501,
    /// An earlier panic poisoned this object: free it.
    Poisoned = 502,
}

impl Status {
    /// The status with this number, if there is one.
    pub fn from_code(code: i32) -> Option<Status> {
        use Status::*;
        const ALL: &[Status] = &[
            Status::Ok,
            Pending,
            Parked,
            TooLate,
            InvalidArgument,
            InvalidHandle,
            StaleHandle,
            WrongType,
            WrongThread,
            WrongState,
            Busy,
            InFlight,
            NotRecorded,
            NoBucket,
            ShapeMismatch,
            NotFound,
            Io,
            ForbiddenPath,
            Malformed,
            Unsupported,
            UnsupportedDynamic,
            TooLarge,
            Again,
            LimitReached,
            OutOfMemory,
            Timeout,
            Cancelled,
            Expired,
            Draining,
            NoDevice,
            Driver,
            DeviceLost,
            Internal,
            Panicked,
            Poisoned,
        ];
        ALL.iter().copied().find(|&status| status as i32 == code)
    }
}

/// A status with the sentence that helps: it names the node, file, argument or symbol at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure this is.
    pub status: Status,
    /// The operating system's or driver's own code, 0 if there is none.
    pub native: i32,
    /// One sentence without trailing period, naming the thing at fault.
    pub message: String,
}

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without native code.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Error { status, native: 0, message: message.into() }
    }

    /// An operating system error, keeping its `errno`.
    pub fn io(status: Status, what: impl fmt::Display, error: &std::io::Error) -> Self {
        Error { status, native: error.raw_os_error().unwrap_or(0), message: format!("{what}: {error}") }
    }

    /// Puts `context` in front of the message, for example the node being planned.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.message, self.status)
    }
}

impl std::error::Error for Error {}

/// Builds an [`Error`] from a status name and a format string: `fail!(Unsupported, "node {name}")`.
macro_rules! fail {
    ($status:ident, $($text:tt)+) => {
        $crate::error::Error::new($crate::error::Status::$status, format!($($text)+))
    };
}

/// Returns early with [`fail!`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $status:ident, $($text:tt)+) => {
        if !$condition {
            return Err(fail!($status, $($text)+));
        }
    };
}

pub(crate) use {ensure, fail};
