//! Contexts: one lane of a model, one request in flight, one thread at a time.

use super::bucket::Bucket;
use super::engine::EngineCore;
use super::ledger::{Account, Entry};
use super::link::{self, Link, Readers, Upstream};
use super::model::{ModelCore, Prepared, describe};
use super::owner::{self, Thread};
use super::request::{Request, sequence_of};
use super::view::View;
use super::wait::{self, SpinBudget, WaitPolicy};
use crate::device::host::clock;
use crate::device::host::memory::{Plain, elements, elements_mut};
use crate::device::{InputSource, Lane, LaneOrder, Launch, MARKS_MAX, Mark, Sink, Stamps};
use crate::error::{Error, Result, Status, ensure, fail};
use crate::ir::{DType, TensorType};
use crate::limits::{CONTEXT_THREADS_MAX, EVENT_WAITS_MAX, LINKS_MAX};
use std::sync::{Arc, OnceLock, PoisonError};

/// How a context is made.
#[derive(Clone, Debug, Default)]
pub struct ContextOptions {
    /// Host threads to compute with; 0: the engine's default.
    pub threads: usize,
    /// What a waiting thread does.
    pub wait: WaitPolicy,
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

/// What a lane tells when a request ends, and what it keeps alive: dropped when the last worker has left.
struct LaneSink {
    request: Arc<Request>,
    model: Arc<ModelCore>,
    _context: Entry,
    memory: OnceLock<[Entry; 3]>,
}

impl Sink for LaneSink {
    fn ending(&self, status: Status) {
        self.model.engine.request_ended(status != Status::Ok);
    }

    fn ended(&self, ordinal: u64, status: Status) {
        self.request.deliver(ordinal, status);
    }
}

/// What exists from `prepare` on.
struct Stage {
    lane: Box<dyn Lane>,
    buckets: Vec<Arc<Prepared>>,
    selected: usize,
    spin: SpinBudget,
}

impl Stage {
    fn bucket(&self) -> &Prepared {
        &self.buckets[self.selected]
    }
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
    /// What the next request waits for.
    marks: Vec<Mark>,
    owner: Option<Arc<Thread>>,
    threads: usize,
    policy: WaitPolicy,
    wanted: Vec<Arc<Prepared>>,
}

impl Context {
    pub(super) fn new(model: &Arc<ModelCore>, options: &ContextOptions) -> Result<Context> {
        let engine = &model.engine;
        engine.ensure_alive()?;
        let threads = if options.threads == 0 { engine.threads } else { options.threads };
        ensure!(threads <= CONTEXT_THREADS_MAX, InvalidArgument, "{threads} threads are above {CONTEXT_THREADS_MAX}");
        let wanted =
            options.buckets.iter().map(|bucket| model.find(&bucket.resolve(&model.inputs)?)).collect::<Result<_>>()?;
        let request = Request::new(engine.context_id(), engine.queue.clone(), engine.seat()?);
        let sink = LaneSink {
            request: request.clone(),
            model: model.clone(),
            _context: engine.ledger.enter(Account::Contexts, 1)?,
            memory: OnceLock::new(),
        };
        Ok(Context {
            stage: None,
            model: model.clone(),
            request,
            sink: Arc::new(sink),
            readers: Arc::default(),
            links: Vec::new(),
            marks: Vec::with_capacity(MARKS_MAX),
            owner: None,
            threads,
            policy: options.wait,
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
    fn check(&self) -> Result<()> {
        if let Some(owner) = &self.owner {
            ensure!(owner.is_current() || !owner.is_alive(), WrongThread, "the context is bound to another thread");
        }
        self.engine().ensure_alive()
    }

    fn stage(&self) -> Result<&Stage> {
        self.check()?;
        self.stage.as_ref().ok_or_else(|| fail!(WrongState, "the context is not prepared"))
    }

    fn stage_mut(&mut self) -> Result<&mut Stage> {
        self.check()?;
        self.stage.as_mut().ok_or_else(|| fail!(WrongState, "the context is not prepared"))
    }

    fn ensure_new(&self) -> Result<()> {
        self.check()?;
        ensure!(self.stage.is_none(), WrongState, "the context is prepared already");
        Ok(())
    }

    /// Makes an input of this context be an output of `source`, on the device. Requests of the two are ordered both ways.
    ///
    /// # Errors
    /// `WrongState` if this context is prepared or `source` is not; `InvalidArgument` for an index, an input that is
    /// linked already, or another engine; `ShapeMismatch`; `LimitReached`.
    pub fn link(&mut self, input: usize, source: &Context, output: usize) -> Result<()> {
        self.ensure_new()?;
        let stage = source.stage()?;
        ensure!(
            Arc::ptr_eq(self.engine(), source.engine()),
            InvalidArgument,
            "the linked contexts belong to different engines"
        );
        let types = output_types(&stage.buckets, output)?;
        self.ensure_linkable(input, types[0].dtype)?;
        let upstreams = self.links.iter().filter(|link| link.source.is_some()).count();
        ensure!(upstreams < LINKS_MAX, LimitReached, "a context has at most {LINKS_MAX} linked inputs");
        source.readers.add(&self.request)?;
        let upstream = Upstream { request: source.request.clone(), memory: stage.lane.memory(), types };
        self.links.push(Link { input, output, source: Some(upstream) });
        Ok(())
    }

    /// Makes an input of this context be its own output of the request before, zero at first.
    ///
    /// # Errors
    /// As [`Context::link`].
    pub fn link_self(&mut self, input: usize, output: usize) -> Result<()> {
        self.ensure_new()?;
        let input_dtype = self.model.inputs.get(input).map(|input| input.dtype);
        self.ensure_linkable(input, input_dtype.unwrap_or(DType::F32))?;
        self.links.push(Link { input, output, source: None });
        Ok(())
    }

    fn ensure_linkable(&self, input: usize, dtype: DType) -> Result<()> {
        let count = self.model.inputs.len();
        ensure!(input < count, InvalidArgument, "there is no input {input}; the model has {count}");
        let is_free = self.links.iter().all(|link| link.input != input);
        let declared = &self.model.inputs[input];
        ensure!(is_free, InvalidArgument, "input '{}' is linked already", declared.name);
        ensure!(
            declared.dtype == dtype,
            ShapeMismatch,
            "input '{}' is {}, and the output linked to it {dtype}",
            declared.name,
            declared.dtype
        );
        Ok(())
    }

    /// Takes all memory, starts the threads, makes the replay of every bucket. The first bucket is selected.
    ///
    /// # Errors
    /// `NoBucket` with the dimensions that are open, `ShapeMismatch` of a link, `WrongState`, `TooLarge`, `OutOfMemory`,
    /// `LimitReached` (no thread).
    pub fn prepare(&mut self) -> Result<()> {
        self.ensure_new()?;
        let buckets = if self.wanted.is_empty() { self.model.prepared() } else { self.wanted.clone() };
        ensure!(
            !buckets.is_empty(),
            NoBucket,
            "the model has no bucket; add one that fixes {}",
            self.model.open_dimensions()
        );
        for link in &self.links {
            self.check_link(link, &buckets)?;
        }
        let mut inputs = vec![InputSource::Host; self.model.inputs.len()];
        for link in &self.links {
            inputs[link.input] = link.input_source();
        }
        let lane = self.engine().device.lane(LaneOrder {
            programs: buckets.iter().map(|bucket| bucket.program.clone()).collect(),
            inputs,
            threads: self.threads,
            progress: self.request.progress().clone(),
            sink: self.sink.clone(),
        })?;
        let ledger = &self.engine().ledger;
        let entries = [
            ledger.enter(Account::Arenas, lane.arena_bytes())?,
            ledger.enter(Account::Pinned, lane.pinned_bytes())?,
            ledger.enter(Account::Threads, lane.threads())?,
        ];
        let fresh = self.sink.memory.set(entries);
        debug_assert!(fresh.is_ok(), "a context is prepared once");
        self.stage = Some(Stage { lane, buckets, selected: 0, spin: SpinBudget::default() });
        self.write_shape_values()
    }

    fn check_link(&self, link: &Link, buckets: &[Arc<Prepared>]) -> Result<()> {
        let own = if link.source.is_none() { output_types(buckets, link.output)? } else { Vec::new() };
        let types = link.source.as_ref().map_or(&own, |upstream| &upstream.types);
        let name = &self.model.inputs[link.input].name;
        ensure!(
            types.len() == buckets.len(),
            ShapeMismatch,
            "input '{name}': the linked source has {} buckets and this context {}",
            types.len(),
            buckets.len()
        );
        for (index, (ty, bucket)) in types.iter().zip(buckets).enumerate() {
            let wanted = &bucket.inputs[link.input];
            ensure!(
                ty == wanted,
                ShapeMismatch,
                "bucket {index}: input '{name}' is {}{:?}, and the output linked to it {}{:?}",
                wanted.dtype,
                wanted.shape,
                ty.dtype,
                ty.shape
            );
        }
        Ok(())
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

    /// Selects the prepared bucket for the next request.
    ///
    /// # Errors
    /// `NoBucket`, `InFlight`, `Draining`, `WrongState`.
    pub fn select(&mut self, bucket: &Bucket) -> Result<()> {
        let stage = self.stage()?;
        self.request.ensure_idle()?;
        let bucket = bucket.resolve(&self.model.inputs)?;
        let found = stage.buckets.iter().position(|prepared| prepared.bucket == bucket);
        let Some(selected) = found else {
            return Err(fail!(NoBucket, "no prepared bucket is {}", describe(&self.model.inputs, &bucket)));
        };
        self.stage_mut()?.selected = selected;
        self.write_shape_values()
    }

    /// Puts the values of shape inputs in place, so that a kernel that reads them sees the bucket's.
    fn write_shape_values(&mut self) -> Result<()> {
        let stage = self.stage_mut()?;
        let prepared = stage.buckets[stage.selected].clone();
        for (index, value) in prepared.bucket.values.iter().enumerate() {
            if let Some(value) = value
                && stage.lane.input(index).is_some()
            {
                stage.lane.input_bytes(index)?[..value.data().len()].copy_from_slice(value.data());
            }
        }
        Ok(())
    }

    /// Where an input lies. The host writes there while nothing is in flight.
    ///
    /// # Errors
    /// `InvalidArgument` for the index, `WrongState` before prepare or for a linked input, `Draining`.
    pub fn input_view(&self, index: usize) -> Result<View<'_>> {
        let stage = self.stage()?;
        self.request.ensure_settled()?;
        let ty = input_type(stage, index)?;
        let place = stage.lane.input(index);
        let (address, bytes) = place.ok_or_else(|| fail!(WrongState, "input {index} is linked"))?;
        Ok(View::new(ty, &ty.shape, address, bytes))
    }

    /// Where an output lies. The host reads there after a request has ended with `Ok` and before the next submit.
    ///
    /// # Errors
    /// `InvalidArgument` for the index, `WrongState` before prepare, `Draining`.
    pub fn output_view(&self, index: usize) -> Result<View<'_>> {
        let stage = self.stage()?;
        self.request.ensure_settled()?;
        let ty = output_type(stage, index)?;
        let (address, bytes) = stage.lane.output(index);
        Ok(View::new(ty, &ty.shape, address, bytes))
    }

    /// An input's elements, row-major, to be written in place. Look at truth values as `u8`.
    ///
    /// # Errors
    /// Those of [`Context::input_view`], `ShapeMismatch` for another element type, `InFlight`.
    pub fn input_mut<T: Plain>(&mut self, index: usize) -> Result<&mut [T]> {
        let stage = self.stage_mut()?;
        let ty = input_type(stage, index)?;
        check_element::<T>(ty, index, "input")?;
        let bytes = ty.bytes();
        Ok(elements_mut(&mut stage.lane.input_bytes(index)?[..bytes]))
    }

    /// An output's elements, row-major, where the request put them. Look at truth values as `u8`.
    ///
    /// # Errors
    /// Those of [`Context::output_view`], `ShapeMismatch` for another element type, `InFlight`.
    pub fn output<T: Plain>(&self, index: usize) -> Result<&[T]> {
        let stage = self.stage()?;
        let ty = output_type(stage, index)?;
        check_element::<T>(ty, index, "output")?;
        Ok(elements(&stage.lane.output_bytes(index)?[..ty.bytes()]))
    }

    /// Starts a request on the inputs as they are; answers its number. It launches or refuses, it never queues.
    ///
    /// # Errors
    /// `Again`, `InFlight`, `Draining`, `Expired`, `WrongState`, `WrongThread`, `DeviceLost`.
    pub fn submit(&mut self, options: &SubmitOptions) -> Result<u32> {
        self.start(options, false)
    }

    /// Submits and waits. The calling thread computes along.
    ///
    /// # Errors
    /// Those of [`Context::submit`] and [`Context::wait`].
    pub fn run(&mut self) -> Result<()> {
        self.run_with(&SubmitOptions::default())
    }

    /// As [`Context::run`], with options.
    ///
    /// # Errors
    /// As [`Context::run`].
    pub fn run_with(&mut self, options: &SubmitOptions) -> Result<()> {
        let sequence = self.start(options, true)?;
        self.wait(sequence, u64::MAX).map(|_| ())
    }

    fn start(&mut self, options: &SubmitOptions, along: bool) -> Result<u32> {
        let bucket = self.stage()?.selected;
        self.request.ensure_idle()?;
        let now = clock::monotonic_ns();
        ensure!(options.deadline_ns == 0 || now <= options.deadline_ns, Expired, "the deadline has passed");
        let model = self.model.clone();
        model.engine.take_permit()?;
        let events = self.marks.len();
        let ordinal = match self.begin(options.token, now, bucket) {
            Ok(ordinal) => ordinal,
            Err(error) => {
                model.engine.give_back_permit();
                return Err(error);
            }
        };
        let launch = Launch { bucket, sequence: sequence_of(ordinal), ordinal, deadline_ns: options.deadline_ns };
        let lane = &mut self.stage.as_mut().expect("looked at above").lane;
        let marks = &mut self.marks;
        let launched = if along { lane.run(launch, marks) } else { lane.launch(launch, marks) };
        if let Err(error) = launched {
            self.marks.truncate(events);
            self.request.unwind(ordinal);
            model.engine.give_back_permit();
            return Err(error);
        }
        Ok(launch.sequence)
    }

    /// The request begins: from now on others that are linked wait for it, as it waits for them.
    fn begin(&mut self, token: u64, now: u64, bucket: usize) -> Result<u64> {
        let upstreams = || self.links.iter().filter_map(|link| link.source.as_ref());
        if upstreams().next().is_none() && !self.readers.any() {
            return Ok(self.request.begin(token, now, bucket));
        }
        // One order of all requests of linked contexts, so that none waits for one that waits for it.
        let _order = self.model.engine.link_order.lock().unwrap_or_else(PoisonError::into_inner);
        for upstream in upstreams() {
            link::ensure_same_bucket(&upstream.request, bucket)?;
        }
        self.marks.extend(self.links.iter().filter_map(|link| Some(link::mark_of(&link.source.as_ref()?.request))));
        self.readers.mark(&mut self.marks);
        Ok(self.request.begin(token, now, bucket))
    }

    /// Whether a request has ended: `Ok`, `Pending` or `Parked`.
    ///
    /// # Errors
    /// How it failed; `InvalidArgument` if it is not the context's last one.
    pub fn poll(&mut self, sequence: u32) -> Result<Status> {
        self.stage()?;
        self.told(sequence)
    }

    fn told(&self, sequence: u32) -> Result<Status> {
        match self.request.look(sequence)? {
            status @ (Status::Ok | Status::Pending | Status::Parked) => Ok(status),
            status => Err(failure(status, sequence)),
        }
    }

    /// Waits until a request has ended, at most `timeout_ns`: 0 polls, `u64::MAX` waits for good. Answers as
    /// [`Context::poll`].
    ///
    /// # Errors
    /// Those of [`Context::poll`], and `Timeout`, after which the context drains.
    pub fn wait(&mut self, sequence: u32, timeout_ns: u64) -> Result<Status> {
        let spin = self.stage()?.spin;
        let until_ns = match timeout_ns {
            0 | u64::MAX => timeout_ns,
            _ => clock::monotonic_ns().saturating_add(timeout_ns),
        };
        loop {
            let status = self.told(sequence)?;
            if status != Status::Pending || timeout_ns == 0 {
                if status == Status::Ok {
                    self.learn();
                }
                return Ok(status);
            }
            let ordinal = self.request.ordinal();
            let is_over = || self.request.is_over(ordinal);
            if !wait::wait(self.request.progress(), self.policy, spin, until_ns, is_over)
                && self.request.time_out(ordinal)
            {
                return Err(failure(Status::Timeout, sequence));
            }
        }
    }

    fn learn(&mut self) {
        let duration_ns = self.request.progress().stamps().done_ns.saturating_sub(self.request.submit_ns());
        if let Some(stage) = &mut self.stage {
            stage.spin.learn(duration_ns);
        }
    }

    /// Asks for a completion in the engine's queue instead of waiting. Success promises exactly one.
    ///
    /// # Errors
    /// `WrongState` (nothing in flight, or parked already), `Draining`, `InvalidArgument`.
    pub fn park(&mut self, sequence: u32) -> Result<()> {
        self.stage()?;
        self.request.park(sequence)
    }

    /// Takes a parked request back: `Ok`, or `TooLate` if its completion is on its way.
    ///
    /// # Errors
    /// `WrongState` if it is not parked, `InvalidArgument`.
    pub fn unpark(&mut self, sequence: u32) -> Result<Status> {
        self.stage()?;
        self.request.unpark(sequence)
    }

    /// Where the time of the last ended request went.
    ///
    /// # Errors
    /// `WrongState` while one is in flight or before the first.
    pub fn timings(&self) -> Result<Timings> {
        self.stage()?;
        let sequence = sequence_of(self.request.ordinal());
        ensure!(sequence != 0, WrongState, "no request has ended yet");
        ensure!(self.request.ensure_idle().is_ok(), WrongState, "request {sequence} is in flight");
        Ok(Timings { sequence, submit_ns: self.request.submit_ns(), stamps: self.request.progress().stamps() })
    }

    /// The 256 bytes of the completion record, valid as long as the context.
    ///
    /// # Errors
    /// `WrongState` before prepare.
    pub fn record_address(&self) -> Result<*const u8> {
        self.stage()?;
        Ok(self.request.progress().record_address())
    }

    /// The end of what has been submitted so far.
    pub(super) fn mark(&self) -> Result<Mark> {
        self.stage()?;
        Ok(link::mark_of(&self.request))
    }

    /// Lets the next request start only after the mark.
    pub(super) fn wait_for(&mut self, mark: Mark) -> Result<()> {
        self.stage()?;
        let limit = EVENT_WAITS_MAX;
        ensure!(self.marks.len() < limit, LimitReached, "a request waits for at most {limit} events");
        self.marks.push(mark);
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.request.abandon_last();
    }
}

fn output_types(buckets: &[Arc<Prepared>], output: usize) -> Result<Vec<TensorType>> {
    let types: Option<Vec<TensorType>> = buckets.iter().map(|bucket| bucket.outputs.get(output).cloned()).collect();
    types.ok_or_else(|| fail!(InvalidArgument, "there is no output {output}"))
}

fn input_type(stage: &Stage, index: usize) -> Result<&TensorType> {
    let inputs = &stage.bucket().inputs;
    inputs.get(index).ok_or_else(|| fail!(InvalidArgument, "there is no input {index}; the model has {}", inputs.len()))
}

fn output_type(stage: &Stage, index: usize) -> Result<&TensorType> {
    let outputs = &stage.bucket().outputs;
    outputs
        .get(index)
        .ok_or_else(|| fail!(InvalidArgument, "there is no output {index}; the model has {}", outputs.len()))
}

fn check_element<T: Plain>(ty: &TensorType, index: usize, what: &str) -> Result<()> {
    let fits = T::DTYPE == ty.dtype || (ty.dtype == DType::Bool && T::DTYPE == DType::U8);
    ensure!(fits, ShapeMismatch, "{what} {index} is {}, not {}", ty.dtype, T::DTYPE);
    Ok(())
}

/// A failed request in words.
fn failure(status: Status, sequence: u32) -> Error {
    let what = match status {
        Status::Timeout => "did not end in time; the context drains until the device is done",
        Status::Cancelled => "was cancelled; the context drains until the device is done",
        Status::Expired => "was not started before its deadline",
        Status::DeviceLost => "was lost with its device",
        Status::Panicked => "ended in a panic of a worker; free the context",
        _ => "failed on the device",
    };
    Error::new(status, format!("request {sequence} {what}"))
}
