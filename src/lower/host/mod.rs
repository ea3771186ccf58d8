//! Lowering for the CPU: legal element types, constants and their layouts, the arena, the schedule.

mod constants;
mod layout;
mod program;
mod schedule;

pub use constants::Constants;
pub use layout::Layout;
pub use program::{ConstantDef, Launch, Op, Operand, Port, Program, Region};

use crate::error::{Result, fail};
use crate::ir::TensorType;
use crate::plan::{Origin, Plan, Step, TensorId, View};

/// Alignment in bytes of every tensor in the arena: a cache line, and a whole AVX-512 register.
pub const ALIGNMENT: usize = 64;

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
    let mut lowering = Lowering { plan, places: Vec::new(), constants: Constants::default() };
    let mut program = Program::default();
    program.arena_bytes = lowering.place()?;
    for step in &plan.steps {
        let launch = lowering.launch(step).map_err(|error| error.within(&step.node))?;
        program.launches.push(launch);
    }
    let port = |&id: &TensorId| {
        let def = plan.tensor(id);
        Port { name: def.name.clone(), ty: def.ty.clone(), bytes: def.ty.bytes() }
    };
    program.inputs = plan.inputs.iter().map(port).collect();
    program.outputs = plan.outputs.iter().map(port).collect();
    program.constants = lowering.constants.into_defs();
    schedule::place_barriers(&mut program.launches);
    program.fingerprint = program.compute_fingerprint(traits);
    Ok(program)
}

/// A plan being lowered.
struct Lowering<'a> {
    plan: &'a Plan,
    /// Where each tensor lies; `None` for a constant.
    places: Vec<Option<(Region, usize)>>,
    constants: Constants,
}

impl Lowering<'_> {
    /// Gives every tensor its memory and answers the bytes of the arena.
    fn place(&mut self) -> Result<usize> {
        let mut end = 0usize;
        for (index, def) in self.plan.tensors.iter().enumerate() {
            let id = TensorId(index as u32);
            let place = match (&def.origin, self.plan.outputs.iter().position(|&output| output == id)) {
                (Origin::Constant(_), _) => None,
                (Origin::Input(input), _) => Some((Region::Input(*input), 0)),
                (Origin::Steps, Some(output)) => Some((Region::Output(output), 0)),
                (Origin::Steps, None) => {
                    let start = end;
                    let bytes = def.ty.bytes().checked_next_multiple_of(ALIGNMENT);
                    end = bytes
                        .and_then(|bytes| bytes.checked_add(start))
                        .ok_or_else(|| fail!(TooLarge, "intermediate tensors exceed the address space"))?;
                    Some((Region::Arena, start))
                }
            };
            self.places.push(place);
        }
        Ok(end)
    }

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

    fn launch(&mut self, step: &Step) -> Result<Launch> {
        let inputs = step.inputs.iter().map(|view| self.operand(view)).collect::<Result<Vec<_>>>()?;
        let outputs = step.outputs.iter().map(|view| self.operand(view)).collect::<Result<Vec<_>>>()?;
        let types = |views: &[View]| views.iter().map(|view| self.plan.view_type(view)).collect::<Vec<TensorType>>();
        let work = step.kernel.family().work(&types(&step.inputs), &types(&step.outputs));
        let alone = schedule::alone(work);
        let op = Op::Kernel(step.kernel.clone());
        Ok(Launch { op, inputs, outputs, node: step.node.clone(), alone, barrier: false })
    }
}
