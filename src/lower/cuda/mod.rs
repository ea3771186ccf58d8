//! Lowering for NVIDIA GPUs: storage types, operands as kernels want them, one or more launches a step, the arena.

mod attention;
mod binding;
mod constants;
mod contraction;
mod convolution;
mod elementwise;
#[cfg(test)]
mod empty_tests;
#[cfg(test)]
mod image_tests;
mod images;
mod indexed;
mod joint;
mod layout;
mod legal;
mod movement;
mod precision;
mod program;
mod recurrent;
mod rows;
#[cfg(test)]
mod testing;

pub use constants::{ConstantDef, Constants};
pub use program::{Launch, Location, Port, Program, Region, Traits};

use super::Precision;
use super::operand::Operand;
use super::places::{Places, place};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;
use crate::kernels::Kernel;
use crate::kernels::entry::{self, Arguments, Geometry};
use crate::plan::{Origin, Plan, Step, TensorId, View, dense_strides};
use binding::Binding;

/// What every address that a program hands out is a multiple of: areas, constants and working memory begin there.
const ALIGNMENT: usize = 256;

/// Lowers a plan for a GPU with these traits.
pub fn lower(plan: &Plan, precision: Precision, traits: &Traits) -> Result<Program> {
    let plan = layout::channels_last(precision::assign(plan, precision));
    let plan = legal::legalise(plan, precision)?;
    let pairs = joint::pairs(&plan, traits);
    let (places, arena_bytes) = place(&plan, |step| step + usize::from(pairs[step]))?;
    let mut lowering = Lowering {
        plan: &plan,
        precision,
        traits: *traits,
        places,
        constants: Constants::default(),
        launches: Vec::with_capacity(plan.steps.len()),
        scratch: Scratch { start: arena_bytes.next_multiple_of(ALIGNMENT), used: 0, most: 0 },
        node: String::new(),
    };
    for (index, step) in plan.steps.iter().enumerate() {
        let follows = index > 0 && pairs[index - 1];
        if follows || step.outputs.iter().all(|view| view.count() == 0) {
            continue;
        }
        lowering.scratch.used = 0;
        lowering.node.clone_from(&step.node);
        let next = if pairs[index] { plan.steps.get(index + 1) } else { None };
        let lowered = match next {
            Some(next) => lowering.product_and_norm(step, next),
            None => lowering.step(step),
        };
        let steps: Vec<&Step> = [Some(step), next].into_iter().flatten().collect();
        lowered.map_err(|error| binding::named(error, &plan, &steps).within(&step.node))?;
    }
    let port = |&id: &TensorId| {
        let def = plan.tensor(id);
        Port { name: def.name.clone(), ty: def.ty.clone(), bytes: def.ty.bytes() }
    };
    let mut program = Program {
        traits: *traits,
        precision,
        inputs: plan.inputs.iter().map(port).collect(),
        outputs: plan.outputs.iter().map(port).collect(),
        arena_bytes: lowering.scratch.start + lowering.scratch.most,
        launches: lowering.launches,
        constants: lowering.constants.into_defs(),
        fingerprint: 0,
    };
    program.fingerprint = program.compute_fingerprint();
    Ok(program)
}

/// Working memory behind the arena, which one step after the other uses.
struct Scratch {
    start: usize,
    used: usize,
    most: usize,
}

/// A legal plan being lowered.
struct Lowering<'a> {
    plan: &'a Plan,
    precision: Precision,
    traits: Traits,
    places: Places,
    constants: Constants,
    launches: Vec<Launch>,
    scratch: Scratch,
    /// The node of the step being lowered.
    node: String,
}

/// What the addresses of operands are all multiples of.
fn alignment<'a>(operands: impl IntoIterator<Item = &'a Operand>) -> usize {
    let offsets = operands.into_iter().fold(ALIGNMENT, |all, operand| all | operand.byte_offset);
    1 << offsets.trailing_zeros()
}

impl Lowering<'_> {
    fn operand(&mut self, view: &View) -> Result<Operand> {
        let def = self.plan.tensor(view.tensor);
        if let Origin::Constant(tensor) = &def.origin {
            return self.constants.operand(tensor, view, def.ty.dtype);
        }
        let place = self.places[view.tensor.0 as usize];
        let (region, start) = place.ok_or_else(|| fail!(Internal, "tensor {} has no memory", def.name))?;
        let byte_offset = start + view.offset * def.ty.dtype.bytes();
        let (shape, strides) = (view.shape.clone(), view.strides.clone());
        Ok(Operand { region, byte_offset, dtype: def.ty.dtype, shape, strides })
    }

    fn operands(&mut self, views: &[View]) -> Result<Vec<Operand>> {
        views.iter().map(|view| self.operand(view)).collect()
    }

    /// A dense tensor in working memory, for this step only.
    fn scratch(&mut self, dtype: DType, shape: &[usize]) -> Result<Operand> {
        let count = shape.iter().try_fold(dtype.bytes(), |bytes, &extent| bytes.checked_mul(extent));
        let bytes = count.and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT));
        let end = bytes.and_then(|bytes| self.scratch.used.checked_add(bytes));
        let end = end.ok_or_else(|| fail!(TooLarge, "working memory of {shape:?} elements"))?;
        let byte_offset = self.scratch.start + std::mem::replace(&mut self.scratch.used, end);
        self.scratch.most = self.scratch.most.max(end);
        let (shape, strides) = (shape.to_vec(), dense_strides(shape));
        Ok(Operand { region: Region::Arena, byte_offset, dtype, shape, strides })
    }

    /// Adds a launch, unless it has no results: kernels have no code for that, and divide by the numbers of their results.
    fn launch(&mut self, name: &str, arguments: &impl Arguments, binding: Binding, geometry: Geometry) -> Result<()> {
        if geometry.is_empty() {
            return Ok(());
        }
        let blocks = geometry.grid[0];
        ensure!(blocks < 1 << 31, TooLarge, "a launch of {name} has at least {blocks} blocks");
        let entry = entry::find(name).ok_or_else(|| fail!(Unsupported, "the GPU has no kernel {name} yet"))?;
        let (arguments, operands, node) = (arguments.encode(), binding.into_locations(), self.node.clone());
        self.launches.push(Launch { entry, arguments, operands, geometry, node });
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match &step.kernel {
            Kernel::Map(map) => self.map_step(map, step),
            Kernel::MatMul(product) => self.product(product, step),
            Kernel::Conv(conv) => self.convolution(conv, step),
            Kernel::ConvTranspose(conv) => self.transposed_convolution(conv, step),
            Kernel::Pool(pool) => self.pool(pool, step),
            Kernel::Resize(resize) => self.resize(resize, step),
            Kernel::Attention(attention) => self.attention(attention, step),
            Kernel::Softmax(softmax) => self.softmax(softmax, step),
            Kernel::Norm(norm) => self.norm(norm, step),
            Kernel::Reduce(reduce) => self.reduce(reduce, step),
            Kernel::Gather(gather) => self.gather(gather, step),
            Kernel::GatherElements(gather) => self.gather_elements(gather, step),
            Kernel::GatherNd(gather) => self.gather_nd(gather, step),
            Kernel::ScatterNd(scatter) => self.scatter(scatter, step),
            Kernel::Recurrent(recurrent) => self.recurrent(recurrent, step),
            Kernel::CumSum(cumsum) => self.cumsum(cumsum, step),
            Kernel::TopK(topk) => self.topk(topk, step),
        }
    }
}
