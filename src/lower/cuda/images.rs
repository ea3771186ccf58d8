//! Pooling, transposed convolution, resampling.

use super::contraction::Product;
use super::convolution::{all_matrices, is_channels_last};
use super::{Binding, Lowering};
use crate::error::Result;
use crate::ir::{DType, Tensor};
use crate::kernels::entry::{
    Chain, CollectArguments, Operand as Bound, PoolArguments, Quads, ReduceArguments, ResizeArguments, Slide, lifted,
    lifted_window,
};
use crate::kernels::{ConvTranspose, Map, Pool, PoolKind, ReduceOp, Resize};
use crate::lower::operand::Operand;
use crate::plan::{Step, View};

/// The operation that a pooling is if its only window shows the whole of every channel.
fn whole(pool: &Pool, spatial: &[usize]) -> Option<ReduceOp> {
    let window = &pool.window;
    let covers = |axis: usize| {
        let end = window.pads_begin[axis].saturating_add(spatial[axis]);
        pool.out[axis] == 1 && window.dilations[axis] == 1 && window.kernel[axis] >= end
    };
    let padded = window.pads_begin.iter().chain(&window.pads_end).any(|&pad| pad > 0);
    match pool.kind {
        _ if pool.indices.is_some() || !(0..spatial.len()).all(covers) || spatial.contains(&0) => None,
        PoolKind::Max => Some(ReduceOp::Max),
        PoolKind::AverageIncludingPads if padded => None,
        PoolKind::Average | PoolKind::AverageIncludingPads => Some(ReduceOp::Mean),
    }
}

impl Lowering<'_> {
    pub(super) fn pool(&mut self, pool: &Pool, step: &Step) -> Result<()> {
        let input = self.operand(&step.inputs[0])?;
        let outputs = self.operands(&step.outputs)?;
        let (images, channels, spatial) = (input.shape[0], input.shape[1], &input.shape[2..]);
        let mut binding = Binding::default();
        if let Some(op) = whole(pool, spatial) {
            let output = &outputs[0];
            let (shape, strides) = (output.shape[..2].to_vec(), output.strides[..2].to_vec());
            let to = binding.strided(&Operand { shape, strides, ..output.clone() })?;
            let arguments = ReduceArguments::new(op, &input.shape, 2, binding.strided(&input)?, to)?;
            return self.launch(arguments.entry(), &arguments, binding, arguments.launch());
        }
        let quads = Quads::new(images, channels, &lifted(&pool.out, 1)?, is_channels_last(&input))?;
        let indices = outputs.get(1).map_or(Ok(Bound::none()), |indices| binding.image(indices))?;
        let operands = [binding.image(&input)?, binding.image(&outputs[0])?, indices];
        let (window, spatial) = (lifted_window(&pool.window)?, lifted(spatial, 1)?);
        let column_major = pool.indices == Some(true);
        let arguments = PoolArguments::new(pool.kind, column_major, quads, &window, &spatial, operands)?;
        self.launch(arguments.entry(), &arguments, binding, arguments.launch())
    }

    /// A matrix product of input and weights, then a kernel in which every result sums what falls on it.
    pub(super) fn transposed_convolution(&mut self, conv: &ConvTranspose, step: &Step) -> Result<()> {
        let (x, w) = (self.operand(&step.inputs[0])?, &step.inputs[1]);
        let output = self.operand(&step.outputs[0])?;
        let (map, further) = self.with_bias(None, DType::F32, step, output.dtype)?;
        let (outputs, taps) = (w.shape[1], w.shape[2..].iter().product::<usize>());
        // Per position the products of all taps and output channels. Of one group the channels lie side by side, else the taps.
        let all = conv.groups * outputs * taps;
        let [channel_step, tap_step] = if conv.groups == 1 { [1, outputs] } else { [taps, 1] };
        let products = self.scratch(DType::F32, &[&x.shape[..1], &x.shape[2..], &[all]].concat())?;
        self.multiply_taps(conv.groups, &x, w, &products)?;
        let (input, extents) = (lifted(&x.shape[2..], 1)?, lifted(&output.shape[2..], 1)?);
        let slide = Slide::transposed(&lifted_window(&conv.window)?, &input, &extents)?;
        let quads = Quads::new(output.shape[0], output.shape[1], &extents, is_channels_last(&output))?;
        let mut binding = Binding::default();
        let steps = &products.strides;
        let steps = [&[steps[0], channel_step as isize], &steps[1..steps.len() - 1]].concat();
        let columns = binding.image(&Operand { strides: steps, ..products })?;
        let output = binding.image(&output)?;
        let mut chain = Chain::empty();
        if let Some((of_map, used)) = Chain::of(&map, 0) {
            chain = of_map;
            for (index, &operand) in used.iter().enumerate() {
                chain = chain.with(index, binding.image(&further[operand - 1])?);
            }
        }
        let arguments = CollectArguments { quads, slide, tap_step: tap_step as i32, columns, output, chain };
        self.launch(arguments.entry(), &arguments, binding, arguments.quads.launch())
    }

    /// `products[image, position.., group, columns] = sum over the channels of a group of X and W`.
    fn multiply_taps(&mut self, groups: usize, x: &Operand, w: &View, products: &Operand) -> Result<()> {
        let a = match all_matrices([x].into_iter(), groups) {
            Some(mut a) => a.swap_remove(0),
            None => {
                let copy = self.image_scratch(x.dtype, &x.shape)?;
                self.map(&Map::copy(x.dtype), vec![x.clone()], copy.clone())?;
                all_matrices([&copy].into_iter(), groups).into_iter().flatten().next().unwrap_or(copy)
            }
        };
        let [images, _, positions, channels] = [0, 1, 2, 3].map(|axis| a.shape[axis]);
        // Weights of no channels do not show the groups.
        let view = match channels {
            0 => w.insert_axis(0).broadcast(&[&[groups], &w.shape[..]].concat())?,
            _ => w.split(0, channels),
        };
        let kernel = 3..view.rank();
        let order: Vec<usize> = if groups == 1 {
            [0, 1].into_iter().chain(kernel).chain([2]).collect()
        } else {
            (0..view.rank()).collect()
        };
        let b = self.packed(&view.permute(&order), x.dtype)?;
        let columns = view.shape[2..].iter().product::<usize>();
        let (step, all) = (columns as isize, (groups * columns) as isize);
        let shape = vec![images, groups, channels, columns];
        let b = Operand { shape, strides: vec![0, channels as isize * step, step, 1], ..b };
        let shape = vec![images, groups, positions, columns];
        let c = Operand { shape, strides: vec![positions as isize * all, step, all, 1], ..products.clone() };
        self.multiply(Product { alpha: 1.0, a, b, c, epilogue: None })
    }

    pub(super) fn resize(&mut self, resize: &Resize, step: &Step) -> Result<()> {
        let (input, output) = (self.operand(&step.inputs[0])?, self.operand(&step.outputs[0])?);
        // Neighbouring threads write neighbouring elements.
        let mut order: Vec<usize> = (0..output.shape.len()).collect();
        order.sort_by_key(|&axis| std::cmp::Reverse(output.strides[axis].unsigned_abs()));
        let (positions, weights) = ResizeArguments::tables(resize);
        let positions = self.constants.table(Tensor::from_slice(&[positions.len()], &positions))?;
        let weights = self.constants.table(Tensor::from_slice(&[weights.len()], &weights))?;
        let mut binding = Binding::default();
        let strides: Vec<isize> = order.iter().map(|&axis| output.strides[axis]).collect();
        let to = Bound::new(binding.memory(&output), output.dtype, &strides)?;
        let from = (binding.memory(&input), input.dtype, &input.strides[..]);
        let tables = [binding.memory(&positions), binding.memory(&weights)];
        let arguments = ResizeArguments::new(resize, &order, (&output.shape, &input.shape), from, to, tables)?;
        self.launch("resize", &arguments, binding, arguments.launch())
    }
}
