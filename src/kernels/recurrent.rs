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
        let [steps, batch, size] = inputs[0].shape()[..] else {
            return Err(fail!(ShapeMismatch, "the input's shape {:?} is not [T, B, I]", inputs[0].shape()));
        };
        let (directions, hidden) = (self.direction.count(), self.hidden);
        let rows = self.cell.gates() * hidden;
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
            let peepholes = operands.get(PEEPHOLES).map_or(&[][..], |operand| operand);
            let unit = Unit::new(self, &operands[2], &operands[3], peepholes, direction);
            let weights = &operands[1][direction * rows * size..][..rows * size];
            let state = line * hidden..(line + 1) * hidden;
            for step in 0..length {
                let step = if self.direction.is_reverse(direction) { length - 1 - step } else { step };
                let x = &operands[0][(step * batch + row) * size..][..size];
                let product = |row: usize| weights[row * size..][..size].iter().zip(x).map(|(w, x)| w * x).sum();
                let products: Vec<f64> = (0..rows).map(product).collect();
                unit.advance(&products, &mut h[state.clone()], &mut c[state.clone()]);
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

/// The recurrence of one direction: what follows the products of input and weights.
pub(super) struct Unit<'a> {
    cell: Cell,
    clip: f64,
    activations: &'a [Activation],
    hidden: usize,
    r: &'a [f64],
    w_bias: &'a [f64],
    r_bias: &'a [f64],
    peepholes: &'a [f64],
}

impl<'a> Unit<'a> {
    /// One direction of R, the biases and, of an LSTM, the peepholes.
    pub(super) fn new(
        kernel: &'a Recurrent,
        r: &'a [f64],
        bias: &'a [f64],
        peepholes: &'a [f64],
        direction: usize,
    ) -> Self {
        let directions = kernel.direction.count();
        let part = |all: &'a [f64]| {
            let each = all.len() / directions;
            &all[direction * each..(direction + 1) * each]
        };
        let hidden = kernel.hidden;
        let (w_bias, r_bias) = part(bias).split_at(kernel.cell.gates() * hidden);
        let functions = kernel.cell.functions();
        Unit {
            cell: kernel.cell,
            clip: kernel.clip.map_or(f64::INFINITY, f64::from),
            activations: &kernel.activations[direction * functions..(direction + 1) * functions],
            hidden,
            r: part(r),
            w_bias,
            r_bias,
            peepholes: part(peepholes),
        }
    }

    /// One step of one row, given W x.
    pub(super) fn advance(&self, products: &[f64], h: &mut [f64], c: &mut [f64]) {
        match self.cell {
            Cell::Lstm { input_forget } => self.advance_lstm(input_forget, products, h, c),
            Cell::Gru { linear_before_reset } => self.advance_gru(linear_before_reset, products, h),
        }
    }

    fn advance_lstm(&self, input_forget: bool, products: &[f64], h: &mut [f64], c: &mut [f64]) {
        let (hidden, [f, g, out]) = (self.hidden, [0, 1, 2].map(|index| self.activations[index]));
        let previous = h.to_vec();
        for unit in 0..hidden {
            let [i, o, forget, cell] = [0, 1, 2, 3].map(|gate| {
                let row = gate * hidden + unit;
                self.input_part(row, products) + self.recurrent_part(row, &previous)
            });
            let [p_i, p_o, p_f] = [0, 1, 2].map(|gate| self.peepholes[gate * hidden + unit]);
            let i = f.apply(self.clipped(i + p_i * c[unit]));
            let forget = if input_forget { 1.0 - i } else { f.apply(self.clipped(forget + p_f * c[unit])) };
            c[unit] = forget * c[unit] + i * g.apply(self.clipped(cell));
            let o = f.apply(self.clipped(o + p_o * c[unit]));
            h[unit] = o * out.apply(c[unit]);
        }
    }

    fn advance_gru(&self, linear_before_reset: bool, products: &[f64], h: &mut [f64]) {
        let (hidden, [f, g]) = (self.hidden, [0, 1].map(|index| self.activations[index]));
        let previous = h.to_vec();
        let gate = |gate: usize, unit: usize| {
            let row = gate * hidden + unit;
            f.apply(self.clipped(self.input_part(row, products) + self.recurrent_part(row, &previous)))
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
            let candidate = g.apply(self.clipped(self.input_part(row, products) + recurrent));
            h[unit] = (1.0 - update) * candidate + update * previous[unit];
        }
    }

    fn input_part(&self, row: usize, products: &[f64]) -> f64 {
        self.w_bias[row] + products[row]
    }

    fn recurrent_part(&self, row: usize, h: &[f64]) -> f64 {
        let weights = &self.r[row * self.hidden..][..self.hidden];
        self.r_bias[row] + weights.iter().zip(h).map(|(r, h)| r * h).sum::<f64>()
    }

    fn clipped(&self, x: f64) -> f64 {
        x.clamp(-self.clip, self.clip)
    }
}

#[cfg(test)]
mod tests {
    //! Expected values were computed with ONNX Runtime: 3 steps, batch 2, input and hidden size 2, bidirectional, lengths 3
    //! and 2. Weights are in eighths; the GRU uses the first rows of the LSTM's.
    use super::*;
    use crate::error::Status;
    use crate::kernels::evaluation::{close, evaluated, refused};

    const X: &[i8] = &[4, 7, -8, -5, -5, -1, 1, -4, -2, 4, -7, -2];
    const W: [&[i8]; 2] = [
        &[-1, 6, -3, 5, 0, 1, 8, -3, 7, 7, -8, -5, 6, -1, -8, -7],
        &[1, -8, 2, -5, 3, -6, -8, -8, -4, -3, -2, 0, 7, -4, 1, 2],
    ];
    const R: [&[i8]; 2] = [
        &[-7, -7, -1, 1, -5, -2, 3, 6, -8, 6, -5, 4, 2, 3, -4, -2],
        &[-4, 7, -5, 4, -4, 0, 6, 7, -5, 7, 5, 8, -3, 1, -5, -8],
    ];
    const B: [&[i8]; 2] = [
        &[-3, -8, -4, -6, 8, -5, -6, 2, 5, 8, -1, 1, -8, 2, 3, -6],
        &[-6, -5, -5, 6, -5, 6, 1, -7, -4, 2, 3, 0, 3, -6, 8, -8],
    ];
    const H0: &[i8] = &[-8, -2, 6, 2, 0, 5, -6, -5];
    const C0: &[i8] = &[-6, 3, 5, 8, 0, 0, 0, -6];
    const P: &[i8] = &[-5, 4, 6, -8, -4, -5, 5, 3, 5, 5, 3, 8];

    fn eighths(shape: &[usize], parts: &[&[i8]], each: usize) -> Tensor {
        let values: Vec<f32> = parts.iter().flat_map(|part| part[..each].iter().map(|&x| f32::from(x) / 8.0)).collect();
        Tensor::from_slice(shape, &values)
    }

    fn run(cell: Cell, clip: Option<f32>, lengths: [i32; 2]) -> Vec<Tensor> {
        let gates = cell.gates();
        let mut operands = vec![
            eighths(&[3, 2, 2], &[X], 12),
            eighths(&[2, gates * 2, 2], &W, gates * 4),
            eighths(&[2, gates * 2, 2], &R, gates * 4),
            eighths(&[2, gates * 4], &B, gates * 4),
            Tensor::from_slice(&[2], &lengths),
            eighths(&[2, 2, 2], &[H0], 8),
        ];
        let mut activations = [Activation::Sigmoid, Activation::Tanh].repeat(2);
        if let Cell::Lstm { .. } = cell {
            operands.extend([eighths(&[2, 2, 2], &[C0], 8), eighths(&[2, 6], &[P], 12)]);
            activations = [Activation::Sigmoid, Activation::Tanh, Activation::Tanh].repeat(2);
        }
        evaluated(Recurrent { cell, direction: Direction::Bidirectional, hidden: 2, activations, clip }, &operands)
    }

    #[test]
    fn an_lstm_with_peepholes_runs_both_ways() {
        let results = run(Cell::Lstm { input_forget: false }, None, [3, 2]);
        let y = [
            [-0.2742063, -0.1555318, -0.01606045, 0.1005086, 0.03960622, -0.0849446, 0.1367878, -0.4306012],
            [-0.1767364, -0.02487023, -0.03646695, 0.07150438, 0.07369802, -0.3118162, 0.1762189, -0.1764888],
            [-0.1676801, -0.1097225, 0.0, 0.0, 0.04867536, -0.2542944, 0.0, 0.0],
        ];
        assert!(close(&results[0].to_f64s(), &y.concat(), 1e-6), "{:?}", results[0].to_f64s());
        let h = [-0.1676801, -0.1097225, -0.03646695, 0.07150438, 0.03960622, -0.0849446, 0.1367878, -0.4306012];
        assert!(close(&results[1].to_f64s(), &h, 1e-6));
        let c = [-1.299087, -0.3650453, -0.1174064, 0.1830204, 0.1184573, -0.3419496, 0.2903478, -0.5331019];
        assert!(close(&results[2].to_f64s(), &c, 1e-6));
    }

    #[test]
    fn a_clip_bounds_what_goes_into_the_gates() {
        let results = run(Cell::Lstm { input_forget: false }, Some(0.25), [3, 2]);
        let h = [-0.15148976, -0.03157324, 0.01148055, 0.07058048, 0.07731036, -0.07706346, 0.07959926, -0.16399212];
        assert!(close(&results[1].to_f64s(), &h, 1e-6), "{:?}", results[1].to_f64s());
    }

    #[test]
    fn a_gru_resets_before_or_after_the_recurrent_product() {
        let before = [0.53663546, -0.33472043, 0.56863284, 0.17764448, -0.11715988, 0.8593617, 0.00227061, 0.51452816];
        let after = [0.49943754, -0.40887186, 0.56152493, 0.13737854, -0.54058482, 0.80663133, -0.12643343, 0.38668522];
        for (linear_before_reset, expected) in [(false, before), (true, after)] {
            let results = run(Cell::Gru { linear_before_reset }, None, [3, 2]);
            assert!(close(&results[1].to_f64s(), &expected, 1e-6), "{:?}", results[1].to_f64s());
        }
    }

    #[test]
    fn a_row_of_length_0_keeps_its_state() {
        let results = run(Cell::Lstm { input_forget: true }, None, [0, 3]);
        let (h, c) = (results[1].to_f64s(), results[2].to_f64s());
        assert_eq!((&h[..2], &c[..2]), (&[-1.0, -0.25][..], &[-0.75, 0.375][..]));
        assert!(results[0].to_f64s().chunks(4).all(|row| row[..2] == [0.0, 0.0] && row[2] != 0.0));
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        let kernel = Recurrent {
            cell: Cell::Gru { linear_before_reset: false },
            direction: Direction::Forward,
            hidden: 1,
            activations: vec![Activation::Sigmoid, Activation::Tanh],
            clip: None,
        };
        let zeros = |shape: &[usize]| Tensor::from_slice(shape, &vec![0f32; shape.iter().product()]);
        for length in [-1, 2] {
            let operands = [
                zeros(&[1, 1, 1]),
                zeros(&[1, 3, 1]),
                zeros(&[1, 3, 1]),
                zeros(&[1, 6]),
                Tensor::from_slice(&[1], &[length]),
                zeros(&[1, 1, 1]),
            ];
            assert_eq!(kernel.reference(&operands).unwrap_err().status, Status::InvalidArgument);
        }
        let huge = Recurrent { hidden: usize::MAX, ..kernel.clone() };
        let float = |shape| (DType::F32, shape);
        let shapes: [&[usize]; 6] = [&[1, 1, 1], &[1, 3, 1], &[1, 3, 1], &[1, 6], &[1], &[1, 1, 1]];
        let mut operands = shapes.map(float);
        operands[LENGTHS].0 = DType::I32;
        assert_eq!(refused(huge, &operands), Status::TooLarge);
        assert_eq!(refused(Recurrent { clip: Some(f32::NAN), ..kernel.clone() }, &operands), Status::InvalidArgument);
        assert_eq!(refused(Recurrent { activations: vec![], ..kernel.clone() }, &operands), Status::InvalidArgument);
        operands[2].1 = &[1, 3, 2];
        assert_eq!(refused(kernel, &operands), Status::ShapeMismatch);
    }

    #[test]
    fn activations_keep_nan() {
        for activation in [Activation::Sigmoid, Activation::Tanh, Activation::Relu, HARD] {
            assert!(activation.apply(f64::NAN).is_nan(), "{activation:?}");
        }
        assert_eq!([-9.0, 0.0, 9.0].map(|x| HARD.apply(x)), [0.0, 0.5, 1.0]);
    }

    const HARD: Activation = Activation::HardSigmoid { alpha: 0.25, beta: 0.5 };
}
