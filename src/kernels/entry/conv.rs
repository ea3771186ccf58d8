//! Convolutions as products in tiles: a row of the left factor is the window of one output position, gathered where it lies.

use super::layout::{Address, Field, arguments};
use super::matmul::{Arithmetic, MatMulArguments, Right, Tile};
use super::memory::{Memory, positions, read_wide, shifted};
use super::operand::{AXES, Geometry, Operand, Space, dtype, small};
use super::slide::{checked, counted, overhang};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{Conv, Family, Window};

arguments! {
    /// A convolution of three spatial axes over batch axes. Entries `conv_*`, and `combine` with `product` for the second half of split
    /// sums.
    ///
    /// The product's rows are output positions, its columns output channels; its sums run over the taps of the window and, for each tap,
    /// over the channels. A is the input: its batch strides, then the steps from image to image and from channel to channel in the places
    /// of rows and columns. B is `[batch.., terms, columns]` with the columns side by side.
    pub struct ConvArguments {
        /// Sums, results and chain. `a_vectors` says whether 16 bytes of channels may be read at a time.
        pub product: MatMulArguments,
        /// The rows: images, then three spatial axes of the result.
        pub rows: Space,
        /// The terms: three axes of the window, then channels.
        pub terms: Space,
        /// Spatial extents of the input.
        pub extents: [u32; 3],
        /// Steps along them, in elements.
        pub steps: [i32; 3],
        /// Steps of the window.
        pub strides: [u32; 3],
        /// Distances of its taps.
        pub dilations: [u32; 3],
        /// Padding in front.
        pub pads: [u32; 3],
    }
}

/// What a convolution reads and how often, for [`ConvArguments::new`].
#[derive(Clone, Debug)]
pub struct Windowed {
    /// Images that make rows.
    pub images: usize,
    /// Channels that a window sees.
    pub channels: usize,
    /// Output channels that see the same input channels.
    pub columns: usize,
    /// Spatial extents of the input.
    pub input: [usize; 3],
    /// Steps along them, in elements.
    pub steps: [isize; 3],
    /// Spatial extents of the result.
    pub output: [usize; 3],
    /// The window, of three axes.
    pub window: Window,
}

/// The name of an entry, by arithmetic and tile.
const ENTRIES: [[&str; 3]; 4] = [
    ["conv_f32_128x128", "conv_f32_64x64", "conv_f32_32x64"],
    ["conv_tf32_128x128", "conv_tf32_64x64", "conv_tf32_32x64"],
    ["conv_f16_128x128", "conv_f16_64x64", "conv_f16_32x64"],
    ["conv_bf16_128x128", "conv_bf16_64x64", "conv_bf16_32x64"],
];

const FAMILIES: [&str; 4] = ["conv_f32", "conv_tf32", "conv_f16", "conv_bf16"];

/// The entry for a convolution of floats.
pub fn entry(arithmetic: Arithmetic, tile: Tile) -> &'static str {
    ENTRIES[arithmetic as usize][tile as usize]
}

/// The image that has the entries.
pub(super) fn family(arithmetic: Arithmetic) -> &'static str {
    FAMILIES[arithmetic as usize]
}

impl ConvArguments {
    /// The convolution of `x`, whose strides are those of the batch axes, of images and of channels, with `w` to `c`, which are
    /// [`Operand::matrix`]. `alignments` are what the addresses of `x` and `w` are multiples of, in bytes.
    pub fn new(
        windowed: &Windowed,
        batch: &[usize],
        [x, w, c]: [Operand; 3],
        splits: usize,
        alignments: [usize; 2],
    ) -> Result<Self> {
        let Windowed { images, channels, columns, input, output, window, .. } = windowed;
        checked(window, input, output)?;
        let rows = Space::new(&[&[*images], &output[..]].concat())?;
        let terms = Space::new(&[&window.kernel[..], &[*channels]].concat())?;
        let extents = [rows.count as usize, *columns, terms.count as usize];
        let mut product = MatMulArguments::new(extents, batch, [x, w, c], splits, alignments[1])?;
        let steps = Operand::new(Address::NONE, DType::F32, &windowed.steps)?.strides;
        let lanes = 16 / dtype(x.dtype)?.bytes();
        let whole = |stride: &i32| (*stride as usize).is_multiple_of(lanes);
        let outer = x.strides[..AXES - 1].iter().chain(&steps);
        let vectors = x.column() == 1
            && channels.is_multiple_of(lanes)
            && alignments[0].is_multiple_of(16)
            && outer.into_iter().all(whole);
        product.a_vectors = vectors.into();
        let three =
            |values: &[usize]| -> Result<[u32; 3]> { Ok([small(values[0])?, small(values[1])?, small(values[2])?]) };
        Ok(ConvArguments {
            product,
            rows,
            terms,
            extents: three(input)?,
            steps: [steps[0], steps[1], steps[2]],
            strides: three(&counted(&window.strides, |_| true))?,
            dilations: three(&counted(&window.dilations, |axis| window.kernel[axis] > 1))?,
            pads: three(&window.pads_begin)?,
        })
    }

    /// Blocks and threads, on a GPU whose warps multiply in groups or not.
    pub fn launch(&self, arithmetic: Arithmetic, tile: Tile, has_warpgroups: bool) -> Geometry {
        self.product.launch(arithmetic, tile, Right::Rows, has_warpgroups)
    }

    /// The sums of the terms `range` of one element of the batch, `[m, n]`.
    fn sums(&self, memory: &dyn Memory, batch: usize, range: std::ops::Range<u32>) -> Result<Vec<f32>> {
        let product = &self.product;
        let at = |operand: &Operand| -> Result<Operand> {
            let steps = operand.steps(product.batch.rank as usize);
            let elements = positions(&product.batch.shape(), &steps)[batch];
            let bytes = dtype(operand.dtype)?.bytes() as isize;
            Ok(Operand { address: Address(shifted(operand.address, elements * bytes)), ..*operand })
        };
        let (rows, terms) = (self.rows.shape(), self.terms.shape());
        let (kernel, channels, columns) = (&terms[..3], terms[3], product.n as usize);
        let wide = |values: [u32; 3]| values.map(|value| value as usize).to_vec();
        let input = wide(self.extents);
        let x_shape = [&[rows[0], channels], &input[..]].concat();
        let x_steps = [product.a.row(), product.a.column(), self.steps[0], self.steps[1], self.steps[2]];
        let x = read_wide(memory, &at(&product.a)?, &x_shape, &x_steps.map(|step| step as isize))?;
        let (row, column) = (product.b.row() as isize, product.b.column() as isize);
        let tap = row * channels as isize;
        let w_steps = [column, row, tap * (kernel[1] * kernel[2]) as isize, tap * kernel[2] as isize, tap];
        let w_shape = [&[columns, channels], kernel].concat();
        let w = read_wide(memory, &at(&product.b)?, &w_shape, &w_steps)?;
        let taps: usize = kernel.iter().product();
        let mut weights: Vec<f32> = w.to_vec().unwrap_or_default();
        for (index, weight) in weights.iter_mut().enumerate() {
            let term = index % taps * channels + index / taps % channels;
            if !range.contains(&(term as u32)) {
                *weight = 0.0;
            }
        }
        let mut window = Window {
            kernel: kernel.to_vec(),
            strides: wide(self.strides),
            dilations: wide(self.dilations),
            pads_begin: wide(self.pads),
            pads_end: vec![0; 3],
        };
        window.pads_end = overhang(&window, &input, &rows[1..]);
        let operands =
            [x, Tensor::from_slice(&w_shape, &weights), Tensor::from_slice(&[columns], &vec![0f32; columns])];
        let conv = Conv { groups: 1, window, epilogue: None };
        let types = conv.infer(&operands.each_ref().map(Tensor::ty))?;
        ensure!(types[0].shape[2..] == rows[1..], Internal, "a convolution of {:?} for {rows:?}", types[0].shape);
        let result: Vec<f32> = conv.reference(&operands)?[0].to_vec().unwrap_or_default();
        let area: usize = rows[1..].iter().product();
        let place = |index: usize| {
            let (row, column) = (index / columns, index % columns);
            (row / area * columns + column) * area + row % area
        };
        Ok((0..rows[0] * area * columns).map(|index| result[place(index)]).collect())
    }
}

pub(super) fn conv_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = ConvArguments::get(bytes);
    arguments.product.occupied()?;
    let product = &arguments.product;
    let shape = product.shape(product.m, product.n);
    for split in 0..product.splits {
        let start = split * product.depth;
        let end = if product.splits == 1 { product.k } else { product.k.min(start + product.depth) };
        let batches = (0..product.batch.count as usize).map(|batch| arguments.sums(memory, batch, start..end));
        let sums = batches.collect::<Result<Vec<_>>>()?.concat();
        let sums = Tensor::from_slice(&shape, &sums);
        if product.splits == 1 {
            return product.finish(memory, sums);
        }
        let offset = u64::from(split) * sums.count() as u64 * 4;
        memory.store(product.partials.0 + offset, sums.data())?;
    }
    Ok(())
}
