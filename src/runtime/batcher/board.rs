//! Who has which row of which batch: the batcher's state as plain data. It knows no clock, memory, thread or device; callers
//! pass the time in and do what it answers. The batcher keeps it behind one mutex, and nothing else happens under that.
//!
//! A batch is the memory of one context. It is idle, then open for one class, sealed once it takes no more, running, ended, and
//! idle again when the last of its slots is given back. `closing.rs` has what becomes of it from its closing on.

use super::batch::{Batch, Closing, Misuse, Notice, Occupancy, Place, Refusal, Size, Stage, Totals};
use super::service::Service;
use super::slot::{DimensionExtents, Parking, Phase, Slot, SlotId};
use crate::error::Status;

/// The state of a batcher.
#[derive(Debug)]
pub struct Board {
    /// Slots of one batch.
    pub(super) rows: usize,
    pub(super) slots: Box<[Slot]>,
    pub(super) batches: Box<[Batch]>,
    /// Per class the batch that takes its reservations.
    pub(super) open: Box<[Option<usize>]>,
    /// Per class its sizes, ascending.
    pub(super) sizes: Box<[Vec<Size>]>,
    delay_ns: u64,
    /// What a deadline leaves to the thread that closes a batch for it: twice its usual lateness, within bounds.
    pub(super) wake_ns: u64,
    pub(super) wake_bounds_ns: (u64, u64),
    pub(super) is_closed: bool,
    pub(super) totals: Totals,
}

impl Board {
    /// So many batches for classes with these sizes, each ascending.
    pub fn new(batches: usize, sizes: Vec<Vec<Size>>, delay_ns: u64, wake_bounds_ns: (u64, u64)) -> Self {
        let rows = sizes.iter().flatten().map(|size| size.rows).max().unwrap_or(0);
        Board {
            rows,
            slots: vec![Slot::new(); batches * rows].into(),
            batches: vec![Batch::new(Stage::Idle, 0, 0); batches].into(),
            open: vec![None; sizes.len()].into(),
            sizes: sizes.into(),
            delay_ns,
            wake_ns: wake_bounds_ns.0,
            wake_bounds_ns,
            is_closed: false,
            totals: Totals::default(),
        }
    }

    /// Slots, each of which may have a completion on its way.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// A batch that nobody has a slot of is about to run, so that its size can be measured. It is idle again once that has ended.
    pub fn rehearse(&mut self, batch: usize, class: usize, size: usize) {
        self.batches[batch] = Batch { size, ..Batch::new(Stage::Running, class, 0) };
    }

    /// Whether a batch is nobody's.
    pub fn is_idle(&self, batch: usize) -> bool {
        self.batches[batch].stage == Stage::Idle
    }

    /// A size has been measured.
    pub fn calibrate(&mut self, class: usize, size: usize, ns: u64) {
        self.sizes[class][size].service = Service::measured(ns);
    }

    /// What has happened.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What is under way.
    pub fn occupancy(&self) -> Occupancy {
        let count = |stages: [Stage; 2]| self.batches.iter().filter(|batch| stages.contains(&batch.stage)).count();
        Occupancy {
            slots: self.batches.iter().map(|batch| batch.held).sum(),
            forming: count([Stage::Open, Stage::Sealed]),
            running: count([Stage::Running, Stage::Postponed]),
        }
    }

    /// Position of the smallest size that holds so many rows.
    pub(super) fn size_for(&self, class: usize, rows: usize) -> usize {
        self.sizes[class].partition_point(|size| size.rows < rows)
    }

    /// When a batch that ends at row `end` must close for a deadline.
    fn closing_ns(&self, class: usize, end: usize, deadline_ns: u64) -> u64 {
        if deadline_ns == u64::MAX {
            return u64::MAX;
        }
        let service = self.sizes[class][self.size_for(class, end)].service;
        deadline_ns.saturating_sub(service.allowance_ns() + self.wake_ns)
    }

    fn slots_of(&self, batch: usize) -> &[Slot] {
        &self.slots[batch * self.rows..][..self.rows]
    }

    fn capacity(&self, class: usize) -> usize {
        self.sizes[class].last().map_or(0, |size| size.rows)
    }

    /// Takes `rows` rows of a batch of the class, the first that are free. At most as many as the class's largest size has.
    pub fn reserve(
        &mut self,
        class: usize,
        rows: usize,
        deadline_ns: u64,
        extents: DimensionExtents,
        now_ns: u64,
    ) -> Result<SlotId, Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        if self.closing_ns(class, rows, deadline_ns) <= now_ns {
            let size = self.size_for(class, rows);
            let service = &mut self.sizes[class][size].service;
            if now_ns.saturating_add(service.fastest_ns()) < deadline_ns {
                service.doubt();
            }
            self.totals.expired += 1;
            return Err(Refusal::Late);
        }
        let joined = self.open[class].and_then(|batch| Some((batch, self.room(batch, rows, deadline_ns, now_ns)?)));
        let opened = || self.batches.iter().position(|batch| batch.stage == Stage::Idle);
        let Some((batch, row)) = joined.or_else(|| Some((opened()?, 0))) else {
            self.totals.refused += 1;
            let is_lost = self.batches.iter().all(|batch| batch.stage == Stage::Lost);
            return Err(if is_lost { Refusal::Lost } else { Refusal::Full });
        };
        if joined.is_none() {
            self.open(batch, class, now_ns);
        }
        self.totals.reserved += 1;
        Ok(self.occupy(batch, row, Slot { rows, deadline_ns, extents, ..Slot::new() }))
    }

    /// The first row at which so many are free in an open batch, unless the batch would then be too large for a deadline.
    fn room(&self, batch: usize, rows: usize, deadline_ns: u64, now_ns: u64) -> Option<usize> {
        let Batch { class, high, holes, earliest_ns, .. } = self.batches[batch];
        let hole = if holes >= rows { self.hole(batch, rows) } else { None };
        let row = hole.unwrap_or(high);
        let end = high.max(row + rows);
        let deadline_ns = deadline_ns.min(earliest_ns);
        (end <= self.capacity(class) && self.closing_ns(class, end, deadline_ns) > now_ns).then_some(row)
    }

    /// The first row of so many neighbours that nobody holds, below the batch's last.
    fn hole(&self, batch: usize, rows: usize) -> Option<usize> {
        let slots = self.slots_of(batch);
        let (mut row, mut free) = (0, 0);
        while row < self.batches[batch].high && free < rows {
            free = if slots[row].is_held() { 0 } else { free + 1 };
            row += slots[row].rows.max(1);
        }
        (free >= rows).then(|| row - rows)
    }

    /// Opens an idle batch; the one that is open takes no more.
    fn open(&mut self, batch: usize, class: usize, now_ns: u64) {
        if let Some(before) = self.open[class].replace(batch) {
            self.batches[before].stage = Stage::Sealed;
            self.schedule(before);
        }
        self.batches[batch] = Batch::new(Stage::Open, class, now_ns);
    }

    fn occupy(&mut self, batch: usize, row: usize, request: Slot) -> SlotId {
        let index = batch * self.rows + row;
        let generation = self.slots[index].generation;
        self.slots[index] = Slot { generation, phase: Phase::Reserved, ..request };
        let state = &mut self.batches[batch];
        (state.writers, state.held) = (state.writers + 1, state.held + 1);
        state.earliest_ns = state.earliest_ns.min(request.deadline_ns);
        if row == state.high {
            state.high += request.rows;
        } else {
            state.holes -= request.rows;
        }
        self.seal_or_open(batch);
        SlotId::new(generation, index)
    }

    /// Brings a batch that has not run up to date with its slots, of which one has gone.
    fn recount(&mut self, batch: usize) {
        let (mut held, mut used, mut high, mut earliest_ns) = (0, 0, 0, u64::MAX);
        for (row, slot) in self.slots_of(batch).iter().enumerate().filter(|(_, slot)| slot.is_held()) {
            (held, used, high) = (held + 1, used + slot.rows, row + slot.rows);
            if slot.is_live() {
                earliest_ns = slot.deadline_ns.min(earliest_ns);
            }
        }
        let state = &mut self.batches[batch];
        (state.held, state.holes, state.high, state.earliest_ns) = (held, high - used, high, earliest_ns);
        if held == 0 { self.retire(batch) } else { self.seal_or_open(batch) }
    }

    /// A full batch takes no more; one that has room again does, unless another one has taken its place.
    fn seal_or_open(&mut self, batch: usize) {
        let Batch { class, high, holes, .. } = self.batches[batch];
        let is_full = high - holes == self.capacity(class);
        let state = &mut self.batches[batch];
        if is_full && self.open[class] == Some(batch) {
            (self.open[class], state.stage) = (None, Stage::Sealed);
        } else if !is_full && self.open[class].is_none() {
            (self.open[class], state.stage) = (Some(batch), Stage::Open);
        }
        self.schedule(batch);
    }

    /// Nobody holds a slot of the batch any more.
    fn retire(&mut self, batch: usize) {
        let state = &mut self.batches[batch];
        if state.stage == Stage::Lost {
            return;
        }
        (state.stage, state.due_ns) = (Stage::Idle, u64::MAX);
        let class = state.class;
        self.open[class] = self.open[class].filter(|&open| open != batch);
    }

    /// Says when a batch that has not run closes: at once if nothing can be added and nobody writes, else after the delay or
    /// in time for its earliest deadline.
    fn schedule(&mut self, batch: usize) {
        let Batch { stage, class, high, writers, opened_ns, earliest_ns, .. } = self.batches[batch];
        let is_complete = stage == Stage::Sealed && writers == 0;
        let in_time = self.closing_ns(class, high, earliest_ns);
        let due_ns = if is_complete { 0 } else { in_time.min(opened_ns.saturating_add(self.delay_ns)) };
        self.batches[batch].due_ns = due_ns;
    }

    fn find(&self, id: SlotId) -> Result<usize, Misuse> {
        let slot = self.slots.get(id.index()).ok_or(Misuse::Forged)?;
        if id.generation() == slot.generation && !matches!(slot.phase, Phase::Vacant | Phase::Released) {
            return Ok(id.index());
        }
        Err(if (1..slot.generation).contains(&id.generation()) { Misuse::Stale } else { Misuse::Forged })
    }

    /// What a slot is and where it lies.
    pub fn place(&self, id: SlotId) -> Result<Place, Misuse> {
        let index = self.find(id)?;
        let Slot { phase, parking, rows, extents, .. } = self.slots[index];
        let (batch, row) = (index / self.rows, index % self.rows);
        Ok(Place { batch, class: self.batches[batch].class, row, rows, phase, parking, extents })
    }

    /// How a batch was closed that has not been given back since.
    pub fn closing(&self, batch: usize) -> Closing {
        self.batches[batch].closing
    }

    /// When something is to be done.
    pub fn due_ns(&self) -> u64 {
        self.batches.iter().map(|batch| batch.due_ns).min().unwrap_or(u64::MAX)
    }

    /// The owner has written.
    pub fn commit(&mut self, id: SlotId, token: u64) -> Result<(), Misuse> {
        let index = self.find(id)?;
        let slot = &mut self.slots[index];
        if slot.phase != Phase::Reserved {
            return Err(Misuse::Phase(slot.phase));
        }
        *slot = Slot { phase: Phase::Committed, is_committed: true, token, ..*slot };
        let batch = index / self.rows;
        self.batches[batch].writers -= 1;
        self.schedule(batch);
        Ok(())
    }

    /// The owner gives a slot back that it has not committed.
    pub fn abandon(&mut self, id: SlotId) -> Result<(), Misuse> {
        let index = self.find(id)?;
        let slot = &self.slots[index];
        if slot.is_committed {
            return Err(Misuse::Phase(slot.phase));
        }
        if slot.phase == Phase::Reserved {
            self.batches[index / self.rows].writers -= 1;
            self.totals.abandoned += 1;
        }
        self.give_back(index);
        Ok(())
    }

    /// The owner is through with a slot that has ended.
    pub fn release(&mut self, id: SlotId) -> Result<(), Misuse> {
        let index = self.find(id)?;
        match self.slots[index].phase {
            Phase::Ended(_) => {
                self.give_back(index);
                Ok(())
            }
            phase => Err(Misuse::Phase(phase)),
        }
    }

    /// The slot's name is of no use from now on; its rows are once no completion of it is on its way.
    fn give_back(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.generation += 1;
        slot.phase = Phase::Released;
        if slot.parking == Parking::Queued {
            return;
        }
        self.vacate(index);
    }

    fn vacate(&mut self, index: usize) {
        let generation = self.slots[index].generation;
        self.slots[index] = Slot { generation, ..Slot::new() };
        let batch = index / self.rows;
        match self.batches[batch].stage {
            Stage::Open | Stage::Sealed => self.recount(batch),
            Stage::Idle | Stage::Postponed | Stage::Running | Stage::Ended | Stage::Lost => {
                self.batches[batch].held -= 1;
                self.rest(batch);
            }
        }
    }

    /// An ended batch becomes idle with its last slot.
    pub(super) fn rest(&mut self, batch: usize) {
        if self.batches[batch].stage == Stage::Ended && self.batches[batch].held == 0 {
            self.retire(batch);
        }
    }

    /// The completion of a slot has reached its owner.
    pub fn reaped(&mut self, index: usize) {
        self.slots[index].parking = Parking::None;
        if self.slots[index].phase == Phase::Released {
            self.vacate(index);
        }
    }

    /// Promises a completion for a committed slot.
    pub fn park(&mut self, id: SlotId, notify: &mut dyn FnMut(Notice)) -> Result<(), Misuse> {
        let index = self.find(id)?;
        let slot = &mut self.slots[index];
        if !slot.is_committed {
            return Err(Misuse::Phase(slot.phase));
        }
        if slot.parking != Parking::None {
            return Err(Misuse::ParkedAlready);
        }
        slot.parking = Parking::Promised;
        if let Phase::Ended(status) = slot.phase {
            slot.parking = Parking::Queued;
            notify(Notice { index, token: slot.token, status });
        }
        Ok(())
    }

    /// Ends a committed slot before its batch does: its owner is told, its row drains with the batch. `false` if it has ended.
    pub fn give_up(&mut self, id: SlotId, status: Status, notify: &mut dyn FnMut(Notice)) -> Result<bool, Misuse> {
        let index = self.find(id)?;
        match self.slots[index].phase {
            Phase::Committed => {
                self.end(index, status, notify);
                let batch = index / self.rows;
                if matches!(self.batches[batch].stage, Stage::Open | Stage::Sealed) {
                    self.recount(batch);
                }
                Ok(true)
            }
            Phase::Ended(_) => Ok(false),
            phase => Err(Misuse::Phase(phase)),
        }
    }

    pub(super) fn end(&mut self, index: usize, status: Status, notify: &mut dyn FnMut(Notice)) {
        let slot = &mut self.slots[index];
        slot.phase = Phase::Ended(status);
        if slot.parking == Parking::Promised {
            slot.parking = Parking::Queued;
            notify(Notice { index, token: slot.token, status });
        }
        let total = match status {
            Status::Ok => &mut self.totals.completed,
            Status::Expired => &mut self.totals.expired,
            Status::Cancelled | Status::Timeout => &mut self.totals.cancelled,
            _ => &mut self.totals.failed,
        };
        *total += 1;
    }
}
