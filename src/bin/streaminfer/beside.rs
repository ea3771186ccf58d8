//! What goes on beside the requests that are measured: a neighbour's storm, or loads of models and buckets.

use crate::args::Disturbance;
use crate::load::Gate;
use crate::target::Loaded;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use streaminfer::error::{Error, Result};
use streaminfer::runtime::{Bucket, Context, Model};

/// Buckets that a model is given before a fresh copy of it gets some: there is a limit.
const BUCKETS: usize = 100;

/// What threads that go on until they are told to end share.
#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    done: AtomicU64,
    failure: Mutex<Option<Error>>,
}

/// Threads that do the same thing over and over.
pub struct Beside {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// When the count began, and what had been done by then.
    since: (Instant, u64),
}

impl Beside {
    fn start<F: FnMut() -> Result<()> + Send + 'static>(works: impl IntoIterator<Item = F>) -> Beside {
        let shared = Arc::<Shared>::default();
        let start = |mut work: F| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                while !shared.is_over.load(SeqCst) {
                    if let Err(error) = work() {
                        shared.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                    shared.done.fetch_add(1, Relaxed);
                }
            })
        };
        let threads = works.into_iter().map(start).collect();
        Beside { shared, threads, since: (Instant::now(), 0) }
    }

    /// One context a thread, each of which makes its next request when the last is done.
    pub fn storm(contexts: Vec<Context>, gate: Option<&Arc<Gate>>) -> Beside {
        let request = |mut context: Context| {
            let gate = gate.cloned();
            move || {
                let _permit = gate.as_deref().map(Gate::enter);
                context.run()
            }
        };
        Beside::start(contexts.into_iter().map(request))
    }

    /// Loads the model again with `load`, or adds buckets to it, one after the other.
    pub fn disturb(kind: Disturbance, measured: &Loaded, load: impl Fn() -> Result<Loaded> + Send + 'static) -> Beside {
        let mut model = measured.model.clone();
        let first = measured.feed.bucket(model.inputs());
        let mut extra = 0;
        Beside::start([move || match kind {
            // A context with it: nobody loads a model to have none.
            Disturbance::Load => load()?.context().map(drop),
            Disturbance::Bucket => {
                extra += 1;
                if extra > BUCKETS {
                    (model, extra) = (load()?.model, 1);
                }
                add_bucket(&model, &first, extra)
            }
        }])
    }

    /// Waits until it has been done once. What cannot be done is an error.
    pub fn begun(&self) -> Result<()> {
        while self.shared.done.load(Relaxed) == 0 && self.threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }

    /// Counts from now on.
    pub fn count(&mut self) {
        self.since = (Instant::now(), self.shared.done.load(Relaxed));
    }

    /// Ends it. Answers how often it was done since the count began, how often a second, and what went wrong.
    pub fn end(mut self) -> (u64, f64, Option<Error>) {
        let (start, before) = self.since;
        let count = self.shared.done.load(Relaxed) - before;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        self.stop();
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        (count, rate, failure)
    }

    fn stop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("it does not panic");
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Adds the bucket whose outermost extents are those of `first` and `extra` more.
fn add_bucket(model: &Model, first: &Bucket, extra: usize) -> Result<()> {
    let mut bucket = first.clone();
    for outermost in bucket.shapes.iter_mut().filter_map(|shape| shape.first_mut()) {
        *outermost += extra;
    }
    let added = model.add_bucket(&bucket);
    added.map_err(|error| error.within("--disturb bucket changes the outermost extent of every input"))
}
