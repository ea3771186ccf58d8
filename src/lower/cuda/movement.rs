//! Indexed reads.

use super::binding::unbound;
use super::{Binding, Lowering, alignment};
use crate::error::Result;
use crate::kernels::entry::{Addressed, GatherArguments};
use crate::kernels::{Gather, GatherElements, GatherNd};
use crate::lower::operand::Operand;
use crate::plan::Step;

/// An operand's axes seen from the space of the result: per axis of it the operand's stride, 0 where it does not move.
fn along(operand: &Operand, shape: &[usize], strides: Vec<isize>) -> Operand {
    Operand { shape: shape.to_vec(), strides, ..operand.clone() }
}

fn addressed(data: &Operand, axis: usize) -> Addressed {
    Addressed { extent: data.shape[axis], step: data.strides[axis] }
}

impl Lowering<'_> {
    /// `result = data[..axis] + indices + data[axis + 1..]`
    pub(super) fn gather(&mut self, gather: &Gather, step: &Step) -> Result<()> {
        let (data, index) = (self.operand(&step.inputs[0])?, self.operand(&step.inputs[1])?);
        let (before, after) = (gather.axis, data.shape.len() - gather.axis - 1);
        let ranks = index.shape.len();
        let strides = [&data.strides[..before], &vec![0; ranks], &data.strides[before + 1..]].concat();
        let index_strides = [&vec![0; before][..], &index.strides, &vec![0; after]].concat();
        let axes = [addressed(&data, gather.axis)];
        self.gathered(step, [(data, strides), (index, index_strides)], &axes, 0)
    }

    /// The result has the indices' shape.
    pub(super) fn gather_elements(&mut self, gather: &GatherElements, step: &Step) -> Result<()> {
        let (data, index) = (self.operand(&step.inputs[0])?, self.operand(&step.inputs[1])?);
        let mut strides = data.strides.clone();
        strides[gather.axis] = 0;
        let axes = [addressed(&data, gather.axis)];
        let index_strides = index.strides.clone();
        self.gathered(step, [(data, strides), (index, index_strides)], &axes, 0)
    }

    /// `result[batch.., tuples.., rest..]`; the last axis of the indices holds the tuples.
    pub(super) fn gather_nd(&mut self, gather: &GatherNd, step: &Step) -> Result<()> {
        let (data, index) = (self.operand(&step.inputs[0])?, self.operand(&step.inputs[1])?);
        let (batch, last) = (gather.batch_dims, index.shape.len() - 1);
        let depth = index.shape[last];
        let rest = batch + depth..data.shape.len();
        let strides = [&data.strides[..batch], &vec![0; last - batch], &data.strides[rest.clone()]].concat();
        let index_strides = [&index.strides[..last], &vec![0; rest.len()]].concat();
        let axes: Vec<Addressed> = (batch..batch + depth).map(|axis| addressed(&data, axis)).collect();
        let index_step = index.strides[last];
        self.gathered(step, [(data, strides), (index, index_strides)], &axes, index_step)
    }

    /// Data and indices come with their strides along the axes of the result. What indices address is counted in 64 bits.
    fn gathered(
        &mut self,
        step: &Step,
        [data, index]: [(Operand, Vec<isize>); 2],
        axes: &[Addressed],
        index_step: isize,
    ) -> Result<()> {
        let output = self.operand(&step.outputs[0])?;
        if axes.iter().any(|axis| axis.extent == 0) {
            // There is nothing to be read: as on the host, the result is zeros.
            return self.fill(output);
        }
        let [data, index] = [data, index].map(|(operand, strides)| along(&operand, &output.shape, strides));
        let aligned = alignment([&data, &output]);
        let new = |operands| GatherArguments::new(output.dtype, &output.shape, operands, axes, index_step, aligned);
        let lanes = new([unbound(&data)?, unbound(&index)?, unbound(&output)?])?.bytes as usize / output.dtype.bytes();
        let mut binding = Binding::default();
        let operands = [binding.together(&data, lanes)?, binding.strided(&index)?, binding.together(&output, lanes)?];
        let arguments = new(operands)?;
        self.launch("gather", &arguments, binding, arguments.launch())
    }
}
