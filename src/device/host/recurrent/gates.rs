//! One step of one row: the recurrent products, the gates and the new state.

use super::super::simd::unary;
use super::Sequence;
use super::products::Products;
use crate::kernels::{Activation, Cell, Unary};
use crate::lower::host::Simd;

/// The weights of one direction, and room for a step's intermediate values.
pub struct Gates<'a> {
    cell: Cell,
    simd: Simd,
    clip: Option<f32>,
    activations: &'a [Activation],
    hidden: usize,
    /// G H.
    rows: usize,
    r: *const f32,
    w_bias: *const f32,
    r_bias: *const f32,
    peepholes: Option<*const f32>,
    /// `rows` elements: the recurrent products.
    recurrent: *mut f32,
    /// `hidden` elements: the reset state of a GRU, the squashed cell of an LSTM.
    held: *mut f32,
}

impl<'a> Gates<'a> {
    /// # Safety
    /// The operands are dense and of the kernel's shapes; `recurrent` has room for `rows` elements, `held` for `hidden`.
    pub unsafe fn new(sequence: &'a Sequence, direction: usize, recurrent: *mut f32, held: *mut f32) -> Self {
        let (hidden, rows, kernel) = (sequence.kernel.hidden, sequence.rows, &sequence.kernel);
        let functions = kernel.cell.functions();
        // SAFETY: positions follow from the shapes.
        unsafe {
            let bias = sequence.inputs[3].pointer::<f32>().add(direction * 2 * rows);
            Gates {
                cell: kernel.cell,
                simd: sequence.simd,
                clip: kernel.clip,
                activations: &kernel.activations[direction * functions..(direction + 1) * functions],
                hidden,
                rows,
                r: sequence.inputs[2].pointer::<f32>().add(direction * rows * hidden),
                w_bias: bias,
                r_bias: bias.add(rows),
                peepholes: sequence
                    .inputs
                    .get(7)
                    .map(|span| span.pointer::<f32>().add(direction * 3 * hidden).cast_const()),
                recurrent,
                held,
            }
        }
    }

    /// Moves the state on by one step, given `W x`, which is overwritten.
    ///
    /// # Safety
    /// `projected` has `rows` elements, `h` and `c` have `hidden`.
    pub unsafe fn advance(&self, projected: *mut f32, h: *mut f32, c: *mut f32) {
        // SAFETY: disjoint memory of these sizes; the weights are as `new` was promised.
        unsafe {
            self.products(0, self.rows, h);
            let row = |from: *const f32| std::slice::from_raw_parts(from, self.rows);
            let projected = std::slice::from_raw_parts_mut(projected, self.rows);
            let recurrent = std::slice::from_raw_parts_mut(self.recurrent, self.rows);
            projected.iter_mut().zip(row(self.w_bias)).for_each(|(sum, bias)| *sum += bias);
            recurrent.iter_mut().zip(row(self.r_bias)).for_each(|(sum, bias)| *sum += bias);
            let h = std::slice::from_raw_parts_mut(h, self.hidden);
            let held = std::slice::from_raw_parts_mut(self.held, self.hidden);
            match self.cell {
                Cell::Lstm { input_forget } => {
                    let c = std::slice::from_raw_parts_mut(c, self.hidden);
                    self.lstm(input_forget, projected, recurrent, h, c, held);
                }
                Cell::Gru { linear_before_reset } => self.gru(linear_before_reset, projected, recurrent, h, held),
            }
        }
    }

    fn lstm(
        &self,
        input_forget: bool,
        gates: &mut [f32],
        recurrent: &[f32],
        h: &mut [f32],
        c: &mut [f32],
        squashed: &mut [f32],
    ) {
        let hidden = self.hidden;
        gates.iter_mut().zip(recurrent).for_each(|(sum, &recurrent)| *sum += recurrent);
        let (i, rest) = gates.split_at_mut(hidden);
        let (o, rest) = rest.split_at_mut(hidden);
        let (f, g) = rest.split_at_mut(hidden);
        self.peep(0, i, c);
        self.activate(self.activations[0], i);
        self.activate(self.activations[1], g);
        if input_forget {
            f.iter_mut().zip(i.iter()).for_each(|(f, i)| *f = 1.0 - i);
        } else {
            self.peep(2, f, c);
            self.activate(self.activations[0], f);
        }
        for (((c, f), i), g) in c.iter_mut().zip(f.iter()).zip(i.iter()).zip(g.iter()) {
            *c = f * *c + i * g;
        }
        self.peep(1, o, c);
        self.activate(self.activations[0], o);
        squashed.copy_from_slice(c);
        self.apply(self.activations[2], squashed);
        h.iter_mut().zip(o.iter()).zip(squashed.iter()).for_each(|((h, o), squashed)| *h = o * squashed);
    }

    fn gru(
        &self,
        linear_before_reset: bool,
        gates: &mut [f32],
        recurrent: &mut [f32],
        h: &mut [f32],
        held: &mut [f32],
    ) {
        let hidden = self.hidden;
        let (control, candidate) = gates.split_at_mut(2 * hidden);
        control.iter_mut().zip(recurrent.iter()).for_each(|(sum, recurrent)| *sum += recurrent);
        self.activate(self.activations[0], control);
        let (update, reset) = control.split_at(hidden);
        if !linear_before_reset {
            held.iter_mut().zip(reset).zip(h.iter()).for_each(|((held, reset), h)| *held = reset * h);
            // SAFETY: the rows of the candidate lie inside the weights and the products; `held` has `hidden` elements.
            unsafe {
                self.products(2 * hidden, hidden, held.as_ptr());
                let bias = std::slice::from_raw_parts(self.r_bias.add(2 * hidden), hidden);
                candidate.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
            }
        }
        for ((sum, recurrent), reset) in candidate.iter_mut().zip(&recurrent[2 * hidden..]).zip(reset) {
            *sum += if linear_before_reset { reset * recurrent } else { *recurrent };
        }
        self.activate(self.activations[1], candidate);
        for ((h, update), candidate) in h.iter_mut().zip(update).zip(candidate.iter()) {
            *h = (1.0 - update) * candidate + update * *h;
        }
    }

    /// `recurrent[first..first + rows] = R[first..first + rows] x`.
    ///
    /// # Safety
    /// The rows exist; `x` has `hidden` elements.
    unsafe fn products(&self, first: usize, rows: usize, x: *const f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (weights, to) = (self.r.add(first * self.hidden), self.recurrent.add(first));
            Products { weights, rows, depth: self.hidden, x, x_step: 0, count: 1, to }.run(self.simd);
        }
    }

    /// Adds the cell state through peephole weights `gate` (order i, o, f).
    fn peep(&self, gate: usize, sums: &mut [f32], c: &[f32]) {
        let Some(peepholes) = self.peepholes else { return };
        // SAFETY: there are `3 * hidden` weights.
        let weights = unsafe { std::slice::from_raw_parts(peepholes.add(gate * self.hidden), self.hidden) };
        sums.iter_mut().zip(weights).zip(c).for_each(|((sum, weight), c)| *sum += weight * c);
    }

    /// Clips and applies a gate's function in place.
    fn activate(&self, activation: Activation, values: &mut [f32]) {
        if let Some(clip) = self.clip {
            values.iter_mut().for_each(|x| *x = x.clamp(-clip, clip));
        }
        self.apply(activation, values);
    }

    /// Applies a gate's function in place.
    fn apply(&self, activation: Activation, values: &mut [f32]) {
        let op = match activation {
            Activation::Sigmoid => Unary::Sigmoid,
            Activation::Tanh => Unary::Tanh,
            Activation::Relu => Unary::Relu,
            Activation::HardSigmoid { alpha, beta } => {
                values.iter_mut().for_each(|x| *x = (alpha * *x + beta).clamp(0.0, 1.0));
                return;
            }
        };
        let row = values.as_mut_ptr();
        // SAFETY: the machine has the instructions that its traits name; the row is read and written in place.
        unsafe { unary(self.simd, op, row, row, values.len()) }
    }
}
