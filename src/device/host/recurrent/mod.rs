//! LSTM and GRU over dense operands. Each direction of each row is one line of work: the input's products are taken
//! several steps at a time, so that the weights are read once for all of them, then the steps follow one another.

mod gates;
mod products;

use super::kernel::{Share, Span, Task};
use crate::kernels::{Cell, Recurrent};
use crate::lower::host::{RECURRENT_STEPS as STEPS, Simd};
use gates::Gates;
use products::Products;

/// A task for dense operands and results. Needs `(RECURRENT_STEPS + 1) G H + 3 H` floats of scratch per
/// worker.
pub fn prepare(kernel: &Recurrent, inputs: &[Span], outputs: &[Span], simd: Simd) -> Task {
    let sequence = Sequence::new(kernel, inputs, outputs, simd);
    let lines = sequence.directions * sequence.batch;
    Box::new(move |share: &Share| {
        for line in share.range(lines, 1) {
            // SAFETY: operands and results are dense and of the kernel's shapes, the scratch is as large as the lowering
            // promised, and this part alone has the line.
            unsafe { sequence.run(line, share.scratch.cast()) }
        }
    })
}

struct Sequence {
    kernel: Recurrent,
    simd: Simd,
    steps: usize,
    batch: usize,
    directions: usize,
    /// I.
    size: usize,
    /// G H.
    rows: usize,
    inputs: Vec<Span>,
    outputs: Vec<Span>,
}

impl Sequence {
    fn new(kernel: &Recurrent, inputs: &[Span], outputs: &[Span], simd: Simd) -> Sequence {
        let x = &inputs[0].shape;
        Sequence {
            simd,
            steps: x[0],
            batch: x[1],
            size: x[2],
            directions: kernel.direction.count(),
            rows: kernel.cell.gates() * kernel.hidden,
            kernel: kernel.clone(),
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
        }
    }

    /// One direction of one row.
    ///
    /// # Safety
    /// Operands and results are dense tensors of the kernel's shapes, nobody else writes the line's results, and `scratch`
    /// is as large as [`prepare`] demands.
    unsafe fn run(&self, line: usize, scratch: *mut f32) {
        let (direction, row) = (line / self.batch, line % self.batch);
        let hidden = self.kernel.hidden;
        // SAFETY: positions follow from the shapes; the pieces of scratch are disjoint.
        unsafe {
            let length = *self.inputs[4].pointer::<i32>().add(row);
            let length = usize::try_from(length).unwrap_or(0).min(self.steps);
            let projected = scratch;
            let recurrent = projected.add(STEPS * self.rows);
            let held = recurrent.add(self.rows);
            let h = self.outputs[1].pointer::<f32>().add(line * hidden);
            h.copy_from_nonoverlapping(self.inputs[5].pointer::<f32>().add(line * hidden), hidden);
            // A GRU has no cell state; a place in scratch stands in for it.
            let c = match self.kernel.cell {
                Cell::Lstm { .. } => {
                    let c = self.outputs[2].pointer::<f32>().add(line * hidden);
                    c.copy_from_nonoverlapping(self.inputs[6].pointer::<f32>().add(line * hidden), hidden);
                    c
                }
                Cell::Gru { .. } => held.add(2 * hidden),
            };
            let gates = Gates::new(self, direction, recurrent, held);
            let mut done = 0;
            while done < length {
                let count = STEPS.min(length - done);
                self.project(direction, row, length, done, count, projected);
                for step in 0..count {
                    gates.advance(projected.add(step * self.rows), h, c);
                    let at = self.position(direction, length, done + step);
                    self.result(at, direction, row).copy_from_nonoverlapping(h, hidden);
                }
                done += count;
            }
            for at in length..self.steps {
                self.result(at, direction, row).write_bytes(0, hidden);
            }
        }
    }

    /// Where in the sequence the `step`-th step of a direction lies.
    fn position(&self, direction: usize, length: usize, step: usize) -> usize {
        if self.kernel.direction.is_reverse(direction) { length - 1 - step } else { step }
    }

    /// The state's place in Y.
    ///
    /// # Safety
    /// `at` is below the number of steps.
    unsafe fn result(&self, at: usize, direction: usize, row: usize) -> *mut f32 {
        let index = (at * self.directions + direction) * self.batch + row;
        // SAFETY: the caller's promise.
        unsafe { self.outputs[0].pointer::<f32>().add(index * self.kernel.hidden) }
    }

    /// `W x` of `count` steps from step `first`.
    ///
    /// # Safety
    /// `to` has room for `STEPS` vectors of `rows`; the steps lie inside the length.
    unsafe fn project(&self, direction: usize, row: usize, length: usize, first: usize, count: usize, to: *mut f32) {
        let start = self.position(direction, length, first);
        let step = (self.batch * self.size) as isize;
        let step = if self.kernel.direction.is_reverse(direction) { -step } else { step };
        // SAFETY: positions follow from the shapes.
        unsafe {
            let weights = self.inputs[1].pointer::<f32>().add(direction * self.rows * self.size);
            let x = self.inputs[0].pointer::<f32>().add((start * self.batch + row) * self.size);
            Products { weights, rows: self.rows, depth: self.size, x, x_step: step, count, to }.run(self.simd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, check};
    use crate::ir::Tensor;
    use crate::kernels::{Activation, Cell, Direction, Recurrent};

    const DIRECTIONS: [Direction; 3] = [Direction::Forward, Direction::Reverse, Direction::Bidirectional];

    fn inputs(
        random: &mut Random,
        kernel: &Recurrent,
        [steps, batch, size]: [usize; 3],
        lengths: &[i32],
    ) -> Vec<Tensor> {
        let (directions, hidden) = (kernel.direction.count(), kernel.hidden);
        let rows = kernel.cell.gates() * hidden;
        let mut operands = vec![
            random.floats(&[steps, batch, size]),
            random.floats(&[directions, rows, size]),
            random.floats(&[directions, rows, hidden]),
            random.floats(&[directions, 2 * rows]),
            Tensor::from_slice(&[batch], lengths),
            random.floats(&[directions, batch, hidden]),
        ];
        if matches!(kernel.cell, Cell::Lstm { .. }) {
            operands.push(random.floats(&[directions, batch, hidden]));
            operands.push(random.floats(&[directions, 3 * hidden]));
        }
        operands
    }

    #[test]
    fn cells_follow_their_definition() {
        let mut random = Random::new(9);
        let hard = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };
        for direction in DIRECTIONS {
            for cell in [
                Cell::Lstm { input_forget: false },
                Cell::Lstm { input_forget: true },
                Cell::Gru { linear_before_reset: false },
                Cell::Gru { linear_before_reset: true },
            ] {
                for (first, clip) in [(Activation::Sigmoid, None), (hard, Some(1.5))] {
                    let functions = [first, Activation::Tanh, Activation::Relu];
                    let activations = functions[..cell.functions()].repeat(direction.count());
                    let kernel = Recurrent { cell, direction, hidden: 19, activations, clip };
                    let operands = inputs(&mut random, &kernel, [11, 3, 21], &[11, 0, 5]);
                    check(kernel, &operands, 2e-4);
                }
            }
        }
    }

    #[test]
    fn a_length_outside_the_sequence_is_cut_to_it() {
        let mut random = Random::new(10);
        let activations = vec![Activation::Sigmoid, Activation::Tanh];
        let cell = Cell::Gru { linear_before_reset: true };
        let kernel = Recurrent { cell, direction: Direction::Reverse, hidden: 8, activations, clip: None };
        let whole = inputs(&mut random, &kernel, [4, 2, 5], &[4, 0]);
        let mut wild = whole.clone();
        wild[4] = Tensor::from_slice(&[2], &[i32::MAX, -7]);
        let run = |operands: &[Tensor]| {
            let plan = super::super::testing::plan_of(kernel.clone(), operands, |_, view| view);
            let program = crate::lower::host::lower(&plan, &super::super::traits()).unwrap();
            super::super::testing::run(program, operands, 1)
        };
        assert_eq!(run(&wild), run(&whole));
    }
}
