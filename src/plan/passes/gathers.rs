//! Gather by constant, evenly spaced indices -> a copy of a view, which later passes look through. Exporters slice this way; the dynamo
//! exporter even picks the whole of a mask by index tuples.

use super::Draft;
use crate::error::Result;
use crate::ir::Tensor;
use crate::kernels::{Kernel, Map};
use crate::plan::{Step, View, dense_strides};

/// Replaces Gather and GatherND where the indices are an affine function of their position.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in 0..draft.len() {
        let Some(view) = gathered(draft, slot) else { continue };
        let Some(step) = draft.step(slot) else { continue };
        let copy = Map::copy(draft.tensor(view.tensor).ty.dtype);
        let step = Step { kernel: copy.into(), inputs: vec![view], ..step.clone() };
        draft.replace(slot, step);
    }
    Ok(())
}

fn gathered(draft: &Draft, slot: usize) -> Option<View> {
    let step = draft.step(slot)?;
    let (first, batch_dims, depth, tuples) = match &step.kernel {
        Kernel::Gather(gather) => (gather.axis, 0, 1, step.inputs[1].shape.clone()),
        Kernel::GatherNd(gather) => {
            let (depth, tuples) = step.inputs[1].shape.split_last()?;
            (gather.batch_dims, gather.batch_dims, *depth, tuples.to_vec())
        }
        _ => return None,
    };
    if step.outputs[0].count() == 0 {
        return None;
    }
    let data = &step.inputs[0];
    let constant = draft.constant(&step.inputs[1])?;
    let indices = step.inputs[1].materialize(constant).ok()?;
    // The axes before the addressed ones stay, unless the tuples share them.
    let kept = if batch_dims > 0 { 0 } else { first };
    let mut view = View { tensor: data.tensor, offset: data.offset, shape: Vec::new(), strides: Vec::new() };
    view.shape = [&data.shape[..kept], &tuples, &data.shape[first + depth..]].concat();
    let mut strides = vec![0; tuples.len()];
    strides[..batch_dims].copy_from_slice(&data.strides[..batch_dims]);
    for column in 0..depth {
        let axis = first + column;
        let (start, steps) = affine(&indices, &tuples, column, depth, data.shape[axis])?;
        view.offset = view.offset.checked_add_signed(start * data.strides[axis])?;
        strides.iter_mut().zip(steps).for_each(|(stride, step)| *stride += step * data.strides[axis]);
    }
    view.strides = [&data.strides[..kept], &strides, &data.strides[first + depth..]].concat();
    Some(view)
}

/// The index at the first position and its growth along each axis of `tuples`, if that is all there is to one column of the
/// indices, and all lie within `extent`.
fn affine(
    indices: &Tensor,
    tuples: &[usize],
    column: usize,
    depth: usize,
    extent: usize,
) -> Option<(isize, Vec<isize>)> {
    let resolve = |position: usize| {
        let index = indices.at(position * depth + column).as_i64();
        let index = if index < 0 { index.checked_add(extent as i64)? } else { index };
        (0..extent as i64).contains(&index).then_some(index as isize)
    };
    let weights = dense_strides(tuples);
    let start = resolve(0)?;
    let mut steps = Vec::with_capacity(tuples.len());
    for (&size, &weight) in tuples.iter().zip(&weights) {
        steps.push(if size > 1 { resolve(weight as usize)? - start } else { 0 });
    }
    let expected = |position: usize| {
        let digits = tuples.iter().zip(&weights).map(|(&size, &weight)| position / weight as usize % size);
        start + digits.zip(&steps).map(|(digit, step)| digit as isize * step).sum::<isize>()
    };
    let even = (0..tuples.iter().product()).all(|position| resolve(position) == Some(expected(position)));
    even.then_some((start, steps))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Gather, GatherNd};
    use crate::plan::passes::draft::is_copy;
    use crate::plan::passes::trial::{Trial, kernels};

    fn gathered(shape: &[usize], kernel: impl Into<Kernel>, indices: Tensor) -> crate::plan::Plan {
        let mut trial = Trial::empty();
        let x = trial.input(shape);
        let indices = trial.builder.constant(indices);
        let y = trial.emit(kernel, &[&x, &indices]);
        trial.deliver(&y);
        trial.check(run)
    }

    #[test]
    fn evenly_spaced_indices_are_a_view() {
        for indices in [[0i64, 1, 2], [5, 3, 1], [-1, -2, -3], [4, 4, 4]] {
            let plan = gathered(&[2, 6, 3], Gather { axis: 1 }, Tensor::from_slice(&[3], &indices));
            assert!(is_copy(&plan.steps[0]), "{indices:?}");
        }
        let single = gathered(&[2, 6, 3], Gather { axis: 1 }, Tensor::scalar(4i64));
        assert!(is_copy(&single.steps[0]));
        let uneven = gathered(&[2, 6, 3], Gather { axis: 1 }, Tensor::from_slice(&[3], &[0i64, 1, 3]));
        assert_eq!(kernels(&uneven), ["Gather"]);
    }

    #[test]
    fn tuples_that_pick_a_whole_mask_are_a_view() {
        let tuples: Vec<i64> = (0..2).flat_map(|row| (0..5).flat_map(move |column| [row, column])).collect();
        let plan = gathered(&[2, 5], GatherNd { batch_dims: 0 }, Tensor::from_slice(&[2, 1, 1, 5, 2], &tuples));
        assert!(is_copy(&plan.steps[0]));
        assert_eq!(plan.steps[0].inputs[0].shape, [2, 1, 1, 5]);
    }

    #[test]
    fn tuples_per_batch_row_differ_from_row_to_row() {
        let kernel = || GatherNd { batch_dims: 1 };
        let even = gathered(&[2, 4, 3], kernel(), Tensor::from_slice(&[2, 2, 1], &[0i64, 1, 1, 2]));
        assert!(is_copy(&even.steps[0]));
        let uneven = gathered(&[2, 4, 3], kernel(), Tensor::from_slice(&[2, 2, 1], &[0i64, 1, 1, 3]));
        assert_eq!(kernels(&uneven), ["GatherNd"]);
    }
}
