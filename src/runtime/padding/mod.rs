//! Requests smaller than their bucket: which axes may be padded, what fills the rest, and which outputs shrink along.
//! `proof.rs` shows at load that the rest of the outputs is right.

mod proof;

use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Graph, Scalar, Shape, Tensor, TensorType};
use crate::plan;

/// Why padding a dimension does not change the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaddingKind {
    /// It counts independent rows.
    Batch,
    /// The model masks it.
    Masked,
}

/// An axis of an input that may be smaller than its bucket's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Padding {
    /// Why it may.
    pub kind: PaddingKind,
    /// A number of the caller's choice; axes with the same number always have the same extent.
    pub dimension: u32,
    /// The input.
    pub input: usize,
    /// The axis of that input.
    pub axis: usize,
    /// What the unused part is filled with.
    pub value: f64,
}

/// The dimension that an output axis follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// The caller's number of the dimension.
    pub dimension: u32,
    /// Indices of the axis for each of the dimension.
    pub repeat: usize,
}

/// Per output and axis, what its extent follows; `None` for an extent of its own.
pub type Followers = Vec<Vec<Option<Follower>>>;

/// The paddable axes of a model.
#[derive(Clone, Debug, Default)]
pub struct Paddings {
    list: Vec<Padding>,
}

impl Paddings {
    /// Checks the declarations against each other and the model's inputs.
    pub fn new(list: &[Padding], graph: &Graph) -> Result<Self> {
        for (index, padding) in list.iter().enumerate() {
            let input = graph.inputs.get(padding.input);
            let input = input
                .ok_or_else(|| fail!(InvalidArgument, "paddings[{index}]: there is no input {}", padding.input))?;
            let (name, axis, dimension) = (&input.name, padding.axis, padding.dimension);
            let dim = input.dims.as_ref().and_then(|dims| dims.get(axis));
            ensure!(dim == Some(&None), InvalidArgument, "paddings[{index}]: input '{name}' has no open axis {axis}");
            let before = &list[..index];
            let twice = before.iter().any(|other| (other.input, other.axis) == (padding.input, axis));
            ensure!(!twice, InvalidArgument, "paddings[{index}]: axis {axis} of input '{name}' is declared twice");
            let mut siblings = before.iter().filter(|other| other.dimension == dimension);
            let fits = siblings.all(|other| {
                other.kind == padding.kind && (padding.kind == PaddingKind::Masked || other.input != padding.input)
            });
            ensure!(
                fits,
                InvalidArgument,
                "paddings[{index}]: dimension {dimension} has two kinds, or is the batch along two axes of '{name}'"
            );
            let (value, dtype) = (padding.value, input.dtype);
            let is_exact = dtype.is_float() || filler(dtype, value).at(0).as_f64() == value;
            ensure!(is_exact, InvalidArgument, "paddings[{index}]: {value} is no value of '{name}', which is {dtype}");
        }
        Ok(Paddings { list: list.to_vec() })
    }

    /// Whether no axis may be padded.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The one dimension that counts independent rows.
    ///
    /// # Errors
    /// `Unsupported` if there is none, or more than one.
    pub fn batch(&self) -> Result<u32> {
        let dimensions = self.dimensions();
        let mut batches = dimensions.iter().filter(|(_, kind)| *kind == PaddingKind::Batch);
        match (batches.next(), batches.next()) {
            (Some((dimension, _)), None) => Ok(*dimension),
            (None, _) => Err(fail!(
                Unsupported,
                "the model was loaded without a padding of the kind batch, so nothing has proved that its rows are independent"
            )),
            _ => Err(fail!(Unsupported, "the model was loaded with more than one batch dimension")),
        }
    }

    /// Each dimension once.
    pub fn dimensions(&self) -> Vec<(u32, PaddingKind)> {
        let mut dimensions: Vec<_> = self.list.iter().map(|padding| (padding.dimension, padding.kind)).collect();
        dimensions.sort_by_key(|(dimension, _)| *dimension);
        dimensions.dedup();
        dimensions
    }

    /// The axes of a dimension.
    pub fn axes(&self, dimension: u32) -> impl Iterator<Item = &Padding> {
        self.list.iter().filter(move |padding| padding.dimension == dimension)
    }

    /// The paddable axes of an input.
    pub fn of_input(&self, input: usize) -> impl Iterator<Item = &Padding> {
        self.list.iter().filter(move |padding| padding.input == input)
    }

    /// The extent of a dimension; `None` if its axes disagree.
    pub fn extent(&self, dimension: u32, shapes: &[Shape]) -> Option<usize> {
        let mut extents = self.axes(dimension).map(|padding| shapes[padding.input].get(padding.axis).copied());
        let first = extents.next()??;
        extents.all(|extent| extent == Some(first)).then_some(first)
    }

    /// Checks that the axes of each dimension have one extent in a bucket.
    pub fn check(&self, bucket: &plan::Bucket) -> Result<()> {
        for (dimension, _) in self.dimensions() {
            let is_even = self.extent(dimension, &bucket.shapes).is_some();
            ensure!(is_even, ShapeMismatch, "the axes of padding dimension {dimension} have no common extent");
        }
        Ok(())
    }

    /// Elements that a request of `wanted` leaves unused in `bucket`; `None` if it does not fit.
    pub fn waste(&self, wanted: &plan::Bucket, bucket: &plan::Bucket) -> Option<usize> {
        let fits_axis = |input: usize, axis: usize, wanted: usize, prepared: usize| {
            let is_paddable = || self.list.iter().any(|padding| (padding.input, padding.axis) == (input, axis));
            wanted == prepared || (1..prepared).contains(&wanted) && is_paddable()
        };
        let mut waste = 0;
        for (input, (wanted, prepared)) in wanted.shapes.iter().zip(&bucket.shapes).enumerate() {
            let mut axes = wanted.iter().zip(prepared).enumerate();
            let is_within = wanted.len() == prepared.len()
                && axes.all(|(axis, (&wanted, &prepared))| fits_axis(input, axis, wanted, prepared));
            if !is_within {
                return None;
            }
            waste += prepared.iter().product::<usize>() - wanted.iter().product::<usize>();
        }
        let mut dimensions = self.dimensions().into_iter();
        let is_consistent = dimensions.all(|(dimension, _)| self.extent(dimension, &wanted.shapes).is_some());
        (wanted.values == bucket.values && is_consistent).then_some(waste)
    }

    /// The extents of the outputs of a request of these shapes in a bucket with these outputs.
    pub fn output_shapes(&self, followers: &Followers, wanted: &[Shape], outputs: &[TensorType]) -> Vec<Shape> {
        let axis = |(follower, &extent): (&Option<Follower>, &usize)| {
            let followed = follower.and_then(|it| Some(self.extent(it.dimension, wanted)? * it.repeat));
            followed.unwrap_or(extent)
        };
        let one = |(index, ty): (usize, &TensorType)| match followers.get(index) {
            Some(follows) => follows.iter().zip(&ty.shape).map(axis).collect(),
            None => ty.shape.clone(),
        };
        outputs.iter().enumerate().map(one).collect()
    }

    /// Fills the part of an input's memory that a request of `shape` leaves unused.
    pub fn fill(&self, input: usize, ty: &TensorType, shape: &[usize], memory: &mut [u8]) {
        if ty.shape == shape {
            return;
        }
        let fillers: Vec<Option<Tensor>> = (0..shape.len())
            .map(|axis| {
                let found = self.list.iter().find(|padding| (padding.input, padding.axis) == (input, axis));
                found.map(|padding| filler(ty.dtype, padding.value))
            })
            .collect();
        let mut index = vec![0; shape.len()];
        for place in memory.chunks_exact_mut(ty.dtype.bytes()).take(ty.count()) {
            let outside = index.iter().zip(shape).position(|(&at, &extent): (&usize, &usize)| at >= extent);
            if let Some(filler) = outside.and_then(|axis| fillers[axis].as_ref()) {
                place.copy_from_slice(filler.data());
            }
            advance(&mut index, &ty.shape);
        }
    }
}

/// The padding value in an input's element type.
pub fn filler(dtype: DType, value: f64) -> Tensor {
    let scalar = if dtype.is_float() { Scalar::Float(value) } else { Scalar::Int(value as i64) };
    Tensor::from_scalars(dtype, &[], [scalar])
}

/// The next index in row-major order.
fn advance(index: &mut [usize], shape: &[usize]) {
    for (at, &extent) in index.iter_mut().zip(shape).rev() {
        *at += 1;
        if *at < extent {
            return;
        }
        *at = 0;
    }
}
