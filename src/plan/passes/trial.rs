//! For the tests of passes: a small plan built by hand, run before and after.

use super::Draft;
use crate::error::Result;
use crate::ir::{DType, Tensor, TensorType};
use crate::kernels::Kernel;
use crate::plan::{Bucket, Builder, Origin, Plan, Step, View, evaluate, validate};

/// A plan under construction, and pseudo-random inputs for it.
pub struct Trial {
    /// Takes further tensors and steps.
    pub builder: Builder,
    inputs: Vec<Tensor>,
    seed: u64,
}

impl Trial {
    /// An empty plan.
    pub fn empty() -> Trial {
        Trial { builder: Builder::new(Bucket::default()), inputs: Vec::new(), seed: 1 }
    }

    fn random(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn values(&mut self, shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| self.random()).collect();
        Tensor::from_slice(shape, &values)
    }

    /// A model input of random floats between -1 and 1.
    pub fn input(&mut self, shape: &[usize]) -> View {
        let values = self.values(shape);
        self.input_of(values)
    }

    /// A model input with the given value.
    pub fn input_of(&mut self, value: Tensor) -> View {
        let view = self.builder.tensor(value.ty(), Origin::Input(self.inputs.len()));
        self.builder.plan.inputs.push(view.tensor);
        self.inputs.push(value);
        view
    }

    /// A constant of random floats between -1 and 1.
    pub fn weight(&mut self, shape: &[usize]) -> View {
        let values = self.values(shape);
        self.builder.constant(values)
    }

    /// A constant scalar.
    pub fn scalar(&mut self, value: f32) -> View {
        self.builder.constant(Tensor::scalar(value))
    }

    /// The only result of a step.
    pub fn emit(&mut self, kernel: impl Into<Kernel>, inputs: &[&View]) -> View {
        let inputs: Vec<View> = inputs.iter().map(|&view| view.clone()).collect();
        self.builder.emit1(kernel, &inputs).unwrap()
    }

    /// A tensor of floats that steps write.
    pub fn room(&mut self, shape: &[usize]) -> View {
        self.builder.tensor(TensorType { dtype: DType::F32, shape: shape.to_vec() }, Origin::Steps)
    }

    /// A step with a result of its own choosing.
    pub fn write(&mut self, kernel: impl Into<Kernel>, inputs: &[&View], output: &View) {
        let inputs = inputs.iter().map(|&view| view.clone()).collect();
        let step = Step { kernel: kernel.into(), inputs, outputs: vec![output.clone()], node: String::new() };
        self.builder.plan.steps.push(step);
    }

    /// Makes the tensor of a view a model output.
    pub fn deliver(&mut self, view: &View) {
        self.builder.plan.outputs.push(view.tensor);
    }

    /// Runs a pass; the plan stays valid and computes the same.
    pub fn check(&self, pass: impl FnOnce(&mut Draft) -> Result<()>) -> Plan {
        self.compare(|plan| {
            let mut draft = Draft::new(plan);
            pass(&mut draft)?;
            Ok(draft.finish())
        })
    }

    /// As [`Trial::check`], for any rewriting.
    pub fn compare(&self, rewrite: impl FnOnce(Plan) -> Result<Plan>) -> Plan {
        let before = self.builder.plan.clone();
        validate(&before).unwrap();
        let after = rewrite(before.clone()).unwrap();
        validate(&after).unwrap();
        let expected = evaluate(&before, &self.inputs).unwrap();
        let actual = evaluate(&after, &self.inputs).unwrap();
        for (expected, actual) in expected.iter().zip(&actual) {
            assert_eq!(expected.ty(), actual.ty());
            for (expected, actual) in expected.to_f64s().iter().zip(actual.to_f64s()) {
                let close = (expected - actual).abs() <= 2e-5 * expected.abs().max(1.0);
                assert!(close || expected.is_nan() && actual.is_nan(), "{expected} became {actual}");
            }
        }
        after
    }
}

/// The names of a plan's kernels, in program order.
pub fn kernels(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(|step| step.kernel.name()).collect()
}
