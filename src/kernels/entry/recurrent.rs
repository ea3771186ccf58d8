//! The recurrence of LSTM and GRU; the products of input and weights are made before, as one matrix product.

use super::layout::{Address, Field, arguments};
use super::memory::{Memory, read, write};
use super::operand::{Geometry, Operand, occupied, small};
use crate::error::{Result, ensure, fail};
use crate::ir::Tensor;
use crate::kernels::recurrent::Unit;
use crate::kernels::{Activation, Cell, Direction, Recurrent};

/// Gate functions of one direction, as arguments hold them; a GRU uses two.
const FUNCTIONS: usize = 3;
/// Most dynamic shared memory of a block of `recurrent_scan`.
pub(super) const SHARED_BYTES_MAX: usize = 64 << 10;
/// Most threads of a block of `recurrent_scan`.
const SCAN_THREADS_MAX: usize = 512;
/// Threads of a block of `recurrent_step`.
const STEP_THREADS: u32 = 256;
/// Hidden units of a block of `recurrent_step`.
const STEP_UNITS: usize = 8;
/// Rows of the batch that share a block, if there is more than one.
const ROWS: usize = 8;

arguments! {
    /// A gate's function.
    pub struct GateFunction {
        /// 0 sigmoid, 1 hyperbolic tangent, 2 `max(x, 0)`, 3 `clamp(alpha x + beta, 0, 1)`.
        pub kind: u32,
        /// Slope.
        pub alpha: f32,
        /// Offset.
        pub beta: f32,
    }
}

arguments! {
    /// Steps `first .. first + count` of every row of a sequence, T steps, batch B, hidden size H, D directions, G gates; see [`Recurrent`].
    ///
    /// Entry `recurrent_scan` takes any number of steps: a block has one direction of some rows, and keeps their state. Entry
    /// `recurrent_step` takes one step: many blocks share the units of a row, so that it has no cell whose reset gate acts before the
    /// product. Operands that are absent are 0; lengths that are absent are T, others are cut to `0..=T`.
    pub struct RecurrentArguments {
        /// 0 LSTM, 1 LSTM whose forget gate is `1 - i`, 2 GRU, 3 GRU whose reset gate acts after the product.
        pub cell: u32,
        /// H.
        pub hidden: u32,
        /// T.
        pub steps: u32,
        /// B.
        pub batch: u32,
        /// D.
        pub directions: u32,
        /// Bit d: direction d runs from a row's last step to its first.
        pub reverse: u32,
        /// The first step.
        pub first: u32,
        /// How many steps.
        pub count: u32,
        /// Rows of the batch that share a block: 1 or 8.
        pub rows: u32,
        /// Bound on the gate inputs' magnitude, or infinity.
        pub clip: f32,
        /// Of each direction, the gates' functions.
        pub functions: [GateFunction; 2 * FUNCTIONS],
        /// W x, `[D, T, B, G H]`, binary32.
        pub products: Operand,
        /// R with the terms of a sum first, `[D, H, G H]`, binary32.
        pub weights: Operand,
        /// Biases of input and recurrence, `[D, 2 G H]`.
        pub bias: Operand,
        /// Lengths, `[B]`.
        pub lengths: Operand,
        /// Peepholes, `[D, 3 H]`.
        pub peepholes: Operand,
        /// h before the first step, `[D, B, H]`.
        pub h: Operand,
        /// c before the first step, `[D, B, H]`.
        pub c: Operand,
        /// Results, `[T, D, B, H]`.
        pub y: Operand,
        /// h after the last step, `[D, B, H]`; other memory than that of `h`.
        pub last_h: Operand,
        /// c after the last step, `[D, B, H]`.
        pub last_c: Operand,
        /// Room for the state of every block of `recurrent_scan`, if it does not fit into shared memory.
        pub work: Address,
    }
}

/// What a recurrence reads and writes; an operand that is absent is 0.
#[derive(Clone, Copy, Debug)]
pub struct RecurrentOperands {
    /// See [`RecurrentArguments::products`].
    pub products: Operand,
    /// See [`RecurrentArguments::weights`].
    pub weights: Operand,
    /// See [`RecurrentArguments::bias`].
    pub bias: Operand,
    /// See [`RecurrentArguments::lengths`].
    pub lengths: Operand,
    /// See [`RecurrentArguments::peepholes`].
    pub peepholes: Operand,
    /// See [`RecurrentArguments::y`].
    pub y: Operand,
}

impl RecurrentArguments {
    /// All steps of a sequence; the caller sets the states.
    pub fn new(kernel: &Recurrent, steps: usize, batch: usize, operands: RecurrentOperands) -> Result<Self> {
        let directions = kernel.direction.count();
        let wide = kernel.cell.gates() * kernel.hidden;
        small(steps.max(1).saturating_mul(batch).saturating_mul(directions * wide))?;
        small(directions.saturating_mul(wide).saturating_mul(kernel.hidden))?;
        let RecurrentOperands { products, weights, bias, lengths, peepholes, y } = operands;
        let none = Operand::none();
        let reverse =
            (0..directions).filter(|&index| kernel.direction.is_reverse(index)).fold(0, |all, d| all | 1 << d);
        Ok(RecurrentArguments {
            cell: cell_code(kernel.cell),
            hidden: small(kernel.hidden)?,
            steps: small(steps)?,
            batch: small(batch)?,
            directions: directions as u32,
            reverse,
            first: 0,
            count: small(steps)?,
            rows: if batch == 1 { 1 } else { ROWS as u32 },
            clip: kernel.clip.unwrap_or(f32::INFINITY),
            functions: functions(kernel),
            products,
            weights,
            bias,
            lengths,
            peepholes,
            h: none,
            c: none,
            y,
            last_h: none,
            last_c: none,
            work: Address::NONE,
        })
    }

    fn wide(&self) -> usize {
        gates(self.cell) * self.hidden as usize
    }

    /// Bytes of the state of one block of `recurrent_scan`: h, c, reset h, each with its rows filled up to a multiple of four, and the
    /// gates' sums.
    fn state_bytes(&self) -> usize {
        let pitch = (self.hidden as usize).next_multiple_of(4);
        (self.rows as usize * (3 * pitch + self.wide()) * 4).next_multiple_of(16)
    }

    fn groups(&self) -> usize {
        self.directions as usize * (self.batch as usize).div_ceil(self.rows as usize)
    }

    /// Chooses how many rows share a block of `recurrent_scan` on a GPU with so many multiprocessors, and gives the bytes that
    /// [`RecurrentArguments::work`] needs, if any.
    pub fn share(&mut self, multiprocessors: usize) -> usize {
        self.rows = ROWS as u32;
        let few = self.batch as usize * self.directions as usize <= multiprocessors;
        if few || self.state_bytes() > SHARED_BYTES_MAX {
            self.rows = 1;
        }
        if self.state_bytes() > SHARED_BYTES_MAX { self.groups() * self.state_bytes() } else { 0 }
    }

    /// Blocks and threads of `recurrent_scan`.
    pub fn scan_launch(&self) -> Geometry {
        let threads = self.wide().next_multiple_of(32).min(SCAN_THREADS_MAX);
        let shared_bytes = if self.work.is_none() { self.state_bytes() as u32 } else { 0 };
        Geometry { shared_bytes, ..Geometry::line(self.groups(), threads as u32) }
    }

    /// Blocks and threads of `recurrent_step`.
    pub fn step_launch(&self) -> Geometry {
        Geometry::line(self.groups() * (self.hidden as usize).div_ceil(STEP_UNITS), STEP_THREADS)
    }

    /// The kernel that these arguments are of.
    fn kernel(&self) -> Result<Recurrent> {
        let cell = match self.cell {
            0 | 1 => Cell::Lstm { input_forget: self.cell == 1 },
            2 | 3 => Cell::Gru { linear_before_reset: self.cell == 3 },
            other => return Err(fail!(Internal, "there is no cell {other}")),
        };
        let direction = match (self.directions, self.reverse) {
            (1, 0) => Direction::Forward,
            (1, 1) => Direction::Reverse,
            (2, 2) => Direction::Bidirectional,
            other => return Err(fail!(Internal, "there are no directions {other:?}")),
        };
        let used = |direction: usize| self.functions[direction * FUNCTIONS..][..cell.functions()].iter();
        let activations = (0..direction.count()).flat_map(used).map(activation).collect::<Result<Vec<_>>>()?;
        let clip = self.clip.is_finite().then_some(self.clip);
        Ok(Recurrent { cell, direction, hidden: self.hidden as usize, activations, clip })
    }
}

fn cell_code(cell: Cell) -> u32 {
    match cell {
        Cell::Lstm { input_forget } => input_forget.into(),
        Cell::Gru { linear_before_reset } => 2 + u32::from(linear_before_reset),
    }
}

fn gates(cell: u32) -> usize {
    if cell < 2 { 4 } else { 3 }
}

fn functions(kernel: &Recurrent) -> [GateFunction; 2 * FUNCTIONS] {
    let mut functions = [GateFunction { kind: 0, alpha: 0.0, beta: 0.0 }; 2 * FUNCTIONS];
    let each = kernel.cell.functions();
    for (index, activation) in kernel.activations.iter().enumerate() {
        functions[index / each * FUNCTIONS + index % each] = match *activation {
            Activation::Sigmoid => GateFunction { kind: 0, alpha: 0.0, beta: 0.0 },
            Activation::Tanh => GateFunction { kind: 1, alpha: 0.0, beta: 0.0 },
            Activation::Relu => GateFunction { kind: 2, alpha: 0.0, beta: 0.0 },
            Activation::HardSigmoid { alpha, beta } => GateFunction { kind: 3, alpha, beta },
        };
    }
    functions
}

fn activation(function: &GateFunction) -> Result<Activation> {
    Ok(match function.kind {
        0 => Activation::Sigmoid,
        1 => Activation::Tanh,
        2 => Activation::Relu,
        3 => Activation::HardSigmoid { alpha: function.alpha, beta: function.beta },
        other => return Err(fail!(Internal, "there is no gate function {other}")),
    })
}

/// An operand's elements, or zeros.
fn values(memory: &dyn Memory, operand: &Operand, shape: &[usize]) -> Result<Vec<f64>> {
    if operand.address.is_none() {
        return Ok(vec![0.0; shape.iter().product()]);
    }
    Ok(read(memory, operand, shape, &operand.steps(shape.len()))?.to_f64s())
}

/// The same for every launch: the state is read, moved on and written.
pub(super) fn recurrent_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = RecurrentArguments::get(bytes);
    occupied(&[arguments.hidden, arguments.batch, arguments.directions])?;
    let kernel = arguments.kernel()?;
    let [hidden, steps, batch, directions] =
        [arguments.hidden, arguments.steps, arguments.batch, arguments.directions].map(|extent| extent as usize);
    let wide = arguments.wide();
    for (before, after) in [(&arguments.h, &arguments.last_h), (&arguments.c, &arguments.last_c)] {
        let apart = before.address.is_none() || before.address != after.address;
        ensure!(apart, Internal, "a state replaces itself while it is read");
    }
    let products = values(memory, &arguments.products, &[directions, steps, batch, wide])?;
    // As the definition has them: sums first.
    let transposed = values(memory, &arguments.weights, &[directions, hidden, wide])?;
    let place = |index: usize| (index / (wide * hidden) * hidden + index % hidden) * wide + index / hidden % wide;
    let weights: Vec<f64> = (0..transposed.len()).map(|index| transposed[place(index)]).collect();
    let bias = values(memory, &arguments.bias, &[directions, 2 * wide])?;
    let peepholes = values(memory, &arguments.peepholes, &[directions, 3 * hidden])?;
    let lengths = match arguments.lengths.address.is_none() {
        true => vec![steps as f64; batch],
        false => values(memory, &arguments.lengths, &[batch])?,
    };
    let state = [directions, batch, hidden];
    let (mut h, mut c) = (values(memory, &arguments.h, &state)?, values(memory, &arguments.c, &state)?);
    for line in 0..directions * batch {
        let (direction, row) = (line / batch, line % batch);
        let unit = Unit::new(&kernel, &weights, &bias, &peepholes, direction);
        let length = lengths[row].clamp(0.0, steps as f64) as usize;
        let range = line * hidden..(line + 1) * hidden;
        for step in arguments.first as usize..(arguments.first + arguments.count) as usize {
            let mut result = vec![0f32; hidden];
            let mut time = step;
            if step < length {
                time = if kernel.direction.is_reverse(direction) { length - 1 - step } else { step };
                let products = &products[((direction * steps + time) * batch + row) * wide..][..wide];
                unit.advance(products, &mut h[range.clone()], &mut c[range.clone()]);
                result = h[range.clone()].iter().map(|&value| value as f32).collect();
            }
            let y = &arguments.y;
            let elements: i64 = [time, direction, row]
                .into_iter()
                .zip(y.strides)
                .map(|(at, stride)| at as i64 * i64::from(stride))
                .sum();
            let bytes = elements * super::operand::dtype(y.dtype)?.bytes() as i64;
            let at = Operand { address: Address(y.address.0.wrapping_add_signed(bytes)), ..*y };
            write(memory, &at, &[y.strides[3] as isize], Tensor::from_slice(&[hidden], &result))?;
        }
    }
    for (operand, values) in [(&arguments.last_h, h), (&arguments.last_c, c)] {
        if !operand.address.is_none() {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            write(memory, operand, &operand.steps(3), Tensor::from_slice(&state, &values))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::ir::DType;
    use crate::kernels::Family;
    use crate::kernels::evaluation::{close, eighths};

    fn lstm(hidden: usize) -> Recurrent {
        let activations =
            [Activation::Sigmoid, Activation::Tanh, Activation::HardSigmoid { alpha: 0.25, beta: 0.5 }].repeat(2);
        let cell = Cell::Lstm { input_forget: false };
        Recurrent { cell, direction: Direction::Bidirectional, hidden, activations, clip: Some(2.0) }
    }

    fn dense(address: Address, dtype: DType, shape: &[usize]) -> Operand {
        let strides: Vec<isize> =
            crate::kernels::walk::row_major(shape).into_iter().map(|stride| stride as isize).collect();
        Operand::new(address, dtype, &strides).unwrap()
    }

    #[test]
    fn steps_one_by_one_give_what_all_of_them_give() {
        // With I = G H and W the unit matrix the input is its own product.
        let (kernel, steps, batch, hidden) = (lstm(3), 4, 2, 3);
        let mut unit = vec![0f32; 2 * 12 * 12];
        (0..24).for_each(|row| unit[row * 12 + row % 12] = 1.0);
        let x = eighths(&[steps, batch, 12], 1);
        let inputs = [
            x.clone(),
            Tensor::from_slice(&[2, 12, 12], &unit),
            eighths(&[2, 12, hidden], 2),
            eighths(&[2, 24], 3),
            Tensor::from_slice(&[batch], &[4i32, 2]),
            eighths(&[2, batch, hidden], 4),
            eighths(&[2, batch, hidden], 5),
            eighths(&[2, 9], 6),
        ];
        let expected = kernel.reference(&inputs).unwrap();
        for launches in [1usize, 4] {
            let mut heap = Heap::default();
            let mut put = |tensor: &Tensor| dense(heap.put(tensor), tensor.dtype(), tensor.shape());
            let mut products = put(&x);
            products.strides = Operand::none().strides;
            products.strides[1..4].copy_from_slice(&[batch as i32 * 12, 12, 1]);
            let mut weights = put(&inputs[2]);
            weights.strides[..3].copy_from_slice(&[36, 1, 3]);
            let (bias, lengths, peepholes) = (put(&inputs[3]), put(&inputs[4]), put(&inputs[7]));
            let (h, c) = (put(&inputs[5]), put(&inputs[6]));
            let y = dense(heap.room(192), DType::F32, &[steps, 2, batch, hidden]);
            let operands = RecurrentOperands { products, weights, bias, lengths, peepholes, y };
            let mut arguments = RecurrentArguments::new(&kernel, steps, batch, operands).unwrap();
            (arguments.h, arguments.c) = (h, c);
            arguments.count = (steps / launches) as u32;
            for launch in 0..launches {
                arguments.first = launch as u32 * arguments.count;
                let mut state = || dense(heap.room(48), DType::F32, &[2, batch, hidden]);
                (arguments.last_h, arguments.last_c) = (state(), state());
                recurrent_twin(&arguments.encode(), &mut heap).unwrap();
                (arguments.h, arguments.c) = (arguments.last_h, arguments.last_c);
            }
            for (operand, expected) in [y, arguments.h, arguments.c].iter().zip(&expected) {
                let got = heap.tensor(operand.address, DType::F32, expected.shape());
                assert!(close(&got.to_f64s(), &expected.to_f64s(), 1e-6), "{launches} launches");
            }
        }
    }

    #[test]
    fn launches_fit_the_sizes() {
        let arguments = |hidden: usize, batch: usize| {
            let none = Operand::none();
            let operands = RecurrentOperands {
                products: none,
                weights: none,
                bias: none,
                lengths: none,
                peepholes: none,
                y: none,
            };
            RecurrentArguments::new(&lstm(hidden), 7, batch, operands).unwrap()
        };
        let mut few = arguments(128, 3);
        assert_eq!((few.share(132), few.rows), (0, 1), "every multiprocessor has a row at most");
        let scan = few.scan_launch();
        assert_eq!((scan.grid[0], scan.block, scan.shared_bytes), (6, 512, (3 * 128 + 512) * 4));
        let mut many = arguments(10, 100);
        assert_eq!((many.share(132), many.rows), (0, 8));
        assert_eq!((many.scan_launch().grid[0], many.scan_launch().block), (26, 64));
        let mut wide = arguments(4000, 2);
        assert_eq!((wide.share(132), wide.rows), (4 * 7 * 4000 * 4, 1), "the state lies in global memory");
        wide.work = Address(1);
        assert_eq!(wide.scan_launch().shared_bytes, 0);
        assert_eq!(arguments(512, 9).step_launch(), Geometry::line(2 * 2 * 64, 256));
    }
}
