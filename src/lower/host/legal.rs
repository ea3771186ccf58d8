//! Rewrites a plan so that the host's kernels can run every step: 16-bit floats are computed in binary32 outside maps, and
//! operands lie as their kernels demand. Copies and casts are maps.

use super::contraction;
use crate::error::{Result, fail};
use crate::ir::{DType, Tensor, TensorType};
use crate::kernels::{Family, Kernel, Map, MatMul, ScatterOp};
use crate::plan::{Origin, Plan, Step, TensorDef, TensorId, View};

/// How an operand must lie for its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Anyhow.
    Any,
    /// The last so many axes one after the other without gaps.
    Rows(usize),
    /// Without gaps.
    Dense,
}

impl Form {
    /// What a kernel demands of operand `index`, or of its results.
    fn of(kernel: &Kernel, index: Option<usize>) -> Form {
        match kernel {
            Kernel::Softmax(_) => Form::Rows(1),
            // The result; operands may lie anyhow.
            Kernel::MatMul(_) | Kernel::Attention(_) if index.is_none() => Form::Rows(1),
            Kernel::Conv(conv) => match index {
                None | Some(0) => Form::Rows(conv.window.kernel.len()),
                Some(1) => Form::Dense,
                Some(_) => Form::Any,
            },
            Kernel::Norm(norm) if index.is_none_or(|index| index == 0) => Form::Rows(norm.axes),
            Kernel::Pool(_)
            | Kernel::ConvTranspose(_)
            | Kernel::GatherNd(_)
            | Kernel::ScatterNd(_)
            | Kernel::Recurrent(_)
            | Kernel::CumSum(_)
            | Kernel::TopK(_)
            | Kernel::Resize(_) => Form::Dense,
            _ => Form::Any,
        }
    }

    fn holds(self, view: &View) -> bool {
        let rows = match self {
            Form::Any => return true,
            Form::Dense => view.rank(),
            Form::Rows(axes) => axes,
        };
        let first = view.rank() - rows;
        let trailing = View {
            tensor: view.tensor,
            offset: 0,
            shape: view.shape[first..].to_vec(),
            strides: view.strides[first..].to_vec(),
        };
        trailing.is_dense()
    }
}

/// Whether a kernel moves elements without computing with them, so that their type does not matter.
fn moves_only(kernel: &Kernel) -> bool {
    match kernel {
        Kernel::Gather(_) | Kernel::GatherElements(_) | Kernel::GatherNd(_) => true,
        Kernel::ScatterNd(scatter) => scatter.op == ScatterOp::Set,
        _ => false,
    }
}

/// The number of operands before those of the map that is fused into the kernel, if there is one.
fn own_operands(kernel: &Kernel) -> usize {
    match kernel {
        Kernel::MatMul(_) => 2,
        Kernel::Attention(_) | Kernel::Conv(_) | Kernel::ConvTranspose(_) => 3,
        _ => usize::MAX,
    }
}

/// An epilogue that the kernel cannot apply, taken off it: its result is not stored in 4 bytes an element, or its operands
/// are no matrices.
fn take_foreign_epilogue(step: &mut Step) -> Option<Map> {
    let flat = !matches!(step.kernel, Kernel::Conv(_)) || contraction::epilogue_flattens(step);
    let epilogue = match &mut step.kernel {
        Kernel::MatMul(product) => &mut product.epilogue,
        Kernel::Conv(conv) => &mut conv.epilogue,
        _ => return None,
    };
    epilogue.take_if(|map| !flat || !matches!(map.output, DType::F32 | DType::I32))
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// An equal plan whose steps the host's kernels can run.
pub fn legalise(plan: &Plan) -> Result<Plan> {
    let mut legal = Legal { plan: Plan { steps: Vec::with_capacity(plan.steps.len()), ..plan.clone() } };
    for step in &plan.steps {
        legal.step(step.clone())?;
    }
    Ok(legal.plan)
}

struct Legal {
    plan: Plan,
}

impl Legal {
    fn step(&mut self, mut step: Step) -> Result<()> {
        if matches!(step.kernel, Kernel::Map(_)) {
            self.plan.steps.push(step);
            return Ok(());
        }
        let mut after: Vec<Step> = Vec::new();
        if let Some(map) = take_foreign_epilogue(&mut step) {
            self.split_epilogue(&mut step, map, &mut after)?;
        }
        let casts = !moves_only(&step.kernel);
        let own = own_operands(&step.kernel).min(step.inputs.len());
        for index in 0..own {
            let form = Form::of(&step.kernel, Some(index));
            step.inputs[index] = self.operand(&step.inputs[index], form, casts, &step.node)?;
        }
        if let Kernel::ConvTranspose(kernel) = &step.kernel {
            let groups = kernel.groups;
            step.inputs[0] = self.transposed_columns(&step, groups)?;
        }
        let form = Form::of(&step.kernel, None);
        for output in &mut step.outputs {
            let dtype = self.dtype(output);
            let computed = if casts && is_half(dtype) { DType::F32 } else { dtype };
            if computed != dtype || !form.holds(output) {
                let whole = self.tensor(computed, &output.shape, &step.node)?;
                let kernel = transfer(computed, dtype).into();
                let outputs = vec![std::mem::replace(output, whole.clone())];
                after.push(Step { kernel, inputs: vec![whole], outputs, node: step.node.clone() });
            }
        }
        self.plan.steps.push(step);
        self.plan.steps.append(&mut after);
        Ok(())
    }

    /// A transposed convolution is a matrix product of weights and input, `[N, O, taps, input spatial..]`, of which the kernel
    /// itself only sums what falls on each output position.
    fn transposed_columns(&mut self, step: &Step, groups: usize) -> Result<View> {
        let piece = |view: &View, shape: &[usize]| {
            view.reshape(shape).ok_or_else(|| fail!(Internal, "a dense operand did not reshape to {shape:?}"))
        };
        let [x, w] = [&step.inputs[0], &step.inputs[1]];
        let (batch, channels, spatial) = (x.shape[0], x.shape[1] / groups, &x.shape[2..]);
        let taps: usize = w.shape[2..].iter().product();
        let rows = w.shape[1] * taps;
        let left = piece(w, &[groups, channels, rows])?.swap(1, 2).broadcast(&[batch, groups, rows, channels])?;
        let positions = spatial.iter().product();
        let right = piece(x, &[batch, groups, channels, positions])?;
        let columns = self.tensor(DType::F32, &[batch, groups, rows, positions], &step.node)?;
        let kernel = MatMul { alpha: 1.0, epilogue: None }.into();
        let (inputs, outputs) = (vec![left, right], vec![columns.clone()]);
        self.plan.steps.push(Step { kernel, inputs, outputs, node: step.node.clone() });
        piece(&columns, &[&[batch, groups * w.shape[1], taps], spatial].concat())
    }

    /// Makes the kernel deliver its accumulators and puts the map into a step of its own.
    fn split_epilogue(&mut self, step: &mut Step, map: Map, after: &mut Vec<Step>) -> Result<()> {
        let output = step.outputs[0].clone();
        let accumulators = self.tensor(map.inputs[0], &output.shape, &step.node)?;
        let mut inputs = vec![accumulators.clone()];
        inputs.extend(step.inputs.drain(own_operands(&step.kernel)..));
        step.outputs[0] = accumulators;
        after.push(Step { kernel: map.into(), inputs, outputs: vec![output], node: step.node.clone() });
        Ok(())
    }

    fn dtype(&self, view: &View) -> DType {
        self.plan.tensor(view.tensor).ty.dtype
    }

    fn tensor(&mut self, dtype: DType, shape: &[usize], node: &str) -> Result<View> {
        self.define(TensorType::new(dtype, shape.to_vec())?, Origin::Steps, node)
    }

    fn define(&mut self, ty: TensorType, origin: Origin, node: &str) -> Result<View> {
        let id = TensorId(self.plan.tensors.len() as u32);
        let view = View::dense(id, &ty.shape);
        self.plan.tensors.push(TensorDef { name: node.to_owned(), ty, origin });
        Ok(view)
    }

    /// The operand in a form and type that the kernel takes: itself, or a copy.
    fn operand(&mut self, view: &View, form: Form, casts: bool, node: &str) -> Result<View> {
        let dtype = self.dtype(view);
        let wanted = if casts && is_half(dtype) { DType::F32 } else { dtype };
        if wanted == dtype && form.holds(view) {
            return Ok(view.clone());
        }
        // Broadcast axes are copied once, if the kernel can do without them.
        let mut source = view.clone();
        if form == Form::Any {
            for axis in (0..view.rank()).filter(|&axis| view.strides[axis] == 0) {
                source.shape[axis] = source.shape[axis].min(1);
            }
        }
        let copy = match self.plan.constant(&source) {
            Some(tensor) => {
                let dense = converted(&source.materialize(tensor)?, wanted)?;
                self.define(dense.ty(), Origin::Constant(dense), node)?
            }
            None => {
                let copy = self.tensor(wanted, &source.shape, node)?;
                let kernel = transfer(dtype, wanted).into();
                self.plan.steps.push(Step {
                    kernel,
                    inputs: vec![source],
                    outputs: vec![copy.clone()],
                    node: node.to_owned(),
                });
                copy
            }
        };
        copy.broadcast(&view.shape)
    }
}

/// The map that copies elements of one type to another.
fn transfer(from: DType, to: DType) -> Map {
    if from == to { Map::copy(from) } else { Map::cast(from, to) }
}

/// The tensor in another float type.
fn converted(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.dtype() == dtype {
        return Ok(tensor.clone());
    }
    Ok(Map::cast(tensor.dtype(), dtype).reference(std::slice::from_ref(tensor))?.swap_remove(0))
}
