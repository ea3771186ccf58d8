//! What every kernel is given: operands with addresses, and its share of the work.

use crate::ir::{DType, Shape};

/// An operand in memory: element `(i, j, ..)` lies `i strides[0] + j strides[1] + ..` elements behind `address`.
#[derive(Clone, Debug)]
pub struct Span {
    /// The first element.
    pub address: *mut u8,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
    /// Steps in elements; 0 broadcasts, negative reverses. Of a packed constant they say nothing.
    pub strides: Vec<isize>,
}

// SAFETY: a span is an address with its extents; whoever reads or writes through it answers for the access.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// Number of elements presented.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The element so many elements behind the first one. Nothing is accessed.
    pub fn element(&self, offset: isize) -> *mut u8 {
        self.address.wrapping_offset(offset * self.dtype.bytes() as isize)
    }

    /// The step along the last axis, 0 without axes.
    pub fn inner_stride(&self) -> isize {
        self.strides.last().copied().unwrap_or(0)
    }

    /// The address of the first element.
    pub fn pointer<T>(&self) -> *mut T {
        self.address.cast()
    }
}

/// One worker's part of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Index of the part.
    pub part: usize,
    /// Number of parts, at least 1.
    pub parts: usize,
    /// The worker's private working memory, as large as the program says, aligned to 64 bytes.
    pub scratch: *mut u8,
}

impl Share {
    /// The contiguous range of `0..count` that belongs to this part; parts differ by at most `grain` units.
    pub fn range(&self, count: usize, grain: usize) -> std::ops::Range<usize> {
        let units = count.div_ceil(grain);
        let bound = |part: usize| (units * part / self.parts * grain).min(count);
        bound(self.part)..bound(self.part + 1)
    }
}

/// A launch ready to run: everything is resolved, running neither allocates nor locks nor panics.
pub type Task = Box<dyn Fn(&Share) + Send + Sync>;
