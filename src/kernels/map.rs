//! Elementwise chains: any straight-line scalar program over broadcast operands. A plain copy, a cast, a fill and a
//! fused `bias + GELU` are all maps; with strided views they are also every kind of data movement.

use crate::ir::{DType, Scalar};

/// Index of an earlier instruction of the same program.
pub type Reg = usize;

/// A scalar program in static single assignment: instruction `i` defines register `i`, the last one is the result.
///
/// All operands have the result's shape (views broadcast with stride 0). Float registers are computed in binary32
/// whatever the storage type; an f16 or bf16 operand widens when read, the result narrows when stored, and
/// `Cast` to f16 or bf16 rounds. Integers wrap in their own width.
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
    /// Conversion as ONNX `Cast` defines it: float to integer truncates, to `Bool` is `!= 0`, integers wrap.
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
