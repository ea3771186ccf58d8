//! Program to equal program: inlining a producer, and the clean-up after it.

use super::types::held;
use super::{Binary, Family, Instr, Map, Reg, Unary};
use crate::ir::{DType, Scalar, Tensor};
use std::collections::HashMap;

impl Instr {
    /// The registers read, in order.
    pub fn operands(&self) -> impl Iterator<Item = Reg> + use<> {
        let (registers, count) = match *self {
            Instr::Input(_) | Instr::Const(..) => ([0; 3], 0),
            Instr::Unary(_, x) | Instr::Cast(_, x) => ([x, 0, 0], 1),
            Instr::Binary(_, a, b) => ([a, b, 0], 2),
            Instr::Select(condition, a, b) => ([condition, a, b], 3),
        };
        registers.into_iter().take(count)
    }

    /// The instruction with each register replaced.
    #[must_use]
    pub fn renamed(&self, mut name: impl FnMut(Reg) -> Reg) -> Instr {
        match *self {
            Instr::Input(_) | Instr::Const(..) => *self,
            Instr::Unary(op, x) => Instr::Unary(op, name(x)),
            Instr::Cast(dtype, x) => Instr::Cast(dtype, name(x)),
            Instr::Binary(op, a, b) => Instr::Binary(op, name(a), name(b)),
            Instr::Select(condition, a, b) => Instr::Select(name(condition), name(a), name(b)),
        }
    }

    /// Equal for instructions that compute the same.
    fn identity(&self) -> (u8, u64, [usize; 3]) {
        match *self {
            Instr::Input(index) => (0, 0, [index, 0, 0]),
            Instr::Const(dtype, Scalar::Float(value)) => (1, value.to_bits(), [dtype as usize, 0, 0]),
            Instr::Const(dtype, Scalar::Int(value)) => (2, value as u64, [dtype as usize, 0, 0]),
            Instr::Unary(op, x) => (3, op as u64, [x, 0, 0]),
            Instr::Binary(op, a, b) if op.commutes() => (4, op as u64, [a.min(b), a.max(b), 0]),
            Instr::Binary(op, a, b) => (4, op as u64, [a, b, 0]),
            Instr::Select(condition, a, b) => (5, 0, [condition, a, b]),
            Instr::Cast(dtype, x) => (6, dtype as u64, [x, 0, 0]),
        }
    }
}

impl Binary {
    fn commutes(self) -> bool {
        use Binary::{Add, And, Equal, Mul, Or, Xor};
        matches!(self, Add | Mul | And | Or | Xor | Equal)
    }
}

impl Map {
    /// Inlines `producer` in the place of operand `operand`, whose type is what the producer stores. The result's operands
    /// are this map's remaining ones in their order, then the producer's in theirs. Where the producer stores f16 or bf16,
    /// its value is rounded as the store would have rounded it.
    #[must_use]
    pub fn splice(&self, operand: usize, producer: &Map) -> Map {
        debug_assert_eq!(self.inputs[operand], producer.output);
        let mut inputs = self.inputs.clone();
        inputs.remove(operand);
        let shift = inputs.len();
        inputs.extend_from_slice(&producer.inputs);
        let mut body: Vec<Instr> = Vec::with_capacity(producer.body.len() + self.body.len() + 1);
        body.extend(producer.body.iter().map(|instr| match *instr {
            Instr::Input(index) => Instr::Input(shift + index),
            other => other,
        }));
        let mut value = body.len() - 1;
        if matches!(producer.output, DType::F16 | DType::BF16) {
            body.push(Instr::Cast(producer.output, value));
            value += 1;
        }
        let mut names: Vec<Reg> = Vec::with_capacity(self.body.len());
        for instr in &self.body {
            let instr = match *instr {
                Instr::Input(index) if index == operand => {
                    names.push(value);
                    continue;
                }
                Instr::Input(index) => Instr::Input(index - usize::from(index > operand)),
                other => other.renamed(|reg| names[reg]),
            };
            names.push(body.len());
            body.push(instr);
        }
        let result = names[names.len() - 1];
        if result + 1 != body.len() {
            // The last register is the result, so the inlined value has to be named again.
            body.push(Instr::Cast(held(self.output), result));
        }
        Map { inputs, body, output: self.output }
    }

    /// The same program where operand `i` is operand `to[i]` of the result; operands that are one and the same can so be
    /// merged. Every index below the greatest must occur in `to`, and merged operands have one type.
    #[must_use]
    pub fn rewired(&self, to: &[usize]) -> Map {
        let mut inputs = vec![DType::F32; to.iter().map(|&index| index + 1).max().unwrap_or(0)];
        for (&dtype, &index) in self.inputs.iter().zip(to) {
            inputs[index] = dtype;
        }
        let rename = |instr: &Instr| match *instr {
            Instr::Input(index) => Instr::Input(to[index]),
            other => other,
        };
        Map { inputs, body: self.body.iter().map(rename).collect(), output: self.output }
    }

    /// An equal program without dead, repeated, constant and idle instructions and without unused operands, and the
    /// indices of the operands kept, ascending. Results are equal bit for bit. An ill-typed program is left alone.
    #[must_use]
    pub fn simplified(&self) -> (Map, Vec<usize>) {
        let map = self.normalized();
        let mut used = vec![false; map.inputs.len()];
        for instr in &map.body {
            if let Instr::Input(index) = *instr {
                used[index] = true;
            }
        }
        let kept: Vec<usize> = (0..used.len()).filter(|&index| used[index]).collect();
        let rename = |instr: &Instr| match *instr {
            // Only used operands occur, and those before it that are kept are counted.
            Instr::Input(index) => Instr::Input(kept.partition_point(|&kept| kept < index)),
            other => other,
        };
        let inputs = kept.iter().map(|&index| map.inputs[index]).collect();
        (Map { inputs, body: map.body.iter().map(rename).collect(), output: map.output }, kept)
    }

    /// [`Map::simplified`] with all operands, used or not.
    pub(super) fn normalized(&self) -> Map {
        if self.register_types().is_err() {
            return self.clone();
        }
        let mut tidy = Tidy { map: Map { body: Vec::new(), ..self.clone() }, types: Vec::new(), known: HashMap::new() };
        let mut names: Vec<Reg> = Vec::with_capacity(self.body.len());
        for instr in &self.body {
            names.push(tidy.add(instr.renamed(|reg| names[reg])));
        }
        let result = names[names.len() - 1];
        tidy.map.body.truncate(result + 1);
        without_dead(tidy.map)
    }
}

/// Drops the instructions that the last one does not need.
fn without_dead(map: Map) -> Map {
    let mut live = vec![false; map.body.len()];
    live[map.body.len() - 1] = true;
    for index in (0..map.body.len()).rev() {
        if live[index] {
            map.body[index].operands().for_each(|reg| live[reg] = true);
        }
    }
    let mut names = vec![0; map.body.len()];
    let mut body = Vec::new();
    for (index, instr) in map.body.iter().enumerate().filter(|(index, _)| live[*index]) {
        names[index] = body.len();
        body.push(instr.renamed(|reg| names[reg]));
    }
    Map { body, ..map }
}

/// A program under construction in which no instruction occurs twice.
struct Tidy {
    map: Map,
    types: Vec<DType>,
    known: HashMap<(u8, u64, [usize; 3]), Reg>,
}

impl Tidy {
    /// The register with the instruction's value, which may be an earlier one.
    fn add(&mut self, instr: Instr) -> Reg {
        if let Some(reg) = self.equal_register(&instr) {
            return reg;
        }
        let instr = self.folded(&instr).or_else(|| self.cheaper(&instr)).unwrap_or(instr);
        if let Some(&reg) = self.known.get(&instr.identity()) {
            return reg;
        }
        let dtype = match instr {
            Instr::Unary(op, _) if op.is_predicate() => DType::Bool,
            Instr::Binary(op, ..) if op.is_comparison() => DType::Bool,
            Instr::Unary(_, x) | Instr::Binary(_, x, _) | Instr::Select(_, x, _) => self.types[x],
            Instr::Input(index) => held(self.map.inputs[index]),
            Instr::Const(dtype, _) | Instr::Cast(dtype, _) => held(dtype),
        };
        let reg = self.map.body.len();
        self.known.insert(instr.identity(), reg);
        self.map.body.push(instr);
        self.types.push(dtype);
        reg
    }

    fn constant(&self, reg: Reg) -> Option<Scalar> {
        match self.map.body[reg] {
            Instr::Const(dtype, value) => Some(Tensor::from_scalars(dtype, &[], [value]).at(0)),
            _ => None,
        }
    }

    /// An earlier register that already has the value.
    fn equal_register(&self, instr: &Instr) -> Option<Reg> {
        let body = &self.map.body;
        let is = |reg: Reg, float: f64, int: i64| match self.constant(reg) {
            Some(Scalar::Float(value)) => value.to_bits() == float.to_bits(),
            Some(Scalar::Int(value)) => value == int,
            None => false,
        };
        match *instr {
            Instr::Cast(to, x) if held(to) == self.types[x] && self.holds(x, to) => Some(x),
            Instr::Unary(op @ (Unary::Neg | Unary::Not), x) => match body[x] {
                Instr::Unary(inner, origin) if inner == op => Some(origin),
                _ => None,
            },
            Instr::Unary(op @ (Unary::Relu | Unary::Abs), x) => match body[x] {
                Instr::Unary(inner, _) if inner == op => Some(x),
                _ => None,
            },
            Instr::Select(_, a, b) if a == b => Some(a),
            Instr::Select(condition, a, b) => {
                self.constant(condition).map(|value| if value.as_i64() != 0 { a } else { b })
            }
            // -0 and not 0: a sum of -0 and 0 is 0.
            Instr::Binary(Binary::Add, a, b) if is(b, -0.0, 0) => Some(a),
            Instr::Binary(Binary::Add, a, b) if is(a, -0.0, 0) => Some(b),
            Instr::Binary(Binary::Sub, a, b) if is(b, 0.0, 0) => Some(a),
            Instr::Binary(Binary::Mul | Binary::Div | Binary::Pow, a, b) if is(b, 1.0, 1) => Some(a),
            Instr::Binary(Binary::Mul, a, b) if is(a, 1.0, 1) => Some(b),
            _ => None,
        }
    }

    /// Whether the register's values are ones that `dtype` can store.
    fn holds(&self, reg: Reg, dtype: DType) -> bool {
        if !matches!(dtype, DType::F16 | DType::BF16) {
            return true;
        }
        match self.map.body[reg] {
            Instr::Input(index) => self.map.inputs[index] == dtype,
            Instr::Cast(to, _) | Instr::Const(to, _) => to == dtype,
            _ => false,
        }
    }

    /// The constant that an instruction of constants computes.
    fn folded(&self, instr: &Instr) -> Option<Instr> {
        let mut body = Vec::new();
        for reg in instr.operands() {
            match self.map.body[reg] {
                constant @ Instr::Const(..) => body.push(constant),
                _ => return None,
            }
        }
        if body.is_empty() {
            return None;
        }
        let mut next = 0..;
        body.push(instr.renamed(|_| next.next().unwrap_or(0)));
        let mut program = Map { inputs: Vec::new(), body, output: DType::F32 };
        program.output = match *instr {
            Instr::Cast(to, _) => to,
            Instr::Unary(op, _) if op.is_predicate() => DType::Bool,
            Instr::Binary(op, ..) if op.is_comparison() => DType::Bool,
            _ => self.types[instr.operands().last()?],
        };
        let value = program.reference(&[]).ok()?[0].at(0);
        Some(Instr::Const(program.output, value))
    }

    /// A cheaper instruction with equal results.
    fn cheaper(&self, instr: &Instr) -> Option<Instr> {
        let Instr::Binary(op, a, b) = *instr else {
            return None;
        };
        match (op, self.constant(b)?) {
            (Binary::Pow, value) if value.as_f64() == 2.0 => Some(Instr::Binary(Binary::Mul, a, a)),
            _ => None,
        }
    }
}
