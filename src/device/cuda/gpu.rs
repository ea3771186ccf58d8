//! One GPU of this process: its primary context, whether it still works, and the memory and modules that all engines on it share.

use super::fault::Fault;
use super::memory::Pools;
use super::module::Modules;
use super::partition::Partitions;
use super::reactor::Watch;
use super::sys::{
    self, ATTRIBUTE_CAPABILITY_MAJOR, ATTRIBUTE_CAPABILITY_MINOR, ATTRIBUTE_MULTIPROCESSORS,
    ATTRIBUTE_SHARED_BYTES_MAX, CuContext, CuDevice, CuResult, CuUuid, Table,
};
use crate::device::host::numa;
use crate::device::host::process::{self, Lock};
use crate::device::{DeviceInfo, DeviceKind, DeviceState, Node};
use crate::error::{Result, ensure, fail};
use crate::lower::cuda::Traits;
use std::ffi::{CStr, c_char, c_int};
use std::fmt::Write;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// Results after which a context is lost for the process, as the driver's manual says of each; and 214 and 220, memory or links that
/// gave wrong bits while kernels ran.
const FATAL: [CuResult; 14] = [214, 220, 226, 700, 702, 714, 715, 716, 717, 718, 719, 721, 810, 911];

/// The oldest GPU with kernels in this library.
const CAPABILITY_MIN: (u32, u32) = (8, 0);

/// The driver, loaded and started when it is first needed. A failure is tried again: a driver may appear. Once it has been started in a
/// process it does not work in a child of that one, and is not called there.
fn table() -> Result<&'static Table> {
    static TABLE: OnceLock<Table> = OnceLock::new();
    /// The process that starts it; 0: none has.
    static STARTED_BY: AtomicU64 = AtomicU64::new(0);
    let here = process::number();
    let owner = STARTED_BY.load(SeqCst);
    // Before anything that another thread may have been about to do at the fork.
    ensure_started_by(owner, here)?;
    if owner == here
        && let Some(table) = TABLE.get()
    {
        return Ok(table);
    }
    let table = Table::load()?;
    if let Err(owner) = STARTED_BY.compare_exchange(0, here, SeqCst, SeqCst) {
        ensure_started_by(owner, here)?;
    }
    // Threads that come here at once all start it, which is allowed, and one table stays.
    let table = sys::start(table)?;
    Ok(TABLE.get_or_init(|| table))
}

fn ensure_started_by(owner: u64, here: u64) -> Result<()> {
    ensure!(
        owner == 0 || owner == here,
        NoDevice,
        "this process was forked from one that had started the NVIDIA driver, which does not work in a child"
    );
    Ok(())
}

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its index in this process.
    pub index: usize,
    device: CuDevice,
    /// The maker's name.
    pub name: String,
    /// `GPU-...`, or `MIG-...` for a slice of one.
    pub uuid: String,
    /// Device memory.
    pub memory_bytes: u64,
    /// The memory node that it hangs on, where the machine has several.
    pub node: Option<Node>,
    /// What lowering needs to know.
    pub traits: Traits,
}

impl Identity {
    fn of(table: &Table, index: usize) -> Result<Identity> {
        let mut device = 0;
        // SAFETY: the driver stores a number.
        table.check(unsafe { table.device(&raw mut device, index as c_int) }, "cuDeviceGet")?;
        let attribute = |attribute: c_int| {
            let mut value = 0;
            // SAFETY: the driver stores a number.
            let code = unsafe { table.device_attribute(&raw mut value, attribute, device) };
            table.check(code, "cuDeviceGetAttribute").map(|()| value as u32)
        };
        let mut text = [0 as c_char; 256];
        let (mut uuid, mut memory_bytes) = (CuUuid::default(), 0usize);
        // SAFETY: the driver stores at most 256 characters with their end.
        let bus = unsafe {
            table.check(table.device_bus(text.as_mut_ptr(), 256, device), "cuDeviceGetPCIBusId")?;
            CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
        };
        // SAFETY: as above, an identifier and a number.
        let name = unsafe {
            table.check(table.device_name(text.as_mut_ptr(), 256, device), "cuDeviceGetName")?;
            table.check(table.device_uuid(&raw mut uuid, device), "cuDeviceGetUuid")?;
            table.check(table.device_memory(&raw mut memory_bytes, device), "cuDeviceTotalMem")?;
            CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
        };
        // The driver names a slice like "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
        let prefix = if name.contains(" MIG ") { "MIG" } else { "GPU" };
        Ok(Identity {
            index,
            device,
            uuid: uuid_text(prefix, &uuid),
            name,
            memory_bytes: memory_bytes as u64,
            node: numa::node_of(Path::new(numa::SYS), &bus),
            traits: Traits {
                multiprocessors: attribute(ATTRIBUTE_MULTIPROCESSORS)?,
                capability: (attribute(ATTRIBUTE_CAPABILITY_MAJOR)?, attribute(ATTRIBUTE_CAPABILITY_MINOR)?),
                shared_bytes_max: attribute(ATTRIBUTE_SHARED_BYTES_MAX)?,
            },
        })
    }

    /// In the words of the runtime.
    pub fn info(&self) -> DeviceInfo {
        DeviceInfo {
            kind: DeviceKind::Cuda,
            id: format!("cuda:{}", self.index),
            name: self.name.clone(),
            processors: self.traits.multiprocessors as usize,
            memory_bytes: self.memory_bytes,
            node: self.node.clone(),
        }
    }
}

/// `GPU-01234567-89ab-cdef-0123-456789abcdef`
fn uuid_text(prefix: &str, uuid: &CuUuid) -> String {
    let mut text = prefix.to_owned();
    for (index, byte) in uuid.bytes.iter().enumerate() {
        let dash = if matches!(index, 0 | 4 | 6 | 8 | 10) { "-" } else { "" };
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}

/// The GPUs that this process may use.
pub fn list() -> Result<Vec<Identity>> {
    let table = table()?;
    let mut count = 0;
    // SAFETY: the driver stores a number.
    table.check(unsafe { table.device_count(&raw mut count) }, "cuDeviceGetCount")?;
    (0..count.max(0) as usize).map(|index| Identity::of(table, index)).collect()
}

/// The GPU called `cuda:N`, `GPU-...` or `MIG-...`; an identifier may be cut short while it stays unique.
fn find(name: &str) -> Result<Identity> {
    let mut gpus = list()?;
    let known = || match gpus.len() {
        0 => "the driver shows none to this process (CUDA_VISIBLE_DEVICES may hide them)".to_owned(),
        _ => gpus.iter().map(|gpu| format!("cuda:{} = {}", gpu.index, gpu.uuid)).collect::<Vec<_>>().join(", "),
    };
    let matches = |gpu: &Identity| match name.strip_prefix("cuda:") {
        Some(number) => number.parse() == Ok(gpu.index),
        None => gpu.uuid.starts_with(name),
    };
    let found: Vec<usize> = (0..gpus.len()).filter(|&index| matches(&gpus[index])).collect();
    ensure!(!found.is_empty(), NoDevice, "there is no GPU '{name}': {}", known());
    ensure!(found.len() == 1, InvalidArgument, "'{name}' names several GPUs: {}", known());
    Ok(gpus.swap_remove(found[0]))
}

/// An opened GPU, one for all engines of the process that use it.
pub struct Gpu {
    /// The process that opened it. In a child of that one it is lost, and nothing calls the driver.
    process: u64,
    table: &'static Table,
    identity: Identity,
    context: CuContext,
    pub(super) fault: Fault,
    pub(super) pools: Pools,
    pub(super) modules: Modules,
    pub(super) partitions: Partitions,
    /// Requests in flight, of all engines.
    pub(super) in_flight: Arc<AtomicUsize>,
    /// What looks after them, one for each engine.
    watches: Lock<Vec<Weak<Watch>>>,
}

// SAFETY: the context is a handle that any thread may make current; the rest is `Sync`.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

/// The GPU's context is this thread's current one; dropping it gives the thread its former context back.
pub struct Current<'a> {
    gpu: &'a Gpu,
    /// Belongs to one thread.
    _thread: PhantomData<*const ()>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut former = std::ptr::null_mut();
        // SAFETY: pushed by this thread.
        unsafe { self.gpu.table.context_pop(&raw mut former) };
    }
}

impl Gpu {
    /// Opens a GPU by name, or finds it open.
    pub fn open(name: &str) -> Result<Arc<Gpu>> {
        static OPEN: Mutex<Vec<(CuDevice, Weak<Gpu>)>> = Mutex::new(Vec::new());
        let identity = find(name)?;
        let (major, minor) = identity.traits.capability;
        ensure!(
            (major, minor) >= CAPABILITY_MIN,
            Unsupported,
            "{} has compute capability {major}.{minor}; this library needs {}.{} or newer",
            identity.name,
            CAPABILITY_MIN.0,
            CAPABILITY_MIN.1
        );
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, gpu)| gpu.strong_count() > 0);
        let known = open.iter().find(|(device, _)| *device == identity.device).and_then(|(_, gpu)| gpu.upgrade());
        if let Some(gpu) = known {
            return Ok(gpu);
        }
        let table = table()?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the driver stores a handle.
        let code = unsafe { table.context_retain(&raw mut context, identity.device) };
        table.check(code, "cuDevicePrimaryCtxRetain").map_err(|error| error.within(&identity.name))?;
        let device = identity.device;
        let gpu = Arc::new(Gpu {
            process: process::number(),
            table,
            identity,
            context,
            fault: Fault::default(),
            pools: Pools::default(),
            modules: Modules::default(),
            partitions: Partitions::default(),
            in_flight: Arc::default(),
            watches: Lock::default(),
        });
        open.push((device, Arc::downgrade(&gpu)));
        Ok(gpu)
    }

    /// One more engine looks after its requests.
    pub(super) fn enter_watch(&self, watch: &Arc<Watch>) {
        let Ok(mut watches) = self.watches.lock() else { return };
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(Arc::downgrade(watch));
    }

    /// Tells the sinks of all requests that have ended, whichever engine they are of. Nothing is allocated or torn down: it is called
    /// while a request is submitted.
    pub(super) fn settle(&self) {
        // In a child nothing ends, and what the watches guard may be held for ever.
        if !self.is_here() {
            return;
        }
        let watch = |index: usize| self.watches.lock().ok()?.get(index).map(Weak::upgrade);
        (0..).map_while(watch).flatten().for_each(|watch| watch.settle_stations());
    }

    /// What it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The device, as the driver names it.
    pub(super) fn device(&self) -> CuDevice {
        self.identity.device
    }

    /// The context, to be named in graphs.
    pub(super) fn context(&self) -> CuContext {
        self.context
    }

    /// Whether this is the process that opened it, and not a child of that one.
    fn is_here(&self) -> bool {
        process::number() == self.process
    }

    /// Whether it works. Two atomic reads.
    #[inline]
    pub fn state(&self) -> DeviceState {
        if self.is_here() { self.fault.state() } else { DeviceState::Dead }
    }

    /// `DeviceLost` in a child of the process that opened it, where neither its threads are nor, perhaps, the memory that the driver has mapped.
    pub fn ensure_here(&self) -> Result<()> {
        let name = &self.identity.name;
        ensure!(self.is_here(), DeviceLost, "{name} is lost: this process was forked from the one that opened it");
        Ok(())
    }

    /// Makes the GPU's context current for this thread. `DeviceLost` once the GPU is dead, and in a forked child: then the driver is
    /// called no more.
    pub fn enter(&self) -> Result<Current<'_>> {
        self.ensure_here()?;
        if let Some(fault) = self.fault.fatal() {
            let mut error = fail!(DeviceLost, "{} is lost: {}", self.identity.name, self.table.describe(fault));
            error.native = fault;
            return Err(error);
        }
        // SAFETY: the context lives as long as `self`.
        self.check(unsafe { self.table.context_push(self.context) }, "cuCtxPushCurrent")?;
        Ok(Current { gpu: self, _thread: PhantomData })
    }

    /// An error unless the driver has answered with success. A fatal answer is remembered.
    fn check(&self, code: CuResult, what: &str) -> Result<()> {
        if FATAL.contains(&code) {
            self.fault.lose(code);
        }
        self.table.check(code, what).map_err(|error| {
            let lost = FATAL.contains(&code);
            if lost { crate::error::Error { status: crate::error::Status::DeviceLost, ..error } } else { error }
        })
    }
}

impl Current<'_> {
    /// The GPU's compute capability.
    pub fn capability(&self) -> (u32, u32) {
        self.gpu.identity.traits.capability
    }

    /// The device, as the driver names it.
    pub(super) fn device(&self) -> CuDevice {
        self.gpu.identity.device
    }

    /// The driver's functions.
    pub fn table(&self) -> &'static Table {
        self.gpu.table
    }

    /// As [`Table::check`]; a fatal answer makes the GPU dead.
    pub fn check(&self, code: CuResult, what: &str) -> Result<()> {
        self.gpu.check(code, what)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if let Ok(current) = self.enter() {
            self.modules.unload(&current);
            self.pools.empty(&current);
        }
        if self.state() != DeviceState::Dead {
            // SAFETY: retained once, and nothing of it is left.
            unsafe { self.table.context_release(self.identity.device) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_written_as_the_drivers_tools_write_them() {
        let bytes = std::array::from_fn(|index| 0x11 * index as u8);
        let text = uuid_text("GPU", &CuUuid { bytes });
        assert_eq!(text, "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}
