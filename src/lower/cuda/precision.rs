//! Which tensors are stored in 16 bits. Arithmetic is binary32 everywhere but in the factors of products; what is decided here is, edge by
//! edge, what memory holds.
//!
//! An edge stays binary32 if a step at either end is delicate: a division, power, exponential, logarithm or reciprocal outside a
//! fused kernel, a sum over many elements, a softmax, a recurrence, or a constant that the 16-bit type cannot hold. Model inputs
//! and outputs keep their types.

use super::program::half_of;
use crate::ir::{DType, Tensor};
use crate::kernels::{Binary, Instr, Kernel, Map, PoolKind, ScatterOp, Unary};
use crate::lower::Precision;
use crate::plan::{Origin, Plan, Step, TensorId, View};

/// The plan with the storage types of a precision. Of maps and epilogues the operand and result types follow.
pub fn assign(plan: &Plan, precision: Precision) -> Plan {
    let mut plan = plan.clone();
    let Some(half) = half_of(precision) else { return plan };
    let mut fits: Vec<bool> =
        plan.tensors.iter().map(|def| def.ty.dtype == DType::F32 && matches!(def.origin, Origin::Steps)).collect();
    for id in &plan.outputs {
        fits[id.0 as usize] = false;
    }
    for step in plan.steps.iter().filter(|step| is_delicate(&plan, step, half)) {
        for view in step.inputs.iter().chain(&step.outputs) {
            fits[view.tensor.0 as usize] = false;
        }
    }
    // What a step only moves is stored alike on both sides.
    loop {
        let parted = plan.steps.iter().filter(|step| !moved(&step.kernel).is_empty()).find_map(|step| {
            let sides = moved(&step.kernel).iter().map(|&index| &step.inputs[index]).chain(&step.outputs);
            let sides = sides.filter(|view| plan.constant(view).is_none()).map(|view| view.tensor.0 as usize);
            let sides: Vec<usize> = sides.collect();
            let differ = sides.iter().any(|&side| fits[side] != fits[sides[0]]);
            differ.then_some(sides)
        });
        let Some(sides) = parted else { break };
        sides.into_iter().for_each(|side| fits[side] = false);
    }
    for (def, fits) in plan.tensors.iter_mut().zip(fits) {
        if fits {
            def.ty.dtype = half;
        }
    }
    for index in 0..plan.steps.len() {
        retype(&mut plan, index);
    }
    plan
}

/// The operands whose elements a kernel moves into its result without looking at them.
pub fn moved(kernel: &Kernel) -> &'static [usize] {
    match kernel {
        Kernel::Gather(_) | Kernel::GatherElements(_) | Kernel::GatherNd(_) => &[0],
        Kernel::ScatterNd(_) => &[0, 2],
        _ => &[],
    }
}

/// Whether a constant has an element that the 16-bit type cannot hold.
pub fn exceeds(tensor: &Tensor, half: DType) -> bool {
    let bound = if half == DType::F16 { f32::from(half::f16::MAX) } else { f32::from(half::bf16::MAX) };
    let outside = |value: f32| value.abs() > bound && value.is_finite();
    match tensor.dtype() {
        DType::F32 => tensor
            .data()
            .chunks_exact(4)
            .any(|bytes| outside(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))),
        dtype => dtype.is_float() && tensor.to_f64s().into_iter().any(|value| outside(value as f32)),
    }
}

/// A map whose intermediate values or result are worth 32 bits.
fn is_delicate_map(map: &Map, half: DType) -> bool {
    map.body.iter().any(|instr| match *instr {
        Instr::Unary(op, _) => matches!(op, Unary::Exp | Unary::Log | Unary::Reciprocal),
        Instr::Binary(op, ..) => matches!(op, Binary::Pow | Binary::Div),
        Instr::Const(dtype, value) => {
            dtype.is_float() && exceeds(&Tensor::from_slice(&[1], &[value.as_f64() as f32]), half)
        }
        _ => false,
    })
}

fn is_delicate(plan: &Plan, step: &Step, half: DType) -> bool {
    let constants = step.inputs.iter().filter_map(|view| plan.constant(view));
    if constants.into_iter().any(|tensor| exceeds(tensor, half)) {
        return true;
    }
    match &step.kernel {
        Kernel::Map(map) => is_delicate_map(map, half),
        Kernel::MatMul(product) => product.epilogue.as_ref().is_some_and(|map| is_delicate_map(map, half)),
        Kernel::Conv(conv) => conv.epilogue.as_ref().is_some_and(|map| is_delicate_map(map, half)),
        Kernel::Pool(pool) => pool.kind != PoolKind::Max && pool.out.iter().all(|&extent| extent == 1),
        Kernel::ScatterNd(scatter) => scatter.op != ScatterOp::Set,
        Kernel::Attention(_)
        | Kernel::ConvTranspose(_)
        | Kernel::Norm(_)
        | Kernel::Gather(_)
        | Kernel::GatherElements(_)
        | Kernel::GatherNd(_)
        | Kernel::Resize(_) => false,
        Kernel::Reduce(_) | Kernel::Softmax(_) | Kernel::Recurrent(_) | Kernel::CumSum(_) | Kernel::TopK(_) => true,
    }
}

/// Brings the types that a step's map names in line with those of its operands.
fn retype(plan: &mut Plan, index: usize) {
    let step = &plan.steps[index];
    let dtype = |view: &View| plan.tensor(TensorId(view.tensor.0)).ty.dtype;
    let inputs: Vec<DType> = step.inputs.iter().map(&dtype).collect();
    let output = dtype(&step.outputs[0]);
    let (map, own) = match &mut plan.steps[index].kernel {
        Kernel::Map(map) => (Some(map), 0),
        Kernel::MatMul(product) => (product.epilogue.as_mut(), 2),
        Kernel::Conv(conv) => (conv.epilogue.as_mut(), 3),
        Kernel::Attention(attention) => {
            // The scores stay binary32; only the operands of the map may have changed.
            if let Some(map) = &mut attention.score {
                map.inputs.truncate(1);
                map.inputs.extend_from_slice(&inputs[3..]);
            }
            return;
        }
        _ => (None, 0),
    };
    let Some(map) = map else { return };
    let further = map.inputs.len() - (inputs.len() - own);
    map.inputs.truncate(further);
    map.inputs.extend_from_slice(&inputs[own..]);
    map.output = output;
}
