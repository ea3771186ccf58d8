//! The beginning of an epilogue that needs no pass of its own: bias, residual, clamp and gate are applied to a tile before
//! it leaves the registers.

use crate::ir::DType;
use crate::kernels::{Binary, Instr, Map, Reg, Unary};
use crate::lower::host::Operand;

/// `gated(clamp(alpha * sum + bias + residual, low, high)) * scale + shift`; a NaN stays a NaN. Operands are numbered as the
/// launch's inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// One value per column.
    pub column_bias: Option<usize>,
    /// One value per row.
    pub row_bias: Option<RowBias>,
    /// Lies like the result.
    pub residual: Option<usize>,
    /// Least value.
    pub low: f32,
    /// Greatest value.
    pub high: f32,
    /// A piecewise polynomial such as the hard swish.
    pub gate: Option<Gate>,
    /// Last factor.
    pub scale: f32,
    /// Last summand.
    pub shift: f32,
}

/// `x * clamp(scale * x + shift, low, high)`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Factor of the value.
    pub scale: f32,
    /// Summand.
    pub shift: f32,
    /// Least factor.
    pub low: f32,
    /// Greatest factor.
    pub high: f32,
}

/// A bias with one value per row of the result: rows are numbered over all batches and repeat after `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowBias {
    /// Which operand.
    pub operand: usize,
    /// Values in all.
    pub count: usize,
    /// Step from one to the next, in elements.
    pub step: isize,
}

impl Default for Finish {
    fn default() -> Self {
        Finish {
            column_bias: None,
            row_bias: None,
            residual: None,
            low: f32::NEG_INFINITY,
            high: f32::INFINITY,
            gate: None,
            scale: 1.0,
            shift: 0.0,
        }
    }
}

impl Finish {
    /// Whether values lie within bounds.
    pub fn is_bounded(&self) -> bool {
        self.low > f32::NEG_INFINITY || self.high < f32::INFINITY
    }

    /// Whether something is left to do once values lie within their bounds.
    pub fn is_shaped(&self) -> bool {
        self.gate.is_some() || self.is_scaled()
    }

    /// Whether the last factor and summand do something.
    pub fn is_scaled(&self) -> bool {
        (self.scale, self.shift) != (1.0, 0.0)
    }
}

/// What an instruction does to a value with a constant.
enum Change {
    Add(f32),
    Multiply(f32),
    Divide(f32),
    AtLeast(f32),
    AtMost(f32),
}

/// Takes off `map` what a [`Finish`] can do. Operand `i + 1` of the map is `operands[i]`, number `first + i` of the launch;
/// all are shown in the result's shape. Answers what is left of the map, if anything.
pub(super) fn take(map: &Map, operands: &[Operand], first: usize, result: &Operand) -> (Finish, Option<Map>) {
    let mut finish = Finish::default();
    let mut taker = Taker { map, operands, first, result, finish: &mut finish };
    let Some(mut sum) = map.body.iter().position(|instr| *instr == Instr::Input(0)) else {
        return (finish, Some(map.clone()));
    };
    let floats = map.inputs[0] == DType::F32 && map.body.iter().filter(|instr| **instr == Instr::Input(0)).count() == 1;
    while floats
        && sum + 1 < map.body.len()
        && let Some(next) = taker.step(sum)
    {
        sum = next;
    }
    if sum + 1 == map.body.len() && map.output == map.inputs[0] {
        return (finish, None);
    }
    let mut rest = map.clone();
    rest.body[sum] = Instr::Input(0);
    // What led to the sum has been done; constants and operands that it used fall away when the map is compiled.
    rest.body[..sum].iter_mut().filter(|instr| **instr == Instr::Input(0)).for_each(|instr| {
        *instr = Instr::Const(DType::F32, crate::ir::Scalar::Float(0.0));
    });
    (finish, Some(rest))
}

struct Taker<'a> {
    map: &'a Map,
    operands: &'a [Operand],
    first: usize,
    result: &'a Operand,
    finish: &'a mut Finish,
}

impl Taker<'_> {
    /// What follows register `sum`, if the finish can do it; it has then been done.
    fn step(&mut self, sum: Reg) -> Option<Reg> {
        match *self.users(sum) {
            [user] => self.one(sum, user).then_some(user),
            [first, last] => self.gate(sum, first, last),
            _ => None,
        }
    }

    fn users(&self, register: Reg) -> Box<[Reg]> {
        let users = self.map.body.iter().enumerate().filter(|(_, instr)| uses(instr, register));
        users.map(|(user, _)| user).collect()
    }

    /// Does instruction `user`, the only one that uses register `sum`.
    fn one(&mut self, sum: Reg, user: Reg) -> bool {
        match self.change(sum, user) {
            Some(Change::AtLeast(low)) => self.clamp(Some(low), None),
            Some(Change::AtMost(high)) => self.clamp(None, Some(high)),
            Some(Change::Add(summand)) => {
                self.finish.shift += summand;
                true
            }
            Some(Change::Multiply(factor)) => self.scale(factor),
            // A quotient and the product with the reciprocal differ in the last bit, which a rounding may yet magnify.
            Some(Change::Divide(divisor)) => self.finish.gate.is_some() && self.scale(1.0 / divisor),
            None => match self.map.body[user] {
                Instr::Binary(Binary::Add, a, b) if a != b => self.add(if a == sum { b } else { a }),
                _ => false,
            },
        }
    }

    fn scale(&mut self, factor: f32) -> bool {
        self.finish.scale *= factor;
        self.finish.shift *= factor;
        true
    }

    /// What instruction `user` does to register `from`, if it needs nothing but a constant for it.
    fn change(&self, from: Reg, user: Reg) -> Option<Change> {
        let other = |a: Reg, b: Reg| self.constant(if a == from { b } else { a });
        match self.map.body[user] {
            Instr::Unary(Unary::Relu, _) => Some(Change::AtLeast(0.0)),
            Instr::Binary(Binary::Add, a, b) => Some(Change::Add(other(a, b)?)),
            Instr::Binary(Binary::Mul, a, b) => Some(Change::Multiply(other(a, b)?)),
            Instr::Binary(Binary::Div, a, b) if a == from => Some(Change::Divide(self.constant(b)?)),
            Instr::Binary(Binary::Max, a, b) => Some(Change::AtLeast(other(a, b)?)),
            Instr::Binary(Binary::Min, a, b) => Some(Change::AtMost(other(a, b)?)),
            _ => None,
        }
    }

    /// Takes the product of register `sum` and a clamped linear function of it. `first` begins the function, `last` is to be
    /// the product.
    fn gate(&mut self, sum: Reg, first: Reg, last: Reg) -> Option<Reg> {
        let weight = match self.map.body[last] {
            Instr::Binary(Binary::Mul, a, b) if (a == sum) != (b == sum) => a + b - sum,
            _ => return None,
        };
        let mut gate = Gate { scale: 1.0, shift: 0.0, low: f32::NEG_INFINITY, high: f32::INFINITY };
        let (mut from, mut at, mut factor) = (sum, first, 1.0);
        loop {
            let bounded = (gate.low, gate.high) != (f32::NEG_INFINITY, f32::INFINITY);
            match self.change(from, at)? {
                Change::Add(summand) if !bounded => gate.shift += summand,
                Change::Multiply(multiplier) if !bounded => {
                    gate.scale *= multiplier;
                    gate.shift *= multiplier;
                }
                Change::Multiply(multiplier) => factor *= multiplier,
                Change::Divide(divisor) if bounded => factor /= divisor,
                Change::AtLeast(low) if factor == 1.0 && low >= gate.low && low <= gate.high => gate.low = low,
                Change::AtMost(high) if factor == 1.0 && high >= gate.low && high <= gate.high => gate.high = high,
                _ => return None,
            }
            let [user] = *self.users(at) else { return None };
            if at == weight {
                break;
            }
            (from, at) = (at, user);
        }
        if self.finish.is_shaped() {
            return None;
        }
        (self.finish.gate, self.finish.scale) = (Some(gate), factor);
        Some(last)
    }

    fn constant(&self, register: Reg) -> Option<f32> {
        match self.map.body[register] {
            Instr::Const(DType::F32, value) => Some(value.as_f64() as f32).filter(|value| !value.is_nan()),
            _ => None,
        }
    }

    /// Bounds may be narrowed one after the other as long as the later one lies within the earlier.
    fn clamp(&mut self, low: Option<f32>, high: Option<f32>) -> bool {
        let finish = &mut self.finish;
        if finish.is_shaped() {
            return false;
        }
        match (low, high) {
            (Some(low), _) if low >= finish.low && low <= finish.high => finish.low = low,
            (_, Some(high)) if high <= finish.high && high >= finish.low => finish.high = high,
            _ => return false,
        }
        true
    }

    fn add(&mut self, register: Reg) -> bool {
        if self.finish.is_bounded() || self.finish.is_shaped() {
            return false;
        }
        let Instr::Input(input) = self.map.body[register] else { return false };
        let Some(index) = input.checked_sub(1).filter(|_| self.map.inputs[input] == DType::F32) else { return false };
        let (operand, number) = (&self.operands[index], self.first + index);
        let rank = operand.shape.len();
        let still = |axis: usize| operand.shape[axis] == 1 || operand.strides[axis] == 0;
        let finish = &mut self.finish;
        let fresh = finish.column_bias.is_none() && finish.row_bias.is_none() && finish.residual.is_none();
        if fresh && (0..rank - 1).all(still) && operand.strides[rank - 1] == 1 {
            finish.column_bias = Some(number);
        } else if fresh && (0..rank - 2).all(still) && still(rank - 1) {
            let (count, step) = (operand.shape[rank - 2], operand.strides[rank - 2]);
            finish.row_bias = Some(RowBias { operand: number, count, step });
        } else if finish.residual.is_none() && lies_like(operand, self.result) {
            finish.residual = Some(number);
        } else {
            return false;
        }
        true
    }
}

fn uses(instr: &Instr, register: Reg) -> bool {
    match *instr {
        Instr::Unary(_, a) | Instr::Cast(_, a) => a == register,
        Instr::Binary(_, a, b) => a == register || b == register,
        Instr::Select(c, a, b) => [c, a, b].contains(&register),
        Instr::Input(_) | Instr::Const(..) => false,
    }
}

fn lies_like(operand: &Operand, result: &Operand) -> bool {
    let mut axes = result.shape.iter().zip(operand.strides.iter().zip(&result.strides));
    axes.all(|(&extent, (operand, result))| extent == 1 || operand == result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Scalar;
    use crate::lower::host::Region;

    fn operand(strides: &[isize]) -> Operand {
        let (shape, strides) = (vec![2, 3, 4], strides.to_vec());
        Operand { region: Region::Arena, byte_offset: 0, dtype: DType::F32, shape, strides }
    }

    fn map(inputs: usize, body: Vec<Instr>) -> Map {
        Map { inputs: vec![DType::F32; inputs], body, output: DType::F32 }
    }

    #[test]
    fn bias_residual_and_clamp_leave_nothing() {
        let body = vec![
            Instr::Input(0),
            Instr::Input(1),
            Instr::Binary(Binary::Add, 0, 1),
            Instr::Input(2),
            Instr::Binary(Binary::Add, 3, 2),
            Instr::Unary(Unary::Relu, 4),
            Instr::Const(DType::F32, Scalar::Float(6.0)),
            Instr::Binary(Binary::Min, 5, 6),
        ];
        let operands = [operand(&[0, 1, 0]), operand(&[12, 4, 1])];
        let (finish, rest) = take(&map(3, body), &operands, 2, &operand(&[12, 4, 1]));
        assert_eq!(rest, None);
        assert_eq!(finish.row_bias, Some(RowBias { operand: 2, count: 3, step: 1 }));
        assert_eq!((finish.residual, finish.low, finish.high), (Some(3), 0.0, 6.0));
    }

    fn constant(value: f64) -> Instr {
        Instr::Const(DType::F32, Scalar::Float(value))
    }

    /// `x * clamp(x + 3, 0, 6) / 6`, with the product in register 7.
    fn hard_swish() -> Vec<Instr> {
        vec![
            Instr::Input(0),
            constant(3.0),
            constant(6.0),
            Instr::Binary(Binary::Add, 1, 0),
            Instr::Unary(Unary::Relu, 3),
            Instr::Binary(Binary::Min, 4, 2),
            Instr::Binary(Binary::Mul, 0, 5),
            Instr::Binary(Binary::Div, 6, 2),
        ]
    }

    #[test]
    fn a_hard_swish_and_what_scales_it_leave_nothing() {
        let mut body = hard_swish();
        body.extend([constant(0.5), Instr::Binary(Binary::Mul, 8, 7), constant(0.25)]);
        body.push(Instr::Binary(Binary::Add, 9, 10));
        let (finish, rest) = take(&map(1, body), &[], 2, &operand(&[12, 4, 1]));
        assert_eq!(rest, None);
        assert_eq!(finish.gate, Some(Gate { scale: 1.0, shift: 3.0, low: 0.0, high: 6.0 }));
        assert_eq!((finish.scale, finish.shift), (1.0 / 6.0 * 0.5, 0.25));
    }

    #[test]
    fn a_gate_that_is_used_elsewhere_is_left() {
        let mut body = hard_swish();
        body.push(Instr::Binary(Binary::Add, 5, 7));
        let gated = map(1, body);
        assert_eq!(take(&gated, &[], 2, &operand(&[12, 4, 1])), (Finish::default(), Some(gated)));
        let quotient = map(1, vec![Instr::Input(0), constant(3.0), Instr::Binary(Binary::Div, 0, 1)]);
        assert_eq!(take(&quotient, &[], 2, &operand(&[12, 4, 1])), (Finish::default(), Some(quotient)));
    }

    #[test]
    fn what_a_finish_cannot_do_is_left() {
        let body = vec![
            Instr::Input(0),
            Instr::Input(1),
            Instr::Binary(Binary::Add, 0, 1),
            Instr::Unary(Unary::Sigmoid, 2),
            Instr::Binary(Binary::Mul, 2, 3),
        ];
        let (finish, rest) = take(&map(2, body), &[operand(&[0, 0, 1])], 2, &operand(&[12, 4, 1]));
        assert_eq!(finish.column_bias, Some(2));
        let rest = rest.unwrap();
        assert_eq!(
            rest.body[2..],
            [Instr::Input(0), Instr::Unary(Unary::Sigmoid, 2), Instr::Binary(Binary::Mul, 2, 3)]
        );
        assert_eq!(rest.body.iter().filter(|instr| **instr == Instr::Input(0)).count(), 1);
    }

    #[test]
    fn a_sum_used_twice_and_integers_are_left_alone() {
        let body =
            vec![Instr::Input(0), Instr::Input(1), Instr::Binary(Binary::Add, 0, 1), Instr::Binary(Binary::Mul, 0, 2)];
        let twice = map(2, body.clone());
        let (finish, rest) = take(&twice, &[operand(&[0, 0, 1])], 2, &operand(&[12, 4, 1]));
        assert_eq!((finish, rest), (Finish::default(), Some(twice)));
        let integers = Map { inputs: vec![DType::I32; 2], body: body[..3].to_vec(), output: DType::I32 };
        let (finish, rest) = take(&integers, &[operand(&[0, 0, 1])], 2, &operand(&[12, 4, 1]));
        assert_eq!((finish, rest), (Finish::default(), Some(integers)));
    }

    #[test]
    fn a_clamp_below_an_earlier_one_is_left() {
        let body = vec![
            Instr::Input(0),
            constant(1.0),
            Instr::Binary(Binary::Max, 0, 1),
            constant(-1.0),
            Instr::Binary(Binary::Min, 2, 3),
        ];
        let (finish, rest) = take(&map(1, body), &[], 2, &operand(&[12, 4, 1]));
        assert_eq!((finish.low, finish.high), (1.0, f32::INFINITY));
        assert!(rest.is_some());
    }
}
