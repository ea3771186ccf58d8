//! Elementwise chains: any straight-line scalar program over broadcast operands. A plain copy, a cast, a fill and a
//! fused `bias + GELU` are all maps; with strided views they are also every kind of data movement.

mod functions;
mod idioms;
mod reference;
mod rewrite;
mod types;

use super::Family;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Tensor, TensorType};

/// Index of an earlier instruction of the same program.
pub type Reg = usize;

/// A scalar program in static single assignment: instruction `i` defines register `i`, the last one is the result.
///
/// All operands have the result's shape (views broadcast with stride 0); without operands it is a single element. Float
/// registers are computed in binary32 whatever the storage type; an f16 or bf16 operand widens when read, the result
/// narrows when stored, and `Cast` to f16 or bf16 rounds. Integers wrap in their own width.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Element types of the operands.
    pub inputs: Vec<DType>,
    /// The program.
    pub body: Vec<Instr>,
    /// Element type stored.
    pub output: DType,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instr {
    /// The operand with this index.
    Input(usize),
    /// A constant of the given type.
    Const(DType, Scalar),
    /// A function of one register; the result has its type, but for [`Unary::IsNan`] and [`Unary::IsInf`] (`Bool`).
    Unary(Unary, Reg),
    /// A function of two registers of one type; comparisons give `Bool`.
    Binary(Binary, Reg, Reg),
    /// `Select(c, a, b)`: a where the `Bool` register c is true, else b.
    Select(Reg, Reg, Reg),
    /// Conversion as ONNX `Cast` defines it: float to integer truncates, to `Bool` is `!= 0`, integers wrap. Where ONNX
    /// leaves it open, a float beyond `I32` or `I64` saturates and NaN gives 0; to `I8` and `U8` it goes through `I32`.
    Cast(DType, Reg),
}

/// Functions of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// -x
    Neg,
    /// |x|
    Abs,
    /// -1, 0 or 1
    Sign,
    /// Least integer not below.
    Ceil,
    /// Greatest integer not above.
    Floor,
    /// Nearest integer, ties to even.
    Round,
    /// Square root.
    Sqrt,
    /// 1 / x
    Reciprocal,
    /// e^x
    Exp,
    /// Natural logarithm.
    Log,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Hyperbolic tangent.
    Tanh,
    /// Error function.
    Erf,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// max(x, 0); a NaN stays a NaN.
    Relu,
    /// x/2 (1 + erf(x / sqrt 2))
    Gelu,
    /// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    GeluTanh,
    /// x / (1 + e^-x)
    Silu,
    /// ln(1 + e^x)
    Softplus,
    /// Logical negation of a `Bool`.
    Not,
    /// Whether a float is not a number.
    IsNan,
    /// Whether a float is infinite.
    IsInf,
}

/// Functions of two arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a b
    Mul,
    /// a / b; integers truncate towards zero, and give 0 for b = 0.
    Div,
    /// Remainder with the divisor's sign (ONNX `Mod`, `fmod=0`); 0 for an integer b = 0.
    Mod,
    /// Remainder with the dividend's sign (C `fmod`); 0 for an integer b = 0.
    Fmod,
    /// a^b
    Pow,
    /// The smaller; NaN if either is.
    Min,
    /// The greater; NaN if either is.
    Max,
    /// Logical and of two `Bool`s.
    And,
    /// Logical or of two `Bool`s.
    Or,
    /// Logical exclusive or of two `Bool`s.
    Xor,
    /// a == b
    Equal,
    /// a < b
    Less,
    /// a <= b
    LessOrEqual,
}

impl Unary {
    /// Whether the function tells something about its argument instead of mapping its type to itself.
    pub fn is_predicate(self) -> bool {
        matches!(self, Unary::IsNan | Unary::IsInf)
    }
}

impl Binary {
    /// Whether the function compares, so that its result is a `Bool`.
    pub fn is_comparison(self) -> bool {
        matches!(self, Binary::Equal | Binary::Less | Binary::LessOrEqual)
    }
}

impl Map {
    /// The copy of an operand of type `dtype`.
    pub fn copy(dtype: DType) -> Map {
        Map { inputs: vec![dtype], body: vec![Instr::Input(0)], output: dtype }
    }

    /// The conversion from one type to another.
    pub fn cast(from: DType, to: DType) -> Map {
        Map { inputs: vec![from], body: vec![Instr::Input(0), Instr::Cast(to, 0)], output: to }
    }

    /// One function of one operand of type `dtype`.
    pub fn unary(op: Unary, dtype: DType) -> Map {
        let output = if op.is_predicate() { DType::Bool } else { dtype };
        Map { inputs: vec![dtype], body: vec![Instr::Input(0), Instr::Unary(op, 0)], output }
    }

    /// One function of two operands of type `dtype`.
    pub fn binary(op: Binary, dtype: DType) -> Map {
        let output = if op.is_comparison() { DType::Bool } else { dtype };
        Map { inputs: vec![dtype; 2], body: vec![Instr::Input(0), Instr::Input(1), Instr::Binary(op, 0, 1)], output }
    }
}

impl Family for Map {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        self.register_types()?;
        super::operands::arity("Map", inputs, self.inputs.len())?;
        let shape = inputs.first().map_or(&[][..], |ty| &ty.shape);
        for (index, (ty, &dtype)) in inputs.iter().zip(&self.inputs).enumerate() {
            ensure!(ty.dtype == dtype, ShapeMismatch, "Map: operand {index} is {} and should be {dtype}", ty.dtype);
            ensure!(
                ty.shape == shape,
                ShapeMismatch,
                "Map: operand {index} has shape {:?}, operand 0 has {shape:?}",
                ty.shape
            );
        }
        Ok(vec![TensorType::new(self.output, shape.to_vec())?])
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let shape = inputs.first().map_or(&[][..], |tensor| tensor.shape());
        Ok(vec![reference::evaluate(self, inputs, shape)?])
    }

    fn work(&self, _: &[TensorType], outputs: &[TensorType]) -> u64 {
        outputs.iter().map(|ty| ty.count() as u64).sum::<u64>().saturating_mul(self.body.len() as u64)
    }
}

#[cfg(test)]
mod tests;
