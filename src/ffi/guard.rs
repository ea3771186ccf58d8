//! guard
use super::error::{si_error, si_status};
use std::mem::MaybeUninit;
pub fn todo<T>(_error: Option<&mut MaybeUninit<si_error>>, _arguments: &T) -> si_status {
    super::error::SI_UNSUPPORTED
}
