//! Contexts: one lane of a model, one request in flight, one thread at a time.
//!
//! `setup.rs` brings a context to `prepare`, `attach.rs` puts its inputs and outputs into memory of the host program's, `stage.rs` is
//! what it has from then on, `flight.rs` its requests, `batch.rs` what a batcher does with it.

mod attach;
mod batch;
mod flight;
mod setup;
mod stage;

use super::bucket::Bucket;
use super::engine::EngineCore;
use super::ledger::Account;
use super::link::{Link, Readers};
use super::model::{ModelCore, Prepared};
use super::owner::{self, Thread};
use super::request::Request;
use super::view::View;
use super::wait::WaitPolicy;
use crate::device::host::memory::Plain;
use crate::device::{MARKS_MAX, Mark, Priority, Stamps};
use crate::error::{Error, Result, Status, ensure, fail};
use crate::limits::CONTEXT_THREADS_MAX;
use attach::Attached;
use once_cell::sync::OnceCell;
pub use stage::Listener;
use stage::{LaneSink, Stage};
use std::sync::Arc;

/// How a context is made.
#[derive(Clone, Debug, Default)]
pub struct ContextOptions {
    /// Host threads to compute with; 0: the engine's default.
    pub threads: usize,
    /// What a waiting thread does.
    pub wait: WaitPolicy,
    /// Before whose work a GPU begins this context's; nothing on the host device.
    pub priority: Priority,
    /// The model's buckets to prepare; none: all that it has when the context is prepared.
    pub buckets: Vec<Bucket>,
}

/// One request.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmitOptions {
    /// Comes back in the completion.
    pub token: u64,
    /// A request that has not started by then ends with `Expired`; `CLOCK_MONOTONIC` nanoseconds, 0: none.
    pub deadline_ns: u64,
}

/// Where the time of a request went, `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// The request.
    pub sequence: u32,
    /// When it was submitted.
    pub submit_ns: u64,
    /// What its device did when.
    pub stamps: Stamps,
}

/// Gives a context's requests up from any thread.
#[derive(Clone)]
pub struct Controller {
    request: Arc<Request>,
}

impl Controller {
    /// Gives a request up: whoever waits for it gets `Cancelled` at once, and the context drains. Answers `TooLate` if it has
    /// ended or was given up before.
    ///
    /// # Errors
    /// `InvalidArgument` for a request that was never submitted.
    pub fn cancel(&self, sequence: u32) -> Result<Status> {
        self.request.cancel(sequence)
    }

    /// Gives up whatever is in flight.
    pub fn abandon(&self) {
        self.request.abandon_last();
    }
}

/// One lane of a model: its own stream, its own inputs and outputs, one request in flight. Dropping it cancels a request in
/// flight and returns at once; memory and threads go when the device is done.
pub struct Context {
    stage: Option<Stage>,
    model: Arc<ModelCore>,
    request: Arc<Request>,
    sink: Arc<LaneSink>,
    readers: Arc<Readers>,
    links: Vec<Link>,
    attached: Vec<Attached>,
    /// What the next request waits for.
    marks: Vec<Mark>,
    owner: Option<Arc<Thread>>,
    threads: usize,
    policy: WaitPolicy,
    priority: Priority,
    wanted: Vec<Arc<Prepared>>,
}

impl Context {
    /// A context whose ends `listener` hears of, too.
    pub(super) fn new(
        model: &Arc<ModelCore>,
        options: &ContextOptions,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Context> {
        let engine = &model.engine;
        engine.ensure_alive()?;
        let threads = if options.threads == 0 { engine.threads } else { options.threads };
        ensure!(threads <= CONTEXT_THREADS_MAX, InvalidArgument, "{threads} threads are above {CONTEXT_THREADS_MAX}");
        let wanted =
            options.buckets.iter().map(|bucket| model.find(&bucket.resolve(&model.inputs)?)).collect::<Result<_>>()?;
        let progress = engine.device.progress()?;
        let request = Request::new(engine.context_id(), progress, engine.queue.clone(), engine.seats(1)?);
        let sink = LaneSink {
            request: request.clone(),
            model: model.clone(),
            listener,
            _context: engine.ledger.enter(Account::Contexts, 1)?,
            takings: OnceCell::new(),
        };
        Ok(Context {
            stage: None,
            model: model.clone(),
            request,
            sink: Arc::new(sink),
            readers: Arc::default(),
            links: Vec::new(),
            attached: Vec::new(),
            marks: Vec::with_capacity(MARKS_MAX),
            owner: None,
            threads,
            policy: options.wait,
            priority: options.priority,
            wanted,
        })
    }

    /// What completions name this context.
    pub fn id(&self) -> u64 {
        self.request.context()
    }

    /// Makes completions name this context otherwise.
    pub fn set_id(&mut self, id: u64) {
        self.request.rename(id);
    }

    /// Cancels this context's requests from any thread.
    pub fn controller(&self) -> Controller {
        Controller { request: self.request.clone() }
    }

    pub(super) fn engine(&self) -> &Arc<EngineCore> {
        &self.model.engine
    }

    /// Whether the calling thread may use the context now.
    #[inline]
    fn check(&self) -> Result<()> {
        match &self.owner {
            Some(owner) if !owner.is_current() && owner.is_alive() => Err(bound_elsewhere()),
            _ => self.engine().ensure_alive(),
        }
    }

    #[inline]
    fn stage(&self) -> Result<&Stage> {
        self.check()?;
        self.stage.as_ref().ok_or_else(unprepared)
    }

    fn stage_mut(&mut self) -> Result<&mut Stage> {
        self.check()?;
        self.stage.as_mut().ok_or_else(unprepared)
    }

    /// Makes the calling thread the owner.
    ///
    /// # Errors
    /// `WrongState` if it is already, `WrongThread` if another is.
    pub fn bind(&mut self) -> Result<()> {
        self.check()?;
        let is_ours = self.owner.as_ref().is_some_and(|owner| owner.is_current());
        ensure!(!is_ours, WrongState, "the context is bound to this thread already");
        let thread = owner::current().ok_or_else(|| fail!(WrongState, "a thread that ends can bind nothing"))?;
        self.owner = Some(thread);
        Ok(())
    }

    /// Gives the context up: any one thread at a time may use it.
    ///
    /// # Errors
    /// `WrongState` if it is not bound, `WrongThread`.
    pub fn unbind(&mut self) -> Result<()> {
        self.check()?;
        let owner = self.owner.take();
        ensure!(owner.is_some_and(|owner| owner.is_alive()), WrongState, "the context is not bound");
        Ok(())
    }

    /// Selects the prepared bucket for the next request: exactly these shapes or, along paddable axes, the smallest bucket
    /// that holds them, whose rest is filled once here. Contents of inputs and outputs are undefined afterwards.
    ///
    /// # Errors
    /// `NoBucket`, `ShapeMismatch`, `InFlight`, `Draining`, `WrongState`.
    pub fn select(&mut self, bucket: &Bucket) -> Result<()> {
        let model = self.model.clone();
        self.stage()?;
        self.request.ensure_idle()?;
        self.stage_mut()?.choose(&bucket.resolve(&model.inputs)?, &model)
    }

    /// Where an input lies. The host writes there while nothing is in flight.
    ///
    /// # Errors
    /// `InvalidArgument` for the index, `WrongState` before prepare or for a linked input, `Draining`.
    pub fn input_view(&self, index: usize) -> Result<View<'_>> {
        let stage = self.stage()?;
        self.request.ensure_settled()?;
        stage.input_view(index)
    }

    /// Where an output lies. The host reads there after a request has ended with `Ok` and before the next submit.
    ///
    /// # Errors
    /// `InvalidArgument` for the index, `WrongState` before prepare, `Draining`.
    pub fn output_view(&self, index: usize) -> Result<View<'_>> {
        let stage = self.stage()?;
        self.request.ensure_settled()?;
        stage.output_view(index)
    }

    /// An input's elements in the bucket's shape, row-major, to be written in place. Look at truth values as `u8`. Elements
    /// beyond a padded request's shape have been filled: leave them alone.
    ///
    /// # Errors
    /// Those of [`Context::input_view`], `ShapeMismatch` for another element type, `InFlight`.
    pub fn input_mut<T: Plain>(&mut self, index: usize) -> Result<&mut [T]> {
        self.stage_mut()?.input_mut(index)
    }

    /// An output's elements in the bucket's shape, row-major, where the request put them. Look at truth values as `u8`.
    /// Elements beyond a padded request's shape mean nothing.
    ///
    /// # Errors
    /// Those of [`Context::output_view`], `ShapeMismatch` for another element type, `InFlight`.
    pub fn output<T: Plain>(&self, index: usize) -> Result<&[T]> {
        self.stage()?.output(index)
    }
}

// Out of line, so that `poll` and `submit` are short enough to be part of their exports.

#[cold]
#[inline(never)]
fn bound_elsewhere() -> Error {
    fail!(WrongThread, "the context is bound to another thread")
}

#[cold]
#[inline(never)]
fn unprepared() -> Error {
    fail!(WrongState, "the context is not prepared")
}

impl Drop for Context {
    fn drop(&mut self) {
        self.request.abandon_last();
    }
}
