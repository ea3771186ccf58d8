//! The constants of a program: each distinct content, view and element type once, dense and in the type that kernels read.

use crate::error::{Result, fail};
use crate::ir::{DType, Tensor, TensorType, element_count};
use crate::lower::operand::{Operand, Region};
use crate::plan::{TensorId, View, dense_strides};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::HashMap;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// A constant and how kernels read it.
#[derive(Clone, Debug)]
pub struct ConstantDef {
    /// Identifies content, view and element type: a store that has this key need not load it again.
    pub key: u128,
    /// Where the elements come from.
    pub source: Tensor,
    /// The elements of `source` that are kept, in row-major order; its tensor number means nothing.
    pub view: View,
    /// The element type kept.
    pub dtype: DType,
    /// Bytes kept.
    pub bytes: usize,
}

impl ConstantDef {
    /// The elements as kernels read them.
    pub fn packed(&self) -> Result<Cow<'_, [u8]>> {
        let (from, size) = (self.source.dtype(), self.source.dtype().bytes());
        if from == self.dtype && self.view.is_dense() {
            let start = self.view.offset * size;
            return Ok(Cow::Borrowed(if self.bytes == 0 {
                &[]
            } else {
                &self.source.data()[start..start + self.bytes]
            }));
        }
        let dense = self.view.materialize(&self.source)?;
        if from == self.dtype {
            return Ok(Cow::Owned(dense.data().to_vec()));
        }
        let values: Vec<f32> = match from {
            DType::F32 => dense.to_vec().unwrap_or_default(),
            _ => dense.to_f64s().into_iter().map(|value| value as f32).collect(),
        };
        Ok(Cow::Owned(match self.dtype {
            DType::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(&values);
                halves.iter().flat_map(|half| half.to_le_bytes()).collect()
            }
            DType::BF16 => {
                let mut halves = vec![bf16::ZERO; values.len()];
                halves.convert_from_f32_slice(&values);
                halves.iter().flat_map(|half| half.to_le_bytes()).collect()
            }
            DType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            other => return Err(fail!(Internal, "a constant of {from} is wanted as {other}")),
        }))
    }
}

/// Collects constants while a plan is lowered.
#[derive(Debug, Default)]
pub struct Constants {
    defs: Vec<ConstantDef>,
    by_key: HashMap<u128, usize>,
    /// Content hash by address and length: several views of one initializer hash it once.
    hashes: HashMap<(usize, usize), u128>,
    /// Tensors made while lowering: as long as they live, no other has their address.
    tables: Vec<Tensor>,
}

impl Constants {
    /// The constants collected.
    pub fn into_defs(self) -> Vec<ConstantDef> {
        self.defs
    }

    /// An operand that reads `view` of `tensor`, as elements of `dtype`, from a dense constant. Broadcast axes are stored once.
    pub fn operand(&mut self, tensor: &Tensor, view: &View, dtype: DType) -> Result<Operand> {
        let mut stored = view.clone();
        for (extent, stride) in stored.shape.iter_mut().zip(&stored.strides) {
            if *stride == 0 && *extent > 1 {
                *extent = 1;
            }
        }
        // A view whose axes overlap may show more elements than there are: then the whole tensor is stored.
        let overlaps = element_count(&stored.shape)? > tensor.count();
        let (strides, offset) = if overlaps {
            stored = View::dense(view.tensor, tensor.shape());
            (view.strides.clone(), view.offset)
        } else {
            let dense = dense_strides(&stored.shape);
            let broadcast = |(&stride, dense): (&isize, isize)| if stride == 0 { 0 } else { dense };
            (view.strides.iter().zip(dense).map(broadcast).collect(), 0)
        };
        let bytes = TensorType::new(dtype, stored.shape.clone())?.bytes();
        let region = Region::Constant(self.add(tensor, stored, dtype, bytes));
        Ok(Operand { region, byte_offset: offset * dtype.bytes(), dtype, shape: view.shape.clone(), strides })
    }

    /// An operand that reads a tensor made while lowering, of one axis.
    pub fn table(&mut self, tensor: Tensor) -> Result<Operand> {
        self.tables.push(tensor.clone());
        self.operand(&tensor, &View::dense(TensorId(0), tensor.shape()), tensor.dtype())
    }

    fn add(&mut self, tensor: &Tensor, view: View, dtype: DType, bytes: usize) -> usize {
        let data = tensor.data();
        let content = *self.hashes.entry((data.as_ptr() as usize, data.len())).or_insert_with(|| xxh3_128(data));
        let mut hash = Xxh3::new();
        hash.update(&content.to_le_bytes());
        let form = (tensor.dtype(), dtype, view.offset, &view.shape, &view.strides);
        hash.update(format!("{form:?}").as_bytes());
        let key = hash.digest128();
        *self.by_key.entry(key).or_insert_with(|| {
            self.defs.push(ConstantDef { key, source: tensor.clone(), view, dtype, bytes });
            self.defs.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_stored_once_in_the_type_that_is_read() {
        let mut constants = Constants::default();
        let tensor = Tensor::from_slice(&[3], &[1f32, 2.0, -3.0]);
        let wide = View::dense(TensorId(0), &[3]).broadcast(&[5, 3]).unwrap();
        let first = constants.operand(&tensor, &wide, DType::F16).unwrap();
        let again = Tensor::from_slice(&[3], &[1f32, 2.0, -3.0]);
        assert_eq!(constants.operand(&again, &wide, DType::F16).unwrap(), first);
        assert_eq!((first.dtype, &first.strides[..]), (DType::F16, &[0, 1][..]));
        let single = constants.operand(&tensor, &wide, DType::F32).unwrap();
        assert_ne!(single.region, first.region);
        let defs = constants.into_defs();
        assert_eq!((defs.len(), defs[0].bytes, defs[1].bytes), (2, 6, 12));
        let halves = [1f32, 2.0, -3.0].map(|value| f16::from_f32(value).to_le_bytes()).concat();
        assert_eq!(*defs[0].packed().unwrap(), halves);
        assert_eq!(*defs[1].packed().unwrap(), **tensor.data());
    }

    #[test]
    fn a_transposed_view_is_packed_in_its_own_order() {
        let mut constants = Constants::default();
        let tensor = Tensor::from_slice(&[2, 2], &[1i64, 2, 3, 4]);
        let operand = constants.operand(&tensor, &View::dense(TensorId(0), &[2, 2]).swap(0, 1), DType::I64).unwrap();
        assert_eq!(operand.strides, [2, 1]);
        let packed = constants.into_defs()[0].packed().unwrap().into_owned();
        assert_eq!(packed, [1i64, 3, 2, 4].map(i64::to_le_bytes).concat());
    }
}
