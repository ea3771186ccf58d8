//! Convolution, then a map that scales and shifts each channel by constants -> a convolution with other weights. An inference
//! BatchNormalization is such a map; so is a bias that the exporter added apart.

use super::Draft;
use super::epilogues::{Rebased, rebased_reader};
use super::factor::{only_register, only_user, passed_through};
use super::maps::tidied;
use crate::error::{Result, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{Binary, Instr, Kernel, Map, Reg};
use crate::plan::{Origin, Step, View};

/// Folds what constant scales and shifts it can into the weights and bias of the convolution before them.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in 0..draft.len() {
        if let Some(folded) = folded(draft, slot) {
            fold(draft, slot, folded)?;
        }
    }
    Ok(())
}

/// `scale[o] x + shift[o]` after the convolution, and the map that remains.
struct Folded {
    reader: usize,
    remainder: Step,
    scale: Vec<f64>,
    shift: Vec<f64>,
}

fn folded(draft: &Draft, slot: usize) -> Option<Folded> {
    let step = draft.step(slot)?;
    let free = match &step.kernel {
        Kernel::Conv(conv) => conv.epilogue.is_none(),
        Kernel::ConvTranspose(_) => true,
        _ => false,
    };
    let plain = step.inputs.iter().all(|view| draft.tensor(view.tensor).ty.dtype == DType::F32);
    let constants = step.inputs.get(1..3)?;
    if !free || !plain || constants.iter().any(|view| draft.constant(view).is_none()) {
        return None;
    }
    let channels = step.outputs[0].shape[1];
    let Rebased { reader, mut map, inputs, output } = rebased_reader(draft, slot)?;
    let mut views: Vec<View> = std::iter::once(step.outputs[0].clone()).chain(inputs).collect();
    let (mut scale, mut shift) = (vec![1.0; channels], vec![0.0; channels]);
    let mut changed = false;
    // The map shrinks with every turn.
    while let Some((input, user, change)) = first_change(draft, &map, &views, channels) {
        for (channel, (factor, term)) in change.into_iter().enumerate() {
            scale[channel] *= factor;
            shift[channel] = shift[channel] * factor + term;
        }
        let (simpler, kept) = passed_through(&map, user, input).simplified();
        views = kept.into_iter().map(|index| views[index].clone()).collect();
        map = simpler;
        changed = true;
    }
    let finite = scale.iter().chain(&shift).all(|value| value.is_finite());
    let scales = scale.iter().any(|&value| value != 1.0);
    // Weights that something else uses too would be stored twice.
    if !changed || !finite || scales && draft.only_reader(step.inputs[1].tensor) != Some(slot) {
        return None;
    }
    let mapped = Step { outputs: vec![output], ..draft.step(reader)?.clone() };
    Some(Folded { reader, remainder: tidied(map, views, &mapped)?, scale, shift })
}

/// Per channel, a factor and a term.
type Affine = Vec<(f64, f64)>;

/// The register of operand 0, its only reader, and what that reader does, if it scales or shifts channels.
fn first_change(draft: &Draft, map: &Map, views: &[View], channels: usize) -> Option<(Reg, Reg, Affine)> {
    let input = only_register(map, 0)?;
    let user = only_user(map, input)?;
    let Instr::Binary(op, a, b) = map.body[user] else { return None };
    let change: fn(f64) -> (f64, f64) = match op {
        Binary::Mul => |value| (value, 0.0),
        Binary::Div if a == input => |value| (1.0 / value, 0.0),
        Binary::Add => |value| (1.0, value),
        Binary::Sub if a == input => |value| (1.0, -value),
        _ => return None,
    };
    let values = match map.body[if a == input { b } else { a }] {
        Instr::Const(_, value) => vec![value.as_f64(); channels],
        Instr::Input(operand) => per_channel(draft.constant(views.get(operand)?)?, &views[operand])?,
        _ => return None,
    };
    Some((input, user, values.into_iter().map(change).collect()))
}

/// The values of a constant `[N, C, spatial..]` that differ from channel to channel only.
fn per_channel(tensor: &Tensor, view: &View) -> Option<Vec<f64>> {
    let varies = |axis: usize| view.shape[axis] != 1 && view.strides[axis] != 0;
    if (0..view.rank()).any(|axis| axis != 1 && varies(axis)) {
        return None;
    }
    let position = |channel: usize| view.offset.wrapping_add_signed(view.strides[1] * channel as isize);
    Some((0..view.shape[1]).map(|channel| tensor.at(position(channel)).as_f64()).collect())
}

fn fold(draft: &mut Draft, slot: usize, folded: Folded) -> Result<()> {
    let Folded { reader, remainder, scale, shift } = folded;
    let Some(step) = draft.step(slot) else { return Ok(()) };
    let mut step = step.clone();
    let (weights, bias) = (step.inputs[1].clone(), step.inputs[2].clone());
    if scale.iter().any(|&value| value != 1.0) {
        let mut values = value(draft, &weights)?.to_vec::<f32>().unwrap_or_default();
        // All weights of one kernel window belong to one output channel.
        let window: usize = weights.shape[2..].iter().product();
        let channel = channel_of(&step.kernel, &weights.shape);
        for (index, values) in values.chunks_exact_mut(window.max(1)).enumerate() {
            let scale = scale[channel(index)];
            values.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        }
        step.inputs[1] = constant(draft, &weights, values);
    }
    let old = value(draft, &bias)?.to_f64s();
    let moved = old.iter().zip(scale.iter().zip(&shift)).map(|(bias, (scale, shift))| bias * scale + shift);
    step.inputs[2] = constant(draft, &bias, moved.map(|value| value as f32).collect());
    draft.replace(slot, step);
    draft.replace(reader, remainder);
    Ok(())
}

/// Which output channel a window of the weights belongs to, by its row-major position.
fn channel_of(kernel: &Kernel, shape: &[usize]) -> impl Fn(usize) -> usize + use<> {
    let (rows, columns) = (shape[0], shape[1]);
    // Weights of a transposed convolution are [C, O / groups, kernel..], of a plain one [O, C / groups, kernel..].
    let per_group = match kernel {
        Kernel::ConvTranspose(conv) => Some(rows / conv.groups),
        _ => None,
    };
    move |position| {
        let (row, column) = (position / columns, position % columns);
        per_group.map_or(row, |per_group| row / per_group * columns + column)
    }
}

fn value(draft: &Draft, view: &View) -> Result<Tensor> {
    match draft.constant(view) {
        Some(tensor) => view.materialize(tensor),
        None => Err(fail!(Internal, "tensor {} is not a constant", view.tensor.0)),
    }
}

fn constant(draft: &mut Draft, like: &View, values: Vec<f32>) -> View {
    let tensor = Tensor::from_slice(&like.shape, &values);
    let name = draft.tensor(like.tensor).name.clone();
    draft.add(&name, tensor.ty(), Origin::Constant(tensor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Conv, ConvTranspose, Unary, Window};
    use crate::plan::passes::trial::{Trial, kernels};
    use crate::plan::passes::{epilogues, maps, scalars};

    fn window() -> Window {
        Window {
            kernel: vec![2, 3],
            strides: vec![1, 2],
            dilations: vec![1, 1],
            pads_begin: vec![0, 1],
            pads_end: vec![0, 1],
        }
    }

    /// BatchNormalization as the planner writes it, then ReLU.
    fn normalized(trial: &mut Trial, y: &View) {
        let channels = y.shape[1];
        let mut parameter = || trial.weight(&[channels]).reshape(&[channels, 1, 1]).unwrap();
        let (mean, variance, shift) = (parameter(), parameter(), parameter());
        let b = &mut trial.builder;
        let centred = b.binary(Binary::Sub, y, &mean).unwrap();
        let scaled = b.binary(Binary::Div, &centred, &variance).unwrap();
        let shifted = b.binary(Binary::Add, &shift, &scaled).unwrap();
        let active = b.unary(Unary::Relu, &shifted).unwrap();
        trial.deliver(&active);
    }

    fn optimized(trial: &Trial) -> crate::plan::Plan {
        trial.check(|draft| {
            scalars::run(draft)?;
            maps::run(draft)?;
            run(draft)?;
            epilogues::run(draft)
        })
    }

    #[test]
    fn batch_normalization_disappears_into_the_weights() {
        let mut trial = Trial::empty();
        let (x, w, bias) = (trial.input(&[2, 4, 3, 5]), trial.weight(&[6, 2, 2, 3]), trial.weight(&[6]));
        let y = trial.emit(Conv { groups: 2, window: window(), epilogue: None }, &[&x, &w, &bias]);
        normalized(&mut trial, &y);
        let plan = optimized(&trial);
        assert_eq!(kernels(&plan), ["Conv"]);
        assert_eq!(plan.steps[0].inputs.len(), 3);
        assert_eq!(plan.tensors.len(), 4, "the old weights are gone");
    }

    #[test]
    fn a_grouped_transposed_convolution_folds_by_its_own_channel_order() {
        let mut trial = Trial::empty();
        let (x, w, bias) = (trial.input(&[1, 4, 3, 3]), trial.weight(&[4, 3, 2, 3]), trial.weight(&[6]));
        let kernel = ConvTranspose { groups: 2, window: window(), output_padding: vec![0, 0] };
        let y = trial.emit(kernel, &[&x, &w, &bias]);
        normalized(&mut trial, &y);
        let plan = optimized(&trial);
        assert_eq!(kernels(&plan), ["ConvTranspose", "Map"]);
        assert_eq!(plan.steps[1].inputs.len(), 1, "only the activation is left");
    }

    #[test]
    fn weights_with_two_users_are_not_stored_twice() {
        let mut trial = Trial::empty();
        let (x, w, bias) = (trial.input(&[2, 2, 3, 5]), trial.weight(&[3, 2, 2, 3]), trial.weight(&[3]));
        for _ in 0..2 {
            let y = trial.emit(Conv { groups: 1, window: window(), epilogue: None }, &[&x, &w, &bias]);
            normalized(&mut trial, &y);
        }
        let plan = optimized(&trial);
        assert_eq!(kernels(&plan), ["Conv", "Conv"]);
        assert!(plan.steps.iter().all(|step| step.inputs.len() == 6 && step.inputs[1] == plan.steps[0].inputs[1]));
    }
}
