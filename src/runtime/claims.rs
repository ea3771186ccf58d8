//! Parts of a memory, each of which one input or output of a context lies in.

use crate::device::host::process::Lock;
use crate::error::{Result, fail};
use std::ops::Range;
use std::sync::Arc;

/// The parts that are taken, each with its number. No two overlap.
#[derive(Default)]
struct Parts {
    taken: Vec<(u64, Range<usize>)>,
    /// The last number.
    last: u64,
}

/// The parts of one memory. They outlive it: a part is given back only after its owner has let the memory go.
#[derive(Clone, Default)]
pub struct Claims(Arc<Lock<Parts>>);

/// A part, given back when dropped.
pub struct Part {
    claims: Claims,
    number: u64,
}

/// Whether two ranges have something in common.
pub fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Parts {
    /// Gives a part to that number, in place of what it had.
    fn give(&mut self, number: u64, part: Range<usize>) -> Result<()> {
        let taken = self.taken.iter().find(|(other, taken)| *other != number && overlap(taken, &part));
        if let Some((_, taken)) = taken {
            return Err(fail!(
                InvalidArgument,
                "bytes {}..{} of the memory overlap {}..{}, which another input or output has",
                part.start,
                part.end,
                taken.start,
                taken.end
            ));
        }
        self.taken.retain(|(other, _)| *other != number);
        self.taken.push((number, part));
        Ok(())
    }
}

impl Claims {
    /// How many parts are taken.
    pub fn count(&self) -> usize {
        self.0.lock().map_or(0, |parts| parts.taken.len())
    }

    /// Takes a part; `InvalidArgument` if some of it is taken.
    pub fn take(&self, part: Range<usize>) -> Result<Part> {
        let mut parts = self.0.lock()?;
        let number = parts.last + 1;
        parts.give(number, part)?;
        parts.last = number;
        drop(parts);
        Ok(Part { claims: self.clone(), number })
    }
}

impl Part {
    /// Makes it another one; on failure it stays as it is.
    pub fn change(&self, part: Range<usize>) -> Result<()> {
        self.claims.0.lock()?.give(self.number, part)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Ok(mut parts) = self.claims.0.lock() {
            parts.taken.retain(|(number, _)| *number != self.number);
        }
    }
}
