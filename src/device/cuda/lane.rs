//! A context's stream on the GPU: page-locked inputs and outputs, device memory, one replay per bucket.

use super::gpu::{Current, Gpu};
use super::graph::{End, Line, Replay, Stream};
use super::memory::{ALIGNMENT, DeviceMemory, HostMemory};
use super::module::Function;
use super::program::LoadedProgram;
use super::reactor::{Station, Watch};
use super::registered::MappedRange;
use super::sys::CuAddress;
use super::tensor;
use crate::device::host::clock;
use crate::device::{
    Attachment, CopyEngines, InputSource, Lane, LaneMemory, LaneOrder, Launch, MARKS_MAX, Mark, SharedMemory,
};
use crate::error::{Result, ensure, fail};
use crate::kernels::entry::transfer::{self, Control, FetchArguments, FinishArguments, SEGMENTS_MAX, Segment};
use crate::kernels::entry::{self, Address, Arguments, Field, TensorMap};
use crate::lower::cuda::Region;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What `streaminfer bench-memory --requests` has found on an H200: kernels are faster by 3 to 15 us a request up to 4 MiB, by nothing at
/// 8 MiB, and slower by 3 to 8 us at 16 MiB.
pub const COPY_ENGINES: CopyEngines = CopyEngines { inputs_from: 16 << 20, outputs_from: 16 << 20 };

/// Where an input or output lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// In page-locked memory; `None` if it is not there.
    host: Option<Home>,
    /// Address on the GPU.
    device: CuAddress,
    bytes: usize,
}

/// In whose page-locked memory, and where in it.
#[derive(Clone, Copy, Debug)]
enum Home {
    Own(usize),
    /// In the host program's; the index is that of the attachment.
    Attached(usize, usize),
}

/// The memory of one lane.
pub struct CudaMemory {
    host: HostMemory,
    device: DeviceMemory,
    inputs: Vec<Place>,
    outputs: Vec<Place>,
    arena: CuAddress,
    /// Memory of other lanes that inputs lie in.
    _sources: Vec<Arc<CudaMemory>>,
    attachments: Vec<Attached>,
}

/// Memory of the host program that an input or output lies in. Fields are dropped in this order.
struct Attached {
    range: Arc<MappedRange>,
    _attachment: Attachment,
}

impl Attached {
    fn new(attachment: &Attachment) -> Result<Self> {
        let any: Arc<dyn Any + Send + Sync> = attachment.memory.clone();
        let range =
            any.downcast().map_err(|_| fail!(Internal, "another device's memory is attached to a lane of the GPU"))?;
        Ok(Attached { range, _attachment: attachment.clone() })
    }
}

impl LaneMemory for CudaMemory {}

/// Hands out consecutive areas.
#[derive(Default)]
struct Areas {
    end: usize,
}

impl Areas {
    fn take(&mut self, bytes: usize) -> Result<usize> {
        let start = self.end;
        let end = bytes.checked_next_multiple_of(ALIGNMENT).and_then(|bytes| start.checked_add(bytes));
        self.end = end.ok_or_else(|| fail!(TooLarge, "the context's memory exceeds the address space"))?;
        Ok(start)
    }
}

fn cuda_memory(memory: &Arc<dyn LaneMemory>) -> Result<Arc<CudaMemory>> {
    let any: Arc<dyn Any + Send + Sync> = memory.clone();
    any.downcast().map_err(|_| fail!(Internal, "a lane of the GPU is linked to another device's memory"))
}

impl CudaMemory {
    fn new(gpu: &Arc<Gpu>, programs: &[Arc<LoadedProgram>], order: &LaneOrder) -> Result<Self> {
        let sources = &order.inputs;
        let largest = |bytes: &dyn Fn(&LoadedProgram) -> usize| programs.iter().map(|p| bytes(p)).max().unwrap_or(0);
        let first = programs.first().ok_or_else(|| fail!(Internal, "a lane without a program"))?.program();
        let (mut host, mut device) = (Areas::default(), Areas::default());
        // The submit time, and the state that the GPU keeps.
        host.take(size_of::<u64>())?;
        device.take(Control::BYTES)?;
        let (mut inputs, mut kept, mut attachments) = (Vec::new(), Vec::new(), Vec::new());
        let mut attach = |attachment: &Attachment, bytes: usize| {
            let attached = Attached::new(attachment)?;
            let end = attachment.offset.checked_add(bytes);
            let fits = end.is_some_and(|end| end <= attached.range.bytes());
            ensure!(fits, Internal, "a tensor is attached that does not fit");
            attachments.push(attached);
            Ok(Home::Attached(attachments.len() - 1, attachment.offset))
        };
        for (index, source) in sources.iter().enumerate() {
            let bytes = largest(&|program| program.program().inputs[index].bytes);
            inputs.push(match source {
                InputSource::Output(memory, output) => {
                    let memory = cuda_memory(memory)?;
                    let device = memory.outputs[*output].device;
                    kept.push(memory);
                    Place { host: None, device, bytes }
                }
                InputSource::Own(_) => Place { host: None, device: device.take(bytes)? as u64, bytes },
                InputSource::Attached(attachment) => {
                    Place { host: Some(attach(attachment, bytes)?), device: device.take(bytes)? as u64, bytes }
                }
                InputSource::Host => {
                    Place { host: Some(Home::Own(host.take(bytes)?)), device: device.take(bytes)? as u64, bytes }
                }
            });
        }
        let mut outputs = Vec::new();
        for index in 0..first.outputs.len() {
            let bytes = largest(&|program| program.program().outputs[index].bytes);
            let home = match order.outputs.get(index).and_then(Option::as_ref) {
                Some(attachment) => attach(attachment, bytes)?,
                None => Home::Own(host.take(bytes)?),
            };
            outputs.push(Place { host: Some(home), device: device.take(bytes)? as u64, bytes });
        }
        let arena = device.take(largest(&|program| program.program().arena_bytes))? as u64;
        let device = DeviceMemory::take(gpu, device.end)?;
        let is_own = |source: &InputSource| !matches!(source, InputSource::Output(..));
        for (place, _) in inputs.iter_mut().zip(sources).filter(|(_, source)| is_own(source)) {
            place.device += device.address();
        }
        outputs.iter_mut().for_each(|place| place.device += device.address());
        let (host, arena) = (HostMemory::take(gpu, host.end)?, arena + device.address());
        Ok(CudaMemory { host, device, inputs, outputs, arena, _sources: kept, attachments })
    }

    /// Where the host finds a tensor in page-locked memory.
    fn host_address(&self, home: Home) -> *mut u8 {
        match home {
            Home::Own(offset) => self.host.host(offset),
            Home::Attached(index, offset) => self.attachments[index].range.host(offset),
        }
    }

    /// Where the GPU finds it there.
    fn mapped_address(&self, home: Home) -> CuAddress {
        match home {
            Home::Own(offset) => self.host.device(offset),
            Home::Attached(index, offset) => self.attachments[index].range.device(offset),
        }
    }

    fn control(&self) -> CuAddress {
        self.device.address()
    }

    /// The host's time of the submit, which the first kernel reads.
    fn submit_ns(&self) -> &AtomicU64 {
        // SAFETY: the first eight bytes of memory of our own, aligned; the GPU only reads them.
        unsafe { &*self.host.host(0).cast::<AtomicU64>() }
    }

    fn resolve(&self, region: Region, program: &LoadedProgram) -> CuAddress {
        match region {
            Region::Arena => self.arena,
            Region::Constant(index) => program.constant(index),
            Region::Input(index) => self.inputs[index].device,
            Region::Output(index) => self.outputs[index].device,
        }
    }
}

/// The kernels that begin and end each replay.
#[derive(Clone, Copy)]
struct Transfers {
    fetch: Function,
    finish: Function,
}

impl Transfers {
    fn load(gpu: &Gpu) -> Result<Self> {
        let function = |name: &str| {
            let entry = entry::find(name).ok_or_else(|| fail!(Internal, "there is no entry {name}"))?;
            gpu.modules.function(gpu, &entry, 0)
        };
        Ok(Transfers { fetch: function("transfer_fetch")?, finish: function("transfer_finish")? })
    }
}

/// Builds the replay of one program.
struct Builder<'a> {
    gpu: &'a Arc<Gpu>,
    memory: &'a CudaMemory,
    program: &'a LoadedProgram,
    sources: &'a [InputSource],
    transfers: Transfers,
    engines: CopyEngines,
    record: CuAddress,
    clock: CuAddress,
}

impl Builder<'_> {
    fn segment(from: CuAddress, to: CuAddress, bytes: usize) -> Segment {
        Segment { from: Address(from), to: Address(to), bytes: bytes as u64 }
    }

    fn build(&self, current: &Current<'_>, stream: &Stream) -> Result<Replay> {
        let mut line = Line::new(current, stream)?;
        self.fetch(&mut line)?;
        for (launch, &function) in self.program.program().launches.iter().zip(self.program.functions()) {
            let mut arguments = launch.arguments.clone();
            for position in (launch.entry.addresses)() {
                let field = &mut arguments[position..position + 8];
                if let Some(index) = (u64::get(field) as usize).checked_sub(1) {
                    let operand = &launch.operands[index];
                    let base = self.memory.resolve(operand.region, self.program);
                    (base + operand.byte_offset as u64).put(field);
                }
            }
            for map in (launch.entry.maps)(&arguments) {
                let encoded = tensor::encode(current, &map).map_err(|error| error.within(&launch.node))?;
                encoded.put(&mut arguments[map.position..map.position + TensorMap::BYTES]);
            }
            line.kernel(function, &launch.geometry, &arguments).map_err(|error| error.within(&launch.node))?;
        }
        self.finish(&mut line)?;
        line.finish(self.gpu, stream)
    }

    fn fetch(&self, line: &mut Line<'_>) -> Result<()> {
        let mut segments = Vec::new();
        for (index, port) in self.program.program().inputs.iter().enumerate() {
            let place = &self.memory.inputs[index];
            let Some(home) = place.host.filter(|_| port.bytes > 0) else { continue };
            if port.bytes >= self.engines.inputs_from {
                let from = End::Host(self.memory.host_address(home));
                line.copy(from, End::Device(place.device), port.bytes)?;
            } else {
                segments.push(Self::segment(self.memory.mapped_address(home), place.device, port.bytes));
            }
        }
        let submit_ns = self.memory.host.device(0);
        let mut parts = segments.chunks(SEGMENTS_MAX);
        let first = FetchArguments::new(parts.next().unwrap_or(&[]), [self.memory.control(), self.clock, submit_ns]);
        line.kernel(self.transfers.fetch, &first.launch(), &first.encode())?;
        for part in parts {
            self.copy(line, part)?;
        }
        Ok(())
    }

    /// Copies without any note of time.
    fn copy(&self, line: &mut Line<'_>, segments: &[Segment]) -> Result<()> {
        let arguments = FetchArguments::new(segments, [0; 3]);
        line.kernel(self.transfers.fetch, &arguments.launch(), &arguments.encode())
    }

    fn finish(&self, line: &mut Line<'_>) -> Result<()> {
        let program = self.program.program();
        let mut segments = Vec::new();
        for (input, source) in self.sources.iter().enumerate() {
            let InputSource::Own(output) = source else { continue };
            let (from, to) = (&self.memory.outputs[*output], &self.memory.inputs[input]);
            segments.push(Self::segment(from.device, to.device, program.inputs[input].bytes));
        }
        for (place, port) in self.memory.outputs.iter().zip(&program.outputs) {
            let Some(home) = place.host.filter(|_| port.bytes > 0) else { continue };
            if port.bytes >= self.engines.outputs_from {
                let to = End::Host(self.memory.host_address(home));
                line.copy(End::Device(place.device), to, port.bytes)?;
            } else {
                segments.push(Self::segment(place.device, self.memory.mapped_address(home), port.bytes));
            }
        }
        let last = segments.len().saturating_sub(SEGMENTS_MAX);
        for part in segments[..last].chunks(SEGMENTS_MAX) {
            self.copy(line, part)?;
        }
        let arguments = FinishArguments::new(&segments[last..], self.memory.control(), self.record);
        line.kernel(self.transfers.finish, &arguments.launch(), &arguments.encode())
    }
}

/// Why a lane has its work.
const TAKEN: &str = "taken only when the lane is dropped";

/// What a lane leaves to whoever sees its last request end. Dropped in this order.
struct Work {
    replays: Vec<Replay>,
    stream: Stream,
    memory: Arc<CudaMemory>,
    /// What the stream waits for. A record is given to another lane once its last holder is gone, and begins anew: the GPU may look at
    /// it long after the request waited for has ended, as long as the stream has not come that far.
    followed: Vec<Mark>,
    _programs: Vec<Arc<LoadedProgram>>,
    _clock: Arc<DeviceMemory>,
}

impl Work {
    /// Lets the stream wait for marks that have not been reached, which are kept until it has. The last request has ended, and so the waits
    /// before it, unless some `straggle`.
    fn follow(&mut self, current: &Current<'_>, marks: &mut Vec<Mark>, straggle: bool) -> Result<()> {
        if !straggle {
            self.followed.clear();
        }
        for mark in marks.iter().filter(|mark| !mark.progress.has_reached(mark.ordinal)) {
            let record = mark.progress.mapped_record();
            let record = record.ok_or_else(|| fail!(Internal, "a mark that the GPU cannot see"))?;
            self.stream.wait_for(current, record.device() + transfer::RECORD_ENDED, mark.ordinal)?;
            // However often launches are refused, there are not more of them than lanes.
            if !self.followed.iter().any(|known| Arc::ptr_eq(&known.progress, &mark.progress)) {
                self.followed.push(mark.clone());
            }
        }
        marks.clear();
        Ok(())
    }
}

/// A context's stream on the GPU.
pub struct CudaLane {
    gpu: Arc<Gpu>,
    station: Arc<Station>,
    watch: Arc<Watch>,
    /// There until the lane is dropped.
    work: Option<Box<Work>>,
    /// Whether the driver has refused the last launch after it had taken waits for it.
    straggles: bool,
}

impl CudaLane {
    /// Takes memory and makes the replays. Each is run once, so that the first request is like any other.
    pub fn open(
        gpu: &Arc<Gpu>,
        watch: &Arc<Watch>,
        clock: &Arc<DeviceMemory>,
        engines: CopyEngines,
        order: LaneOrder,
    ) -> Result<Self> {
        let downcast = |program: &Arc<dyn crate::device::Program>| {
            let any: Arc<dyn Any + Send + Sync> = program.clone();
            any.downcast::<LoadedProgram>()
                .map_err(|_| fail!(Internal, "a lane of the GPU is given another device's program"))
        };
        let programs = order.programs.iter().map(downcast).collect::<Result<Vec<_>>>()?;
        let record = order.progress.mapped_record();
        let record = record.ok_or_else(|| fail!(Internal, "a lane of the GPU has a record that the GPU cannot see"))?;
        let memory = Arc::new(CudaMemory::new(gpu, &programs, &order)?);
        let partition = programs.first().and_then(|program| program.partition());
        let stream = Stream::new(gpu, order.priority, partition)?;
        let transfers = Transfers::load(gpu)?;
        let current = gpu.enter()?;
        stream.clear(&current, memory.device.address(), memory.device.bytes())?;
        let build = |program: &Arc<LoadedProgram>| {
            let (memory, sources) = (&*memory, &order.inputs[..]);
            let (record, clock) = (record.device(), clock.address());
            let builder = Builder { gpu, memory, program, sources, transfers, engines, record, clock };
            let replay = builder.build(&current, &stream)?;
            stream.launch(&current, &replay)?;
            stream.synchronize(&current)?;
            Ok(replay)
        };
        let built = programs.iter().map(build).collect::<Result<Vec<_>>>();
        if built.is_ok() {
            // Nothing of the first runs is left.
            stream.clear(&current, memory.device.address(), memory.device.bytes())?;
        }
        // Memory goes back to the pool if this fails, and must not be written any more.
        let ended = stream.synchronize(&current);
        let replays = built?;
        ended?;
        record.clear();
        drop(current);
        let station = Arc::new(Station::new(order.progress.clone(), order.sink, stream.name()));
        watch.enter(station.clone());
        let (clock, followed) = (clock.clone(), Vec::with_capacity(MARKS_MAX));
        let work = Some(Box::new(Work { replays, stream, memory, followed, _programs: programs, _clock: clock }));
        Ok(CudaLane { gpu: gpu.clone(), station, watch: watch.clone(), work, straggles: false })
    }

    fn work(&self) -> &Work {
        self.work.as_deref().expect(TAKEN)
    }

    fn ensure_quiet(&self) -> Result<()> {
        ensure!(self.station.is_quiet(), InFlight, "the context's memory is in use by the request in flight");
        Ok(())
    }

    /// Starts a request whose waits are in the stream.
    fn start(&self, current: &Current<'_>, launch: Launch) -> Result<()> {
        let work = self.work();
        let replay = work.replays.get(launch.bucket);
        let replay = replay.ok_or_else(|| fail!(Internal, "there is no replay {}", launch.bucket))?;
        let now = clock::monotonic_ns();
        work.memory.submit_ns().store(now, Relaxed);
        self.station.begin(launch.ordinal, launch.sequence, now);
        self.watch.launched();
        let answer = work.stream.launch(current, replay);
        self.station.answered(launch.ordinal, answer.is_err());
        answer
    }
}

impl Lane for CudaLane {
    fn arena_bytes(&self) -> usize {
        self.work().memory.device.bytes()
    }

    fn pinned_bytes(&self) -> usize {
        self.work().memory.host.bytes()
    }

    fn threads(&self) -> usize {
        0
    }

    fn memory(&self) -> Arc<dyn LaneMemory> {
        self.work().memory.clone()
    }

    fn input(&self, index: usize) -> Option<(*mut u8, usize)> {
        let memory = &self.work().memory;
        let place = memory.inputs[index];
        place.host.map(|home| (memory.host_address(home), place.bytes))
    }

    fn output(&self, index: usize) -> (*mut u8, usize) {
        let memory = &self.work().memory;
        let place = memory.outputs[index];
        (memory.host_address(place.host.unwrap_or(Home::Own(0))), place.bytes)
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
        // SAFETY: the lane's alone; only this lane's requests write there, and none runs.
        Ok(unsafe { std::slice::from_raw_parts(address, bytes) })
    }

    fn launch(&mut self, launch: Launch, marks: &mut Vec<Mark>) -> Result<()> {
        self.ensure_quiet()?;
        self.station.settle();
        let current = self.gpu.enter()?;
        let work = self.work.as_deref_mut().expect(TAKEN);
        let followed = work.follow(&current, marks, self.straggles);
        let launched = followed.and_then(|()| self.start(&current, launch));
        self.straggles = launched.is_err() && !self.work().followed.is_empty();
        launched
    }

    fn settle(&self) {
        self.station.settle();
    }
}

impl Drop for CudaLane {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            if self.straggles {
                self.station.straggle();
            }
            self.watch.leave(&self.station, work);
        }
    }
}
