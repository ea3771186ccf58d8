//! LayerNormalization and RMSNorm written out in elementary steps -> Norm.
//!
//! The anchor is a mean of squares `v = mean(c * c)`. If `c` is `x - mean(x)` the norm is of kind Layer, else Rms over `c` itself. The maps
//! that lead from `v` and `c` to the result are read as one program, whatever their number: `c / sqrt(v + epsilon)` with the root as a
//! division, a reciprocal or a power, then optionally a scale and a shift.

use super::Draft;
use super::maps::inlined;
use crate::error::Result;
use crate::ir::{Scalar, Tensor};
use crate::kernels::{Binary, Instr, Kernel, Map, Norm, NormKind, Reduce, ReduceOp, Reg, Unary};
use crate::plan::{Origin, Step, TensorId, View, dense_strides};

/// Maps on the way from the mean of squares to the result that are looked at; exporters write up to seven.
const CHAIN_MAX: usize = 12;

/// Fuses around every mean of squares.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in 0..draft.len() {
        let Some(found) = Squares::at(draft, slot).and_then(|squares| squares.norm(draft)) else { continue };
        let fill = |draft: &mut Draft, view: Option<View>, value: f64| match view {
            Some(view) => Ok(view),
            None => {
                let tensor = Tensor::from_scalars(draft.tensor(found.x.tensor).ty.dtype, &[], [Scalar::Float(value)]);
                draft.add("", tensor.ty(), Origin::Constant(tensor)).broadcast(&found.x.shape)
            }
        };
        let scale = fill(draft, found.scale, 1.0)?;
        let bias = fill(draft, found.bias, 0.0)?;
        let inputs = vec![found.x.clone(), scale, bias];
        let step = Step { kernel: found.kernel.into(), inputs, outputs: vec![found.output], node: found.node };
        draft.supersede(found.slot, step);
    }
    Ok(())
}

/// A norm that was found, its views with the normalised axes last.
struct Found {
    slot: usize,
    kernel: Norm,
    x: View,
    scale: Option<View>,
    bias: Option<View>,
    output: View,
    node: String,
}

/// A mean of squares `mean(c * c)`.
struct Squares<'a> {
    reduce: &'a Reduce,
    /// The mean.
    mean: TensorId,
    /// c as the reduction's index space sees it.
    c: View,
    /// x of `c = x - mean(x)` in the same index space; c itself for a root mean square.
    x: View,
    kind: NormKind,
}

impl<'a> Squares<'a> {
    fn at(draft: &'a Draft, slot: usize) -> Option<Squares<'a>> {
        let (reduce, step) = mean(draft, slot)?;
        let squared = step.inputs[0].tensor;
        let (map, square) = draft.map(draft.producer(squared)?)?;
        let (map, _) = map.simplified();
        if map.body != [Instr::Input(0), Instr::Binary(Binary::Mul, 0, 0)] || !map.output.is_float() {
            return None;
        }
        let square_order = square.outputs[0].walk_order(square.outputs[0].count())?;
        let c = step.inputs[0].through(&square.inputs[0].permute(&square_order))?;
        let first = draft.producer(squared)?;
        let centred = Self::centred(draft, reduce, &c);
        let kind = if centred.is_some() { NormKind::Layer } else { NormKind::Rms };
        let x = centred.unwrap_or_else(|| c.clone());
        let settled = draft.is_settled(x.tensor, first) && draft.is_settled(c.tensor, first);
        settled.then_some(Squares { reduce, mean: step.outputs[0].tensor, c, x, kind })
    }

    /// The x of `c = x - mean(x)`.
    fn centred(draft: &Draft, reduce: &Reduce, c: &View) -> Option<View> {
        let (map, step) = draft.map(draft.producer(c.tensor)?)?;
        let [Instr::Input(a), Instr::Input(b), Instr::Binary(Binary::Sub, 0, 1)] = map.body[..] else { return None };
        let order = step.outputs[0].walk_order(step.outputs[0].count())?;
        let [x, mean_of_x] = [a, b].map(|operand| c.through(&step.inputs[operand].permute(&order)));
        let (x, mean_of_x) = (x?, mean_of_x?);
        let (other, source) = mean(draft, draft.producer(mean_of_x.tensor)?)?;
        let same = other == reduce
            && same_elements(&source.inputs[0], &x)
            && source.outputs[0].is_dense()
            && is_spread(&mean_of_x, &reduce.axes)
            && draft.is_settled(x.tensor, draft.producer(mean_of_x.tensor)?);
        same.then_some(x)
    }

    /// The longest chain from here that is a norm.
    fn norm(&self, draft: &Draft) -> Option<Found> {
        let mut inner: Vec<TensorId> = Vec::new();
        let mut best = None;
        let mut slot = draft.only_reader(self.mean)?;
        let mut past_root = 0;
        for _ in 0..CHAIN_MAX {
            let Some((_, step)) = draft.map(slot) else { break };
            if step.outputs[0].count() == self.c.count() {
                let found = inlined_all(draft, step, &inner).and_then(|whole| self.matched(draft, slot, &whole));
                best = found.or(best);
                past_root += 1;
            }
            inner.push(step.outputs[0].tensor);
            // Behind the quotient only a scale and a shift can follow.
            match draft.only_reader(step.outputs[0].tensor) {
                Some(next) if past_root <= 3 && draft.producer(step.outputs[0].tensor) == Some(slot) => slot = next,
                _ => break,
            }
        }
        best
    }

    /// The map `whole` (in place of the step in `slot`) as a norm of x.
    fn matched(&self, draft: &Draft, slot: usize, whole: &Step) -> Option<Found> {
        let Kernel::Map(map) = &whole.kernel else { return None };
        let rank = self.c.rank();
        if whole.outputs[0].shape != self.c.shape {
            return None;
        }
        let mut reader = Reader { map, numerator: Vec::new(), roots: Vec::new() };
        let result = map.body.len() - 1;
        let (product, shift) = match map.body[result] {
            Instr::Binary(Binary::Add, a, b) if reader.operand(b).is_some() => (a, reader.operand(b)),
            Instr::Binary(Binary::Add, a, b) if reader.operand(a).is_some() => (b, reader.operand(a)),
            _ => (result, None),
        };
        reader.factors(product)?;
        let [root] = reader.roots[..] else { return None };
        let (variance, epsilon) = reader.plus_constant(root)?;
        let is_mean = |view: &View| view.tensor == self.mean && is_spread(view, &self.reduce.axes);
        let is_c = |view: &View| same_elements(view, &self.c);
        let mut rest = reader.numerator.clone();
        rest.remove(rest.iter().position(|&operand| is_c(&whole.inputs[operand]))?);
        if !is_mean(&whole.inputs[variance]) || rest.len() > 1 || !(epsilon as f32).is_finite() {
            return None;
        }
        let kept: Vec<usize> = (0..rank).filter(|axis| !self.reduce.axes.contains(axis)).collect();
        let order = [&kept[..], &self.reduce.axes].concat();
        let parameter = |operand: usize| {
            let view = &whole.inputs[operand];
            let varies = |&axis: &usize| view.shape[axis] != 1 && view.strides[axis] != 0;
            let usable = !kept.iter().any(varies) && view.tensor != self.c.tensor && view.tensor != self.mean;
            usable.then(|| view.permute(&order))
        };
        let scale = rest.first().map(|&operand| parameter(operand));
        let bias = shift.map(parameter);
        let dtype = draft.tensor(self.x.tensor).ty.dtype;
        let one_type = map.output == dtype && map.inputs.iter().all(|&input| input == dtype);
        if !one_type || matches!(scale, Some(None)) || matches!(bias, Some(None)) {
            return None;
        }
        Some(Found {
            slot,
            kernel: Norm { kind: self.kind, axes: self.reduce.axes.len(), epsilon: epsilon as f32 },
            x: self.x.permute(&order),
            scale: scale.flatten(),
            bias: bias.flatten(),
            output: whole.outputs[0].permute(&order),
            node: whole.node.clone(),
        })
    }
}

/// Reads the program of a norm as a quotient.
struct Reader<'a> {
    map: &'a Map,
    /// Operands above the line.
    numerator: Vec<usize>,
    /// Arguments of the square roots below the line.
    roots: Vec<Reg>,
}

impl Reader<'_> {
    fn operand(&self, reg: Reg) -> Option<usize> {
        match self.map.body[reg] {
            Instr::Input(operand) => Some(operand),
            _ => None,
        }
    }

    fn constant(&self, reg: Reg) -> Option<f64> {
        match self.map.body[reg] {
            Instr::Const(_, value) => Some(value.as_f64()),
            _ => None,
        }
    }

    /// Collects the factors of a product; `None` if one of them has no place in a norm.
    fn factors(&mut self, product: Reg) -> Option<()> {
        let mut open = vec![(product, true)];
        while let Some((reg, above)) = open.pop() {
            match self.map.body[reg] {
                Instr::Input(operand) if above => self.numerator.push(operand),
                Instr::Const(..) if self.constant(reg) == Some(1.0) => {}
                Instr::Binary(Binary::Mul, a, b) => open.extend([(a, above), (b, above)]),
                Instr::Binary(Binary::Div, a, b) => open.extend([(a, above), (b, !above)]),
                Instr::Unary(Unary::Reciprocal, x) => open.push((x, !above)),
                Instr::Unary(Unary::Sqrt, x) if !above => self.roots.push(x),
                Instr::Binary(Binary::Pow, x, power)
                    if self.constant(power) == Some(if above { -0.5 } else { 0.5 }) =>
                {
                    self.roots.push(x);
                }
                _ => return None,
            }
            // A norm has at most c, a scale and a root; a longer product is none.
            if open.len() + self.numerator.len() + self.roots.len() > 8 {
                return None;
            }
        }
        Some(())
    }

    /// The operand and the constant of `operand + constant`.
    fn plus_constant(&self, reg: Reg) -> Option<(usize, f64)> {
        let Instr::Binary(Binary::Add, a, b) = self.map.body[reg] else { return None };
        let split = |a, b| Some((self.operand(a)?, self.constant(b)?));
        split(a, b).or_else(|| split(b, a))
    }
}

/// A mean over axes of a float tensor, its result a whole tensor.
fn mean(draft: &Draft, slot: usize) -> Option<(&Reduce, &Step)> {
    let step = draft.step(slot)?;
    let Kernel::Reduce(reduce) = &step.kernel else { return None };
    let whole = draft.producer(step.outputs[0].tensor) == Some(slot) && step.outputs[0].is_dense();
    (reduce.op == ReduceOp::Mean && !reduce.axes.is_empty() && whole).then_some((reduce, step))
}

/// The map with every producer of one of `inner` in its place.
fn inlined_all(draft: &Draft, step: &Step, inner: &[TensorId]) -> Option<Step> {
    let mut step = step.clone();
    for _ in 0..=inner.len() {
        match step.inputs.iter().map(|view| view.tensor).find(|id| inner.contains(id)) {
            Some(id) => step = inlined(draft, &step, id)?,
            None => break,
        }
    }
    let Kernel::Map(map) = &step.kernel else { return None };
    let (map, kept) = map.simplified();
    let inputs = kept.into_iter().map(|index| step.inputs[index].clone()).collect();
    Some(Step { kernel: map.into(), inputs, ..step })
}

/// Whether the view repeats, along `axes`, a dense tensor of the other axes.
fn is_spread(view: &View, axes: &[usize]) -> bool {
    let kept = |axis: &usize| !axes.contains(axis);
    let shape: Vec<usize> = (0..view.rank()).filter(kept).map(|axis| view.shape[axis]).collect();
    let mut dense = dense_strides(&shape).into_iter();
    view.offset == 0
        && (0..view.rank()).all(|axis| {
            let expected = if kept(&axis) { dense.next().unwrap_or(0) } else { 0 };
            view.shape[axis] == 1 || view.strides[axis] == expected
        })
}

/// Whether two views of one shape show the same elements.
fn same_elements(a: &View, b: &View) -> bool {
    let mut axes = a.shape.iter().zip(a.strides.iter().zip(&b.strides));
    (a.tensor, a.offset, &a.shape) == (b.tensor, b.offset, &b.shape)
        && axes.all(|(&extent, (a, b))| extent == 1 || a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::plan::passes::trial::{Trial, kernels};
    use crate::plan::passes::{cse, scalars};

    const AXIS: usize = 2;

    /// The mean over `axis`, kept as an axis of extent 1.
    fn mean_of(trial: &mut Trial, x: &View, axis: usize) -> View {
        trial.emit(Reduce { op: ReduceOp::Mean, axes: vec![axis] }, &[x]).insert_axis(axis)
    }

    /// `mean(c^2) + epsilon`
    fn variance(trial: &mut Trial, c: &View, axis: usize) -> View {
        let (two, epsilon) = (trial.scalar(2.0), trial.scalar(1e-5));
        let squares = trial.builder.binary(Binary::Pow, c, &two).unwrap();
        let mean = mean_of(trial, &squares, axis);
        trial.builder.binary(Binary::Add, &mean, &epsilon).unwrap()
    }

    fn optimized(trial: &Trial) -> Plan {
        trial.check(|draft| {
            scalars::run(draft)?;
            cse::run(draft)?;
            run(draft)
        })
    }

    fn norm(plan: &Plan) -> &Norm {
        match &plan.steps[..] {
            [Step { kernel: Kernel::Norm(norm), .. }] => norm,
            _ => panic!("{:?}", kernels(plan)),
        }
    }

    #[test]
    fn layer_normalization_as_pytorch_writes_it() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3, 8]);
        let (gamma, beta) = (trial.weight(&[8]), trial.weight(&[8]));
        let mean = mean_of(&mut trial, &x, AXIS);
        // Some exporters subtract twice.
        let [c, again] = [(); 2].map(|()| trial.builder.binary(Binary::Sub, &x, &mean).unwrap());
        let variance = variance(&mut trial, &again, AXIS);
        let b = &mut trial.builder;
        let root = b.unary(Unary::Sqrt, &variance).unwrap();
        let quotient = b.binary(Binary::Div, &c, &root).unwrap();
        let scaled = b.binary(Binary::Mul, &quotient, &gamma).unwrap();
        let shifted = b.binary(Binary::Add, &scaled, &beta).unwrap();
        trial.deliver(&shifted);
        let plan = optimized(&trial);
        assert_eq!(*norm(&plan), Norm { kind: NormKind::Layer, axes: 1, epsilon: 1e-5 });
        assert_eq!(plan.steps[0].inputs[1].strides, [0, 0, 1]);
    }

    #[test]
    fn rms_normalization_by_a_negative_power_without_shift() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3, 8]);
        let gamma = trial.weight(&[8]);
        let power = trial.scalar(-0.5);
        let variance = variance(&mut trial, &x, AXIS);
        let b = &mut trial.builder;
        let inverse = b.binary(Binary::Pow, &variance, &power).unwrap();
        let quotient = b.binary(Binary::Mul, &x, &inverse).unwrap();
        let scaled = b.binary(Binary::Mul, &gamma, &quotient).unwrap();
        trial.deliver(&scaled);
        assert_eq!(norm(&optimized(&trial)).kind, NormKind::Rms);
    }

    #[test]
    fn a_norm_over_channels_in_the_middle_permutes_its_views() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 4, 3]);
        let mean = mean_of(&mut trial, &x, 1);
        let c = trial.builder.binary(Binary::Sub, &x, &mean).unwrap();
        let variance = variance(&mut trial, &c, 1);
        let root = trial.builder.unary(Unary::Sqrt, &variance).unwrap();
        let inverse = trial.builder.unary(Unary::Reciprocal, &root).unwrap();
        let quotient = trial.builder.binary(Binary::Mul, &c, &inverse).unwrap();
        trial.deliver(&quotient);
        let plan = optimized(&trial);
        assert_eq!(norm(&plan).kind, NormKind::Layer);
        assert_eq!(plan.steps[0].outputs[0].shape, [2, 3, 4]);
    }

    #[test]
    fn what_only_looks_like_a_norm_stays() {
        // The mean is of another tensor.
        let mut trial = Trial::empty();
        let (x, y) = (trial.input(&[2, 8]), trial.input(&[2, 8]));
        let variance = variance(&mut trial, &y, 1);
        let root = trial.builder.unary(Unary::Sqrt, &variance).unwrap();
        let quotient = trial.builder.binary(Binary::Div, &x, &root).unwrap();
        trial.deliver(&quotient);
        assert!(!kernels(&optimized(&trial)).contains(&"Norm"));

        // A scale that differs from row to row is applied after the norm.
        let mut trial = Trial::empty();
        let (x, rows) = (trial.input(&[2, 8]), trial.input(&[2, 1]));
        let variance = self::variance(&mut trial, &x, 1);
        let root = trial.builder.unary(Unary::Sqrt, &variance).unwrap();
        let quotient = trial.builder.binary(Binary::Div, &x, &root).unwrap();
        let scaled = trial.builder.binary(Binary::Mul, &quotient, &rows).unwrap();
        trial.deliver(&scaled);
        assert_eq!(kernels(&optimized(&trial)), ["Norm", "Map"]);
    }
}
