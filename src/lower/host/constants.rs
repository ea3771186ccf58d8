//! The constants of a program: each distinct content and layout once.

use super::{ConstantDef, Layout, Operand, Region};
use crate::error::Result;
use crate::ir::{Tensor, TensorType, element_count};
use crate::plan::{View, dense_strides};
use std::collections::HashMap;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Collects constants while a plan is lowered.
#[derive(Debug, Default)]
pub struct Constants {
    defs: Vec<ConstantDef>,
    by_key: HashMap<u128, usize>,
    /// Content hash by address and length: several views of one initializer hash it once.
    hashes: HashMap<(usize, usize), u128>,
}

impl Constants {
    /// The constants collected.
    pub fn into_defs(self) -> Vec<ConstantDef> {
        self.defs
    }

    /// An operand that reads `view` of `tensor` from a dense constant. Broadcast axes are stored once.
    pub fn dense(&mut self, tensor: &Tensor, view: &View) -> Result<Operand> {
        let mut stored = view.clone();
        for (extent, stride) in stored.shape.iter_mut().zip(&stored.strides) {
            if *stride == 0 && *extent > 1 {
                *extent = 1;
            }
        }
        // A view whose axes overlap may show more elements than there are: then the whole tensor is stored.
        let overlaps = element_count(&stored.shape)? > tensor.count();
        let (strides, byte_offset) = if overlaps {
            stored = View::dense(view.tensor, tensor.shape());
            (view.strides.clone(), view.offset * tensor.dtype().bytes())
        } else {
            let dense = dense_strides(&stored.shape);
            let broadcast = |(&stride, dense): (&isize, isize)| if stride == 0 { 0 } else { dense };
            (view.strides.iter().zip(dense).map(broadcast).collect(), 0)
        };
        let bytes = TensorType::new(tensor.dtype(), stored.shape.clone())?.bytes();
        let index = self.add(tensor, &stored, Layout::Dense, bytes);
        let region = Region::Constant(index);
        Ok(Operand { region, byte_offset, dtype: tensor.dtype(), shape: view.shape.clone(), strides })
    }

    /// The index of the constant that holds `view` of `tensor` in `layout`, which takes `bytes`.
    pub fn add(&mut self, tensor: &Tensor, view: &View, layout: Layout, bytes: usize) -> usize {
        let data = tensor.data();
        let content = *self.hashes.entry((data.as_ptr() as usize, data.len())).or_insert_with(|| xxh3_128(data));
        let mut hash = Xxh3::new();
        let form = (tensor.dtype(), view.offset, &view.shape, &view.strides, &layout);
        hash.update(&content.to_le_bytes());
        hash.update(format!("{form:?}").as_bytes());
        let key = hash.digest128();
        *self.by_key.entry(key).or_insert_with(|| {
            self.defs.push(ConstantDef { key, layout, source: tensor.clone(), view: view.clone(), bytes });
            self.defs.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::TensorId;

    #[test]
    fn equal_content_is_stored_once_and_broadcast_axes_are_not_stored() {
        let mut constants = Constants::default();
        let (a, b) = (Tensor::from_slice(&[3], &[1f32, 2.0, 3.0]), Tensor::from_slice(&[3], &[1f32, 2.0, 3.0]));
        let wide = View::dense(TensorId(0), &[3]).broadcast(&[5, 3]).unwrap();
        let first = constants.dense(&a, &wide).unwrap();
        let second = constants.dense(&b, &wide).unwrap();
        assert_eq!(first, second);
        assert_eq!(first.strides, [0, 1]);
        let reversed = constants.dense(&a, &View::dense(TensorId(0), &[3]).slice(0, 2, 3, -1)).unwrap();
        assert_ne!(reversed.region, first.region);
        let defs = constants.into_defs();
        assert_eq!(defs.len(), 2);
        assert_eq!(defs[0].bytes, 12);
    }

    #[test]
    fn a_view_with_overlapping_axes_stores_the_tensor() {
        let mut constants = Constants::default();
        let tensor = Tensor::from_slice(&[6], &[0i32, 1, 2, 3, 4, 5]);
        let windows = View { tensor: TensorId(0), offset: 1, shape: vec![3, 3], strides: vec![1, 1] };
        let operand = constants.dense(&tensor, &windows).unwrap();
        assert_eq!((operand.byte_offset, operand.strides), (4, vec![1, 1]));
        assert_eq!(constants.into_defs()[0].bytes, 24);
    }
}
