//! What is put into a model: arrays of a file, or random values.

use crate::args::Made;
use crate::arrays::Arrays;
use half::{bf16, f16};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use streaminfer::error::{Error, Result, Status};
use streaminfer::ir::{DType, Scalar, Shape, Tensor, TensorType};
use streaminfer::runtime::{Bucket, Context, InputInfo, Plain};

/// Integers without a range are below this, and not below 0.
const INTEGERS_BELOW: f64 = 100.0;

/// One value per input.
pub struct Feed {
    /// In the model's order.
    pub tensors: Vec<Tensor>,
}

fn wrong(text: String) -> Error {
    Error::new(Status::InvalidArgument, text)
}

/// The names of all inputs, for messages.
fn list(inputs: &[InputInfo]) -> String {
    inputs.iter().map(|input| format!("'{}'", input.name)).collect::<Vec<_>>().join(", ")
}

impl Feed {
    /// The arrays named as the inputs.
    pub fn from_arrays(arrays: &mut Arrays, inputs: &[InputInfo]) -> Result<Feed> {
        let is_input = |name: &String| inputs.iter().any(|input| input.name == *name);
        if let Some(name) = arrays.names().iter().find(|name| !is_input(name)) {
            return Err(wrong(format!("array '{name}' is no input of the model; its inputs are {}", list(inputs))));
        }
        let tensors = inputs.iter().map(|input| arrays.read(&input.name, input.dtype)).collect::<Result<_>>()?;
        Ok(Feed { tensors })
    }

    /// Random values, the same for the same seed. `open` stands for a dimension that nothing fixes; without it such a
    /// dimension is an error.
    pub fn random(made: &Made, inputs: &[InputInfo], open: Option<usize>) -> Result<Feed> {
        let shapes = made.shapes.iter().map(|(name, _)| name);
        for name in shapes.chain(made.ranges.iter().map(|(name, _)| name)) {
            if !inputs.iter().any(|input| input.name == *name) {
                return Err(wrong(format!("'{name}' is no input of the model; its inputs are {}", list(inputs))));
            }
        }
        let mut random = Xoshiro256PlusPlus::seed_from_u64(made.seed);
        let tensors = inputs.iter().map(|input| {
            let shape = shape_of(made, input, open)?;
            let range = made.ranges.iter().rfind(|(name, _)| *name == input.name).map(|&(_, range)| range);
            let count = TensorType::new(input.dtype, shape.clone())?.count();
            let values = (0..count).map(|_| draw(&mut random, input.dtype, range));
            Ok(Tensor::from_scalars(input.dtype, &shape, values))
        });
        Ok(Feed { tensors: tensors.collect::<Result<_>>()? })
    }

    /// The bucket that takes these values.
    pub fn bucket(&self, inputs: &[InputInfo]) -> Bucket {
        let values = self.tensors.iter().enumerate().filter(|(index, _)| inputs[*index].is_shape_input);
        Bucket {
            shapes: self.tensors.iter().map(|tensor| tensor.shape().to_vec()).collect(),
            values: values.map(|(index, tensor)| (index, tensor.data().to_vec())).collect(),
        }
    }

    /// Puts the values into a prepared context.
    pub fn write(&self, context: &mut Context) -> Result<()> {
        for (index, tensor) in self.tensors.iter().enumerate() {
            write_input(context, index, tensor)?;
        }
        Ok(())
    }
}

fn shape_of(made: &Made, input: &InputInfo, open: Option<usize>) -> Result<Shape> {
    if let Some((_, shape)) = made.shapes.iter().rfind(|(name, _)| *name == input.name) {
        return Ok(shape.clone());
    }
    let declared = input.dims.as_deref().or(open.map(|_| &[][..]));
    let shape = declared.and_then(|dims| dims.iter().map(|dim| dim.or(open)).collect::<Option<Shape>>());
    shape.ok_or_else(|| {
        let name = |(axis, dim): (usize, &Option<usize>)| match (dim, input.dim_names.get(axis)) {
            (Some(extent), _) => extent.to_string(),
            (None, Some(Some(name))) => name.clone(),
            _ => "?".into(),
        };
        let dims = input.dims.iter().flatten().enumerate().map(name).collect::<Vec<_>>().join(", ");
        let declared = if input.dims.is_some() { format!("declared as [{dims}]") } else { "of any shape".into() };
        wrong(format!("input '{}' is {declared}: give its shape with --shape {}=..", input.name, input.name))
    })
}

fn draw(random: &mut Xoshiro256PlusPlus, dtype: DType, range: Option<(f64, f64)>) -> Scalar {
    if dtype == DType::Bool && range.is_none() {
        return Scalar::Int(random.random_range(0..=1));
    }
    let default = if dtype.is_float() { (-1.0, 1.0) } else { (0.0, INTEGERS_BELOW) };
    let (low, high) = range.unwrap_or(default);
    let value = random.random_range(low..high);
    if dtype.is_float() { Scalar::Float(value) } else { Scalar::Int(value.floor() as i64) }
}

fn write_input(context: &mut Context, index: usize, tensor: &Tensor) -> Result<()> {
    fn copy<T: Plain>(context: &mut Context, index: usize, tensor: &Tensor) -> Result<()> {
        let values = tensor.to_vec::<T>().expect("the caller matched the type");
        let place = context.input_mut::<T>(index)?;
        if place.len() != values.len() {
            return Err(wrong(format!("input {index} has {} elements, not {}", place.len(), values.len())));
        }
        place.copy_from_slice(&values);
        Ok(())
    }
    match tensor.dtype() {
        DType::F32 => copy::<f32>(context, index, tensor),
        DType::F16 => copy::<f16>(context, index, tensor),
        DType::BF16 => copy::<bf16>(context, index, tensor),
        DType::I64 => copy::<i64>(context, index, tensor),
        DType::I32 => copy::<i32>(context, index, tensor),
        DType::I8 => copy::<i8>(context, index, tensor),
        DType::U8 => copy::<u8>(context, index, tensor),
        // Truth values are looked at as bytes.
        DType::Bool => {
            context.input_mut::<u8>(index)?.copy_from_slice(tensor.data());
            Ok(())
        }
    }
}

/// An output of a context whose request has ended.
pub fn read_output(context: &Context, index: usize) -> Result<Tensor> {
    let view = context.output_view(index)?;
    let shape = view.shape.to_vec();
    Ok(match view.dtype {
        DType::F32 => Tensor::from_slice(&shape, context.output::<f32>(index)?),
        DType::F16 => Tensor::from_slice(&shape, context.output::<f16>(index)?),
        DType::BF16 => Tensor::from_slice(&shape, context.output::<bf16>(index)?),
        DType::I64 => Tensor::from_slice(&shape, context.output::<i64>(index)?),
        DType::I32 => Tensor::from_slice(&shape, context.output::<i32>(index)?),
        DType::I8 => Tensor::from_slice(&shape, context.output::<i8>(index)?),
        DType::U8 => Tensor::from_slice(&shape, context.output::<u8>(index)?),
        DType::Bool => Tensor::new(DType::Bool, shape, context.output::<u8>(index)?.to_vec().into())?,
    })
}
