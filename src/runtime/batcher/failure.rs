//! What stands between a batcher's state and its callers: refusals and ends in words.

use super::batch::{Misuse, Refusal};
use super::slot::{Phase, SlotId};
use crate::error::{Error, Status, fail};

/// Why nothing can be reserved.
#[cold]
pub fn refused(refusal: Refusal, batches: usize) -> Error {
    match refusal {
        Refusal::Full => {
            fail!(Again, "all {batches} batches are full, running, or not released by those who read them")
        }
        Refusal::Late => fail!(Expired, "the deadline has passed, or a batch that is closed at once would miss it"),
        Refusal::Closed => fail!(WrongState, "the batcher is being freed"),
        Refusal::Lost => fail!(Poisoned, "panics have left every context of the batcher unusable: free it"),
    }
}

/// Why a slot cannot be used so.
#[cold]
pub fn misused(id: SlotId, misuse: Misuse) -> Error {
    let number = id.number();
    match misuse {
        Misuse::Forged => fail!(InvalidHandle, "the batcher has never had a slot {number:#018x}"),
        Misuse::Stale => fail!(StaleHandle, "slot {number:#018x} has been given back"),
        Misuse::ParkedAlready => fail!(WrongState, "a completion of slot {number:#018x} has been asked for already"),
        Misuse::Phase(Phase::Reserved) => fail!(WrongState, "slot {number:#018x} has not been committed"),
        Misuse::Phase(Phase::Committed) => fail!(InFlight, "slot {number:#018x} is in flight until it has ended"),
        Misuse::Phase(Phase::Ended(status)) => ended(id, status),
        Misuse::Phase(Phase::Vacant | Phase::Released) => fail!(Internal, "a slot that is nobody's was found"),
    }
}

/// Why a slot cannot be given back so.
#[cold]
pub fn kept(id: SlotId, misuse: Misuse) -> Error {
    match misuse {
        Misuse::Phase(Phase::Reserved) => {
            fail!(WrongState, "slot {:#018x} has not been committed: abandon it", id.number())
        }
        Misuse::Phase(Phase::Ended(_)) => fail!(WrongState, "slot {:#018x} has ended: release it", id.number()),
        misuse => misused(id, misuse),
    }
}

/// How a slot has ended, for a call that it is in the way of.
#[cold]
pub fn ended(id: SlotId, status: Status) -> Error {
    let what = match status {
        Status::Ok => return fail!(WrongState, "slot {:#018x} has ended", id.number()),
        Status::Expired => "was not committed when its batch closed, or could no longer meet its deadline",
        Status::Cancelled => "was cancelled",
        Status::Timeout => "did not end in time",
        Status::DeviceLost => "was lost with its device",
        Status::Panicked => "ended in a panic of a worker",
        _ => "is one of a batch that failed",
    };
    Error::new(status, format!("slot {:#018x} {what}", id.number()))
}
