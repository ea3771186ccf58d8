//! LSTM and GRU: the products of all inputs and weights are one matrix product; the recurrence is one launch that loops over the steps, or
//! one launch a step.

use super::contraction::Product;
use super::{Binding, Lowering};
use crate::error::{Result, fail};
use crate::ir::DType;
use crate::kernels::entry::{self, RecurrentArguments, RecurrentOperands};
use crate::kernels::{Cell, Recurrent};
use crate::lower::operand::Operand;
use crate::plan::{Step, View};

/// Bytes of R of one direction up to which a block reads all of it in about the time that one more launch takes: 2 us at the 64 bytes
/// a cycle that a multiprocessor gets from the GPU's cache. An estimate, not yet a measurement.
const SCAN_BYTES_MAX: usize = 192 << 10;
/// Most launches of one recurrence.
const STEPS_MAX: usize = 1024;

/// Whether every step is a launch of its own, in which many multiprocessors share R. A loop over steps in one block pays where R is
/// small, and where the steps are too many; a reset gate before the product would need a second launch a step. Of a sequence without steps
/// the loop hands the states on.
fn is_stepwise(cell: Cell, steps: usize, weight_bytes: usize) -> bool {
    let whole = cell != Cell::Gru { linear_before_reset: false };
    whole && (steps == 1 || (weight_bytes > SCAN_BYTES_MAX && (1..=STEPS_MAX).contains(&steps)))
}

/// The operand with an axis in front along which it is repeated.
fn stacked(operand: &Operand, count: usize) -> Operand {
    let (shape, strides) = ([&[count][..], &operand.shape].concat(), [&[0][..], &operand.strides].concat());
    Operand { shape, strides, ..operand.clone() }
}

impl Lowering<'_> {
    pub(super) fn recurrent(&mut self, kernel: &Recurrent, step: &Step) -> Result<()> {
        let [steps, batch, _] = step.inputs[0].shape[..] else {
            return Err(fail!(Internal, "the input of a recurrence has the shape {:?}", step.inputs[0].shape));
        };
        let products = self.input_products(kernel, &step.inputs[0], &step.inputs[1])?;
        let weights = self.operand(&step.inputs[2].swap(1, 2))?;
        let mut binding = Binding::default();
        let operands = RecurrentOperands {
            products: binding.strided(&products)?,
            weights: binding.strided(&weights)?,
            bias: self.unless_zero(&mut binding, step.inputs.get(3))?,
            lengths: self.unless_whole(&mut binding, &step.inputs[4], steps)?,
            peepholes: self.unless_zero(&mut binding, step.inputs.get(7))?,
            y: self.result(&mut binding, step.outputs.first())?,
        };
        let mut arguments = RecurrentArguments::new(kernel, steps, batch, operands)?;
        let last = [step.outputs.get(1), step.outputs.get(2)];
        let first = [step.inputs.get(5), step.inputs.get(6)];
        let weight_bytes = weights.shape[1..].iter().product::<usize>() * weights.dtype.bytes();
        if is_stepwise(kernel.cell, steps, weight_bytes) {
            return self.steps(arguments, &binding, first, last);
        }
        arguments.h = self.unless_zero(&mut binding, first[0])?;
        arguments.c = self.unless_zero(&mut binding, first[1])?;
        arguments.last_h = self.result(&mut binding, last[0])?;
        arguments.last_c = self.result(&mut binding, last[1])?;
        let work_bytes = arguments.share(self.traits.multiprocessors as usize);
        if work_bytes > 0 {
            let work = self.scratch(DType::F32, &[work_bytes / 4])?;
            arguments.work = binding.memory(&work);
        }
        self.launch("recurrent_scan", &arguments, binding, arguments.scan_launch())
    }

    /// A launch for each step; the states between them take turns in two places.
    fn steps(
        &mut self,
        arguments: RecurrentArguments,
        binding: &Binding,
        first: [Option<&View>; 2],
        last: [Option<&View>; 2],
    ) -> Result<()> {
        let shape = [arguments.directions, arguments.batch, arguments.hidden].map(|extent| extent as usize);
        let places = if arguments.steps > 1 { 2 } else { 0 };
        let mut states = Vec::with_capacity(places);
        for _ in 0..places {
            states.push([self.scratch(DType::F32, &shape)?, self.scratch(DType::F32, &shape)?]);
        }
        for index in 0..arguments.steps {
            let mut binding = binding.clone();
            let mut arguments = RecurrentArguments { first: index, count: 1, ..arguments };
            if index == 0 {
                arguments.h = self.unless_zero(&mut binding, first[0])?;
                arguments.c = self.unless_zero(&mut binding, first[1])?;
            } else {
                let [h, c] = &states[index as usize % 2];
                (arguments.h, arguments.c) = (binding.strided(h)?, binding.strided(c)?);
            }
            if index + 1 == arguments.steps {
                arguments.last_h = self.result(&mut binding, last[0])?;
                arguments.last_c = self.result(&mut binding, last[1])?;
            } else {
                let [h, c] = &states[(index as usize + 1) % 2];
                (arguments.last_h, arguments.last_c) = (binding.strided(h)?, binding.strided(c)?);
            }
            self.launch("recurrent_step", &arguments, binding, arguments.step_launch())?;
        }
        Ok(())
    }

    /// W x of all steps, `[D, T, B, G H]` in binary32.
    fn input_products(&mut self, kernel: &Recurrent, input: &View, weight: &View) -> Result<Operand> {
        let (x, w) = (self.operand(input)?, self.operand(&weight.swap(1, 2))?);
        let (steps, batch) = (x.shape[0], x.shape[1]);
        let (directions, wide) = (kernel.direction.count(), kernel.cell.gates() * kernel.hidden);
        let products = self.scratch(DType::F32, &[directions, steps, batch, wide])?;
        if steps * batch == 0 {
            return Ok(products);
        }
        // Steps and rows of the batch are the rows of one product where they lie that way; else the longer axis is.
        let merged = |rows: &Operand, outer: usize| {
            let (extent, stride) = (rows.shape[outer + 1], rows.strides[outer + 1]);
            (extent == 1 || rows.strides[outer] == extent as isize * stride).then(|| {
                let step = if extent == 1 { rows.strides[outer] } else { stride };
                let mut merged = rows.clone();
                merged.shape.splice(outer..outer + 2, [rows.shape[outer] * extent]);
                merged.strides.splice(outer..outer + 2, [step]);
                merged
            })
        };
        let product = match (merged(&x, 0), merged(&products, 1)) {
            (Some(a), Some(c)) => Product { alpha: 1.0, a: stacked(&a, directions), b: w, c, epilogue: None },
            _ => {
                let mut a = stacked(&x, directions);
                let (mut b, mut c) = (stacked(&w, steps), products.clone());
                b.shape.swap(0, 1);
                b.strides.swap(0, 1);
                if batch < steps {
                    b.shape[1] = batch;
                    [&mut a, &mut c].into_iter().for_each(|operand| {
                        operand.shape.swap(1, 2);
                        operand.strides.swap(1, 2);
                    });
                }
                Product { alpha: 1.0, a, b, c, epilogue: None }
            }
        };
        self.multiply(product)?;
        Ok(products)
    }

    /// The operand, or none if it is not there or 0 throughout.
    fn unless_zero(&mut self, binding: &mut Binding, view: Option<&View>) -> Result<entry::Operand> {
        let Some(view) = view else { return Ok(entry::Operand::none()) };
        if self.plan.constant(view).is_some_and(|tensor| tensor.data().iter().all(|&byte| byte == 0)) {
            return Ok(entry::Operand::none());
        }
        let operand = self.operand(view)?;
        binding.strided(&operand)
    }

    /// The lengths, or none if all are those of the sequence.
    fn unless_whole(&mut self, binding: &mut Binding, view: &View, steps: usize) -> Result<entry::Operand> {
        let whole = |&length: &i64| usize::try_from(length).is_ok_and(|length| length >= steps);
        if self.plan.constant(view).is_some_and(|tensor| tensor.to_i64s().iter().all(whole)) {
            return Ok(entry::Operand::none());
        }
        let operand = self.operand(view)?;
        binding.strided(&operand)
    }

    fn result(&mut self, binding: &mut Binding, view: Option<&View>) -> Result<entry::Operand> {
        let Some(view) = view else { return Ok(entry::Operand::none()) };
        let operand = self.operand(view)?;
        binding.strided(&operand)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, check, check_constants, check_views, launches};
    use super::*;
    use crate::ir::Tensor;
    use crate::kernels::{Activation, Direction};

    const HARD: Activation = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };

    fn kernel(cell: Cell, direction: Direction, hidden: usize, clip: Option<f32>) -> Recurrent {
        let functions = [if clip.is_some() { HARD } else { Activation::Sigmoid }, Activation::Tanh, Activation::Relu];
        let activations = functions[..cell.functions()].repeat(direction.count());
        Recurrent { cell, direction, hidden, activations, clip }
    }

    fn inputs(random: &mut Random, kernel: &Recurrent, [steps, batch, size]: [usize; 3], dtype: DType) -> Vec<Tensor> {
        let (directions, hidden) = (kernel.direction.count(), kernel.hidden);
        let rows = kernel.cell.gates() * hidden;
        let lengths: Vec<i32> = (0..batch).map(|row| [steps, steps / 2, 0][row % 3] as i32).collect();
        let mut float = |shape: &[usize]| random.tensor(dtype, shape, 0);
        let mut operands = vec![
            float(&[steps, batch, size]),
            float(&[directions, rows, size]),
            float(&[directions, rows, hidden]),
            float(&[directions, 2 * rows]),
            Tensor::from_slice(&[batch], &lengths),
            float(&[directions, batch, hidden]),
        ];
        if matches!(kernel.cell, Cell::Lstm { .. }) {
            operands.extend([float(&[directions, batch, hidden]), float(&[directions, 3 * hidden])]);
        }
        operands
    }

    const CELLS: [Cell; 4] = [
        Cell::Lstm { input_forget: false },
        Cell::Lstm { input_forget: true },
        Cell::Gru { linear_before_reset: false },
        Cell::Gru { linear_before_reset: true },
    ];

    #[test]
    fn cells_follow_their_definition() {
        let mut random = Random::new(1);
        for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
            for cell in CELLS {
                for (clip, shape) in [(None, [5, 3, 7]), (Some(1.5), [1, 1, 3])] {
                    let kernel = kernel(cell, direction, 5, clip);
                    let operands = inputs(&mut random, &kernel, shape, DType::F32);
                    check(kernel.clone(), &operands, 1e-4);
                    check_constants(kernel, &operands, &[1, 2, 3, 4, 5, 7], 1e-4, |_, view| view);
                }
            }
        }
    }

    #[test]
    fn the_batch_may_come_first_and_constants_may_be_zero() {
        let mut random = Random::new(2);
        for shape in [[4, 2, 3], [2, 4, 3], [3, 1, 3], [1, 3, 3]] {
            let kernel = kernel(CELLS[0], Direction::Bidirectional, 4, None);
            let mut operands = inputs(&mut random, &kernel, shape, DType::F32);
            operands[0] = random.floats(&[shape[1], shape[0], shape[2]]);
            for index in [3, 5, 6, 7] {
                operands[index] = Tensor::from_slice(operands[index].shape(), &vec![0f32; operands[index].count()]);
            }
            let swap = |index, view: View| if index == 0 { view.swap(0, 1) } else { view };
            check_constants(kernel.clone(), &operands, &[1, 2, 3, 5, 6, 7], 1e-4, swap);
            check_views(kernel, &operands, 1e-4, swap);
        }
    }

    #[test]
    fn large_weights_take_a_launch_a_step() {
        let mut random = Random::new(3);
        for (cell, expected) in
            [(CELLS[0], "recurrent_step"), (CELLS[2], "recurrent_scan"), (CELLS[3], "recurrent_step")]
        {
            let kernel = kernel(cell, Direction::Forward, 150, None);
            let operands = inputs(&mut random, &kernel, [3, 2, 4], DType::F32);
            let names = launches(kernel.clone(), &operands);
            assert_eq!(names.last().copied(), Some(expected));
            assert_eq!(names.len(), if expected == "recurrent_step" { 4 } else { 2 });
            check(kernel, &operands, 2e-3);
        }
    }

    #[test]
    fn a_sequence_may_be_empty_and_a_length_wild() {
        let mut random = Random::new(4);
        for cell in CELLS {
            let kernel = kernel(cell, Direction::Bidirectional, 3, None);
            let operands = inputs(&mut random, &kernel, [0, 2, 3], DType::F32);
            check(kernel, &operands, 0.0);
        }
        assert!(!is_stepwise(CELLS[0], STEPS_MAX + 1, 1 << 30) && is_stepwise(CELLS[0], STEPS_MAX, 1 << 30));
    }

    #[test]
    fn sixteen_bit_models_keep_their_state_in_binary32() {
        let mut random = Random::new(5);
        for dtype in [DType::F16, DType::BF16] {
            let kernel = kernel(CELLS[0], Direction::Reverse, 4, None);
            let operands = inputs(&mut random, &kernel, [4, 2, 3], dtype);
            check(kernel, &operands, 2e-2);
        }
    }
}
