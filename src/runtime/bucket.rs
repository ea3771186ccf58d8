//! Buckets as callers give them.

use super::model::InputInfo;
use crate::error::{Result, ensure, fail};
use crate::ir::{Element, Shape, Tensor};
use crate::plan;
use bytes::Bytes;

/// One concrete set of input shapes, and the values of shape inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Per model input, its extents.
    pub shapes: Vec<Shape>,
    /// The values of shape inputs: input, and its row-major little-endian elements.
    pub values: Vec<(usize, Vec<u8>)>,
}

impl Bucket {
    /// A bucket of these shapes, one per model input.
    pub fn new(shapes: impl Into<Vec<Shape>>) -> Self {
        Bucket { shapes: shapes.into(), values: Vec::new() }
    }

    /// With the values of a shape input.
    #[must_use]
    pub fn with_values<T: Element>(mut self, input: usize, values: &[T]) -> Self {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| value.push_le(&mut bytes));
        self.values.push((input, bytes));
        self
    }

    /// The bucket that the planner knows, whose values have types.
    pub(super) fn resolve(&self, inputs: &[InputInfo]) -> Result<plan::Bucket> {
        let (given, wanted) = (self.shapes.len(), inputs.len());
        ensure!(given == wanted, ShapeMismatch, "the model has {wanted} inputs and the bucket {given}");
        let mut values = vec![None; wanted];
        for (index, bytes) in &self.values {
            let input = inputs.get(*index);
            let input =
                input.ok_or_else(|| fail!(InvalidArgument, "there is no input {index}; the model has {wanted}"))?;
            let (name, shape) = (&input.name, &self.shapes[*index]);
            ensure!(input.is_shape_input, ShapeMismatch, "'{name}' is no shape input: a bucket gives no values for it");
            let tensor = Tensor::new(input.dtype, shape.clone(), Bytes::from(bytes.clone()));
            let misfit = || {
                fail!(
                    ShapeMismatch,
                    "{} bytes are no {} values of shape {shape:?} for '{name}'",
                    bytes.len(),
                    input.dtype
                )
            };
            values[*index] = Some(tensor.map_err(|_| misfit())?);
        }
        for (input, value) in inputs.iter().zip(&values) {
            let name = &input.name;
            let is_complete = value.is_some() || !input.is_shape_input;
            ensure!(is_complete, ShapeMismatch, "'{name}' is a shape input: the bucket must give its values");
        }
        Ok(plan::Bucket { shapes: self.shapes.clone(), values })
    }

    /// The bucket as a caller would have given it.
    pub(super) fn of(bucket: &plan::Bucket) -> Self {
        let values = bucket.values.iter().enumerate();
        let values = values.filter_map(|(index, value)| Some((index, value.as_ref()?.data().to_vec()))).collect();
        Bucket { shapes: bucket.shapes.clone(), values }
    }
}
