//! Index spaces and strided operands, the nouns that nearly all arguments are made of.

use super::layout::{Address, arguments};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;
use crate::limits::RANK_MAX;

/// Axes of a [`Space`]: every rank that a model may have, so that no launch is ever taken apart for its rank.
pub const AXES: usize = RANK_MAX;

arguments! {
    /// Extents, and for each the numbers by which a device divides by it: `n / extent` is
    /// `(umulhi(n, magic) + n) >> shift` for `n < 2^31` (Granlund and Montgomery, 1994, figure 4.1).
    pub struct Space {
        /// Number of axes.
        pub rank: u32,
        /// Product of the extents.
        pub count: u32,
        /// Extents, outermost first.
        pub extents: [u32; AXES],
        /// Multipliers.
        pub magics: [u32; AXES],
        /// Shifts.
        pub shifts: [u32; AXES],
    }
}

arguments! {
    /// A strided view of memory.
    pub struct Operand {
        /// Of the element with index 0 along all axes.
        pub address: Address,
        /// Element type stored, see [`code`].
        pub dtype: u32,
        /// Steps in elements, one for each axis of the launch's space.
        pub strides: [i32; AXES],
    }
}

/// How a launch is cut into blocks of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl Geometry {
    /// A one-dimensional grid. Without results there are no blocks, and there is nothing to launch.
    pub fn line(blocks: usize, block: u32) -> Geometry {
        Geometry { grid: [u32::try_from(blocks).unwrap_or(u32::MAX), 1, 1], block, shared_bytes: 0 }
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}

/// The number that stands for an element type in arguments.
pub const fn code(dtype: DType) -> u32 {
    dtype as u32
}

/// The element type that a number stands for.
pub fn dtype(code: u32) -> Result<DType> {
    const ALL: [DType; 8] =
        [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I8, DType::U8, DType::Bool];
    ALL.get(code as usize).copied().ok_or_else(|| fail!(Internal, "there is no element type {code}"))
}

/// A number of elements or a step as arguments hold it.
pub fn small(value: usize) -> Result<u32> {
    ensure!(value < 1 << 31, TooLarge, "{value} elements are too many for one launch");
    Ok(value as u32)
}

/// What tiles may reach beyond the end of what they cover, elements: more than any of them has.
const TILE_MARGIN: usize = 1024;

/// An extent that is covered with tiles, whose last one is counted beyond the end.
pub(super) fn tiled(extent: usize) -> Result<u32> {
    small(extent.saturating_add(TILE_MARGIN))?;
    small(extent)
}

/// Refuses the arguments of a launch without results: kernels divide by the numbers of their tiles, rows and lines.
pub(super) fn occupied(extents: &[u32]) -> Result<()> {
    ensure!(!extents.contains(&0), Internal, "a launch has no results: {extents:?}");
    Ok(())
}

impl Space {
    /// The space of these extents, at most [`AXES`] of them, with fewer than 2^31 elements.
    pub fn new(shape: &[usize]) -> Result<Space> {
        ensure!(shape.len() <= AXES, TooLarge, "a launch has at most {AXES} axes, not {}", shape.len());
        let count = shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent));
        let count = small(count.unwrap_or(usize::MAX))?;
        let mut space =
            Space { rank: shape.len() as u32, count, extents: [1; AXES], magics: [1; AXES], shifts: [0; AXES] };
        for (axis, &extent) in shape.iter().enumerate() {
            space.extents[axis] = small(extent)?;
            (space.magics[axis], space.shifts[axis]) = divisor(space.extents[axis].max(1));
        }
        Ok(space)
    }

    /// The extents.
    pub fn shape(&self) -> Vec<usize> {
        self.extents[..self.rank as usize].iter().map(|&extent| extent as usize).collect()
    }
}

/// Multiplier and shift of a division by `by`, which is not 0.
pub fn divisor(by: u32) -> (u32, u32) {
    let shift = u32::BITS - (by - 1).leading_zeros();
    let magic = (((1u64 << shift) - u64::from(by)) << 32) / u64::from(by) + 1;
    (magic as u32, shift)
}

impl Operand {
    /// An operand of a space of as many axes as there are strides.
    pub fn new(address: Address, dtype: DType, strides: &[isize]) -> Result<Operand> {
        ensure!(strides.len() <= AXES, TooLarge, "an operand has at most {AXES} axes, not {}", strides.len());
        let mut operand = Operand { address, dtype: code(dtype), strides: [0; AXES] };
        for (narrow, &stride) in operand.strides.iter_mut().zip(strides) {
            *narrow = i32::try_from(stride).map_err(|_| fail!(TooLarge, "a step of {stride} elements is too large"))?;
        }
        Ok(operand)
    }

    /// The same operand with its last two strides at the end of the array, where kernels that work on matrices look for those
    /// of rows and columns; the strides before stay those of the batch axes.
    pub fn matrix(address: Address, dtype: DType, strides: &[isize]) -> Result<Operand> {
        let batch = strides.len().checked_sub(2);
        let batch = batch.ok_or_else(|| fail!(Internal, "a matrix has two axes, not {}", strides.len()))?;
        let mut operand = Operand::new(address, dtype, &strides[..batch])?;
        let matrix = Operand::new(address, dtype, &strides[batch..])?;
        operand.strides[AXES - 2..].copy_from_slice(&matrix.strides[..2]);
        Ok(operand)
    }

    /// No operand.
    pub fn none() -> Operand {
        Operand { address: Address::NONE, dtype: 0, strides: [0; AXES] }
    }

    /// Step from row to row of a [`Operand::matrix`].
    pub fn row(&self) -> i32 {
        self.strides[AXES - 2]
    }

    /// Step from column to column of a [`Operand::matrix`].
    pub fn column(&self) -> i32 {
        self.strides[AXES - 1]
    }

    /// The first `rank` strides.
    pub fn steps(&self, rank: usize) -> Vec<isize> {
        self.strides[..rank].iter().map(|&stride| stride as isize).collect()
    }

    /// The strides of `batch` leading axes, then those of rows and columns.
    pub fn matrix_steps(&self, batch: usize) -> Vec<isize> {
        let mut steps = self.steps(batch);
        steps.extend([self.row() as isize, self.column() as isize]);
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multipliers_divide() {
        let divide = |n: u32, (magic, shift): (u32, u32)| {
            ((((u64::from(n) * u64::from(magic)) >> 32) as u32 + n).checked_shr(shift)).unwrap_or(0)
        };
        for by in (1..2000).chain([4095, 4096, 4097, 65535, 1 << 20, (1 << 30) + 1, (1 << 31) - 1]) {
            let parts = divisor(by);
            for n in [0, 1, by - 1, by, by + 1, 7 * (by % 100_000) + 3, (1 << 30) - 1, (1 << 31) - 1] {
                assert_eq!(divide(n, parts), n / by, "{n} / {by}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Space::new(&[1; AXES + 1]).is_err());
        assert!(Space::new(&[1 << 16, 1 << 15]).is_err());
        assert!(Space::new(&[usize::MAX, 2]).is_err());
        assert!(Operand::new(Address(8), DType::F32, &[1 << 31]).is_err());
        assert_eq!(Space::new(&[3, 0]).unwrap().count, 0);
        let matrix = Operand::matrix(Address(8), DType::F16, &[6, 3, 1]).unwrap();
        assert_eq!((matrix.row(), matrix.column(), matrix.matrix_steps(1)), (3, 1, vec![6, 3, 1]));
    }

    #[test]
    fn every_element_type_has_its_code() {
        for (number, expected) in [(0, DType::F32), (1, DType::F16), (3, DType::I64), (7, DType::Bool)] {
            assert_eq!((dtype(number).unwrap(), code(expected)), (expected, number));
        }
        assert!(dtype(8).is_err());
    }
}
