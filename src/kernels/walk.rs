//! Strided walks over index spaces.

/// The values `i strides[0] + j strides[1] + ..` for every index `(i, j, ..)` of `shape` in row-major order.
pub(super) struct Walk<'a> {
    shape: &'a [usize],
    strides: &'a [usize],
    index: Vec<usize>,
    position: usize,
    left: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shape: &'a [usize], strides: &'a [usize]) -> Self {
        Walk { shape, strides, index: vec![0; shape.len()], position: 0, left: shape.iter().product() }
    }
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let position = self.position;
        for axis in (0..self.shape.len()).rev() {
            self.index[axis] += 1;
            self.position += self.strides[axis];
            if self.index[axis] < self.shape[axis] {
                break;
            }
            self.position -= self.strides[axis] * self.shape[axis];
            self.index[axis] = 0;
        }
        Some(position)
    }
}

/// All indices of a shape in row-major order.
pub(super) struct Coordinates<'a> {
    shape: &'a [usize],
    next: Option<Vec<usize>>,
}

impl<'a> Coordinates<'a> {
    pub(super) fn new(shape: &'a [usize]) -> Self {
        Coordinates { shape, next: (!shape.contains(&0)).then(|| vec![0; shape.len()]) }
    }
}

impl Iterator for Coordinates<'_> {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let current = self.next.take()?;
        let mut following = current.clone();
        for axis in (0..self.shape.len()).rev() {
            following[axis] += 1;
            if following[axis] < self.shape[axis] {
                self.next = Some(following);
                break;
            }
            following[axis] = 0;
        }
        Some(current)
    }
}

/// Strides of a dense row-major tensor; an empty one has some strides too.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_visits_in_row_major_order() {
        assert_eq!(Walk::new(&[2, 3], &[1, 2]).collect::<Vec<_>>(), [0, 2, 4, 1, 3, 5]);
        assert_eq!(Walk::new(&[2, 2], &[0, 1]).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!(Walk::new(&[], &[]).collect::<Vec<_>>(), [0]);
        assert_eq!(Walk::new(&[3, 0], &[0, 1]).count(), 0);
        assert_eq!(Coordinates::new(&[2, 2]).collect::<Vec<_>>(), [[0, 0], [0, 1], [1, 0], [1, 1]]);
        assert_eq!(Coordinates::new(&[2, 0]).count(), 0);
        assert_eq!(row_major(&[2, 3, 4]), [12, 4, 1]);
    }
}
