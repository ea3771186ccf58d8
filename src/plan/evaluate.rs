//! Runs a plan by definition: every step through its family's reference, on materialised views. The oracle for passes and
//! for devices; nothing here is fast.

use super::{Origin, Plan, Step, View};
use crate::error::{Result, ensure, fail};
use crate::ir::Tensor;

/// The model outputs for `inputs`, one tensor of the planned type per model input.
pub fn evaluate(plan: &Plan, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    ensure!(inputs.len() == plan.inputs.len(), InvalidArgument, "the plan takes {} inputs", plan.inputs.len());
    let mut stores = Vec::with_capacity(plan.tensors.len());
    for def in &plan.tensors {
        stores.push(match &def.origin {
            Origin::Constant(tensor) => Store::Known(tensor.clone()),
            Origin::Input(index) => {
                let given = inputs
                    .get(*index)
                    .filter(|given| given.ty() == def.ty)
                    .ok_or_else(|| fail!(ShapeMismatch, "input '{}' is not {:?}", def.name, def.ty))?;
                Store::Known(given.clone())
            }
            Origin::Steps => {
                let (bytes, count) = (def.ty.bytes(), def.ty.count());
                Store::Written { bytes: vec![0; bytes], written: vec![false; count] }
            }
        });
    }
    for (index, step) in plan.steps.iter().enumerate() {
        run(plan, step, &mut stores)
            .map_err(|error| error.within(format!("step {index} ({} of node '{}')", step.kernel.name(), step.node)))?;
    }
    plan.outputs
        .iter()
        .map(|&id| stores[id.0 as usize].read(plan, &View::dense(id, &plan.tensor(id).ty.shape)))
        .collect()
}

fn run(plan: &Plan, step: &Step, stores: &mut [Store]) -> Result<()> {
    let operands = step.inputs.iter().map(|view| stores[view.tensor.0 as usize].read(plan, view));
    let operands = operands.collect::<Result<Vec<_>>>()?;
    let results = step.kernel.family().reference(&operands)?;
    ensure!(results.len() == step.outputs.len(), Internal, "{} results for {:?}", results.len(), step.outputs);
    for (view, result) in step.outputs.iter().zip(&results) {
        let expected = plan.view_type(view);
        ensure!(result.ty() == expected, Internal, "the reference gives {:?}, not {expected:?}", result.ty());
        stores[view.tensor.0 as usize].write(view, result)?;
    }
    Ok(())
}

/// The elements of one tensor while a plan runs.
enum Store {
    Known(Tensor),
    Written { bytes: Vec<u8>, written: Vec<bool> },
}

impl Store {
    fn read(&self, plan: &Plan, view: &View) -> Result<Tensor> {
        match self {
            Store::Known(tensor) => view.materialize(tensor),
            Store::Written { bytes, written } => {
                let ty = plan.view_type(view);
                let size = ty.dtype.bytes();
                let mut ready = true;
                let mut data = Vec::with_capacity(ty.bytes());
                view.for_each_position(|position| {
                    ready &= written[position];
                    data.extend_from_slice(&bytes[position * size..(position + 1) * size]);
                });
                ensure!(ready, Internal, "tensor {} is read before it is written", view.tensor.0);
                Tensor::new(ty.dtype, ty.shape, data.into())
            }
        }
    }

    fn write(&mut self, view: &View, result: &Tensor) -> Result<()> {
        let Store::Written { bytes, written } = self else {
            return Err(fail!(Internal, "tensor {} is written and is no result", view.tensor.0));
        };
        let size = result.dtype().bytes();
        let mut elements = result.data().chunks_exact(size);
        view.for_each_position(|position| {
            if let Some(element) = elements.next() {
                bytes[position * size..(position + 1) * size].copy_from_slice(element);
                written[position] = true;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{DType, TensorType};
    use crate::kernels::{Map, Unary};
    use crate::plan::{Bucket, Builder};

    #[test]
    fn several_steps_write_parts_of_one_tensor_and_the_last_wins() {
        let mut builder = Builder::new(Bucket::default());
        let ty = TensorType { dtype: DType::F32, shape: vec![2, 2] };
        let x = builder.tensor(ty.clone(), Origin::Input(0));
        builder.plan.inputs.push(x.tensor);
        let out = builder.tensor(TensorType { dtype: DType::F32, shape: vec![2, 3] }, Origin::Steps);
        builder.plan.outputs.push(out.tensor);
        let mut write = |kernel: Map, input: View, output: View| {
            let step = Step { kernel: kernel.into(), inputs: vec![input], outputs: vec![output], node: String::new() };
            builder.plan.steps.push(step);
        };
        write(Map::copy(DType::F32), x.clone(), out.slice(1, 0, 2, 1));
        write(Map::unary(Unary::Neg, DType::F32), x.swap(0, 1), out.slice(1, 1, 2, 1));
        let input = Tensor::from_slice(&[2, 2], &[1f32, 2.0, 3.0, 4.0]);
        let outputs = evaluate(&builder.plan, std::slice::from_ref(&input)).unwrap();
        assert_eq!(outputs[0].to_vec::<f32>().unwrap(), [1.0, -1.0, -3.0, 3.0, -2.0, -4.0]);

        builder.plan.steps.pop();
        let message = evaluate(&builder.plan, &[input]).unwrap_err().message;
        assert!(message.contains("before it is written"), "{message}");
    }
}
