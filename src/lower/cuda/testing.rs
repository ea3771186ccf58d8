//! Runs lowered plans for tests: every launch by its reference twin, on poisoned memory.

use super::{Location, Program, Region, Traits, lower};
use crate::ir::{DType, Tensor};
use crate::kernels::entry::{Address, Heap};
pub use crate::kernels::evaluation::{Random, compare};
use crate::kernels::{Binary, Instr, Kernel, Map, Unary, Window};
use crate::lower::Precision;
use crate::plan::{Bucket, Builder, Origin, Plan, View, evaluate, validate};

/// A GPU of 132 multiprocessors.
pub const TRAITS: Traits = Traits { multiprocessors: 132, capability: (9, 0), shared_bytes_max: 227 << 10 };

/// Where the memory of a program lies.
struct Regions {
    arena: Address,
    constants: Vec<Address>,
    inputs: Vec<Address>,
    outputs: Vec<Address>,
}

impl Regions {
    fn resolve(&self, location: &Location) -> u64 {
        let area = match location.region {
            Region::Arena => self.arena,
            Region::Constant(index) => self.constants[index],
            Region::Input(index) => self.inputs[index],
            Region::Output(index) => self.outputs[index],
        };
        area.0 + location.byte_offset as u64
    }
}

/// The results of a program, replayed twice, so that what a run leaves behind does not change the next one.
pub fn run(program: &Program, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut heap = Heap::default();
    let constant = |def: &super::ConstantDef, heap: &mut Heap| {
        let bytes = def.packed().unwrap();
        heap.put(&Tensor::from_slice(&[bytes.len()], &bytes))
    };
    let regions = Regions {
        arena: heap.room(program.arena_bytes),
        constants: program.constants.iter().map(|def| constant(def, &mut heap)).collect(),
        inputs: inputs.iter().map(|input| heap.put(input)).collect(),
        outputs: program.outputs.iter().map(|port| heap.room(port.bytes)).collect(),
    };
    for _ in 0..2 {
        for launch in &program.launches {
            let (entry, mut arguments) = (&launch.entry, launch.arguments.clone());
            assert!(launch.geometry.shared_bytes <= entry.shared_bytes_max, "{}: {:?}", entry.name, launch.geometry);
            for position in (entry.addresses)() {
                let bytes = &mut arguments[position..position + 8];
                let number = u64::from_le_bytes(bytes.try_into().unwrap()) as usize;
                if number > 0 {
                    bytes.copy_from_slice(&regions.resolve(&launch.operands[number - 1]).to_le_bytes());
                }
            }
            (entry.twin)(&arguments, &mut heap).unwrap();
        }
    }
    let result = |(port, &address): (&super::Port, &Address)| heap.tensor(address, port.ty.dtype, &port.ty.shape);
    program.outputs.iter().zip(&regions.outputs).map(result).collect()
}

/// A plan of one step over `view`s of the operands, of which those numbered in `constants` are constants; and the model's inputs.
pub fn plan_of(
    kernel: impl Into<Kernel>,
    operands: &[Tensor],
    constants: &[usize],
    view: impl Fn(usize, View) -> View,
) -> (Plan, Vec<Tensor>) {
    let numbered = operands.iter().enumerate().filter(|(index, _)| !constants.contains(index));
    let given: Vec<Tensor> = numbered.map(|(_, operand)| operand.clone()).collect();
    let shapes = given.iter().map(|input| input.shape().to_vec()).collect();
    let mut builder = Builder::new(Bucket { shapes, values: vec![None; given.len()] });
    let mut views = Vec::new();
    for (index, operand) in operands.iter().enumerate() {
        let whole = if constants.contains(&index) {
            builder.constant(operand.clone())
        } else {
            let whole = builder.tensor(operand.ty(), Origin::Input(builder.plan.inputs.len()));
            builder.plan.inputs.push(whole.tensor);
            whole
        };
        views.push(view(index, whole));
    }
    let results = builder.emit(kernel, &views).unwrap();
    builder.plan.outputs = results.iter().map(|result| result.tensor).collect();
    validate(&builder.plan).unwrap();
    (builder.plan, given)
}

/// Checks a plan, lowered in every precision, against its definition. A tolerance of 0 holds for all precisions; another one is widened
/// to what 16-bit storage rounds off.
pub fn check_plan(plan: &Plan, inputs: &[Tensor], tolerance: f64) {
    let expected = evaluate(plan, inputs).unwrap();
    for precision in Precision::ALL {
        let tolerance = match precision {
            _ if tolerance == 0.0 => 0.0,
            Precision::Fp16 => tolerance.max(1e-2),
            Precision::Bf16 => tolerance.max(6e-2),
            _ => tolerance,
        };
        let program = lower(plan, precision, &TRAITS).unwrap();
        for (index, (got, expected)) in run(&program, inputs).iter().zip(&expected).enumerate() {
            let kernel = &plan.steps.last().unwrap().kernel;
            compare(got, expected, tolerance, &format!("{kernel:?} {} result {index}", precision.name()));
        }
    }
}

/// Checks a kernel over `view`s of its operands, of which those numbered in `constants` are constants.
pub fn check_constants(
    kernel: impl Into<Kernel>,
    operands: &[Tensor],
    constants: &[usize],
    tolerance: f64,
    view: impl Fn(usize, View) -> View,
) {
    let (plan, inputs) = plan_of(kernel, operands, constants, view);
    check_plan(&plan, &inputs, tolerance);
}

/// [`check_constants`] of model inputs.
pub fn check_views(kernel: impl Into<Kernel>, operands: &[Tensor], tolerance: f64, view: impl Fn(usize, View) -> View) {
    check_constants(kernel, operands, &[], tolerance, view);
}

/// [`check_views`] of operands as they are.
pub fn check(kernel: impl Into<Kernel>, operands: &[Tensor], tolerance: f64) {
    check_views(kernel, operands, tolerance, |_, view| view);
}

/// The entries that a kernel over model inputs is lowered to in binary32.
pub fn launches(kernel: impl Into<Kernel>, operands: &[Tensor]) -> Vec<&'static str> {
    let (plan, _) = plan_of(kernel, operands, &[], |_, view| view);
    lower(&plan, Precision::Fp32, &TRAITS).unwrap().launches.iter().map(|launch| launch.entry.name).collect()
}

/// A window with a list of parameters for each axis: kernel, stride, dilation, padding before and after.
pub fn window(axes: &[[usize; 5]]) -> Window {
    let of = |index: usize| axes.iter().map(|axis| axis[index]).collect();
    Window { kernel: of(0), strides: of(1), dilations: of(2), pads_begin: of(3), pads_end: of(4) }
}

/// x sigmoid(x) + tanh(x), which is no chain: two values would have to be kept.
pub fn no_chain() -> Map {
    let body = vec![
        Instr::Input(0),
        Instr::Unary(Unary::Sigmoid, 0),
        Instr::Binary(Binary::Mul, 0, 1),
        Instr::Unary(Unary::Tanh, 0),
        Instr::Binary(Binary::Add, 2, 3),
    ];
    Map { inputs: vec![DType::F32], body, output: DType::F32 }
}
