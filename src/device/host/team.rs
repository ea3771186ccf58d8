//! The worker threads of one context: they sleep until work is posted, do it together, and sleep again.

use super::{clock, futex, process, processors, threads};
use crate::error::{Error, Result, Status};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread::JoinHandle;

/// How long a worker spins for its next work before it sleeps, if CPUs are free.
const IDLE_SPIN_NS: u64 = 30_000;
/// Looks at a barrier before a worker sleeps there: some tens of microseconds.
const BARRIER_SPINS: u32 = 4_000;
/// The same when there are more workers than CPUs: a sleeping worker gives its CPU to the one that is awaited.
const BARRIER_SPINS_CROWDED: u32 = 50;
/// Stack of a worker; kernels keep their working memory elsewhere.
const STACK_BYTES: usize = 512 << 10;

/// What a team does when work is posted.
pub trait Work: Send + Sync + 'static {
    /// Worker 0's part, on a thread of the team or on the poster's.
    fn lead(&self, barrier: &Barrier);
    /// The part of another worker.
    fn follow(&self, worker: usize, barrier: &Barrier);
}

/// Where the workers of a team meet.
#[derive(Debug)]
pub struct Barrier {
    members: u32,
    arrived: AtomicU32,
    /// Counts meetings; the word slept on.
    round: AtomicU32,
    sleepers: AtomicU32,
    /// What the last to arrive decided.
    halted: AtomicBool,
    /// A worker has panicked and will never arrive.
    broken: AtomicBool,
}

impl Barrier {
    fn new(members: usize) -> Self {
        Barrier {
            members: members as u32,
            arrived: AtomicU32::new(0),
            round: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            halted: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }

    /// Workers that meet here.
    pub fn members(&self) -> usize {
        self.members as usize
    }

    /// Waits for all workers. The last to arrive asks `halt`, and every worker gets its answer: `true` to stop here.
    pub fn meet(&self, halt: impl FnOnce() -> bool) -> bool {
        if self.members == 1 {
            return halt();
        }
        let round = self.round.load(Acquire);
        if self.arrived.fetch_add(1, AcqRel) + 1 == self.members {
            // Nobody reads the decision before `round` changes, or writes it before all have read it and come back.
            self.halted.store(halt(), Relaxed);
            self.arrived.store(0, Relaxed);
            self.release();
        } else {
            self.await_round_after(round);
        }
        self.halted.load(Relaxed) || self.broken.load(Acquire)
    }

    fn release(&self) {
        self.round.fetch_add(1, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            futex::wake_all(&self.round);
        }
    }

    fn await_round_after(&self, round: u32) {
        let spins = if processors::workers_fit() { BARRIER_SPINS } else { BARRIER_SPINS_CROWDED };
        let is_over = || self.round.load(SeqCst) != round || self.broken.load(SeqCst);
        for _ in 0..spins {
            if is_over() {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, SeqCst);
        while !is_over() {
            futex::wait_until(&self.round, round, u64::MAX);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }

    /// Lets everyone go for good, because a worker has panicked.
    pub fn break_up(&self) {
        self.broken.store(true, SeqCst);
        self.release();
    }

    /// Whether a worker has panicked.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Acquire)
    }
}

/// Wakes workers for work, or for good.
#[derive(Debug, Default)]
struct Bell {
    /// Twice the number of rings, and 1 once the team is stopped; the word slept on.
    word: AtomicU32,
    sleepers: AtomicU32,
}

/// The bit of [`Bell::word`] that says that no more work will come.
const STOPPED: u32 = 1;

impl Bell {
    fn ring(&self) {
        self.word.fetch_add(2, SeqCst);
        self.wake();
    }

    fn stop(&self) {
        self.word.fetch_or(STOPPED, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.sleepers.load(SeqCst) > 0 {
            futex::wake_all(&self.word);
        }
    }

    /// Waits for the ring after those that give the word `heard`. `false` if there will be none.
    fn await_ring(&self, heard: u32, spin_ns: u64) -> bool {
        let is_quiet = || self.word.load(SeqCst) == heard;
        if spin_ns > 0 && processors::workers_fit() {
            let end = clock::monotonic_ns() + spin_ns;
            while is_quiet() && clock::monotonic_ns() < end {
                for _ in 0..32 {
                    std::hint::spin_loop();
                }
            }
        }
        self.sleepers.fetch_add(1, SeqCst);
        while is_quiet() {
            futex::wait_until(&self.word, heard, u64::MAX);
        }
        self.sleepers.fetch_sub(1, SeqCst);
        self.word.load(SeqCst) & !STOPPED != heard
    }
}

struct Shared<W> {
    work: W,
    barrier: Barrier,
    /// Wakes worker 0.
    leader: Bell,
    /// Wakes all other workers.
    crew: Bell,
}

/// A group of threads with one piece of work at a time.
pub struct Team<W: Work> {
    shared: Arc<Shared<W>>,
    threads: Vec<JoinHandle<()>>,
    /// The process that the threads belong to.
    process: u64,
}

impl<W: Work> Team<W> {
    /// Starts `workers` threads, which block all signals.
    pub fn start(workers: usize, work: W) -> Result<Self> {
        let shared =
            Arc::new(Shared { work, barrier: Barrier::new(workers), leader: Bell::default(), crew: Bell::default() });
        let mut team = Team { shared, threads: Vec::with_capacity(workers), process: process::number() };
        for worker in 0..workers {
            let shared = team.shared.clone();
            let count = processors::WorkerCount::enter();
            let builder = std::thread::Builder::new().name(format!("si-worker-{worker}")).stack_size(STACK_BYTES);
            let body = move || {
                serve(&shared, worker);
                drop(shared);
                drop(count);
            };
            // Dropping `team` on failure stops those that have started.
            let thread = threads::start(builder, body)
                .map_err(|error| Error::io(Status::LimitReached, "no thread for a context", &error))?;
            team.threads.push(thread);
        }
        Ok(team)
    }

    /// What the team works on.
    pub fn work(&self) -> &W {
        &self.shared.work
    }

    /// Threads of the team.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Has the work done by the team. The work posted before is over.
    pub fn post(&self) {
        self.shared.ring_crew();
        self.shared.leader.ring();
    }

    /// Has the work done with this thread as worker 0, and returns when it is.
    pub fn work_along(&self) {
        self.shared.ring_crew();
        self.shared.work.lead(&self.shared.barrier);
    }

    /// Stops the threads once the work in hand is done. Waits for that only if `idle`.
    pub fn stop(&mut self, idle: bool) {
        self.shared.leader.stop();
        self.shared.crew.stop();
        let exist = self.process == process::number();
        for thread in self.threads.drain(..) {
            if !exist {
                // A forked child has none of the threads: neither waiting for one nor letting it go means anything.
                std::mem::forget(thread);
            } else if idle {
                // A worker catches its panics.
                let _ = thread.join();
            }
        }
    }
}

impl<W: Work> Drop for Team<W> {
    fn drop(&mut self) {
        self.stop(false);
    }
}

impl<W> Shared<W> {
    fn ring_crew(&self) {
        if self.barrier.members > 1 {
            self.crew.ring();
        }
    }
}

/// The life of one worker. Work that was posted before the stop is still done.
fn serve<W: Work>(shared: &Shared<W>, worker: usize) {
    let bell = if worker == 0 { &shared.leader } else { &shared.crew };
    let (mut heard, mut spin_ns) = (0u32, 0);
    while bell.await_ring(heard, spin_ns) {
        heard = heard.wrapping_add(2);
        if worker == 0 {
            shared.work.lead(&shared.barrier);
        } else {
            shared.work.follow(worker, &shared.barrier);
        }
        spin_ns = IDLE_SPIN_NS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds 1 per worker and meeting.
    struct Tally {
        rounds: u32,
        count: AtomicU32,
        finished: AtomicU32,
    }

    impl Tally {
        fn share(&self, barrier: &Barrier) {
            for round in 1..=self.rounds {
                self.count.fetch_add(1, SeqCst);
                let met = barrier.meet(|| {
                    assert_eq!(self.count.load(SeqCst), round * barrier.members() as u32);
                    false
                });
                assert!(!met);
            }
            self.finished.fetch_add(1, SeqCst);
        }
    }

    impl Work for Tally {
        fn lead(&self, barrier: &Barrier) {
            self.count.store(0, SeqCst);
            barrier.meet(|| false);
            self.share(barrier);
        }
        fn follow(&self, _worker: usize, barrier: &Barrier) {
            barrier.meet(|| false);
            self.share(barrier);
        }
    }

    #[test]
    fn all_workers_meet_at_every_barrier() {
        for workers in [1, 2, 5] {
            let tally = Tally { rounds: 200, count: AtomicU32::new(0), finished: AtomicU32::new(0) };
            let mut team = Team::start(workers, tally).unwrap();
            for turn in 1..=20 {
                if turn % 2 == 0 {
                    team.post()
                } else {
                    team.work_along()
                }
                while team.work().finished.load(SeqCst) < turn * workers as u32 {
                    std::thread::yield_now();
                }
            }
            team.stop(true);
        }
    }

    #[test]
    fn work_posted_before_the_stop_is_done() {
        for _ in 0..200 {
            let tally = Tally { rounds: 3, count: AtomicU32::new(0), finished: AtomicU32::new(0) };
            let mut team = Team::start(3, tally).unwrap();
            team.post();
            team.stop(true);
            assert_eq!(team.work().finished.load(SeqCst), 3);
        }
    }

    #[test]
    fn everyone_stops_where_the_last_to_arrive_says() {
        struct Halting(AtomicU32);
        impl Work for Halting {
            fn lead(&self, barrier: &Barrier) {
                self.follow(0, barrier);
            }
            fn follow(&self, _worker: usize, barrier: &Barrier) {
                let mut rounds = 0;
                while !barrier.meet(|| self.0.load(SeqCst) == 7) {
                    rounds += 1;
                    if rounds == 7 {
                        self.0.store(7, SeqCst);
                    }
                }
            }
        }
        let mut team = Team::start(4, Halting(AtomicU32::new(0))).unwrap();
        team.work_along();
        team.stop(true);
    }
}
