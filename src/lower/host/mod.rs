//! Lowering for the CPU: legal element types, constants and their layouts, the arena, the schedule.

mod code;
mod constants;
mod contraction;
mod elementwise;
mod layout;
mod legal;
mod program;
mod schedule;

pub use super::operand::{Operand, Port, Region};
pub use code::{Access, BLOCK, Code, CodeInstr, CodeOp, Load};
pub use constants::Constants;
pub use contraction::{
    BatchAxis, DEPTHWISE_ROWS, Depthwise, Finish, FusedAttention, GROUP_PANELS_MAX, Gate, Left, Patches, Product,
    Right, RowBias,
};
pub use elementwise::Elementwise;
pub use layout::{Layout, Panels, RowTiles, Strips};
pub use program::{ConstantDef, Launch, Op, Program};

use super::arena::ALIGNMENT;
use super::places::{Places, place};
use super::uniform::absorb_constants;
use crate::error::{Result, fail};
use crate::ir::TensorType;
use crate::kernels::{Kernel, Map};
use crate::plan::{Origin, Plan, Step, TensorId, View};

/// Steps of a sequence whose input products a recurrent kernel takes together; its scratch holds them.
pub const RECURRENT_STEPS: usize = 8;

/// The widest vector instructions that kernels may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Simd {
    /// What every x86-64 or other processor has.
    Portable,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 F, BW, CD, DQ, VL besides AVX2.
    Avx512,
}

/// What lowering needs to know of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Traits {
    /// Vector instructions.
    pub simd: Simd,
}

/// Lowers a plan for a host with these traits.
pub fn lower(plan: &Plan, traits: &Traits) -> Result<Program> {
    let plan = legal::legalise(plan)?;
    let (places, arena_bytes) = place(&plan, |step| step)?;
    let mut lowering = Lowering { plan: &plan, traits: *traits, places, constants: Constants::default(), scratch: 0 };
    let mut launches = Vec::with_capacity(plan.steps.len());
    for step in plan.steps.iter().filter(|step| step.outputs.iter().any(|view| view.count() > 0)) {
        launches.push(lowering.launch(step).map_err(|error| error.within(&step.node))?);
    }
    schedule::place_barriers(&mut launches);
    let port = |&id: &TensorId| {
        let def = plan.tensor(id);
        Port { name: def.name.clone(), ty: def.ty.clone(), bytes: def.ty.bytes() }
    };
    let mut program = Program {
        traits: *traits,
        launches,
        inputs: plan.inputs.iter().map(port).collect(),
        outputs: plan.outputs.iter().map(port).collect(),
        scratch_bytes: lowering.scratch.next_multiple_of(ALIGNMENT),
        constants: lowering.constants.into_defs(),
        arena_bytes,
        fingerprint: 0,
    };
    program.fingerprint = program.compute_fingerprint();
    Ok(program)
}

/// A legal plan being lowered.
struct Lowering<'a> {
    plan: &'a Plan,
    traits: Traits,
    places: Places,
    constants: Constants,
    /// Bytes of scratch memory that some launch needs.
    scratch: usize,
}

impl Lowering<'_> {
    fn operand(&mut self, view: &View) -> Result<Operand> {
        let def = self.plan.tensor(view.tensor);
        if let Origin::Constant(tensor) = &def.origin {
            return self.constants.dense(tensor, view);
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

    fn launch(&mut self, step: &Step) -> Result<Launch> {
        let types = |views: &[View]| views.iter().map(|view| self.plan.view_type(view)).collect::<Vec<TensorType>>();
        let work = step.kernel.family().work(&types(&step.inputs), &types(&step.outputs));
        let (op, inputs, outputs) = match &step.kernel {
            Kernel::Map(map) => self.map(map, step)?,
            Kernel::MatMul(product) => self.matmul(product, step)?,
            Kernel::Conv(conv) => self.conv(conv, step)?,
            Kernel::ConvTranspose(_) => {
                // The weights have been used up by the product that made the first operand.
                let inputs = vec![self.operand(&step.inputs[0])?, self.operand(&step.inputs[2])?];
                (Op::Kernel(step.kernel.clone()), inputs, self.operands(&step.outputs)?)
            }
            Kernel::Attention(attention) => self.attention(attention, step)?,
            kernel => {
                let inputs = self.operands(&step.inputs)?;
                self.scratch = self.scratch.max(scratch_bytes(kernel, &inputs));
                (Op::Kernel(kernel.clone()), inputs, self.operands(&step.outputs)?)
            }
        };
        let alone = schedule::alone(work);
        Ok(Launch { op, inputs, outputs, node: step.node.clone(), alone, barrier: false })
    }

    fn map(&mut self, map: &Map, step: &Step) -> Result<(Op, Vec<Operand>, Vec<Operand>)> {
        let (map, left) = absorb_constants(map, 0, &step.inputs, |view| self.plan.constant(view));
        let views: Vec<View> = left.iter().map(|&index| step.inputs[index].clone()).collect();
        let mut inputs = self.operands(&views)?;
        let mut outputs = self.operands(&step.outputs)?;
        let elementwise = elementwise::lower(&map, &mut inputs, &mut outputs[0]);
        self.scratch = self.scratch.max(elementwise.code.scratch_bytes());
        Ok((Op::Map(elementwise), inputs, outputs))
    }
}

/// Bytes of scratch memory per worker that a kernel needs beyond its operands.
fn scratch_bytes(kernel: &Kernel, inputs: &[Operand]) -> usize {
    match kernel {
        // The order of one line's elements, as 32-bit indices.
        Kernel::TopK(topk) => inputs[0].shape[topk.axis] * 4,
        Kernel::Recurrent(recurrent) => {
            let rows = recurrent.cell.gates() * recurrent.hidden;
            ((RECURRENT_STEPS + 1) * rows + 3 * recurrent.hidden) * 4
        }
        _ => 0,
    }
}
