//! Programs with their constants in memory, and their replay in one context's memory.

use super::kernel::{Share, Span, Task};
use super::weights::{WeightStore, Weights};
use super::{attention, conv, gather, gemm, map, norm, pool, recurrent, reduce, resize, scan, scatter, softmax, topk};
use crate::error::{Result, ensure, fail};
use crate::kernels::Kernel;
use crate::lower::host::{Launch, Op, Operand, Program, Region};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A program whose constants are packed; shared by all contexts that replay it.
#[derive(Debug)]
pub struct LoadedProgram {
    program: Program,
    weights: Vec<Arc<Weights>>,
}

/// The memory of one context. Every address is aligned to 64 bytes, and the memory outlives each replay made for it.
#[derive(Clone, Debug, Default)]
pub struct LaneMemory {
    /// Per model input, as many bytes as its port says.
    pub inputs: Vec<*mut u8>,
    /// Per model output, as many bytes as its port says.
    pub outputs: Vec<*mut u8>,
    /// As many bytes as the program's arena.
    pub arena: *mut u8,
    /// Per worker, as many bytes as the program's scratch.
    pub scratch: Vec<*mut u8>,
}

// SAFETY: addresses only; who accesses the memory answers for it.
unsafe impl Send for LaneMemory {}
// SAFETY: as above.
unsafe impl Sync for LaneMemory {}

/// A program bound to one context's memory: a prepared list of tasks. Running it allocates nothing.
pub struct Replay {
    steps: Vec<ReplayStep>,
    scratch: Vec<*mut u8>,
    /// The constants that the tasks read.
    _loaded: Arc<LoadedProgram>,
}

// SAFETY: the tasks are `Send + Sync`; the scratch addresses are used by one worker each.
unsafe impl Send for Replay {}
// SAFETY: as above.
unsafe impl Sync for Replay {}

struct ReplayStep {
    task: Task,
    alone: bool,
    barrier: bool,
}

impl LoadedProgram {
    /// Packs the constants that `store` does not hold yet, dropping each source as soon as it is packed.
    pub fn load(mut program: Program, store: &WeightStore) -> Result<Arc<LoadedProgram>> {
        let constants = std::mem::take(&mut program.constants);
        let weights = constants.into_iter().map(|constant| store.pack(&constant)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(LoadedProgram { program, weights }))
    }

    /// The program; its constants are empty, they have moved into the store.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Binds the program to a context's memory.
    pub fn replay(self: &Arc<Self>, memory: &LaneMemory) -> Result<Replay> {
        let program = &self.program;
        ensure!(
            memory.inputs.len() == program.inputs.len()
                && memory.outputs.len() == program.outputs.len()
                && !memory.scratch.is_empty(),
            Internal,
            "the context's memory does not fit the program"
        );
        let mut steps = Vec::with_capacity(program.launches.len());
        for launch in &program.launches {
            let task = self.task(launch, memory).map_err(|error| error.within(&launch.node))?;
            steps.push(ReplayStep { task, alone: launch.alone, barrier: launch.barrier });
        }
        Ok(Replay { steps, scratch: memory.scratch.clone(), _loaded: self.clone() })
    }

    fn span(&self, operand: &Operand, memory: &LaneMemory) -> Span {
        let base = match operand.region {
            Region::Arena => memory.arena,
            Region::Constant(index) => self.weights[index].address(),
            Region::Input(index) => memory.inputs[index],
            Region::Output(index) => memory.outputs[index],
        };
        // No access happens here, so the address need not be provably inside an allocation.
        let address = base.wrapping_add(operand.byte_offset);
        Span { address, dtype: operand.dtype, shape: operand.shape.clone(), strides: operand.strides.clone() }
    }

    fn task(&self, launch: &Launch, memory: &LaneMemory) -> Result<Task> {
        let inputs: Vec<Span> = launch.inputs.iter().map(|operand| self.span(operand, memory)).collect();
        let outputs: Vec<Span> = launch.outputs.iter().map(|operand| self.span(operand, memory)).collect();
        let simd = self.program.traits.simd;
        match &launch.op {
            Op::Map(elementwise) => Ok(map::prepare(elementwise, &inputs, &outputs[0], simd)),
            Op::Kernel(Kernel::Softmax(kernel)) => Ok(softmax::prepare(kernel, &inputs[0], &outputs[0], simd)),
            Op::Kernel(Kernel::Norm(kernel)) => Ok(norm::prepare(kernel, &inputs, &outputs[0], simd)),
            Op::Kernel(Kernel::Reduce(kernel)) => Ok(reduce::prepare(kernel, &inputs[0], &outputs[0], simd)),
            Op::Kernel(Kernel::Gather(kernel)) => Ok(gather::prepare(kernel, &inputs[0], &inputs[1], &outputs[0])),
            Op::Kernel(Kernel::GatherElements(kernel)) => {
                Ok(gather::prepare_elements(kernel, &inputs[0], &inputs[1], &outputs[0]))
            }
            Op::Kernel(Kernel::GatherNd(kernel)) => Ok(gather::prepare_nd(kernel, &inputs[0], &inputs[1], &outputs[0])),
            Op::Kernel(Kernel::Pool(kernel)) => Ok(pool::prepare(kernel, &inputs[0], &outputs)),
            Op::Kernel(Kernel::Recurrent(kernel)) => Ok(recurrent::prepare(kernel, &inputs, &outputs, simd)),
            Op::Kernel(Kernel::ScatterNd(kernel)) => {
                Ok(scatter::prepare(kernel, &inputs[0], &inputs[1], &inputs[2], &outputs[0]))
            }
            Op::Kernel(Kernel::CumSum(kernel)) => Ok(scan::prepare(kernel, &inputs[0], &outputs[0])),
            Op::Kernel(Kernel::TopK(kernel)) => Ok(topk::prepare(kernel, &inputs[0], &outputs[0], &outputs[1])),
            Op::Kernel(Kernel::Resize(kernel)) => Ok(resize::prepare(kernel, &inputs[0], &outputs[0])),
            Op::Attention(kernel) => Ok(attention::prepare(kernel, &inputs, &outputs[0], self.program.traits.simd)),
            Op::Kernel(Kernel::ConvTranspose(kernel)) => {
                Ok(conv::prepare_transposed(&kernel.window, &inputs[0], &inputs[1], &outputs[0]))
            }
            Op::Depthwise(kernel) => {
                Ok(conv::prepare_depthwise(kernel, &inputs, &outputs[0], self.program.traits.simd))
            }
            Op::Product(product) => Ok(gemm::prepare(product, &inputs, &outputs[0], self.program.traits.simd)),
            Op::Kernel(kernel) => Err(fail!(
                Unsupported,
                "the host has no {} kernel for {} operands and {} results",
                kernel.name(),
                inputs.len(),
                outputs.len()
            )),
        }
    }
}

impl Replay {
    /// One worker's share of a run: each of `workers` workers (at most as many as there are scratch areas) calls this with
    /// its own index and a `barrier` that returns once all of them have called it; `false`, to all of them, ends the run
    /// early. The run has ended when every worker has returned. Results do not depend on the number of workers, bit for bit.
    pub fn run(&self, worker: usize, workers: usize, barrier: &impl Fn() -> bool) {
        let scratch = self.scratch[worker];
        for step in &self.steps {
            if step.barrier && !barrier() {
                return;
            }
            if !step.alone {
                (step.task)(&Share { part: worker, parts: workers, scratch });
            } else if worker == 0 {
                (step.task)(&Share { part: 0, parts: 1, scratch });
            }
        }
    }

    /// The shortest time that each launch took in `runs` runs by one worker, for finding what a model spends its time on.
    pub fn profile(&self, runs: usize) -> Vec<Duration> {
        let mut shortest = vec![Duration::MAX; self.steps.len()];
        for _ in 0..runs {
            for (step, shortest) in self.steps.iter().zip(&mut shortest) {
                let start = Instant::now();
                (step.task)(&Share { part: 0, parts: 1, scratch: self.scratch[0] });
                *shortest = start.elapsed().min(*shortest);
            }
        }
        shortest
    }
}
