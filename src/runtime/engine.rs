//! Engines: one opened device with its accounts, permits and completion queue.

use super::bucket::Bucket;
use super::completion::{Completion, CompletionQueue};
use super::ledger::{Account, Ledger};
use super::memory::Registrations;
use super::model::{InputInfo, Model, ModelOptions};
use super::seat::Seat;
use super::source::Source;
use super::timer::Timer;
use crate::device::cuda::CudaDevice;
use crate::device::host::{HostDevice, process};
use crate::device::{CopyEngines, Device, DeviceInfo, DeviceState, ImageInfo};
use crate::error::{Error, Result, ensure, fail};
use crate::limits::{CONTEXT_THREADS_MAX, CONTEXTS_DEFAULT, CONTEXTS_MAX};
use bytes::Bytes;
use once_cell::sync::OnceCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

/// How an engine is opened.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// `host`, `cuda:0`, a GPU's UUID, or `auto` for the first GPU and else the host; empty: `auto`.
    pub device: String,
    /// Host threads that a context computes with unless its own options say otherwise; 0: 1.
    pub threads: usize,
    /// Requests in flight on the device at once, on a GPU with those of all engines of this process; 0: no bound.
    pub in_flight_max: usize,
    /// Contexts, freed ones whose completion has not been reaped, and slots of batchers; 0: [`CONTEXTS_DEFAULT`].
    pub contexts_max: usize,
    /// Bytes of weights, arenas, inputs, outputs and memories (but registered ones) together; 0: no bound.
    pub memory_bytes_max: u64,
    /// For development: whoever writes to a context's input while its request runs faults there and then, on the host device. It
    /// costs two system calls a request.
    pub guard_inputs: bool,
    /// For measurements: which inputs and outputs a GPU's copy engines move. `None`: those that they move faster.
    #[doc(hidden)]
    pub copy_engines: Option<CopyEngines>,
}

/// What is alive and what it takes, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Whether the device works.
    pub device_state: DeviceState,
    /// Models alive, used by a context or by a handle.
    pub models: u64,
    /// Contexts alive, those included that are dropped and not drained.
    pub contexts: u64,
    /// Events alive.
    pub events: u64,
    /// Batchers alive.
    pub batchers: u64,
    /// Memories alive, used by a context or by a handle.
    pub memories: u64,
    /// Threads of contexts, and the one that closes batches.
    pub threads: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Completions that wait to be reaped.
    pub completions: u64,
    /// Bytes of weights, packed.
    pub weights_bytes: u64,
    /// Bytes of model files kept.
    pub retained_bytes: u64,
    /// Bytes of arenas.
    pub arena_bytes: u64,
    /// Bytes of inputs and outputs.
    pub pinned_bytes: u64,
    /// Bytes of memories, registered ones left out.
    pub memory_bytes: u64,
    /// Bytes of registered memories.
    pub registered_bytes: u64,
    /// Requests ended.
    pub requests: u64,
    /// Those of them that did not end with `Ok`.
    pub failures: u64,
}

/// The devices of this machine, the host last.
pub fn devices() -> Vec<DeviceInfo> {
    let mut devices = gpus().unwrap_or_default();
    devices.push(HostDevice::open().info());
    devices
}

/// The GPUs of this machine; an error says why none can be used.
///
/// # Errors
/// `NoDevice` (no driver, or one that is too old), `Driver`.
pub fn gpus() -> Result<Vec<DeviceInfo>> {
    CudaDevice::list()
}

/// What models, contexts and events share of an engine.
pub struct EngineCore {
    /// The process that opened it.
    process: u64,
    pub(super) device: Box<dyn Device>,
    /// Why `auto` has taken the host.
    passed_over: Option<Error>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) queue: Arc<CompletionQueue>,
    pub(super) threads: usize,
    pub(super) guard_inputs: bool,
    /// Held while a linked context is given a request, so that requests of linked contexts have one order.
    pub(super) link_order: Mutex<()>,
    permits: Permits,
    /// Ranges of the host program's own memory.
    pub(super) registrations: Arc<Registrations>,
    seats: Arc<AtomicUsize>,
    contexts_max: usize,
    /// The last context named.
    contexts: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    /// Started with the first batcher.
    timer: OnceCell<Timer>,
}

/// Requests in flight, bounded.
struct Permits {
    /// Those of this engine.
    taken: AtomicUsize,
    /// Those of the device.
    device: Arc<AtomicUsize>,
    limit: usize,
}

impl Permits {
    fn take(&self) -> bool {
        let next = |count: usize| (count < self.limit).then_some(count + 1);
        let granted = self.device.fetch_update(Relaxed, Relaxed, next).is_ok();
        if granted {
            self.taken.fetch_add(1, Relaxed);
        }
        granted
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Relaxed);
        self.device.fetch_sub(1, Relaxed);
    }
}

impl EngineCore {
    /// The right to have one more request in flight; `Again` when all are out. Given back by [`EngineCore::request_ended`].
    pub fn take_permit(&self) -> Result<()> {
        if !self.permits.take() {
            // Requests may have ended that nobody has looked at.
            self.device.settle();
            if self.permits.take() {
                return Ok(());
            }
            let Permits { device, limit, .. } = &self.permits;
            let count = device.load(Relaxed);
            return Err(fail!(Again, "{count} requests are in flight on the device, and this engine allows {limit}"));
        }
        Ok(())
    }

    /// A permit that was not used.
    pub fn give_back_permit(&self) {
        self.permits.give_back();
    }

    /// A request has ended.
    pub fn request_ended(&self, is_failure: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.failures.fetch_add(is_failure.into(), Relaxed);
        self.give_back_permit();
    }

    /// Places for so many contexts or slots.
    pub fn seats(&self, places: usize) -> Result<Seat> {
        Seat::take(&self.seats, self.contexts_max, places)
    }

    /// The thread that closes batches.
    pub fn timer(&self) -> Result<&Timer> {
        self.timer.get_or_try_init(|| Timer::start(self.ledger.enter(Account::Threads, 1)?))
    }

    /// A name for one more context or batcher.
    pub fn context_id(&self) -> u64 {
        self.contexts.fetch_add(1, Relaxed) + 1
    }

    /// `DeviceLost` once the device is dead.
    #[inline]
    pub fn ensure_alive(&self) -> Result<()> {
        if self.device.state() == DeviceState::Dead { Err(lost()) } else { Ok(()) }
    }

    fn is_here(&self) -> bool {
        process::number() == self.process
    }

    /// `DeviceLost` in a child of the process that opened the engine. Calls that may use a lost device otherwise ask this before they wait for
    /// something that another thread may have had at the fork.
    pub fn ensure_here(&self) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(lost()) }
    }
}

#[cold]
#[inline(never)]
fn lost() -> Error {
    fail!(
        DeviceLost,
        "the device is lost: restart this process or, if it was forked from the one that opened the engine, open another"
    )
}

impl Drop for EngineCore {
    fn drop(&mut self) {
        // Completions that nobody will reap hold requests, which hold the queue. A forked child leaves it as another thread may have left it.
        if self.is_here() {
            self.queue.close();
        }
    }
}

/// One opened device. Cloning gives a second handle.
#[derive(Clone)]
pub struct Engine {
    pub(super) core: Arc<EngineCore>,
}

impl Engine {
    /// Opens a device.
    ///
    /// # Errors
    /// `NoDevice` with what was looked for, `InvalidArgument`, `Driver`.
    pub fn open(options: &EngineOptions) -> Result<Engine> {
        let (device, passed_over) = open_device(&options.device, options.copy_engines)?;
        let threads = options.threads.max(1);
        ensure!(threads <= CONTEXT_THREADS_MAX, InvalidArgument, "{threads} threads are above {CONTEXT_THREADS_MAX}");
        let contexts_max = if options.contexts_max == 0 { CONTEXTS_DEFAULT } else { options.contexts_max };
        ensure!(contexts_max <= CONTEXTS_MAX, InvalidArgument, "{contexts_max} contexts are above {CONTEXTS_MAX}");
        let bytes_max = if options.memory_bytes_max == 0 { u64::MAX } else { options.memory_bytes_max };
        let limit = if options.in_flight_max == 0 { usize::MAX } else { options.in_flight_max };
        let permits = Permits { taken: AtomicUsize::new(0), device: device.in_flight(), limit };
        let core = EngineCore {
            process: process::number(),
            device,
            passed_over,
            ledger: Ledger::new(bytes_max),
            queue: Arc::new(CompletionQueue::new(contexts_max)?),
            threads,
            guard_inputs: options.guard_inputs,
            link_order: Mutex::new(()),
            permits,
            registrations: Arc::default(),
            seats: Arc::default(),
            contexts_max,
            contexts: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            timer: OnceCell::new(),
        };
        Ok(Engine { core: Arc::new(core) })
    }

    /// Loads an ONNX file.
    ///
    /// # Errors
    /// Those of [`crate::ir::import::load`] and of planning, each naming the node at fault.
    pub fn load(&self, path: impl AsRef<Path>, options: &ModelOptions) -> Result<Model> {
        Model::load(&self.core, Source::file(path.as_ref()), options, |_| Ok(Vec::new()))
    }

    /// Loads an ONNX file for buckets, beside those of the options, that are chosen once its inputs are known.
    ///
    /// # Errors
    /// As [`Engine::load`], and those of `choose`.
    pub fn load_for(
        &self,
        path: impl AsRef<Path>,
        options: &ModelOptions,
        choose: impl FnOnce(&[InputInfo]) -> Result<Vec<Bucket>>,
    ) -> Result<Model> {
        Model::load(&self.core, Source::file(path.as_ref()), options, choose)
    }

    /// Loads an ONNX file from memory; the model keeps the bytes.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_bytes(&self, bytes: Bytes, options: &ModelOptions) -> Result<Model> {
        Model::load(&self.core, Source::Memory(bytes), options, |_| Ok(Vec::new()))
    }

    /// The device.
    pub fn device(&self) -> DeviceInfo {
        self.core.device.info()
    }

    /// The kernels that the device has loaded so far, and how: with portable PTX the first load takes the driver seconds.
    pub fn images(&self) -> Vec<ImageInfo> {
        self.core.device.images()
    }

    /// Why `auto` has taken the host instead of a GPU.
    pub fn passed_over(&self) -> Option<&Error> {
        self.core.passed_over.as_ref()
    }

    /// What is alive.
    pub fn stats(&self) -> Stats {
        let total = |account| self.core.ledger.total(account);
        Stats {
            device_state: self.core.device.state(),
            models: total(Account::Models),
            contexts: total(Account::Contexts),
            events: total(Account::Events),
            batchers: total(Account::Batchers),
            memories: total(Account::Memories),
            threads: total(Account::Threads),
            in_flight: self.core.permits.taken.load(Relaxed) as u64,
            completions: self.core.queue.len() as u64,
            weights_bytes: total(Account::Weights),
            retained_bytes: total(Account::Retained),
            arena_bytes: total(Account::Arenas),
            pinned_bytes: total(Account::Pinned),
            memory_bytes: total(Account::Memory),
            registered_bytes: total(Account::Registered),
            requests: self.core.requests.load(Relaxed),
            failures: self.core.failures.load(Relaxed),
        }
    }

    /// A fresh non-blocking descriptor that is readable while completions wait.
    ///
    /// # Errors
    /// `Driver` when the process has no descriptor left.
    pub fn completion_descriptor(&self) -> Result<OwnedFd> {
        self.core.queue.descriptor()
    }

    /// Takes at most `count` completions out of the queue, oldest first, and answers how many. Each is given once. In a forked child there are
    /// none: they are the parent's, and so is the descriptor's signal, which both see.
    pub fn reap(&self, count: usize, accept: impl FnMut(Completion)) -> usize {
        if self.core.is_here() { self.core.queue.reap(count, accept) } else { 0 }
    }
}

/// The device of that name; of `auto` also why it is not a GPU.
fn open_device(name: &str, engines: Option<CopyEngines>) -> Result<(Box<dyn Device>, Option<Error>)> {
    match name {
        "" | "auto" => Ok(match CudaDevice::open("cuda:0", engines) {
            Ok(gpu) => (Box::new(gpu), None),
            Err(error) => (Box::new(HostDevice::open()), Some(error)),
        }),
        "host" => Ok((Box::new(HostDevice::open()), None)),
        _ if name.starts_with("cuda:") || name.starts_with("GPU-") || name.starts_with("MIG-") => {
            let gpu =
                CudaDevice::open(name, engines).map_err(|error| error.within(format_args!("no device '{name}'")))?;
            Ok((Box::new(gpu), None))
        }
        _ => Err(fail!(
            InvalidArgument,
            "'{name}' names no device; there are 'auto', 'host', 'cuda:N' and a GPU's UUID ('GPU-...', 'MIG-...')"
        )),
    }
}
