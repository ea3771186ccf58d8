//! Lowering of maps: uniform constants move into the program, loops are merged, the program is compiled.

use super::Operand;
use super::code::{Access, Code};
use crate::kernels::Map;
use crate::lower::nest;

/// Rows shorter than this are gathered several to a block, because starting a block costs as much.
const ROW_MIN: usize = 32;

/// A map ready to be executed over its operands' (simplified) axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Elementwise {
    /// The program.
    pub code: Code,
    /// Whether blocks run over the whole row-major index space instead of along single rows.
    pub flat: bool,
}

/// Compiles `map` and simplifies its operands and its result.
pub fn lower(map: &Map, inputs: &mut [Operand], output: &mut Operand) -> Elementwise {
    let mut operands: Vec<&mut Operand> = inputs.iter_mut().collect();
    operands.push(output);
    nest::simplify(&mut operands);
    let rank = output.shape.len();
    let flat = rank > 1 && output.shape[rank - 1] < ROW_MIN;
    let access: Vec<Access> = inputs.iter().map(|input| Access::of(&input.shape, &input.strides, flat)).collect();
    Elementwise { code: Code::compile(map, &access), flat }
}
