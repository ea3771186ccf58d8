//! The type rules of the scalar program.

use super::{Binary, Instr, Map, Reg, Unary};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;

impl Map {
    /// Checks the program and gives the type of every register. All floats are `F32` in registers, whatever the
    /// storage type; the other types are themselves. A reference to an operand or register that is not there is
    /// `Internal`, a function that its argument's type does not have is `Unsupported`.
    pub fn register_types(&self) -> Result<Vec<DType>> {
        let mut types: Vec<DType> = Vec::with_capacity(self.body.len());
        for instr in &self.body {
            types.push(self.instr_type(instr, &types)?);
        }
        let Some(&result) = types.last() else {
            return Err(fail!(Internal, "a map without instructions has no result"));
        };
        ensure!(result == held(self.output), Internal, "a map whose result is {result} cannot store {}", self.output);
        Ok(types)
    }

    fn instr_type(&self, instr: &Instr, types: &[DType]) -> Result<DType> {
        let register = |reg: Reg| {
            types.get(reg).copied().ok_or_else(|| fail!(Internal, "instruction {} reads register {reg}", types.len()))
        };
        match *instr {
            Instr::Input(index) => match self.inputs.get(index) {
                Some(&dtype) => Ok(held(dtype)),
                None => Err(fail!(Internal, "a map of {} operands reads operand {index}", self.inputs.len())),
            },
            Instr::Const(dtype, _) => Ok(held(dtype)),
            Instr::Unary(op, x) => unary_type(op, register(x)?),
            Instr::Binary(op, a, b) => binary_type(op, register(a)?, register(b)?),
            Instr::Select(condition, a, b) => {
                let (condition, a, b) = (register(condition)?, register(a)?, register(b)?);
                ensure!(condition == DType::Bool, Unsupported, "a selection by {condition} instead of bool");
                ensure!(a == b, ShapeMismatch, "a selection between {a} and {b}");
                Ok(a)
            }
            Instr::Cast(dtype, x) => register(x).map(|_| held(dtype)),
        }
    }
}

/// The type that a register has for values stored as `dtype`.
pub(super) fn held(dtype: DType) -> DType {
    if dtype.is_float() { DType::F32 } else { dtype }
}

fn unary_type(op: Unary, x: DType) -> Result<DType> {
    let defined = match op {
        Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu => x != DType::Bool,
        Unary::Not => x == DType::Bool,
        _ => x == DType::F32,
    };
    ensure!(defined, Unsupported, "{op:?} is not defined for {x}");
    Ok(if op.is_predicate() { DType::Bool } else { x })
}

fn binary_type(op: Binary, a: DType, b: DType) -> Result<DType> {
    ensure!(a == b, ShapeMismatch, "{op:?} of {a} and {b}");
    let defined = match op {
        Binary::And | Binary::Or | Binary::Xor => a == DType::Bool,
        Binary::Equal => true,
        _ => a != DType::Bool,
    };
    ensure!(defined, Unsupported, "{op:?} is not defined for {a}");
    Ok(if op.is_comparison() { DType::Bool } else { a })
}
