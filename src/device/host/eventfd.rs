//! A descriptor that becomes readable when something has happened (eventfd(2)).

use crate::error::{Error, Result, Status};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};

/// A non-blocking, close-on-exec counter.
#[derive(Debug)]
pub struct EventFd {
    file: File,
}

impl EventFd {
    /// A counter at zero.
    pub fn new() -> Result<Self> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Error::io(Status::Driver, "no descriptor for completions", &error));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(EventFd { file: unsafe { File::from_raw_fd(fd) } })
    }

    /// Makes it readable. It can only fail when the counter is at its end, and then it is readable.
    pub fn raise(&self) {
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// Makes it unreadable; nothing to read is fine, too.
    pub fn clear(&self) {
        let _ = (&self.file).read(&mut [0; 8]);
    }

    /// A second descriptor of the same counter.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        let copy = self.file.try_clone();
        copy.map(OwnedFd::from).map_err(|error| Error::io(Status::Driver, "no descriptor for completions", &error))
    }
}
