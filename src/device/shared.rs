//! Memory that a host program takes or lends: ranges that the host and the device both reach, which inputs and outputs of lanes can
//! lie in, and rows of device memory.

use crate::error::{Result, ensure, fail};
use crate::limits::ROW_PITCH_MAX;
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

/// A range that the host and the device read and write in place. The device that made it finds its own type back through [`Any`].
pub trait SharedMemory: Any + Send + Sync {
    /// Where the host finds it, at the start of a page.
    fn address(&self) -> *mut u8;
    /// How many bytes there are.
    fn bytes(&self) -> usize;
    /// The bytes themselves. Whoever has it for himself has attached it to no lane.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// A part of shared memory that one input or output of a lane lies in. Fields are dropped in this order.
#[derive(Clone)]
pub struct Attachment {
    /// The whole.
    pub memory: Arc<dyn SharedMemory>,
    /// Where in it the tensor begins, in bytes.
    pub offset: usize,
    /// Dropped with the lane's memory: whose part it is meanwhile.
    pub claim: Arc<dyn Any + Send + Sync>,
}

/// How rows of device memory lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLayout {
    /// Rows.
    pub rows: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Each row begins where the device reads and writes elements of so many bytes best: 4, 8 or 16. `None`: one row begins where the
    /// last one ends.
    pub element_bytes: Option<usize>,
}

/// Rows of device memory, which the host copies to and from. Every call returns when its copy is done.
pub trait RowMemory: Send + Sync {
    /// Bytes from the start of a row to that of the next.
    fn pitch_bytes(&self) -> usize;
    /// Copies a rectangle from the host. `InvalidArgument` if it is not inside.
    fn write(&self, rectangle: &Rectangle, from: &[u8]) -> Result<()>;
    /// Copies a rectangle to the host. `InvalidArgument` if it is not inside.
    fn read(&self, rectangle: &Rectangle, into: &mut [u8]) -> Result<()>;
}

/// A part of rows: some of them, of each the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// The first row.
    pub first_row: usize,
    /// How many.
    pub rows: usize,
    /// The first byte of each.
    pub first_byte: usize,
    /// How many bytes of each.
    pub row_bytes: usize,
    /// In the host's memory: bytes from the start of a row to that of the next.
    pub host_pitch_bytes: usize,
}

fn end(first: usize, count: usize) -> Result<usize> {
    first.checked_add(count).ok_or_else(|| fail!(InvalidArgument, "{first} + {count} exceeds every memory"))
}

impl Rectangle {
    /// Bytes of the host's memory that it spans.
    pub fn host_bytes(&self) -> Result<usize> {
        let Some(steps) = self.rows.checked_sub(1).filter(|_| self.row_bytes > 0) else { return Ok(0) };
        let last = steps.checked_mul(self.host_pitch_bytes).and_then(|start| start.checked_add(self.row_bytes));
        let pitch = self.host_pitch_bytes;
        last.ok_or_else(|| fail!(InvalidArgument, "{} rows, {pitch} bytes apart, exceed every memory", self.rows))
    }

    /// That the rectangle lies inside rows of that layout, and its other side inside so many bytes of the host.
    pub fn check(&self, layout: &RowLayout, host_bytes: usize) -> Result<()> {
        let (rows, columns) = (end(self.first_row, self.rows)?, end(self.first_byte, self.row_bytes)?);
        ensure!(
            rows <= layout.rows,
            InvalidArgument,
            "rows {}..{rows} are not all there: the memory has {}",
            self.first_row,
            layout.rows
        );
        ensure!(
            columns <= layout.row_bytes,
            InvalidArgument,
            "bytes {}..{columns} of a row are not all there: a row has {}",
            self.first_byte,
            layout.row_bytes
        );
        ensure!(
            self.host_pitch_bytes >= self.row_bytes || self.rows < 2,
            InvalidArgument,
            "the host's rows begin {} bytes apart and have {}",
            self.host_pitch_bytes,
            self.row_bytes
        );
        ensure!(
            self.host_pitch_bytes <= ROW_PITCH_MAX || self.rows < 2,
            InvalidArgument,
            "the host's rows begin {} bytes apart, and {ROW_PITCH_MAX} is the most",
            self.host_pitch_bytes
        );
        let needed = self.host_bytes()?;
        ensure!(
            needed <= host_bytes,
            InvalidArgument,
            "the rectangle spans {needed} bytes of the host's memory, of which {host_bytes} are given"
        );
        Ok(())
    }

    /// Per row, where it lies in memory of that pitch, and where in the host's. For a rectangle that was checked.
    pub fn spans(&self, pitch_bytes: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + '_ {
        (0..self.rows).map(move |row| {
            let inside = (self.first_row + row) * pitch_bytes + self.first_byte;
            let outside = row * self.host_pitch_bytes;
            (inside..inside + self.row_bytes, outside..outside + self.row_bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    const LAYOUT: RowLayout = RowLayout { rows: 4, row_bytes: 10, element_bytes: Some(4) };
    const ALL: Rectangle = Rectangle { first_row: 0, rows: 4, first_byte: 0, row_bytes: 10, host_pitch_bytes: 12 };

    #[test]
    fn rectangles_are_inside_or_refused() {
        assert_eq!(ALL.host_bytes(), Ok(46));
        ALL.check(&LAYOUT, 46).unwrap();
        let nothing = Rectangle { rows: 0, ..ALL };
        nothing.check(&LAYOUT, 0).unwrap();
        let one = Rectangle { first_row: 3, rows: 1, host_pitch_bytes: 0, ..ALL };
        one.check(&LAYOUT, 10).unwrap();
        let most = usize::MAX;
        for (wrong, bytes) in [
            (ALL, 45),
            (Rectangle { first_row: 1, ..ALL }, 46),
            (Rectangle { rows: 5, ..ALL }, 100),
            (Rectangle { first_byte: 1, ..ALL }, 46),
            (Rectangle { host_pitch_bytes: 9, ..ALL }, 100),
            (Rectangle { first_row: most, ..ALL }, most),
            (Rectangle { first_byte: most, ..ALL }, most),
            (Rectangle { host_pitch_bytes: most, ..ALL }, most),
            (Rectangle { host_pitch_bytes: ROW_PITCH_MAX + 1, ..ALL }, most),
        ] {
            assert_eq!(wrong.check(&LAYOUT, bytes).unwrap_err().status, Status::InvalidArgument, "{wrong:?}");
        }
    }

    #[test]
    fn every_row_has_its_place_on_both_sides() {
        let part = Rectangle { first_row: 1, rows: 2, first_byte: 3, row_bytes: 4, host_pitch_bytes: 6 };
        let spans: Vec<_> = part.spans(16).collect();
        assert_eq!(spans, [(19..23, 0..4), (35..39, 6..10)]);
    }
}
