//! Single nodes, translated with constant operands: folding runs the references, so the numbers are those of the whole
//! path. Expected values are ONNX Runtime's unless a test says otherwise. The onnx package's node tests cover the newest
//! form of every operator; these tests are about old forms, combinations, folding and refusals.

mod fused;
mod numbers;
mod preparation;
mod qlinear;
mod refusals;
mod views;

use super::call::Call;
use super::table::lookup;
use crate::error::{Result, Status};
use crate::ir::{Attribute, Node, Tensor, TensorType, ValueId};
use crate::plan::{Bucket, Builder, Origin, View};
use std::collections::BTreeMap;

/// A node with its operands.
pub struct Sample {
    node: Node,
    opset: i64,
    operands: Vec<Option<Tensor>>,
    /// Operands that are inputs of the model instead of constants.
    unknown: Vec<usize>,
}

/// A node of the newest supported opset with one output.
pub fn node(op: &str) -> Sample {
    let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
    let node = Node {
        name: "node".into(),
        op: op.into(),
        domain: domain.into(),
        inputs: Vec::new(),
        outputs: vec![Some(ValueId(0))],
        attributes: BTreeMap::new(),
    };
    Sample { node, opset: 21, operands: Vec::new(), unknown: Vec::new() }
}

impl Sample {
    pub fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    pub fn outputs(mut self, count: u32) -> Self {
        self.node.outputs = (0..count).map(|index| Some(ValueId(index))).collect();
        self
    }

    /// Leaves out the names of these outputs: nothing wants them.
    pub fn drop_outputs(&mut self, indices: &[usize]) {
        indices.iter().for_each(|&index| self.node.outputs[index] = None);
    }

    pub fn of(mut self, operand: Tensor) -> Self {
        self.operands.push(Some(operand));
        self
    }

    pub fn without(mut self) -> Self {
        self.operands.push(None);
        self
    }

    /// An operand of zeros whose value is not known while planning.
    pub fn unknown(mut self, shape: &[usize]) -> Self {
        self.unknown.push(self.operands.len());
        self.of(Tensor::from_slice(shape, &vec![0f32; shape.iter().product()]))
    }

    pub fn unknown_integers(mut self, shape: &[usize]) -> Self {
        self.unknown.push(self.operands.len());
        self.of(Tensor::from_slice(shape, &vec![0i64; shape.iter().product()]))
    }

    pub fn int(self, name: &str, value: i64) -> Self {
        self.attribute(name, Attribute::Int(value))
    }

    pub fn ints(self, name: &str, values: &[i64]) -> Self {
        self.attribute(name, Attribute::Ints(values.to_vec()))
    }

    pub fn float(self, name: &str, value: f32) -> Self {
        self.attribute(name, Attribute::Float(value))
    }

    pub fn floats(self, name: &str, values: &[f32]) -> Self {
        self.attribute(name, Attribute::Floats(values.to_vec()))
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        self.attribute(name, Attribute::String(value.into()))
    }

    pub fn texts(self, name: &str, values: &[&str]) -> Self {
        self.attribute(name, Attribute::Strings(values.iter().map(|value| value.to_string()).collect()))
    }

    pub fn attribute(mut self, name: &str, value: Attribute) -> Self {
        self.node.attributes.insert(name.into(), value);
        self
    }

    /// The views of the results, and the builder that has their steps.
    pub fn translate(&self) -> Result<(Builder, Vec<View>)> {
        let mut builder = Builder::new(Bucket::default());
        let operands = self.operands.iter().enumerate();
        let inputs = operands.map(|(index, operand)| {
            let operand = operand.clone()?;
            Some(if self.unknown.contains(&index) {
                builder
                    .tensor(TensorType::new(operand.dtype(), operand.shape().to_vec()).unwrap(), Origin::Input(index))
            } else {
                builder.constant(operand)
            })
        });
        let inputs = inputs.collect();
        let call = Call { node: &self.node, opset: self.opset, inputs };
        let operator = lookup(&self.node.domain, &self.node.op).expect("a supported operator");
        let views = operator.translate(&mut builder, &call)?;
        Ok((builder, views))
    }

    /// The results, which must have folded.
    pub fn values(&self) -> Vec<Tensor> {
        let (builder, views) = self.translate().unwrap_or_else(|error| panic!("{}: {error}", self.node.op));
        assert!(builder.plan.steps.is_empty(), "{} did not fold", self.node.op);
        views.iter().map(|view| builder.value(view).unwrap().expect("a constant")).collect()
    }

    /// Checks the shapes and values of all float results.
    pub fn gives(&self, expected: &[(&[usize], &[f64])]) {
        let values = self.values();
        assert!(values.len() >= expected.len(), "{} has {} results", self.node.op, values.len());
        for (index, (value, (shape, numbers))) in values.iter().zip(expected).enumerate() {
            assert_eq!(value.shape(), *shape, "shape of result {index} of {}", self.node.op);
            for (position, (got, wanted)) in value.to_f64s().iter().zip(*numbers).enumerate() {
                let near = got == wanted || (got - wanted).abs() <= 1e-5 * wanted.abs().max(1.0);
                assert!(near, "{} result {index}, element {position}: {got}, not {wanted}", self.node.op);
            }
            assert_eq!(value.count(), numbers.len());
        }
    }

    /// Checks that the translation is refused with this status, and that the message names `word`.
    pub fn refused(&self, status: Status, word: &str) {
        match self.translate() {
            Ok(_) => panic!("{} was translated", self.node.op),
            Err(error) => {
                assert_eq!(error.status, status, "{error}");
                assert!(error.message.contains(word), "'{error}' does not name '{word}'");
            }
        }
    }
}

/// Numbers in -1.25..=1.25 in an order without pattern.
pub fn ramp(shape: &[usize]) -> Tensor {
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|index: usize| (index * 7 % 11) as f32 / 4.0 - 1.25).collect();
    Tensor::from_slice(shape, &values)
}

/// [`ramp`] at half the height.
pub fn gentle(shape: &[usize]) -> Tensor {
    let values: Vec<f32> = ramp(shape).to_f64s().iter().map(|value| *value as f32 / 2.0).collect();
    Tensor::from_slice(shape, &values)
}

pub fn floats(values: &[f32]) -> Tensor {
    Tensor::from_slice(&[values.len()], values)
}

pub fn integers(values: &[i64]) -> Tensor {
    Tensor::from_slice(&[values.len()], values)
}
