//! Rewrites a plan so that the GPU's kernels can run every step: the factors of products have one type and lie as the kernels demand.
//! Copies and casts are maps.

use super::program::half_of;
use super::{layout, precision};
use crate::error::Result;
use crate::ir::{DType, TensorType};
use crate::kernels::{Kernel, Map};
use crate::lower::Precision;
use crate::plan::{Origin, Plan, Step, TensorDef, TensorId, View};

/// How an operand must lie for its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Anyhow.
    Any,
    /// Elements of the last axis side by side.
    Rows,
    /// Elements of one of the last two axes side by side.
    Matrix,
    /// Anyhow; a copy has the channels, axis 1, side by side.
    Images,
}

impl Form {
    fn of(kernel: &Kernel, index: usize) -> Form {
        match (kernel, index) {
            (Kernel::MatMul(_), 0) | (Kernel::Attention(_), 0..=2) | (Kernel::Recurrent(_), 0..=1) => Form::Rows,
            (Kernel::MatMul(_), 1) => Form::Matrix,
            (Kernel::Conv(_) | Kernel::ConvTranspose(_), 0) => Form::Images,
            _ => Form::Any,
        }
    }

    fn holds(self, view: &View) -> bool {
        let runs = |from_end: usize| {
            let axis = view.rank().checked_sub(from_end);
            axis.is_none_or(|axis| view.shape[axis] == 1 || view.strides[axis] == 1)
        };
        match self {
            Form::Any | Form::Images => true,
            Form::Rows => runs(1),
            Form::Matrix => runs(1) || runs(2),
        }
    }
}

/// The position of R among the operands of a recurrence.
const RECURRENT_WEIGHTS: usize = 2;

/// The number of operands that are factors of a product and must have one type.
fn factors(kernel: &Kernel) -> usize {
    match kernel {
        Kernel::MatMul(_) | Kernel::Conv(_) | Kernel::ConvTranspose(_) => 2,
        Kernel::Attention(_) => 3,
        _ => 0,
    }
}

/// An equal plan whose steps the GPU's kernels can run.
pub fn legalise(plan: Plan, precision: Precision) -> Result<Plan> {
    let steps = plan.steps.clone();
    let mut legal = Legal { plan: Plan { steps: Vec::with_capacity(steps.len()), ..plan }, precision };
    for step in steps {
        legal.step(step)?;
    }
    Ok(legal.plan)
}

struct Legal {
    plan: Plan,
    precision: Precision,
}

impl Legal {
    fn step(&mut self, mut step: Step) -> Result<()> {
        let factors = factors(&step.kernel);
        let dtype = self.factor_type(&step.inputs[..factors]);
        for index in 0..step.inputs.len() {
            let stored = self.plan.tensor(step.outputs[0].tensor).ty.dtype;
            let wanted = match dtype {
                Some(dtype) if index < factors => Some(dtype),
                // The state is binary32, and what it is multiplied by.
                _ if matches!(step.kernel, Kernel::Recurrent(_)) && index == RECURRENT_WEIGHTS => Some(DType::F32),
                _ => precision::moved(&step.kernel).contains(&index).then_some(stored),
            };
            let form = Form::of(&step.kernel, index);
            step.inputs[index] = self.operand(&step.inputs[index], form, wanted, &step.node)?;
        }
        self.plan.steps.push(step);
        Ok(())
    }

    /// The type in which factors are multiplied; `None` for integers.
    fn factor_type(&self, views: &[View]) -> Option<DType> {
        let dtypes: Vec<DType> = views.iter().map(|view| self.plan.tensor(view.tensor).ty.dtype).collect();
        if dtypes.is_empty() || !dtypes[0].is_float() {
            return None;
        }
        let one = dtypes.iter().all(|dtype| *dtype == dtypes[0]).then_some(dtypes[0]);
        let Some(half) = half_of(self.precision) else { return one.or(Some(DType::F32)) };
        let constants = views.iter().filter_map(|view| self.plan.constant(view));
        let fits = !constants.into_iter().any(|tensor| precision::exceeds(tensor, half));
        Some(if fits { half } else { DType::F32 })
    }

    fn define(&mut self, ty: TensorType, origin: Origin, node: &str) -> View {
        let id = TensorId(self.plan.tensors.len() as u32);
        let view = View::dense(id, &ty.shape);
        self.plan.tensors.push(TensorDef { name: node.to_owned(), ty, origin });
        view
    }

    /// A new tensor of this shape.
    fn room(&mut self, dtype: DType, shape: &[usize], form: Form, node: &str) -> Result<View> {
        let stored = if form == Form::Images { layout::stored(shape) } else { shape.to_vec() };
        let view = self.define(TensorType::new(dtype, stored)?, Origin::Steps, node);
        Ok(if form == Form::Images { layout::shown(&view) } else { view })
    }

    /// The operand in a form and type that the kernel takes: itself, or a copy.
    fn operand(&mut self, view: &View, form: Form, wanted: Option<DType>, node: &str) -> Result<View> {
        let dtype = self.plan.tensor(view.tensor).ty.dtype;
        let wanted = wanted.unwrap_or(dtype);
        if wanted == dtype && form.holds(view) {
            return Ok(view.clone());
        }
        // Broadcast axes are copied once.
        let mut source = view.clone();
        for axis in (0..view.rank()).filter(|&axis| view.strides[axis] == 0) {
            source.shape[axis] = source.shape[axis].min(1);
        }
        let copy = match self.plan.constant(&source) {
            // The definition's type is what is stored: the elements are converted when the constant is loaded.
            Some(tensor) => {
                let dense = source.materialize(tensor)?;
                let ty = TensorType { dtype: wanted, shape: source.shape.clone() };
                self.define(ty, Origin::Constant(dense), node)
            }
            None => {
                let copy = self.room(wanted, &source.shape, form, node)?;
                let kernel = if wanted == dtype { Map::copy(dtype) } else { Map::cast(dtype, wanted) };
                let (inputs, outputs) = (vec![source], vec![copy.clone()]);
                self.plan.steps.push(Step { kernel: kernel.into(), inputs, outputs, node: node.to_owned() });
                copy
            }
        };
        copy.broadcast(&view.shape)
    }
}
