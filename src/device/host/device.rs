//! The host as a device.

use super::program::LoadedProgram;
use super::quarantine::Quarantine;
use super::stream::HostLane;
use super::weights::WeightStore;
use super::{HostRange, check_range, process, processors, shared, traits};
use crate::device::{
    Device, DeviceInfo, DeviceKind, DeviceState, Lane, LaneOrder, Loader, LoaderOrder, Precision, Program, RowLayout,
    RowMemory, SharedMemory,
};
use crate::error::{Result, ensure, fail};
use crate::ir::TensorType;
use crate::lower;
use crate::plan::Plan;
use std::fs;
use std::sync::Arc;

/// The CPUs of this machine, as the process that opened them has them.
#[derive(Debug)]
pub struct HostDevice {
    process: u64,
    /// Addresses of contexts that are gone.
    quarantine: Arc<Quarantine>,
}

impl HostDevice {
    /// The device for this process. A forked child has none of its threads.
    pub fn open() -> Self {
        HostDevice { process: process::number(), quarantine: Arc::default() }
    }
}

impl Device for HostDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            kind: DeviceKind::Host,
            id: "host".into(),
            name: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            processors: processors::count(),
            memory_bytes: memory_bytes(),
            node: None,
        }
    }

    fn state(&self) -> DeviceState {
        if process::number() == self.process { DeviceState::Ok } else { DeviceState::Dead }
    }

    fn loader(&self, order: LoaderOrder) -> Result<Box<dyn Loader>> {
        ensure!(
            order.precision == Precision::Fp32,
            Unsupported,
            "the host device computes in fp32; {} needs a GPU",
            order.precision.name()
        );
        ensure!(
            order.multiprocessors == 0,
            Unsupported,
            "{} multiprocessors are asked for, and the host device has none: a context's threads are its share of the host",
            order.multiprocessors
        );
        Ok(Box::<HostLoader>::default())
    }

    fn lane(&self, order: LaneOrder) -> Result<Box<dyn Lane>> {
        Ok(Box::new(HostLane::open(order, &self.quarantine)?))
    }

    fn pinned(&self, bytes: usize) -> Result<Arc<dyn SharedMemory>> {
        shared::pinned(bytes, &self.quarantine)
    }

    fn register(&self, range: HostRange) -> Result<Arc<dyn SharedMemory>> {
        check_range(&range)?;
        shared::registered(range)
    }

    fn rows(&self, layout: &RowLayout) -> Result<Box<dyn RowMemory>> {
        shared::rows(layout, &self.quarantine)
    }
}

/// The value of a `name : value` line of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_bytes() -> u64 {
    let kilobytes = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The weights of one model in the host's memory.
#[derive(Default)]
struct HostLoader {
    store: WeightStore,
}

impl Loader for HostLoader {
    fn load(&self, plan: Plan) -> Result<Arc<dyn Program>> {
        let program = lower::host::lower(&plan, &traits())?;
        // The program holds the constants that it needs; every other one can go before they are packed.
        drop(plan);
        Ok(LoadedProgram::load(program, &self.store)?)
    }

    fn weights_bytes(&self) -> usize {
        self.store.bytes()
    }

    fn multiprocessors(&self) -> usize {
        0
    }
}

impl Program for LoadedProgram {
    fn inputs(&self) -> Vec<TensorType> {
        self.program().inputs.iter().map(|port| port.ty.clone()).collect()
    }

    fn outputs(&self) -> Vec<TensorType> {
        self.program().outputs.iter().map(|port| port.ty.clone()).collect()
    }

    fn fingerprint(&self) -> u128 {
        self.program().fingerprint
    }
}
