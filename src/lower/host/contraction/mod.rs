//! Lowering of matrix products, attention and convolutions: axes are merged, constant factors packed, tactics chosen.

mod attention;
mod convolution;
mod finish;
mod product;

pub use attention::FusedAttention;
pub use convolution::{DEPTHWISE_ROWS, Depthwise, Patches, epilogue_flattens};
pub use finish::{Finish, Gate, RowBias};
pub use product::{GROUP_PANELS_MAX, Left, Product, Right};

use super::{Access, Code, Layout, Lowering, Op, Operand, Panels, Region, Simd};
use crate::error::{Result, fail};
use crate::ir::DType;
use crate::kernels::{Attention, Map, MatMul};
use crate::lower::uniform::absorb_constants;
use crate::plan::{Step, View};

/// An axis along which a whole computation is repeated, with its step in each of `N` operands, in elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchAxis<const N: usize> {
    /// Number of repetitions.
    pub extent: usize,
    /// Steps from one to the next.
    pub steps: [isize; N],
}

impl<const N: usize> BatchAxis<N> {
    /// The axes but the last `kept` of operands of one shape; those of extent 1 are left out.
    pub fn of(operands: [&Operand; N], kept: usize) -> Vec<Self> {
        let shape = &operands[N - 1].shape;
        let axes = (0..shape.len() - kept).filter(|&axis| shape[axis] != 1);
        axes.map(|axis| BatchAxis { extent: shape[axis], steps: operands.map(|operand| operand.strides[axis]) })
            .collect()
    }

    /// Where repetition `index` begins in each operand.
    pub fn offsets(axes: &[Self], mut index: usize) -> [isize; N] {
        let mut offsets = [0; N];
        for axis in axes.iter().rev() {
            let position = (index % axis.extent) as isize;
            index /= axis.extent;
            offsets.iter_mut().zip(axis.steps).for_each(|(offset, step)| *offset += position * step);
        }
        offsets
    }
}

/// The product of operands `[batch.., M, K]`, `[batch.., K, N]` (`None`: packed, the same for all batches) and
/// `[batch.., M, N]`. Products that share the right factor become one product of more rows.
fn merged_product(simd: Simd, left: &Operand, right: Option<&Operand>, result: &Operand) -> Product {
    let rank = result.shape.len();
    let mut rows = result.shape[rank - 2];
    let shared = Operand { strides: vec![0; rank], ..result.clone() };
    let mut batch = BatchAxis::of([left, right.unwrap_or(&shared), result], 2);
    let (mut left_row, mut result_row) = (left.strides[rank - 2], result.strides[rank - 2]);
    while let Some(axis) = batch.last().copied() {
        let [left, right, result] = axis.steps;
        let follows = left == left_row * rows as isize && result == result_row * rows as isize;
        if right != 0 || !(follows || rows == 1) {
            break;
        }
        if rows == 1 {
            (left_row, result_row) = (left, result);
        }
        rows *= axis.extent;
        batch.pop();
    }
    let shape = product::Shape {
        rows,
        depth: left.shape[rank - 1],
        columns: result.shape[rank - 1],
        taps: 1,
        left_strides: [left_row, 0, left.strides[rank - 1]],
        left_packed: false,
        right_strides: right.map(|right| [right.strides[rank - 2], right.strides[rank - 1]]),
        patches: None,
    };
    let mut product = Product::new(simd, shape, result_row);
    product.integer = left.dtype == DType::I32;
    product.batch = batch;
    product
}

/// Compiles an epilogue: operand 0 is a row of accumulators, `operands` are the further ones, as the kernel sees them.
pub(super) fn compile_epilogue(map: &Map, operands: &[Operand]) -> Code {
    let mut access = vec![Access::Unit];
    access.extend(operands.iter().map(|operand| Access::of(&operand.shape, &operand.strides, false)));
    Code::compile(map, &access)
}

impl Lowering<'_> {
    /// The epilogue of a step without the operands that are one constant value, and the operands left.
    pub(super) fn epilogue(&mut self, map: &Map, views: &[View]) -> Result<(Map, Vec<Operand>)> {
        let (map, left) = absorb_constants(map, 1, views, |view| self.plan.constant(view));
        let views: Vec<View> = left.iter().map(|&index| views[index].clone()).collect();
        Ok((map, self.operands(&views)?))
    }

    /// Lowers a matrix product.
    pub(super) fn matmul(&mut self, kernel: &MatMul, step: &Step) -> Result<(Op, Vec<Operand>, Vec<Operand>)> {
        let simd = self.traits.simd;
        let left = self.operand(&step.inputs[0])?;
        let result = self.operand(&step.outputs[0])?;
        let (right, packed) = match self.packed_right(&step.inputs[1])? {
            Some(right) => (right, true),
            None => (self.operand(&step.inputs[1])?, false),
        };
        let mut product = merged_product(simd, &left, (!packed).then_some(&right), &result);
        product.alpha = kernel.alpha;
        let mut inputs = vec![left, right];
        if let Some(map) = &kernel.epilogue {
            let (map, mut operands) = self.epilogue(map, &step.inputs[2..])?;
            let (finish, rest) = finish::take(&map, &operands, inputs.len(), &result);
            product.finish = finish;
            product.epilogue = rest.map(|map| compile_epilogue(&map, &operands));
            inputs.append(&mut operands);
        }
        self.scratch = self.scratch.max(product.scratch_bytes());
        Ok((Op::Product(product), inputs, vec![result]))
    }

    /// Lowers an attention.
    pub(super) fn attention(&mut self, kernel: &Attention, step: &Step) -> Result<(Op, Vec<Operand>, Vec<Operand>)> {
        let simd = self.traits.simd;
        let mut inputs = self.operands(&step.inputs[..3])?;
        let result = self.operand(&step.outputs[0])?;
        let mut attention = FusedAttention::new(simd, kernel, &inputs, &result);
        if let Some(map) = &kernel.score {
            let (map, mut operands) = self.epilogue(map, &step.inputs[3..])?;
            attention.score = Some(compile_epilogue(&map, &operands));
            inputs.append(&mut operands);
        }
        let scratch = attention.scratch(simd).ok_or_else(|| fail!(TooLarge, "an attention is too large"))?;
        self.scratch = self.scratch.max(scratch[5]);
        Ok((Op::Attention(attention), inputs, vec![result]))
    }

    /// A right factor that is constant and the same in all batches, packed.
    fn packed_right(&mut self, view: &View) -> Result<Option<Operand>> {
        let rank = view.rank();
        let (outer, inner) = (rank - 2, &view.shape[rank - 2..]);
        let shared = (0..outer).all(|axis| view.shape[axis] == 1 || view.strides[axis] == 0);
        let Some(tensor) = self.plan.constant(view).filter(|_| shared) else { return Ok(None) };
        let matrix = View {
            tensor: view.tensor,
            offset: view.offset,
            shape: inner.to_vec(),
            strides: view.strides[outer..].to_vec(),
        };
        let panels = Panels::new(self.traits.simd, matrix.shape[0], matrix.shape[1]);
        let bytes = panels.elements().and_then(|elements| elements.checked_mul(4));
        let bytes = bytes.ok_or_else(|| fail!(TooLarge, "a factor of shape {inner:?} is too large to be packed"))?;
        let region = Region::Constant(self.constants.add(tensor, &matrix, Layout::Panels(panels), bytes));
        let (shape, strides) = (view.shape.clone(), view.strides.clone());
        Ok(Some(Operand { region, byte_offset: 0, dtype: tensor.dtype(), shape, strides }))
    }
}
