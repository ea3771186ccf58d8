//! Scalar programs as the device interprets them: instructions over a few slots, each slot holding several elements.

use super::layout::arguments;
use super::opcode::{self, CAST, CONSTANT, Function, LOAD, SELECT};
use super::operand::{code, dtype};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar};
use crate::kernels::{Instr, Map, Reg};

/// Instructions of a program; fused maps have at most 64.
pub const INSTRUCTIONS: usize = 96;
/// Operands of a program.
pub const OPERANDS: usize = 16;

arguments! {
    /// One instruction.
    pub struct Instruction {
        /// Function, then the class of the slot defined, then that of the first argument, 8 bits each from the lowest.
        pub code: u32,
        /// Slot defined, then those of three arguments (of a `LOAD`, the operand's number), 8 bits each from the lowest.
        pub slots: u32,
        /// The value of a `CONSTANT`: the bits of a binary32, or an integer.
        pub value: u64,
    }
}

arguments! {
    /// A scalar program. Its result is in the slot that the last instruction defines.
    pub struct Program {
        /// Instructions used.
        pub count: u32,
        /// Slots used.
        pub slots: u32,
        /// The instructions.
        pub instructions: [Instruction; INSTRUCTIONS],
    }
}

impl Instruction {
    fn new(op: u32, class: DType, from: DType, slots: [usize; 4], value: u64) -> Instruction {
        let packed = slots.iter().rev().fold(0, |packed, &slot| packed << 8 | slot as u32);
        Instruction { code: op | code(class) << 8 | code(from) << 16, slots: packed, value }
    }

    fn slot(&self, index: usize) -> usize {
        (self.slots >> (8 * index) & 0xFF) as usize
    }
}

/// The registers that an instruction reads.
fn arguments_of(instr: &Instr) -> Vec<Reg> {
    match *instr {
        Instr::Input(_) | Instr::Const(..) => vec![],
        Instr::Unary(_, a) | Instr::Cast(_, a) => vec![a],
        Instr::Binary(_, a, b) => vec![a, b],
        Instr::Select(c, a, b) => vec![c, a, b],
    }
}

impl Program {
    /// Compiles a well-typed map: registers become slots that are reused after a register's last use.
    pub fn compile(map: &Map) -> Result<Program> {
        let types = map.register_types()?;
        ensure!(
            map.body.len() <= INSTRUCTIONS && map.inputs.len() <= OPERANDS,
            TooLarge,
            "a map of {} instructions and {} operands is too large for a device",
            map.body.len(),
            map.inputs.len()
        );
        let mut last_use: Vec<usize> = (0..map.body.len()).collect();
        for (index, instr) in map.body.iter().enumerate() {
            arguments_of(instr).into_iter().for_each(|reg| last_use[reg] = index);
        }
        let zero = Instruction { code: 0, slots: 0, value: 0 };
        let mut program = Program { count: map.body.len() as u32, slots: 0, instructions: [zero; INSTRUCTIONS] };
        let mut slots: Vec<usize> = Vec::with_capacity(map.body.len());
        let mut free: Vec<usize> = Vec::new();
        for (index, instr) in map.body.iter().enumerate() {
            let read: Vec<usize> = arguments_of(instr).into_iter().map(|reg| slots[reg]).collect();
            // A register that ends here makes room for the one defined: each element is read before it is written.
            let mut ending: Vec<Reg> = arguments_of(instr).into_iter().filter(|&reg| last_use[reg] == index).collect();
            ending.dedup();
            for reg in ending {
                if !free.contains(&slots[reg]) {
                    free.push(slots[reg]);
                }
            }
            let slot = free.pop().unwrap_or_else(|| {
                program.slots += 1;
                program.slots as usize - 1
            });
            slots.push(slot);
            if last_use[index] == index && index + 1 < map.body.len() {
                free.push(slot);
            }
            program.instructions[index] = compiled(instr, &types, index, slot, &read);
        }
        Ok(program)
    }

    /// The map that was compiled, for operands stored as `inputs`.
    pub(super) fn to_map(self, inputs: Vec<DType>, output: DType) -> Result<Map> {
        let mut body = Vec::new();
        let mut registers = vec![usize::MAX; self.slots as usize];
        for (index, instruction) in self.instructions[..self.count as usize].iter().enumerate() {
            let register = |argument: usize| registers[instruction.slot(argument)];
            let class = dtype(instruction.code >> 8 & 0xFF)?;
            body.push(match instruction.code & 0xFF {
                LOAD => Instr::Input(instruction.slot(1)),
                CONSTANT if class == DType::F32 => {
                    Instr::Const(class, Scalar::Float(f32::from_bits(instruction.value as u32).into()))
                }
                CONSTANT => Instr::Const(class, Scalar::Int(instruction.value as i64)),
                SELECT => Instr::Select(register(1), register(2), register(3)),
                CAST => Instr::Cast(dtype(instruction.slot(3) as u32)?, register(1)),
                op => match opcode::function(op)? {
                    Function::Unary(op) => Instr::Unary(op, register(1)),
                    Function::Binary(op) => Instr::Binary(op, register(1), register(2)),
                },
            });
            registers[instruction.slot(0)] = index;
        }
        let map = Map { inputs, body, output };
        map.register_types()?;
        Ok(map)
    }
}

/// One instruction of a map whose registers have these types.
fn compiled(instr: &Instr, types: &[DType], index: usize, slot: usize, read: &[usize]) -> Instruction {
    let class = types[index];
    let argument = |position: usize| read.get(position).copied().unwrap_or(0);
    let from = arguments_of(instr).first().map_or(class, |&reg| types[reg]);
    let slots = [slot, argument(0), argument(1), argument(2)];
    match *instr {
        Instr::Input(operand) => Instruction::new(LOAD, class, class, [slot, operand, 0, 0], 0),
        Instr::Const(stored, value) => {
            let value = match class {
                DType::F32 => u64::from(stored_float(stored, value).to_bits()),
                _ => wrapped(class, value.as_i64()) as u64,
            };
            Instruction::new(CONSTANT, class, class, slots, value)
        }
        Instr::Unary(op, _) => Instruction::new(opcode::unary(op), class, from, slots, 0),
        Instr::Binary(op, ..) => Instruction::new(opcode::binary(op), class, from, slots, 0),
        Instr::Select(..) => Instruction::new(SELECT, class, from, slots, 0),
        // The stored type matters: binary16 rounds.
        Instr::Cast(to, _) => Instruction::new(CAST, class, from, [slot, argument(0), 0, code(to) as usize], 0),
    }
}

/// A constant of a float type as binary32.
fn stored_float(stored: DType, value: Scalar) -> f32 {
    match stored {
        DType::F16 => half::f16::from_f64(value.as_f64()).to_f32(),
        DType::BF16 => half::bf16::from_f64(value.as_f64()).to_f32(),
        _ => value.as_f64() as f32,
    }
}

fn wrapped(class: DType, value: i64) -> i64 {
    match class {
        DType::I32 => (value as i32).into(),
        DType::I8 => (value as i8).into(),
        DType::U8 => (value as u8).into(),
        DType::Bool => (value != 0).into(),
        _ => value,
    }
}

impl Map {
    /// Whether all registers fit into 32 bits.
    pub fn is_narrow(&self) -> Result<bool> {
        let stored = self.inputs.iter().chain([&self.output]);
        Ok(self.register_types()?.iter().chain(stored).all(|&ty| ty != DType::I64))
    }
}

/// The element types of `count` operands.
pub(super) fn dtypes(operands: &[super::Operand], count: usize) -> Result<Vec<DType>> {
    let operands = operands.get(..count).ok_or_else(|| fail!(Internal, "a map of {count} operands"))?;
    operands.iter().map(|operand| dtype(operand.dtype)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Binary, Unary};

    fn everything() -> Map {
        let body = vec![
            Instr::Input(0),
            Instr::Input(1),
            Instr::Cast(DType::F32, 1),
            Instr::Binary(Binary::Less, 0, 2),
            Instr::Const(DType::F16, Scalar::Float(0.1)),
            Instr::Unary(Unary::Exp, 0),
            Instr::Select(3, 4, 5),
            Instr::Cast(DType::F16, 6),
            Instr::Const(DType::I64, Scalar::Int(-7)),
            Instr::Binary(Binary::Mul, 1, 8),
            Instr::Cast(DType::F32, 9),
            Instr::Binary(Binary::Add, 7, 10),
        ];
        Map { inputs: vec![DType::F16, DType::I64], body, output: DType::BF16 }
    }

    #[test]
    fn a_program_is_its_map() {
        let map = everything();
        let program = Program::compile(&map).unwrap();
        assert!(program.slots < 7, "{} slots", program.slots);
        let back = program.to_map(map.inputs.clone(), map.output).unwrap();
        // Constants of narrower floats are kept as the binary32 that they are.
        let mut expected = map.clone();
        expected.body[4] = Instr::Const(DType::F32, Scalar::Float(half::f16::from_f64(0.1).to_f64()));
        assert_eq!(back, expected);
        assert!(!map.is_narrow().unwrap());
        assert!(Map::cast(DType::U8, DType::F16).is_narrow().unwrap());
    }

    #[test]
    fn slots_are_reused_but_never_early() {
        // ((x + 1) + 1) .. needs two slots; x x stays in one.
        let mut body = vec![Instr::Input(0)];
        for _ in 0..20 {
            body.push(Instr::Const(DType::F32, Scalar::Float(1.0)));
            body.push(Instr::Binary(Binary::Add, body.len() - 2, body.len() - 1));
        }
        let chain = Map { inputs: vec![DType::F32], body, output: DType::F32 };
        assert_eq!(Program::compile(&chain).unwrap().slots, 2);
        let square = Map {
            inputs: vec![DType::F32],
            body: vec![Instr::Input(0), Instr::Binary(Binary::Mul, 0, 0)],
            output: DType::F32,
        };
        assert_eq!(Program::compile(&square).unwrap().slots, 1);
        let long = Map { inputs: vec![DType::F32], body: vec![Instr::Input(0); INSTRUCTIONS + 1], output: DType::F32 };
        assert!(Program::compile(&long).is_err());
    }
}
