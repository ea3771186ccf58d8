//! How the elements of a constant are arranged in memory, and the arithmetic of packed matrices that lowering and the
//! device share.

use super::Simd;

/// An arrangement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row-major without gaps.
    Dense,
    /// The view `[batch, K, N]` as the right factor of products: per matrix the panels of [`Panels`].
    Panels(Panels),
    /// The view `[batch, M, K]` as the left factor of products: per matrix the strips of [`Strips`].
    Strips(Strips),
}

impl Simd {
    /// f32 lanes of a vector.
    pub fn lanes(self) -> usize {
        match self {
            Simd::Avx512 => 16,
            Simd::Avx2 | Simd::Portable => 8,
        }
    }

    /// Columns of a panel: two vectors, so that each factor of the left matrix is used twice.
    pub fn panel_columns(self) -> usize {
        2 * self.lanes()
    }

    /// Most rows of a register tile: as many as leave registers for the operands.
    pub fn tile_rows(self) -> usize {
        match self {
            Simd::Avx512 => 14,
            Simd::Avx2 => 6,
            Simd::Portable => 4,
        }
    }

    /// Rows that a first-level cache holds beside the panels even where they compete for the same of its sets.
    pub fn aliased_rows(self) -> usize {
        match self {
            Simd::Avx512 => 6,
            Simd::Avx2 | Simd::Portable => 4,
        }
    }
}

/// A right factor `[depth, columns]` cut into panels of neighbouring columns. A panel holds its rows one after the other;
/// the last one may be only one vector wide and is filled up with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Panels {
    /// Rows.
    pub depth: usize,
    /// Columns.
    pub columns: usize,
    /// Lanes of a vector.
    pub lanes: usize,
}

impl Panels {
    /// The panels for an instruction set.
    pub fn new(simd: Simd, depth: usize, columns: usize) -> Self {
        Panels { depth, columns, lanes: simd.lanes() }
    }

    /// Columns of a whole panel.
    pub fn width(&self) -> usize {
        2 * self.lanes
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.columns.div_ceil(self.width())
    }

    /// Columns of the matrix in a panel.
    pub fn used(&self, panel: usize) -> usize {
        self.width().min(self.columns - panel * self.width())
    }

    /// Elements from one row of a panel to the next.
    pub fn pitch(&self, panel: usize) -> usize {
        self.used(panel).next_multiple_of(self.lanes)
    }

    /// Elements before a panel.
    pub fn start(&self, panel: usize) -> usize {
        panel * self.width() * self.depth
    }

    /// Elements of the matrix once packed; `None` if they exceed the address space.
    pub fn elements(&self) -> Option<usize> {
        self.columns.checked_next_multiple_of(self.lanes)?.checked_mul(self.depth)
    }
}

/// Rows cut into tiles of nearly equal height, at most a register tile's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowTiles {
    /// Rows in all.
    pub rows: usize,
    /// Number of tiles.
    pub count: usize,
}

impl RowTiles {
    /// The tiles for an instruction set.
    pub fn new(simd: Simd, rows: usize) -> Self {
        RowTiles { rows, count: rows.div_ceil(simd.tile_rows()) }
    }

    /// First row of a tile; of the tile after the last one, the number of rows.
    pub fn start(&self, tile: usize) -> usize {
        let (height, taller) = (self.rows / self.count.max(1), self.rows % self.count.max(1));
        tile * height + tile.min(taller)
    }

    /// Rows of a tile.
    pub fn height(&self, tile: usize) -> usize {
        self.start(tile + 1) - self.start(tile)
    }
}

/// A left factor `[rows, depth]` cut into one strip per row tile. A strip holds its columns one after the other, each in
/// `pitch` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Strips {
    /// The tiles.
    pub tiles: RowTiles,
    /// Columns.
    pub depth: usize,
    /// Elements from one column of a strip to the next.
    pub pitch: usize,
}

impl Strips {
    /// The strips for an instruction set.
    pub fn new(simd: Simd, rows: usize, depth: usize) -> Self {
        Strips { tiles: RowTiles::new(simd, rows), depth, pitch: simd.tile_rows().next_multiple_of(8) }
    }

    /// Elements of a strip.
    pub fn strip(&self) -> usize {
        self.pitch * self.depth
    }

    /// Elements of the matrix once packed; `None` if they exceed the address space.
    pub fn elements(&self) -> Option<usize> {
        self.pitch.checked_mul(self.depth)?.checked_mul(self.tiles.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_the_columns_and_the_last_may_be_narrow() {
        let panels = Panels::new(Simd::Avx512, 3, 70);
        assert_eq!((panels.width(), panels.count()), (32, 3));
        assert_eq!((panels.used(1), panels.pitch(1)), (32, 32));
        assert_eq!((panels.used(2), panels.pitch(2), panels.start(2)), (6, 16, 192));
        assert_eq!(panels.elements(), Some(240));
        assert_eq!(Panels::new(Simd::Avx2, usize::MAX / 2, 70).elements(), None);
    }

    #[test]
    fn row_tiles_differ_by_one_row_at_most() {
        for simd in [Simd::Portable, Simd::Avx2, Simd::Avx512] {
            for rows in 0..100 {
                let tiles = RowTiles::new(simd, rows);
                let heights: Vec<usize> = (0..tiles.count).map(|tile| tiles.height(tile)).collect();
                assert_eq!(heights.iter().sum::<usize>(), rows);
                if let (Some(least), Some(most)) = (heights.iter().min(), heights.iter().max()) {
                    assert!(*least > 0 && most - least <= 1 && *most <= simd.tile_rows());
                }
            }
        }
    }
}
