//! Product of queries and keys -> elementwise scaling and masking -> Softmax -> product with values => Attention.
//!
//! Views have absorbed the transposes and reshapes by which exporters differ, so one pattern is left:
//! * the scores may pass any maps on the way to the softmax; their other operands (masks, position biases) become operands of `score`;
//! * constant factors of the scores, of Q and of K (PyTorch's SDPA multiplies both by `d^-1/4`) become `scale`;
//! * a map that replaces NaN by 0 after the softmax (rows that are masked throughout) becomes `guard_empty_rows`;
//! * the two products may group the batch differently (`[B H]` and `[B, H]`): both get the common refinement.

use super::Draft;
use super::factor::{factor, is_identity};
use super::maps::inlined;
use crate::error::Result;
use crate::ir::{DType, Scalar};
use crate::kernels::{Attention, Instr, Kernel, Map, MatMul, Unary};
use crate::plan::{Step, TensorId, View};

/// Maps between the first product and the softmax that are looked through; exporters write up to four.
const CHAIN_MAX: usize = 16;

/// Fuses around every softmax.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in 0..draft.len() {
        if let Some((last, step)) = fused(draft, slot) {
            draft.supersede(last, step);
        }
    }
    Ok(())
}

/// The attention around the softmax in `slot`, and the slot of its last step.
fn fused(draft: &Draft, slot: usize) -> Option<(usize, Step)> {
    let softmax = draft.step(slot)?;
    let Kernel::Softmax(kernel) = &softmax.kernel else { return None };
    if kernel.log || !is_whole(draft, &softmax.inputs[0]) {
        return None;
    }
    let (last, guard_empty_rows, values) = values_side(draft, slot)?;
    let scores = scores_side(draft, slot)?;
    let weighted = draft.step(last)?;
    let (product, values_batch) = (draft.step(scores.product)?, &weighted.inputs[0]);
    // Before opset 13 a softmax flattens what lies before its axis: only the products' shapes tell queries from batch.
    let (scored, weighing) = (&product.outputs[0].shape, &values_batch.shape);
    if scored.len() < 2 || weighing.len() < 2 || scored[scored.len() - 2..] != weighing[weighing.len() - 2..] {
        return None;
    }
    if softmax.inputs[0].shape.last() != scored.last() {
        return None;
    }
    let batch = refinement(&[scored, weighing])?;
    let regrouped = |view: &View, inner: &[usize]| view.reshape(&[&batch[..], inner].concat());
    let regroup = |view: &View| regrouped(view, &view.shape[view.rank() - 2..]);
    let (first, second) = (&product.inputs[0], &product.inputs[1]);
    let (q_scale, q) = without_factor(draft, first);
    let (k_scale, k) = without_factor(draft, second);
    let mut inputs = vec![regroup(&q)?, regroup(&k.swap(k.rank() - 2, k.rank() - 1))?, regroup(&values)?];
    let dtype = |view: &View| draft.tensor(view.tensor).ty.dtype;
    if inputs.iter().any(|view| dtype(view) != dtype(&inputs[0])) {
        return None;
    }
    for view in &scores.others {
        inputs.push(regrouped(view, &scored[scored.len() - 2..])?);
    }
    let kernel = Attention { scale: scores.scale * q_scale * k_scale, score: scores.map, guard_empty_rows };
    let outputs = vec![regroup(&weighted.outputs[0])?];
    Some((last, Step { kernel: kernel.into(), inputs, outputs, node: softmax.node.clone() }))
}

/// The slot of the product with the values, whether empty rows are guarded before it, and the values.
fn values_side(draft: &Draft, slot: usize) -> Option<(usize, bool, View)> {
    let mut weights = draft.step(slot)?.outputs[0].tensor;
    let mut guarded = false;
    let reader = match guard(draft, weights) {
        Some((guard, replaces)) => {
            (weights, guarded) = (draft.step(guard)?.outputs[0].tensor, replaces);
            draft.only_reader(weights)?
        }
        None => draft.only_reader(weights)?,
    };
    let (matmul, step) = product(draft, reader)?;
    let fits = matmul.alpha == 1.0
        && step.inputs[0].tensor == weights
        && is_whole(draft, &step.inputs[0])
        && step.inputs[1].tensor != weights
        && draft.is_settled(weights, reader)
        && draft.tensor(step.outputs[0].tensor).ty.dtype == draft.tensor(step.inputs[1].tensor).ty.dtype;
    fits.then(|| (reader, guarded, step.inputs[1].clone()))
}

/// The slot of the map (with its parts, which read the weights too) that alone takes the weights, and whether it guards empty rows.
fn guard(draft: &Draft, weights: TensorId) -> Option<(usize, bool)> {
    let readers: Vec<usize> = draft.readers(weights).take(CHAIN_MAX).collect();
    let (&last, parts) = readers.split_last()?;
    let mut step = draft.map(last)?.1.clone();
    for &part in parts {
        let result = draft.step(part)?.outputs[0].tensor;
        (draft.only_reader(result) == Some(last)).then_some(())?;
        step = inlined(draft, &step, result)?;
    }
    let Kernel::Map(map) = &step.kernel else { return None };
    let [view] = &step.inputs[..] else { return None };
    let whole = view.tensor == weights && is_whole(draft, view) && is_whole(draft, &step.outputs[0]);
    (whole && !draft.is_delivered(weights)).then_some((last, replaces_nan(map)?))
}

/// Whether the map is nothing but the guard of empty rows (true) or a conversion between floats (false).
fn replaces_nan(map: &Map) -> Option<bool> {
    let (map, _) = map.simplified();
    let zero = |instr: &Instr| matches!(instr, Instr::Const(_, Scalar::Float(value)) if *value == 0.0);
    let mut guarded = false;
    for instr in &map.body {
        match *instr {
            Instr::Input(0) => {}
            Instr::Const(..) if zero(instr) => {}
            Instr::Cast(to, _) if to.is_float() => {}
            Instr::Unary(Unary::IsNan, _) => {}
            Instr::Select(condition, a, b) => {
                let Instr::Unary(Unary::IsNan, tested) = map.body[condition] else { return None };
                if !zero(&map.body[a]) || tested != b {
                    return None;
                }
                guarded = true;
            }
            _ => return None,
        }
    }
    (map.inputs.len() == 1 && map.output.is_float()).then_some(guarded)
}

/// How the scores come about.
struct Scores {
    /// Slot of the product of queries and keys.
    product: usize,
    scale: f32,
    map: Option<Map>,
    others: Vec<View>,
}

fn scores_side(draft: &Draft, slot: usize) -> Option<Scores> {
    let tensor = draft.step(slot)?.inputs[0].tensor;
    (draft.only_reader(tensor) == Some(slot)).then_some(())?;
    let producer = draft.producer(tensor)?;
    if let Some((matmul, step)) = product(draft, producer) {
        let fits = draft.inputs_settled(producer) && is_whole(draft, &step.outputs[0]);
        return fits.then(|| Scores { product: producer, scale: matmul.alpha, map: None, others: Vec::new() });
    }
    let count = draft.tensor(tensor).ty.count();
    let mut step = draft.map(producer)?.1.clone();
    is_whole(draft, &step.outputs[0]).then_some(())?;
    for _ in 0..CHAIN_MAX {
        if let Some((operand, product)) = score_operand(draft, &step) {
            return masked_scores(draft, step, operand, product, producer);
        }
        let next = step.inputs.iter().map(|view| view.tensor).find(|&id| {
            let whole = draft.tensor(id).ty.count() == count && draft.only_reader(id).is_some();
            whole && draft.producer(id).is_some_and(|slot| draft.map(slot).is_some())
        });
        step = inlined(draft, &step, next?)?;
    }
    None
}

/// The operand of a map that is the whole of a product read nowhere else, and the product's slot.
fn score_operand(draft: &Draft, step: &Step) -> Option<(usize, usize)> {
    step.inputs.iter().enumerate().find_map(|(operand, view)| {
        let slot = draft.producer(view.tensor)?;
        let (_, product) = product(draft, slot)?;
        let only = draft.only_reader(view.tensor).is_some()
            && step.inputs.iter().filter(|other| other.tensor == view.tensor).count() == 1;
        let fits = only && is_whole(draft, view) && is_whole(draft, &product.outputs[0]) && draft.inputs_settled(slot);
        fits.then_some((operand, slot))
    })
}

fn masked_scores(draft: &Draft, step: Step, operand: usize, product_slot: usize, reader: usize) -> Option<Scores> {
    let Kernel::Map(map) = &step.kernel else { return None };
    let (matmul, _) = product(draft, product_slot)?;
    let mut to = vec![0; step.inputs.len()];
    let mut others = Vec::new();
    for other in (0..step.inputs.len()).filter(|&other| other != operand) {
        draft.is_settled(step.inputs[other].tensor, reader).then_some(())?;
        others.push(step.inputs[other].clone());
        to[other] = others.len();
    }
    // Scores are binary32 whatever the operands are.
    let mut map = map.rewired(&to);
    (map.inputs[0].is_float() && map.output.is_float()).then_some(())?;
    (map.inputs[0], map.output) = (DType::F32, DType::F32);
    let mut scale = matmul.alpha;
    while let Some((constant, rest)) = factor(&map, 0) {
        let (rest, kept) = rest.simplified();
        others = kept.iter().filter(|&&index| index > 0).map(|&index| others[index - 1].clone()).collect();
        (map, scale) = (rest, scale * constant);
    }
    let map = (!is_identity(&map)).then_some(map);
    Some(Scores { product: product_slot, scale, map, others })
}

/// A constant factor of a whole operand of the product, and the view of what it multiplies.
fn without_factor(draft: &Draft, view: &View) -> (f32, View) {
    let look = || {
        let producer = draft.producer(view.tensor)?;
        let (map, step) = draft.map(producer)?;
        let (scale, rest) = factor(map, 0)?;
        let (rest, _) = rest.simplified();
        let plain = is_identity(&rest) && rest.inputs == [rest.output] && draft.inputs_settled(producer);
        let order = step.outputs[0].walk_order(step.outputs[0].count())?;
        let source = view.through(&step.inputs[0].permute(&order))?;
        plain.then_some((scale, source))
    };
    look().unwrap_or((1.0, view.clone()))
}

/// A product of floats without an epilogue.
fn product(draft: &Draft, slot: usize) -> Option<(&MatMul, &Step)> {
    let step = draft.step(slot)?;
    let Kernel::MatMul(matmul) = &step.kernel else { return None };
    let float = draft.tensor(step.inputs[0].tensor).ty.dtype.is_float();
    (matmul.epilogue.is_none() && float).then_some((matmul, step))
}

/// Whether a view shows its tensor element by element, whatever the shapes.
fn is_whole(draft: &Draft, view: &View) -> bool {
    view.is_dense() && view.count() == draft.tensor(view.tensor).ty.count()
}

/// The coarsest batch extents that all shapes (less their last two axes) can be regrouped to by splitting axes only.
fn refinement(shapes: &[&[usize]]) -> Option<Vec<usize>> {
    let mut products: Vec<usize> = shapes
        .iter()
        .flat_map(|shape| {
            let batch = shape[..shape.len() - 2].iter().rev();
            batch.scan(1, |product, &extent| {
                *product *= extent;
                Some(*product)
            })
        })
        .filter(|&product| product != 1)
        .collect();
    products.sort_unstable();
    products.dedup();
    let mut inner = 1;
    let mut extents = Vec::with_capacity(products.len());
    for product in products {
        if product % inner != 0 {
            return None;
        }
        extents.push(product / inner);
        inner = product;
    }
    extents.reverse();
    Some(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Binary, Softmax};
    use crate::plan::Plan;
    use crate::plan::passes::trial::{Trial, kernels};
    use crate::plan::passes::{copies, scalars};

    const B: usize = 2;
    const H: usize = 3;
    const S: usize = 4;
    const D: usize = 2;

    fn matmul() -> MatMul {
        MatMul { alpha: 1.0, epilogue: None }
    }

    fn heads(view: &View) -> View {
        view.reshape(&[B, S, H, D]).unwrap().swap(1, 2)
    }

    fn optimized(trial: &Trial) -> (Plan, Attention) {
        let plan = trial.check(|draft| {
            scalars::run(draft)?;
            copies::run(draft)?;
            run(draft)
        });
        let found = plan.steps.iter().find_map(|step| match &step.kernel {
            Kernel::Attention(attention) => Some(attention.clone()),
            _ => None,
        });
        let found = found.unwrap_or_else(|| panic!("{:?}", kernels(&plan)));
        (plan, found)
    }

    /// Q, K, V as the projections give them.
    fn projections(trial: &mut Trial) -> [View; 3] {
        [(); 3].map(|()| trial.input(&[B, S, H * D]))
    }

    #[test]
    fn eager_style_scores_over_a_constant_plus_a_mask() {
        let mut trial = Trial::empty();
        let [q, k, v] = projections(&mut trial);
        let mask = trial.input(&[B, 1, 1, S]);
        let root = trial.scalar(1.5);
        let scores = trial.emit(matmul(), &[&heads(&q), &heads(&k).swap(2, 3)]);
        let scaled = trial.builder.binary(Binary::Div, &scores, &root).unwrap();
        let masked = trial.builder.binary(Binary::Add, &scaled, &mask).unwrap();
        let weights = trial.emit(Softmax { log: false }, &[&masked]);
        let context = trial.emit(matmul(), &[&weights, &heads(&v)]);
        trial.deliver(&context);
        let (plan, attention) = optimized(&trial);
        assert_eq!(kernels(&plan), ["Attention"]);
        assert_eq!(attention.scale, (1.0f64 / 1.5) as f32);
        assert_eq!(attention.score, Some(Map::binary(Binary::Add, DType::F32)));
        assert_eq!(plan.steps[0].inputs[3].strides, [S as isize, 0, 0, 1]);
    }

    #[test]
    fn sdpa_style_scales_both_sides_and_guards_empty_rows() {
        let mut trial = Trial::empty();
        let [q, k, v] = projections(&mut trial);
        let mask = trial.input(&[B, 1, S, S]);
        let (root, zero) = (trial.scalar(0.5), trial.scalar(0.0));
        let q = trial.builder.binary(Binary::Mul, &heads(&q), &root).unwrap();
        // The dynamo exporter folds batch and heads around the transposition of K.
        let k = trial.builder.reshape(&heads(&k), &[B * H, S, D]).unwrap().swap(1, 2);
        let k = trial.builder.reshape(&k, &[B, H, D, S]).unwrap();
        let k = trial.builder.binary(Binary::Mul, &k, &root).unwrap();
        let scores = trial.emit(matmul(), &[&q, &k]);
        let masked = trial.builder.binary(Binary::Add, &scores, &mask).unwrap();
        let weights = trial.emit(Softmax { log: false }, &[&masked]);
        let isnan = trial.builder.unary(Unary::IsNan, &weights).unwrap();
        let body = vec![Instr::Input(0), Instr::Input(1), Instr::Input(2), Instr::Select(0, 1, 2)];
        let guarded = trial.builder.map(&[&isnan, &zero, &weights], body, DType::F32).unwrap();
        let context = trial.emit(matmul(), &[&guarded, &heads(&v)]);
        trial.deliver(&context);
        let (plan, attention) = optimized(&trial);
        assert_eq!(kernels(&plan), ["Attention"]);
        assert_eq!((attention.scale, attention.guard_empty_rows), (0.25, true));
        assert!(plan.steps[0].inputs.iter().all(|view| plan.inputs.contains(&view.tensor)), "nothing is copied");
    }

    #[test]
    fn plain_style_without_scale_or_mask_in_a_folded_batch() {
        let mut trial = Trial::empty();
        let (q, k, v) = (trial.input(&[B * H, S, D]), trial.input(&[B * H, S, D]), trial.input(&[B, H, S, D]));
        let scores = trial.emit(matmul(), &[&q, &k.swap(1, 2)]);
        let weights = trial.emit(Softmax { log: false }, &[&scores.reshape(&[B * H * S, S]).unwrap()]);
        let context = trial.emit(matmul(), &[&weights.reshape(&[B, H, S, S]).unwrap(), &v]);
        trial.deliver(&context);
        let (plan, attention) = optimized(&trial);
        assert_eq!(kernels(&plan), ["Attention"]);
        assert_eq!(attention, Attention { scale: 1.0, score: None, guard_empty_rows: false });
    }

    #[test]
    fn grouped_queries_share_key_and_value_heads() {
        let (kv, group) = (2, 3);
        let mut trial = Trial::empty();
        let q = trial.input(&[B, kv * group, S, D]);
        let [k, v] = [(); 2].map(|()| trial.input(&[B, kv, S, D]));
        let scale = trial.scalar(0.5);
        let repeat = |trial: &mut Trial, view: &View| {
            let repeated = view.insert_axis(2).broadcast(&[B, kv, group, S, D]).unwrap();
            trial.builder.reshape(&repeated, &[B, kv * group, S, D]).unwrap()
        };
        let (k, v) = (repeat(&mut trial, &k), repeat(&mut trial, &v));
        let scores = trial.emit(matmul(), &[&q, &k.swap(2, 3)]);
        let scaled = trial.builder.binary(Binary::Mul, &scores, &scale).unwrap();
        let weights = trial.emit(Softmax { log: false }, &[&scaled]);
        let context = trial.emit(matmul(), &[&weights, &v]);
        trial.deliver(&context);
        let (plan, _) = optimized(&trial);
        assert_eq!(kernels(&plan), ["Attention"]);
        assert_eq!(plan.steps[0].inputs[1].shape, [B, kv, group, S, D]);
        assert_eq!(plan.steps[0].inputs[1].strides[2], 0);
    }

    #[test]
    fn weights_that_the_caller_wants_too_are_computed_apart() {
        let mut trial = Trial::empty();
        let [q, k, v] = projections(&mut trial);
        let scores = trial.emit(matmul(), &[&heads(&q), &heads(&k).swap(2, 3)]);
        let weights = trial.emit(Softmax { log: false }, &[&scores]);
        let context = trial.emit(matmul(), &[&weights, &heads(&v)]);
        trial.deliver(&context);
        trial.deliver(&weights);
        assert_eq!(kernels(&trial.check(run)), ["MatMul", "Softmax", "MatMul"]);
    }
}
