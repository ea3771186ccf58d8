//! Evaluates the scalar program by definition, block by block: constant folding of weights runs through here, so an
//! instruction costs one pass over a block that stays in the first-level cache.

use super::functions::{float_binary, float_comparison, float_predicate, float_unary, integer_binary, integer_unary};
use super::types::held;
use super::{Instr, Map};
use crate::error::{Result, fail};
use crate::ir::{DType, Element, Scalar, Tensor, element_count};
use half::{bf16, f16};
use std::ops::Range;

/// Elements evaluated together.
const BLOCK: usize = 1024;

/// One register's values in a block. Integers and truth values are wrapped to their own width after each instruction.
enum Lanes {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// The program's results over dense operands of one `shape`.
pub(super) fn evaluate(map: &Map, operands: &[Tensor], shape: &[usize]) -> Result<Tensor> {
    let types = map.register_types()?;
    let count = element_count(shape)?;
    let bytes = count.saturating_mul(map.output.bytes());
    let mut data = Vec::new();
    data.try_reserve_exact(bytes).map_err(|_| fail!(OutOfMemory, "no memory for a constant of {bytes} bytes"))?;
    let mut registers: Vec<Lanes> = Vec::with_capacity(map.body.len());
    for start in (0..count).step_by(BLOCK) {
        let block = start..count.min(start + BLOCK);
        registers.clear();
        for (instr, &dtype) in map.body.iter().zip(&types) {
            let lanes = apply(instr, dtype, operands, &block, &registers);
            registers.push(lanes);
        }
        store(&registers[registers.len() - 1], map.output, &mut data);
    }
    Tensor::new(map.output, shape.to_vec(), data.into())
}

/// One instruction over one block; its result has the register type `dtype`.
fn apply(instr: &Instr, dtype: DType, operands: &[Tensor], block: &Range<usize>, registers: &[Lanes]) -> Lanes {
    use Lanes::{Floats, Integers};
    match *instr {
        Instr::Input(index) => load(&operands[index], block),
        Instr::Const(stored, value) => fill(stored, value, block.len()),
        Instr::Unary(op, x) => match &registers[x] {
            Floats(x) if op.is_predicate() => Integers(float_predicate(op, x)),
            Floats(x) => Floats(float_unary(op, x)),
            Integers(x) => Integers(wrapped(dtype, integer_unary(op, x))),
        },
        Instr::Binary(op, a, b) => match (&registers[a], &registers[b]) {
            (Floats(a), Floats(b)) if op.is_comparison() => Integers(float_comparison(op, a, b)),
            (Floats(a), Floats(b)) => Floats(float_binary(op, a, b)),
            (Integers(a), Integers(b)) => Integers(wrapped(dtype, integer_binary(op, a, b))),
            _ => unreachable!("the type rules ask for operands of one type"),
        },
        Instr::Select(condition, a, b) => match (&registers[condition], &registers[a], &registers[b]) {
            (Integers(condition), Floats(a), Floats(b)) => Floats(select(condition, a, b)),
            (Integers(condition), Integers(a), Integers(b)) => Integers(select(condition, a, b)),
            _ => unreachable!("the type rules ask for a truth value and two values of one type"),
        },
        Instr::Cast(to, x) => cast(to, &registers[x]),
    }
}

fn select<T: Copy>(condition: &[i64], a: &[T], b: &[T]) -> Vec<T> {
    condition.iter().zip(a.iter().zip(b)).map(|(&condition, (&a, &b))| if condition != 0 { a } else { b }).collect()
}

fn fill(dtype: DType, value: Scalar, count: usize) -> Lanes {
    let single = Tensor::from_scalars(dtype, &[], [value]).at(0);
    match single {
        Scalar::Float(value) => Lanes::Floats(vec![value as f32; count]),
        Scalar::Int(value) => Lanes::Integers(vec![value; count]),
    }
}

fn cast(to: DType, x: &Lanes) -> Lanes {
    use Lanes::{Floats, Integers};
    match (x, held(to)) {
        (Floats(x), DType::F32) => Floats(rounded(to, x.clone())),
        (Integers(x), DType::F32) => Floats(rounded(to, x.iter().map(|&x| x as f32).collect())),
        (Floats(x), DType::I64) => Integers(x.iter().map(|&x| x as i64).collect()),
        (Floats(x), DType::Bool) => Integers(x.iter().map(|&x| i64::from(x != 0.0)).collect()),
        (Floats(x), _) => Integers(wrapped(to, x.iter().map(|&x| i64::from(x as i32)).collect())),
        (Integers(x), DType::Bool) => Integers(x.iter().map(|&x| i64::from(x != 0)).collect()),
        (Integers(x), _) => Integers(wrapped(to, x.clone())),
    }
}

/// Rounds to what a narrower float type can hold.
fn rounded(dtype: DType, mut x: Vec<f32>) -> Vec<f32> {
    match dtype {
        DType::F16 => x.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
        DType::BF16 => x.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        _ => {}
    }
    x
}

/// Wraps to the width of an integer type.
fn wrapped(dtype: DType, mut x: Vec<i64>) -> Vec<i64> {
    match dtype {
        DType::I32 => x.iter_mut().for_each(|x| *x = i64::from(*x as i32)),
        DType::I8 => x.iter_mut().for_each(|x| *x = i64::from(*x as i8)),
        DType::U8 => x.iter_mut().for_each(|x| *x = i64::from(*x as u8)),
        _ => {}
    }
    x
}

fn load(tensor: &Tensor, block: &Range<usize>) -> Lanes {
    let size = tensor.dtype().bytes();
    let data = &tensor.data()[block.start * size..block.end * size];
    fn read<T: Element, R>(data: &[u8], convert: impl Fn(T) -> R) -> Vec<R> {
        data.chunks_exact(T::DTYPE.bytes()).map(|bytes| convert(T::read_le(bytes))).collect()
    }
    match tensor.dtype() {
        DType::F32 => Lanes::Floats(read(data, |x: f32| x)),
        DType::F16 => Lanes::Floats(read(data, f16::to_f32)),
        DType::BF16 => Lanes::Floats(read(data, bf16::to_f32)),
        DType::I64 => Lanes::Integers(read(data, |x: i64| x)),
        DType::I32 => Lanes::Integers(read(data, |x: i32| x.into())),
        DType::I8 => Lanes::Integers(read(data, |x: i8| x.into())),
        DType::U8 => Lanes::Integers(read(data, |x: u8| x.into())),
        DType::Bool => Lanes::Integers(read(data, |x: bool| x.into())),
    }
}

fn store(lanes: &Lanes, dtype: DType, data: &mut Vec<u8>) {
    fn write<T: Copy, const N: usize>(data: &mut Vec<u8>, values: &[T], encode: impl Fn(T) -> [u8; N]) {
        let start = data.len();
        data.resize(start + values.len() * N, 0);
        for (bytes, &value) in data[start..].chunks_exact_mut(N).zip(values) {
            bytes.copy_from_slice(&encode(value));
        }
    }
    match (lanes, dtype) {
        (Lanes::Floats(x), DType::F16) => write(data, x, |x| f16::from_f32(x).to_le_bytes()),
        (Lanes::Floats(x), DType::BF16) => write(data, x, |x| bf16::from_f32(x).to_le_bytes()),
        (Lanes::Floats(x), _) => write(data, x, f32::to_le_bytes),
        (Lanes::Integers(x), DType::I64) => write(data, x, i64::to_le_bytes),
        (Lanes::Integers(x), DType::I32) => write(data, x, |x| (x as i32).to_le_bytes()),
        (Lanes::Integers(x), _) => write(data, x, |x| [x as u8]),
    }
}
