//! Scalar programs compiled for execution in blocks: every instruction becomes one loop over a block of elements.

use crate::ir::{DType, Scalar};
use crate::kernels::{Binary, Instr, Map, Reg, Unary};
use crate::plan::dense_strides;
use std::collections::HashMap;

/// Elements per block: a few blocks of 4-byte elements stay in the first-level cache.
pub const BLOCK: usize = 512;

/// How the elements of an operand lie along the axis that blocks run along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// One value for the whole block.
    Uniform,
    /// One after the other.
    Unit,
    /// Anyhow: they are gathered.
    Scattered,
}

impl Access {
    /// How the elements of an operand lie along its last axis, or over all its axes if blocks are `flat`.
    pub fn of(shape: &[usize], strides: &[isize], flat: bool) -> Access {
        let first = if flat { 0 } else { shape.len().saturating_sub(1) };
        if strides[first..].iter().all(|&stride| stride == 0) {
            Access::Uniform
        } else if strides[first..] == dense_strides(&shape[first..]) {
            Access::Unit
        } else {
            Access::Scattered
        }
    }
}

/// A compiled [`Map`]. Float registers are binary32 whatever the storage type.
#[derive(Clone, Debug, PartialEq)]
pub struct Code {
    /// Operands to fetch before the instructions of a block, each once.
    pub loads: Vec<Load>,
    /// Instructions in order; the last one's register is the result.
    pub instrs: Vec<CodeInstr>,
    /// The register of the result: of the last instruction, or of a load if there are none.
    pub result: Reg,
    /// Registers in all; loads and instructions define one each.
    pub registers: usize,
    /// Block buffers that registers share.
    pub slots: usize,
    /// Bytes of a block buffer.
    pub slot_bytes: usize,
    /// Whether the result is one value for the whole block.
    pub uniform: bool,
    /// Element type of the result's register.
    pub class: DType,
    /// Element type stored.
    pub output: DType,
}

/// Fetching an operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Which operand.
    pub operand: usize,
    /// Element type stored.
    pub dtype: DType,
    /// How its elements lie.
    pub access: Access,
    /// The register defined.
    pub register: Reg,
    /// The buffer to fetch into; `None` if the elements are used where they lie.
    pub slot: Option<usize>,
}

/// What an instruction computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CodeOp {
    /// A value known when compiling.
    Const(Scalar),
    /// A function of one register.
    Unary(Unary, Reg),
    /// A function of two registers.
    Binary(Binary, Reg, Reg),
    /// `Select(c, a, b)`: a where c, else b.
    Select(Reg, Reg, Reg),
    /// Conversion to the instruction's class.
    Convert(Reg),
    /// Rounding of a binary32 register to the precision of the type, `F16` or `BF16`.
    Round(DType, Reg),
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CodeInstr {
    /// What is computed.
    pub op: CodeOp,
    /// Element type of the operands' registers (of a `Select`, of a and b).
    pub from: DType,
    /// Element type of the register defined: `F32`, an integer type or `Bool`.
    pub class: DType,
    /// Register defined.
    pub register: Reg,
    /// Whether operands 0, 1 (and 2) are one value for the whole block; so is the result if all are.
    pub uniform: [bool; 3],
    /// The buffer of the result; `None` for a uniform register, which has room of its own.
    pub slot: Option<usize>,
}

impl CodeInstr {
    /// Whether the result is one value for the whole block.
    pub fn is_uniform(&self) -> bool {
        self.slot.is_none()
    }

    fn operands(&self) -> ([Reg; 3], usize) {
        match self.op {
            CodeOp::Const(_) => ([0; 3], 0),
            CodeOp::Unary(_, a) | CodeOp::Convert(a) | CodeOp::Round(_, a) => ([a, 0, 0], 1),
            CodeOp::Binary(_, a, b) => ([a, b, 0], 2),
            CodeOp::Select(c, a, b) => ([c, a, b], 3),
        }
    }
}

/// The element type of the register that a value of a type is computed in.
pub fn class_of(dtype: DType) -> DType {
    if dtype.is_float() { DType::F32 } else { dtype }
}

impl Code {
    /// Compiles a program for operands that lie as `access` says. The program is well typed.
    pub fn compile(map: &Map, access: &[Access]) -> Code {
        let mut compiler = Compiler::new(map, access);
        let mut result = compiler.body();
        // Storing rounds anyway.
        if let Some(CodeInstr { op: CodeOp::Round(dtype, a), register, .. }) = compiler.instrs.last()
            && *register == result
            && *dtype == map.output
        {
            result = *a;
        }
        if compiler.classes[result] != class_of(map.output) {
            result = compiler.define(CodeOp::Convert(result), class_of(map.output));
        }
        compiler.finish(result)
    }

    /// Bytes of working memory that executing needs: a pointer and room for a uniform value per register, then the buffers.
    pub fn scratch_bytes(&self) -> usize {
        self.slots_offset() + self.slots * self.slot_bytes
    }

    /// Position of the buffers in the working memory.
    pub fn slots_offset(&self) -> usize {
        (self.registers * 16).next_multiple_of(crate::lower::arena::ALIGNMENT)
    }

    /// Whether the program stores operand 0 as it is.
    pub fn is_copy(&self) -> bool {
        self.instrs.is_empty() && self.loads.len() == 1 && self.loads[0].dtype == self.output
    }
}

/// A program being compiled.
struct Compiler<'a> {
    map: &'a Map,
    access: &'a [Access],
    loads: Vec<Load>,
    instrs: Vec<CodeInstr>,
    /// Per register.
    classes: Vec<DType>,
    uniform: Vec<bool>,
    /// Values computed before, by what computes them.
    known: HashMap<String, Reg>,
}

impl<'a> Compiler<'a> {
    fn new(map: &'a Map, access: &'a [Access]) -> Self {
        let (loads, instrs, classes, uniform) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Compiler { map, access, loads, instrs, classes, uniform, known: HashMap::new() }
    }

    /// Translates the body; answers the register of its last instruction.
    fn body(&mut self) -> Reg {
        let mut registers: Vec<Reg> = Vec::with_capacity(self.map.body.len());
        for instr in &self.map.body {
            let register = match *instr {
                Instr::Input(operand) => self.load(operand),
                Instr::Const(dtype, value) => self.define(CodeOp::Const(rounded(dtype, value)), class_of(dtype)),
                Instr::Unary(op, a) => {
                    let a = registers[a];
                    let class = match op {
                        Unary::IsNan | Unary::IsInf | Unary::Not => DType::Bool,
                        _ => self.classes[a],
                    };
                    self.define(CodeOp::Unary(op, a), class)
                }
                Instr::Binary(op, a, b) => self.binary(op, registers[a], registers[b]),
                Instr::Select(c, a, b) => {
                    let (c, a, b) = (registers[c], registers[a], registers[b]);
                    self.define(CodeOp::Select(c, a, b), self.classes[a])
                }
                Instr::Cast(to, a) => self.cast(to, registers[a]),
            };
            registers.push(register);
        }
        *registers.last().expect("a map computes something")
    }

    fn load(&mut self, operand: usize) -> Reg {
        if let Some(load) = self.loads.iter().find(|load| load.operand == operand) {
            return load.register;
        }
        let (dtype, access) = (self.map.inputs[operand], self.access[operand]);
        let register = self.register(class_of(dtype), access == Access::Uniform);
        self.loads.push(Load { operand, dtype, access, register, slot: None });
        register
    }

    fn register(&mut self, class: DType, uniform: bool) -> Reg {
        self.classes.push(class);
        self.uniform.push(uniform);
        self.classes.len() - 1
    }

    fn binary(&mut self, op: Binary, a: Reg, b: Reg) -> Reg {
        if op == Binary::Pow
            && self.classes[a] == DType::F32
            && let Some(exponent) = self.constant(b)
        {
            if exponent == 2.0 {
                return self.define(CodeOp::Binary(Binary::Mul, a, a), DType::F32);
            }
            if exponent == 3.0 {
                let square = self.define(CodeOp::Binary(Binary::Mul, a, a), DType::F32);
                return self.define(CodeOp::Binary(Binary::Mul, square, a), DType::F32);
            }
        }
        let compares = matches!(op, Binary::Equal | Binary::Less | Binary::LessOrEqual);
        let class = if compares { DType::Bool } else { self.classes[a] };
        self.define(CodeOp::Binary(op, a, b), class)
    }

    fn constant(&self, register: Reg) -> Option<f64> {
        self.instrs.iter().find(|instr| instr.register == register).and_then(|instr| match instr.op {
            CodeOp::Const(value) => Some(value.as_f64()),
            _ => None,
        })
    }

    fn cast(&mut self, to: DType, a: Reg) -> Reg {
        let mut register = a;
        if self.classes[a] != class_of(to) {
            register = self.define(CodeOp::Convert(a), class_of(to));
        }
        match to {
            DType::F16 | DType::BF16 => self.define(CodeOp::Round(to, register), DType::F32),
            _ => register,
        }
    }

    fn define(&mut self, op: CodeOp, class: DType) -> Reg {
        let name = format!("{op:?} {class:?}");
        if let Some(&register) = self.known.get(&name) {
            return register;
        }
        let mut instr = CodeInstr { op, from: class, class, register: 0, uniform: [true; 3], slot: None };
        let (operands, count) = instr.operands();
        for (flag, &operand) in instr.uniform.iter_mut().zip(&operands[..count]) {
            *flag = self.uniform[operand];
        }
        instr.from = match op {
            CodeOp::Const(_) => class,
            CodeOp::Select(_, a, _) => self.classes[a],
            _ => self.classes[operands[0]],
        };
        instr.register = self.register(class, instr.uniform == [true; 3]);
        self.instrs.push(instr);
        self.known.insert(name, instr.register);
        instr.register
    }

    /// Drops what the result does not need and gives every register that needs one a buffer.
    fn finish(mut self, result: Reg) -> Code {
        let mut needed = vec![false; self.classes.len()];
        needed[result] = true;
        for instr in self.instrs.iter().rev() {
            if needed[instr.register] {
                let (operands, count) = instr.operands();
                operands[..count].iter().for_each(|&operand| needed[operand] = true);
            }
        }
        self.instrs.retain(|instr| needed[instr.register]);
        self.loads.retain(|load| needed[load.register]);
        let slots = self.allocate(result);
        let widest = self.classes.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(class, _)| class.bytes());
        Code {
            result,
            registers: self.classes.len(),
            slots,
            slot_bytes: BLOCK * widest.max().unwrap_or(1),
            uniform: self.uniform[result],
            class: self.classes[result],
            output: self.map.output,
            loads: self.loads,
            instrs: self.instrs,
        }
    }

    /// Linear scan. A result never shares a buffer with an operand, so that loops need no care for aliasing.
    fn allocate(&mut self, result: Reg) -> usize {
        let mut last_use = vec![0usize; self.classes.len()];
        for (position, instr) in self.instrs.iter().enumerate() {
            let (operands, count) = instr.operands();
            operands[..count].iter().for_each(|&operand| last_use[operand] = position);
        }
        last_use[result] = usize::MAX;
        let (mut free, mut slots, mut slot_of) = (Vec::new(), 0, vec![None; self.classes.len()]);
        let mut take = |free: &mut Vec<usize>| {
            free.pop().unwrap_or_else(|| {
                slots += 1;
                slots - 1
            })
        };
        for load in &mut self.loads {
            let converts = class_of(load.dtype) != load.dtype;
            if load.access == Access::Scattered || (load.access == Access::Unit && converts) {
                load.slot = Some(take(&mut free));
                slot_of[load.register] = load.slot;
            }
        }
        for (position, instr) in self.instrs.iter_mut().enumerate() {
            if !self.uniform[instr.register] {
                instr.slot = Some(take(&mut free));
                slot_of[instr.register] = instr.slot;
            }
            let (mut operands, count) = instr.operands();
            operands[..count].sort_unstable();
            let mut previous = None;
            for &operand in &operands[..count] {
                if last_use[operand] == position && previous != Some(operand) {
                    free.extend(slot_of[operand]);
                }
                previous = Some(operand);
            }
        }
        slots
    }
}

/// A constant of a 16-bit float type has that type's precision.
fn rounded(dtype: DType, value: Scalar) -> Scalar {
    match dtype {
        DType::F16 => Scalar::Float(half::f16::from_f64(value.as_f64()).to_f64()),
        DType::BF16 => Scalar::Float(half::bf16::from_f64(value.as_f64()).to_f64()),
        DType::F32 => Scalar::Float(f64::from(value.as_f64() as f32)),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_never_shared_by_operand_and_result() {
        let body = vec![
            Instr::Input(0),
            Instr::Unary(Unary::Exp, 0),
            Instr::Unary(Unary::Neg, 1),
            Instr::Unary(Unary::Abs, 2),
            Instr::Unary(Unary::Sqrt, 3),
        ];
        let map = Map { inputs: vec![DType::F32], body, output: DType::F32 };
        let code = Code::compile(&map, &[Access::Unit]);
        assert_eq!(code.slots, 2);
        assert_eq!(code.loads[0].slot, None);
        assert_eq!(Code::compile(&map, &[Access::Scattered]).slots, 2);
        assert!(Code::compile(&map, &[Access::Uniform]).uniform);
    }

    #[test]
    fn equal_instructions_are_computed_once_and_unused_ones_never() {
        let body = vec![
            Instr::Input(0),
            Instr::Input(0),
            Instr::Unary(Unary::Exp, 0),
            Instr::Unary(Unary::Exp, 1),
            Instr::Unary(Unary::Log, 0),
            Instr::Binary(Binary::Add, 2, 3),
        ];
        let map = Map { inputs: vec![DType::F16], body, output: DType::F16 };
        let code = Code::compile(&map, &[Access::Unit]);
        assert_eq!((code.loads.len(), code.instrs.len()), (1, 2));
        assert!(code.loads[0].slot.is_some(), "a 16-bit float is widened into a buffer");
    }

    #[test]
    fn small_powers_are_products() {
        let two = Instr::Const(DType::F32, Scalar::Float(2.0));
        let body = vec![Instr::Input(0), two, Instr::Binary(Binary::Pow, 0, 1)];
        let map = Map { inputs: vec![DType::F32], body, output: DType::F32 };
        let code = Code::compile(&map, &[Access::Unit]);
        assert_eq!(code.instrs.len(), 1);
        assert_eq!(code.instrs[0].op, CodeOp::Binary(Binary::Mul, 0, 0));
    }
}
