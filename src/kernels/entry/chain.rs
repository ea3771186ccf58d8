//! Chains: maps that keep one value and change it step by step. Products and normalisations apply them in registers.

use super::layout::{Address, arguments};
use super::memory::{Memory, read};
use super::opcode::{self, Function, ROUND_BF16, ROUND_F16, SELECT};
use super::operand::{Operand, dtype};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Tensor};
use crate::kernels::{Binary, Family, Instr, Map, Reg, Unary};

/// Steps of a chain.
pub const STAGES: usize = 8;
/// Operands of a chain besides the value.
pub const CHAIN_OPERANDS: usize = 4;

/// The other argument of a stage: none.
const ALONE: u32 = 0;
/// The constant, on the right.
const CONSTANT_RIGHT: u32 = 1;
/// The constant, on the left.
const CONSTANT_LEFT: u32 = 2;
/// Operand `i` on the right is `OPERAND_RIGHT + 2 i`, on the left one more. Behind the operands comes the kept value.
const OPERAND_RIGHT: u32 = 3;
/// Where no value is kept.
const NOT_KEPT: u32 = u32::MAX;

arguments! {
    /// One step: a function of the value, or of the value and a constant or an operand. A `SELECT` keeps the value where its
    /// operand, a `Bool`, is true, and takes the constant elsewhere; with the operand on the left, the other way round.
    pub struct Stage {
        /// Which function.
        pub op: u32,
        /// The other argument: 0 none, 1 the constant on the right, 2 on the left, `3 + 2 i` operand i on the right,
        /// `4 + 2 i` on the left; operand [`CHAIN_OPERANDS`] is the value that was kept.
        pub source: u32,
        /// The constant.
        pub constant: f32,
    }
}

arguments! {
    /// A chain of functions of one binary32 value.
    pub struct Chain {
        /// Steps used.
        pub count: u32,
        /// After how many steps the value is kept for later ones, as for `x sigmoid(x)`; never, if they are more than there are.
        pub keep: u32,
        /// The steps.
        pub stages: [Stage; STAGES],
        /// Operands; those of any stored type are converted to binary32 when read.
        pub operands: [Operand; CHAIN_OPERANDS],
    }
}

/// What is known of a register while a map is read as a chain.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    /// The value after so many stages, or before any conversion of an integer.
    Accumulator { stages: usize, integer: bool },
    /// A map operand, as a float or as it is.
    Operand { index: usize, float: bool },
    /// A float constant.
    Constant(f32),
    /// Anything else: the map is no chain if it is used.
    Other,
}

impl Chain {
    /// The chain without steps.
    pub fn empty() -> Chain {
        let stage = Stage { op: 0, source: ALONE, constant: 0.0 };
        Chain { count: 0, keep: NOT_KEPT, stages: [stage; STAGES], operands: [Operand::none(); CHAIN_OPERANDS] }
    }

    /// The map as a chain that begins with its operand `accumulator`, and which of the map's operands each operand of the
    /// chain is: the caller sets those. `None` if the map is no chain with a float result.
    pub fn of(map: &Map, accumulator: usize) -> Option<(Chain, Vec<usize>)> {
        if !map.output.is_float() {
            return None;
        }
        let mut reading = Reading { map, chain: Chain::empty(), operands: Vec::new(), values: Vec::new() };
        for (index, instr) in map.body.iter().enumerate() {
            let value = reading.value(instr, accumulator, index + 1 == map.body.len())?;
            reading.values.push(value);
        }
        let end = Value::Accumulator { stages: reading.chain.count as usize, integer: false };
        (reading.values.last() == Some(&end)).then_some((reading.chain, reading.operands))
    }

    /// The map that this chain is: operand 0 is the value, operand `i + 1` the chain's operand i.
    pub(super) fn to_map(self, output: DType) -> Result<Map> {
        let mut map = Map { inputs: vec![DType::F32], body: vec![Instr::Input(0)], output };
        for operand in &self.operands {
            map.inputs.push(dtype(operand.dtype)?);
        }
        let push = |map: &mut Map, instr| {
            map.body.push(instr);
            map.body.len() - 1
        };
        let mut kept = None;
        for (index, stage) in self.stages[..self.count as usize].iter().enumerate() {
            let value = map.body.len() - 1;
            if index == self.keep as usize {
                kept = Some(value);
            }
            let left =
                stage.source == CONSTANT_LEFT || (stage.source > OPERAND_RIGHT && stage.source.is_multiple_of(2));
            let constant = Instr::Const(DType::F32, Scalar::Float(stage.constant.into()));
            let other = match stage.source {
                ALONE => None,
                CONSTANT_RIGHT | CONSTANT_LEFT => Some(push(&mut map, constant)),
                source if (source - OPERAND_RIGHT) as usize / 2 == CHAIN_OPERANDS => {
                    Some(kept.ok_or_else(|| fail!(Internal, "a chain uses a value that it has not kept"))?)
                }
                source => {
                    let input = push(&mut map, Instr::Input((source - OPERAND_RIGHT) as usize / 2 + 1));
                    let convert = stage.op != SELECT;
                    Some(if convert { push(&mut map, Instr::Cast(DType::F32, input)) } else { input })
                }
            };
            let instr = match (stage.op, other) {
                (ROUND_F16, None) => Instr::Cast(DType::F16, value),
                (ROUND_BF16, None) => Instr::Cast(DType::BF16, value),
                (SELECT, Some(condition)) => {
                    let constant = push(&mut map, constant);
                    if left {
                        Instr::Select(condition, constant, value)
                    } else {
                        Instr::Select(condition, value, constant)
                    }
                }
                (op, other) => match (opcode::function(op)?, other) {
                    (Function::Unary(op), None) => Instr::Unary(op, value),
                    (Function::Binary(op), Some(other)) if left => Instr::Binary(op, other, value),
                    (Function::Binary(op), Some(other)) => Instr::Binary(op, value, other),
                    (function, _) => {
                        return Err(fail!(Internal, "a chain applies {function:?} to a wrong number of arguments"));
                    }
                },
            };
            push(&mut map, instr);
        }
        Ok(map)
    }

    /// Applies the chain to a dense binary32 tensor; `steps` gives the strides of an operand for the tensor's axes. The
    /// result is of type `output`.
    pub(super) fn apply(
        &self,
        memory: &dyn Memory,
        values: Tensor,
        output: DType,
        steps: impl Fn(&Operand) -> Vec<isize>,
    ) -> Result<Tensor> {
        ensure!(self.count as usize <= STAGES, Internal, "a chain of {} steps", self.count);
        let map = self.to_map(output)?;
        let shape = values.shape().to_vec();
        let mut operands = vec![values];
        for (index, operand) in self.operands.iter().enumerate() {
            let used = map.body.contains(&Instr::Input(index + 1));
            operands.push(if used {
                read(memory, operand, &shape, &steps(operand))?
            } else {
                Tensor::from_scalars(dtype(operand.dtype)?, &shape, vec![Scalar::Int(0); operands[0].count()])
            });
        }
        let types: Vec<_> = operands.iter().map(Tensor::ty).collect();
        map.infer(&types)?;
        Ok(map.reference(&operands)?.swap_remove(0))
    }

    /// Sets an operand.
    #[must_use]
    pub fn with(mut self, index: usize, operand: Operand) -> Chain {
        self.operands[index] = operand;
        self
    }

    /// Whether operand `index` is set.
    pub fn has(&self, index: usize) -> bool {
        self.operands[index].address != Address::NONE
    }
}

/// A map being read as a chain.
struct Reading<'a> {
    map: &'a Map,
    chain: Chain,
    operands: Vec<usize>,
    values: Vec<Value>,
}

impl Reading<'_> {
    /// What instruction gives; `None` if the map is no chain.
    fn value(&mut self, instr: &Instr, accumulator: usize, last: bool) -> Option<Value> {
        use Value::{Accumulator, Constant, Operand, Other};
        Some(match *instr {
            Instr::Input(index) if index == accumulator => {
                Accumulator { stages: 0, integer: !self.map.inputs[index].is_float() }
            }
            Instr::Input(index) => Operand { index, float: self.map.inputs[index].is_float() },
            Instr::Const(DType::F32, value) => Constant(value.as_f64() as f32),
            Instr::Const(..) => Other,
            Instr::Cast(DType::F32, reg) => match self.values[reg] {
                Accumulator { stages, .. } => Accumulator { stages, integer: false },
                Operand { index, .. } => Operand { index, float: true },
                value => value,
            },
            Instr::Cast(to, reg) => match self.values[reg] {
                Accumulator { integer: false, .. } if last && to == self.map.output => self.values[reg],
                Accumulator { integer: false, .. } if to == DType::F16 => self.stage(reg, ROUND_F16, ALONE, 0.0)?,
                Accumulator { integer: false, .. } if to == DType::BF16 => self.stage(reg, ROUND_BF16, ALONE, 0.0)?,
                Accumulator { .. } => return None,
                _ => Other,
            },
            Instr::Unary(op, reg) => match self.values[reg] {
                Accumulator { .. } if op.is_predicate() || op == Unary::Not => return None,
                Accumulator { .. } => self.stage(reg, opcode::unary(op), ALONE, 0.0)?,
                _ => Other,
            },
            Instr::Binary(op, a, b) => self.binary(op, a, b)?,
            Instr::Select(condition, a, b) => match (self.values[condition], self.values[a], self.values[b]) {
                (Operand { index, float: false }, Accumulator { .. }, Constant(other)) => {
                    let source = self.source(index)?;
                    self.stage(a, SELECT, source, other)?
                }
                (Operand { index, float: false }, Constant(other), Accumulator { .. }) => {
                    let source = self.source(index)? + 1;
                    self.stage(b, SELECT, source, other)?
                }
                (_, a, b) => self.unless_accumulator(&[a, b])?,
            },
        })
    }

    fn binary(&mut self, op: Binary, a: Reg, b: Reg) -> Option<Value> {
        use Value::{Accumulator, Constant, Operand};
        let op_code = opcode::binary(op);
        match (self.values[a], self.values[b]) {
            (Accumulator { .. }, _) | (_, Accumulator { .. }) if op.is_comparison() => None,
            (Accumulator { stages: x, integer: false }, Accumulator { stages: y, integer: false }) => {
                let source = self.kept(x.min(y))?;
                if x >= y { self.stage(a, op_code, source, 0.0) } else { self.stage(b, op_code, source + 1, 0.0) }
            }
            (Accumulator { .. }, Constant(other)) => self.stage(a, op_code, CONSTANT_RIGHT, other),
            (Constant(other), Accumulator { .. }) => self.stage(b, op_code, CONSTANT_LEFT, other),
            (Accumulator { .. }, Operand { index, float: true }) => {
                let source = self.source(index)?;
                self.stage(a, op_code, source, 0.0)
            }
            (Operand { index, float: true }, Accumulator { .. }) => {
                let source = self.source(index)? + 1;
                self.stage(b, op_code, source, 0.0)
            }
            (a, b) => self.unless_accumulator(&[a, b]),
        }
    }

    fn unless_accumulator(&self, values: &[Value]) -> Option<Value> {
        let accumulated = values.iter().any(|value| matches!(value, Value::Accumulator { .. }));
        (!accumulated).then_some(Value::Other)
    }

    /// The source of a stage for the value after so many stages, on the right; one value is kept.
    fn kept(&mut self, stages: usize) -> Option<u32> {
        if self.chain.keep == NOT_KEPT {
            self.chain.keep = stages as u32;
        }
        (self.chain.keep == stages as u32).then_some(OPERAND_RIGHT + 2 * CHAIN_OPERANDS as u32)
    }

    /// The source of a stage for a map operand on the right.
    fn source(&mut self, index: usize) -> Option<u32> {
        let place = self.operands.iter().position(|&known| known == index).unwrap_or(self.operands.len());
        if place == self.operands.len() {
            (place < CHAIN_OPERANDS).then_some(())?;
            self.chain.operands[place].dtype = super::operand::code(self.map.inputs[index]);
            self.operands.push(index);
        }
        Some(OPERAND_RIGHT + 2 * place as u32)
    }

    /// Adds a stage to the value in a register, which must be the latest.
    fn stage(&mut self, reg: Reg, op: u32, source: u32, constant: f32) -> Option<Value> {
        let count = self.chain.count as usize;
        let latest = Value::Accumulator { stages: count, integer: false };
        (self.values[reg] == latest && count < STAGES).then_some(())?;
        self.chain.stages[count] = Stage { op, source, constant };
        self.chain.count += 1;
        Some(Value::Accumulator { stages: count + 1, integer: false })
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::kernels::evaluation::eighths;

    fn constant(value: f64) -> Instr {
        Instr::Const(DType::F32, Scalar::Float(value))
    }

    #[test]
    fn a_chain_computes_what_its_map_does() {
        // relu(2 - (acc * bias)) where the mask is set, else -3; then the residual, an i64, is added.
        let body = vec![
            Instr::Input(1),
            Instr::Input(0),
            Instr::Binary(Binary::Mul, 0, 1),
            constant(2.0),
            Instr::Binary(Binary::Sub, 3, 2),
            Instr::Unary(Unary::Relu, 4),
            Instr::Input(2),
            constant(-3.0),
            Instr::Select(6, 5, 7),
            Instr::Input(3),
            Instr::Cast(DType::F32, 9),
            Instr::Binary(Binary::Add, 10, 8),
            Instr::Cast(DType::F16, 11),
        ];
        let map = Map { inputs: vec![DType::F32, DType::F32, DType::Bool, DType::I64], body, output: DType::F16 };
        let (chain, operands) = Chain::of(&map, 0).unwrap();
        assert_eq!((chain.count, operands), (5, vec![1, 2, 3]));
        let inputs = [
            eighths(&[2, 3], 1),
            eighths(&[2, 3], 2),
            Tensor::from_slice(&[2, 3], &[true, false, true, true, false, true]),
            Tensor::from_slice(&[2, 3], &[5i64, -6, 7, 8, 9, -10]),
        ];
        let mut heap = Heap::default();
        let chain = [0, 1, 2].iter().fold(chain, |chain, &index| {
            let tensor = &inputs[index + 1];
            chain.with(index, Operand::new(heap.put(tensor), tensor.dtype(), &[3, 1]).unwrap())
        });
        let result = chain.apply(&heap, inputs[0].clone(), DType::F16, |operand| operand.steps(2)).unwrap();
        assert_eq!(result, map.reference(&inputs).unwrap()[0]);
    }

    #[test]
    fn one_value_is_kept_for_later_steps() {
        let first = [Instr::Input(0), Instr::Unary(Unary::Neg, 0)];
        let cases = [
            (vec![Instr::Unary(Unary::Sigmoid, 1), Instr::Binary(Binary::Mul, 1, 2)], 1),
            (vec![Instr::Unary(Unary::Exp, 1), Instr::Binary(Binary::Sub, 2, 0)], 0),
            (vec![Instr::Binary(Binary::Sub, 0, 1)], 0),
            (vec![Instr::Binary(Binary::Mul, 1, 1), Instr::Binary(Binary::Sub, 1, 2)], 1),
        ];
        let values = eighths(&[2, 3], 4);
        for (rest, keep) in cases {
            let map = Map { inputs: vec![DType::F32], body: [&first[..], &rest[..]].concat(), output: DType::F32 };
            let (chain, operands) = Chain::of(&map, 0).unwrap();
            assert_eq!((chain.keep, operands), (keep, vec![]));
            let result = chain.apply(&Heap::default(), values.clone(), DType::F32, |_| vec![]).unwrap();
            assert_eq!(result, map.reference(std::slice::from_ref(&values)).unwrap()[0]);
        }
    }

    #[test]
    fn what_is_no_chain_is_refused() {
        let map = |inputs: usize, body: Vec<Instr>| Map { inputs: vec![DType::F32; inputs], body, output: DType::F32 };
        let thrice = vec![
            Instr::Input(0),
            Instr::Unary(Unary::Exp, 0),
            Instr::Binary(Binary::Add, 0, 1),
            Instr::Binary(Binary::Mul, 2, 1),
        ];
        assert!(Chain::of(&map(1, thrice), 0).is_none(), "two values would have to be kept");
        let aside =
            vec![Instr::Input(0), Instr::Input(1), Instr::Unary(Unary::Exp, 1), Instr::Binary(Binary::Add, 0, 2)];
        assert!(Chain::of(&map(2, aside.clone()), 0).is_none());
        assert!(Chain::of(&map(2, aside), 1).is_some(), "the other operand is changed by two steps");
        let long: Vec<Instr> =
            std::iter::once(Instr::Input(0)).chain((0..9).map(|index| Instr::Unary(Unary::Exp, index))).collect();
        assert!(Chain::of(&map(1, long[..9].to_vec()), 0).is_some());
        assert!(Chain::of(&map(1, long), 0).is_none());
        let truth = Map {
            inputs: vec![DType::F32],
            body: vec![Instr::Input(0), Instr::Unary(Unary::IsNan, 0)],
            output: DType::Bool,
        };
        assert!(Chain::of(&truth, 0).is_none());
    }

    #[test]
    fn integer_sums_are_converted_first() {
        let scaled = vec![Instr::Input(0), Instr::Cast(DType::F32, 0), constant(0.5), Instr::Binary(Binary::Mul, 1, 2)];
        let map = Map { inputs: vec![DType::I32], body: scaled, output: DType::F32 };
        assert_eq!(Chain::of(&map, 0).unwrap().0.count, 1);
        let unconverted = Map {
            inputs: vec![DType::I32],
            body: vec![Instr::Input(0), Instr::Unary(Unary::Neg, 0)],
            output: DType::F32,
        };
        assert!(Chain::of(&unconverted, 0).is_none());
    }
}
