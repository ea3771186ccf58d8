//! Convolutions: as matrix products where the window is one element, as products of gathered windows, or by their definition.

use super::contraction::{self, Product};
use super::{Binding, Lowering, Region, alignment};
use crate::error::Result;
use crate::ir::DType;
use crate::kernels::entry::{
    Chain, ConvArguments, DirectArguments, Quads, Slide, Windowed, conv_entry, lifted, lifted_window,
};
use crate::kernels::{Conv, Instr, Map, Window};
use crate::lower::bias::biased;
use crate::lower::operand::Operand;
use crate::lower::uniform::absorb_constants;
use crate::plan::{Step, View, dense_strides};

/// Output channels of a group from which on a tile is worth its empty columns.
const COLUMNS_MIN: usize = 16;

/// What a convolution reads.
struct Operands {
    x: Operand,
    /// `[O, C / groups, kernel..]`
    w: View,
}

/// The one stride that walks these axes; `None` if they do not advance together.
fn run(shape: &[usize], strides: &[isize]) -> Option<isize> {
    let mut run: Option<(isize, isize)> = None;
    for (&extent, &stride) in shape.iter().zip(strides).rev().filter(|(extent, _)| **extent != 1) {
        match run {
            None => run = Some((stride, stride * extent as isize)),
            Some((first, next)) if next == stride => run = Some((first, stride * extent as isize)),
            Some(_) => return None,
        }
    }
    Some(run.map_or(0, |(first, _)| first))
}

/// `[N, C, spatial..]` as matrices: `[images or 1, groups, positions, channels]`, positions of all images together if the first extent
/// is 1.
fn matrices(operand: &Operand, groups: usize, together: bool) -> Option<Operand> {
    let (shape, strides) = (&operand.shape, &operand.strides);
    let (batch, channels, area) = (shape[0], shape[1] / groups, shape[2..].iter().product::<usize>());
    let (images, positions, steps) = if together {
        let shape = [&shape[..1], &shape[2..]].concat();
        let step = run(&shape, &[&strides[..1], &strides[2..]].concat())?;
        (1, batch * area, [0, step])
    } else {
        (batch, area, [strides[0], run(&shape[2..], &strides[2..])?])
    };
    let strides = vec![steps[0], strides[1] * channels as isize, steps[1], strides[1]];
    Some(Operand { shape: vec![images, groups, positions, channels], strides, ..operand.clone() })
}

/// All operands as [`matrices`], the positions of all images together if they all allow it.
pub(super) fn all_matrices<'a>(
    operands: impl Iterator<Item = &'a Operand> + Clone,
    groups: usize,
) -> Option<Vec<Operand>> {
    let of = |together| operands.clone().map(|operand| matrices(operand, groups, together)).collect();
    let together: Option<Vec<Operand>> = of(true);
    together.or_else(|| of(false))
}

/// Exchanges rows and columns.
fn transposed(mut operand: Operand) -> Operand {
    operand.shape.swap(2, 3);
    operand.strides.swap(2, 3);
    operand
}

impl Lowering<'_> {
    pub(super) fn convolution(&mut self, conv: &Conv, step: &Step) -> Result<()> {
        let operands = Operands { x: self.operand(&step.inputs[0])?, w: step.inputs[1].clone() };
        let c = self.operand(&step.outputs[0])?;
        let sum = if operands.x.dtype.is_float() { DType::F32 } else { operands.x.dtype };
        let (map, further) = self.with_bias(conv.epilogue.as_ref(), sum, step, c.dtype)?;
        if self.pointwise(conv, &operands, (&map, &further), &c)? {
            return Ok(());
        }
        if let Some((chain, used)) = Chain::of(&map, 0).filter(|_| sum == DType::F32) {
            let used: Vec<Operand> = used.iter().map(|&index| further[index - 1].clone()).collect();
            if self.convolve(conv, &operands, chain, &used, &c)? {
                return Ok(());
            }
        }
        let sums = self.image_scratch(sum, &c.shape)?;
        self.convolve(conv, &operands, Chain::empty(), &[], &sums)?;
        self.map(&map, [vec![sums], further].concat(), c)
    }

    /// The epilogue with the bias, operand 2 of the step, in front, and its operands but the sum, all of the result's shape.
    pub(super) fn with_bias(
        &mut self,
        epilogue: Option<&Map>,
        sum: DType,
        step: &Step,
        output: DType,
    ) -> Result<(Map, Vec<Operand>)> {
        let shape = &step.outputs[0].shape;
        let bias = (2..shape.len()).fold(step.inputs[2].clone(), |bias, _| bias.insert_axis(bias.rank()));
        let views = [&[bias.broadcast(shape)?], &step.inputs[3..]].concat();
        let nothing = self.plan.constant(&views[0]).and_then(|tensor| views[0].uniform::<f32>(tensor)) == Some(0.0);
        let (mut map, views) = if nothing {
            let copy = Map { inputs: vec![sum], body: vec![Instr::Input(0)], output: sum };
            (epilogue.cloned().unwrap_or(copy), views[1..].to_vec())
        } else {
            (biased(epilogue, sum, self.plan.view_type(&step.inputs[2]).dtype), views)
        };
        map.output = output;
        let (map, left) = absorb_constants(&map, 1, &views, |view| self.plan.constant(view));
        let left: Vec<View> = left.iter().map(|&index| views[index].clone()).collect();
        Ok((map, self.operands(&left)?))
    }

    /// An image in working memory, channels last.
    pub(super) fn image_scratch(&mut self, dtype: DType, shape: &[usize]) -> Result<Operand> {
        let mut scratch = self.scratch(dtype, &super::layout::stored(shape))?;
        let last = shape.len() - 1;
        let channel = scratch.strides.remove(last);
        scratch.strides.insert(1, channel);
        scratch.shape = shape.to_vec();
        Ok(scratch)
    }

    /// A window of one element, moved by one element: a matrix product, if input and result can be shown as matrices.
    fn pointwise(
        &mut self,
        conv: &Conv,
        operands: &Operands,
        (map, further): (&Map, &[Operand]),
        c: &Operand,
    ) -> Result<bool> {
        let window = &conv.window;
        let plain = window.kernel.iter().chain(&window.strides).all(|&one| one == 1)
            && window.pads_begin.iter().chain(&window.pads_end).all(|&pad| pad == 0);
        if !plain || operands.w.shape[0] / conv.groups < COLUMNS_MIN.min(operands.w.shape[0]) {
            return Ok(false);
        }
        let all = [&operands.x, c].into_iter().chain(further);
        let Some(mut all) = all_matrices(all, conv.groups) else { return Ok(false) };
        let further = all.split_off(2);
        let (x, c) = (all[0].clone(), all[1].clone());
        let [columns, channels] = [c.shape[3], x.shape[3]];
        let product = if x.strides[3] == 1 || channels == 1 {
            let b = self.weights(&operands.w, conv.groups, x.dtype)?;
            let b = Operand { shape: vec![x.shape[0], conv.groups, channels, columns], strides: along(&b), ..b };
            Product { alpha: 1.0, a: x, b, c, epilogue: Some((map, further)) }
        } else if x.strides[2] == 1 {
            // Positions lie side by side: the product of the weights with the input is the transposed result.
            let w = operands.w.split(0, columns);
            let w = View { shape: w.shape[..3].to_vec(), strides: w.strides[..3].to_vec(), ..w };
            let w = self.packed(&w, x.dtype)?;
            let strides = [&[0], &w.strides[..]].concat();
            let a = Operand { shape: vec![x.shape[0], conv.groups, columns, channels], strides, ..w };
            let further = further.into_iter().map(transposed).collect();
            Product { alpha: 1.0, a, b: transposed(x), c: transposed(c), epilogue: Some((map, further)) }
        } else {
            return Ok(false);
        };
        self.multiply(product)?;
        Ok(true)
    }

    /// The chain of the sums; `false` if result and operands of the chain cannot be shown as the kernel wants them.
    fn convolve(
        &mut self,
        conv: &Conv,
        operands: &Operands,
        chain: Chain,
        further: &[Operand],
        c: &Operand,
    ) -> Result<bool> {
        let columns = operands.w.shape[0] / conv.groups;
        let tiled = columns >= COLUMNS_MIN || conv.groups == 1;
        if operands.x.dtype == DType::I32 || !tiled || conv.window.kernel.len() > 3 {
            self.direct(conv, operands, chain, further, c)?;
            return Ok(true);
        }
        let Some(matrices) = all_matrices([c].into_iter().chain(further), conv.groups) else { return Ok(false) };
        self.tiled(conv, operands, chain, &matrices)?;
        Ok(true)
    }

    /// In tiles. `matrices` are the result and the chain's operands.
    fn tiled(&mut self, conv: &Conv, operands: &Operands, mut chain: Chain, matrices: &[Operand]) -> Result<()> {
        let (x, c) = (&operands.x, &matrices[0]);
        let arithmetic = self.arithmetic(x.dtype)?;
        let batch = [c.shape[0], conv.groups];
        let columns = c.shape[3];
        let window = three(&conv.window);
        let channels = operands.w.shape[1];
        let windowed = Windowed {
            images: x.shape[0] / batch[0].max(1),
            channels,
            columns,
            input: last_three(&x.shape[2..], 1),
            steps: last_three(&x.strides[2..], 0),
            output: last_three(&conv.window.out_extents("Conv", &x.shape[2..])?, 1),
            window,
        };
        let w = self.weights(&operands.w, conv.groups, x.dtype)?;
        let image = if batch[0] == 1 { x.strides[0] } else { 0 };
        let strides = vec![x.strides[0], x.strides[1] * channels as isize, image, x.strides[1]];
        let shape = vec![batch[0], batch[1], windowed.images, channels];
        let x = Operand { shape, strides, ..x.clone() };
        let b = Operand { shape: [&batch[..1], &w.shape[..]].concat(), strides: along(&w), ..w };
        let mut binding = Binding::default();
        let bound = [binding.matrix(&x)?, binding.matrix(&b)?, binding.matrix(c)?];
        let terms = channels * windowed.window.kernel.iter().product::<usize>();
        let (rows, count) = (c.shape[2], batch[0] * batch[1]);
        let tile = contraction::tile(&self.traits, [rows, columns, terms], count);
        let splits = contraction::splits(&self.traits, tile, [rows, columns, terms], count);
        let mut arguments = ConvArguments::new(&windowed, &batch, bound, splits, [alignment([&x]), alignment([&b])])?;
        for (index, operand) in matrices[1..].iter().enumerate() {
            chain = chain.with(index, binding.matrix(operand)?);
        }
        arguments.product.chain = chain;
        arguments.product.b_constant = matches!(b.region, Region::Constant(_)).into();
        if arguments.product.splits > 1 {
            let partials = self.scratch(DType::F32, &[arguments.product.partial_bytes() / 4])?;
            arguments.product.partials = binding.memory(&partials);
        }
        let geometry = arguments.launch(arithmetic, tile, self.traits.has_warpgroups());
        self.launch(conv_entry(arithmetic, tile), &arguments, binding.clone(), geometry)?;
        if arguments.product.splits > 1 {
            let product = &arguments.product;
            self.launch("combine", product, binding, product.combine_launch())?;
        }
        Ok(())
    }

    /// By the definition.
    fn direct(
        &mut self,
        conv: &Conv,
        operands: &Operands,
        mut chain: Chain,
        further: &[Operand],
        c: &Operand,
    ) -> Result<()> {
        let x = &operands.x;
        let spatial = |operand: &Operand| lifted(&operand.shape[2..], 1);
        let slide = Slide::new(&lifted_window(&conv.window)?, &spatial(x)?, &spatial(c)?)?;
        let quads = Quads::new(c.shape[0], c.shape[1], &spatial(c)?, is_channels_last(c))?;
        // Output channels side by side, whatever their group.
        let rank = operands.w.rank();
        let order: Vec<usize> = (2..rank).chain([1, 0]).collect();
        let mut w = self.packed(&operands.w.permute(&order), x.dtype)?;
        w.strides = [&[w.strides[rank - 1], w.strides[rank - 2]], &w.strides[..rank - 2]].concat();
        let mut binding = Binding::default();
        let three = [binding.image(x)?, binding.image(&w)?, binding.image(c)?];
        for (index, operand) in further.iter().enumerate() {
            chain = chain.with(index, binding.image(operand)?);
        }
        let alignments = [alignment([x]), alignment([&w])];
        let mut arguments = DirectArguments::new(quads, slide, conv.groups, operands.w.shape[1], three, alignments)?;
        arguments.chain = chain;
        self.launch(arguments.entry(x.dtype), &arguments, binding, arguments.launch())
    }

    /// The weights as `[groups, taps and channels, output channels]`, the last side by side.
    fn weights(&mut self, w: &View, groups: usize, dtype: DType) -> Result<Operand> {
        let view = w.split(0, w.shape[0] / groups);
        let rank = view.rank();
        let order: Vec<usize> = [0].into_iter().chain(3..rank).chain([2, 1]).collect();
        let packed = self.packed(&view.permute(&order), dtype)?;
        let terms = packed.shape[1..rank - 1].iter().product();
        let shape = vec![packed.shape[0], terms, packed.shape[rank - 1]];
        Ok(Operand { strides: dense_strides(&shape), shape, ..packed })
    }

    /// A view as a dense operand: packed when it is loaded, or copied.
    pub(super) fn packed(&mut self, view: &View, dtype: DType) -> Result<Operand> {
        let operand = self.operand(view)?;
        let dense = dense_strides(&operand.shape);
        let mut axes = operand.shape.iter().zip(operand.strides.iter().zip(&dense));
        if operand.dtype == dtype && axes.all(|(&extent, (stride, dense))| extent == 1 || stride == dense) {
            return Ok(Operand { strides: dense, ..operand });
        }
        let copy = self.scratch(dtype, &view.shape)?;
        let map = if operand.dtype == dtype { Map::copy(dtype) } else { Map::cast(operand.dtype, dtype) };
        self.map(&map, vec![operand], copy.clone())?;
        Ok(copy)
    }
}

/// The strides of `[groups, terms, columns]` with an axis of images in front.
fn along(w: &Operand) -> Vec<isize> {
    [&[0], &w.strides[..]].concat()
}

/// Whether neighbouring channels are at least as near to each other as neighbouring positions.
pub(super) fn is_channels_last(operand: &Operand) -> bool {
    let nearest = operand.strides[2..].iter().zip(&operand.shape[2..]).filter(|(_, extent)| **extent > 1);
    let nearest = nearest.map(|(stride, _)| stride.unsigned_abs()).min();
    nearest.is_none_or(|nearest| operand.strides[1].unsigned_abs() <= nearest)
}

fn last_three<T: Copy>(values: &[T], fill: T) -> [T; 3] {
    std::array::from_fn(|axis| if axis + values.len() < 3 { fill } else { values[axis + values.len() - 3] })
}

/// A window of up to three axes as one of three.
fn three(window: &Window) -> Window {
    let of = |values: &[usize], fill| last_three(values, fill).to_vec();
    Window {
        kernel: of(&window.kernel, 1),
        strides: of(&window.strides, 1),
        dilations: of(&window.dilations, 1),
        pads_begin: of(&window.pads_begin, 0),
        pads_end: of(&window.pads_end, 0),
    }
}
