//! What holds of every plan, between any two passes.

use super::{Origin, Plan, Step, View};
use crate::error::{Result, ensure, fail};
use crate::ir::TensorType;
use std::collections::HashSet;

/// Up to this many elements of a tensor it is checked one by one that what is read has been written.
const TRACKED_ELEMENTS_MAX: usize = 4096;

/// Checks that views lie inside their tensors, that every kernel agrees with the types of its views, that operands are written
/// before they are read, and that model inputs and outputs are what [`Plan`] says. The error names step and node.
pub fn validate(plan: &Plan) -> Result<()> {
    let mut written: Vec<Written> = plan.tensors.iter().map(|def| Written::nothing(def.ty.count())).collect();
    for (index, step) in plan.steps.iter().enumerate() {
        check_step(plan, step, &mut written)
            .map_err(|error| error.within(format!("step {index} ({} of node '{}')", step.kernel.name(), step.node)))?;
    }
    for (index, &id) in plan.inputs.iter().enumerate() {
        let known = plan.tensors.get(id.0 as usize);
        let fits = known.is_some_and(|def| matches!(def.origin, Origin::Input(input) if input == index));
        ensure!(fits, Internal, "model input {index} has no tensor of its own");
    }
    let mut seen = HashSet::new();
    for (index, &id) in plan.outputs.iter().enumerate() {
        let known = plan.tensors.get(id.0 as usize);
        ensure!(
            known.is_some_and(|def| matches!(def.origin, Origin::Steps)) && seen.insert(id),
            Internal,
            "model output {index} is not a tensor of its own that steps write"
        );
        let whole = View::dense(id, &plan.tensor(id).ty.shape);
        ensure!(written[id.0 as usize].covers(&whole), Internal, "model output {index} is not written");
    }
    Ok(())
}

fn check_step(plan: &Plan, step: &Step, written: &mut [Written]) -> Result<()> {
    for (operand, view) in step.inputs.iter().enumerate() {
        check_view(plan, view)?;
        let ready = match plan.tensor(view.tensor).origin {
            Origin::Steps => written[view.tensor.0 as usize].covers(view),
            Origin::Input(_) | Origin::Constant(_) => true,
        };
        ensure!(ready, Internal, "operand {operand} reads tensor {} before it is written", view.tensor.0);
    }
    for (result, view) in step.outputs.iter().enumerate() {
        check_view(plan, view)?;
        let writable = matches!(plan.tensor(view.tensor).origin, Origin::Steps) && view.is_injective();
        ensure!(writable, Internal, "result {result} cannot be written to tensor {}: {view:?}", view.tensor.0);
        written[view.tensor.0 as usize].mark(view);
    }
    let types = |views: &[View]| views.iter().map(|view| plan.view_type(view)).collect::<Vec<TensorType>>();
    let (expected, actual) = (step.kernel.family().infer(&types(&step.inputs))?, types(&step.outputs));
    ensure!(expected == actual, Internal, "the kernel gives {expected:?} and the views show {actual:?}");
    Ok(())
}

fn check_view(plan: &Plan, view: &View) -> Result<()> {
    let id = view.tensor.0;
    let Some(def) = plan.tensors.get(id as usize) else {
        return Err(fail!(Internal, "there is no tensor {id}"));
    };
    let inside = view.count() == 0 || view.bounds().is_some_and(|(_, last)| last < def.ty.count());
    ensure!(
        inside && view.strides.len() == view.rank(),
        Internal,
        "{view:?} does not lie inside tensor {id} of shape {:?}",
        def.ty.shape
    );
    Ok(())
}

/// Which elements of a tensor have been written.
enum Written {
    Each(Vec<bool>),
    /// Of a large tensor only the number is known.
    Count {
        total: usize,
        written: usize,
    },
}

impl Written {
    fn nothing(count: usize) -> Written {
        match count {
            0..=TRACKED_ELEMENTS_MAX => Written::Each(vec![false; count]),
            _ => Written::Count { total: count, written: 0 },
        }
    }

    fn mark(&mut self, view: &View) {
        match self {
            Written::Each(flags) => view.for_each_position(|position| flags[position] = true),
            Written::Count { written, .. } => *written = written.saturating_add(view.count()),
        }
    }

    fn covers(&self, view: &View) -> bool {
        match self {
            Written::Each(flags) => {
                let mut all = true;
                view.for_each_position(|position| all &= flags[position]);
                all
            }
            Written::Count { total, written } => view.count() == 0 || *written >= view.count().min(*total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::kernels::{Map, Unary};
    use crate::plan::{Bucket, Builder, TensorId};

    fn two_steps() -> Plan {
        let mut builder = Builder::new(Bucket::default());
        let x = builder.tensor(TensorType { dtype: DType::F32, shape: vec![2, 3] }, Origin::Input(0));
        builder.plan.inputs.push(x.tensor);
        let y = builder.emit1(Map::unary(Unary::Exp, DType::F32), &[x]).unwrap();
        let z = builder.emit1(Map::unary(Unary::Neg, DType::F32), &[y.swap(0, 1)]).unwrap();
        builder.plan.outputs.push(z.tensor);
        builder.plan
    }

    fn fault(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = two_steps();
        validate(&plan).unwrap();
        change(&mut plan);
        validate(&plan).unwrap_err().message
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        assert!(fault(|plan| plan.steps.swap(0, 1)).contains("before it is written"));
        assert!(fault(|plan| plan.steps[1].inputs[0].offset = 1).contains("does not lie inside"));
        assert!(fault(|plan| plan.steps[0].outputs[0].strides[0] = 0).contains("cannot be written"));
        assert!(fault(|plan| plan.steps[0].outputs[0] = View::dense(TensorId(1), &[6])).contains("the views show"));
        assert!(fault(|plan| plan.outputs.push(plan.outputs[0])).contains("of its own"));
        assert!(fault(|plan| plan.outputs = plan.inputs.clone()).contains("of its own"));
        assert!(fault(|plan| plan.steps[1].inputs[0].tensor = TensorId(9)).contains("no tensor"));
        assert!(fault(|plan| plan.inputs[0] = TensorId(1)).contains("model input 0"));
    }
}
