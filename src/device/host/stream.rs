//! The host's lane: one team of workers that runs one request after the other.

use super::clock;
use super::memory::{PAGE_BYTES, Pages};
use super::program::{LaneMemory as Addresses, LoadedProgram, Replay};
use super::quarantine::Quarantine;
use super::team::{Barrier, Team, Work};
use crate::device::{
    Attachment, InputSource, Lane, LaneMemory, LaneOrder, Launch, MARKS_MAX, Mark, Outcome, Progress, Sink, Stamps,
};
use crate::error::{Result, Status, ensure, fail};
use crate::limits::CONTEXT_THREADS_MAX;
use crate::lower::arena::ALIGNMENT;
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Distance of neighbouring inputs and outputs: two cache lines, which the processor fetches together.
const TENSOR_ALIGNMENT: usize = 128;

/// Where a tensor lies.
#[derive(Clone, Copy)]
struct Place {
    home: Home,
    bytes: usize,
}

/// In whose memory.
#[derive(Clone, Copy)]
enum Home {
    /// The lane's pinned memory, at that offset.
    Pinned(usize),
    /// That of the host program, at that address.
    Attached(*mut u8),
}

// SAFETY: addresses only; who accesses the memory answers for it.
unsafe impl Send for Home {}
// SAFETY: as above.
unsafe impl Sync for Home {}

/// The memory of one lane.
struct HostMemory {
    /// Pages that hosts have views of: first the inputs that they write, then, with the next page, all that requests write.
    pinned: Pages,
    /// Bytes of those inputs that hosts may not write while a request runs; 0 without guard.
    guarded_bytes: usize,
    arena: Pages,
    /// Per input its place; `None` if it is another lane's output.
    inputs: Vec<Option<Place>>,
    /// Per output its place.
    outputs: Vec<Place>,
    /// Per worker the offset of its working memory in `arena`.
    scratch: Vec<usize>,
    /// Memory of other lanes that inputs lie in.
    sources: Vec<Option<(Arc<HostMemory>, usize)>>,
    /// Memory of the host program that inputs and outputs lie in.
    _attachments: Vec<Attachment>,
}

impl LaneMemory for HostMemory {}

/// Hands out consecutive aligned areas.
#[derive(Default)]
struct Areas {
    end: usize,
}

impl Areas {
    fn take(&mut self, bytes: usize, alignment: usize) -> Result<usize> {
        let start = self.end.checked_next_multiple_of(alignment);
        let end = start.and_then(|start| start.checked_add(bytes));
        self.end = end.ok_or_else(|| fail!(TooLarge, "the context's memory exceeds the address space"))?;
        Ok(start.unwrap_or_default())
    }
}

impl HostMemory {
    fn new(order: &LaneOrder, programs: &[Arc<LoadedProgram>], quarantine: &Arc<Quarantine>) -> Result<Self> {
        let largest = |bytes: &dyn Fn(&LoadedProgram) -> usize| programs.iter().map(|p| bytes(p)).max().unwrap_or(0);
        let first = programs.first().ok_or_else(|| fail!(Internal, "a lane without a program"))?.program();
        let mut pinned = Areas::default();
        let mut inputs = vec![None; order.inputs.len()];
        let input_bytes = |index: usize| largest(&|program| program.program().inputs[index].bytes);
        let mut place = |pinned: &mut Areas, index: usize| -> Result<()> {
            let bytes = input_bytes(index);
            inputs[index] = Some(Place { home: Home::Pinned(pinned.take(bytes, TENSOR_ALIGNMENT)?), bytes });
            Ok(())
        };
        let of_kind = |wanted: fn(&InputSource) -> bool| {
            order.inputs.iter().enumerate().filter(move |(_, source)| wanted(source)).map(|(index, _)| index)
        };
        for index in of_kind(|source| matches!(source, InputSource::Host)) {
            place(&mut pinned, index)?;
        }
        let guarded_bytes = if order.guard_inputs { pinned.end } else { 0 };
        pinned.take(0, PAGE_BYTES)?;
        for index in of_kind(|source| matches!(source, InputSource::Own(_))) {
            place(&mut pinned, index)?;
        }
        for (index, source) in order.inputs.iter().enumerate() {
            let InputSource::Attached(attachment) = source else { continue };
            inputs[index] = Some(Place::attached(attachment, input_bytes(index))?);
        }
        let mut outputs = Vec::new();
        for index in 0..first.outputs.len() {
            let bytes = largest(&|program| program.program().outputs[index].bytes);
            outputs.push(match order.outputs.get(index).and_then(Option::as_ref) {
                Some(attachment) => Place::attached(attachment, bytes)?,
                None => Place { home: Home::Pinned(pinned.take(bytes, TENSOR_ALIGNMENT)?), bytes },
            });
        }
        let mut arena = Areas::default();
        arena.take(largest(&|program| program.program().arena_bytes), ALIGNMENT)?;
        let scratch_bytes = largest(&|program| program.program().scratch_bytes);
        let scratch =
            (0..order.threads).map(|_| arena.take(scratch_bytes, TENSOR_ALIGNMENT)).collect::<Result<Vec<_>>>()?;
        let mut pinned = Pages::map_apart(pinned.end, quarantine)?;
        let mut arena = Pages::map_beside(arena.end, quarantine)?;
        pinned.touch();
        arena.touch();
        let sources = order.inputs.iter().map(InputSource::foreign).collect::<Result<_>>()?;
        let attached = order.inputs.iter().filter_map(InputSource::attachment).chain(order.outputs.iter().flatten());
        let attachments = attached.cloned().collect();
        Ok(HostMemory { pinned, guarded_bytes, arena, inputs, outputs, scratch, sources, _attachments: attachments })
    }

    /// Takes from hosts the right to write inputs, or gives it back.
    fn guard(&self, is_running: bool) {
        if self.guarded_bytes > 0 {
            self.pinned.set_writable(self.guarded_bytes, !is_running);
        }
    }

    fn at(&self, place: Place) -> *mut u8 {
        match place.home {
            Home::Pinned(offset) => self.pinned.address().wrapping_add(offset),
            Home::Attached(address) => address,
        }
    }

    /// What replays are bound to. The pages stay where they are as long as `self` lives.
    fn addresses(&self) -> Addresses {
        let input = |(own, source): (&Option<Place>, &Option<(Arc<HostMemory>, usize)>)| match (own, source) {
            (Some(place), _) => self.at(*place),
            (None, Some((memory, output))) => memory.at(memory.outputs[*output]),
            (None, None) => unreachable!("an input lies here or elsewhere"),
        };
        Addresses {
            inputs: self.inputs.iter().zip(&self.sources).map(input).collect(),
            outputs: self.outputs.iter().map(|&place| self.at(place)).collect(),
            arena: self.arena.address(),
            scratch: self.scratch.iter().map(|&offset| self.arena.address().wrapping_add(offset)).collect(),
        }
    }
}

impl InputSource {
    /// The other lane's memory, and which of its outputs.
    fn foreign(&self) -> Result<Option<(Arc<HostMemory>, usize)>> {
        match self {
            InputSource::Output(memory, output) => Ok(Some((host_memory(memory)?, *output))),
            InputSource::Host | InputSource::Own(_) | InputSource::Attached(_) => Ok(None),
        }
    }

    fn attachment(&self) -> Option<&Attachment> {
        if let InputSource::Attached(attachment) = self { Some(attachment) } else { None }
    }
}

impl Place {
    /// In the host program's memory, if there is room for so many bytes.
    fn attached(attachment: &Attachment, bytes: usize) -> Result<Self> {
        let Attachment { memory, offset, .. } = attachment;
        let end = offset.checked_add(bytes);
        ensure!(end.is_some_and(|end| end <= memory.bytes()), Internal, "a tensor is attached that does not fit");
        Ok(Place { home: Home::Attached(memory.address().wrapping_add(*offset)), bytes })
    }
}

fn host_memory(memory: &Arc<dyn LaneMemory>) -> Result<Arc<HostMemory>> {
    let any: Arc<dyn Any + Send + Sync> = memory.clone();
    any.downcast().map_err(|_| fail!(Internal, "a host lane is linked to another device's memory"))
}

/// The copy of an output into an input for the next request.
struct Feedback {
    from: Place,
    to: Place,
    bytes: usize,
}

/// What is to be done, written by the lane while it is quiet.
struct Job {
    launch: Launch,
    marks: Vec<Mark>,
}

/// A lane as its workers see it. Fields are dropped in this order: replays before the memory that they are bound to, and
/// the sink last of all.
struct HostWork {
    replays: Vec<Replay>,
    feedback: Vec<Vec<Feedback>>,
    job: UnsafeCell<Job>,
    /// The verdict of worker 0 before the workers start, a [`Status`]: `Ok` to go on.
    verdict: AtomicU32,
    memory: Arc<HostMemory>,
    progress: Arc<Progress>,
    sink: Arc<dyn Sink>,
}

// SAFETY: `job` is written by the lane only while no request runs, and read by workers only while one does; posting the
// work and the end of the request order the two. All else is `Sync`.
unsafe impl Sync for HostWork {}

impl HostWork {
    /// Waits for what the request depends on, then says whether it is still wanted.
    fn admit(&self, launch: &Launch, marks: &mut Vec<Mark>) -> Status {
        for mark in marks.drain(..) {
            mark.progress.sleep_until(u64::MAX, || mark.progress.has_reached(mark.ordinal));
        }
        if self.progress.is_given_up(launch.ordinal) {
            Status::Cancelled
        } else if launch.deadline_ns != 0 && clock::monotonic_ns() > launch.deadline_ns {
            Status::Expired
        } else {
            Status::Ok
        }
    }

    /// One worker's part of the computation; returns once all workers are through.
    fn share(&self, launch: &Launch, worker: usize, barrier: &Barrier) {
        let halt = || self.progress.is_given_up(launch.ordinal);
        let replay = &self.replays[launch.bucket];
        let run = || replay.run(worker, barrier.members(), &|| !barrier.meet(halt));
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            barrier.break_up();
        }
        barrier.meet(|| false);
    }

    fn feed_back(&self, bucket: usize) {
        for copy in &self.feedback[bucket] {
            // SAFETY: both areas are the lane's alone while a request runs, and do not overlap; no worker runs.
            unsafe { std::ptr::copy_nonoverlapping(self.memory.at(copy.from), self.memory.at(copy.to), copy.bytes) };
        }
    }
}

impl Work for HostWork {
    fn lead(&self, barrier: &Barrier) {
        // SAFETY: a request runs, and only worker 0 takes the marks.
        let job = unsafe { &mut *self.job.get() };
        let launch = job.launch;
        let mut status = self.admit(&launch, &mut job.marks);
        self.verdict.store(status as u32, Relaxed);
        barrier.meet(|| false);
        let start_ns = clock::monotonic_ns();
        if status == Status::Ok {
            self.share(&launch, 0, barrier);
            if barrier.is_broken() {
                status = Status::Panicked;
            } else if self.progress.is_given_up(launch.ordinal) {
                status = Status::Cancelled;
            } else {
                self.feed_back(launch.bucket);
            }
        }
        let done_ns = clock::monotonic_ns();
        let stamps = Stamps { start_ns, inputs_ns: start_ns, compute_ns: done_ns, done_ns };
        self.memory.guard(false);
        self.sink.ending(status);
        self.progress.end(&Outcome { sequence: launch.sequence, ordinal: launch.ordinal, status, stamps });
        // From here on the lane may be given its next request: the job is no longer ours.
        self.sink.ended(launch.ordinal, status);
    }

    fn follow(&self, worker: usize, barrier: &Barrier) {
        barrier.meet(|| false);
        if self.verdict.load(Relaxed) == Status::Ok as u32 {
            // SAFETY: a request runs until worker 0 has met this worker at the end of its share; it has taken the marks.
            let launch = unsafe { (*self.job.get()).launch };
            self.share(&launch, worker, barrier);
        }
    }
}

/// A context's stream on the host.
pub struct HostLane {
    team: Team<HostWork>,
    /// Ordinal of the last request launched.
    launched: u64,
}

impl HostLane {
    /// Takes memory, makes the replays, starts the workers.
    pub fn open(order: LaneOrder, quarantine: &Arc<Quarantine>) -> Result<Self> {
        let threads = order.threads;
        ensure!(
            (1..=CONTEXT_THREADS_MAX).contains(&threads),
            InvalidArgument,
            "a context computes with 1 to {CONTEXT_THREADS_MAX} threads, not {threads}"
        );
        let downcast = |program: &Arc<dyn crate::device::Program>| {
            let any: Arc<dyn Any + Send + Sync> = program.clone();
            any.downcast::<LoadedProgram>()
                .map_err(|_| fail!(Internal, "a host lane is given another device's program"))
        };
        let programs = order.programs.iter().map(downcast).collect::<Result<Vec<_>>>()?;
        let memory = Arc::new(HostMemory::new(&order, &programs, quarantine)?);
        let addresses = memory.addresses();
        let replays = programs.iter().map(|program| program.replay(&addresses)).collect::<Result<Vec<_>>>()?;
        let feedback = programs.iter().map(|program| feedback(program, &order.inputs, &memory)).collect();
        let launch = Launch { bucket: 0, sequence: 0, ordinal: 0, deadline_ns: 0 };
        let work = HostWork {
            replays,
            feedback,
            job: UnsafeCell::new(Job { launch, marks: Vec::with_capacity(MARKS_MAX) }),
            verdict: AtomicU32::new(0),
            memory,
            progress: order.progress,
            sink: order.sink,
        };
        Ok(HostLane { team: Team::start(threads, work)?, launched: 0 })
    }

    fn is_quiet(&self) -> bool {
        self.team.work().progress.has_reached(self.launched)
    }

    fn ensure_quiet(&self) -> Result<()> {
        ensure!(self.is_quiet(), InFlight, "the context's memory is in use by the request in flight");
        Ok(())
    }

    /// Writes the job. `marks` and the job's own list, empty since the last request, change places: no allocation.
    fn assign(&mut self, launch: Launch, marks: &mut Vec<Mark>) -> Result<()> {
        self.ensure_quiet()?;
        let work = self.team.work();
        ensure!(launch.bucket < work.replays.len(), Internal, "there is no replay {}", launch.bucket);
        // SAFETY: no request runs, so no worker looks at the job.
        let job = unsafe { &mut *work.job.get() };
        job.launch = launch;
        std::mem::swap(&mut job.marks, marks);
        self.launched = launch.ordinal;
        work.memory.guard(true);
        Ok(())
    }
}

/// Per input that is the lane's own output: the copy to be made after a request.
fn feedback(program: &LoadedProgram, sources: &[InputSource], memory: &HostMemory) -> Vec<Feedback> {
    let copies = sources.iter().enumerate().filter_map(|(input, source)| {
        let InputSource::Own(output) = source else { return None };
        let to = memory.inputs[input]?;
        Some(Feedback { from: memory.outputs[*output], to, bytes: program.program().inputs[input].bytes })
    });
    copies.collect()
}

impl Lane for HostLane {
    fn arena_bytes(&self) -> usize {
        self.team.work().memory.arena.bytes()
    }

    fn pinned_bytes(&self) -> usize {
        self.team.work().memory.pinned.bytes()
    }

    fn threads(&self) -> usize {
        self.team.threads()
    }

    fn memory(&self) -> Arc<dyn LaneMemory> {
        self.team.work().memory.clone()
    }

    fn input(&self, index: usize) -> Option<(*mut u8, usize)> {
        let memory = &self.team.work().memory;
        memory.inputs[index].map(|place| (memory.at(place), place.bytes))
    }

    fn output(&self, index: usize) -> (*mut u8, usize) {
        let memory = &self.team.work().memory;
        let place = memory.outputs[index];
        (memory.at(place), place.bytes)
    }

    fn input_bytes(&mut self, index: usize) -> Result<&mut [u8]> {
        self.ensure_quiet()?;
        let (address, bytes) = self.input(index).ok_or_else(|| fail!(WrongState, "input {index} is linked"))?;
        // SAFETY: the lane's alone; no request runs, and none can be launched while `self` is borrowed.
        Ok(unsafe { std::slice::from_raw_parts_mut(address, bytes) })
    }

    fn output_bytes(&self, index: usize) -> Result<&[u8]> {
        self.ensure_quiet()?;
        let (address, bytes) = self.output(index);
        // SAFETY: the lane's alone; only this lane writes there, and it does not run.
        Ok(unsafe { std::slice::from_raw_parts(address, bytes) })
    }

    fn launch(&mut self, launch: Launch, marks: &mut Vec<Mark>) -> Result<()> {
        self.assign(launch, marks)?;
        self.team.post();
        Ok(())
    }

    fn run(&mut self, launch: Launch, marks: &mut Vec<Mark>) -> Result<()> {
        self.assign(launch, marks)?;
        self.team.work_along();
        Ok(())
    }
}

impl Drop for HostLane {
    fn drop(&mut self) {
        let idle = self.is_quiet();
        self.team.stop(idle);
    }
}
