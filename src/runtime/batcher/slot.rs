//! Slots: the part of a batch that one request has.

use crate::error::Status;
use crate::limits::{BATCHER_DIMENSIONS_MAX, BATCHER_SLOTS_MAX};

const INDEX_BITS: u32 = BATCHER_SLOTS_MAX.trailing_zeros();

/// The name of a slot, which its batcher never gives twice: a generation above an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(u64);

impl SlotId {
    pub(super) fn new(generation: u64, index: usize) -> Self {
        SlotId(generation << INDEX_BITS | index as u64)
    }

    /// The name with this number. Any number will do: those that name no slot are refused wherever they are used.
    pub fn from_number(number: u64) -> Self {
        SlotId(number)
    }

    /// Its number, never 0.
    pub fn number(self) -> u64 {
        self.0
    }

    pub(super) fn index(self) -> usize {
        (self.0 as usize) % BATCHER_SLOTS_MAX
    }

    pub(super) fn generation(self) -> u64 {
        self.0 >> INDEX_BITS
    }
}

/// The extents of a request along the paddable dimensions of its class.
pub type DimensionExtents = [usize; BATCHER_DIMENSIONS_MAX];

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody's.
    Vacant,
    /// Its owner writes.
    Reserved,
    /// It waits for its batch, or runs.
    Committed,
    /// Its owner may know how it ended.
    Ended(Status),
    /// Its owner is gone; its completion waits to be reaped.
    Released,
}

/// Who tells of a slot's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parking {
    /// Nobody: the owner looks.
    None,
    /// A completion is promised.
    Promised,
    /// The completion is in the queue.
    Queued,
}

/// One slot. Those of a batch stand in the order of its rows; a slot of several rows is the first of them, the others vacant.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Of the request that has it, or of the next one.
    pub generation: u64,
    pub phase: Phase,
    pub parking: Parking,
    /// Whether it has ever been committed.
    pub is_committed: bool,
    pub rows: usize,
    /// `u64::MAX` is none.
    pub deadline_ns: u64,
    pub token: u64,
    pub extents: DimensionExtents,
}

impl Slot {
    /// A slot that has never been used.
    pub const fn new() -> Self {
        Slot {
            generation: 1,
            phase: Phase::Vacant,
            parking: Parking::None,
            is_committed: false,
            rows: 0,
            deadline_ns: u64::MAX,
            token: 0,
            extents: [0; BATCHER_DIMENSIONS_MAX],
        }
    }

    /// Whether it keeps its rows from others.
    pub fn is_held(&self) -> bool {
        self.phase != Phase::Vacant
    }

    /// Whether it can still be part of a batch that runs.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Reserved | Phase::Committed)
    }
}
