//! What is behind a batcher: its board, its contexts, and who moves them.
//!
//! Whoever makes a batch complete launches it, on his own thread; one that is not complete by its time is closed by the
//! engine's timer. The device's thread that ends a batch tells its slots. All three hold the board's mutex for a pass over the
//! slots of one batch at most, and for nothing else: not while they launch, wake or wait.

use super::batch::{Notice, Order, Turn};
use super::board::Board;
use super::class::Class;
use crate::device::Stamps;
use crate::device::host::area::Area;
use crate::device::host::clock;
use crate::device::host::futex::Changes;
use crate::error::Status;
use crate::limits::BATCH_RETRY_NS;
use crate::runtime::completion::{Completion, CompletionQueue, Origin};
use crate::runtime::context::{Context, Listener};
use crate::runtime::ledger::Entry;
use crate::runtime::model::ModelCore;
use crate::runtime::seat::Seat;
use crate::runtime::timer::{Alarm, Timed};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the inputs and outputs of one batch lie.
pub struct Memory {
    pub inputs: Vec<Area>,
    pub outputs: Vec<Area>,
}

/// What a batcher's contexts and completions hold, which may outlive it.
pub struct Shared {
    board: Mutex<Board>,
    /// Per batch, with the ends of its slots.
    pub changes: Box<[Changes]>,
    pub classes: Vec<Class>,
    pub alarm: Arc<Alarm>,
    /// What completions name the batcher.
    pub id: AtomicU64,
    queue: Arc<CompletionQueue>,
    _seats: Seat,
    _batcher: Entry,
}

impl Shared {
    /// A batcher without contexts yet.
    pub fn new(
        board: Board,
        batches: usize,
        classes: Vec<Class>,
        model: &ModelCore,
        entry: Entry,
    ) -> crate::error::Result<Arc<Self>> {
        let engine = &model.engine;
        Ok(Arc::new(Shared {
            changes: (0..batches).map(|_| Changes::default()).collect(),
            classes,
            alarm: engine.timer()?.alarm().clone(),
            id: AtomicU64::new(engine.context_id()),
            queue: engine.queue.clone(),
            _seats: engine.seats(board.slot_count())?,
            _batcher: entry,
            board: Mutex::new(board),
        }))
    }

    /// Looks at the board, or changes it in a way that ends no slot.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        locked(&self.board)
    }

    /// Changes the board; completions that are due are queued.
    pub fn change<T>(self: &Arc<Self>, act: impl FnOnce(&mut Board, &mut dyn FnMut(Notice)) -> T) -> T {
        let mut is_any = false;
        let mut notify = |notice: Notice| {
            let (context, token, status) = (self.id.load(Relaxed), notice.token, notice.status);
            let completion = Completion { context, token, sequence: 0, status };
            self.queue.push(self.clone(), notice.index as u64, completion);
            is_any = true;
        };
        let result = act(&mut self.board(), &mut notify);
        // A system call, so without the lock.
        if is_any {
            self.queue.raise();
        }
        result
    }

    fn ended(self: &Arc<Self>, batch: usize, status: Status, took_ns: u64) {
        let is_awaited = self.change(|board, notify| {
            board.ended(batch, status, took_ns, notify);
            board.retry()
        });
        self.changes[batch].tell();
        if is_awaited {
            self.alarm.set(0);
        }
    }

    /// Gives every slot up.
    pub fn close(self: &Arc<Self>) {
        self.change(Board::close_all);
        self.changes.iter().for_each(Changes::tell);
    }
}

impl Origin for Shared {
    fn reaped(&self, index: u64) {
        self.board().reaped(index as usize);
    }
}

/// Hears of the ends of one batch.
pub struct Ear {
    pub shared: Arc<Shared>,
    pub batch: usize,
}

impl Listener for Ear {
    fn ended(&self, status: Status, took_ns: u64) {
        self.shared.ended(self.batch, status, took_ns);
    }
}

/// A batcher.
pub struct Core {
    pub shared: Arc<Shared>,
    /// One per batch. Only who launches the batch looks at it.
    pub contexts: Vec<Mutex<Context>>,
    /// Per batch.
    pub memory: Vec<Memory>,
    pub model: Arc<ModelCore>,
}

impl Core {
    /// When the batch that ran last in that place was submitted, and what its device did when.
    pub fn last_stamps(&self, batch: usize) -> (u64, Stamps) {
        locked(&self.contexts[batch]).last_stamps()
    }

    fn launch(&self, order: Order) {
        let launched = locked(&self.contexts[order.batch]).launch(order.bucket, order.deadline_ns);
        let Err(error) = launched else { return };
        if error.status == Status::Again {
            let until_ns = clock::monotonic_ns().saturating_add(BATCH_RETRY_NS);
            self.shared.board().postpone(order.batch, until_ns);
        } else {
            self.shared.ended(order.batch, error.status, 0);
        }
    }

    /// After a change of the board that may have made something due.
    pub fn follow_up(&self, due_ns: u64, now_ns: u64) {
        let due_ns = if due_ns <= now_ns { self.tend() } else { due_ns };
        if due_ns != u64::MAX {
            self.shared.alarm.set(due_ns);
        }
    }
}

impl Timed for Core {
    fn tend(&self) -> u64 {
        loop {
            let now_ns = clock::monotonic_ns();
            match self.shared.change(|board, notify| board.turn(now_ns, notify)) {
                Turn::Launch(order) => {
                    self.shared.changes[order.batch].tell();
                    self.launch(order);
                }
                Turn::Closed(batch) => self.shared.changes[batch].tell(),
                Turn::Rest(due_ns) => return due_ns,
            }
        }
    }
}
