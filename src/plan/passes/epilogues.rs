//! MatMul or Conv whose only reader is a map over the same elements -> the kernel with the map as its epilogue: bias, activation,
//! residual sum, and a reordering copy alike. A constant factor of the product becomes `alpha`.
//!
//! The fused step stands where the map stood, so that the map's other operands are written before it.

use super::Draft;
use super::factor::{factor, is_identity};
use super::maps::OPERANDS_MAX;
use crate::error::Result;
use crate::ir::DType;
use crate::kernels::{Kernel, Map};
use crate::plan::{Step, View};

/// Gives every product and convolution without an epilogue the map that reads it.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in 0..draft.len() {
        if let Some((reader, step)) = with_epilogue(draft, slot) {
            draft.replace(reader, step);
            draft.remove(slot);
        }
    }
    Ok(())
}

/// A map read in the index space of the kernel that produces one of its operands.
pub struct Rebased {
    /// The slot of the map.
    pub reader: usize,
    /// The program; operand 0 is the kernel's result.
    pub map: Map,
    /// The views of the operands from 1.
    pub inputs: Vec<View>,
    /// Where the map writes.
    pub output: View,
}

/// The map that alone reads the only result of the step in `slot`, all of it and once, in that result's index space.
pub fn rebased_reader(draft: &Draft, slot: usize) -> Option<Rebased> {
    let step = draft.step(slot)?;
    let [result] = &step.outputs[..] else { return None };
    if draft.producer(result.tensor) != Some(slot) || !draft.inputs_settled(slot) {
        return None;
    }
    let reader = draft.only_reader(result.tensor)?;
    let (map, user) = draft.map(reader)?;
    let mut operands = (0..user.inputs.len()).filter(|&operand| user.inputs[operand].tensor == result.tensor);
    let operand = operands.next().filter(|_| operands.next().is_none())?;
    let order = user.inputs[operand].walk_order(draft.tensor(result.tensor).ty.count())?;
    let rebase = |view: &View| result.through(&view.permute(&order));
    let others = || (0..user.inputs.len()).filter(|&other| other != operand);
    let inputs = others().map(|other| rebase(&user.inputs[other])).collect::<Option<Vec<_>>>()?;
    let mut to = vec![0; user.inputs.len()];
    others().enumerate().for_each(|(position, other)| to[other] = position + 1);
    Some(Rebased { reader, map: map.rewired(&to), inputs, output: rebase(&user.outputs[0])? })
}

fn with_epilogue(draft: &Draft, slot: usize) -> Option<(usize, Step)> {
    let step = draft.step(slot)?;
    let free = match &step.kernel {
        Kernel::MatMul(matmul) => matmul.epilogue.is_none(),
        Kernel::Conv(conv) => conv.epilogue.is_none(),
        _ => false,
    };
    if !free || step.outputs[0].count() == 0 {
        return None;
    }
    let Rebased { reader, mut map, inputs, output } = rebased_reader(draft, slot)?;
    if step.inputs.len() + inputs.len() > OPERANDS_MAX || !is_streamable(&output) {
        return None;
    }
    let stored = map.inputs[0];
    if stored.is_float() {
        map.inputs[0] = DType::F32;
    }
    let mut kernel = step.kernel.clone();
    let mut operands = [&step.inputs[..], &inputs].concat();
    if let Kernel::MatMul(matmul) = &mut kernel
        && stored.is_float()
        && let Some((scale, rest)) = factor(&map, 0)
    {
        let (rest, kept) = rest.simplified();
        // The product stays operand 0: it is used, and the kept operands are in order.
        operands =
            [&step.inputs[..], &kept[1..].iter().map(|&index| inputs[index - 1].clone()).collect::<Vec<_>>()].concat();
        (map, matmul.alpha) = (rest, matmul.alpha * scale);
    }
    let epilogue = (!is_identity(&map) || map.output != stored).then_some(map);
    match &mut kernel {
        Kernel::MatMul(matmul) => matmul.epilogue = epilogue,
        Kernel::Conv(conv) => conv.epilogue = epilogue,
        _ => return None,
    }
    Some((reader, Step { kernel, inputs: operands, outputs: vec![output], node: step.node.clone() }))
}

/// Whether a kernel that computes rows can store them in runs: the innermost axis is contiguous.
pub fn is_streamable(output: &View) -> bool {
    let inner = (0..output.rank()).rev().find(|&axis| output.shape[axis] != 1);
    inner.is_none_or(|axis| output.strides[axis] == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Binary, Conv, MatMul, Unary, Window};
    use crate::plan::passes::trial::{Trial, kernels};
    use crate::plan::passes::{maps, scalars};

    fn optimized(trial: &Trial) -> crate::plan::Plan {
        trial.check(|draft| {
            scalars::run(draft)?;
            maps::run(draft)?;
            run(draft)
        })
    }

    fn matmul() -> MatMul {
        MatMul { alpha: 1.0, epilogue: None }
    }

    #[test]
    fn bias_activation_and_residual_join_the_product() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3, 4]);
        let (w, bias) = (trial.weight(&[4, 5]), trial.weight(&[5]));
        let product = trial.emit(matmul(), &[&x.reshape(&[6, 4]).unwrap(), &w]);
        let b = &mut trial.builder;
        let product = product.reshape(&[2, 3, 5]).unwrap();
        let sum = b.binary(Binary::Add, &bias, &product).unwrap();
        let active = b.unary(Unary::Gelu, &sum).unwrap();
        let residual = trial.input(&[2, 3, 5]);
        let later = trial.builder.unary(Unary::Exp, &residual).unwrap();
        let sum = trial.builder.binary(Binary::Add, &active, &later).unwrap();
        trial.deliver(&sum);
        trial.deliver(&later);
        let plan = optimized(&trial);
        assert_eq!(kernels(&plan), ["Map", "MatMul"], "the product moved behind what it needs");
        assert_eq!(plan.steps[1].inputs.len(), 4);
        let bias = plan.steps[1].inputs.iter().find(|view| view.strides == [0, 1]);
        assert_eq!(bias.map(|view| &view.shape[..]), Some(&[6, 5][..]), "the bias, seen from the product");
    }

    #[test]
    fn a_factor_becomes_alpha_and_a_permutation_is_written_in_place() {
        let mut trial = Trial::empty();
        let (x, w) = (trial.input(&[2, 3, 4]), trial.input(&[2, 4, 5]));
        let eighth = trial.scalar(0.125);
        let product = trial.emit(matmul(), &[&x, &w]);
        let scaled = trial.builder.binary(Binary::Mul, &product, &eighth).unwrap();
        let moved = trial.builder.copy(&scaled.swap(0, 1)).unwrap();
        trial.deliver(&moved);
        let plan = optimized(&trial);
        assert_eq!(kernels(&plan), ["MatMul"]);
        assert_eq!(plan.steps[0].outputs[0].strides, [5, 10, 1]);
        assert_eq!(plan.steps[0].kernel, MatMul { alpha: 0.125, epilogue: None }.into());
    }

    #[test]
    fn a_product_that_is_read_twice_or_transposed_keeps_its_tensor() {
        let mut trial = Trial::empty();
        let (x, w) = (trial.input(&[3, 4]), trial.weight(&[4, 5]));
        let product = trial.emit(matmul(), &[&x, &w]);
        let flipped = trial.builder.copy(&product.swap(0, 1)).unwrap();
        trial.deliver(&flipped);
        let other = trial.emit(matmul(), &[&x, &w]);
        let a = trial.builder.unary(Unary::Exp, &other).unwrap();
        trial.deliver(&a);
        trial.deliver(&other);
        assert_eq!(kernels(&optimized(&trial)), ["MatMul", "Map", "MatMul", "Map"]);
    }

    #[test]
    fn a_convolution_takes_its_activation() {
        let mut trial = Trial::empty();
        let (x, w, bias) = (trial.input(&[2, 3, 5, 5]), trial.weight(&[4, 3, 3, 3]), trial.weight(&[4]));
        let window = Window {
            kernel: vec![3, 3],
            strides: vec![1, 1],
            dilations: vec![1, 1],
            pads_begin: vec![1, 1],
            pads_end: vec![1, 1],
        };
        let y = trial.emit(Conv { groups: 1, window, epilogue: None }, &[&x, &w, &bias]);
        let sum = trial.builder.binary(Binary::Add, &y, &y).unwrap();
        let active = trial.builder.unary(Unary::Relu, &sum).unwrap();
        trial.deliver(&active);
        let plan = optimized(&trial);
        assert_eq!(kernels(&plan), ["Conv"]);
        assert_eq!(plan.steps[0].inputs.len(), 3);
    }
}
