//! What a batcher does with its contexts.

use super::{Context, SubmitOptions};
use crate::device::Stamps;
use crate::device::host::area::Area;
use crate::error::Result;
use crate::runtime::request::sequence_of;

impl Context {
    /// Where the inputs and the outputs lie.
    pub(in crate::runtime) fn areas(&self) -> Result<(Vec<Area>, Vec<Area>)> {
        let lane = &self.stage()?.lane;
        let (inputs, outputs) = (self.model.inputs.len(), self.stage()?.buckets[0].outputs.len());
        let area = |place| Area::new(place, lane.memory());
        let inputs = (0..inputs).filter_map(|index| lane.input(index)).map(area).collect();
        Ok((inputs, (0..outputs).map(|index| area(lane.output(index))).collect()))
    }

    /// Starts a request in the bucket at that position, on inputs that are in place. The last one has ended, as the listener has
    /// heard.
    ///
    /// # Errors
    /// Those of [`Context::submit`].
    pub(in crate::runtime) fn launch(&mut self, bucket: usize, deadline_ns: u64) -> Result<u32> {
        let last = sequence_of(self.request.ordinal());
        if last != 0 {
            // How it ended has been told to those whom it concerns.
            let _ = self.poll(last);
        }
        self.stage_mut()?.take(bucket)?;
        let sequence = self.submit(&SubmitOptions { token: 0, deadline_ns })?;
        self.request.progress().watch();
        Ok(sequence)
    }

    /// When the last request was submitted, and what its device did when. It has ended, as the listener has heard.
    pub(in crate::runtime) fn last_stamps(&self) -> (u64, Stamps) {
        (self.request.submit_ns(), self.request.progress().stamps())
    }

    /// How long a request in the bucket at that position takes from submit to end, nanoseconds.
    ///
    /// # Errors
    /// Those of [`Context::run`].
    pub(in crate::runtime) fn measure(&mut self, bucket: usize) -> Result<u64> {
        let sequence = self.launch(bucket, 0)?;
        self.wait(sequence, u64::MAX)?;
        let timings = self.timings()?;
        Ok(timings.stamps.done_ns.saturating_sub(timings.submit_ns))
    }
}
