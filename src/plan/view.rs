//! Views: affine maps from an index space into the row-major elements of a tensor. Transposition, slicing, broadcasting
//! and most reshaping are view arithmetic and cost no step.

use crate::error::{Result, ensure, fail};
use crate::ir::{Element, Shape, Tensor, element_count};
use bytes::Bytes;

/// Index of a tensor of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// Element `(i, j, ..)` of the view is element `offset + i strides[0] + j strides[1] + ..` of the tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The tensor viewed.
    pub tensor: TensorId,
    /// Position of the view's first element.
    pub offset: usize,
    /// Extents.
    pub shape: Shape,
    /// Steps in elements of the tensor; 0 broadcasts, negative reverses.
    pub strides: Vec<isize>,
}

/// The strides of a dense row-major tensor.
pub fn dense_strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1].max(1) as isize;
    }
    strides
}

impl View {
    /// The whole of a dense tensor.
    pub fn dense(tensor: TensorId, shape: &[usize]) -> View {
        View { tensor, offset: 0, shape: shape.to_vec(), strides: dense_strides(shape) }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements presented.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements are presented in row-major order without gaps.
    pub fn is_dense(&self) -> bool {
        let expected = dense_strides(&self.shape);
        let mut axes = self.shape.iter().zip(self.strides.iter().zip(&expected));
        self.count() == 0 || axes.all(|(&extent, (stride, dense))| extent == 1 || stride == dense)
    }

    /// Axis `i` of the result is axis `order[i]` of this view.
    #[must_use]
    pub fn permute(&self, order: &[usize]) -> View {
        View {
            tensor: self.tensor,
            offset: self.offset,
            shape: order.iter().map(|&axis| self.shape[axis]).collect(),
            strides: order.iter().map(|&axis| self.strides[axis]).collect(),
        }
    }

    /// Exchanges two axes.
    #[must_use]
    pub fn swap(&self, a: usize, b: usize) -> View {
        let mut view = self.clone();
        view.shape.swap(a, b);
        view.strides.swap(a, b);
        view
    }

    /// Adds an axis of extent 1 before `axis`.
    #[must_use]
    pub fn insert_axis(&self, axis: usize) -> View {
        let mut view = self.clone();
        view.shape.insert(axis, 1);
        view.strides.insert(axis, 0);
        view
    }

    /// Removes an axis of extent 1.
    #[must_use]
    pub fn remove_axis(&self, axis: usize) -> View {
        debug_assert_eq!(self.shape[axis], 1);
        let mut view = self.clone();
        view.shape.remove(axis);
        view.strides.remove(axis);
        view
    }

    /// `len` elements of an axis from `start`, `step` apart (negative steps go down).
    #[must_use]
    pub fn slice(&self, axis: usize, start: usize, len: usize, step: isize) -> View {
        let mut view = self.clone();
        if len > 0 {
            view.offset = (view.offset as isize + start as isize * view.strides[axis]) as usize;
        }
        view.shape[axis] = len;
        view.strides[axis] *= step;
        view
    }

    /// Broadcasts to `shape` by the ONNX (numpy) rule: axes are aligned at the end, an extent of 1 repeats.
    pub fn broadcast(&self, shape: &[usize]) -> Result<View> {
        let added = shape.len().checked_sub(self.rank());
        let Some(added) = added else {
            return Err(fail!(ShapeMismatch, "cannot broadcast {:?} to {shape:?}", self.shape));
        };
        let mut strides = vec![0; shape.len()];
        for axis in 0..self.rank() {
            let (from, to) = (self.shape[axis], shape[added + axis]);
            ensure!(from == to || from == 1, ShapeMismatch, "cannot broadcast {:?} to {shape:?}", self.shape);
            strides[added + axis] = if from == 1 { 0 } else { self.strides[axis] };
        }
        Ok(View { tensor: self.tensor, offset: self.offset, shape: shape.to_vec(), strides })
    }

    /// The same elements in the same row-major order under another shape, if that is a view: `None` means a copy is needed.
    pub fn reshape(&self, shape: &[usize]) -> Option<View> {
        debug_assert_eq!(self.count(), shape.iter().product::<usize>());
        let mut view =
            View { tensor: self.tensor, offset: self.offset, shape: shape.to_vec(), strides: vec![0; shape.len()] };
        if self.count() == 0 {
            return Some(view);
        }
        // Runs of source axes that advance together, innermost first: (elements, stride).
        let mut runs = self.merged_runs();
        let mut run = runs.pop();
        for axis in (0..shape.len()).rev().filter(|&axis| shape[axis] != 1) {
            let (left, stride) = loop {
                match run {
                    Some((1, _)) => run = runs.pop(),
                    Some(current) => break current,
                    None => unreachable!("equal element counts"),
                }
            };
            if left % shape[axis] != 0 {
                return None;
            }
            view.strides[axis] = stride;
            run = Some((left / shape[axis], stride * shape[axis] as isize));
        }
        Some(view)
    }

    /// Maximal groups of neighbouring axes that one stride walks, outermost first: (elements, innermost stride).
    fn merged_runs(&self) -> Vec<(usize, isize)> {
        let mut runs: Vec<(usize, isize)> = Vec::new();
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).filter(|(extent, _)| **extent != 1) {
            match runs.last_mut() {
                Some((elements, outer)) if *outer == stride * extent as isize => {
                    (*elements, *outer) = (*elements * extent, stride);
                }
                _ => runs.push((extent, stride)),
            }
        }
        runs
    }

    /// This view, which looks at a dense copy of `source`, as a view of `source`'s own tensor; `None` if an axis of this
    /// view runs across several axes of `source` that do not advance together.
    pub fn through(&self, source: &View) -> Option<View> {
        if self.count() == 0 || source.count() == 0 {
            return None;
        }
        let runs = source.merged_runs();
        // Elements of the copy that one step along each run skips.
        let mut weights = vec![1usize; runs.len()];
        for index in (0..runs.len().saturating_sub(1)).rev() {
            weights[index] = weights[index + 1] * runs[index + 1].0;
        }
        // Digits that each axis may still use, so that no two axes carry into the next digit together.
        let digit_of = |position: usize, index: usize| position / weights[index] % runs[index].0;
        let mut reach: Vec<isize> = (0..runs.len()).map(|index| digit_of(self.offset, index) as isize).collect();
        let mut low = reach.clone();
        let mut view = View {
            tensor: source.tensor,
            offset: source.offset,
            shape: self.shape.clone(),
            strides: vec![0; self.rank()],
        };
        for (index, &(_, stride)) in runs.iter().enumerate() {
            view.offset = (view.offset as isize + digit_of(self.offset, index) as isize * stride) as usize;
        }
        for axis in (0..self.rank()).filter(|&axis| self.shape[axis] != 1 && self.strides[axis] != 0) {
            let step = self.strides[axis];
            let index = (0..runs.len()).find(|&index| weights[index] <= step.unsigned_abs())?;
            if !step.unsigned_abs().is_multiple_of(weights[index]) {
                return None;
            }
            let digits = step / weights[index] as isize;
            let span = digits * (self.shape[axis] - 1) as isize;
            if span >= 0 {
                reach[index] += span
            } else {
                low[index] += span
            }
            view.strides[axis] = digits * runs[index].1;
        }
        let inside = runs
            .iter()
            .zip(low.iter().zip(&reach))
            .all(|(&(extent, _), (&low, &high))| low >= 0 && high < extent as isize);
        inside.then_some(view)
    }

    /// The order of the axes in which this view walks the elements 0, 1, .. of a tensor of `count` elements one after the
    /// other; `None` if it does not present each of them exactly once.
    pub fn walk_order(&self, count: usize) -> Option<Vec<usize>> {
        if self.offset != 0 || self.count() != count || count == 0 {
            return None;
        }
        let mut order: Vec<usize> = (0..self.rank()).collect();
        if !self.is_dense() {
            order.sort_by_key(|&axis| (self.shape[axis] != 1, -self.strides[axis]));
        }
        self.permute(&order).is_dense().then_some(order)
    }

    /// Splits an axis in two, the second of extent `inner`, a divisor of the axis's extent.
    #[must_use]
    pub fn split(&self, axis: usize, inner: usize) -> View {
        let mut view = self.clone();
        view.shape[axis] /= inner;
        view.strides[axis] *= inner as isize;
        view.shape.insert(axis + 1, inner);
        view.strides.insert(axis + 1, self.strides[axis]);
        view
    }

    /// Where [`View::through`] refuses because an axis runs across neighbouring runs of `source`: that axis, and the inner
    /// extent to split it by before trying again.
    pub fn split_for(&self, source: &View) -> Option<(usize, usize)> {
        let mut weight = 1;
        for &(extent, _) in source.merged_runs().iter().rev() {
            for axis in 0..self.rank() {
                let stride = self.strides[axis];
                let fits =
                    stride > 0 && (stride as usize).is_multiple_of(weight) && (stride as usize) < weight * extent;
                if !fits || !extent.is_multiple_of(stride as usize / weight) {
                    continue;
                }
                let inner = extent / (stride as usize / weight);
                if inner > 1 && self.shape[axis] > inner && self.shape[axis].is_multiple_of(inner) {
                    return Some((axis, inner));
                }
            }
            weight *= extent;
        }
        None
    }

    /// The least and the greatest position presented; `None` if there are no elements, or if a position overflows.
    pub fn bounds(&self) -> Option<(usize, usize)> {
        let (mut low, mut high) = (isize::try_from(self.offset).ok()?, isize::try_from(self.offset).ok()?);
        for (&extent, &stride) in self.shape.iter().zip(&self.strides) {
            let span = isize::try_from(extent.checked_sub(1)?).ok()?.checked_mul(stride)?;
            (low, high) = if span < 0 { (low.checked_add(span)?, high) } else { (low, high.checked_add(span)?) };
        }
        Some((usize::try_from(low).ok()?, usize::try_from(high).ok()?))
    }

    /// Whether no two elements coincide: every stride skips all that the smaller strides reach.
    pub fn is_injective(&self) -> bool {
        let axes = self.shape.iter().zip(&self.strides).filter(|(extent, _)| **extent > 1);
        let mut axes: Vec<(usize, usize)> = axes.map(|(&extent, &stride)| (stride.unsigned_abs(), extent)).collect();
        axes.sort_unstable();
        let mut reach = 0usize;
        self.count() == 0
            || axes.iter().all(|&(stride, extent)| {
                let apart = stride > reach;
                reach = reach.saturating_add(stride.saturating_mul(extent - 1));
                apart
            })
    }

    /// Whether this and another view of a row-major tensor of `shape` certainly show no common element: along some axis of the
    /// tensor their ranges do not meet. `false` if that cannot be told.
    pub fn is_apart(&self, other: &View, shape: &[usize]) -> bool {
        match (self.ranges(shape), other.ranges(shape)) {
            (Some(a), Some(b)) => a.iter().zip(&b).any(|(a, b)| a.1 < b.0 || b.1 < a.0),
            _ => false,
        }
    }

    /// The least and greatest index that the view reaches along each axis of a row-major tensor of `shape`; `None` if it
    /// carries from one axis into the next.
    fn ranges(&self, shape: &[usize]) -> Option<Vec<(usize, usize)>> {
        let weights = dense_strides(shape);
        let digit = |axis: usize| self.offset / weights[axis] as usize % shape[axis].max(1);
        let mut ranges: Vec<(isize, isize)> =
            (0..shape.len()).map(|axis| (digit(axis) as isize, digit(axis) as isize)).collect();
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).filter(|(extent, _)| **extent > 1) {
            let axis = (0..shape.len()).find(|&axis| shape[axis] > 1 && weights[axis].abs() <= stride.abs());
            let Some(axis) = axis.filter(|_| stride != 0) else { continue };
            (stride % weights[axis] == 0).then_some(())?;
            let span = stride / weights[axis] * (extent as isize - 1);
            if span < 0 { ranges[axis].0 += span } else { ranges[axis].1 += span }
        }
        let inside = ranges.iter().zip(shape).all(|(&(low, high), &extent)| low >= 0 && high < extent.max(1) as isize);
        inside.then(|| ranges.into_iter().map(|(low, high)| (low as usize, high as usize)).collect())
    }

    /// Calls `visit` with the position of every element, in row-major order of the view.
    pub fn for_each_position(&self, mut visit: impl FnMut(usize)) {
        if self.count() == 0 {
            return;
        }
        let mut index = vec![0usize; self.rank()];
        let mut position = self.offset as isize;
        loop {
            visit(position as usize);
            let mut axis = self.rank();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                index[axis] += 1;
                position += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                position -= self.strides[axis] * self.shape[axis] as isize;
                index[axis] = 0;
            }
        }
    }

    /// A dense copy of the elements that this view presents of `tensor`. A dense view shares the bytes.
    pub fn materialize(&self, tensor: &Tensor) -> Result<Tensor> {
        let size = tensor.dtype().bytes();
        let count = element_count(&self.shape)?;
        if self.is_dense() {
            let start = self.offset * size;
            let data = if count == 0 { Bytes::new() } else { tensor.data().slice(start..start + count * size) };
            return Tensor::new(tensor.dtype(), self.shape.clone(), data);
        }
        let mut data = Vec::new();
        data.try_reserve_exact(count * size)
            .map_err(|_| fail!(OutOfMemory, "no memory for a constant of {} bytes", count * size))?;
        self.for_each_position(|position| {
            data.extend_from_slice(&tensor.data()[position * size..(position + 1) * size])
        });
        Tensor::new(tensor.dtype(), self.shape.clone(), data.into())
    }

    /// The single value that every element of this view has, if all its strides are 0.
    pub fn uniform<T: Element>(&self, tensor: &Tensor) -> Option<T> {
        let same = self.shape.iter().zip(&self.strides).all(|(&extent, &stride)| extent == 1 || stride == 0);
        (same && self.count() > 0 && tensor.dtype() == T::DTYPE).then(|| T::from_scalar(tensor.at(self.offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(view: &View) -> Vec<usize> {
        let mut seen = Vec::new();
        view.for_each_position(|position| seen.push(position));
        seen
    }

    #[test]
    fn reshape_merges_and_splits_axes_that_advance_together() {
        let view = View::dense(TensorId(0), &[2, 3, 4]);
        assert_eq!(view.reshape(&[6, 4]).unwrap().strides, [4, 1]);
        assert_eq!(view.reshape(&[2, 1, 3, 2, 2]).unwrap().strides, [12, 0, 4, 2, 1]);
        assert!(view.permute(&[1, 0, 2]).reshape(&[6, 4]).is_none());
        let split = view.permute(&[1, 0, 2]).reshape(&[3, 2, 2, 2]).unwrap();
        assert_eq!(positions(&split), positions(&view.permute(&[1, 0, 2])));
    }

    #[test]
    fn a_view_of_a_copy_is_a_view_of_its_source_when_its_axes_allow() {
        // K of the dynamo exporter: [B, S, H, D] -> [B, H, S, D] -> copy [B H, S, D] -> transpose -> [B, H, D, S].
        let (b, s, h, d) = (2, 5, 3, 4);
        let source = View::dense(TensorId(0), &[b, s, h, d]).permute(&[0, 2, 1, 3]);
        let copy = View::dense(TensorId(1), &[b * h, s, d]).swap(1, 2).reshape(&[b, h, d, s]).unwrap();
        let direct = copy.through(&source).unwrap();
        let copied = positions(&source);
        let expected: Vec<usize> = positions(&copy).iter().map(|&position| copied[position]).collect();
        assert_eq!(positions(&direct), expected);
    }

    #[test]
    fn a_view_that_carries_across_source_axes_is_refused() {
        let source = View::dense(TensorId(0), &[4, 6]).swap(0, 1);
        assert!(View::dense(TensorId(1), &[24]).through(&source).is_none());
        let rows = View::dense(TensorId(1), &[6, 4]).slice(0, 1, 5, 1);
        assert_eq!(rows.through(&source).unwrap().strides, [1, 6]);
    }

    #[test]
    fn walk_order_finds_the_dense_reading_of_a_permuted_whole() {
        let view = View::dense(TensorId(0), &[2, 3, 4]).permute(&[2, 0, 1]);
        let order = view.walk_order(24).unwrap();
        assert_eq!(view.permute(&order), View::dense(TensorId(0), &[2, 3, 4]));
        assert_eq!(view.insert_axis(1).walk_order(24).map(|order| order.len()), Some(4));
        assert!(view.slice(0, 0, 3, 1).walk_order(24).is_none(), "a part is not the whole");
        assert!(view.slice(0, 3, 4, -1).walk_order(24).is_none(), "backwards");
        assert!(View::dense(TensorId(0), &[1, 4]).broadcast(&[6, 4]).unwrap().walk_order(24).is_none());
    }

    #[test]
    fn an_axis_across_two_runs_splits_so_that_it_can_be_looked_through() {
        // Grouped K: [B, KV, T, D] repeated to [B, KV, G, T, D], copied as [B, KV G, T, D].
        let (b, kv, g, t, d) = (2, 3, 4, 5, 6);
        let source = View::dense(TensorId(0), &[b, t, kv, d]).permute(&[0, 2, 1, 3]).insert_axis(2);
        let source = source.broadcast(&[b, kv, g, t, d]).unwrap();
        let copy = View::dense(TensorId(1), &[b, kv * g, t, d]);
        assert!(copy.through(&source).is_none());
        let (axis, inner) = copy.split_for(&source).unwrap();
        assert_eq!((axis, inner), (1, g));
        assert_eq!(positions(&copy.split(axis, inner).through(&source).unwrap()), positions(&source));
    }

    #[test]
    fn bounds_and_injectivity() {
        let view = View::dense(TensorId(0), &[4, 6]).slice(1, 5, 3, -2);
        assert_eq!(view.bounds(), Some((1, 23)));
        assert!(view.is_injective());
        assert!(!View::dense(TensorId(0), &[1, 3]).broadcast(&[2, 3]).unwrap().is_injective());
        assert_eq!(View { strides: vec![-7, 1], ..view }.bounds(), None, "before the first element");
    }

    #[test]
    fn parts_of_a_tensor_are_apart_if_their_ranges_are() {
        let whole = View::dense(TensorId(0), &[4, 6]);
        let (left, right) = (whole.slice(1, 0, 3, 1), whole.slice(1, 3, 3, 1));
        assert!(left.is_apart(&right, &[4, 6]));
        assert!(left.swap(0, 1).is_apart(&right.slice(0, 3, 4, -1), &[4, 6]));
        assert!(!left.is_apart(&whole.slice(0, 0, 1, 1), &[4, 6]));
        let flat = whole.reshape(&[24]).unwrap();
        assert!(!flat.slice(0, 0, 7, 1).is_apart(&flat.slice(0, 10, 2, 1), &[4, 6]), "carries: cannot be told");
    }

    #[test]
    fn materialize_follows_strides() {
        let tensor = Tensor::from_slice(&[2, 3], &[1i32, 2, 3, 4, 5, 6]);
        let view = View::dense(TensorId(0), &[2, 3]).swap(0, 1).slice(0, 2, 3, -1);
        assert_eq!(view.materialize(&tensor).unwrap().to_vec::<i32>().unwrap(), [3, 6, 2, 5, 1, 4]);
    }
}
