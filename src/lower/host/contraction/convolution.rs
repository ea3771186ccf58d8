//! Convolutions as products: rows are output channels, columns are output positions, the sum runs over the taps of the
//! window and the input channels. Where every group has one channel they are computed directly instead.

use super::product::{Product, Right, Shape};
use super::{BatchAxis, Finish, compile_epilogue, finish};
use crate::error::{Result, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{Conv, Map, MatMul, Window};
use crate::lower::arena::ALIGNMENT;
use crate::lower::bias::biased as with_bias;
use crate::lower::host::{Code, Layout, Lowering, Op, Operand, Region, Strips};
use crate::plan::{Step, View};

/// Bytes of input that a direct convolution keeps padded in the first-level cache at a time.
const BAND_BYTES: usize = 24 << 10;
/// Rows that a direct convolution computes together.
pub const DEPTHWISE_ROWS: usize = 4;

/// The right factor that a window makes of an input: row `tap * channels + channel`, one column per output position.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// Channels of a group.
    pub channels: usize,
    /// Step from channel to channel, in elements; a channel is dense.
    pub channel_step: isize,
    /// Spatial extents of the input.
    pub input: Vec<usize>,
    /// Spatial extents of the result.
    pub output: Vec<usize>,
    /// The window.
    pub window: Window,
}

/// A convolution in which every output channel sees one input channel, two spatial dimensions. Operands: input, weights
/// `[O, kernel]` dense, those of finish and epilogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Depthwise {
    /// Batch extent and its steps in input and result.
    pub batch: BatchAxis<2>,
    /// Output channels, and how many share an input channel.
    pub channels: usize,
    /// Output channels per input channel.
    pub multiplier: usize,
    /// Steps from channel to channel of input and result; a channel is dense.
    pub channel_steps: [isize; 2],
    /// Height and width of an input channel.
    pub input: [usize; 2],
    /// Height and width of an output channel.
    pub output: [usize; 2],
    /// The window.
    pub window: Window,
    /// Output rows that are computed together.
    pub band: usize,
    /// Applied in registers.
    pub finish: Finish,
    /// Applied to the result: operand 0 is the finished sum.
    pub epilogue: Option<Code>,
}

impl Depthwise {
    /// Input rows that a band sees when its height is rounded up to rows that are computed together.
    fn band_rows(&self) -> usize {
        let [kernel, stride, dilation] =
            [&self.window.kernel, &self.window.strides, &self.window.dilations].map(|v| v[0]);
        (self.band.next_multiple_of(DEPTHWISE_ROWS) - 1) * stride + (kernel - 1) * dilation + 1
    }

    /// Elements of one phase of a padded input row, every `stride`-th column, that the window sees.
    pub fn phase_seen(&self) -> usize {
        let [kernel, stride, dilation] =
            [&self.window.kernel, &self.window.strides, &self.window.dilations].map(|v| v[1]);
        self.output[1] + (kernel - 1) * dilation / stride + 1
    }

    /// Elements from one phase to the next: a vector more than is seen, so that whole vectors can be read and written.
    pub fn phase_pitch(&self) -> usize {
        self.phase_seen().next_multiple_of(16) + 16
    }

    /// Bytes of the padded band, two vectors more than its rows; `None` if they exceed the address space.
    fn band_bytes(&self) -> Option<usize> {
        let row = self.phase_pitch().checked_mul(self.window.strides[1])?.checked_mul(4)?;
        row.checked_mul(self.band_rows())?.checked_add(128)?.checked_next_multiple_of(ALIGNMENT)
    }

    /// Bytes of working memory: the padded band, then that of the epilogue. Where the second begins, and the end.
    pub fn scratch(&self) -> Option<[usize; 2]> {
        let band = self.band_bytes()?;
        Some([band, band.checked_add(self.epilogue.as_ref().map_or(0, Code::scratch_bytes))?])
    }
}

impl Lowering<'_> {
    /// Lowers a convolution.
    pub(in super::super) fn conv(&mut self, kernel: &Conv, step: &Step) -> Result<(Op, Vec<Operand>, Vec<Operand>)> {
        let [x, w] = [&step.inputs[0], &step.inputs[1]];
        let result = self.operand(&flattened(&step.outputs[0])?)?;
        let dtype = self.plan.view_type(x).dtype;
        let (map, views) = biased(kernel, step, dtype)?;
        if let Some((product, step)) = single_position(kernel, step, &map, &views)? {
            return self.matmul(&product, &step);
        }
        let (map, operands) = self.epilogue(&map, &views)?;
        let integer = dtype == DType::I32;
        if !integer && w.shape[1] == 1 && kernel.groups > 1 && kernel.window.kernel.len() <= 2 {
            return self.depthwise(kernel, [x, w], (&map, operands), result);
        }
        let taps: usize = kernel.window.kernel.iter().product();
        let channels = w.shape[1];
        let rows = w.shape[0] / kernel.groups;
        let input = self.operand(x)?;
        let patches = Patches {
            channels,
            channel_step: x.strides[1],
            input: x.shape[2..].to_vec(),
            output: step.outputs[0].shape[2..].to_vec(),
            window: kernel.window.clone(),
        };
        let pointwise = patches.sees_input_as_it_is();
        let (weights, left_strides, group_step) = self.left_factor(w, kernel.groups)?;
        let shape = Shape {
            rows,
            depth: channels * taps,
            columns: result.shape[2],
            taps,
            left_strides,
            left_packed: left_strides == [0; 3],
            right_strides: pointwise.then_some([x.strides[1], 1]),
            patches: (!pointwise).then_some(patches),
        };
        let mut product = Product::new(self.traits.simd, shape, result.strides[1]);
        product.integer = integer;
        product.batch = vec![
            BatchAxis { extent: x.shape[0], steps: [0, x.strides[0], result.strides[0]] },
            BatchAxis {
                extent: kernel.groups,
                steps: [group_step, x.strides[1] * channels as isize, result.strides[1] * rows as isize],
            },
        ];
        let (finish, rest) = finish::take(&map, &operands, 2, &result);
        product.finish = finish;
        product.epilogue = rest.map(|map| compile_epilogue(&map, &operands));
        self.scratch = self.scratch.max(product.scratch_bytes());
        let mut inputs = vec![weights, input];
        inputs.extend(operands);
        Ok((Op::Product(product), inputs, vec![result]))
    }

    /// The weights `[O, C / groups, kernel..]` as left factor with columns in the order of [`Patches`]: packed (strides are
    /// zero), or as they lie. Last, the step from group to group.
    fn left_factor(&mut self, w: &View, groups: usize) -> Result<(Operand, [isize; 3], isize)> {
        let taps: usize = w.shape[2..].iter().product();
        let (rows, channels) = (w.shape[0] / groups, w.shape[1]);
        let merged = w.reshape(&[groups, rows, channels, taps]);
        let Some(tensor) = self.plan.constant(w).filter(|_| merged.is_some()) else {
            let merged = merged.ok_or_else(|| fail!(Internal, "the weights do not lie in one piece"))?;
            let steps = &merged.strides;
            let operand = self.operand(&merged)?;
            return Ok((operand, [steps[1], steps[3], steps[2]], steps[0]));
        };
        let view = merged.map(|view| view.permute(&[0, 1, 3, 2])).expect("filtered above");
        self.packed_strips(tensor, &view)
    }

    /// `[groups, rows, taps, channels]` of a constant, packed into one matrix of strips per group.
    pub(super) fn packed_strips(&mut self, tensor: &Tensor, view: &View) -> Result<(Operand, [isize; 3], isize)> {
        let strips = Strips::new(self.traits.simd, view.shape[1], view.shape[2] * view.shape[3]);
        let bytes = strips.elements().and_then(|elements| elements.checked_mul(4)?.checked_mul(view.shape[0]));
        let bytes =
            bytes.ok_or_else(|| fail!(TooLarge, "weights of shape {:?} are too large to be packed", view.shape))?;
        let region = Region::Constant(self.constants.add(tensor, view, Layout::Strips(strips), bytes));
        let (shape, strides) = (view.shape.clone(), view.strides.clone());
        let operand = Operand { region, byte_offset: 0, dtype: tensor.dtype(), shape, strides };
        Ok((operand, [0; 3], (bytes / 4 / view.shape[0].max(1)) as isize))
    }

    fn depthwise(
        &mut self,
        kernel: &Conv,
        [x, w]: [&View; 2],
        (map, operands): (&Map, Vec<Operand>),
        result: Operand,
    ) -> Result<(Op, Vec<Operand>, Vec<Operand>)> {
        // One spatial dimension is two of which the first has extent 1.
        let lift = |values: &[usize], fill: usize| match *values {
            [width] => vec![fill, width],
            _ => values.to_vec(),
        };
        let window = Window {
            kernel: lift(&kernel.window.kernel, 1),
            strides: lift(&kernel.window.strides, 1),
            dilations: lift(&kernel.window.dilations, 1),
            pads_begin: lift(&kernel.window.pads_begin, 0),
            pads_end: lift(&kernel.window.pads_end, 0),
        };
        let input = lift(&x.shape[2..], 1);
        let output = lift(&kernel.window.out_extents("Conv", &x.shape[2..])?, 1);
        let (finish, rest) = finish::take(map, &operands, 2, &result);
        let mut depthwise = Depthwise {
            batch: BatchAxis { extent: x.shape[0], steps: [x.strides[0], result.strides[0]] },
            channels: w.shape[0],
            multiplier: w.shape[0] / kernel.groups,
            channel_steps: [x.strides[1], result.strides[1]],
            input: [input[0], input[1]],
            output: [output[0], output[1]],
            window,
            band: 1,
            finish,
            epilogue: rest.map(|map| compile_epilogue(&map, &operands)),
        };
        while depthwise.band < depthwise.output[0] {
            depthwise.band += 1;
            if depthwise.band_bytes().is_none_or(|bytes| bytes > BAND_BYTES) {
                depthwise.band -= 1;
                break;
            }
        }
        let scratch = depthwise.scratch().ok_or_else(|| fail!(TooLarge, "a convolution is too large"))?;
        self.scratch = self.scratch.max(scratch[1]);
        let mut inputs = vec![self.operand(x)?, self.operand(w)?];
        inputs.extend(operands);
        Ok((Op::Depthwise(depthwise), inputs, vec![result]))
    }
}

impl Patches {
    /// Whether every column is one input position, in order.
    fn sees_input_as_it_is(&self) -> bool {
        let window = &self.window;
        let pads = window.pads_begin.iter().chain(&window.pads_end);
        window.kernel.iter().chain(&window.strides).all(|&extent| extent == 1) && pads.copied().all(|pad| pad == 0)
    }
}

/// `[N, O, spatial..]` as `[N, O, positions]`.
fn flattened(view: &View) -> Result<View> {
    let positions = view.shape[2..].iter().product();
    view.reshape(&[view.shape[0], view.shape[1], positions])
        .ok_or_else(|| fail!(Internal, "a view of shape {:?} does not show whole channels", view.shape))
}

/// A convolution whose window sees the whole input once, as the product of one row per batch and the transposed weights:
/// a column of the result would fill a vector with a single position.
fn single_position(kernel: &Conv, step: &Step, map: &Map, views: &[View]) -> Result<Option<(MatMul, Step)>> {
    let [x, w] = [&step.inputs[0], &step.inputs[1]];
    let (window, output) = (&kernel.window, flattened(&step.outputs[0])?);
    let pads = window.pads_begin.iter().chain(&window.pads_end);
    let whole = window.kernel == x.shape[2..] && pads.copied().all(|pad| pad == 0);
    if !whole || kernel.groups != 1 || output.shape[2] != 1 || output.strides[1] != 1 {
        return Ok(None);
    }
    let depth = w.shape[1..].iter().product();
    let (Some(left), Some(right)) = (x.reshape(&[x.shape[0], depth]), w.reshape(&[w.shape[0], depth])) else {
        return Ok(None);
    };
    let mut inputs = vec![left, right.swap(0, 1)];
    inputs.extend(views.iter().map(|view| view.remove_axis(2)));
    let product = MatMul { alpha: 1.0, epilogue: Some(map.clone()) };
    let step =
        Step { kernel: product.clone().into(), inputs, outputs: vec![output.remove_axis(2)], node: step.node.clone() };
    Ok(Some((product, step)))
}

/// The epilogue with the addition of the bias in front, and the operands of its inputs from 1 on, in the shape
/// `[N, O, positions]`.
fn biased(kernel: &Conv, step: &Step, sum: DType) -> Result<(Map, Vec<View>)> {
    let output = flattened(&step.outputs[0])?;
    let bias = step.inputs[2].insert_axis(1).insert_axis(0).broadcast(&output.shape)?;
    let mut views = vec![bias];
    for view in &step.inputs[3..] {
        views.push(flattened(view)?);
    }
    Ok((with_bias(kernel.epilogue.as_ref(), sum, sum), views))
}

/// Whether the further operands of a convolution's epilogue can be shown in the shape `[N, O, positions]`.
pub fn epilogue_flattens(step: &Step) -> bool {
    step.inputs[3..].iter().all(|view| flattened(view).is_ok())
}

impl Right {
    /// The kernel that makes products with such a factor, for messages.
    pub fn kernel_name(&self) -> &'static str {
        if matches!(self, Right::Patches(_)) { "Conv" } else { "MatMul" }
    }
}
