//! Matrix products.

use super::{Binding, Lowering, Region, Traits, alignment};
use crate::error::{Result, fail};
use crate::ir::DType;
use crate::kernels::entry::{Arithmetic, Chain, MatMulArguments, Right, Tile, matmul_entry};
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
        let split = self.sums(arithmetic, product, chain, further)?;
        if let Some(Split { arguments, binding, .. }) = split {
            self.launch("combine", &arguments, binding, arguments.combine_launch())?;
        }
        Ok(())
    }

    /// The launch that multiplies, and what it left to be done if the sums are split.
    pub(super) fn sums(
        &mut self,
        arithmetic: Arithmetic,
        product: &Product<'_>,
        chain: Chain,
        further: &[Operand],
    ) -> Result<Option<Split>> {
        let c = &product.c;
        let [a, b] = [&product.a, &product.b].map(still);
        let (a, b) = (&a, &b);
        let (rows, columns) = (c.shape.len() - 2, c.shape.len() - 1);
        let extents = [c.shape[rows], c.shape[columns], a.shape[columns]];
        let batch = &c.shape[..rows];
        let right = if b.strides[columns] == 1 || b.strides[rows] != 1 { Right::Rows } else { Right::Columns };
        let blocks = batch.iter().product();
        let (tile, splits) = if arithmetic == Arithmetic::I32 {
            (Tile::Medium, 1)
        } else {
            let tile = tile(&self.traits, extents, blocks);
            (tile, splits(&self.traits, tile, extents, blocks))
        };
        let mut binding = Binding::default();
        let operands = [binding.matrix(a)?, binding.matrix(b)?, binding.matrix(c)?];
        let mut arguments = MatMulArguments::new(extents, batch, operands, splits, alignment([a, b]))?;
        arguments.alpha = product.alpha;
        arguments.b_constant = matches!(b.region, Region::Constant(_)).into();
        arguments.chain = chain;
        for (index, operand) in further.iter().enumerate() {
            arguments.chain = arguments.chain.with(index, binding.matrix(operand)?);
        }
        let mut split = None;
        if arguments.splits > 1 {
            let partials = self.scratch(DType::F32, &[arguments.partial_bytes() / 4])?;
            arguments.partials = binding.address(&partials);
            let binding = Binding { locations: binding.locations.clone() };
            split = Some(Split { arguments, binding, partials });
        }
        let geometry = arguments.launch(arithmetic, tile, right, self.traits.has_warpgroups());
        self.launch(matmul_entry(arithmetic, tile, right), &arguments, binding, geometry)?;
        Ok(split)
    }
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

/// Into how many parts the sums are cut so that the product fills the GPU.
pub(super) fn splits(traits: &Traits, tile: Tile, [m, n, k]: [usize; 3], batch: usize) -> usize {
    let (rows, columns) = tile.extents();
    let blocks = (m.div_ceil(rows) * n.div_ceil(columns) * batch).max(1);
    let wanted = if k < SPLIT_TERMS_MIN { 1 } else { traits.multiprocessors as usize / blocks };
    wanted.min(k / SPLIT_DEPTH_MIN).clamp(1, SPLITS_MAX)
}

/// Whether the sums of a product of floats are split.
pub(super) fn is_split(traits: &Traits, extents: [usize; 3], batch: usize) -> bool {
    splits(traits, tile(traits, extents, batch), extents, batch) > 1
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
    fn sums_are_split_where_that_is_worth_a_launch() {
        assert!(is_split(&TRAITS, [128, 768, 3072], 1));
        assert!(!is_split(&TRAITS, [128, 768, SPLIT_TERMS_MIN - 1], 1));
        assert!(!is_split(&Traits { multiprocessors: 1, ..TRAITS }, [128, 768, 3072], 1));
        let longest = [1, 64, 1 << 20];
        assert_eq!(splits(&TRAITS, Tile::Flat, longest, 1), SPLITS_MAX);
    }
}
