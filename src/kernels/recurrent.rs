//! LSTM and GRU over a whole sequence.

use super::Family;
use super::operands::{arity, from_floats, one_float_type, shape_is};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, TensorType};

/// The cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// Hochreiter and Schmidhuber, 1997, with peepholes as in ONNX; gates in the order i, o, f, c.
    Lstm {
        /// Whether the forget gate is `1 - i`.
        input_forget: bool,
    },
    /// Cho et al., 2014; gates in the order z, r, h.
    Gru {
        /// Whether the reset gate is applied after the recurrent product (as cuDNN and PyTorch do).
        linear_before_reset: bool,
    },
}

/// The way through the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// First step to last.
    Forward,
    /// Last step to first.
    Reverse,
    /// Both, as two directions of the result.
    Bidirectional,
}

/// A gate's function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// max(x, 0)
    Relu,
    /// clamp(alpha x + beta, 0, 1)
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
}

/// ONNX `LSTM` and `GRU`, layout 0. With T steps, batch B, input size I, hidden size H, D directions and G gates (4 or
/// 3): operands X `[T, B, I]`, W `[D, G H, I]`, R `[D, G H, H]`, bias `[D, 2 G H]`, lengths `[B]` (`I32`), initial h `[D, B, H]`,
/// and for LSTM initial c `[D, B, H]` and peepholes `[D, 3 H]` (order i, o, f). Results: Y `[T, D, B, H]`, last h
/// `[D, B, H]`, and for LSTM last c `[D, B, H]`. Floats of one type; the state is binary32. Steps at or beyond a row's length give zeros
/// in Y and leave the state alone; a reverse direction begins at the row's own last step.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// LSTM or GRU.
    pub cell: Cell,
    /// Direction(s).
    pub direction: Direction,
    /// H.
    pub hidden: usize,
    /// Gate functions per direction: LSTM f, g, h (gates, cell input, output); GRU f, g.
    pub activations: Vec<Activation>,
    /// Bound on the gate inputs' magnitude, if any.
    pub clip: Option<f32>,
}

impl Cell {
    /// G: how many blocks of H rows the weights have.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm { .. } => 4,
            Cell::Gru { .. } => 3,
        }
    }

    /// Gate functions of one direction.
    pub fn functions(self) -> usize {
        match self {
            Cell::Lstm { .. } => 3,
            Cell::Gru { .. } => 2,
        }
    }
}

impl Direction {
    /// D.
    pub fn count(self) -> usize {
        if self == Direction::Bidirectional { 2 } else { 1 }
    }

    /// Whether direction `index` of the result runs from the last step to the first.
    pub fn is_reverse(self, index: usize) -> bool {
        self == Direction::Reverse || index == 1
    }
}

impl Activation {
    /// The function's value.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
            Activation::Relu => x.clamp(0.0, f64::INFINITY),
            Activation::HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
        }
    }
}

impl Family for Recurrent {
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let lstm = matches!(self.cell, Cell::Lstm { .. });
        let family = if lstm { "LSTM" } else { "GRU" };
        arity(family, inputs, if lstm { 8 } else { 6 })?;
        let floats: Vec<TensorType> =
            inputs.iter().enumerate().filter(|(index, _)| *index != LENGTHS).map(|(_, ty)| ty.clone()).collect();
        let dtype = one_float_type(family, &floats)?;
        ensure!(inputs[LENGTHS].dtype == DType::I32, Unsupported, "{family}: lengths are {}", inputs[LENGTHS].dtype);
        let [steps, batch, size] = inputs[0].shape[..] else {
            return Err(fail!(ShapeMismatch, "{family}: the input's shape {:?} is not [T, B, I]", inputs[0].shape));
        };
        let (directions, hidden) = (self.direction.count(), self.hidden);
        ensure!(hidden > 0, InvalidArgument, "{family}: the hidden size is 0");
        let Some(rows) = hidden.checked_mul(2 * self.cell.gates()).map(|doubled| doubled / 2) else {
            return Err(fail!(TooLarge, "{family}: the hidden size {hidden} overflows"));
        };
        let expected = [
            ("the weight", vec![directions, rows, size]),
            ("the recurrent weight", vec![directions, rows, hidden]),
            ("the bias", vec![directions, 2 * rows]),
            ("the lengths", vec![batch]),
            ("the initial state", vec![directions, batch, hidden]),
            ("the initial cell", vec![directions, batch, hidden]),
            ("the peepholes", vec![directions, 3 * hidden]),
        ];
        for (ty, (what, shape)) in inputs[1..].iter().zip(&expected) {
            shape_is(family, what, ty, shape)?;
        }
        ensure!(
            self.activations.len() == directions * self.cell.functions(),
            InvalidArgument,
            "{family}: {} activations for {directions} directions",
            self.activations.len()
        );
        ensure!(
            self.clip.is_none_or(|clip| clip >= 0.0),
            InvalidArgument,
            "{family}: the clip threshold {:?} is not a magnitude",
            self.clip
        );
        let state = TensorType::new(dtype, vec![directions, batch, hidden])?;
        let mut results = vec![TensorType::new(dtype, vec![steps, directions, batch, hidden])?, state.clone()];
        if lstm {
            results.push(state);
        }
        Ok(results)
    }

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let [steps, batch, _] = inputs[0].shape()[..] else {
            return Err(fail!(ShapeMismatch, "the input's shape {:?} is not [T, B, I]", inputs[0].shape()));
        };
        let (directions, hidden) = (self.direction.count(), self.hidden);
        let operands: Vec<Vec<f64>> = inputs.iter().map(Tensor::to_f64s).collect();
        let mut y = vec![0.0; steps * directions * batch * hidden];
        let mut h = operands[INITIAL_H].clone();
        let mut c = operands.get(INITIAL_C).cloned().unwrap_or_else(|| vec![0.0; h.len()]);
        for line in 0..directions * batch {
            let (direction, row) = (line / batch, line % batch);
            let length = operands[LENGTHS][row] as i64;
            let Some(length) = usize::try_from(length).ok().filter(|&length| length <= steps) else {
                return Err(fail!(InvalidArgument, "row {row} has length {length} in a sequence of {steps} steps"));
            };
            let unit = Unit::new(self, &operands, direction);
            let state = line * hidden..(line + 1) * hidden;
            for step in 0..length {
                let step = if self.direction.is_reverse(direction) { length - 1 - step } else { step };
                let x = &operands[0][(step * batch + row) * unit.size..][..unit.size];
                unit.advance(x, &mut h[state.clone()], &mut c[state.clone()]);
                let out = ((step * directions + direction) * batch + row) * hidden;
                y[out..out + hidden].copy_from_slice(&h[state.clone()]);
            }
        }
        let dtype = inputs[0].dtype();
        let state_shape = [directions, batch, hidden];
        let mut results =
            vec![from_floats(dtype, &[steps, directions, batch, hidden], &y), from_floats(dtype, &state_shape, &h)];
        if matches!(self.cell, Cell::Lstm { .. }) {
            results.push(from_floats(dtype, &state_shape, &c));
        }
        Ok(results)
    }

    fn work(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let size = inputs[0].shape.last().map_or(0, |&size| size as u64);
        let per_unit = size.saturating_add(self.hidden as u64).saturating_mul(2 * self.cell.gates() as u64);
        (outputs[0].count() as u64).saturating_mul(per_unit.saturating_add(16))
    }
}

/// Positions of operands.
const LENGTHS: usize = 4;
const INITIAL_H: usize = 5;
const INITIAL_C: usize = 6;
const PEEPHOLES: usize = 7;

/// The weights of one direction.
struct Unit<'a> {
    cell: Cell,
    clip: f64,
    activations: &'a [Activation],
    /// I.
    size: usize,
    hidden: usize,
    w: &'a [f64],
    r: &'a [f64],
    w_bias: &'a [f64],
    r_bias: &'a [f64],
    peepholes: &'a [f64],
}

impl<'a> Unit<'a> {
    fn new(kernel: &'a Recurrent, operands: &'a [Vec<f64>], direction: usize) -> Self {
        let directions = kernel.direction.count();
        let part = |index: usize| {
            let all = operands.get(index).map_or(&[][..], |operand| operand);
            let each = all.len() / directions;
            &all[direction * each..(direction + 1) * each]
        };
        let hidden = kernel.hidden;
        let (w_bias, r_bias) = part(3).split_at(kernel.cell.gates() * hidden);
        let functions = kernel.cell.functions();
        Unit {
            cell: kernel.cell,
            clip: kernel.clip.map_or(f64::INFINITY, f64::from),
            activations: &kernel.activations[direction * functions..(direction + 1) * functions],
            size: part(1).len() / (kernel.cell.gates() * hidden),
            hidden,
            w: part(1),
            r: part(2),
            w_bias,
            r_bias,
            peepholes: part(PEEPHOLES),
        }
    }

    /// One step of one row.
    fn advance(&self, x: &[f64], h: &mut [f64], c: &mut [f64]) {
        match self.cell {
            Cell::Lstm { input_forget } => self.advance_lstm(input_forget, x, h, c),
            Cell::Gru { linear_before_reset } => self.advance_gru(linear_before_reset, x, h),
        }
    }

    fn advance_lstm(&self, input_forget: bool, x: &[f64], h: &mut [f64], c: &mut [f64]) {
        let (hidden, [f, g, out]) = (self.hidden, [0, 1, 2].map(|index| self.activations[index]));
        let previous = h.to_vec();
        for unit in 0..hidden {
            let [i, o, forget, cell] = [0, 1, 2, 3].map(|gate| {
                let row = gate * hidden + unit;
                self.input_part(row, x) + self.recurrent_part(row, &previous)
            });
            let [p_i, p_o, p_f] = [0, 1, 2].map(|gate| self.peepholes[gate * hidden + unit]);
            let i = f.apply(self.clipped(i + p_i * c[unit]));
            let forget = if input_forget { 1.0 - i } else { f.apply(self.clipped(forget + p_f * c[unit])) };
            c[unit] = forget * c[unit] + i * g.apply(self.clipped(cell));
            let o = f.apply(self.clipped(o + p_o * c[unit]));
            h[unit] = o * out.apply(self.clipped(c[unit]));
        }
    }

    fn advance_gru(&self, linear_before_reset: bool, x: &[f64], h: &mut [f64]) {
        let (hidden, [f, g]) = (self.hidden, [0, 1].map(|index| self.activations[index]));
        let previous = h.to_vec();
        let gate = |gate: usize, unit: usize| {
            let row = gate * hidden + unit;
            f.apply(self.clipped(self.input_part(row, x) + self.recurrent_part(row, &previous)))
        };
        let reset: Vec<f64> = (0..hidden).map(|unit| gate(1, unit)).collect();
        let held: Vec<f64> = reset.iter().zip(&previous).map(|(reset, h)| reset * h).collect();
        for unit in 0..hidden {
            let update = gate(0, unit);
            let row = 2 * hidden + unit;
            let recurrent = if linear_before_reset {
                reset[unit] * self.recurrent_part(row, &previous)
            } else {
                self.recurrent_part(row, &held)
            };
            let candidate = g.apply(self.clipped(self.input_part(row, x) + recurrent));
            h[unit] = (1.0 - update) * candidate + update * previous[unit];
        }
    }

    fn input_part(&self, row: usize, x: &[f64]) -> f64 {
        let weights = &self.w[row * self.size..][..self.size];
        self.w_bias[row] + weights.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()
    }

    fn recurrent_part(&self, row: usize, h: &[f64]) -> f64 {
        let weights = &self.r[row * self.hidden..][..self.hidden];
        self.r_bias[row] + weights.iter().zip(h).map(|(r, h)| r * h).sum::<f64>()
    }

    fn clipped(&self, x: f64) -> f64 {
        x.clamp(-self.clip, self.clip)
    }
}
