//! Axis analysis: proof that the rows of a batch do not touch each other.
//!
//! A request may be padded to a larger batch, or merged with others into one, only if row `r` of every output depends on row `r` of the
//! inputs and on nothing else. The analysis runs over a finished plan. It knows of every tensor which *weight* its row digit has: element
//! `p` belongs to row `p / weight % batch`. That survives any reshape and transposition, `[B S, H]` and `[S, B, H]` alike; a
//! view of the tensor then has one axis along which the rows lie, and each kernel family says on which axes rows may lie.
//!
//! Everything that differs between rows without coming from the batch (a constant with another value per row, an input that the
//! caller did not declare) counts as mixing, because a single row could not reproduce it.

use super::{Origin, Plan, Step, TensorId, View};
use crate::error::{Result, ensure, fail};
use crate::kernels::Kernel;
use std::collections::HashMap;

/// What an output has to do with the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The same for every batch: it depends on no batched input.
    Uniform,
    /// Row `r` owns the indices `r * repeat .. (r + 1) * repeat` of this axis and depends on row `r` of the inputs only.
    Independent {
        /// The axis.
        axis: usize,
        /// Indices per row; more than 1 where the model folded another axis into the batch.
        repeat: usize,
    },
}

/// Where the rows of a view lie: index `i` of `axis` belongs to row `i / repeat % batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Along {
    axis: usize,
    repeat: usize,
}

/// A step of the proof, or why there is none.
type Proof<T> = std::result::Result<T, String>;

/// Proves that the rows of the batch are independent. `batch_axes` names, per model input, the axis that the batch lies along, if it
/// has one; all of them have the same extent of at least 2 (with a single row there is nothing to see).
///
/// The result tells, per model output, where its rows lie. `Unsupported` names the step that mixes rows.
pub fn rows(plan: &Plan, batch_axes: &[Option<usize>]) -> Result<Vec<Rows>> {
    let mut analysis = Analysis::new(plan, batch_axes)?;
    for (index, step) in plan.steps.iter().enumerate() {
        analysis.step(step).map_err(|reason| {
            let kernel = step.kernel.name();
            fail!(Unsupported, "step {index} ({kernel} of node '{}') mixes the rows of the batch: {reason}", step.node)
        })?;
    }
    let outputs = plan.outputs.iter().enumerate();
    outputs
        .map(|(index, &id)| {
            let view = View::dense(id, &plan.tensor(id).ty.shape);
            let along = analysis
                .along(&view)
                .map_err(|reason| fail!(Unsupported, "output {index} mixes the rows of the batch: {reason}"))?;
            let Some(Along { axis, repeat }) = along else { return Ok(Rows::Uniform) };
            ensure!(
                view.shape[axis] == repeat * analysis.batch,
                Unsupported,
                "in output {index} another axis is folded around the batch"
            );
            Ok(Rows::Independent { axis, repeat })
        })
        .collect()
}

struct Analysis<'a> {
    plan: &'a Plan,
    batch: usize,
    /// Per tensor, the weight of its row digit; `None` while nothing in it depends on the batch.
    weights: Vec<Option<usize>>,
    /// Per tensor, what was written to it that does not depend on the batch.
    constant_parts: HashMap<TensorId, Vec<(&'a Step, &'a View)>>,
}

impl<'a> Analysis<'a> {
    fn new(plan: &'a Plan, batch_axes: &[Option<usize>]) -> Result<Self> {
        ensure!(batch_axes.len() == plan.inputs.len(), InvalidArgument, "the model has {} inputs", plan.inputs.len());
        let mut analysis =
            Analysis { plan, batch: 0, weights: vec![None; plan.tensors.len()], constant_parts: HashMap::new() };
        for (index, (&id, axis)) in plan.inputs.iter().zip(batch_axes).enumerate() {
            let (Some(axis), shape) = (*axis, &plan.tensor(id).ty.shape) else { continue };
            ensure!(axis < shape.len(), InvalidArgument, "input {index} of shape {shape:?} has no axis {axis}");
            let extent = shape[axis];
            ensure!(
                extent >= 2 && (analysis.batch == 0 || analysis.batch == extent),
                InvalidArgument,
                "the batch is {extent} in input {index}, and should be {} there",
                if analysis.batch == 0 { "at least 2".into() } else { analysis.batch.to_string() }
            );
            analysis.batch = extent;
            analysis.weights[id.0 as usize] = Some(shape[axis + 1..].iter().product());
        }
        ensure!(analysis.batch > 0, InvalidArgument, "no input has a batch axis");
        Ok(analysis)
    }

    fn step(&mut self, step: &'a Step) -> Proof<()> {
        let operands = step.inputs.iter().map(|view| self.along(view)).collect::<Proof<Vec<_>>>()?;
        let results = match operands.iter().all(Option::is_none) {
            true => vec![None; step.outputs.len()],
            false => Transfer { analysis: self, step, operands }.results()?,
        };
        for (view, along) in step.outputs.iter().zip(results) {
            match along {
                Some(along) => self.record(view, along)?,
                None => self.record_constant(step, view)?,
            }
        }
        Ok(())
    }

    /// Notes where a written view's rows lie in its tensor.
    fn record(&mut self, view: &View, along: Along) -> Proof<()> {
        if view.count() == 0 {
            return Ok(());
        }
        let stride = usize::try_from(view.strides[along.axis]).ok().filter(|&stride| stride > 0);
        let weight = stride.ok_or("rows are written backwards")? * along.repeat;
        let slot = &mut self.weights[view.tensor.0 as usize];
        if slot.is_some_and(|known| known != weight) {
            return Err("parts of a tensor have their rows in different places".into());
        }
        *slot = Some(weight);
        if self.along(view)? != Some(along) {
            return Err("the result does not keep its rows apart".into());
        }
        let parts = self.constant_parts.remove(&view.tensor).unwrap_or_default();
        parts.into_iter().try_for_each(|(step, part)| self.record_constant(step, part))
    }

    /// Notes a written view that does not depend on the batch; in a tensor with rows it must be the same for every row.
    fn record_constant(&mut self, step: &'a Step, view: &'a View) -> Proof<()> {
        if self.weights[view.tensor.0 as usize].is_none() {
            self.constant_parts.entry(view.tensor).or_default().push((step, view));
            return Ok(());
        }
        let Some(Along { axis, .. }) = self.along(view)? else { return Ok(()) };
        let steady = matches!(step.kernel, Kernel::Map(_)) && step.inputs.iter().all(|view| self.is_steady(view, axis));
        steady.then_some(()).ok_or_else(|| "a constant part differs from row to row".into())
    }

    /// Where the rows of a view lie; `None` if it depends on no batched input.
    fn along(&self, view: &View) -> Proof<Option<Along>> {
        let Some(weight) = self.weights[view.tensor.0 as usize].filter(|_| view.count() > 0) else { return Ok(None) };
        let block = weight * self.batch;
        if !(view.offset / weight).is_multiple_of(self.batch) {
            return Err("only some of the rows are read".into());
        }
        // How far the axes inside a row reach; they must not carry into the row digit.
        let (mut reach, mut back) = (view.offset % weight, 0);
        let mut found = None;
        let axes = view.shape.iter().zip(&view.strides).enumerate();
        for (axis, (&extent, &stride)) in axes.filter(|(_, (extent, stride))| **extent > 1 && **stride != 0) {
            let step = stride.unsigned_abs();
            let covers_rows = step < block && step * extent > weight.max(step);
            if step >= block && step.is_multiple_of(block) {
                continue;
            }
            if !covers_rows {
                *if stride > 0 { &mut reach } else { &mut back } += step * (extent - 1);
                continue;
            }
            let fits = stride > 0 && (step.is_multiple_of(weight) || weight.is_multiple_of(step));
            let repeat = if step < weight { weight / step } else { 1 };
            if !fits || step > weight || found.is_some() || !extent.is_multiple_of(repeat * self.batch) {
                return Err("a view does not run along the rows".into());
            }
            reach += (repeat - 1) * step;
            found = Some(Along { axis, repeat });
        }
        match found {
            Some(_) if reach >= weight || back > view.offset % weight => Err("a view runs across rows".into()),
            Some(_) => Ok(found),
            None => Err("a single row is read".into()),
        }
    }

    /// Whether a view that does not depend on the batch shows every row the same.
    fn is_steady(&self, view: &View, axis: usize) -> bool {
        if view.shape[axis] == 1 || view.strides[axis] == 0 || view.count() == 0 {
            return true;
        }
        let Origin::Constant(tensor) = &self.plan.tensor(view.tensor).origin else { return false };
        let row = |index: usize| view.slice(axis, index, 1, 1).materialize(tensor).ok();
        let first = row(0);
        (1..view.shape[axis]).all(|index| row(index) == first)
    }
}

/// From a step's operands to its results.
struct Transfer<'a> {
    analysis: &'a Analysis<'a>,
    step: &'a Step,
    operands: Vec<Option<Along>>,
}

impl Transfer<'_> {
    fn results(&self) -> Proof<Vec<Option<Along>>> {
        let rank = |operand: usize| self.step.inputs[operand].rank();
        let all = 0..self.operands.len();
        let along = match &self.step.kernel {
            Kernel::Map(_) => self.shared(all, Some)?,
            Kernel::Softmax(_) => self.shared(all, |axis| (axis + 1 < rank(0)).then_some(axis))?,
            Kernel::Norm(norm) => self.shared(all, |axis| (axis + norm.axes < rank(0)).then_some(axis))?,
            Kernel::CumSum(scan) => self.shared(all, |axis| (axis != scan.axis).then_some(axis))?,
            Kernel::TopK(top) => self.shared(all, |axis| (axis != top.axis).then_some(axis))?,
            Kernel::Resize(resize) => {
                self.shared(all, |axis| resize.axes.iter().all(|taps| taps.axis != axis).then_some(axis))?
            }
            Kernel::Reduce(reduce) => self.shared(all, |axis| {
                let before = reduce.axes.iter().filter(|&&reduced| reduced < axis).count();
                (!reduce.axes.contains(&axis)).then(|| axis - before)
            })?,
            Kernel::Pool(pool) if pool.indices.is_none() => self.shared(all, |axis| (axis < 2).then_some(axis))?,
            Kernel::MatMul(_) => self.placed(|operand, axis| match (operand, rank(0) - axis) {
                (0 | 1, from_end) if from_end > 2 => Some(axis),
                (0, 2) | (1, 1) => Some(axis),
                (0 | 1, _) => None,
                _ => Some(axis),
            })?,
            Kernel::Attention(_) => self.placed(|operand, axis| match (operand, rank(0) - axis) {
                (0..=2, from_end) if from_end > 2 => Some(axis),
                (0, 2) | (2, 1) => Some(axis),
                (0..=2, _) => None,
                (_, from_end) => (from_end >= 2).then_some(axis),
            })?,
            Kernel::Conv(_) | Kernel::ConvTranspose(_) => {
                self.placed(|operand, axis| ((operand == 0 || operand > 2) && axis == 0).then_some(0))?
            }
            Kernel::Gather(gather) => self.placed(|operand, axis| match operand {
                0 if axis < gather.axis => Some(axis),
                0 if axis > gather.axis => Some(axis + rank(1) - 1),
                0 => None,
                _ => Some(axis + gather.axis),
            })?,
            Kernel::GatherElements(gather) => self.placed(|_, axis| (axis != gather.axis).then_some(axis))?,
            Kernel::GatherNd(gather) => self.placed(|operand, axis| match operand {
                0 => (axis < gather.batch_dims).then_some(axis),
                _ => (axis + 1 < rank(1)).then_some(axis),
            })?,
            Kernel::Recurrent(_) => return self.recurrent(),
            Kernel::Pool(_) | Kernel::ScatterNd(_) => return Err("positions are counted across rows".into()),
        };
        Ok(vec![along; self.step.outputs.len()])
    }

    /// The rows of the result where operands and result have one index space less the axes for which `kept` gives `None`.
    fn shared(&self, operands: std::ops::Range<usize>, kept: impl Fn(usize) -> Option<usize>) -> Proof<Option<Along>> {
        let first = operands.clone().find_map(|operand| self.operands[operand]);
        let Some(first) = first else { return Ok(None) };
        self.agree(operands, |_| Some(first.axis), first)?;
        let axis = kept(first.axis).ok_or("it works along the batch")?;
        Ok(Some(Along { axis, ..first }))
    }

    /// The rows of the result where `place` says which axis of the result an axis of an operand becomes.
    fn placed(&self, place: impl Fn(usize, usize) -> Option<usize>) -> Proof<Option<Along>> {
        let mut result: Option<Along> = None;
        for (operand, along) in self.operands.iter().enumerate() {
            let Some(along) = along else { continue };
            let axis = place(operand, along.axis).ok_or("it works along the batch")?;
            let found = Along { axis, ..*along };
            if result.is_some_and(|result| result != found) {
                return Err("operands have their rows on different axes".into());
            }
            result = Some(found);
        }
        let Some(result) = result else { return Ok(None) };
        let own_axis = |operand: usize| {
            (0..self.step.inputs[operand].rank()).find(|&axis| place(operand, axis) == Some(result.axis))
        };
        self.agree(0..self.operands.len(), own_axis, result)?;
        Ok(Some(result))
    }

    /// Whether each operand either has its rows as `expected`, on the axis that `own_axis` names, or is the same for all rows.
    fn agree(
        &self,
        mut operands: std::ops::Range<usize>,
        own_axis: impl Fn(usize) -> Option<usize>,
        expected: Along,
    ) -> Proof<()> {
        let fits = |operand: usize| match (self.operands[operand], own_axis(operand)) {
            (Some(along), Some(axis)) => along == Along { axis, ..expected },
            (Some(_), None) => false,
            (None, Some(axis)) => self.analysis.is_steady(&self.step.inputs[operand], axis),
            (None, None) => true,
        };
        operands.all(fits).then_some(()).ok_or_else(|| "operands differ from row to row in different ways".into())
    }

    /// X `[T, B, I]`, lengths `[B]` and the states `[D, B, H]` carry the batch; the results are `[T, D, B, H]` and `[D, B, H]`.
    fn recurrent(&self) -> Proof<Vec<Option<Along>>> {
        let batch_axis = |operand: usize| match operand {
            0 | 5 | 6 => Some(1),
            4 => Some(0),
            _ => None,
        };
        let Some(repeat) = self.operands.iter().flatten().map(|along| along.repeat).next() else {
            return Ok(Vec::new());
        };
        self.agree(0..self.operands.len(), batch_axis, Along { axis: 0, repeat })?;
        let axis = |result: usize| if result == 0 { 2 } else { 1 };
        Ok((0..self.step.outputs.len()).map(|result| Some(Along { axis: axis(result), repeat })).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{DType, Tensor};
    use crate::kernels::{
        Activation, Attention, Binary, Cell, Direction, Gather, Map, MatMul, Norm, NormKind, Recurrent, Reduce,
        ReduceOp, Softmax, Unary,
    };
    use crate::plan::evaluate;
    use crate::plan::passes::optimize;
    use crate::plan::passes::trial::Trial;

    const B: usize = 3;
    const S: usize = 4;
    const H: usize = 6;

    const INDEPENDENT: Rows = Rows::Independent { axis: 0, repeat: 1 };

    fn matmul() -> MatMul {
        MatMul { alpha: 1.0, epilogue: None }
    }

    /// Embedding, normalisation, attention under a mask, feed-forward, residual, mean over the sequence.
    fn encoder() -> (Trial, Vec<Tensor>) {
        let ids = |seed: usize| {
            Tensor::from_slice(&[B, S], &[0i64, 4, 2, 1, 3, 3, 0, 2, 1, 4, 4, 0].map(|id| (id + seed as i64) % 5))
        };
        let mask = Tensor::from_slice(&[B, S], &[0f32, 0.0, 0.0, -9.0, 0.0, 0.0, -9.0, -9.0, 0.0, -9.0, -9.0, -9.0]);
        let mut trial = Trial::empty();
        let (tokens, masked) = (trial.input_of(ids(0)), trial.input_of(mask.clone()));
        let table = trial.weight(&[5, H]);
        let parameters = [(); 2].map(|()| trial.weight(&[H]).broadcast(&[B, S, H]).unwrap());
        let x = trial.emit(Gather { axis: 0 }, &[&table, &tokens]);
        let normed =
            trial.emit(Norm { kind: NormKind::Layer, axes: 1, epsilon: 1e-5 }, &[&x, &parameters[0], &parameters[1]]);
        let flat = normed.reshape(&[B * S, H]).unwrap();
        let heads = [(); 3].map(|()| {
            let w = trial.weight(&[H, H]);
            trial.emit(matmul(), &[&flat, &w]).reshape(&[B, S, 2, H / 2]).unwrap().swap(1, 2)
        });
        let mask_view = masked.reshape(&[B, 1, 1, S]).unwrap().broadcast(&[B, 2, S, S]).unwrap();
        let kernel =
            Attention { scale: 0.5, score: Some(Map::binary(Binary::Add, DType::F32)), guard_empty_rows: false };
        let context = trial.emit(kernel, &[&heads[0], &heads[1], &heads[2], &mask_view]);
        let context = trial.builder.reshape(&context.swap(1, 2), &[B * S, H]).unwrap();
        let w = trial.weight(&[H, H]);
        let projected = trial.emit(matmul(), &[&context, &w]).reshape(&[B, S, H]).unwrap();
        let sum = trial.builder.binary(Binary::Add, &projected, &x).unwrap();
        let pooled = trial.emit(Reduce { op: ReduceOp::Mean, axes: vec![1] }, &[&sum]);
        trial.deliver(&pooled);
        let flat = trial.builder.unary(Unary::Tanh, &sum.reshape(&[B * S, H]).unwrap()).unwrap();
        trial.deliver(&flat);
        let turned = trial.builder.copy(&sum.permute(&[1, 0, 2])).unwrap();
        trial.deliver(&turned);
        (trial, vec![ids(0), mask])
    }

    #[test]
    fn the_rows_of_an_encoder_are_independent_before_and_after_fusion() {
        let (trial, inputs) = encoder();
        let plan = trial.builder.plan;
        let expected =
            vec![INDEPENDENT, Rows::Independent { axis: 0, repeat: S }, Rows::Independent { axis: 1, repeat: 1 }];
        for plan in [plan.clone(), optimize(plan).unwrap()] {
            assert_eq!(rows(&plan, &[Some(0), Some(0)]).unwrap(), expected);
            // And so it is: another last row leaves the others alone.
            let mut ids = inputs[0].to_vec::<i64>().unwrap();
            ids[(B - 1) * S] = 3;
            let changed = [Tensor::from_slice(&[B, S], &ids), inputs[1].clone()];
            let (before, after) = (evaluate(&plan, &inputs).unwrap(), evaluate(&plan, &changed).unwrap());
            let (before, after) = (before[0].to_f64s(), after[0].to_f64s());
            assert_eq!(before[..(B - 1) * H], after[..(B - 1) * H]);
            assert_ne!(before[(B - 1) * H..], after[(B - 1) * H..]);
        }
        // An undeclared mask differs from row to row.
        let (trial, _) = encoder();
        assert!(rows(&trial.builder.plan, &[Some(0), None]).is_err());
    }

    /// The proof for one step over an input `[B, S]`.
    fn proof(build: impl FnOnce(&mut Trial, &View) -> View) -> Result<Vec<Rows>> {
        let mut trial = Trial::empty();
        let x = trial.input(&[B, S]);
        trial.builder.node = "culprit".into();
        let y = build(&mut trial, &x);
        trial.deliver(&y);
        rows(&trial.builder.plan, &[Some(0)])
    }

    #[test]
    fn steps_that_mix_rows_are_named() {
        let refused = |build: fn(&mut Trial, &View) -> View| proof(build).unwrap_err().message;
        let sum = refused(|trial, x| trial.emit(Reduce { op: ReduceOp::Sum, axes: vec![0] }, &[x]));
        assert_eq!(sum, "step 0 (Reduce of node 'culprit') mixes the rows of the batch: it works along the batch");
        assert!(refused(|trial, x| trial.emit(Softmax { log: false }, &[&x.swap(0, 1)])).contains("along the batch"));
        assert!(refused(|trial, x| trial.emit(matmul(), &[x, &x.swap(0, 1)])).contains("different axes"));
        let first = |trial: &mut Trial, x: &View| trial.builder.unary(Unary::Exp, &x.slice(0, 0, 1, 1)).unwrap();
        assert!(refused(first).contains("single row"));
        let late = |trial: &mut Trial, x: &View| trial.builder.unary(Unary::Exp, &x.slice(0, 1, B - 1, 1)).unwrap();
        assert!(refused(late).contains("some of the rows"));
        let reversed =
            |trial: &mut Trial, x: &View| trial.builder.unary(Unary::Exp, &x.slice(0, B - 1, B, -1)).unwrap();
        assert!(proof(reversed).is_err());
        let numbered = |trial: &mut Trial, x: &View| {
            let numbers = trial.builder.constant(Tensor::from_slice(&[B, 1], &[0f32, 1.0, 2.0]));
            trial.builder.binary(Binary::Add, x, &numbers).unwrap()
        };
        assert!(refused(numbered).contains("row to row"));
        let stacked = |trial: &mut Trial, x: &View| {
            let room = trial.room(&[2, B, S]);
            trial.write(Map::copy(DType::F32), &[&x.insert_axis(0)], &room.slice(0, 0, 1, 1));
            trial.write(Map::copy(DType::F32), &[&x.insert_axis(0)], &room.slice(0, 1, 1, 1));
            room.reshape(&[2 * B, S]).unwrap()
        };
        assert_eq!(proof(stacked).unwrap(), [Rows::Independent { axis: 1, repeat: 1 }], "delivered as [2, B, S]");
    }

    #[test]
    fn constant_parts_must_be_the_same_for_every_row() {
        let padded = |values: [f32; B]| {
            proof(move |trial, x| {
                let room = trial.room(&[B, S + 1]);
                let column = trial.builder.constant(Tensor::from_slice(&[B, 1], &values));
                trial.write(Map::copy(DType::F32), &[&column], &room.slice(1, S, 1, 1));
                trial.write(Map::copy(DType::F32), &[x], &room.slice(1, 0, S, 1));
                room
            })
        };
        assert_eq!(padded([1.0; B]).unwrap(), [INDEPENDENT]);
        assert!(padded([1.0, 2.0, 3.0]).unwrap_err().message.contains("constant part"));
        let uniform = proof(|trial, _| {
            let (weight, room) = (trial.weight(&[S]), trial.room(&[S]));
            trial.write(Map::unary(Unary::Exp, DType::F32), &[&weight], &room);
            room
        });
        assert_eq!(uniform.unwrap(), [Rows::Uniform]);
    }

    #[test]
    fn a_recurrent_network_keeps_its_batch_axis() {
        let (t, i, h) = (3, 2, 4);
        let mut trial = Trial::empty();
        let x = trial.input(&[t, B, i]);
        let (w, r) = (trial.weight(&[1, 3 * h, i]), trial.weight(&[1, 3 * h, h]));
        let bias = trial.weight(&[1, 6 * h]);
        let lengths = trial.builder.constant(Tensor::scalar(t as i32)).broadcast(&[B]).unwrap();
        let state = trial.scalar(0.0).broadcast(&[1, B, h]).unwrap();
        let kernel = Recurrent {
            cell: Cell::Gru { linear_before_reset: false },
            direction: Direction::Forward,
            hidden: h,
            activations: vec![Activation::Sigmoid, Activation::Tanh],
            clip: None,
        };
        let inputs = [x, w, r, bias, lengths, state];
        for view in trial.builder.emit(kernel, &inputs).unwrap() {
            trial.deliver(&view);
        }
        let expected = [2, 1].map(|axis| Rows::Independent { axis, repeat: 1 });
        assert_eq!(rows(&trial.builder.plan, &[Some(1)]).unwrap(), expected);
    }
}
