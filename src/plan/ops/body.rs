//! Writes the scalar programs of maps.

use crate::ir::{DType, Scalar};
use crate::kernels::{Binary, Instr, Reg, Unary};

/// A scalar program being written: each method appends an instruction and gives its register.
#[derive(Debug, Default)]
pub struct Body {
    code: Vec<Instr>,
}

impl Body {
    /// A program whose first `count` registers are its operands.
    pub fn with_inputs(count: usize) -> Self {
        Body { code: (0..count).map(Instr::Input).collect() }
    }

    fn push(&mut self, instr: Instr) -> Reg {
        self.code.push(instr);
        self.code.len() - 1
    }

    /// A binary32 constant.
    pub fn float(&mut self, value: f32) -> Reg {
        self.push(Instr::Const(DType::F32, Scalar::Float(value.into())))
    }

    /// A constant of an element type's register: binary32 for every floating-point type.
    pub fn number(&mut self, dtype: DType, value: f64) -> Reg {
        match dtype.is_float() {
            true => self.push(Instr::Const(DType::F32, Scalar::Float(value))),
            false => self.push(Instr::Const(dtype, Scalar::Int(value as i64))),
        }
    }

    /// A function of one register.
    pub fn unary(&mut self, op: Unary, x: Reg) -> Reg {
        self.push(Instr::Unary(op, x))
    }

    /// A function of two registers.
    pub fn binary(&mut self, op: Binary, a: Reg, b: Reg) -> Reg {
        self.push(Instr::Binary(op, a, b))
    }

    /// `yes` where the condition holds, else `no`.
    pub fn select(&mut self, condition: Reg, yes: Reg, no: Reg) -> Reg {
        self.push(Instr::Select(condition, yes, no))
    }

    /// Conversion to an element type.
    pub fn cast(&mut self, to: DType, x: Reg) -> Reg {
        self.push(Instr::Cast(to, x))
    }

    /// The program; its last register is the result.
    pub fn finish(self) -> Vec<Instr> {
        self.code
    }
}
