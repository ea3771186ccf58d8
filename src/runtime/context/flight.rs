//! A context's requests: submit, wait, park, and what they wait for.

use super::{Context, SubmitOptions, Timings};
use crate::device::host::clock;
use crate::device::{Launch, Mark};
use crate::error::{Error, Result, Status, ensure, fail};
use crate::limits::EVENT_WAITS_MAX;
use crate::runtime::link;
use crate::runtime::request::sequence_of;
use crate::runtime::wait;
use std::sync::PoisonError;

impl Context {
    /// Starts a request on the inputs as they are; answers its number. It launches or refuses, it never queues.
    ///
    /// # Errors
    /// `Again`, `InFlight`, `Draining`, `Expired`, `WrongState`, `WrongThread`, `DeviceLost`.
    pub fn submit(&mut self, options: &SubmitOptions) -> Result<u32> {
        self.start(options, false)
    }

    /// Submits and waits. On the host device the calling thread computes along, unless the context is linked.
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
        self.settle();
        let now = clock::monotonic_ns();
        ensure!(options.deadline_ns == 0 || now <= options.deadline_ns, Expired, "the deadline has passed");
        let model = self.model.clone();
        model.engine.take_permit()?;
        let events = self.marks.len();
        // One order of all requests of linked contexts, so that none waits for one that waits for it. It is held until the request is
        // launched: a GPU's streams share channels, in which a wait must not be ahead of what it waits for.
        let order = self.is_linked().then(|| model.engine.link_order.lock().unwrap_or_else(PoisonError::into_inner));
        let is_linked = order.is_some();
        let ordinal = match self.begin(options.token, now, bucket, is_linked) {
            Ok(ordinal) => ordinal,
            Err(error) => {
                model.engine.give_back_permit();
                return Err(error);
            }
        };
        let launch = Launch { bucket, sequence: sequence_of(ordinal), ordinal, deadline_ns: options.deadline_ns };
        let lane = &mut self.stage.as_mut().expect("looked at above").lane;
        let marks = &mut self.marks;
        let launched = if along && !is_linked { lane.run(launch, marks) } else { lane.launch(launch, marks) };
        if let Err(error) = launched {
            self.marks.truncate(events);
            // Before others may wait for it.
            self.request.unwind(ordinal);
            drop(order);
            model.engine.give_back_permit();
            return Err(error);
        }
        Ok(launch.sequence)
    }

    fn upstreams(&self) -> impl Iterator<Item = &link::Upstream> {
        self.links.iter().filter_map(|link| link.source.as_ref())
    }

    /// Whether other contexts wait for this one's requests, or it for theirs.
    fn is_linked(&self) -> bool {
        self.readers.any() || self.upstreams().next().is_some()
    }

    /// The request begins: from now on others that are linked wait for it, as it waits for them.
    fn begin(&mut self, token: u64, now: u64, bucket: usize, is_linked: bool) -> Result<u64> {
        if !is_linked {
            return Ok(self.request.begin(token, now, bucket));
        }
        for upstream in self.upstreams() {
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
    #[inline]
    pub fn poll(&mut self, sequence: u32) -> Result<Status> {
        self.stage()?;
        self.told(sequence)
    }

    /// Tells the device that the host knows of the end of the last request.
    #[inline]
    fn settle(&self) {
        if let Some(stage) = &self.stage {
            stage.lane.settle();
        }
    }

    #[inline]
    fn told(&self, sequence: u32) -> Result<Status> {
        let status = self.request.look(sequence)?;
        if !matches!(status, Status::Pending | Status::Parked) {
            self.settle();
        }
        match status {
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
    pub(in crate::runtime) fn mark(&self) -> Result<Mark> {
        self.stage()?;
        Ok(link::mark_of(&self.request))
    }

    /// Lets the next request start only after the mark.
    pub(in crate::runtime) fn wait_for(&mut self, mark: Mark) -> Result<()> {
        self.stage()?;
        let limit = EVENT_WAITS_MAX;
        ensure!(self.marks.len() < limit, LimitReached, "a request waits for at most {limit} events");
        self.marks.push(mark);
        Ok(())
    }
}

/// A failed request in words.
#[cold]
#[inline(never)]
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
