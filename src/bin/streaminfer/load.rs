//! Load on contexts, and the latency that it meets.

use crate::target::Loaded;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use streaminfer::error::{Error, Result};
use streaminfer::runtime::{Context, SubmitOptions};

/// Latencies above this are counted as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Before a start, the thread sleeps until so much earlier and spins for the rest: sleeping is late by about as much.
const SLEEP_EARLY: Duration = Duration::from_micros(80);
/// An open loop that cannot keep up stops after this many times its duration.
const OVERTIME: u32 = 2;

/// So many requests at once; whoever comes later waits for its turn.
pub struct Gate {
    turns: Mutex<Turns>,
}

struct Turns {
    free: usize,
    /// First come, first served.
    queue: VecDeque<Arc<Turn>>,
}

struct Turn {
    thread: Thread,
    has_come: AtomicBool,
}

/// The right to have a request in flight, given to the next in the queue when dropped.
pub struct Permit<'a>(&'a Gate);

impl Gate {
    /// For so many at once.
    pub fn new(permits: usize) -> Self {
        Gate { turns: Mutex::new(Turns { free: permits, queue: VecDeque::new() }) }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn.
    pub fn enter(&self) -> Permit<'_> {
        let turn = {
            let mut turns = self.turns();
            if turns.free > 0 {
                turns.free -= 1;
                return Permit(self);
            }
            let turn = Arc::new(Turn { thread: thread::current(), has_come: AtomicBool::new(false) });
            turns.queue.push_back(turn.clone());
            turn
        };
        while !turn.has_come.load(Acquire) {
            thread::park();
        }
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns();
        match turns.queue.pop_front() {
            Some(turn) => {
                turn.has_come.store(true, Release);
                turn.thread.unpark();
            }
            None => turns.free += 1,
        }
    }
}

/// What one thread makes requests on.
pub enum Lane<'a> {
    /// A context of its own, which it binds. On a GPU submit and wait are told apart; on the host the thread computes along.
    Bound { context: Box<Context>, is_gpu: bool },
    /// The context of all threads.
    Shared(&'a Mutex<Context>),
    /// A new context for each request.
    PerRequest(&'a Loaded),
}

impl Lane<'_> {
    /// Makes a request; answers what its submit took, where that is told apart.
    fn request(&mut self) -> Result<Option<Duration>> {
        match self {
            Lane::Bound { context, is_gpu: true } => {
                let start = Instant::now();
                let sequence = context.submit(&SubmitOptions::default())?;
                let took = start.elapsed();
                context.wait(sequence, u64::MAX).map(|_| Some(took))
            }
            Lane::Bound { context, .. } => context.run().map(|()| None),
            Lane::Shared(context) => context.lock().unwrap_or_else(PoisonError::into_inner).run().map(|()| None),
            Lane::PerRequest(loaded) => loaded.context()?.run().map(|()| None),
        }
    }

    fn bind(&mut self) -> Result<()> {
        match self {
            Lane::Bound { context, .. } => context.bind(),
            _ => Ok(()),
        }
    }

    fn unbind(&mut self) -> Result<()> {
        match self {
            Lane::Bound { context, .. } => context.unbind(),
            _ => Ok(()),
        }
    }
}

/// When requests start and when it is enough.
pub struct Schedule {
    start: Instant,
    /// How long to go on.
    time: Option<Duration>,
    /// How many requests are left to start.
    left: AtomicU64,
    arrivals: Option<Mutex<Arrivals>>,
}

/// A Poisson process.
struct Arrivals {
    next: Duration,
    rate: f64,
    random: Xoshiro256PlusPlus,
}

impl Arrivals {
    /// When the next request should start, counted from the beginning.
    fn next(&mut self) -> Duration {
        let at = self.next;
        let uniform: f64 = self.random.random();
        self.next += Duration::from_secs_f64(-(1.0 - uniform).ln() / self.rate);
        at
    }
}

impl Schedule {
    /// From now on, for `time` or `requests`; at random with `rate` requests per second, or as fast as they end.
    pub fn new(time: Option<Duration>, requests: Option<u64>, rate: Option<f64>, seed: u64) -> Self {
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let arrivals = rate.map(|rate| Mutex::new(Arrivals { next: Duration::ZERO, rate, random }));
        Schedule { start: Instant::now(), time, left: AtomicU64::new(requests.unwrap_or(u64::MAX)), arrivals }
    }

    /// Waits for the next start and gives the moment that it was meant for; `None` when it is enough.
    fn next(&self) -> Option<Instant> {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok()?;
        let Some(arrivals) = &self.arrivals else {
            let now = Instant::now();
            return self.time.is_none_or(|time| now - self.start < time).then_some(now);
        };
        let at = arrivals.lock().unwrap_or_else(PoisonError::into_inner).next();
        let late = self.time.is_some_and(|time| at >= time || self.start.elapsed() >= time * OVERTIME);
        if late {
            return None;
        }
        let at = self.start + at;
        if let Some(wait) = at.checked_duration_since(Instant::now() + SLEEP_EARLY) {
            thread::sleep(wait);
        }
        while Instant::now() < at {
            std::hint::spin_loop();
        }
        Some(at)
    }
}

/// What was measured.
pub struct Tally {
    /// Nanoseconds from the intended start to the end, of requests that succeeded.
    pub latencies: Histogram<u64>,
    /// Nanoseconds that submits took, where they are told apart.
    pub submits: Histogram<u64>,
    /// Requests that failed.
    pub errors: u64,
    /// How the first of them failed.
    pub first_error: Option<Error>,
    /// From the start to the end of the last request.
    pub elapsed: Duration,
}

impl Tally {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are good");
        Tally { latencies: histogram(), submits: histogram(), errors: 0, first_error: None, elapsed: Duration::ZERO }
    }

    fn add(&mut self, other: Tally) {
        self.latencies.add(other.latencies).expect("equal bounds");
        self.submits.add(other.submits).expect("equal bounds");
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

/// Makes requests on every lane, one thread each, as the schedule says.
pub fn measure(lanes: &mut [Lane<'_>], schedule: &Schedule, gate: Option<&Gate>) -> Result<Tally> {
    let done = AtomicU64::new(0);
    let mut tally = Tally::new();
    thread::scope(|scope| {
        let work = |lane| scope.spawn(|| drive(lane, schedule, gate, &done));
        let workers: Vec<_> = lanes.iter_mut().map(work).collect();
        let bar = progress_bar(schedule);
        while !bar.is_hidden() && !workers.iter().all(|worker| worker.is_finished()) {
            bar.set_position(if schedule.time.is_some() {
                schedule.start.elapsed().as_millis() as u64
            } else {
                done.load(Relaxed)
            });
            bar.set_message(format!("{} requests", done.load(Relaxed)));
            thread::sleep(Duration::from_millis(50));
        }
        bar.finish_and_clear();
        for worker in workers {
            tally.add(worker.join().expect("a worker does not panic")?);
        }
        Ok(tally)
    })
}

fn drive(lane: &mut Lane<'_>, schedule: &Schedule, gate: Option<&Gate>, done: &AtomicU64) -> Result<Tally> {
    lane.bind()?;
    let mut tally = Tally::new();
    while let Some(start) = schedule.next() {
        let permit = gate.map(Gate::enter);
        let ended = lane.request();
        drop(permit);
        match ended {
            Ok(submit) => {
                tally.latencies.saturating_record(start.elapsed().as_nanos() as u64);
                submit.into_iter().for_each(|took| tally.submits.saturating_record(took.as_nanos() as u64));
            }
            Err(error) => {
                tally.errors += 1;
                tally.first_error.get_or_insert(error);
            }
        }
        tally.elapsed = schedule.start.elapsed();
        done.fetch_add(1, Relaxed);
    }
    lane.unbind()?;
    Ok(tally)
}

/// Shown on standard error if that is a terminal.
fn progress_bar(schedule: &Schedule) -> ProgressBar {
    let length = match schedule.time {
        Some(time) => time.as_millis() as u64,
        None => schedule.left.load(Relaxed),
    };
    let style = ProgressStyle::with_template("{wide_bar} {msg}").expect("the template is good");
    ProgressBar::new(length).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_asked_for() {
        let random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut arrivals = Arrivals { next: Duration::ZERO, rate: 1000.0, random };
        let times: Vec<Duration> = (0..20_000).map(|_| arrivals.next()).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 1000.0 - 1.0).abs() < 0.05, "mean gap {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "a Poisson process has gaps as varied as they are long");
    }

    #[test]
    fn a_gate_lets_so_many_in_at_once_and_everybody_in_the_end() {
        let (gate, inside, most) = (Gate::new(3), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _permit = gate.enter();
                        most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                        thread::yield_now();
                        inside.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Relaxed)), "{most:?} at once");
        assert_eq!(gate.turns().free, 3);
    }

    #[test]
    fn a_schedule_of_requests_gives_exactly_so_many_starts() {
        for rate in [None, Some(1e6)] {
            let schedule = Schedule::new(None, Some(5), rate, 1);
            assert_eq!((0..9).filter(|_| schedule.next().is_some()).count(), 5);
        }
        let over = Schedule::new(Some(Duration::from_nanos(1)), None, None, 1);
        assert!(over.next().is_none());
    }
}
