//! Where the tensors of a program lie, and how their elements are found there.

use crate::ir::{DType, Shape, TensorType};

/// An input or output of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Name of the plan's tensor.
    pub name: String,
    /// Element type and extents; stored dense.
    pub ty: TensorType,
    /// Bytes of the memory that holds it.
    pub bytes: usize,
}

/// The memory that an operand lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Region {
    /// The context's intermediate tensors.
    Arena,
    /// A constant, by index.
    Constant(usize),
    /// A model input, by index.
    Input(usize),
    /// A model output, by index.
    Output(usize),
}

/// Element `(i, j, ..)` is `i strides[0] + j strides[1] + ..` elements behind `byte_offset`. Of a constant whose layout
/// is not dense, `strides` say nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// Which memory.
    pub region: Region,
    /// Position of the first element.
    pub byte_offset: usize,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
    /// Steps in elements; 0 broadcasts, negative reverses.
    pub strides: Vec<isize>,
}

impl Operand {
    /// Bytes `start..end` of the region that the operand's elements lie in.
    pub fn extent(&self) -> std::ops::Range<usize> {
        if self.shape.contains(&0) {
            return self.byte_offset..self.byte_offset;
        }
        let (mut low, mut high) = (0isize, 1isize);
        for (&extent, &stride) in self.shape.iter().zip(&self.strides) {
            let span = stride * (extent as isize - 1);
            if span < 0 { low += span } else { high += span }
        }
        let bytes = self.dtype.bytes() as isize;
        let at = |elements: isize| (self.byte_offset as isize + elements * bytes) as usize;
        at(low)..at(high)
    }
}
