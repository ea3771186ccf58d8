//! Streams: a queue and a thread each, and a channel that all of them share.

use crate::driver::{driver, fault};
use crate::hold;
use crate::memory::Access;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use streaminfer::kernels::entry::Entry;

/// One piece of a graph.
pub enum Node {
    Kernel { entry: Entry, arguments: Vec<u8>, waits: bool },
    Copy { from: u64, to: u64, bytes: usize },
}

/// One piece of work.
pub enum Op {
    Store { to: u64, data: Vec<u8> },
    Wait { at: u64, value: u64 },
    Rows(Rows),
    Replay(Arc<Vec<Node>>),
    End,
}

/// The way to the GPU. A GPU has fewer channels than a process has streams, so two streams may share one; here all do. Work begins in the order in
/// which it was submitted, and what waits for a value keeps everything behind it from beginning: whoever waits for work that is submitted
/// later waits for good.
#[derive(Default)]
struct Channel {
    /// Tickets given out, and the one whose turn it is.
    turns: Mutex<(u64, u64)>,
    changed: Condvar,
}

static CHANNEL: Channel = Channel { turns: Mutex::new((0, 0)), changed: Condvar::new() };

impl Channel {
    fn turns(&self) -> MutexGuard<'_, (u64, u64)> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place behind all that has been submitted.
    fn enqueue(&self) -> u64 {
        let mut turns = self.turns();
        turns.0 += 1;
        turns.0 - 1
    }

    /// Returns when everything before has begun, or the GPU has died.
    fn await_turn(&self, ticket: u64) {
        let mut turns = self.turns();
        while turns.1 < ticket && driver().alive().is_ok() {
            let waited = self.changed.wait_timeout(turns, Duration::from_millis(20));
            turns = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets begin what is behind.
    fn pass(&self, ticket: u64) {
        let mut turns = self.turns();
        turns.1 = turns.1.max(ticket + 1);
        self.changed.notify_all();
    }
}

/// A copy of rows: of each the same bytes.
pub struct Rows {
    /// Where from, and the distance of rows there.
    pub from: (u64, usize),
    /// What is copied if it was pageable memory; then `from` counts from its begin.
    pub data: Option<Vec<u8>>,
    pub to: (u64, usize),
    /// Whether the other end is pageable memory, which the driver writes before it returns.
    pub is_pageable: bool,
    pub row_bytes: usize,
    pub rows: usize,
}

impl Rows {
    fn perform(&self) -> streaminfer::error::Result<()> {
        let memory = &driver().memory;
        let mut row = vec![0; self.row_bytes];
        for index in 0..self.rows {
            let (from, to) = (index * self.from.1, self.to.0 + (index * self.to.1) as u64);
            match &self.data {
                Some(data) => row.copy_from_slice(&data[from..from + self.row_bytes]),
                None => memory.read(self.from.0 + from as u64, &mut row)?,
            }
            if self.is_pageable {
                // SAFETY: the caller's memory, who waits for the end of the copy.
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to as *mut u8, row.len()) };
            } else {
                memory.write(to, &row)?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Queue {
    /// With their tickets.
    ops: VecDeque<(u64, Op)>,
    /// Pieces not finished, the one at work included.
    pending: usize,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

pub struct Stream {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Numbers that a seed decides.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> (u64, Op) {
        let mut queue = self.queue();
        loop {
            match queue.ops.pop_front() {
                Some(next) => return next,
                None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn run(&self, mut dice: Dice) {
        loop {
            let (ticket, op) = self.next();
            if matches!(op, Op::End) {
                return;
            }
            CHANNEL.await_turn(ticket);
            let waits = matches!(op, Op::Wait { .. });
            if !waits {
                CHANNEL.pass(ticket);
            }
            // Other streams overtake this one, or not.
            match dice.roll(4) {
                0 => std::thread::yield_now(),
                1 => std::thread::sleep(Duration::from_micros(dice.roll(200))),
                _ => {}
            }
            hold::pass(hold::WORK);
            if driver().alive().is_ok() {
                perform(&op, &mut dice);
            }
            if waits {
                CHANNEL.pass(ticket);
            }
            self.queue().pending -= 1;
            self.changed.notify_all();
        }
    }
}

fn perform(op: &Op, dice: &mut Dice) {
    let memory = &driver().memory;
    let done = match op {
        Op::Store { to, data } => memory.write(*to, data),
        Op::Rows(rows) => rows.perform(),
        Op::Wait { at, value } => loop {
            match memory.read_u64(*at) {
                Ok(now) if now.wrapping_sub(*value) as i64 >= 0 => break Ok(()),
                Ok(_) if driver().alive().is_err() => break Ok(()),
                Ok(_) => std::thread::sleep(Duration::from_micros(10)),
                Err(error) => break Err(error),
            }
        },
        Op::Replay(nodes) => {
            for node in nodes.iter() {
                if dice.roll(16) == 0 {
                    std::thread::yield_now();
                }
                if driver().alive().is_err() {
                    return;
                }
                perform_node(node);
            }
            Ok(())
        }
        Op::End => unreachable!("the thread ends before"),
    };
    if let Err(error) = done {
        fault(&error.message);
    }
}

fn perform_node(node: &Node) {
    let memory = &driver().memory;
    match node {
        Node::Copy { from, to, bytes } => {
            let mut data = vec![0; *bytes];
            if let Err(error) = memory.read(*from, &mut data).and_then(|()| memory.write(*to, &data)) {
                fault(&format!("a copy node: {}", error.message));
            }
        }
        Node::Kernel { entry, arguments, .. } => {
            hold::pass_kernel(entry.name);
            if driver().kernel_fails() {
                return;
            }
            if let Err(error) = (entry.twin)(arguments, &mut Access(memory)) {
                fault(&format!("the kernel {}: {}", entry.name, error.message));
            }
        }
    }
}

impl Stream {
    pub fn start(seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let worker = shared.clone();
        let thread = std::thread::spawn(move || worker.run(Dice::new(seed)));
        Stream { shared, thread: Mutex::new(Some(thread)) }
    }

    pub fn push(&self, op: Op) {
        let mut queue = self.shared.queue();
        queue.pending += 1;
        queue.ops.push_back((CHANNEL.enqueue(), op));
        self.shared.changed.notify_all();
    }

    pub fn is_idle(&self) -> bool {
        self.shared.queue().pending == 0
    }

    pub fn drain(&self) {
        let mut queue = self.shared.queue();
        while queue.pending > 0 && driver().alive().is_ok() {
            let (next, _) = self
                .shared
                .changed
                .wait_timeout(queue, Duration::from_millis(20))
                .unwrap_or_else(PoisonError::into_inner);
            queue = next;
        }
    }

    /// Ends the thread behind what is in the queue, as far as it ends.
    pub fn stop(&self) {
        // It takes no place in the channel: there is nothing that others would wait for.
        self.shared.queue().ops.push_back((u64::MAX, Op::End));
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && driver().alive().is_ok()
        {
            let _ = thread.join();
        }
    }
}
