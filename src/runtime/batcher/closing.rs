//! Batches from their closing on: what runs, what has expired, how they end.

use super::batch::{Batch, Closing, Notice, Order, Size, Stage, Turn};
use super::board::Board;
use super::slot::Phase;
use crate::error::Status;

impl Board {
    /// What is to be done now. To be asked until it answers [`Turn::Rest`].
    pub fn turn(&mut self, now_ns: u64, notify: &mut dyn FnMut(Notice)) -> Turn {
        let due = self.batches.iter().enumerate().filter(|(_, batch)| batch.due_ns <= now_ns);
        match due.min_by_key(|(_, batch)| batch.earliest_ns).map(|(batch, _)| batch) {
            Some(batch) => {
                self.learn_lateness(batch, now_ns);
                self.close(batch, now_ns, notify).map_or(Turn::Closed(batch), Turn::Launch)
            }
            None => Turn::Rest(self.due_ns()),
        }
    }

    /// A batch whose time has come is closed now.
    fn learn_lateness(&mut self, batch: usize, now_ns: u64) {
        let Batch { stage, due_ns, .. } = self.batches[batch];
        // 0 is no time: the batch is complete.
        if due_ns > 0 && matches!(stage, Stage::Open | Stage::Sealed) {
            let (min_ns, max_ns) = self.wake_bounds_ns;
            self.wake_ns = ((self.wake_ns * 7 + 2 * (now_ns - due_ns)) / 8).clamp(min_ns, max_ns);
        }
    }

    /// Closes a batch: what is not committed has expired, and so has what would be late for certain. Answers what is left to run.
    fn close(&mut self, batch: usize, now_ns: u64, notify: &mut dyn FnMut(Notice)) -> Option<Order> {
        let class = self.batches[batch].class;
        self.open[class] = self.open[class].filter(|&open| open != batch);
        let (mut end, mut rows, mut deadline_ns) = (0, 0, 0);
        for row in 0..self.rows {
            let index = batch * self.rows + row;
            let slot = self.slots[index];
            let fastest_ns = || self.sizes[class][self.size_for(class, row + slot.rows)].service.fastest_ns();
            match slot.phase {
                Phase::Committed if now_ns.saturating_add(fastest_ns()) <= slot.deadline_ns => {
                    (end, rows) = (row + slot.rows, rows + slot.rows);
                    deadline_ns = slot.deadline_ns.max(deadline_ns);
                }
                Phase::Committed | Phase::Reserved => self.end(index, Status::Expired, notify),
                Phase::Vacant | Phase::Ended(_) | Phase::Released => {}
            }
        }
        let size = self.size_for(class, end.max(1));
        let is_first = self.batches[batch].stage != Stage::Postponed;
        let state = &mut self.batches[batch];
        (state.writers, state.due_ns, state.size) = (0, u64::MAX, size);
        if end == 0 {
            state.stage = Stage::Ended;
            self.rest(batch);
            return None;
        }
        state.stage = Stage::Running;
        let Size { rows: bucket_rows, bucket, service } = self.sizes[class][size];
        if is_first {
            self.totals.batches += 1;
            self.totals.rows += rows as u64;
            self.totals.padding_rows += (bucket_rows - rows) as u64;
            let (number, opened_ns, usual_ns) = (self.totals.batches, state.opened_ns, service.usual_ns());
            state.closing = Closing { number, rows, bucket_rows, opened_ns, closed_ns: now_ns, usual_ns };
        }
        Some(Order { batch, bucket, deadline_ns: if deadline_ns == u64::MAX { 0 } else { deadline_ns } })
    }

    /// The device takes no more for now: the batch is tried again at that time.
    pub fn postpone(&mut self, batch: usize, until_ns: u64) {
        if self.batches[batch].stage == Stage::Running {
            (self.batches[batch].stage, self.batches[batch].due_ns) = (Stage::Postponed, until_ns);
        }
    }

    /// The device has room again. Answers whether a batch waits for that.
    pub fn retry(&mut self) -> bool {
        let mut is_any = false;
        for batch in self.batches.iter_mut().filter(|batch| batch.stage == Stage::Postponed) {
            (batch.due_ns, is_any) = (0, true);
        }
        is_any
    }

    /// A batch has run, or failed to, in so much time.
    pub fn ended(&mut self, batch: usize, status: Status, took_ns: u64, notify: &mut dyn FnMut(Notice)) {
        let Batch { stage, class, size, .. } = self.batches[batch];
        if stage != Stage::Running {
            return;
        }
        if status == Status::Ok {
            self.sizes[class][size].service.learn(took_ns);
        }
        for index in batch * self.rows..(batch + 1) * self.rows {
            if self.slots[index].phase == Phase::Committed {
                self.end(index, status, notify);
            }
        }
        self.batches[batch].stage = if status == Status::Panicked { Stage::Lost } else { Stage::Ended };
        self.rest(batch);
    }

    /// Gives everything up, for good: owners are told, and nothing is launched or reserved any more.
    pub fn close_all(&mut self, notify: &mut dyn FnMut(Notice)) {
        self.is_closed = true;
        for index in 0..self.slots.len() {
            if self.slots[index].is_live() {
                self.end(index, Status::Cancelled, notify);
            }
        }
        for batch in &mut self.batches {
            if matches!(batch.stage, Stage::Open | Stage::Sealed | Stage::Postponed) {
                (batch.stage, batch.due_ns) = (Stage::Ended, u64::MAX);
            }
        }
        self.open.fill(None);
    }
}
