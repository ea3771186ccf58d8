//! The one thread of an opened GPU. It sleeps while nobody does; while somebody sleeps until a request ends, or a completion is
//! promised, it looks at the records instead of them. Ten times a second, while requests are in flight, it asks the driver
//! whether the GPU still works; no other thread calls the driver while requests are in flight.

use super::gpu::{Current, Gpu};
use super::sys::{CuResult, NOT_READY, SUCCESS, UNKNOWN};
use crate::device::host::{clock, futex, numa, threads};
use crate::device::progress::Watcher;
use crate::device::{DeviceState, Outcome, Progress, Sink, Stamps};
use crate::error::{Error, Result, Status};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often the driver is asked whether the GPU works.
const WATCHDOG_NS: u64 = 100_000_000;
/// The first pause between two looks at the records.
const PAUSE_NS_MIN: u64 = 2_000;
/// The longest pause between two looks while somebody sleeps.
const PAUSE_NS_MAX: u64 = 50_000;
/// How many times in a row the driver has to answer the watchdog with an error until the GPU is given up, if the error is not fatal in
/// itself: it is not said which errors stay, and who waits is to be told.
const STRIKES: u32 = 3;
/// Answers while another thread of the process captures a graph, which say nothing about the GPU.
const CAPTURING: std::ops::Range<CuResult> = 900..910;

/// A lane as others see it: what has been launched, and who is to be told of the end.
pub struct Station {
    progress: Arc<Progress>,
    sink: Arc<dyn Sink>,
    stream: usize,
    /// Ordinal and number of the last request launched.
    launched: AtomicU64,
    sequence: AtomicU32,
    launched_ns: AtomicU64,
    /// Whether the driver has not answered yet to the launch of that request, which it may still refuse.
    launching: AtomicBool,
    /// Ordinal of the last request that somebody has begun to tell the sink of.
    claimed: AtomicU64,
    /// Ordinal of the last request that the sink has been told of.
    settled: AtomicU64,
    /// Whether waits are in the stream for which the driver has refused the launch: they are nobody's request, and end when the stream does.
    straggles: AtomicBool,
}

/// The sink has been told of this request, or the telling has panicked: nobody tells it again, or waits for that.
struct Told<'a> {
    station: &'a Station,
    ordinal: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.station.settled.store(self.ordinal, SeqCst);
        self.station.progress.wake();
    }
}

impl Station {
    /// The station of a lane with this stream.
    pub fn new(progress: Arc<Progress>, sink: Arc<dyn Sink>, stream: usize) -> Self {
        Station {
            progress,
            sink,
            stream,
            launched: AtomicU64::new(0),
            sequence: AtomicU32::new(0),
            launched_ns: AtomicU64::new(0),
            launching: AtomicBool::new(false),
            claimed: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            straggles: AtomicBool::new(false),
        }
    }

    /// A request is about to be launched; the one before has been settled.
    pub fn begin(&self, ordinal: u64, sequence: u32, now_ns: u64) {
        self.sequence.store(sequence, Relaxed);
        self.launched_ns.store(now_ns, Relaxed);
        self.launching.store(true, SeqCst);
        self.launched.store(ordinal, SeqCst);
    }

    /// The driver has answered to the launch; a refused one is as if it had never been.
    pub fn answered(&self, ordinal: u64, is_refused: bool) {
        if is_refused {
            self.launched.store(ordinal - 1, SeqCst);
        }
        self.launching.store(false, SeqCst);
    }

    /// Whether the last request has ended, by the record alone.
    pub fn is_quiet(&self) -> bool {
        self.progress.has_reached(self.launched.load(SeqCst))
    }

    /// Tells the sink of the last request if it has ended. Answers whether nothing is in flight and all has been told.
    pub fn settle(&self) -> bool {
        let ordinal = self.launched.load(SeqCst);
        if self.settled.load(SeqCst) >= ordinal {
            return true;
        }
        if !self.progress.has_reached(ordinal) {
            return false;
        }
        // Ordinals are claimed one after the other, so that a thread that was held up here finds that it came too late.
        if self.claimed.compare_exchange(ordinal - 1, ordinal, SeqCst, SeqCst).is_err() {
            // Another thread tells it at this moment.
            while self.settled.load(SeqCst) < ordinal {
                std::hint::spin_loop();
            }
            return true;
        }
        let _told = Told { station: self, ordinal };
        let status = self.progress.status_of(self.sequence.load(Relaxed));
        self.sink.ending(status);
        self.sink.ended(ordinal, status);
        true
    }

    /// The lane is dropped with waits in its stream that no request has followed.
    pub fn straggle(&self) {
        self.straggles.store(true, SeqCst);
    }

    /// As [`Station::settle`]; and no wait is left in the stream.
    fn is_over(&self) -> bool {
        self.settle() && !self.straggles.load(SeqCst)
    }

    /// The same for who may have read the record himself: what he has seen there is not missed for being written in two parts, the second
    /// of which is on its way.
    fn settle_seen(&self) {
        const LOOKS: usize = 1 << 12;
        if !self.is_quiet() && self.progress.is_seen(self.sequence.load(Relaxed)) {
            (0..LOOKS).take_while(|_| !self.is_quiet()).for_each(|_| std::hint::spin_loop());
        }
        self.settle();
    }

    /// Ends the request in flight because its GPU is lost. One that the driver may still refuse is not, or it would be told of twice; the
    /// thread comes again.
    fn lose(&self) {
        let ordinal = self.launched.load(SeqCst);
        // A refusal takes the ordinal back before it says that it has answered.
        if self.launching.load(SeqCst) || self.launched.load(SeqCst) != ordinal {
            return;
        }
        if !self.progress.has_reached(ordinal) {
            let now = clock::monotonic_ns();
            let start_ns = self.launched_ns.load(Relaxed);
            let stamps = Stamps { start_ns, inputs_ns: start_ns, compute_ns: now, done_ns: now };
            let sequence = self.sequence.load(Relaxed);
            self.progress.end(&Outcome { sequence, ordinal, status: Status::DeviceLost, stamps });
        }
    }
}

/// What is dropped once its lane is quiet.
pub type Remains = (Arc<Station>, Box<dyn Send>);

/// What the thread shares with the lanes.
pub struct Watch {
    gpu: Arc<Gpu>,
    stations: Mutex<Vec<Arc<Station>>>,
    remains: Mutex<Vec<Remains>>,
    /// Changes when the thread is to look; the word that it sleeps on.
    signal: AtomicU32,
    /// Whether the thread looks already.
    awake: AtomicBool,
    /// Whether the thread may sleep without end, because it has seen nothing in flight.
    dormant: AtomicBool,
    stopped: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher for Watch {
    fn watch(&self) {
        self.signal.fetch_add(1, SeqCst);
        if !self.awake.load(SeqCst) {
            futex::wake_all(&self.signal);
        }
    }
}

impl Watch {
    /// Looks after one more lane.
    pub fn enter(&self, station: Arc<Station>) {
        locked(&self.stations).push(station);
        self.watch();
    }

    /// A request has been launched: somebody must ask from time to time whether its GPU still works, also for waiters that spin.
    pub fn launched(&self) {
        if self.dormant.load(SeqCst) {
            self.watch();
        }
    }

    /// A lane is dropped: what it leaves goes now if it is quiet, else when it is.
    pub fn leave(&self, station: &Arc<Station>, remains: Box<dyn Send>) {
        if station.is_over() {
            locked(&self.stations).retain(|other| !Arc::ptr_eq(other, station));
            drop(remains);
        } else {
            locked(&self.remains).push((station.clone(), remains));
            self.watch();
        }
    }

    /// Settles every lane, and leaves what is over to the thread.
    pub fn settle_stations(&self) {
        locked(&self.stations).iter().for_each(|station| station.settle_seen());
    }

    /// Settles every lane. Answers whether a request is in flight, and whether somebody waits without looking himself.
    pub fn settle(&self) -> (bool, bool) {
        let (mut flying, mut waited_for) = (false, false);
        for station in locked(&self.stations).iter().filter(|station| !station.settle()) {
            flying = true;
            waited_for |= station.progress.has_sleepers() || station.sink.is_awaited();
        }
        let mut over = Vec::new();
        {
            let mut remains = locked(&self.remains);
            let mut index = 0;
            while index < remains.len() {
                if remains[index].0.is_over() { over.push(remains.swap_remove(index)) } else { index += 1 }
            }
            flying |= !remains.is_empty();
            waited_for |= !remains.is_empty();
        }
        // Without a lock, for this calls the driver.
        for (station, remains) in over {
            locked(&self.stations).retain(|other| !Arc::ptr_eq(other, &station));
            drop(remains);
        }
        (flying, waited_for)
    }

    /// Asks the driver for every lane that is late whether the GPU still works, and for every lane that has nothing but waits whether
    /// they are over. Answers the first error.
    fn guard(&self, current: &Current<'_>) -> CuResult {
        // The lock is held: a lane that leaves takes its station out before its stream goes.
        let stations = locked(&self.stations);
        let now = clock::monotonic_ns();
        let late = |station: &&Arc<Station>| {
            let is_late = !station.is_quiet() && now.saturating_sub(station.launched_ns.load(Relaxed)) > WATCHDOG_NS;
            is_late || station.straggles.load(SeqCst)
        };
        for station in stations.iter().filter(late) {
            // The driver is left alone once the GPU is lost, which any thread may find.
            if self.gpu.state() == DeviceState::Dead {
                break;
            }
            // SAFETY: the stream lives as long as its station is in the list.
            let code = unsafe { current.table().stream_query(station.stream as *mut _) };
            match code {
                SUCCESS => station.straggles.store(false, SeqCst),
                NOT_READY => {}
                code if CAPTURING.contains(&code) => break,
                code => {
                    let _ = current.check(code, "cuStreamQuery");
                    return code;
                }
            }
        }
        SUCCESS
    }

    fn lose_all(&self) {
        let stations = locked(&self.stations).clone();
        for station in &stations {
            station.lose();
            station.straggles.store(false, SeqCst);
        }
    }

    fn run(&self) {
        let (mut current, mut strikes) = (None, 0);
        let mut pause_ns = PAUSE_NS_MIN;
        let mut guarded_ns = clock::monotonic_ns();
        loop {
            let seen = self.signal.load(SeqCst);
            self.awake.store(true, SeqCst);
            // Before the look: a launch that the look does not see sees this.
            self.dormant.store(true, SeqCst);
            // Who is told may panic, which is no reason not to tell the others.
            let (flying, waited_for) = catch_unwind(AssertUnwindSafe(|| self.settle())).unwrap_or((true, true));
            self.dormant.store(!flying, SeqCst);
            if self.stopped.load(SeqCst) && !flying {
                return;
            }
            let now = clock::monotonic_ns();
            if flying && now.saturating_sub(guarded_ns) >= WATCHDOG_NS {
                guarded_ns = now;
                if current.is_none() {
                    current = self.gpu.enter().ok();
                }
                let code = current.as_ref().map_or(UNKNOWN, |current| self.guard(current));
                self.gpu.fault.suspect(code);
                strikes = if code == SUCCESS { 0 } else { strikes + 1 };
                if strikes == STRIKES {
                    self.gpu.fault.lose(code);
                }
            }
            if flying && self.gpu.state() == DeviceState::Dead {
                self.lose_all();
                // What the driver has not answered to is lost the next time.
                futex::wait_until(&self.signal, seen, now + PAUSE_NS_MIN);
                continue;
            }
            let until_ns = match (flying, waited_for) {
                (_, true) => {
                    pause_ns = (pause_ns * 2).min(PAUSE_NS_MAX);
                    now + pause_ns
                }
                (true, false) => guarded_ns.max(now.saturating_sub(WATCHDOG_NS)) + WATCHDOG_NS,
                (false, false) => {
                    guarded_ns = now;
                    u64::MAX
                }
            };
            if !waited_for {
                pause_ns = PAUSE_NS_MIN;
                self.awake.store(false, SeqCst);
            }
            futex::wait_until(&self.signal, seen, until_ns);
        }
    }
}

/// The thread. Dropping it stops it once nothing is in flight.
pub struct Reactor {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

impl Reactor {
    /// Starts the thread.
    pub fn start(gpu: &Arc<Gpu>) -> Result<Self> {
        let watch = Arc::new(Watch {
            gpu: gpu.clone(),
            stations: Mutex::default(),
            remains: Mutex::default(),
            signal: AtomicU32::new(0),
            awake: AtomicBool::new(false),
            dormant: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
        });
        gpu.enter_watch(&watch);
        let (shared, node) = (watch.clone(), gpu.identity().node.clone());
        let body = move || {
            // The records that it reads lie there.
            if let Some(node) = node {
                numa::run_on(&node);
            }
            // Sleeps of microseconds are to last microseconds.
            clock::sharpen_sleeps();
            shared.run();
        };
        let builder = std::thread::Builder::new().name("si-reactor".into());
        let thread = threads::start(builder, body);
        let thread = thread.map_err(|error| Error::io(Status::LimitReached, "no thread for the reactor", &error))?;
        Ok(Reactor { watch, thread: Some(thread) })
    }

    /// What it shares with lanes.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.watch.stopped.store(true, SeqCst);
        self.watch.watch();
        let is_self = self.thread.as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id());
        if let Some(thread) = self.thread.take()
            && !is_self
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts who is told.
    #[derive(Default)]
    struct Listener {
        told: AtomicU32,
        panics: bool,
    }

    impl Sink for Listener {
        fn ending(&self, _: Status) {}

        fn ended(&self, _: u64, _: Status) {
            self.told.fetch_add(1, SeqCst);
            assert!(!self.panics, "a sink that panics");
        }

        fn is_awaited(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_request_that_the_driver_may_still_refuse_is_not_lost_with_its_gpu() {
        let listener = Arc::new(Listener::default());
        let told = || listener.told.load(SeqCst);
        let station = Station::new(Arc::default(), listener.clone(), 0);
        station.begin(1, 1, 5);
        station.lose();
        assert!(!station.settle(), "the driver has not answered");
        station.answered(1, true);
        station.lose();
        assert!(station.settle() && told() == 0, "the caller knows of the refusal, nobody else is told");
        station.begin(1, 1, 6);
        station.answered(1, false);
        station.lose();
        assert!(station.settle() && station.settle() && told() == 1, "a launched one is told of once");
        assert_eq!(station.progress.status_of(1), Status::DeviceLost);
    }
    #[test]
    fn a_sink_that_panics_is_told_once_and_holds_nobody_up() {
        let listener = Arc::new(Listener { panics: true, ..Listener::default() });
        let station = Station::new(Arc::default(), listener.clone(), 0);
        station.begin(1, 1, 5);
        station.answered(1, false);
        station.lose();
        assert!(catch_unwind(AssertUnwindSafe(|| station.settle())).is_err());
        assert!(station.settle() && station.is_over() && listener.told.load(SeqCst) == 1);
        station.begin(2, 2, 6);
        assert!(!station.settle(), "the next request is like any other");
    }
}
