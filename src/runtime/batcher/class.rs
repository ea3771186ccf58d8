//! Classes: buckets that differ in their batch alone, and so can serve each other's requests. What a class knows says where a
//! row lies in a context's memory, whatever the batch that runs.

use super::slot::DimensionExtents;
use crate::device::host::area::Area;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::limits::{BATCHER_DIMENSIONS_MAX, RANK_MAX};
use crate::runtime::bucket::Bucket;
use crate::runtime::model::{ModelCore, Prepared};
use crate::runtime::padding::{Paddings, filler};
use std::sync::Arc;

/// Extents, or distances in bytes, in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Axes {
    values: [usize; RANK_MAX],
    rank: usize,
}

impl Axes {
    /// At most [`RANK_MAX`] values.
    pub fn new(values: impl IntoIterator<Item = usize>) -> Self {
        let mut axes = Axes::default();
        for (place, value) in axes.values.iter_mut().zip(values) {
            *place = value;
            axes.rank += 1;
        }
        axes
    }

    /// Outermost first.
    pub fn as_slice(&self) -> &[usize] {
        &self.values[..self.rank]
    }
}

/// The shapes of a request, and the values of its shape inputs, without a copy.
pub trait Shapes {
    /// Inputs given.
    fn input_count(&self) -> usize;
    /// The shape of one of them.
    ///
    /// # Errors
    /// `InvalidArgument` where it is none.
    fn shape(&self, input: usize) -> Result<Axes>;
    /// Whether exactly these values are given for an input; `None`: none.
    fn has_values(&self, input: usize, values: Option<&[u8]>) -> bool;
}

impl Shapes for Bucket {
    fn input_count(&self) -> usize {
        self.shapes.len()
    }

    fn shape(&self, input: usize) -> Result<Axes> {
        ensure!(self.shapes[input].len() <= RANK_MAX, InvalidArgument, "input {input} has more than {RANK_MAX} axes");
        Ok(Axes::new(self.shapes[input].iter().copied()))
    }

    fn has_values(&self, input: usize, values: Option<&[u8]>) -> bool {
        let given = self.values.iter().find(|(index, _)| *index == input);
        given.map(|(_, bytes)| bytes.as_slice()) == values
    }
}

/// Where a slot's part of an input or output lies.
#[derive(Clone, Copy, Debug)]
pub struct SlotView {
    /// Element type.
    pub dtype: DType,
    /// Extents of the request.
    pub shape: Axes,
    /// Distance in bytes of neighbours along each axis.
    pub strides_bytes: Axes,
    /// The first element.
    pub address: *mut u8,
    /// Bytes from the first element to the end of the last.
    pub capacity_bytes: usize,
}

/// How the extent of an axis comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    /// That of the bucket.
    Fixed,
    /// So many indices for each row of the batch.
    Batch(usize),
    /// So many indices for each of a paddable dimension.
    Padded(usize, usize),
}

/// An input or output of a class.
#[derive(Debug)]
struct Port {
    dtype: DType,
    /// Extents of the largest bucket.
    extents: Vec<usize>,
    strides_bytes: Vec<usize>,
    axes: Vec<Axis>,
    /// Per axis what fills the part that a request leaves unused.
    fillers: Vec<Option<Tensor>>,
}

/// The rows of one slot, and its extents along paddable dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The first row.
    pub row: usize,
    /// How many.
    pub rows: usize,
    /// Per paddable dimension.
    pub extents: DimensionExtents,
}

impl Port {
    fn new(dtype: DType, extents: &[usize], axes: Vec<Axis>) -> Self {
        let strides = |axis: usize| extents[axis + 1..].iter().map(|extent| (*extent).max(1)).product::<usize>();
        let strides_bytes = (0..extents.len()).map(|axis| strides(axis) * dtype.bytes()).collect();
        Port { dtype, extents: extents.to_vec(), strides_bytes, axes, fillers: vec![None; extents.len()] }
    }

    /// The indices of an axis that belong to a part, and those of its rows or of the whole bucket.
    fn span(&self, axis: usize, part: &Part) -> (usize, usize, usize) {
        match self.axes[axis] {
            Axis::Fixed => (0, self.extents[axis], self.extents[axis]),
            Axis::Batch(repeat) => (part.row * repeat, part.rows * repeat, part.rows * repeat),
            Axis::Padded(dimension, repeat) => (0, part.extents[dimension] * repeat, self.extents[axis]),
        }
    }

    fn view(&self, part: &Part, area: &Area) -> Result<SlotView> {
        let rank = self.axes.len();
        let shape = Axes::new((0..rank).map(|axis| self.span(axis, part).1));
        let offset = (0..rank).map(|axis| self.span(axis, part).0 * self.strides_bytes[axis]).sum();
        let last = shape.as_slice().iter().zip(&self.strides_bytes);
        let is_empty = shape.as_slice().contains(&0);
        let bytes = last.map(|(extent, stride)| extent.saturating_sub(1) * stride).sum::<usize>() + self.dtype.bytes();
        let capacity_bytes = if is_empty { 0 } else { bytes };
        let address =
            area.at(offset, capacity_bytes).ok_or_else(|| fail!(Internal, "a slot lies outside its batch"))?;
        let strides_bytes = Axes::new(self.strides_bytes.iter().copied());
        Ok(SlotView { dtype: self.dtype, shape, strides_bytes, address, capacity_bytes })
    }

    /// Fills what a part leaves unused of its rows: from `axis` on, at `offset`, with `filler` where an outer axis is unused.
    fn fill(&self, part: &Part, area: &Area, axis: usize, offset: usize, filler: Option<&Tensor>) {
        let is_row = self.axes[axis..].iter().all(|axis| !matches!(axis, Axis::Batch(_)));
        let is_used = (axis..self.axes.len()).all(|axis| {
            let (_, used, all) = self.span(axis, part);
            used == all
        });
        match filler {
            None if is_used => return,
            Some(filler) if is_row => {
                let count = self.extents[axis..].iter().product();
                return area.fill(offset, filler.data(), count);
            }
            _ => {}
        }
        let (first, used, all) = self.span(axis, part);
        for index in 0..all {
            let filler = if index < used { filler } else { filler.or(self.fillers[axis].as_ref()) };
            self.fill(part, area, axis + 1, offset + (first + index) * self.strides_bytes[axis], filler);
        }
    }
}

/// Buckets that differ in their batch alone.
#[derive(Debug)]
pub struct Class {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Per input, the values that are part of the key.
    values: Vec<Option<Tensor>>,
    /// Per size, ascending, its rows and its bucket's position in the list that the classes were made of.
    pub sizes: Vec<(usize, usize)>,
}

/// How a request fits a class.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// Rows that it takes.
    pub rows: usize,
    /// Its extents along paddable dimensions.
    pub extents: DimensionExtents,
    /// Elements of its rows that it leaves unused.
    waste: usize,
}

impl Class {
    /// How a request of these shapes fits; `None` if it does not.
    fn fit(&self, shapes: &impl Shapes) -> Result<Option<Fit>> {
        let (mut rows, mut extents, mut waste) = (0, [0; BATCHER_DIMENSIONS_MAX], 0);
        for (input, port) in self.inputs.iter().enumerate() {
            let shape = shapes.shape(input)?;
            let is_keyed = shapes.has_values(input, self.values[input].as_ref().map(|value| &**value.data()));
            if shape.as_slice().len() != port.axes.len() || !is_keyed {
                return Ok(None);
            }
            let (mut wanted, mut taken) = (1, 1);
            for ((&given, &prepared), axis) in shape.as_slice().iter().zip(&port.extents).zip(&port.axes) {
                let mut fixed = prepared;
                let known = match axis {
                    Axis::Fixed => &mut fixed,
                    Axis::Batch(_) => &mut rows,
                    Axis::Padded(dimension, _) => &mut extents[*dimension],
                };
                // The first axis of a dimension says its extent, the others must agree.
                let is_first = *known == 0 && *axis != Axis::Fixed && (1..=prepared).contains(&given);
                if is_first {
                    *known = given;
                }
                if *known != given || (given == 0 && *axis != Axis::Fixed) {
                    return Ok(None);
                }
                wanted *= given;
                taken *= if matches!(axis, Axis::Batch(_)) { given } else { prepared };
            }
            waste += taken - wanted;
        }
        Ok(Some(Fit { rows: rows.max(1), extents, waste }))
    }

    /// Where a slot's part of an input lies; `None` for an input whose values are part of the key.
    pub fn input(&self, index: usize, part: &Part, area: &Area) -> Result<Option<SlotView>> {
        if self.values[index].is_some() {
            return Ok(None);
        }
        self.inputs[index].view(part, area).map(Some)
    }

    /// Where a slot's part of an output lies; the whole of an output that does not depend on the batch.
    pub fn output(&self, index: usize, part: &Part, area: &Area) -> Result<SlotView> {
        self.outputs[index].view(part, area)
    }

    /// Fills what a slot leaves unused of its rows.
    pub fn fill(&self, part: &Part, areas: &[Area]) {
        for (port, area) in self.inputs.iter().zip(areas) {
            port.fill(part, area, 0, 0, None);
        }
    }
}

/// The classes of a model's buckets.
#[derive(Debug)]
pub struct Classes {
    pub list: Vec<Class>,
}

impl Classes {
    /// Sorts buckets into classes.
    ///
    /// # Errors
    /// `Unsupported` if the model was loaded without a batch, or with several, or has an input without it.
    pub fn new(model: &ModelCore, buckets: &[Arc<Prepared>]) -> Result<Self> {
        ensure!(
            !buckets.is_empty(),
            NoBucket,
            "the model has no bucket; add one that fixes {}",
            model.open_dimensions()
        );
        let paddings = &model.paddings;
        let batch = paddings.batch()?;
        for (index, input) in model.inputs.iter().enumerate() {
            let is_batched = input.is_shape_input || paddings.axes(batch).any(|padding| padding.input == index);
            ensure!(
                is_batched,
                Unsupported,
                "input '{}' has no batch axis, so one batch cannot serve requests that differ in it",
                input.name
            );
        }
        let mut groups: Vec<Vec<(usize, usize)>> = Vec::new();
        let rows = |index: usize| paddings.extent(batch, &buckets[index].bucket.shapes).unwrap_or(1);
        let key = |index: usize| paddings.shrunk(&buckets[index].bucket, batch, 1);
        for index in 0..buckets.len() {
            match groups.iter_mut().find(|group| key(group[0].1) == key(index)) {
                Some(group) => group.push((rows(index), index)),
                None => groups.push(vec![(rows(index), index)]),
            }
        }
        let make = |mut sizes: Vec<(usize, usize)>| {
            sizes.sort_unstable();
            Class::new(paddings, batch, &buckets[sizes[sizes.len() - 1].1], sizes)
        };
        Ok(Classes { list: groups.into_iter().map(make).collect::<Result<_>>()? })
    }

    /// The class that a request of these shapes wastes least of, and how it fits.
    pub fn fit(list: &[Class], shapes: &impl Shapes) -> Result<Option<(usize, Fit)>> {
        let (given, wanted) = (shapes.input_count(), list[0].inputs.len());
        ensure!(given == wanted, ShapeMismatch, "the model has {wanted} inputs and the bucket {given}");
        let mut best: Option<(usize, Fit)> = None;
        for (index, class) in list.iter().enumerate() {
            if let Some(fit) = class.fit(shapes)?
                && best.is_none_or(|(_, other)| fit.waste < other.waste)
            {
                best = Some((index, fit));
            }
        }
        Ok(best)
    }
}

impl Class {
    fn new(paddings: &Paddings, batch: u32, largest: &Prepared, mut sizes: Vec<(usize, usize)>) -> Result<Self> {
        let dimensions: Vec<u32> =
            paddings.dimensions().into_iter().map(|(dimension, _)| dimension).filter(|&it| it != batch).collect();
        let limit = BATCHER_DIMENSIONS_MAX;
        ensure!(dimensions.len() <= limit, LimitReached, "{} paddable dimensions are above {limit}", dimensions.len());
        let axis = |dimension: u32, repeat: usize| match dimensions.iter().position(|&it| it == dimension) {
            Some(position) => Axis::Padded(position, repeat),
            None => Axis::Batch(repeat),
        };
        let mut inputs = Vec::new();
        for (index, ty) in largest.inputs.iter().enumerate() {
            let mut port = Port::new(ty.dtype, &ty.shape, vec![Axis::Fixed; ty.shape.len()]);
            for padding in paddings.of_input(index) {
                port.axes[padding.axis] = axis(padding.dimension, 1);
                port.fillers[padding.axis] = Some(filler(ty.dtype, padding.value));
            }
            inputs.push(port);
        }
        let mut outputs = Vec::new();
        for (index, ty) in largest.outputs.iter().enumerate() {
            let follows = |at: usize| largest.followers.get(index).and_then(|axes| axes[at]);
            let axes = (0..ty.shape.len()).map(|at| match follows(at) {
                Some(follower) => axis(follower.dimension, follower.repeat),
                None => Axis::Fixed,
            });
            outputs.push(Port::new(ty.dtype, &ty.shape, axes.collect()));
        }
        // Where the batch is not outermost, rows lie elsewhere in every bucket: all batches run in the largest.
        let is_outermost = |port: &Port| port.axes.iter().skip(1).all(|axis| !matches!(axis, Axis::Batch(_)));
        if !inputs.iter().chain(&outputs).all(is_outermost) {
            sizes.drain(..sizes.len() - 1);
        }
        Ok(Class { inputs, outputs, values: largest.bucket.values.clone(), sizes })
    }
}
