//! A GPU as a device.

use super::gpu::{self, Gpu};
use super::graph::Stream;
use super::lane::{COPY_ENGINES, CudaLane};
use super::memory::DeviceMemory;
use super::program::CudaLoader;
use super::reactor::Reactor;
use super::record::Records;
use super::registered::MappedRange;
use super::rows::CudaRows;
use crate::device::host::HostRange;
use crate::device::host::process::Local;
use crate::device::{
    CopyEngines, Device, DeviceInfo, DeviceState, ImageInfo, Lane, LaneOrder, Loader, LoaderOrder, Priority, Progress,
    RowLayout, RowMemory, SharedMemory,
};
use crate::error::Result;
use crate::kernels::entry::transfer::Clock;
use crate::kernels::entry::{Arguments, Field};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// A GPU, opened for one engine. A forked child has no thread that looks after it, and leaves to the parent what that thread shares with lanes.
pub struct CudaDevice {
    reactor: Local<Reactor>,
    records: Local<Records>,
    /// What its lanes know of the GPU's clock.
    clock: Arc<DeviceMemory>,
    engines: CopyEngines,
    gpu: Arc<Gpu>,
}

impl CudaDevice {
    /// Opens the GPU called `cuda:N`, `GPU-...` or `MIG-...`. `engines` is for who measures; else what was found best.
    ///
    /// # Errors
    /// `NoDevice` with what is missing, `Unsupported` for a GPU that is too old, `Driver`, `OutOfMemory`.
    pub fn open(name: &str, engines: Option<CopyEngines>) -> Result<Self> {
        let gpu = Gpu::open(name)?;
        let clock = Arc::new(DeviceMemory::take(&gpu, Clock::BYTES)?);
        let stream = Stream::new(&gpu, Priority::Normal, None)?;
        stream.upload(&gpu.enter()?, clock.address(), &Clock::unknown().encode())?;
        let (reactor, engines) = (Local::new(Reactor::start(&gpu)?), engines.unwrap_or(COPY_ENGINES));
        Ok(CudaDevice { reactor, records: Local::default(), clock, engines, gpu })
    }

    /// The GPUs that this process may use; an error says why there is none.
    pub fn list() -> Result<Vec<DeviceInfo>> {
        Ok(gpu::list()?.iter().map(|identity| identity.info()).collect())
    }
}

impl Device for CudaDevice {
    fn info(&self) -> DeviceInfo {
        self.gpu.identity().info()
    }

    fn state(&self) -> DeviceState {
        self.gpu.state()
    }

    fn images(&self) -> Vec<ImageInfo> {
        self.gpu.modules.images()
    }

    fn loader(&self, order: LoaderOrder) -> Result<Box<dyn Loader>> {
        Ok(Box::new(CudaLoader::new(&self.gpu, order)?))
    }

    fn progress(&self) -> Result<Arc<Progress>> {
        self.gpu.ensure_here()?;
        let record = self.records.take(&self.gpu)?;
        Ok(Arc::new(Progress::mapped(record, self.reactor.watch().clone())))
    }

    fn lane(&self, order: LaneOrder) -> Result<Box<dyn Lane>> {
        self.gpu.ensure_here()?;
        let lane = CudaLane::open(&self.gpu, self.reactor.watch(), &self.clock, self.engines, order)?;
        Ok(Box::new(Local::new(lane)))
    }

    fn in_flight(&self) -> Arc<AtomicUsize> {
        self.gpu.in_flight.clone()
    }

    fn pinned(&self, bytes: usize) -> Result<Arc<dyn SharedMemory>> {
        Ok(Arc::new(MappedRange::pinned(&self.gpu, bytes)?))
    }

    fn register(&self, range: HostRange) -> Result<Arc<dyn SharedMemory>> {
        Ok(Arc::new(MappedRange::registered(&self.gpu, range)?))
    }

    fn rows(&self, layout: &RowLayout) -> Result<Box<dyn RowMemory>> {
        Ok(Box::new(CudaRows::take(&self.gpu, layout)?))
    }

    fn settle(&self) {
        self.gpu.settle();
    }
}
