//! Reductions over any axes of a strided operand.

use super::cursor::Cursor;
use super::kernel::{Share, Span, Task};
use super::number::Number;
use super::simd::{Routine, Vector, dispatch};
use crate::ir::DType;
use crate::kernels::{Reduce, ReduceOp};
use crate::limits::RANK_MAX;
use crate::lower::host::Simd;
use std::marker::PhantomData;

/// Columns that are reduced together where the operand's rows run along the result.
const COLUMNS: usize = 64;
/// Accumulators of a reduction along a row: more than one vector register, so that additions overlap.
const LANES: usize = 32;

/// A task for operand and result in any views.
pub fn prepare(kernel: &Reduce, input: &Span, output: &Span, simd: Simd) -> Task {
    match input.dtype {
        DType::I64 => of_type::<i64>(kernel, input, output, simd),
        DType::I32 => of_type::<i32>(kernel, input, output, simd),
        DType::I8 => of_type::<i8>(kernel, input, output, simd),
        DType::U8 | DType::Bool => of_type::<u8>(kernel, input, output, simd),
        _ => of_type::<f32>(kernel, input, output, simd),
    }
}

fn of_type<T: Element>(kernel: &Reduce, input: &Span, output: &Span, simd: Simd) -> Task {
    let nest = Nest::new(kernel, input, output);
    match kernel.op {
        ReduceOp::ArgMax { last } => positions::<T>(nest, last, |a, b| a > b),
        ReduceOp::ArgMin { last } => positions::<T>(nest, last, |a, b| a < b),
        ReduceOp::Sum | ReduceOp::Mean => folded::<T, Sum>(kernel.op, nest, simd),
        ReduceOp::Prod => folded::<T, Product>(kernel.op, nest, simd),
        ReduceOp::L2 => folded::<T, Squares>(kernel.op, nest, simd),
        ReduceOp::Max => folded::<T, Greatest>(kernel.op, nest, simd),
        ReduceOp::Min => folded::<T, Least>(kernel.op, nest, simd),
    }
}

/// An element type with the type that it is accumulated in.
trait Element: Number {
    /// `f32` for itself; `i64` for integers, which wrap to their own width at the end.
    type Sum: Number;
    fn widen(self) -> Self::Sum;
    /// What a reduction starts from.
    fn start(op: ReduceOp, dtype: DType) -> Self::Sum;
    /// The result after `count` elements.
    fn finish(sum: Self::Sum, op: ReduceOp, count: usize) -> Self;
}

impl Element for f32 {
    type Sum = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    fn start(op: ReduceOp, _: DType) -> f32 {
        match op {
            ReduceOp::Max => f32::NEG_INFINITY,
            ReduceOp::Min => f32::INFINITY,
            ReduceOp::Prod => 1.0,
            _ => 0.0,
        }
    }
    #[inline(always)]
    fn finish(sum: f32, op: ReduceOp, count: usize) -> f32 {
        match op {
            ReduceOp::Mean => sum / count as f32,
            ReduceOp::L2 => sum.sqrt(),
            _ => sum,
        }
    }
}

macro_rules! integer {
    ($($type:ty),*) => {
        $(impl Element for $type {
            type Sum = i64;
            #[inline(always)]
            fn widen(self) -> i64 {
                self as i64
            }
            fn start(op: ReduceOp, dtype: DType) -> i64 {
                match op {
                    ReduceOp::Max => <$type>::MIN as i64,
                    ReduceOp::Min if dtype == DType::Bool => 1,
                    ReduceOp::Min => <$type>::MAX as i64,
                    ReduceOp::Prod => 1,
                    _ => 0,
                }
            }
            #[inline(always)]
            fn finish(sum: i64, op: ReduceOp, count: usize) -> $type {
                match op {
                    ReduceOp::Mean => (sum / count.max(1) as i64) as $type,
                    ReduceOp::L2 => (sum as f64).sqrt() as $type,
                    _ => sum as $type,
                }
            }
        })*
    };
}

integer!(i64, i32, i8, u8);

/// How an element joins a sum, and how two sums join.
trait Fold: Send + Sync + 'static {
    fn push<S: Number>(sum: S, x: S) -> S;
    fn merge<S: Number>(a: S, b: S) -> S {
        Self::push(a, b)
    }
}

struct Sum;
struct Product;
struct Squares;
struct Greatest;
struct Least;

impl Fold for Sum {
    #[inline(always)]
    fn push<S: Number>(sum: S, x: S) -> S {
        sum.add(x)
    }
}

impl Fold for Product {
    #[inline(always)]
    fn push<S: Number>(sum: S, x: S) -> S {
        sum.mul(x)
    }
}

impl Fold for Squares {
    #[inline(always)]
    fn push<S: Number>(sum: S, x: S) -> S {
        sum.add(x.mul(x))
    }
    fn merge<S: Number>(a: S, b: S) -> S {
        a.add(b)
    }
}

impl Fold for Greatest {
    #[inline(always)]
    fn push<S: Number>(sum: S, x: S) -> S {
        sum.max(x)
    }
}

impl Fold for Least {
    #[inline(always)]
    fn push<S: Number>(sum: S, x: S) -> S {
        sum.min(x)
    }
}

/// The axes of a reduction, merged where they can be.
struct Nest {
    input: Span,
    output: Span,
    /// Extents of the result's axes, with their steps in operand and result.
    kept: Vec<usize>,
    kept_steps: Vec<isize>,
    result_steps: Vec<isize>,
    /// Extents of the axes that vanish, outermost first, with their steps in the operand.
    reduced: Vec<usize>,
    reduced_steps: Vec<isize>,
}

impl Nest {
    fn new(kernel: &Reduce, input: &Span, output: &Span) -> Self {
        let kept: Vec<usize> = (0..input.shape.len()).filter(|axis| !kernel.axes.contains(axis)).collect();
        let axes = kept
            .iter()
            .enumerate()
            .map(|(index, &axis)| (input.shape[axis], [input.strides[axis], output.strides[index]]));
        let (kept, steps) = merged(axes.collect());
        let mut axes: Vec<_> = kernel.axes.iter().map(|&axis| (input.shape[axis], [input.strides[axis], 0])).collect();
        axes.sort_by_key(|(_, steps)| std::cmp::Reverse(steps[0].unsigned_abs()));
        let (reduced, reduced_steps) = merged(axes);
        Nest {
            input: input.clone(),
            output: output.clone(),
            kept,
            kept_steps: steps.iter().map(|steps| steps[0]).collect(),
            result_steps: steps.iter().map(|steps| steps[1]).collect(),
            reduced,
            reduced_steps: reduced_steps.iter().map(|steps| steps[0]).collect(),
        }
    }

    /// Whether rows of the operand run along the result rather than along what vanishes.
    fn runs_along_result(&self) -> bool {
        self.kept_steps.last() == Some(&1) && self.reduced_steps.last() != Some(&1)
    }

    /// Elements that make one element of the result.
    fn per_result(&self) -> usize {
        self.reduced.iter().product()
    }

    fn from<T>(&self, cursor: &Cursor) -> *const T {
        self.input.element(cursor.offset(&self.kept_steps)).cast()
    }

    fn to<T>(&self, cursor: &Cursor) -> *mut T {
        self.output.element(cursor.offset(&self.result_steps)).cast()
    }
}

/// Joins neighbouring axes that advance together and drops those of one element.
fn merged(axes: Vec<(usize, [isize; 2])>) -> (Vec<usize>, Vec<[isize; 2]>) {
    let (mut extents, mut all_steps): (Vec<usize>, Vec<[isize; 2]>) = (Vec::new(), Vec::new());
    for (extent, steps) in axes.into_iter().filter(|(extent, _)| *extent != 1) {
        match (extents.last_mut(), all_steps.last_mut()) {
            (Some(outer), Some(outer_steps)) if *outer_steps == steps.map(|step| step * extent as isize) => {
                *outer *= extent;
                *outer_steps = steps;
            }
            _ => {
                extents.push(extent);
                all_steps.push(steps);
            }
        }
    }
    (extents, all_steps)
}

fn folded<T: Element, F: Fold>(op: ReduceOp, nest: Nest, simd: Simd) -> Task {
    Box::new(move |share: &Share| {
        // SAFETY: the level of instructions was detected; operand and result are bound.
        unsafe {
            if nest.runs_along_result() {
                dispatch(simd, Columns::<T, F> { nest: &nest, share, op, types: PhantomData });
            } else {
                dispatch(simd, Rows::<T, F> { nest: &nest, share, op, types: PhantomData });
            }
        }
    })
}

/// One element of the result after the other.
struct Rows<'a, T, F> {
    nest: &'a Nest,
    share: &'a Share,
    op: ReduceOp,
    types: PhantomData<(T, F)>,
}

impl<T: Element, F: Fold> Routine for Rows<'_, T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let nest = self.nest;
        let start = T::start(self.op, nest.input.dtype);
        let range = self.share.range(nest.kept.iter().product(), 1);
        let mut cursor = Cursor::new(&nest.kept, range.start);
        let run = nest.reduced.last().copied().unwrap_or(1);
        let step = nest.reduced_steps.last().copied().unwrap_or(0);
        for _ in range {
            let (mut lanes, mut rest) = ([start; LANES], start);
            let mut inner = Cursor { extents: &nest.reduced, index: [0; RANK_MAX] };
            for _ in 0..nest.per_result() / run.max(1) {
                let row = nest.from::<T>(&cursor).wrapping_offset(inner.offset(&nest.reduced_steps));
                // SAFETY: the run lies in the operand.
                unsafe { fold_run::<T, F>(row, step, run, &mut lanes, &mut rest) };
                inner.advance(run);
            }
            let mut width = LANES;
            while width > 1 {
                width /= 2;
                for lane in 0..width {
                    lanes[lane] = F::merge(lanes[lane], lanes[lane + width]);
                }
            }
            // SAFETY: the cursor stands on an element of the result.
            unsafe { *nest.to::<T>(&cursor) = T::finish(F::merge(lanes[0], rest), self.op, nest.per_result()) };
            cursor.advance(1);
        }
    }
}

/// Adds a run of elements to `LANES` sums that take turns, and to a further one.
///
/// # Safety
/// The run is readable.
#[inline(always)]
unsafe fn fold_run<T: Element, F: Fold>(
    row: *const T,
    step: isize,
    run: usize,
    lanes: &mut [T::Sum; LANES],
    rest: &mut T::Sum,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if step != 1 {
            for at in 0..run as isize {
                *rest = F::push(*rest, (*row.offset(at * step)).widen());
            }
            return;
        }
        let chunks = std::slice::from_raw_parts(row, run).chunks_exact(LANES);
        for &x in chunks.remainder() {
            *rest = F::push(*rest, x.widen());
        }
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] = F::push(lanes[lane], chunk[lane].widen());
            }
        }
    }
}

/// Several neighbouring elements of the result at once.
struct Columns<'a, T, F> {
    nest: &'a Nest,
    share: &'a Share,
    op: ReduceOp,
    types: PhantomData<(T, F)>,
}

impl<T: Element, F: Fold> Routine for Columns<'_, T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let nest = self.nest;
        let Some((&columns, outer)) = nest.kept.split_last() else { return };
        let result_step = nest.result_steps.last().copied().unwrap_or(1);
        let blocks = columns.div_ceil(COLUMNS);
        for unit in self.share.range(outer.iter().product::<usize>() * blocks, 1) {
            let cursor = Cursor::new(outer, unit / blocks);
            let first = unit % blocks * COLUMNS;
            let width = COLUMNS.min(columns - first);
            let mut sums = [T::start(self.op, nest.input.dtype); COLUMNS];
            let mut inner = Cursor { extents: &nest.reduced, index: [0; RANK_MAX] };
            let block = nest.from::<T>(&cursor).wrapping_add(first);
            for _ in 0..nest.per_result() {
                let row = block.wrapping_offset(inner.offset(&nest.reduced_steps));
                // SAFETY: the block's columns lie in the operand.
                let row = unsafe { std::slice::from_raw_parts(row, width) };
                for (sum, &x) in sums[..width].iter_mut().zip(row) {
                    *sum = F::push(*sum, x.widen());
                }
                inner.advance(1);
            }
            let to = nest.to::<T>(&cursor);
            for (column, &sum) in sums[..width].iter().enumerate() {
                let result = T::finish(sum, self.op, nest.per_result());
                // SAFETY: the block's columns lie in the result.
                unsafe { *to.offset((first + column) as isize * result_step) = result };
            }
        }
    }
}

/// Positions of the best elements along the single axis reduced; a number beats a NaN.
fn positions<T: Number>(nest: Nest, last: bool, better: fn(T, T) -> bool) -> Task {
    Box::new(move |share: &Share| {
        let range = share.range(nest.kept.iter().product(), 1);
        let mut cursor = Cursor::new(&nest.kept, range.start);
        let step = nest.reduced_steps.last().copied().unwrap_or(0);
        for _ in range {
            let row = nest.from::<T>(&cursor);
            // SAFETY: the axis has an element, and all its elements lie in the operand.
            unsafe {
                let (mut best, mut champion) = (0, *row);
                for at in 1..nest.per_result() {
                    let x = *row.offset(at as isize * step);
                    let wins = better(x, champion) || (last && x == champion) || (champion.is_nan() && !x.is_nan());
                    if wins {
                        (best, champion) = (at, x);
                    }
                }
                *nest.to::<i64>(&cursor) = best as i64;
            }
            cursor.advance(1);
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::device::host::testing::{Random, check, check_views};
    use crate::ir::{DType, Tensor};
    use crate::kernels::{Reduce, ReduceOp};

    const OPS: [ReduceOp; 6] =
        [ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Max, ReduceOp::Min, ReduceOp::Prod, ReduceOp::L2];

    #[test]
    fn any_axes_of_any_view() {
        let mut random = Random::new(1);
        for shape in [[3, 5, 70], [2, 130, 3], [1, 4, 1]] {
            let x = random.floats(&shape);
            for axes in [vec![], vec![0], vec![1], vec![2], vec![0, 1], vec![0, 2], vec![1, 2], vec![0, 1, 2]] {
                for op in OPS {
                    let kernel = Reduce { op, axes: axes.clone() };
                    check(kernel.clone(), std::slice::from_ref(&x), 2e-5);
                    check_views(kernel, std::slice::from_ref(&x), 2e-5, |_, view| view.permute(&[2, 0, 1]));
                }
            }
        }
    }

    #[test]
    fn every_element_type() {
        let mut random = Random::new(2);
        for dtype in [DType::I64, DType::I32, DType::I8, DType::U8] {
            let x = random.tensor(dtype, &[4, 9, 40], 3);
            for (op, axis) in OPS.into_iter().flat_map(|op| [(op, 1), (op, 2)]) {
                // Means of sums that wrap are not defined; these do not.
                check(Reduce { op, axes: vec![axis] }, std::slice::from_ref(&x), 0.0);
            }
        }
        for op in [ReduceOp::Max, ReduceOp::Min] {
            check(Reduce { op, axes: vec![0] }, &[random.tensor(DType::Bool, &[5, 40], 1)], 0.0);
        }
        check(Reduce { op: ReduceOp::Mean, axes: vec![1] }, &[random.tensor(DType::F16, &[5, 40], 0)], 1e-3);
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        for (op, dtype) in OPS.into_iter().flat_map(|op| [DType::F32, DType::I8].map(|dtype| (op, dtype))) {
            check(Reduce { op, axes: vec![1] }, &[Tensor::from_scalars(dtype, &[3, 0, 2], [])], 0.0);
        }
    }

    #[test]
    fn positions_prefer_the_first_or_the_last_and_numbers() {
        let mut random = Random::new(3);
        let ops = [false, true].map(|last| [ReduceOp::ArgMax { last }, ReduceOp::ArgMin { last }]);
        let odd = Tensor::from_slice(&[1, 5, 1], &[f32::NAN, 1.0, 3.0, f32::NAN, 3.0]);
        for op in ops.into_iter().flatten() {
            for axis in 0..3 {
                check(Reduce { op, axes: vec![axis] }, &[random.tensor(DType::I32, &[4, 9, 6], 3)], 0.0);
                check(Reduce { op, axes: vec![axis] }, std::slice::from_ref(&odd), 0.0);
            }
        }
    }
}
