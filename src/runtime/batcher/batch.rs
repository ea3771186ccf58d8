//! What a batcher's state is made of, and what it answers.

use super::service::Service;
use super::slot::{DimensionExtents, Parking, Phase};
use crate::device::Stamps;
use crate::error::Status;

/// Where a batch is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Idle,
    /// Takes reservations.
    Open,
    /// Takes no more: it is full, or another one of its class is open. Closes when its last writer has committed.
    Sealed,
    /// Closed, and refused by the device for now.
    Postponed,
    Running,
    /// Nothing runs; owners read.
    Ended,
    /// A worker has panicked in its context, which is not used again.
    Lost,
}

#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub stage: Stage,
    pub class: usize,
    /// Rows from the first to the end of the last that is held.
    pub high: usize,
    /// Rows below `high` that nobody holds.
    pub holes: usize,
    /// Slots that are reserved and not committed.
    pub writers: usize,
    /// Slots that are not vacant.
    pub held: usize,
    pub opened_ns: u64,
    /// The earliest deadline of its slots.
    pub earliest_ns: u64,
    /// When it closes, or is tried again; `u64::MAX` where time changes nothing.
    pub due_ns: u64,
    /// Position among the sizes of its class that it runs with.
    pub size: usize,
    /// How it was closed, once it is.
    pub closing: Closing,
}

/// What is known of a batch from its closing on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// Counts the batches of a batcher from 1 in the order in which they close; 0: it has not closed with anything to run.
    pub number: u64,
    /// Rows that it runs for slots.
    pub rows: usize,
    /// Rows of its bucket.
    pub bucket_rows: usize,
    /// When its first slot was reserved.
    pub opened_ns: u64,
    /// When it closed.
    pub closed_ns: u64,
    /// What its bucket usually takes from launch to end.
    pub usual_ns: u64,
}

/// A prepared batch size of a class.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rows of the bucket.
    pub rows: usize,
    /// The bucket's position among those that contexts prepare.
    pub bucket: usize,
    /// How long it takes.
    pub service: Service,
}

/// Why nothing can be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Every batch is taken.
    Full,
    /// The deadline cannot be met.
    Late,
    /// Panics have left no context usable.
    Lost,
    /// The batcher goes away.
    Closed,
}

/// Why a slot cannot be used so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// It was never given.
    Forged,
    /// It has been given back.
    Stale,
    /// It is in another phase.
    Phase(Phase),
    /// A completion was asked for before.
    ParkedAlready,
}

/// The end of a slot whose owner has asked for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Position of the slot.
    pub index: usize,
    /// Its token.
    pub token: u64,
    /// How it ended.
    pub status: Status,
}

/// A batch to be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The batch.
    pub batch: usize,
    /// The bucket's position among those that contexts prepare.
    pub bucket: usize,
    /// When nobody wants it any more; 0: never.
    pub deadline_ns: u64,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Launch, and wake those who wait for the batch.
    Launch(Order),
    /// The batch has closed without anything to run: wake those who wait for it.
    Closed(usize),
    /// Nothing before this time.
    Rest(u64),
}

/// What has happened since the batcher was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Slots reserved.
    pub reserved: u64,
    /// Reservations refused because every batch was taken.
    pub refused: u64,
    /// Slots that ended well.
    pub completed: u64,
    /// Slots given back unused.
    pub abandoned: u64,
    /// Reservations refused and slots ended because of the time: not committed when their batch closed, or too late for their
    /// deadline.
    pub expired: u64,
    /// Slots cancelled, or given up by a waiter whose time ran out.
    pub cancelled: u64,
    /// Slots whose batch failed.
    pub failed: u64,
    /// Batches launched.
    pub batches: u64,
    /// Rows that they ran for slots.
    pub rows: u64,
    /// Rows that they ran for nobody.
    pub padding_rows: u64,
}

/// Where the time of a batch went, `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTimings {
    /// The batch.
    pub closing: Closing,
    /// When it was submitted.
    pub submit_ns: u64,
    /// What its device did when.
    pub stamps: Stamps,
}

/// What is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Slots that are not given back.
    pub slots: usize,
    /// Batches that take reservations or wait for their slots.
    pub forming: usize,
    /// Batches on the device, or refused by it for now.
    pub running: usize,
}

/// What a slot is and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub batch: usize,
    pub class: usize,
    pub row: usize,
    pub rows: usize,
    pub phase: Phase,
    pub parking: Parking,
    pub extents: DimensionExtents,
}

impl Batch {
    /// A batch of a class in which nobody has a slot yet.
    pub const fn new(stage: Stage, class: usize, opened_ns: u64) -> Self {
        Batch {
            stage,
            class,
            high: 0,
            holes: 0,
            writers: 0,
            held: 0,
            opened_ns,
            earliest_ns: u64::MAX,
            due_ns: u64::MAX,
            size: 0,
            closing: Closing { number: 0, rows: 0, bucket_rows: 0, opened_ns: 0, closed_ns: 0, usual_ns: 0 },
        }
    }
}
