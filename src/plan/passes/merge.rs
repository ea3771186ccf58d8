//! Products of one A with several constant B -> one product with the B side by side; readers see slices of its result. The query, key
//! and value projections of attention are the case that matters: one large product instead of three reads A once and fills a device better.
//!
//! Runs behind the epilogues: products whose epilogues are the same program over constants per column merge together with them.
//! The merged weights replace the original ones, so a weight that something else reads too is left alone.

use super::Draft;
use super::copies::redirect;
use crate::error::Result;
use crate::ir::{Tensor, TensorType};
use crate::kernels::{Kernel, MatMul};
use crate::plan::{Origin, Step, View};
use std::collections::{BTreeMap, HashMap};

/// Products that are compared with each other and merged into one.
const MEMBERS_MAX: usize = 32;

/// Merges every set of products that can be.
pub fn run(draft: &mut Draft) -> Result<()> {
    let mut by_operand: HashMap<View, Vec<usize>> = HashMap::new();
    for slot in 0..draft.len() {
        if let Some((_, step)) = candidate(draft, slot) {
            by_operand.entry(step.inputs[0].clone()).or_default().push(slot);
        }
    }
    let mut groups: Vec<Vec<usize>> = by_operand.into_values().filter(|slots| slots.len() > 1).collect();
    groups.sort_unstable();
    for slots in groups.iter().flat_map(|slots| slots.chunks(MEMBERS_MAX)) {
        for members in alike(draft, slots) {
            merge(draft, &members)?;
        }
    }
    Ok(())
}

/// A product by constants that only it reads, `[K, N]` for the whole batch, with constants per column in its epilogue.
fn candidate(draft: &Draft, slot: usize) -> Option<(&MatMul, &Step)> {
    let step = draft.step(slot)?;
    let Kernel::MatMul(matmul) = &step.kernel else { return None };
    let rank = step.inputs[0].rank();
    let fixed = |view: &View, axes: usize| (0..axes).all(|axis| view.shape[axis] == 1 || view.strides[axis] == 0);
    let constant = |view: &View| draft.constant(view).is_some() && draft.only_reader(view.tensor) == Some(slot);
    let fits = constant(&step.inputs[1])
        && fixed(&step.inputs[1], rank - 2)
        && step.inputs[2..].iter().all(|view| draft.constant(view).is_some() && fixed(view, rank - 1))
        && draft.producer(step.outputs[0].tensor) == Some(slot)
        && !draft.is_delivered(step.outputs[0].tensor)
        && draft.is_settled(step.inputs[0].tensor, slot)
        && step.outputs[0].count() > 0;
    fits.then_some((matmul, step))
}

/// Splits candidates with one A into sets that compute the same of it.
fn alike(draft: &Draft, slots: &[usize]) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for &slot in slots {
        let same = |set: &&mut Vec<usize>| {
            let (a, b) = (draft.step(set[0]), draft.step(slot));
            a.zip(b).is_some_and(|(a, b)| {
                let types = |step: &Step| -> Vec<_> {
                    let views = step.inputs.iter().chain(&step.outputs);
                    views.map(|view| draft.tensor(view.tensor).ty.dtype).collect()
                };
                a.kernel == b.kernel && types(a) == types(b)
            })
        };
        match sets.iter_mut().find(same) {
            Some(set) => set.push(slot),
            None => sets.push(vec![slot]),
        }
    }
    sets
}

fn merge(draft: &mut Draft, slots: &[usize]) -> Result<()> {
    let mut members = slots.to_vec();
    let (changes, merged) = loop {
        let Some(first) = draft.step(members[0]).filter(|_| members.len() > 1) else { return Ok(()) };
        let results = members.iter().filter_map(|&slot| draft.step(slot)).map(|step| &step.outputs[0].shape);
        let columns = results.filter_map(|shape| shape.last()).sum();
        let mut shape = first.outputs[0].shape.clone();
        shape.splice(shape.len() - 1.., [columns]);
        let (name, dtype) = (first.node.clone(), draft.tensor(first.outputs[0].tensor).ty.dtype);
        let merged = draft.add(&name, TensorType::new(dtype, shape)?, Origin::Steps);
        match readers_of_slices(draft, &members, &merged) {
            Ok(changes) => break (changes, merged),
            Err(member) => members.retain(|&slot| slot != member),
        }
        if members.is_empty() {
            return Ok(());
        }
    };
    let Some(first) = draft.step(members[0]).cloned() else { return Ok(()) };
    let steps: Vec<Step> = members.iter().filter_map(|&slot| draft.step(slot).cloned()).collect();
    let mut inputs = vec![first.inputs[0].clone()];
    for operand in 1..first.inputs.len() {
        let views: Vec<&View> = steps.iter().map(|step| &step.inputs[operand]).collect();
        inputs.push(side_by_side(draft, &views, &merged, operand == 1)?);
    }
    members.iter().for_each(|&slot| draft.remove(slot));
    draft.replace(members[0], Step { inputs, outputs: vec![merged], ..first });
    for (reader, step) in changes {
        draft.replace(reader, step);
    }
    Ok(())
}

/// The readers of the members' results, rewritten to read slices of `merged`; the member that stands in the way if there is one.
fn readers_of_slices(
    draft: &Draft,
    members: &[usize],
    merged: &View,
) -> std::result::Result<BTreeMap<usize, Step>, usize> {
    let mut changes = BTreeMap::new();
    let mut start = 0;
    for &slot in members {
        let step = draft.step(slot).ok_or(slot)?;
        let result = &step.outputs[0];
        let (axis, columns) = (result.rank() - 1, result.shape[result.rank() - 1]);
        let order = result.walk_order(result.count()).ok_or(slot)?;
        let slice = merged.slice(axis, start, columns, 1).permute(&order);
        start += columns;
        for reader in draft.readers(result.tensor) {
            let current = changes.get(&reader).or(draft.step(reader)).ok_or(slot)?;
            let step = redirect(current, result, &slice).ok_or(slot)?;
            changes.insert(reader, step);
        }
    }
    Ok(changes)
}

/// The constants that `views` show, column after column, as an operand of the product `merged`.
fn side_by_side(draft: &mut Draft, views: &[&View], merged: &View, is_matrix: bool) -> Result<View> {
    let rank = merged.rank();
    let core = |view: &View| {
        let first = if is_matrix { rank - 2 } else { rank - 1 };
        let (shape, strides) = (view.shape[first..].to_vec(), view.strides[first..].to_vec());
        View { shape, strides, ..view.clone() }
    };
    // Weights that are stored column by column stay so: copying runs is fast.
    let by_column = is_matrix && views.iter().all(|view| view.strides[rank - 2] == 1);
    let mut parts: Vec<Tensor> = Vec::with_capacity(views.len());
    for view in views {
        let core = core(view);
        let core = if by_column { core.swap(0, 1) } else { core };
        if let Some(tensor) = draft.constant(view) {
            parts.push(core.materialize(tensor)?);
        }
    }
    let Some(first) = parts.first() else { return Ok(merged.clone()) };
    let (dtype, size) = (first.dtype(), first.dtype().bytes());
    let rows = if is_matrix && !by_column { first.shape()[0] } else { 1 };
    let mut data = Vec::with_capacity(parts.iter().map(|part| part.data().len()).sum());
    for row in 0..rows {
        for part in &parts {
            let bytes = part.data().len() / rows.max(1);
            data.extend_from_slice(&part.data()[row * bytes..(row + 1) * bytes]);
        }
    }
    let columns = merged.shape[rank - 1];
    let shape = match (is_matrix, by_column) {
        (true, false) => vec![rows, columns],
        (true, true) => vec![columns, data.len() / size / columns],
        (false, _) => vec![columns],
    };
    let name = draft.tensor(views[0].tensor).name.clone();
    let tensor = Tensor::new(dtype, shape, data.into())?;
    let whole = draft.add(&name, tensor.ty(), Origin::Constant(tensor));
    let whole = if by_column { whole.swap(0, 1) } else { whole };
    if is_matrix {
        whole.broadcast(&[&merged.shape[..rank - 2], &whole.shape[..]].concat())
    } else {
        whole.broadcast(&merged.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::kernels::{Binary, Map, Softmax, Unary};
    use crate::plan::Plan;
    use crate::plan::passes::trial::{Trial, kernels};

    /// `op(x w + bias)`
    fn projection(trial: &mut Trial, x: &View, w: &View, bias: &View) -> View {
        let epilogue = Some(Map::binary(Binary::Add, DType::F32));
        let shape = [&x.shape[..x.rank() - 1], &w.shape[w.rank() - 1..]].concat();
        let w = w.broadcast(&[&x.shape[..x.rank() - 2], &w.shape[..]].concat()).unwrap();
        trial.emit(MatMul { alpha: 1.0, epilogue }, &[x, &w, &bias.broadcast(&shape).unwrap()])
    }

    fn deliver_softmax(trial: &mut Trial, view: &View) {
        let result = trial.emit(Softmax { log: false }, &[view]);
        trial.deliver(&result);
    }

    fn weights(plan: &Plan) -> Vec<&[usize]> {
        let steps = plan.steps.iter().filter(|step| matches!(step.kernel, Kernel::MatMul(_)));
        steps.map(|step| &plan.tensor(step.inputs[1].tensor).ty.shape[..]).collect()
    }

    #[test]
    fn query_key_and_value_projections_become_one_product() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3, 4]);
        for columns in [6, 6, 8] {
            let (w, bias) = (trial.weight(&[4, columns]), trial.weight(&[columns]));
            let y = projection(&mut trial, &x, &w, &bias);
            let heads = y.reshape(&[2, 3, 2, columns / 2]).unwrap().swap(1, 2);
            deliver_softmax(&mut trial, &heads);
        }
        let plan = trial.check(run);
        assert_eq!(kernels(&plan), ["MatMul", "Softmax", "Softmax", "Softmax"]);
        assert_eq!(weights(&plan), [[4, 20]]);
        assert_eq!(plan.steps[3].inputs[0].offset, 12);
        assert_eq!(plan.tensors.len(), 1 + 2 + 1 + 3, "input, two constants, product, outputs");
    }

    #[test]
    fn weights_stored_by_column_stay_so() {
        let mut trial = Trial::empty();
        let x = trial.input(&[3, 4]);
        for columns in [2, 3] {
            let (w, bias) = (trial.weight(&[columns, 4]), trial.weight(&[columns]));
            let y = projection(&mut trial, &x, &w.swap(0, 1), &bias);
            deliver_softmax(&mut trial, &y);
        }
        assert_eq!(weights(&trial.check(run)), [[5, 4]]);
    }

    #[test]
    fn what_differs_or_is_shared_stays_apart() {
        let mut trial = Trial::empty();
        let (x, other) = (trial.input(&[3, 4]), trial.input(&[3, 4]));
        let (shared, bias) = (trial.weight(&[4, 5]), trial.weight(&[5]));
        // One weight read twice, and another A.
        for x in [&x, &x, &other] {
            let y = projection(&mut trial, x, &shared, &bias);
            deliver_softmax(&mut trial, &y);
        }
        // Another epilogue, and a result that is a model output itself.
        let (w, v) = (trial.weight(&[4, 5]), trial.weight(&[4, 5]));
        let plain = trial.emit(MatMul { alpha: 1.0, epilogue: None }, &[&x, &w]);
        deliver_softmax(&mut trial, &plain);
        let delivered = projection(&mut trial, &x, &v, &bias);
        trial.deliver(&delivered);
        assert_eq!(weights(&trial.check(run)).len(), 5);
    }

    #[test]
    fn a_result_that_is_read_across_rows_stays_apart() {
        let mut trial = Trial::empty();
        let x = trial.input(&[3, 4]);
        let views = [4, 4, 4].map(|columns| {
            let (w, bias) = (trial.weight(&[4, columns]), trial.weight(&[columns]));
            projection(&mut trial, &x, &w, &bias)
        });
        deliver_softmax(&mut trial, &views[0]);
        deliver_softmax(&mut trial, &views[1].reshape(&[12]).unwrap());
        let last = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&views[2]]);
        trial.deliver(&last);
        assert_eq!(weights(&trial.check(run)), [[4, 8], [4, 4]]);
    }
}
