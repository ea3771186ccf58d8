//! The bias of a convolution as the first step of its epilogue.

use crate::ir::DType;
use crate::kernels::{Binary, Instr, Map, Reg};

/// An epilogue of sums of type `sum` with the addition of a bias in front: operand 1 is the bias, then come the epilogue's own
/// operands.
pub fn biased(epilogue: Option<&Map>, sum: DType, bias: DType) -> Map {
    let body = vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Add, 0, 1)];
    let mut map = Map { inputs: vec![sum, bias], body, output: sum };
    let Some(epilogue) = epilogue else { return map };
    map.inputs.extend(&epilogue.inputs[1..]);
    map.output = epilogue.output;
    let mut registers = Vec::with_capacity(epilogue.body.len());
    for instr in &epilogue.body {
        let at = |register: Reg| registers[register];
        let moved = match *instr {
            Instr::Input(0) => {
                registers.push(2);
                continue;
            }
            Instr::Input(operand) => Instr::Input(operand + 1),
            constant @ Instr::Const(..) => constant,
            Instr::Unary(op, a) => Instr::Unary(op, at(a)),
            Instr::Binary(op, a, b) => Instr::Binary(op, at(a), at(b)),
            Instr::Select(c, a, b) => Instr::Select(at(c), at(a), at(b)),
            Instr::Cast(to, a) => Instr::Cast(to, at(a)),
        };
        registers.push(map.body.len());
        map.body.push(moved);
    }
    if let Some(&last) = registers.last().filter(|&&last| last + 1 != map.body.len()) {
        map.body.push(Instr::Cast(map.output, last));
    }
    map
}
