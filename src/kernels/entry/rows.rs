//! Entries that work on rows: normalisation, softmax, reductions.

use super::chain::Chain;
use super::layout::{Address, Field, arguments};
use super::matmul::partial_sums;
use super::memory::{Memory, converted, read, read_wide, write};
use super::operand::{Geometry, Operand, Space, dtype, occupied};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{Family, Norm, NormKind, Reduce, ReduceOp, Softmax};

/// Elements of a row that a block keeps in shared memory.
const CACHED: usize = 12 << 10;
/// Warps of a block of `normalize_warps`, and the most elements of a row that a warp holds.
const WARPS: usize = 4;
const WARP_ROW_MAX: u32 = 1024;

arguments! {
    /// Normalisation of rows. Entries `normalize`, a block a row, and `normalize_warps`, a warp a row.
    ///
    /// The trailing axes of the space that make up a row have `extent` elements together. With `splits` the rows are the sums of partial
    /// results of a product `[splits, rows, extent]`, scaled, with a chain applied; then rows have at most [`NormArguments::PROLOGUE_MAX`]
    /// elements.
    pub struct NormArguments {
        /// Indices of X and of the result.
        pub space: Space,
        /// Elements of a row.
        pub extent: u32,
        /// Trailing axes that make up a row.
        pub axes: u32,
        /// Whether the mean is removed first.
        pub centered: u32,
        /// Added to the variance or mean square.
        pub epsilon: f32,
        /// Parts of the sums that make X, or 0 if X is an operand.
        pub splits: u32,
        /// Factor of the sums.
        pub alpha: f32,
        /// The parts.
        pub partials: Address,
        /// X.
        pub input: Operand,
        /// Where X goes besides, if it has an address.
        pub sum: Operand,
        /// Scale.
        pub scale: Operand,
        /// Shift; none if it has no address.
        pub bias: Operand,
        /// Result.
        pub output: Operand,
        /// Applied to the scaled sums.
        pub chain: Chain,
    }
}

arguments! {
    /// Softmax along the last axis. Entries `softmax_warp`, for rows of at most [`SoftmaxArguments::WARP_MAX`] elements, and
    /// `softmax_block`.
    pub struct SoftmaxArguments {
        /// Indices of operand and result.
        pub space: Space,
        /// Elements of a row.
        pub extent: u32,
        /// Whether the logarithm is delivered.
        pub log: u32,
        /// Whether a row that is -inf throughout gives zeros.
        pub guard: u32,
        /// Operand.
        pub input: Operand,
        /// Result.
        pub output: Operand,
    }
}

arguments! {
    /// Reduction of the trailing axes. Entries `reduce_threads` (a thread a result), `reduce_columns` (eight
    /// threads a result, for results side by side), `reduce_warps` and `reduce_blocks`.
    pub struct ReduceArguments {
        /// Axes kept, then the axes reduced.
        pub space: Space,
        /// Axes kept.
        pub kept: u32,
        /// Product of the extents reduced.
        pub extent: u32,
        /// Number of the operation, in the order of [`ReduceOp`]'s variants.
        pub op: u32,
        /// Whether the last of equal extremes wins.
        pub last: u32,
        /// Operand.
        pub input: Operand,
        /// Result; its strides are those of the kept axes.
        pub output: Operand,
    }
}

impl NormArguments {
    /// Elements of a row whose sums are taken here.
    pub const PROLOGUE_MAX: usize = CACHED;

    /// The normalisation of an operand; the caller adds sums and chain.
    pub fn new(
        norm: &Norm,
        shape: &[usize],
        input: Operand,
        scale: Operand,
        bias: Operand,
        output: Operand,
    ) -> Result<Self> {
        let space = Space::new(shape)?;
        let axes = norm.axes.min(shape.len());
        let extent = Space::new(&shape[shape.len() - axes..])?.count;
        Ok(NormArguments {
            space,
            extent,
            axes: axes as u32,
            centered: (norm.kind == NormKind::Layer).into(),
            epsilon: norm.epsilon,
            splits: 0,
            alpha: 1.0,
            partials: Address::NONE,
            input,
            sum: Operand::none(),
            scale,
            bias,
            output,
            chain: Chain::empty(),
        })
    }

    /// The entry, and its blocks and threads: a warp a row where all rows of all operands are short and whole groups of four, else a
    /// block a row, four elements a thread and turn. The operands' addresses are multiples of `alignment` bytes.
    pub fn launch(&self, alignment: usize) -> (&'static str, Geometry) {
        let rows = rows(&self.space, self.extent);
        if self.is_grouped(alignment) {
            return ("normalize_warps", Geometry::line(rows.div_ceil(WARPS), 32 * WARPS as u32));
        }
        let cached = self.extent as usize <= CACHED;
        let shared_bytes = if cached { self.extent * 4 } else { 0 };
        let threads = self.extent.div_ceil(4).next_multiple_of(32).clamp(64, 512);
        ("normalize", Geometry { shared_bytes, ..Geometry::line(rows, threads) })
    }

    /// Whether every row of every operand is whole groups of four elements that can be read together.
    fn is_grouped(&self, alignment: usize) -> bool {
        let outer = (self.space.rank as usize).saturating_sub(1);
        let grouped = |operand: &Operand| {
            let (steps, step) = (&operand.strides[..outer], operand.strides[outer]);
            let is_float = dtype(operand.dtype).is_ok_and(DType::is_float);
            operand.address.is_none() || is_float && step == 1 && steps.iter().all(|step| step % 4 == 0)
        };
        let operands = [&self.input, &self.sum, &self.scale, &self.bias, &self.output];
        self.axes == 1
            && self.extent.is_multiple_of(4)
            && self.extent <= WARP_ROW_MAX
            && alignment.is_multiple_of(16)
            && operands.into_iter().chain(&self.chain.operands).all(grouped)
    }
}

fn rows(space: &Space, extent: u32) -> usize {
    (space.count / extent.max(1)) as usize
}

impl SoftmaxArguments {
    /// Elements of a row that one warp takes.
    pub const WARP_MAX: usize = 1024;

    /// The softmax along the last axis of `shape`.
    pub fn new(softmax: &Softmax, guard: bool, shape: &[usize], input: Operand, output: Operand) -> Result<Self> {
        let last = shape.last().ok_or_else(|| fail!(ShapeMismatch, "a softmax of a scalar"))?;
        let (space, extent) = (Space::new(shape)?, super::operand::small(*last)?);
        Ok(SoftmaxArguments { space, extent, log: softmax.log.into(), guard: guard.into(), input, output })
    }

    /// The entry, by the length of the rows.
    pub fn entry(&self) -> &'static str {
        if self.extent as usize <= Self::WARP_MAX { "softmax_warp" } else { "softmax_block" }
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        let rows = rows(&self.space, self.extent);
        if self.extent as usize <= Self::WARP_MAX {
            return Geometry::line(rows.div_ceil(4), 128);
        }
        let shared_bytes = if self.extent as usize <= CACHED { self.extent * 4 } else { 0 };
        Geometry { shared_bytes, ..Geometry::line(rows, 512) }
    }
}

/// The operations in the order of their numbers.
const REDUCTIONS: [ReduceOp; 8] = [
    ReduceOp::Sum,
    ReduceOp::Mean,
    ReduceOp::Max,
    ReduceOp::Min,
    ReduceOp::Prod,
    ReduceOp::L2,
    ReduceOp::ArgMax { last: false },
    ReduceOp::ArgMin { last: false },
];

impl ReduceArguments {
    /// The reduction of an operand, whose `kept` leading axes stay. Lowering brings the axes into this order.
    pub fn new(op: ReduceOp, shape: &[usize], kept: usize, input: Operand, output: Operand) -> Result<Self> {
        let (op, last) = match op {
            ReduceOp::ArgMax { last } => (6, last),
            ReduceOp::ArgMin { last } => (7, last),
            op => (REDUCTIONS.iter().position(|&known| known == op).unwrap_or(0) as u32, false),
        };
        // The space itself may be empty, but not its results.
        let extent = Space::new(&shape[kept..])?.count;
        Space::new(&shape[..kept])?;
        let space = Space::new(shape)?;
        Ok(ReduceArguments { space, kept: kept as u32, extent, op, last: last.into(), input, output })
    }

    fn results(&self) -> usize {
        self.space.extents[..self.kept as usize].iter().map(|&extent| extent as usize).product()
    }

    /// The entry: neighbouring threads should read neighbouring elements, and long sums should be shared.
    pub fn entry(&self) -> &'static str {
        let rank = self.space.rank as usize;
        let kept = self.kept as usize;
        let kept_runs =
            kept > 0 && self.space.extents[kept - 1] > 1 && self.input.strides[kept - 1].unsigned_abs() == 1;
        let reduced_runs = rank > kept && self.input.strides[rank - 1].unsigned_abs() == 1;
        if self.extent <= 8 {
            "reduce_threads"
        } else if kept_runs && !reduced_runs && (self.extent <= 2048 || self.results() >= 1024) {
            "reduce_columns"
        } else if self.extent <= 2048 {
            "reduce_warps"
        } else {
            "reduce_blocks"
        }
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        match self.entry() {
            "reduce_threads" => Geometry::line(self.results().div_ceil(128), 128),
            "reduce_columns" => Geometry::line(self.results().div_ceil(32), 256),
            "reduce_warps" => Geometry::line(self.results().div_ceil(4), 128),
            _ => Geometry::line(self.results(), 512),
        }
    }
}

pub(super) fn norm_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = NormArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let (shape, rank) = (arguments.space.shape(), arguments.space.rank as usize);
    let steps = |operand: &Operand| operand.steps(rank);
    let input = if arguments.splits == 0 {
        read_wide(memory, &arguments.input, &shape, &steps(&arguments.input))?
    } else {
        ensure!(arguments.extent as usize <= CACHED, Internal, "rows of {} elements are summed", arguments.extent);
        let sums = partial_sums(memory, arguments.partials, arguments.splits, arguments.space.count as usize)?;
        let scaled: Vec<f32> = sums.iter().map(|sum| sum * arguments.alpha).collect();
        arguments.chain.apply(memory, Tensor::from_slice(&shape, &scaled), DType::F32, steps)?
    };
    if !arguments.sum.address.is_none() {
        write(memory, &arguments.sum, &steps(&arguments.sum), input.clone())?;
    }
    let scale = read_wide(memory, &arguments.scale, &shape, &steps(&arguments.scale))?;
    let bias = if arguments.bias.address.is_none() {
        Tensor::from_slice(&shape, &vec![0f32; input.count()])
    } else {
        read_wide(memory, &arguments.bias, &shape, &steps(&arguments.bias))?
    };
    let kind = if arguments.centered == 0 { NormKind::Rms } else { NormKind::Layer };
    let norm = Norm { kind, axes: arguments.axes as usize, epsilon: arguments.epsilon };
    let operands = [input, scale, bias];
    norm.infer(&operands.each_ref().map(Tensor::ty))?;
    let result = norm.reference(&operands)?.swap_remove(0);
    write(memory, &arguments.output, &steps(&arguments.output), result)
}

pub(super) fn softmax_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = SoftmaxArguments::get(bytes);
    occupied(&[arguments.space.count])?;
    let (shape, rank) = (arguments.space.shape(), arguments.space.rank as usize);
    let input = read_wide(memory, &arguments.input, &shape, &arguments.input.steps(rank))?;
    let result = Softmax { log: arguments.log != 0 }.reference(std::slice::from_ref(&input))?.swap_remove(0);
    let (scores, mut values) = (input.to_f64s(), result.to_f64s());
    let extent = (arguments.extent as usize).max(1);
    for (scores, values) in scores.chunks_exact(extent).zip(values.chunks_exact_mut(extent)) {
        if arguments.guard != 0 && scores.iter().all(|&score| score == f64::NEG_INFINITY) {
            values.fill(0.0);
        }
    }
    let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    write(memory, &arguments.output, &arguments.output.steps(rank), Tensor::from_slice(&shape, &values))
}

pub(super) fn reduce_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = ReduceArguments::get(bytes);
    occupied(&arguments.space.extents[..arguments.kept as usize])?;
    let (shape, rank, kept) = (arguments.space.shape(), arguments.space.rank as usize, arguments.kept as usize);
    let mut input = read(memory, &arguments.input, &shape, &arguments.input.steps(rank))?;
    if input.dtype().is_float() {
        input = converted(input, DType::F32)?;
    }
    let op = REDUCTIONS.get(arguments.op as usize).copied();
    let op = op.ok_or_else(|| fail!(Internal, "there is no reduction {}", arguments.op))?;
    let last = arguments.last != 0;
    let op = match op {
        ReduceOp::ArgMax { .. } => ReduceOp::ArgMax { last },
        ReduceOp::ArgMin { .. } => ReduceOp::ArgMin { last },
        op => op,
    };
    let reduce = Reduce { op, axes: (kept..rank).collect() };
    reduce.infer(&[input.ty()])?;
    let result = reduce.reference(&[input])?.swap_remove(0);
    ensure!(
        result.dtype().is_float() == dtype(arguments.output.dtype)?.is_float(),
        Internal,
        "a reduction to {} is stored as another kind",
        result.dtype()
    );
    write(memory, &arguments.output, &arguments.output.steps(kept), result)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Arguments;
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::kernels::evaluation::{close, eighths, floats};

    fn operand(address: Address, dtype: DType, strides: &[isize]) -> Operand {
        Operand::new(address, dtype, strides).unwrap()
    }

    #[test]
    fn rows_of_split_sums_are_normalised() {
        let mut heap = Heap::default();
        let (partials, scale, residual) = (eighths(&[3, 4, 6], 1), eighths(&[6], 2), eighths(&[4, 6], 3));
        let norm = Norm { kind: NormKind::Layer, axes: 1, epsilon: 1e-5 };
        let output = operand(heap.room(96), DType::F32, &[6, 1]);
        let scale_operand = operand(heap.put(&scale), DType::F32, &[0, 1]);
        let mut arguments =
            NormArguments::new(&norm, &[4, 6], Operand::none(), scale_operand, Operand::none(), output).unwrap();
        (arguments.splits, arguments.partials) = (3, heap.put(&partials));
        arguments.sum = operand(heap.room(96), DType::F32, &[6, 1]);
        let add = crate::kernels::Map::binary(crate::kernels::Binary::Add, DType::F32);
        let residual_operand = operand(heap.put(&residual), DType::F32, &[6, 1]);
        arguments.chain = Chain::of(&add, 0).unwrap().0.with(0, residual_operand);
        norm_twin(&arguments.encode(), &mut heap).unwrap();
        let (parts, residual) = (partials.to_f64s(), residual.to_f64s());
        let sums: Vec<f32> =
            (0..24).map(|at| (parts[at] + parts[24 + at] + parts[48 + at] + residual[at]) as f32).collect();
        assert_eq!(heap.tensor(arguments.sum.address, DType::F32, &[24]).to_vec::<f32>().unwrap(), sums);
        let wide = floats(&[4, 6], &scale.to_vec::<f32>().unwrap().repeat(4));
        let expected = norm.reference(&[floats(&[4, 6], &sums), wide, floats(&[4, 6], &[0.0; 24])]).unwrap();
        let got = heap.tensor(output.address, DType::F32, &[4, 6]);
        assert!(close(&got.to_f64s(), &expected[0].to_f64s(), 1e-6));
    }

    #[test]
    fn reductions_fill_the_gpu_and_read_neighbours() {
        let entry = |shape: [usize; 2], strides: [isize; 2]| {
            let input = operand(Address(256), DType::F32, &strides);
            ReduceArguments::new(ReduceOp::Sum, &shape, 1, input, input).unwrap().entry()
        };
        assert_eq!(entry([384, 128], [1, 384]), "reduce_columns");
        assert_eq!(entry([1024, 65536], [1, 1024]), "reduce_columns");
        assert_eq!(entry([4, 65536], [1, 4]), "reduce_blocks", "few results of many elements");
        assert_eq!(entry([1, 1_000_000], [1, 64]), "reduce_blocks", "one result has no neighbour");
        assert_eq!(entry([1, 1000], [1, 64]), "reduce_warps");
        assert_eq!(entry([384, 8], [1, 384]), "reduce_threads");
        assert_eq!(entry([384, 128], [128, 1]), "reduce_warps");
        // What a warp holds of a row is said in CUDA, too.
        let groups = format!("static constexpr int COUNT = {};", WARP_ROW_MAX / 128);
        assert!(include_str!("../../../kernels/norm.cuh").contains(&groups));
    }

    #[test]
    fn a_warp_takes_rows_of_whole_groups() {
        let norm = Norm { kind: NormKind::Layer, axes: 1, epsilon: 1e-5 };
        let operand = |dtype, strides: &[isize]| operand(Address(256), dtype, strides);
        let new = |extent: usize, input, output| {
            let row = operand(DType::F32, &[0, 1]);
            NormArguments::new(&norm, &[9, extent], input, row, Operand::none(), output).unwrap()
        };
        let dense = |extent: usize| operand(DType::F16, &[extent as isize, 1]);
        let entry = |arguments: &NormArguments, alignment| arguments.launch(alignment).0;
        let whole = new(768, dense(768), dense(768));
        assert_eq!(whole.launch(256), ("normalize_warps", Geometry::line(3, 128)));
        let block = Geometry { shared_bytes: 4 * 768, ..Geometry::line(9, 192) };
        assert_eq!(whole.launch(8), ("normalize", block), "an address between groups");
        for (arguments, why) in [
            (new(766, dense(766), dense(766)), "half a group"),
            (new(1028, dense(1028), dense(1028)), "a long row"),
            (new(768, dense(770), dense(768)), "rows that begin between groups"),
            (new(768, operand(DType::F16, &[1, 9]), dense(768)), "columns"),
            (new(768, operand(DType::I32, &[768, 1]), dense(768)), "integers"),
            (NormArguments { axes: 2, ..whole }, "rows of two axes"),
        ] {
            assert_eq!(entry(&arguments, 256), "normalize", "{why}");
        }
    }

    #[test]
    fn a_guarded_row_is_zero() {
        let mut heap = Heap::default();
        let none = f32::NEG_INFINITY;
        let input = operand(heap.put(&floats(&[2, 2], &[none, none, 1.0, none])), DType::F32, &[2, 1]);
        let output = operand(heap.room(16), DType::F32, &[2, 1]);
        let arguments = SoftmaxArguments::new(&Softmax { log: false }, true, &[2, 2], input, output).unwrap();
        assert_eq!((arguments.entry(), arguments.launch()), ("softmax_warp", Geometry::line(1, 128)));
        softmax_twin(&arguments.encode(), &mut heap).unwrap();
        assert_eq!(heap.tensor(output.address, DType::F32, &[4]).to_vec::<f32>().unwrap(), [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn every_reduction_has_its_number() {
        for (op, expected) in REDUCTIONS.iter().zip([6.0, 2.0, 3.0, 1.0, 6.0, 14f64.sqrt(), 2.0, 0.0]) {
            let mut heap = Heap::default();
            // The middle axis of [1, 3, 2] is reduced, of every second element.
            let input = operand(heap.put(&floats(&[6], &[1.0, 9.0, 2.0, 9.0, 3.0, 9.0])), DType::F32, &[6, 2]);
            let dtype = if op.gives_position() { DType::I64 } else { DType::F32 };
            let output = operand(heap.room(8), dtype, &[1]);
            let arguments = ReduceArguments::new(*op, &[1, 3], 1, input, output).unwrap();
            reduce_twin(&arguments.encode(), &mut heap).unwrap();
            let got = heap.tensor(output.address, dtype, &[1]).to_f64s()[0];
            assert!((got - expected).abs() < 1e-6, "{op:?}: {got}");
        }
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        let mut heap = Heap::default();
        let output = operand(heap.room(8), DType::F32, &[1]);
        let input = operand(Address(8), DType::F32, &[1, 1]);
        let arguments = ReduceArguments::new(ReduceOp::Prod, &[2, 0], 1, input, output).unwrap();
        assert_eq!(arguments.launch(), Geometry::line(1, 128));
        reduce_twin(&arguments.encode(), &mut heap).unwrap();
        assert_eq!(heap.tensor(output.address, DType::F32, &[2]).to_vec::<f32>().unwrap(), [1.0; 2]);
    }
}
