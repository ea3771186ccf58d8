//! Which tensors are stored with their channels side by side: those that convolutions, pools and resizes read and write, and what maps
//! make of them. A convolution then reads 16 bytes of channels of one tap at a time, and writes whole rows of its product.

use crate::kernels::Kernel;
use crate::plan::{Origin, Plan, Step, TensorId, View, dense_strides};

/// The extents `[N, C, spatial..]` in the order in which they are stored: `[N, spatial.., C]`.
pub fn stored(shape: &[usize]) -> Vec<usize> {
    [&shape[..1], &shape[2..], &shape[1..2]].concat()
}

/// `[N, C, spatial..]` of a tensor that is stored as `[N, spatial.., C]`.
pub fn shown(view: &View) -> View {
    let last = view.rank() - 1;
    let order: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
    view.permute(&order)
}

/// The plan with its images stored channels last, as far as every view of them remains a view.
pub fn channels_last(mut plan: Plan) -> Plan {
    let mut chosen = vec![false; plan.tensors.len()];
    for step in &plan.steps {
        images(step).for_each(|view| chosen[view.tensor.0 as usize] |= shows_channels(&plan, view));
    }
    for step in plan.steps.iter().chain(plan.steps.iter().rev()) {
        spread(&plan, step, &mut chosen);
    }
    for step in &plan.steps {
        for view in step.inputs.iter().chain(&step.outputs) {
            chosen[view.tensor.0 as usize] &= moved(&plan, view).is_some();
        }
    }
    let steps = plan.steps.iter().map(|step| {
        let of = |view: &View| {
            let moved = if chosen[view.tensor.0 as usize] { moved(&plan, view) } else { None };
            moved.unwrap_or_else(|| view.clone())
        };
        let (inputs, outputs) = (step.inputs.iter().map(of).collect(), step.outputs.iter().map(of).collect());
        Step { inputs, outputs, kernel: step.kernel.clone(), node: step.node.clone() }
    });
    plan.steps = steps.collect();
    for (def, _) in plan.tensors.iter_mut().zip(chosen).filter(|(_, chosen)| *chosen) {
        def.ty.shape = stored(&def.ty.shape);
    }
    plan
}

/// The operands and results of a step that are images, `[N, C, spatial..]`.
fn images(step: &Step) -> impl Iterator<Item = &View> {
    let (inputs, outputs) = match &step.kernel {
        Kernel::Conv(_) | Kernel::ConvTranspose(_) | Kernel::Resize(_) => (1, 1),
        Kernel::Pool(_) => (1, step.outputs.len()),
        _ => (0, 0),
    };
    step.inputs[..inputs].iter().chain(&step.outputs[..outputs])
}

/// Whether a tensor may be stored otherwise, and the view shows its channels as channels.
fn shows_channels(plan: &Plan, view: &View) -> bool {
    let def = plan.tensor(view.tensor);
    let shape = &def.ty.shape;
    let free = matches!(def.origin, Origin::Steps) && !plan.outputs.contains(&view.tensor);
    free && shape.len() >= 3 && view.rank() == shape.len() && shape[1] > 1 && view.strides[1] == dense_strides(shape)[1]
}

/// What maps make of images, and what they make images of, are images, too.
fn spread(plan: &Plan, step: &Step, chosen: &mut [bool]) {
    if !matches!(step.kernel, Kernel::Map(_)) {
        return;
    }
    let views = || step.inputs.iter().chain(&step.outputs);
    if views().any(|view| chosen[view.tensor.0 as usize] && shows_channels(plan, view)) {
        views().for_each(|view| chosen[view.tensor.0 as usize] |= shows_channels(plan, view));
    }
}

/// A view of a tensor of three or more axes as a view of the tensor stored channels last.
fn moved(plan: &Plan, view: &View) -> Option<View> {
    let shape = &plan.tensor(view.tensor).ty.shape;
    if shape.len() < 3 {
        return None;
    }
    view.through(&shown(&View::dense(TensorId(view.tensor.0), &stored(shape))))
}
