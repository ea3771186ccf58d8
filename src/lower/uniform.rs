//! Operands that are one constant value move into the scalar program that reads them.

use crate::ir::{DType, Tensor};
use crate::kernels::{Instr, Map};
use crate::plan::View;

/// The value that a view of a constant shows everywhere, as an instruction.
fn uniform(tensor: &Tensor, view: &View) -> Option<Instr> {
    let same = view.shape.iter().zip(&view.strides).all(|(&extent, &stride)| extent == 1 || stride == 0);
    (same && view.count() > 0).then(|| Instr::Const(tensor.dtype(), tensor.at(view.offset)))
}

/// Turns operands that are one constant value into instructions. `constant` knows the tensor of operand `first + i`;
/// operands before `first` stay (an epilogue's operand 0 is an accumulator). Answers which operands are left.
pub fn absorb_constants<'a>(
    map: &Map,
    first: usize,
    views: &[View],
    constant: impl Fn(&View) -> Option<&'a Tensor>,
) -> (Map, Vec<usize>) {
    let mut left: Vec<usize> = Vec::new();
    let mut inputs: Vec<DType> = map.inputs[..first].to_vec();
    let mut replacement: Vec<Instr> = (0..first).map(Instr::Input).collect();
    for (index, view) in views.iter().enumerate() {
        let value = constant(view).and_then(|tensor| uniform(tensor, view));
        replacement.push(value.unwrap_or(Instr::Input(inputs.len())));
        if value.is_none() {
            inputs.push(map.inputs[first + index]);
            left.push(index);
        }
    }
    let replaced = |instr: &Instr| match *instr {
        Instr::Input(operand) => replacement[operand],
        other => other,
    };
    (Map { inputs, body: map.body.iter().map(replaced).collect(), output: map.output }, left)
}
