//! Matrix products.

use super::{Binding, Lowering, Region, Traits, alignment};
use crate::error::{Result, fail};
use crate::ir::DType;
use crate::kernels::entry::{Arithmetic, Chain, MatMulArguments, Right, Tile, TmaArguments, TmaTile, matmul_entry};
use crate::kernels::{Map, MatMul};
use crate::lower::Precision;
use crate::lower::operand::Operand;
use crate::lower::uniform::absorb_constants;
use crate::plan::{Step, View};

/// Terms of a sum from which on it is worth a second launch to split it.
const SPLIT_TERMS_MIN: usize = 768;
/// Fewest terms of a part.
const SPLIT_DEPTH_MIN: usize = 384;
/// Terms of a part of which a larger tile makes up for the parts that it needs to fill the GPU.
const SPLIT_DEPTH_LONG: usize = 512;
/// Most parts of a sum.
const SPLITS_MAX: usize = 16;

/// A product to be launched.
pub(super) struct Product<'a> {
    pub(super) alpha: f32,
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) c: Operand,
    /// What is done with the sums, and its operands but the first.
    pub(super) epilogue: Option<(&'a Map, Vec<Operand>)>,
}

/// A product whose sums lie in parts.
pub(super) struct Split {
    /// As they were for the product.
    pub(super) arguments: MatMulArguments,
    /// The operands of the arguments.
    pub(super) binding: Binding,
    /// The parts.
    pub(super) partials: Operand,
}

impl Lowering<'_> {
    pub(super) fn product(&mut self, product: &MatMul, step: &Step) -> Result<()> {
        let (a, b) = (self.operand(&step.inputs[0])?, self.operand(&step.inputs[1])?);
        let c = self.operand(&step.outputs[0])?;
        let Some(map) = &product.epilogue else {
            return self.multiply(Product { alpha: product.alpha, a, b, c, epilogue: None });
        };
        let (map, left) = absorb_constants(map, 1, &step.inputs[2..], |view| self.plan.constant(view));
        let views: Vec<View> = left.iter().map(|&index| step.inputs[2 + index].clone()).collect();
        let further = self.operands(&views)?;
        self.multiply(Product { alpha: product.alpha, a, b, c, epilogue: Some((&map, further)) })
    }

    pub(super) fn arithmetic(&self, dtype: DType) -> Result<Arithmetic> {
        Ok(match dtype {
            DType::F32 if self.precision == Precision::Tf32 => Arithmetic::Tf32,
            DType::F32 => Arithmetic::F32,
            DType::F16 => Arithmetic::F16,
            DType::BF16 => Arithmetic::BF16,
            DType::I32 => Arithmetic::I32,
            other => return Err(fail!(Unsupported, "the GPU multiplies no matrices of {other}")),
        })
    }

    /// The product, and its epilogue in a launch of its own if it is no chain.
    pub(super) fn multiply(&mut self, product: Product<'_>) -> Result<()> {
        let arithmetic = self.arithmetic(product.a.dtype)?;
        let Some((map, further)) = &product.epilogue else {
            return self.tiles(arithmetic, &product, Chain::empty(), &[]);
        };
        let chain = if arithmetic == Arithmetic::I32 { None } else { Chain::of(map, 0) };
        if let Some((chain, used)) = chain {
            let operands: Vec<Operand> = used.iter().map(|&index| further[index - 1].clone()).collect();
            return self.tiles(arithmetic, &product, chain, &operands);
        }
        let sums = self.scratch(map.inputs[0], &product.c.shape)?;
        let bare = Product {
            alpha: product.alpha,
            a: product.a.clone(),
            b: product.b.clone(),
            c: sums.clone(),
            epilogue: None,
        };
        self.tiles(arithmetic, &bare, Chain::empty(), &[])?;
        self.map(map, [vec![sums], further.clone()].concat(), product.c)
    }

    fn tiles(
        &mut self,
        arithmetic: Arithmetic,
        product: &Product<'_>,
        chain: Chain,
        further: &[Operand],
    ) -> Result<()> {
        let split = self.sums(arithmetic, product, chain, further, 1)?;
        if let Some(Split { arguments, binding, .. }) = split {
            self.launch("combine", &arguments, binding, arguments.combine_launch())?;
        }
        Ok(())
    }

    /// The launch that multiplies, with its sums in `fewest` parts or more, and what it left to be done if they are split.
    pub(super) fn sums(
        &mut self,
        arithmetic: Arithmetic,
        product: &Product<'_>,
        chain: Chain,
        further: &[Operand],
        fewest: usize,
    ) -> Result<Option<Split>> {
        let c = &product.c;
        let [a, b] = [&product.a, &product.b].map(still);
        let (a, b) = (&a, &b);
        let (rows, columns) = (c.shape.len() - 2, c.shape.len() - 1);
        let extents = [c.shape[rows], c.shape[columns], a.shape[columns]];
        let batch = &c.shape[..rows];
        let right = if b.strides[columns] == 1 || b.strides[rows] != 1 { Right::Rows } else { Right::Columns };
        let mut binding = Binding::default();
        let operands = [binding.matrix(a)?, binding.matrix(b)?, binding.matrix(c)?];
        let new = |splits| MatMulArguments::new(extents, batch, operands, splits, alignment([a, b]));
        let whole = new(1)?;
        let takes = self.traits.has_warpgroups() && TmaArguments::takes(arithmetic, &whole);
        let (way, splits) = if arithmetic == Arithmetic::I32 {
            (Way::Fetched(Tile::Medium), 1)
        } else {
            way(&self.traits, extents, whole.batch.count as usize, takes)
        };
        let mut arguments = new(splits.max(fewest))?;
        arguments.alpha = product.alpha;
        arguments.b_constant = matches!(b.region, Region::Constant(_)).into();
        arguments.chain = chain;
        for (index, operand) in further.iter().enumerate() {
            arguments.chain = arguments.chain.with(index, binding.matrix(operand)?);
        }
        let mut split = None;
        if arguments.splits > 1 {
            let partials = self.scratch(DType::F32, &[arguments.partial_bytes() / 4])?;
            arguments.partials = binding.memory(&partials);
            let binding = binding.clone();
            split = Some(Split { arguments, binding, partials });
        }
        match way {
            Way::Brought(tile) => {
                let arguments = TmaArguments::new(arguments);
                let (name, geometry) = arguments.launch(arithmetic, tile, right);
                self.launch(name, &arguments, binding, geometry)?;
            }
            Way::Fetched(tile) => {
                let geometry = arguments.launch(arithmetic, tile, right, self.traits.has_warpgroups());
                self.launch(matmul_entry(arithmetic, tile, right), &arguments, binding, geometry)?;
            }
        }
        Ok(split)
    }
}

/// How the tiles of the factors come to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The threads that multiply fetch them.
    Fetched(Tile),
    /// The tensor memory accelerator brings them.
    Brought(TmaTile),
}

/// The operand with no step along axes of one element, so that what its view happens to say there decides nothing.
fn still(operand: &Operand) -> Operand {
    let mut still = operand.clone();
    for (stride, &extent) in still.strides.iter_mut().zip(&operand.shape) {
        *stride *= isize::from(extent != 1);
    }
    still
}

/// The largest tile with which the product, with the parts of its sums if they are long, fills most of the GPU; of medium tiles half the
/// GPU is enough, since smaller ones read more and other requests share it.
pub(super) fn tile(traits: &Traits, extents @ [m, n, k]: [usize; 3], batch: usize) -> Tile {
    let (processors, long_parts) = (traits.multiprocessors as usize, (k / SPLIT_DEPTH_LONG).max(1));
    // Blocks that there will be, and those that there could be with parts no shorter than is worth a larger tile.
    let blocks = |tile: Tile| {
        let (rows, columns) = tile.extents();
        let whole = m.div_ceil(rows) * n.div_ceil(columns) * batch;
        (whole * splits(traits, tile, extents, batch), whole * long_parts)
    };
    let (large, large_at_most) = blocks(Tile::Large);
    let (medium, medium_at_most) = blocks(Tile::Medium);
    if m > 32 && 3 * large >= 2 * processors && large_at_most >= processors {
        Tile::Large
    } else if m > 32 && 2 * medium.min(medium_at_most) >= processors {
        Tile::Medium
    } else {
        Tile::Flat
    }
}

/// The same where the tensor memory accelerator brings tiles. Measured: one block of small tiles on a multiprocessor waits least, until
/// there are half as many again as multiprocessors; then larger ones, which read less, as soon as there are that many.
fn tma_tile(traits: &Traits, [m, n, _]: [usize; 3]) -> TmaTile {
    let few = |tile: TmaTile| {
        let (rows, columns) = tile.extents();
        2 * m.div_ceil(rows) * n.div_ceil(columns) <= 3 * traits.multiprocessors as usize
    };
    if few(TmaTile::Small) {
        TmaTile::Small
    } else if few(TmaTile::Large) {
        TmaTile::Broad
    } else {
        TmaTile::Large
    }
}

/// Way and parts of a product of floats; `takes`: the tensor memory accelerator can bring its factors.
fn way(traits: &Traits, extents: [usize; 3], batch: usize, takes: bool) -> (Way, usize) {
    if takes && extents[0] > Tile::Flat.extents().0 {
        let tile = tma_tile(traits, extents);
        return (Way::Brought(tile), parts(traits, tile.extents(), extents, batch));
    }
    let tile = tile(traits, extents, batch);
    (Way::Fetched(tile), splits(traits, tile, extents, batch))
}

/// Into how many parts the sums are cut so that the product fills the GPU.
pub(super) fn splits(traits: &Traits, tile: Tile, extents: [usize; 3], batch: usize) -> usize {
    parts(traits, tile.extents(), extents, batch)
}

fn parts(traits: &Traits, (rows, columns): (usize, usize), [m, n, k]: [usize; 3], batch: usize) -> usize {
    let blocks = (m.div_ceil(rows) * n.div_ceil(columns) * batch).max(1);
    let wanted = if k < SPLIT_TERMS_MIN { 1 } else { traits.multiprocessors as usize / blocks };
    wanted.min(k / SPLIT_DEPTH_MIN).clamp(1, SPLITS_MAX)
}

/// Whether the sums of a product of floats, stored as `dtype`, are split.
pub(super) fn is_split(traits: &Traits, extents: [usize; 3], batch: usize, dtype: DType) -> bool {
    let takes = traits.has_warpgroups()
        && dtype.bytes() == 2
        && batch == 1
        && extents[1..].iter().all(|extent| extent % 8 == 0);
    way(traits, extents, batch, takes).1 > 1
}

#[cfg(test)]
mod tests {
    use super::super::testing::TRAITS;
    use super::*;

    #[test]
    fn the_tile_is_the_largest_that_fills_the_gpu_with_the_parts_that_there_will_be() {
        for (extents, wanted) in [
            // BERT-base with 128 tokens: a layer's products in their order.
            ([128, 2304, 768], (Tile::Medium, 1)),
            ([128, 768, 768], (Tile::Flat, 2)),
            ([128, 3072, 768], (Tile::Medium, 1)),
            ([128, 768, 3072], (Tile::Medium, 5)),
            // With 1024 tokens.
            ([1024, 2304, 768], (Tile::Large, 1)),
            ([1024, 768, 768], (Tile::Medium, 1)),
            ([1024, 768, 3072], (Tile::Large, 2)),
            // 72 large tiles, which no whole number of parts would make fill the GPU.
            ([1536, 768, 3072], (Tile::Medium, 1)),
            // Few rows, however long.
            ([32, 8192, 8192], (Tile::Flat, 1)),
        ] {
            let tile = tile(&TRAITS, extents, 1);
            assert_eq!((tile, splits(&TRAITS, tile, extents, 1)), wanted, "{extents:?}");
        }
    }

    #[test]
    fn tiles_that_are_brought_are_as_large_as_leaves_no_multiprocessor_idle() {
        for (extents, wanted) in [
            ([128, 2304, 768], (TmaTile::Small, 1)),
            ([128, 768, 768], (TmaTile::Small, 2)),
            ([128, 768, 3072], (TmaTile::Small, 5)),
            ([1024, 768, 3072], (TmaTile::Small, 1)),
            ([1024, 3072, 768], (TmaTile::Broad, 1)),
            ([4096, 3072, 768], (TmaTile::Large, 1)),
        ] {
            assert_eq!(way(&TRAITS, extents, 1, true), (Way::Brought(wanted.0), wanted.1), "{extents:?}");
        }
        assert_eq!(way(&TRAITS, [32, 2304, 768], 1, true).0, Way::Fetched(Tile::Flat), "few rows");
    }

    #[test]
    fn sums_are_split_where_that_is_worth_a_launch() {
        for dtype in [DType::F32, DType::F16] {
            assert!(is_split(&TRAITS, [128, 768, 3072], 1, dtype));
            assert!(!is_split(&TRAITS, [128, 768, SPLIT_TERMS_MIN - 1], 1, dtype));
            assert!(!is_split(&Traits { multiprocessors: 1, ..TRAITS }, [128, 768, 3072], 1, dtype));
        }
        // Large tiles of 1024 rows and as many columns would be split; the small ones that are brought fill the GPU.
        assert!(
            is_split(&TRAITS, [1024, 768, 3072], 1, DType::F32) && !is_split(&TRAITS, [1024, 768, 3072], 1, DType::F16)
        );
        let longest = [1, 64, 1 << 20];
        assert_eq!(splits(&TRAITS, Tile::Flat, longest, 1), SPLITS_MAX);
    }
}
