//! Walks over index spaces.

use crate::limits::RANK_MAX;

/// A position in an index space, advanced in row-major order.
#[derive(Clone)]
pub struct Cursor<'a> {
    /// Extents of the space.
    pub extents: &'a [usize],
    /// Coordinates.
    pub index: [usize; RANK_MAX],
}

impl<'a> Cursor<'a> {
    /// The position with this row-major number.
    pub fn new(extents: &'a [usize], mut position: usize) -> Self {
        let mut index = [0; RANK_MAX];
        for (index, &extent) in index.iter_mut().zip(extents).rev() {
            *index = position % extent;
            position /= extent;
        }
        Cursor { extents, index }
    }

    /// Elements left in the innermost row.
    pub fn row_left(&self) -> usize {
        match self.extents.len() {
            0 => 1,
            rank => self.extents[rank - 1] - self.index[rank - 1],
        }
    }

    /// Moves on within the row, or to the start of the next one.
    pub fn advance(&mut self, elements: usize) {
        let mut step = elements;
        for axis in (0..self.extents.len()).rev() {
            self.index[axis] += step;
            if self.index[axis] < self.extents[axis] {
                return;
            }
            self.index[axis] = 0;
            step = 1;
        }
    }

    /// Distance in elements from the first element of an operand.
    pub fn offset(&self, strides: &[isize]) -> isize {
        self.index.iter().zip(strides).map(|(&index, &stride)| index as isize * stride).sum()
    }
}
