//! What a device must do, and the devices.
//!
//! A device turns plans into loaded programs and opens lanes. A lane is one ordered stream with its own memory: it holds
//! one replay per bucket and runs one request at a time. How far it has come stands in its [`Progress`], which the host
//! and other lanes can wait for. The runtime above knows only the traits of this page.

pub mod cuda;
pub mod host;
mod progress;
mod shared;

pub use crate::lower::Precision;
pub use host::numa::Node;
pub use progress::{Outcome, Progress, Stamps};
pub use shared::{Attachment, Rectangle, RowLayout, RowMemory, SharedMemory};

use crate::error::{Result, Status};
use crate::ir::TensorType;
use crate::limits::{EVENT_WAITS_MAX, LINKS_MAX};
use crate::plan::Plan;
use host::HostRange;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPUs of this machine.
    Host,
    /// A CUDA GPU.
    Cuda,
}

/// A device in words and figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What kind it is.
    pub kind: DeviceKind,
    /// What an engine's options name it.
    pub id: String,
    /// The maker's name for it.
    pub name: String,
    /// CPUs that the process may use, or multiprocessors.
    pub processors: usize,
    /// Memory of the device.
    pub memory_bytes: u64,
    /// The memory node of the machine that a GPU hangs on, where there are several.
    pub node: Option<Node>,
}

/// Kernels that a device has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The family of kernels.
    pub family: &'static str,
    /// Whether the driver has compiled it from portable PTX; else it was machine code.
    pub is_compiled: bool,
    /// How long that took.
    pub load_ns: u64,
}

/// From which size on, in bytes, an input or output is moved by a copy engine of the GPU instead of by a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyEngines {
    /// Of an input.
    pub inputs_from: usize,
    /// Of an output.
    pub outputs_from: usize,
}

/// Whether a device can still be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// It works.
    Ok,
    /// It had a fault that may be its last.
    Suspect,
    /// It is lost for this process.
    Dead,
}

/// An opened device.
pub trait Device: Send + Sync {
    /// What it is.
    fn info(&self) -> DeviceInfo;
    /// Whether it works. One atomic read.
    fn state(&self) -> DeviceState;
    /// The kernels loaded so far, in order of family; a device whose kernels are part of the library has none.
    fn images(&self) -> Vec<ImageInfo> {
        Vec::new()
    }
    /// A place for the weights and programs of one model; `Unsupported` for a precision or a partition that the device has not.
    fn loader(&self, order: LoaderOrder) -> Result<Box<dyn Loader>>;
    /// Where a lane that is to be opened will say how far it has come.
    fn progress(&self) -> Result<Arc<Progress>> {
        Ok(Arc::default())
    }
    /// Takes the memory, starts the threads and makes the replays of one context.
    fn lane(&self, order: LaneOrder) -> Result<Box<dyn Lane>>;
    /// Counts the requests in flight on the device: of all engines of the process that have it open, where they share it.
    fn in_flight(&self) -> Arc<AtomicUsize> {
        Arc::default()
    }
    /// Takes zeroed memory that the host and the device both reach.
    fn pinned(&self, bytes: usize) -> Result<Arc<dyn SharedMemory>>;
    /// Lets the device reach a range of the host program's own memory; `InvalidArgument` for one that does not begin with a page, is
    /// not there, or is registered already.
    fn register(&self, range: HostRange) -> Result<Arc<dyn SharedMemory>>;
    /// Takes rows of device memory; what they hold is undefined.
    fn rows(&self, layout: &RowLayout) -> Result<Box<dyn RowMemory>>;
    /// Tells the sinks of requests that have ended and that nobody has waited for, where no thread of the device does.
    fn settle(&self) {}
}

/// The weights of one model at one precision, shared by its programs.
pub trait Loader: Send + Sync {
    /// Lowers a plan and loads its constants, each distinct one once.
    fn load(&self, plan: Plan) -> Result<Arc<dyn Program>>;
    /// Bytes of constants that programs hold.
    fn weights_bytes(&self) -> usize;
    /// Multiprocessors that its programs run on; 0 on a device that has none.
    fn multiprocessors(&self) -> usize;
}

/// What a loader is made for.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoaderOrder {
    /// Arithmetic and storage.
    pub precision: Precision,
    /// Multiprocessors at least, for these programs alone among those that ask for some; 0: all, shared.
    pub multiprocessors: usize,
}

/// Whose work a device that has both to do begins first. What has begun goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// When nothing else is to be done.
    Low,
    /// As others.
    #[default]
    Normal,
    /// Before others.
    High,
}

/// A program with its constants on the device. The device that made it finds its own type back through [`Any`].
pub trait Program: Any + Send + Sync {
    /// Per model input, its type in this bucket.
    fn inputs(&self) -> Vec<TensorType>;
    /// Per model output, its type in this bucket.
    fn outputs(&self) -> Vec<TensorType>;
    /// Equal for programs that give bit-identical results.
    fn fingerprint(&self) -> u128;
}

/// Where a lane finds one of its inputs.
#[derive(Clone)]
pub enum InputSource {
    /// In memory of its own that the host writes.
    Host,
    /// In another lane's output, which the memory keeps alive.
    Output(Arc<dyn LaneMemory>, usize),
    /// In its own output of the request before; zero at first.
    Own(usize),
    /// In memory that the host program has taken or lent.
    Attached(Attachment),
}

/// The memory of a prepared lane. It lives as long as a lane that reads or writes it.
pub trait LaneMemory: Any + Send + Sync {}

/// What a lane is opened with.
pub struct LaneOrder {
    /// One program per bucket, at least one; all of one model.
    pub programs: Vec<Arc<dyn Program>>,
    /// Per model input.
    pub inputs: Vec<InputSource>,
    /// Per model output, where it lies if not in memory of the lane's own; those that are missing do.
    pub outputs: Vec<Option<Attachment>>,
    /// Host threads to compute with; other devices take no notice.
    pub threads: usize,
    /// Before whose work a GPU begins this lane's; the host device takes no notice, for its threads are the system's to schedule.
    pub priority: Priority,
    /// Where the lane says how far it has come.
    pub progress: Arc<Progress>,
    /// Told when a request has ended; dropped when the lane's memory is.
    pub sink: Arc<dyn Sink>,
    /// Makes writing to an input fault while a request runs, where the device can.
    pub guard_inputs: bool,
}

/// Learns that requests end. Called on a thread of the device, on the thread that runs a request itself, or on one that has
/// seen its end; it neither blocks nor allocates.
pub trait Sink: Send + Sync {
    /// A request ends: no later than its caller is told.
    fn ending(&self, status: Status);
    /// The request has ended; the lane's [`Progress`] says so already, and the lane may run the next one.
    fn ended(&self, ordinal: u64, status: Status);
    /// Whether somebody waits to be told without looking himself.
    fn is_awaited(&self) -> bool;
}

/// One request for a lane.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Which replay.
    pub bucket: usize,
    /// The request's number.
    pub sequence: u32,
    /// The request's position among all of this lane, from 1.
    pub ordinal: u64,
    /// When it is no longer to be started, `CLOCK_MONOTONIC` nanoseconds; 0: never.
    pub deadline_ns: u64,
}

/// A moment in a lane's order of work: the end of the request with this ordinal.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The lane's progress.
    pub progress: Arc<Progress>,
    /// The request; 0 is before the first.
    pub ordinal: u64,
}

/// Marks that one request can wait for: of events, of the contexts that it reads from, and of its readers.
pub const MARKS_MAX: usize = EVENT_WAITS_MAX + 2 * LINKS_MAX;

/// One ordered stream. Dropping it lets a request in flight come to its end, and does not wait for that.
pub trait Lane: Send {
    /// Bytes of intermediate tensors and working memory.
    fn arena_bytes(&self) -> usize;
    /// Bytes of inputs and outputs in host memory.
    fn pinned_bytes(&self) -> usize;
    /// Threads started.
    fn threads(&self) -> usize;
    /// The memory, for a lane that takes one of this lane's outputs as input.
    fn memory(&self) -> Arc<dyn LaneMemory>;
    /// Where an input lies and how many bytes there are; `None` if it is another lane's output.
    fn input(&self, index: usize) -> Option<(*mut u8, usize)>;
    /// Where an output lies and how many bytes there are.
    fn output(&self, index: usize) -> (*mut u8, usize);
    /// An input's bytes. `InFlight` while a request runs, `WrongState` for an input that is linked.
    fn input_bytes(&mut self, index: usize) -> Result<&mut [u8]>;
    /// An output's bytes. `InFlight` while a request runs.
    fn output_bytes(&self, index: usize) -> Result<&[u8]>;
    /// Starts a request behind `marks`, which are taken out, and returns at once. No request is running.
    fn launch(&mut self, launch: Launch, marks: &mut Vec<Mark>) -> Result<()>;
    /// Starts a request as [`Lane::launch`] does, and may compute on this thread: the request may have ended on return.
    fn run(&mut self, launch: Launch, marks: &mut Vec<Mark>) -> Result<()> {
        self.launch(launch, marks)
    }
    /// The host has seen in the [`Progress`] that the last request has ended: its sink is told, unless a thread of the device
    /// has told it.
    fn settle(&self) {}
}
