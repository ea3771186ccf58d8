//! What a context has from `prepare` on: its lane, its buckets, and where its inputs and outputs lie.

use crate::device::host::memory::{Plain, elements, elements_mut};
use crate::device::{Lane, Sink};
use crate::error::{Result, Status, ensure, fail};
use crate::ir::{DType, Shape, TensorType};
use crate::plan;
use crate::runtime::ledger::Entry;
use crate::runtime::model::{ModelCore, Prepared, describe};
use crate::runtime::padding::Paddings;
use crate::runtime::request::Request;
use crate::runtime::view::View;
use crate::runtime::wait::SpinBudget;
use once_cell::sync::OnceCell;
use std::sync::Arc;

/// Who else is told when a context's requests end.
pub trait Listener: Send + Sync {
    /// A request has ended, so long after it was submitted. As with [`Sink::ended`], this neither blocks nor allocates.
    fn ended(&self, status: Status, took_ns: u64);
}

/// What a lane tells when a request ends, and what it keeps alive: dropped when the last worker has left.
pub(super) struct LaneSink {
    pub(super) request: Arc<Request>,
    pub(super) model: Arc<ModelCore>,
    /// The batcher that the context works for.
    pub(super) listener: Option<Arc<dyn Listener>>,
    /// The context, as long as its memory lives.
    pub(super) _context: Entry,
    /// What `prepare` took: arena, inputs and outputs, threads.
    pub(super) takings: OnceCell<[Entry; 3]>,
}

impl Sink for LaneSink {
    fn ending(&self, status: Status) {
        self.model.engine.request_ended(status != Status::Ok);
    }

    fn ended(&self, ordinal: u64, status: Status) {
        if let Some(listener) = &self.listener {
            let took_ns = self.request.progress().stamps().done_ns.saturating_sub(self.request.submit_ns());
            listener.ended(status, took_ns);
        }
        self.request.deliver(ordinal, status);
    }

    fn is_awaited(&self) -> bool {
        self.listener.is_some() || self.request.is_parked()
    }
}

/// A prepared context's lane and the bucket selected.
pub(super) struct Stage {
    pub(super) lane: Box<dyn Lane>,
    pub(super) buckets: Vec<Arc<Prepared>>,
    pub(super) selected: usize,
    pub(super) spin: SpinBudget,
    /// The extents of the request: those of the bucket, or smaller ones along paddable axes.
    input_shapes: Vec<Shape>,
    output_shapes: Vec<Shape>,
}

impl Stage {
    /// The first bucket is selected.
    pub(super) fn new(lane: Box<dyn Lane>, buckets: Vec<Arc<Prepared>>, paddings: &Paddings) -> Result<Self> {
        let shapes = buckets[0].bucket.shapes.clone();
        let (input_shapes, output_shapes) = (Vec::new(), Vec::new());
        let mut stage = Stage { lane, buckets, selected: 0, spin: SpinBudget::default(), input_shapes, output_shapes };
        stage.select(0, &shapes, paddings)?;
        Ok(stage)
    }

    fn bucket(&self) -> &Prepared {
        &self.buckets[self.selected]
    }

    /// Selects the bucket that wastes least of itself on a request of these shapes.
    pub(super) fn choose(&mut self, wanted: &plan::Bucket, model: &ModelCore) -> Result<()> {
        let prepared = self.buckets.iter().enumerate();
        let fitting =
            prepared.filter_map(|(index, prepared)| Some((model.paddings.waste(wanted, &prepared.bucket)?, index)));
        let (_, index) = fitting
            .min()
            .ok_or_else(|| fail!(NoBucket, "no prepared bucket holds {}", describe(&model.inputs, wanted)))?;
        for (input, (shape, bucket)) in wanted.shapes.iter().zip(&self.buckets[index].bucket.shapes).enumerate() {
            let is_exact = shape == bucket || self.lane.input(input).is_some();
            ensure!(is_exact, NoBucket, "input '{}' is linked, so it cannot be padded", model.inputs[input].name);
        }
        self.select(index, &wanted.shapes, &model.paddings)
    }

    /// Selects a bucket for requests of these input shapes: fills what the request leaves unused, and puts the values of shape
    /// inputs in place, so that a kernel that reads them sees the bucket's.
    fn select(&mut self, index: usize, shapes: &[Shape], paddings: &Paddings) -> Result<()> {
        let prepared = self.buckets[index].clone();
        for (input, ty) in prepared.inputs.iter().enumerate() {
            if self.lane.input(input).is_none() {
                continue;
            }
            paddings.fill(input, ty, &shapes[input], self.lane.input_bytes(input)?);
        }
        self.take(index)?;
        self.input_shapes = shapes.to_vec();
        self.output_shapes = paddings.output_shapes(&prepared.followers, shapes, &prepared.outputs);
        Ok(())
    }

    /// Selects a bucket whose other inputs are in place already: puts the values of shape inputs there.
    pub(super) fn take(&mut self, index: usize) -> Result<()> {
        let prepared = self.buckets[index].clone();
        for (input, value) in prepared.bucket.values.iter().enumerate() {
            if let Some(value) = value
                && self.lane.input(input).is_some()
            {
                self.lane.input_bytes(input)?[..value.data().len()].copy_from_slice(value.data());
            }
        }
        self.selected = index;
        Ok(())
    }

    fn input_type(&self, index: usize) -> Result<&TensorType> {
        let inputs = &self.bucket().inputs;
        inputs
            .get(index)
            .ok_or_else(|| fail!(InvalidArgument, "there is no input {index}; the model has {}", inputs.len()))
    }

    fn output_type(&self, index: usize) -> Result<&TensorType> {
        let outputs = &self.bucket().outputs;
        outputs
            .get(index)
            .ok_or_else(|| fail!(InvalidArgument, "there is no output {index}; the model has {}", outputs.len()))
    }

    pub(super) fn input_view(&self, index: usize) -> Result<View<'_>> {
        let ty = self.input_type(index)?;
        let place = self.lane.input(index);
        let (address, bytes) = place.ok_or_else(|| fail!(WrongState, "input {index} is linked"))?;
        Ok(View::new(ty, &self.input_shapes[index], address, bytes))
    }

    pub(super) fn output_view(&self, index: usize) -> Result<View<'_>> {
        let ty = self.output_type(index)?;
        let (address, bytes) = self.lane.output(index);
        Ok(View::new(ty, &self.output_shapes[index], address, bytes))
    }

    pub(super) fn input_mut<T: Plain>(&mut self, index: usize) -> Result<&mut [T]> {
        let ty = self.input_type(index)?;
        check_element::<T>(ty, index, "input")?;
        let bytes = ty.bytes();
        Ok(elements_mut(&mut self.lane.input_bytes(index)?[..bytes]))
    }

    pub(super) fn output<T: Plain>(&self, index: usize) -> Result<&[T]> {
        let ty = self.output_type(index)?;
        check_element::<T>(ty, index, "output")?;
        Ok(elements(&self.lane.output_bytes(index)?[..ty.bytes()]))
    }
}

fn check_element<T: Plain>(ty: &TensorType, index: usize, what: &str) -> Result<()> {
    let fits = T::DTYPE == ty.dtype || (ty.dtype == DType::Bool && T::DTYPE == DType::U8);
    ensure!(fits, ShapeMismatch, "{what} {index} is {}, not {}", ty.dtype, T::DTYPE);
    Ok(())
}
