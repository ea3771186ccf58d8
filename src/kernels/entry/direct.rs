//! Convolutions by their definition: groups of few channels, integers, many spatial axes. And the end of transposed convolutions.

use super::chain::Chain;
use super::layout::{Field, arguments};
use super::memory::{Memory, read, read_wide, write};
use super::operand::{Geometry, Operand, dtype, occupied, small};
use super::slide::{Quads, Slide};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{Conv, ConvTranspose, Family};

arguments! {
    /// `chain(sum over taps and channels of X W)`. Entries `conv_direct_*`, by the type of X and W; int32 sums wrap and have no chain.
    pub struct DirectArguments {
        /// The results.
        pub quads: Quads,
        /// The window.
        pub slide: Slide,
        /// Input channels of a group.
        pub inputs: u32,
        /// Output channels of a group.
        pub outputs: u32,
        /// Whether four neighbouring channels of X may be read together.
        pub x_vectors: u32,
        /// Whether the weights of four neighbouring output channels may be read together.
        pub w_vectors: u32,
        /// Input, with the steps of image, channel and spatial axes.
        pub x: Operand,
        /// Weights, with the steps of output channel, input channel and the axes of the window.
        pub w: Operand,
        /// Result.
        pub output: Operand,
        /// Applied to the sums.
        pub chain: Chain,
    }
}

arguments! {
    /// `chain(sum over taps of columns)`: every result of a transposed convolution sums the products that fall on it. Entry `collect`.
    ///
    /// `columns[image, channel, tap, input position..]` is binary32.
    pub struct CollectArguments {
        /// The results.
        pub quads: Quads,
        /// The window of the convolution that is transposed; its extents are those of the input here.
        pub slide: Slide,
        /// Step from tap to tap of the columns.
        pub tap_step: i32,
        /// Products, with the steps of image, channel and spatial axes.
        pub columns: Operand,
        /// Result.
        pub output: Operand,
        /// Applied to the sums.
        pub chain: Chain,
    }
}

/// Whether four neighbours along an axis of step 1 can be read together wherever the other axes are.
fn fours(operand: &Operand, neighbours: usize, count: u32, alignment: usize) -> Result<bool> {
    let bytes = 4 * dtype(operand.dtype)?.bytes();
    let others = operand.strides.iter().enumerate().filter(|(axis, _)| *axis != neighbours);
    Ok(operand.strides[neighbours] == 1
        && count.is_multiple_of(4)
        && alignment.is_multiple_of(bytes)
        && others.into_iter().all(|(_, stride)| stride % 4 == 0))
}

impl DirectArguments {
    /// The convolution with `groups` groups of `inputs` channels. `alignments` are what the addresses of X and W are multiples of, in
    /// bytes.
    pub fn new(
        quads: Quads,
        slide: Slide,
        groups: usize,
        inputs: usize,
        [x, w, output]: [Operand; 3],
        alignments: [usize; 2],
    ) -> Result<Self> {
        Ok(DirectArguments {
            quads,
            slide,
            inputs: small(inputs)?,
            outputs: quads.channels / small(groups)?.max(1),
            x_vectors: fours(&x, 1, quads.channels, alignments[0])?.into(),
            w_vectors: fours(&w, 0, quads.channels, alignments[1])?.into(),
            x,
            w,
            output,
            chain: Chain::empty(),
        })
    }

    /// The entry, by the type of the factors.
    pub fn entry(&self, factors: DType) -> &'static str {
        let [few, any] = match factors {
            DType::F16 => ["conv_direct_f16", "conv_direct_f16_any"],
            DType::BF16 => ["conv_direct_bf16", "conv_direct_bf16_any"],
            DType::I32 => ["conv_direct_i32", "conv_direct_i32_any"],
            _ => ["conv_direct_f32", "conv_direct_f32_any"],
        };
        if self.slide.has_few_axes() { few } else { any }
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        self.quads.launch()
    }
}

impl CollectArguments {
    /// The entry.
    pub fn entry(&self) -> &'static str {
        if self.slide.has_few_axes() { "collect" } else { "collect_any" }
    }
}

/// Sums go through the chain to their place, integers without it.
fn finish(memory: &mut dyn Memory, chain: &Chain, output: &Operand, sums: Tensor) -> Result<()> {
    let (rank, stored) = (sums.shape().len(), dtype(output.dtype)?);
    let result =
        if sums.dtype().is_float() { chain.apply(memory, sums, stored, |operand| operand.steps(rank))? } else { sums };
    write(memory, output, &output.steps(rank), result)
}

pub(super) fn direct_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = DirectArguments::get(bytes);
    occupied(&[arguments.quads.space.count, arguments.outputs])?;
    let shape = arguments.quads.shape();
    let (rank, channels) = (shape.len(), shape[1]);
    let groups = channels / (arguments.outputs as usize).max(1);
    let (inputs, slide) = (arguments.inputs as usize, &arguments.slide);
    let x_shape = [&[shape[0], inputs * groups], &slide.input()[..]].concat();
    let x = read_wide(memory, &arguments.x, &x_shape, &arguments.x.steps(rank))?;
    let w_shape = [&[channels, inputs], &slide.kernel.shape()[..]].concat();
    let w = read_wide(memory, &arguments.w, &w_shape, &arguments.w.steps(rank))?;
    let bias = Tensor::from_scalars(x.dtype(), &[channels], vec![crate::ir::Scalar::Int(0); channels]);
    let conv = Conv { groups, window: slide.window(&shape[2..]), epilogue: None };
    let operands = [x, w, bias];
    let types = conv.infer(&operands.each_ref().map(Tensor::ty))?;
    ensure!(types[0].shape == shape, Internal, "a convolution of {:?} for {shape:?}", types[0].shape);
    let sums = conv.reference(&operands)?.swap_remove(0);
    finish(memory, &arguments.chain, &arguments.output, sums)
}

pub(super) fn collect_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = CollectArguments::get(bytes);
    occupied(&[arguments.quads.space.count])?;
    let shape = arguments.quads.shape();
    let (rank, channels, slide) = (shape.len(), shape[1], &arguments.slide);
    let (kernel, input) = (slide.kernel.shape(), slide.input());
    let taps: usize = kernel.iter().product();
    let mut steps = arguments.columns.steps(rank);
    steps.insert(2, arguments.tap_step as isize);
    // Without the axes of one element by which windows are lifted: a tensor has not so many axes as those and the taps.
    let extents = [&[shape[0], channels, taps], &input[..]].concat();
    let axes = (0..extents.len()).filter(|&axis| axis < 3 || extents[axis] > 1);
    let (extents, steps): (Vec<usize>, Vec<isize>) = axes.map(|axis| (extents[axis], steps[axis])).unzip();
    let columns = read(memory, &arguments.columns, &extents, &steps)?;
    // Every product is a channel of its own, whose weights pick one tap.
    let x = columns.reshaped([&[shape[0], channels * taps], &input[..]].concat())?;
    let identity: Vec<f32> = (0..channels * taps * taps).map(|at| f32::from(at / taps % taps == at % taps)).collect();
    let w = Tensor::from_slice(&[&[channels * taps, 1], &kernel[..]].concat(), &identity);
    let mut window = slide.window(&vec![1; input.len()]);
    window.pads_end = vec![0; input.len()];
    let mut output_padding = vec![0; input.len()];
    for axis in 0..input.len() {
        let full = (input[axis] - 1) * window.strides[axis] + window.dilations[axis] * (kernel[axis] - 1) + 1;
        let wanted = shape[2 + axis] + window.pads_begin[axis];
        window.pads_end[axis] = full.saturating_sub(wanted);
        output_padding[axis] = wanted.saturating_sub(full);
    }
    let transposed = ConvTranspose { groups: channels, window, output_padding };
    let operands = [x, w, Tensor::from_slice(&[channels], &vec![0f32; channels])];
    let types = transposed.infer(&operands.each_ref().map(Tensor::ty))?;
    ensure!(types[0].shape == shape, Internal, "a transposed convolution of {:?} for {shape:?}", types[0].shape);
    let sums = transposed.reference(&operands)?.swap_remove(0);
    finish(memory, &arguments.chain, &arguments.output, sums)
}
