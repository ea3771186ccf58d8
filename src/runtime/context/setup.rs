//! From a new context to a prepared one.

use super::Context;
use super::attach::Port;
use super::stage::Stage;
use crate::device::{InputSource, LaneOrder};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, TensorType};
use crate::limits::LINKS_MAX;
use crate::runtime::ledger::Account;
use crate::runtime::link::{Link, Upstream};
use crate::runtime::model::Prepared;
use std::sync::Arc;

impl Context {
    pub(super) fn ensure_new(&self) -> Result<()> {
        self.check()?;
        ensure!(self.stage.is_none(), WrongState, "the context is prepared already");
        Ok(())
    }

    /// Makes an input of this context be an output of `source`, on the device. Requests of the two are ordered both ways.
    ///
    /// # Errors
    /// `WrongState` if this context is prepared or `source` is not; `InvalidArgument` for an index, an input that is
    /// linked already, or another engine; `ShapeMismatch`; `LimitReached`.
    pub fn link(&mut self, input: usize, source: &Context, output: usize) -> Result<()> {
        self.ensure_new()?;
        let stage = source.stage()?;
        ensure!(
            Arc::ptr_eq(self.engine(), source.engine()),
            InvalidArgument,
            "the linked contexts belong to different engines"
        );
        let types = output_types(&stage.buckets, output)?;
        self.ensure_linkable(input, types[0].dtype)?;
        let upstreams = self.links.iter().filter(|link| link.source.is_some()).count();
        ensure!(upstreams < LINKS_MAX, LimitReached, "a context has at most {LINKS_MAX} linked inputs");
        source.readers.add(&self.request)?;
        let upstream = Upstream { request: source.request.clone(), memory: stage.lane.memory(), types };
        self.links.push(Link { input, output, source: Some(upstream) });
        Ok(())
    }

    /// Makes an input of this context be its own output of the request before, zero at first.
    ///
    /// # Errors
    /// As [`Context::link`].
    pub fn link_self(&mut self, input: usize, output: usize) -> Result<()> {
        self.ensure_new()?;
        let input_dtype = self.model.inputs.get(input).map(|input| input.dtype);
        self.ensure_linkable(input, input_dtype.unwrap_or(DType::F32))?;
        self.links.push(Link { input, output, source: None });
        Ok(())
    }

    fn ensure_linkable(&self, input: usize, dtype: DType) -> Result<()> {
        let count = self.model.inputs.len();
        ensure!(input < count, InvalidArgument, "there is no input {input}; the model has {count}");
        let is_free = self.links.iter().all(|link| link.input != input);
        let declared = &self.model.inputs[input];
        ensure!(is_free, InvalidArgument, "input '{}' is linked already", declared.name);
        let is_attached = self.attached.iter().any(|attached| attached.is(Port::Input(input)));
        ensure!(!is_attached, InvalidArgument, "input '{}' is attached already", declared.name);
        ensure!(
            declared.dtype == dtype,
            ShapeMismatch,
            "input '{}' is {}, and the output linked to it {dtype}",
            declared.name,
            declared.dtype
        );
        Ok(())
    }

    /// Takes all memory, starts the threads, makes the replay of every bucket. The first bucket is selected.
    ///
    /// # Errors
    /// `NoBucket` with the dimensions that are open, `ShapeMismatch` of a link, `WrongState`, `TooLarge`, `OutOfMemory`,
    /// `LimitReached` (no thread).
    pub fn prepare(&mut self) -> Result<()> {
        self.ensure_new()?;
        let buckets = if self.wanted.is_empty() { self.model.prepared() } else { self.wanted.clone() };
        ensure!(
            !buckets.is_empty(),
            NoBucket,
            "the model has no bucket; add one that fixes {}",
            self.model.open_dimensions()
        );
        for link in &self.links {
            self.check_link(link, &buckets)?;
        }
        let mut inputs = vec![InputSource::Host; self.model.inputs.len()];
        for link in &self.links {
            inputs[link.input] = link.input_source();
        }
        let outputs = self.place_attached(&buckets, &mut inputs)?;
        let lane = self.engine().device.lane(LaneOrder {
            programs: buckets.iter().map(|bucket| bucket.program.clone()).collect(),
            inputs,
            outputs,
            threads: self.threads,
            priority: self.priority,
            progress: self.request.progress().clone(),
            sink: self.sink.clone(),
            // In a batcher, who was too late for a batch may still write to its rows while the others run.
            guard_inputs: self.engine().guard_inputs && self.sink.listener.is_none(),
        })?;
        let ledger = &self.engine().ledger;
        let take = || {
            Ok([
                ledger.enter(Account::Arenas, lane.arena_bytes())?,
                ledger.enter(Account::Pinned, lane.pinned_bytes())?,
                ledger.enter(Account::Threads, lane.threads())?,
            ])
        };
        self.sink.takings.get_or_try_init(take)?;
        self.stage = Some(Stage::new(lane, buckets, &self.model.paddings)?);
        // From here on they are the lane's memory's, which goes when the device is done.
        self.attached.clear();
        Ok(())
    }

    fn check_link(&self, link: &Link, buckets: &[Arc<Prepared>]) -> Result<()> {
        let own = if link.source.is_none() { output_types(buckets, link.output)? } else { Vec::new() };
        let types = link.source.as_ref().map_or(&own, |upstream| &upstream.types);
        let name = &self.model.inputs[link.input].name;
        ensure!(
            types.len() == buckets.len(),
            ShapeMismatch,
            "input '{name}': the linked source has {} buckets and this context {}",
            types.len(),
            buckets.len()
        );
        for (index, (ty, bucket)) in types.iter().zip(buckets).enumerate() {
            let wanted = &bucket.inputs[link.input];
            ensure!(
                ty == wanted,
                ShapeMismatch,
                "bucket {index}: input '{name}' is {}{:?}, and the output linked to it {}{:?}",
                wanted.dtype,
                wanted.shape,
                ty.dtype,
                ty.shape
            );
        }
        Ok(())
    }
}

fn output_types(buckets: &[Arc<Prepared>], output: usize) -> Result<Vec<TensorType>> {
    let types: Option<Vec<TensorType>> = buckets.iter().map(|bucket| bucket.outputs.get(output).cloned()).collect();
    types.ok_or_else(|| fail!(InvalidArgument, "there is no output {output}"))
}
