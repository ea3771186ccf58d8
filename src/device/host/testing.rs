//! Runs plans through lowering and replay, for tests: poisoned memory, several workers, every level of instructions.

use super::{LaneMemory, LoadedProgram, WeightStore, traits};
use crate::ir::Tensor;
use crate::kernels::Kernel;
pub use crate::kernels::evaluation::{Random, compare};
use crate::lower::host::{Program, Simd, Traits, lower};
use crate::plan::{Bucket, Builder, Origin, Plan, View};
use bytes::Bytes;
use std::sync::Barrier;

/// Bytes that memory holds before a run: as a float a large negative number, as an index out of every range.
const POISON: u8 = 0xF5;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

/// Aligned poisoned memory.
struct Memory(Vec<Line>);

impl Memory {
    fn new(bytes: usize) -> Self {
        Memory(vec![Line([POISON; 64]); bytes.div_ceil(64) + 1])
    }

    fn address(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    fn bytes(&self, count: usize) -> Vec<u8> {
        self.0.iter().flat_map(|line| line.0).take(count).collect()
    }

    fn fill(&mut self, data: &[u8]) {
        for (line, chunk) in self.0.iter_mut().zip(data.chunks(64)) {
            line.0[..chunk.len()].copy_from_slice(chunk);
        }
    }
}

/// Runs a program on `workers` threads.
pub fn run(program: Program, inputs: &[Tensor], workers: usize) -> Vec<Tensor> {
    let (arena_bytes, scratch_bytes) = (program.arena_bytes, program.scratch_bytes);
    let ports = program.outputs.clone();
    let loaded = LoadedProgram::load(program, &WeightStore::new()).unwrap();
    let mut held: Vec<Memory> = inputs.iter().map(|input| Memory::new(input.data().len())).collect();
    held.iter_mut().zip(inputs).for_each(|(memory, input)| memory.fill(input.data()));
    let mut results: Vec<Memory> = ports.iter().map(|port| Memory::new(port.bytes)).collect();
    let mut scratch: Vec<Memory> = (0..workers).map(|_| Memory::new(scratch_bytes)).collect();
    let mut arena = Memory::new(arena_bytes);
    let replay = loaded
        .replay(&LaneMemory {
            inputs: held.iter_mut().map(Memory::address).collect(),
            outputs: results.iter_mut().map(Memory::address).collect(),
            arena: arena.address(),
            scratch: scratch.iter_mut().map(Memory::address).collect(),
        })
        .unwrap();
    let barrier = Barrier::new(workers);
    // Twice, so that what a run leaves behind does not change the next one.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for worker in 0..workers {
                let (replay, barrier) = (&replay, &barrier);
                scope.spawn(move || {
                    replay.run(worker, workers, &|| {
                        barrier.wait();
                        true
                    })
                });
            }
        });
    }
    let tensor = |(memory, port): (&Memory, &crate::lower::host::Port)| {
        Tensor::new(port.ty.dtype, port.ty.shape.clone(), Bytes::from(memory.bytes(port.bytes))).unwrap()
    };
    results.iter().zip(&ports).map(tensor).collect()
}

/// Every level of vector instructions that this machine has.
pub fn levels() -> Vec<Simd> {
    [Simd::Portable, Simd::Avx2, Simd::Avx512].into_iter().filter(|&simd| simd <= traits().simd).collect()
}

/// A plan of one step over `views` of `inputs`, whose results are the model's outputs.
pub fn plan_of(kernel: impl Into<Kernel>, inputs: &[Tensor], view: impl Fn(usize, View) -> View) -> Plan {
    plan_with_constants(kernel, inputs, &[], view)
}

/// [`plan_of`] where the operands numbered in `constants` are constants instead of model inputs.
fn plan_with_constants(
    kernel: impl Into<Kernel>,
    inputs: &[Tensor],
    constants: &[usize],
    view: impl Fn(usize, View) -> View,
) -> Plan {
    let given = model_inputs(inputs, constants);
    let bucket =
        Bucket { shapes: given.iter().map(|input| input.shape().to_vec()).collect(), values: vec![None; given.len()] };
    let mut builder = Builder::new(bucket);
    builder.node = "test".to_owned();
    let mut views = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let whole = if constants.contains(&index) {
            builder.constant(input.clone())
        } else {
            let whole = builder.tensor(input.ty(), Origin::Input(builder.plan.inputs.len()));
            builder.plan.inputs.push(whole.tensor);
            whole
        };
        views.push(view(index, whole));
    }
    let results = builder.emit(kernel, &views).unwrap();
    builder.plan.outputs = results.iter().map(|result| result.tensor).collect();
    builder.plan
}

/// The operands that are model inputs.
fn model_inputs(inputs: &[Tensor], constants: &[usize]) -> Vec<Tensor> {
    let numbered = inputs.iter().enumerate().filter(|(index, _)| !constants.contains(index));
    numbered.map(|(_, input)| input.clone()).collect()
}

/// Checks a kernel over `view`s of its operands against its reference.
pub fn check_views(kernel: impl Into<Kernel>, inputs: &[Tensor], tolerance: f64, view: impl Fn(usize, View) -> View) {
    check_constants(kernel, inputs, &[], tolerance, view);
}

/// [`check_views`] where the operands numbered in `constants` are constants.
pub fn check_constants(
    kernel: impl Into<Kernel>,
    inputs: &[Tensor],
    constants: &[usize],
    tolerance: f64,
    view: impl Fn(usize, View) -> View,
) {
    let kernel = kernel.into();
    let plan = plan_with_constants(kernel.clone(), inputs, constants, &view);
    let operands: Vec<Tensor> =
        plan.steps[0].inputs.iter().zip(inputs).map(|(view, input)| view.materialize(input).unwrap()).collect();
    let expected = kernel.family().reference(&operands).unwrap();
    let given = model_inputs(inputs, constants);
    for simd in levels() {
        let program = lower(&plan, &Traits { simd }).unwrap();
        let single = run(program.clone(), &given, 1);
        for (result, (expected, index)) in single.iter().zip(expected.iter().zip(0..)) {
            compare(result, expected, tolerance, &format!("{kernel:?} {simd:?} result {index}"));
        }
        let mut shared = program;
        // Also where sharing would not pay.
        shared.launches.iter_mut().for_each(|launch| (launch.alone, launch.barrier) = (false, true));
        for (one, three) in single.iter().zip(run(shared, &given, 3)) {
            assert_eq!(one.data(), three.data(), "{kernel:?} {simd:?}: three workers differ from one");
        }
    }
}

/// [`check_views`] over the operands as they are.
pub fn check(kernel: impl Into<Kernel>, inputs: &[Tensor], tolerance: f64) {
    check_views(kernel, inputs, tolerance, |_, view| view);
}
