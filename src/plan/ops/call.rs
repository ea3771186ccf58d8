//! One node's operands and attributes, read with checks.

use crate::error::{Result, ensure, fail};
use crate::ir::{Attribute, Node, Tensor, TensorType};
use crate::limits::SHAPE_OPERAND_BYTES_MAX;
use crate::plan::{Builder, View};

/// One node being translated.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The node.
    pub node: &'a Node,
    /// Version of the operator set that the node's domain is imported at.
    pub opset: i64,
    /// The operands; `None` for an optional one left out.
    pub inputs: Vec<Option<View>>,
}

impl Call<'_> {
    /// Operand `index`, which the operator requires.
    pub fn input(&self, index: usize) -> Result<&View> {
        self.optional(index).ok_or_else(|| fail!(Malformed, "operand {index} is missing"))
    }

    /// Operand `index`, if the node has it.
    pub fn optional(&self, index: usize) -> Option<&View> {
        self.inputs.get(index)?.as_ref()
    }

    /// All operands of a variadic operator: at least one, none left out.
    pub fn variadic(&self) -> Result<Vec<View>> {
        ensure!(!self.inputs.is_empty(), Malformed, "the operator has no operands");
        (0..self.inputs.len()).map(|index| self.input(index).cloned()).collect()
    }

    /// The value of operand `index`, which decides a shape and so must be known while planning.
    pub fn constant(&self, b: &Builder, index: usize) -> Result<Tensor> {
        let view = self.input(index)?;
        let bytes = b.plan.view_type(view).bytes();
        ensure!(bytes <= SHAPE_OPERAND_BYTES_MAX, TooLarge, "operand {index} has {bytes} bytes");
        b.value(view)?.ok_or_else(|| {
            let name = &b.plan.tensor(view.tensor).name;
            fail!(
                UnsupportedDynamic,
                "operand {index} (from '{name}') must be known while planning and depends on input data"
            )
        })
    }

    /// [`Call::constant`] of an optional operand.
    pub fn optional_constant(&self, b: &Builder, index: usize) -> Result<Option<Tensor>> {
        self.optional(index).map(|_| self.constant(b, index)).transpose()
    }

    /// The integers of operand `index`, which must be known while planning.
    pub fn constant_ints(&self, b: &Builder, index: usize) -> Result<Vec<i64>> {
        let tensor = self.constant(b, index)?;
        ensure!(tensor.dtype().is_integer(), Malformed, "operand {index} is {}, not an integer tensor", tensor.dtype());
        Ok(tensor.to_i64s())
    }

    /// The single integer of operand `index`, which must be known while planning.
    pub fn constant_int(&self, b: &Builder, index: usize) -> Result<i64> {
        let values = self.constant_ints(b, index)?;
        ensure!(values.len() == 1, Malformed, "operand {index} has {} elements, not one", values.len());
        Ok(values[0])
    }

    /// Integers that older versions of an operator take as attribute `name` and newer ones as operand `index`.
    pub fn ints_or_constant(&self, b: &Builder, name: &str, index: usize) -> Result<Option<Vec<i64>>> {
        match self.ints(name)? {
            Some(values) => Ok(Some(values.to_vec())),
            None => self.optional(index).map(|_| self.constant_ints(b, index)).transpose(),
        }
    }

    /// Attribute `name`, an integer.
    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.optional_int(name)?.unwrap_or(default))
    }

    /// Attribute `name`, an integer, if the node has it.
    pub fn optional_int(&self, name: &str) -> Result<Option<i64>> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Int(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong_type(name, "an integer")),
        }
    }

    /// Attribute `name`, an integer that must be there.
    pub fn required_int(&self, name: &str) -> Result<i64> {
        self.optional_int(name)?.ok_or_else(|| fail!(Malformed, "attribute '{name}' is missing"))
    }

    /// Attribute `name`, an integer that stands for a truth value.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.int(name, default.into())? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(fail!(Unsupported, "attribute '{name}' is {other}, not 0 or 1")),
        }
    }

    /// Attribute `name`, a list of integers, if the node has it.
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(_) => Err(wrong_type(name, "a list of integers")),
        }
    }

    /// Attribute `name`, a float.
    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.optional_float(name)?.unwrap_or(default))
    }

    /// Attribute `name`, a float, if the node has it.
    pub fn optional_float(&self, name: &str) -> Result<Option<f32>> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Float(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong_type(name, "a float")),
        }
    }

    /// Attribute `name`, a list of floats, empty if the node does not have it.
    pub fn floats(&self, name: &str) -> Result<&[f32]> {
        match self.node.attributes.get(name) {
            None => Ok(&[]),
            Some(Attribute::Floats(values)) => Ok(values),
            Some(_) => Err(wrong_type(name, "a list of floats")),
        }
    }

    /// Attribute `name`, a string.
    pub fn string<'s>(&'s self, name: &str, default: &'s str) -> Result<&'s str> {
        match self.node.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::String(value)) => Ok(value),
            Some(_) => Err(wrong_type(name, "a string")),
        }
    }

    /// Attribute `name`, a list of strings, if the node has it.
    pub fn strings(&self, name: &str) -> Result<Option<&[String]>> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Strings(values)) => Ok(Some(values)),
            Some(_) => Err(wrong_type(name, "a list of strings")),
        }
    }

    /// Attribute `name`, a tensor, if the node has it.
    pub fn tensor(&self, name: &str) -> Result<Option<&Tensor>> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Tensor(value)) => Ok(Some(value)),
            Some(_) => Err(wrong_type(name, "a tensor")),
        }
    }

    /// Attribute `name` as an axis of a tensor of rank `rank`; negative ones count from the end.
    pub fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize> {
        axis(self.int(name, default)?, rank)
    }

    /// Whether the node uses its output `index`.
    pub fn outputs_wanted(&self, index: usize) -> bool {
        matches!(self.node.outputs.get(index), Some(Some(_)))
    }

    /// Element type and shape of operand `index`.
    pub fn ty(&self, b: &Builder, index: usize) -> Result<TensorType> {
        Ok(b.plan.view_type(self.input(index)?))
    }
}

fn wrong_type(name: &str, expected: &str) -> crate::error::Error {
    fail!(Malformed, "attribute '{name}' is not {expected}")
}

/// `axis`, which may count from the end, as an axis of a tensor of rank `rank`.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let limit = rank as i64;
    ensure!((-limit..limit).contains(&axis), Malformed, "axis {axis} is outside a tensor of rank {rank}");
    Ok(axis.rem_euclid(limit) as usize)
}

/// Several axes, ascending; one that is named twice is an error.
pub fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut axes = list.iter().map(|&value| axis(value, rank)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    ensure!(axes.windows(2).all(|pair| pair[0] != pair[1]), Malformed, "axes {list:?} name one axis twice");
    Ok(axes)
}

/// An extent or count from the file.
pub fn extent(value: i64, what: &str) -> Result<usize> {
    usize::try_from(value).map_err(|_| fail!(Malformed, "{what} is {value}"))
}
