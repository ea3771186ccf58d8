//! The numbers that stand for scalar functions in chains and programs.

use super::layout::Declarations;
use crate::error::{Result, fail};
use crate::kernels::{Binary, Unary};
use std::fmt::Write;

/// Rounds to binary16.
pub const ROUND_F16: u32 = 1;
/// Rounds to bfloat16.
pub const ROUND_BF16: u32 = 2;
/// Chooses between two values.
pub const SELECT: u32 = 3;
/// Reads an operand.
pub const LOAD: u32 = 4;
/// A value known when lowering.
pub const CONSTANT: u32 = 5;
/// Converts between register classes.
pub const CAST: u32 = 6;
/// The first function of one argument.
const UNARY: u32 = 16;
/// The first function of two arguments.
const BINARY: u32 = 64;

/// All functions of one argument, in the order of their numbers.
const UNARIES: [Unary; 23] = [
    Unary::Neg,
    Unary::Abs,
    Unary::Sign,
    Unary::Ceil,
    Unary::Floor,
    Unary::Round,
    Unary::Sqrt,
    Unary::Reciprocal,
    Unary::Exp,
    Unary::Log,
    Unary::Sin,
    Unary::Cos,
    Unary::Tanh,
    Unary::Erf,
    Unary::Sigmoid,
    Unary::Relu,
    Unary::Gelu,
    Unary::GeluTanh,
    Unary::Silu,
    Unary::Softplus,
    Unary::Not,
    Unary::IsNan,
    Unary::IsInf,
];

/// All functions of two arguments, in the order of their numbers.
const BINARIES: [Binary; 15] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Mod,
    Binary::Fmod,
    Binary::Pow,
    Binary::Min,
    Binary::Max,
    Binary::And,
    Binary::Or,
    Binary::Xor,
    Binary::Equal,
    Binary::Less,
    Binary::LessOrEqual,
];

/// The number of a function of one argument.
pub const fn unary(op: Unary) -> u32 {
    UNARY + op as u32
}

/// The number of a function of two arguments.
pub const fn binary(op: Binary) -> u32 {
    BINARY + op as u32
}

/// A function by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Of one argument.
    Unary(Unary),
    /// Of two arguments.
    Binary(Binary),
}

/// The function that a number stands for.
pub fn function(number: u32) -> Result<Function> {
    let unary = number.checked_sub(UNARY).and_then(|index| UNARIES.get(index as usize));
    let binary = number.checked_sub(BINARY).and_then(|index| BINARIES.get(index as usize));
    match (unary, binary) {
        (Some(&op), _) => Ok(Function::Unary(op)),
        (_, Some(&op)) => Ok(Function::Binary(op)),
        _ => Err(fail!(Internal, "there is no scalar function {number}")),
    }
}

/// Declares the numbers in C.
pub fn declare(declarations: &mut Declarations) {
    let text = &mut declarations.text;
    let mut line = |name: String, number: u32| {
        let _ = writeln!(text, "    {name} = {number},");
    };
    line("ROUND_F16".into(), ROUND_F16);
    line("ROUND_BF16".into(), ROUND_BF16);
    line("SELECT".into(), SELECT);
    line("LOAD".into(), LOAD);
    line("CONSTANT".into(), CONSTANT);
    line("CAST".into(), CAST);
    UNARIES.iter().for_each(|&op| line(format!("{op:?}"), unary(op)));
    BINARIES.iter().for_each(|&op| line(format!("{op:?}"), binary(op)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_functions_agree() {
        for (index, &op) in UNARIES.iter().enumerate() {
            assert_eq!((op as usize, function(unary(op)).unwrap()), (index, Function::Unary(op)));
        }
        for (index, &op) in BINARIES.iter().enumerate() {
            assert_eq!((op as usize, function(binary(op)).unwrap()), (index, Function::Binary(op)));
        }
        assert!(UNARY + UNARIES.len() as u32 <= BINARY);
        assert!(function(SELECT).is_err() && function(UNARY + UNARIES.len() as u32).is_err());
    }
}
