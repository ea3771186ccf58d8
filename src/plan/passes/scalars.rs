//! A map operand that is one constant value throughout -> an immediate constant of the map's program. Exporters write epsilons,
//! scales and exponents as tensors; as immediates they cost no operand, and the patterns of later passes can see them.

use super::Draft;
use crate::error::Result;
use crate::ir::{Scalar, Tensor};
use crate::kernels::{Instr, Kernel, Map};
use crate::plan::{Step, View};

/// Replaces uniform constant operands of every map, leaving at least one operand to give the shape.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in 0..draft.len() {
        if let Some(step) = immediate(draft, slot) {
            draft.replace(slot, step);
        }
    }
    Ok(())
}

fn immediate(draft: &Draft, slot: usize) -> Option<Step> {
    let (map, step) = draft.map(slot)?;
    let value = |view: &View| draft.constant(view).and_then(|tensor| uniform(tensor, view));
    let mut values: Vec<Option<Scalar>> = step.inputs.iter().map(value).collect();
    if values.iter().all(Option::is_some) && step.outputs[0].rank() > 0 {
        *values.first_mut()? = None;
    }
    if values.iter().all(Option::is_none) {
        return None;
    }
    let mut position = vec![0; values.len()];
    let (mut inputs, mut types) = (Vec::new(), Vec::new());
    for (operand, _) in values.iter().enumerate().filter(|(_, value)| value.is_none()) {
        position[operand] = inputs.len();
        inputs.push(step.inputs[operand].clone());
        types.push(map.inputs[operand]);
    }
    let rewrite = |instr: &Instr| match *instr {
        Instr::Input(operand) => match values[operand] {
            Some(value) => Instr::Const(map.inputs[operand], value),
            None => Instr::Input(position[operand]),
        },
        other => other,
    };
    let map = Map { inputs: types, body: map.body.iter().map(rewrite).collect(), output: map.output };
    Some(Step { kernel: Kernel::Map(map), inputs, ..step.clone() })
}

/// The value that the view shows everywhere, if there is one.
pub fn uniform(tensor: &Tensor, view: &View) -> Option<Scalar> {
    if view.count() == 0 {
        return None;
    }
    let size = tensor.dtype().bytes();
    let element = |position: usize| &tensor.data()[position * size..(position + 1) * size];
    let broadcast = view.shape.iter().zip(&view.strides).all(|(&extent, &stride)| extent == 1 || stride == 0);
    // A tensor of equal elements is as good as a scalar; the search ends at the first that differs.
    let first = element(view.offset);
    let equal = broadcast || tensor.data().chunks_exact(size).all(|element| element == first);
    equal.then(|| tensor.at(view.offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::kernels::{Binary, Unary};
    use crate::plan::passes::trial::Trial;

    #[test]
    fn uniform_operands_become_immediates() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3]);
        let half = trial.scalar(0.5).broadcast(&[2, 3]).unwrap();
        let ones = trial.builder.constant(Tensor::from_slice(&[2, 3], &[1f32; 6]));
        let weight = trial.weight(&[2, 3]);
        let scaled = trial.emit(Map::binary(Binary::Mul, DType::F32), &[&half, &x]);
        let shifted = trial.emit(Map::binary(Binary::Add, DType::F32), &[&scaled, &ones]);
        let weighted = trial.emit(Map::binary(Binary::Mul, DType::F32), &[&shifted, &weight]);
        trial.deliver(&weighted);
        let plan = trial.check(run);
        let operands: Vec<usize> = plan.steps.iter().map(|step| step.inputs.len()).collect();
        assert_eq!(operands, [1, 1, 2]);
    }

    #[test]
    fn the_last_operand_stays_to_give_the_shape() {
        let mut trial = Trial::empty();
        let zeros = trial.scalar(0.0).broadcast(&[4]).unwrap();
        let out = trial.room(&[4]);
        trial.write(Map::unary(Unary::Cos, DType::F32), &[&zeros], &out);
        trial.deliver(&out);
        assert_eq!(trial.check(run).steps[0].inputs.len(), 1);
    }
}
