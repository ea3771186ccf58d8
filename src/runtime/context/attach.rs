//! Inputs and outputs that lie in memory of the host program's.

use super::Context;
use crate::device::{Attachment, InputSource};
use crate::error::{Result, ensure, fail};
use crate::runtime::memory::{Claim, Memory};
use crate::runtime::model::Prepared;
use std::sync::Arc;

/// An input or output of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Input(usize),
    Output(usize),
}

/// An input or output, and the part of a memory that it will lie in.
pub(super) struct Attached {
    port: Port,
    claim: Arc<Claim>,
}

impl Attached {
    pub(super) fn is(&self, port: Port) -> bool {
        self.port == port
    }
}

impl Port {
    /// Bytes in the largest of these buckets.
    fn bytes(self, buckets: &[Arc<Prepared>]) -> usize {
        let ty = |bucket: &Arc<Prepared>| match self {
            Port::Input(index) => bucket.inputs.get(index).map(|ty| ty.bytes()),
            Port::Output(index) => bucket.outputs.get(index).map(|ty| ty.bytes()),
        };
        buckets.iter().filter_map(ty).max().unwrap_or(0)
    }
}

impl Context {
    /// Makes an input lie in a memory of the same engine, from that byte on: the device reads it there, and nothing is copied. What the
    /// memory holds stays as it is, but for values of shape inputs and what padding fills.
    ///
    /// # Errors
    /// `WrongState` if this context is prepared; `InvalidArgument` for an index, an input that is linked or attached already, another engine,
    /// device memory, an offset that is no multiple of 64, a memory that is too small, or a part of it that something else is attached to.
    pub fn attach_input(&mut self, input: usize, memory: &Memory, offset: usize) -> Result<()> {
        self.ensure_new()?;
        let inputs = &self.model.inputs;
        let declared = inputs.get(input);
        let declared = declared
            .ok_or_else(|| fail!(InvalidArgument, "there is no input {input}; the model has {}", inputs.len()))?;
        let is_linked = self.links.iter().any(|link| link.input == input);
        ensure!(!is_linked, InvalidArgument, "input '{}' is linked: it has no memory on the host", declared.name);
        self.attach(Port::Input(input), memory, offset)
    }

    /// Makes an output lie in a memory of the same engine, from that byte on: the device writes it there, and nothing is copied.
    ///
    /// # Errors
    /// As [`Context::attach_input`].
    pub fn attach_output(&mut self, output: usize, memory: &Memory, offset: usize) -> Result<()> {
        self.ensure_new()?;
        let count = self.model.outputs.len();
        ensure!(output < count, InvalidArgument, "there is no output {output}; the model has {count}");
        self.attach(Port::Output(output), memory, offset)
    }

    fn attach(&mut self, port: Port, memory: &Memory, offset: usize) -> Result<()> {
        let name = self.name_of(port);
        let is_free = !self.attached.iter().any(|attached| attached.is(port));
        ensure!(is_free, InvalidArgument, "{name} is attached already");
        let known = if self.wanted.is_empty() { self.model.prepared() } else { self.wanted.clone() };
        let claim = memory.claim(self.engine(), offset, port.bytes(&known));
        let claim = Arc::new(claim.map_err(|error| error.within(name))?);
        self.attached.push(Attached { port, claim });
        Ok(())
    }

    fn name_of(&self, port: Port) -> String {
        match port {
            Port::Input(index) => format!("input '{}'", self.model.inputs[index].name),
            Port::Output(index) => format!("output '{}'", self.model.outputs[index].0),
        }
    }

    /// Puts attached inputs in their place, and gives that of every output. Buckets may have been added since they were attached.
    pub(super) fn place_attached(
        &self,
        buckets: &[Arc<Prepared>],
        inputs: &mut [InputSource],
    ) -> Result<Vec<Option<Attachment>>> {
        let mut outputs = vec![None; buckets[0].outputs.len()];
        for Attached { port, claim } in &self.attached {
            claim.resize(port.bytes(buckets)).map_err(|error| error.within(self.name_of(*port)))?;
            match *port {
                Port::Input(input) => inputs[input] = InputSource::Attached(claim.attachment()?),
                Port::Output(output) => outputs[output] = Some(claim.attachment()?),
            }
        }
        Ok(outputs)
    }
}
