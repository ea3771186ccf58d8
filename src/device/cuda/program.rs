//! Programs with their constants on the GPU.

use super::gpu::Gpu;
use super::graph::Stream;
use super::memory::{ALIGNMENT, DeviceMemory};
use super::module::Function;
use super::partition::Partition;
use super::sys::CuAddress;
use crate::device::host::process::Lock;
use crate::device::{Loader, LoaderOrder, Precision, Priority, Program};
use crate::error::{Result, fail};
use crate::ir::TensorType;
use crate::lower::cuda::{self as lowered, ConstantDef};
use crate::plan::Plan;
use std::collections::HashMap;
use std::sync::Arc;

/// A constant on the GPU; it lies in memory that it shares with others of its program.
#[derive(Clone)]
struct Weight {
    _memory: Arc<DeviceMemory>,
    address: CuAddress,
}

/// A program that can be replayed: constants and functions are on the GPU.
pub struct LoadedProgram {
    program: lowered::Program,
    weights: Vec<Weight>,
    /// Per launch.
    functions: Vec<Function>,
    partition: Option<Arc<Partition>>,
}

impl LoadedProgram {
    /// The program; its constants are empty, they have moved to the GPU.
    pub fn program(&self) -> &lowered::Program {
        &self.program
    }

    /// The functions of the launches.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The multiprocessors that it is for; `None`: all.
    pub fn partition(&self) -> Option<&Arc<Partition>> {
        self.partition.as_ref()
    }

    /// Where a constant lies.
    pub fn constant(&self, index: usize) -> CuAddress {
        self.weights[index].address
    }
}

impl Program for LoadedProgram {
    fn inputs(&self) -> Vec<TensorType> {
        self.program.inputs.iter().map(|port| port.ty.clone()).collect()
    }

    fn outputs(&self) -> Vec<TensorType> {
        self.program.outputs.iter().map(|port| port.ty.clone()).collect()
    }

    fn fingerprint(&self) -> u128 {
        self.program.fingerprint
    }
}

/// What a model has on the GPU.
#[derive(Default)]
struct Shelf {
    by_key: HashMap<u128, Weight>,
    bytes: usize,
}

/// The weights of one model at one precision.
pub struct CudaLoader {
    gpu: Arc<Gpu>,
    precision: Precision,
    partition: Option<Arc<Partition>>,
    stream: Stream,
    shelf: Lock<Shelf>,
}

impl CudaLoader {
    /// A place for a model.
    pub fn new(gpu: &Arc<Gpu>, order: LoaderOrder) -> Result<Self> {
        let wanted = order.multiprocessors;
        let partition = if wanted == 0 { None } else { Some(Arc::new(Partition::take(gpu, wanted)?)) };
        // What is copied to the GPU needs none of its multiprocessors.
        let stream = Stream::new(gpu, Priority::Low, None)?;
        Ok(CudaLoader { gpu: gpu.clone(), precision: order.precision, partition, stream, shelf: Lock::default() })
    }

    /// The GPU as programs find it.
    fn traits(&self) -> lowered::Traits {
        let whole = self.gpu.identity().traits;
        let multiprocessors = self.partition.as_ref().map_or(whole.multiprocessors, |some| some.multiprocessors());
        lowered::Traits { multiprocessors, ..whole }
    }

    /// The constants on the GPU; those that the model has not used before are copied there into one new area. If a copy fails, the model
    /// has none of them.
    fn upload(&self, constants: Vec<ConstantDef>) -> Result<Vec<Weight>> {
        let mut shelf = self.shelf.lock()?;
        // Also one without elements has an address, for 0 says that an operand is absent.
        let room = |constant: &ConstantDef| constant.bytes.max(1).next_multiple_of(ALIGNMENT);
        let fresh: usize =
            constants.iter().filter(|constant| !shelf.by_key.contains_key(&constant.key)).map(room).sum();
        let memory = if fresh == 0 { None } else { Some(Arc::new(DeviceMemory::take(&self.gpu, fresh)?)) };
        let current = self.gpu.enter()?;
        let (mut taken, mut new) = (0, Vec::new());
        let mut weights = Vec::with_capacity(constants.len());
        for constant in constants {
            if let Some(weight) = shelf.by_key.get(&constant.key) {
                weights.push(weight.clone());
                continue;
            }
            let memory = memory.clone().ok_or_else(|| fail!(Internal, "a fresh constant was counted as known"))?;
            let weight = Weight { address: memory.address() + taken as u64, _memory: memory };
            taken += room(&constant);
            self.stream.upload(&current, weight.address, &constant.packed()?)?;
            new.push((constant.key, weight.clone()));
            weights.push(weight);
        }
        shelf.by_key.extend(new);
        shelf.bytes += fresh;
        Ok(weights)
    }
}

impl Loader for CudaLoader {
    fn load(&self, plan: Plan) -> Result<Arc<dyn Program>> {
        let mut program = lowered::lower(&plan, self.precision, &self.traits())?;
        // The program holds the constants that it needs; every other one can go before they are copied.
        drop(plan);
        let function = |launch: &lowered::Launch| {
            self.gpu.modules.function(&self.gpu, &launch.entry, launch.geometry.shared_bytes)
        };
        let functions = program.launches.iter().map(function).collect::<Result<Vec<_>>>()?;
        let constants = std::mem::take(&mut program.constants);
        let weights = self.upload(constants)?;
        Ok(Arc::new(LoadedProgram { program, weights, functions, partition: self.partition.clone() }))
    }

    fn weights_bytes(&self) -> usize {
        // None that this process has, if another thread was loading some at the fork.
        self.shelf.lock().map_or(0, |shelf| shelf.bytes)
    }

    fn multiprocessors(&self) -> usize {
        self.traits().multiprocessors as usize
    }
}
