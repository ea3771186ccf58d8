//! Collects tensors and steps while a graph is walked, and folds whatever is constant.

use super::{Bucket, Origin, Plan, Step, TensorDef, TensorId, View};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar, Shape, Tensor, TensorType, element_count};
use crate::kernels::{Binary, Instr, Kernel, Map, Unary};
use crate::limits::{
    FOLD_WORK_BASE, FOLD_WORK_PER_INITIALIZER_BYTE, FOLDED_BYTES_BASE, FOLDED_BYTES_PER_INITIALIZER_BYTE,
    FOLDED_BYTES_RESERVE, SHAPE_INPUT_ELEMENTS_MAX, STEPS_MAX,
};

/// A plan under construction.
#[derive(Debug, Default)]
pub struct Builder {
    /// What has been planned so far.
    pub plan: Plan,
    /// The ONNX node being planned; its name goes into each step.
    pub node: String,
    initializer_bytes: usize,
    folded_bytes: usize,
    fold_work: u64,
}

impl Builder {
    /// An empty plan for `bucket`.
    pub fn new(bucket: Bucket) -> Self {
        Builder { plan: Plan { bucket, ..Plan::default() }, ..Builder::default() }
    }

    /// Adds a tensor and gives the view of its whole.
    pub fn tensor(&mut self, ty: TensorType, origin: Origin) -> View {
        let id = TensorId(self.plan.tensors.len() as u32);
        let view = View::dense(id, &ty.shape);
        self.plan.tensors.push(TensorDef { name: self.node.clone(), ty, origin });
        view
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor) -> View {
        self.tensor(tensor.ty(), Origin::Constant(tensor))
    }

    /// Adds a constant of the model file; the larger they are, the more may be folded.
    pub fn initializer(&mut self, tensor: Tensor) -> View {
        self.initializer_bytes = self.initializer_bytes.saturating_add(tensor.data().len());
        self.constant(tensor)
    }

    /// A view of `shape` that shows one value everywhere.
    pub fn fill(&mut self, dtype: DType, value: Scalar, shape: &[usize]) -> Result<View> {
        self.constant(Tensor::from_scalars(dtype, &[], [value])).broadcast(shape)
    }

    /// Element type of a view.
    pub fn dtype(&self, view: &View) -> DType {
        self.plan.tensor(view.tensor).ty.dtype
    }

    /// The view's value, if it is known at planning time.
    pub fn value(&self, view: &View) -> Result<Option<Tensor>> {
        let Some(tensor) = self.plan.constant(view) else { return Ok(None) };
        let bytes = self.plan.view_type(view).bytes();
        ensure!(view.is_dense() || bytes <= self.folded_bytes_max(), TooLarge, "a constant of {bytes} bytes");
        view.materialize(tensor).map(Some)
    }

    /// Applies a kernel: evaluated at once if every operand is constant, else a step. Gives one view per result.
    pub fn emit(&mut self, kernel: impl Into<Kernel>, inputs: &[View]) -> Result<Vec<View>> {
        let kernel = kernel.into();
        let types: Vec<TensorType> = inputs.iter().map(|view| self.plan.view_type(view)).collect();
        let outputs = kernel.family().infer(&types)?;
        if inputs.iter().all(|view| self.plan.constant(view).is_some())
            && let Some(folded) = self.fold(&kernel, inputs, &types, &outputs)?
        {
            return Ok(folded);
        }
        ensure!(self.plan.steps.len() < STEPS_MAX, TooLarge, "the plan has more than {STEPS_MAX} steps");
        let mut results = Vec::with_capacity(outputs.len());
        for ty in outputs {
            results.push(self.tensor(TensorType::new(ty.dtype, ty.shape)?, Origin::Steps));
        }
        let node = self.node.clone();
        self.plan.steps.push(Step { kernel, inputs: inputs.to_vec(), outputs: results.clone(), node });
        Ok(results)
    }

    /// [`Builder::emit`] for a kernel with one result.
    pub fn emit1(&mut self, kernel: impl Into<Kernel>, inputs: &[View]) -> Result<View> {
        Ok(self.emit(kernel, inputs)?.swap_remove(0))
    }

    /// The kernel's results for constant operands, unless they take too much memory or work to be made now.
    fn fold(
        &mut self,
        kernel: &Kernel,
        inputs: &[View],
        types: &[TensorType],
        outputs: &[TensorType],
    ) -> Result<Option<Vec<View>>> {
        let bytes = outputs.iter().map(TensorType::bytes).fold(0usize, usize::saturating_add);
        // A broadcast operand becomes dense for the evaluation, so its size counts as well.
        let largest = types.iter().map(TensorType::bytes).fold(bytes, usize::max);
        let work = kernel.family().work(types, outputs);
        if largest > self.folded_bytes_max() || !self.affords(bytes, work) {
            return Ok(None);
        }
        self.charge(bytes, work)?;
        let mut operands = Vec::with_capacity(inputs.len());
        for view in inputs {
            operands.extend(self.value(view)?);
        }
        let results = kernel.family().reference(&operands)?;
        Ok(Some(results.into_iter().map(|tensor| self.constant(tensor)).collect()))
    }

    fn folded_bytes_max(&self) -> usize {
        FOLDED_BYTES_BASE.saturating_add(self.initializer_bytes.saturating_mul(FOLDED_BYTES_PER_INITIALIZER_BYTE))
    }

    /// Whether a constant of `bytes` bytes may be made while planning, by `work` scalar operations.
    fn affords(&self, bytes: usize, work: u64) -> bool {
        let reserve = if bytes <= SHAPE_INPUT_ELEMENTS_MAX * size_of::<i64>() { 0 } else { FOLDED_BYTES_RESERVE };
        let work_max = (self.initializer_bytes as u64).saturating_mul(FOLD_WORK_PER_INITIALIZER_BYTE);
        let bytes = self.folded_bytes.saturating_add(bytes).saturating_add(reserve);
        bytes <= self.folded_bytes_max()
            && self.fold_work.saturating_add(work) <= work_max.saturating_add(FOLD_WORK_BASE)
    }

    /// Counts a constant that must be made while planning, of `bytes` bytes and after `work` scalar operations, against
    /// the limits.
    pub fn charge(&mut self, bytes: usize, work: u64) -> Result<()> {
        let affordable = self.affords(bytes, work);
        self.folded_bytes = self.folded_bytes.saturating_add(bytes);
        self.fold_work = self.fold_work.saturating_add(work);
        let (bytes, work) = (self.folded_bytes, self.fold_work);
        ensure!(affordable, TooLarge, "constants made while planning take {bytes} bytes and {work} operations");
        Ok(())
    }

    /// A tensor put together from pieces: `place` gives, for the view of the whole, where each of `pieces` goes. The
    /// places cover the tensor. Made at once if all pieces are constant and small enough, else by one copy each.
    pub fn assemble(&mut self, ty: TensorType, pieces: &[View], place: impl Fn(&View) -> Vec<View>) -> Result<View> {
        let ty = TensorType::new(ty.dtype, ty.shape)?;
        for piece in pieces {
            let dtype = self.dtype(piece);
            ensure!(dtype == ty.dtype, ShapeMismatch, "operands are {} and {dtype}", ty.dtype);
        }
        let constant = pieces.iter().all(|piece| self.plan.constant(piece).is_some());
        if constant && self.affords(ty.bytes(), ty.count() as u64) {
            return self.assemble_constant(ty, pieces, place);
        }
        let whole = self.tensor(ty, Origin::Steps);
        for (place, piece) in place(&whole).into_iter().zip(pieces).filter(|(place, _)| place.count() > 0) {
            ensure!(self.plan.steps.len() < STEPS_MAX, TooLarge, "the plan has more than {STEPS_MAX} steps");
            let dtype = self.dtype(piece);
            let copy = Map { inputs: vec![dtype], body: vec![Instr::Input(0)], output: dtype };
            let node = self.node.clone();
            self.plan.steps.push(Step { kernel: copy.into(), inputs: vec![piece.clone()], outputs: vec![place], node });
        }
        Ok(whole)
    }

    fn assemble_constant(
        &mut self,
        ty: TensorType,
        pieces: &[View],
        place: impl Fn(&View) -> Vec<View>,
    ) -> Result<View> {
        self.charge(ty.bytes(), ty.count() as u64)?;
        let size = ty.dtype.bytes();
        let mut data = vec![0; ty.bytes()];
        let whole = View::dense(TensorId(0), &ty.shape);
        for (place, piece) in place(&whole).iter().zip(pieces) {
            let value = self.plan.constant(piece).expect("checked to be constant");
            let value = piece.materialize(value)?;
            let mut elements = value.data().chunks_exact(size);
            place.for_each_position(|position| {
                let element = elements.next().expect("a piece fills its place");
                data[position * size..(position + 1) * size].copy_from_slice(element);
            });
        }
        let tensor = Tensor::new(ty.dtype, ty.shape, data.into())?;
        Ok(self.constant(tensor))
    }

    /// A dense copy of a view, or the view itself if it shows the whole of a dense tensor.
    pub fn contiguous(&mut self, view: &View) -> Result<View> {
        if view.is_dense() { Ok(view.clone()) } else { self.copy(view) }
    }

    /// A dense copy of a view.
    pub fn copy(&mut self, view: &View) -> Result<View> {
        let dtype = self.dtype(view);
        self.emit1(Map { inputs: vec![dtype], body: vec![Instr::Input(0)], output: dtype }, std::slice::from_ref(view))
    }

    /// The same elements under another shape, copied only if they must be.
    pub fn reshape(&mut self, view: &View, shape: &[usize]) -> Result<View> {
        ensure!(element_count(shape)? == view.count(), ShapeMismatch, "cannot reshape {:?} to {shape:?}", view.shape);
        if let Some(view) = view.reshape(shape) {
            return Ok(view);
        }
        let copy = self.copy(view)?;
        copy.reshape(shape).ok_or_else(|| fail!(Internal, "a dense tensor did not reshape"))
    }

    /// Runs a scalar program over operands broadcast against each other. The result may be a broadcast view.
    pub fn map(&mut self, inputs: &[&View], body: Vec<Instr>, output: DType) -> Result<View> {
        let mut shape = Shape::new();
        for view in inputs {
            shape = broadcast_shape(&shape, &view.shape)?;
        }
        let mut views = inputs.iter().map(|view| view.broadcast(&shape)).collect::<Result<Vec<_>>>()?;
        // Along an axis that repeats every operand, one result serves all.
        for axis in (0..shape.len()).filter(|&axis| shape[axis] > 1) {
            if views.iter().all(|view| view.strides[axis] == 0) {
                views = views.iter().map(|view| view.slice(axis, 0, 1, 1)).collect();
            }
        }
        let inputs = views.iter().map(|view| self.dtype(view)).collect();
        self.emit1(Map { inputs, body, output }, &views)?.broadcast(&shape)
    }

    /// One function of one operand, of the operand's type.
    pub fn unary(&mut self, op: Unary, x: &View) -> Result<View> {
        let dtype = if matches!(op, Unary::IsNan | Unary::IsInf) { DType::Bool } else { self.dtype(x) };
        self.map(&[x], vec![Instr::Input(0), Instr::Unary(op, 0)], dtype)
    }

    /// One function of two operands of one type.
    pub fn binary(&mut self, op: Binary, a: &View, b: &View) -> Result<View> {
        let (left, right) = (self.dtype(a), self.dtype(b));
        ensure!(left == right, ShapeMismatch, "operands are {left} and {right}");
        let compares = matches!(op, Binary::Equal | Binary::Less | Binary::LessOrEqual);
        let dtype = if compares { DType::Bool } else { left };
        self.map(&[a, b], vec![Instr::Input(0), Instr::Input(1), Instr::Binary(op, 0, 1)], dtype)
    }

    /// Converts the element type.
    pub fn cast(&mut self, x: &View, to: DType) -> Result<View> {
        if self.dtype(x) == to {
            return Ok(x.clone());
        }
        self.map(&[x], vec![Instr::Input(0), Instr::Cast(to, 0)], to)
    }
}

/// The shape that two shapes broadcast to by the ONNX (numpy) rule.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Result<Shape> {
    let rank = a.len().max(b.len());
    let extent = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (extent(a, axis), extent(b, axis)) {
            (left, right) if left == right || right == 1 => Ok(left),
            (1, right) => Ok(right),
            _ => Err(fail!(ShapeMismatch, "shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_too_large_to_make_now_becomes_a_step() {
        let mut builder = Builder::new(Bucket::default());
        let one = builder.fill(DType::F32, Scalar::Float(1.0), &[FOLDED_BYTES_BASE]).unwrap();
        let copy = builder.copy(&one).unwrap();
        assert!(builder.plan.constant(&copy).is_none() && builder.plan.steps.len() == 1);
        let small = builder.fill(DType::F32, Scalar::Float(1.0), &[4]).unwrap();
        let copy = builder.copy(&small).unwrap();
        assert_eq!(builder.value(&copy).unwrap().unwrap().to_f64s(), [1.0; 4]);
    }

    #[test]
    fn the_model_size_decides_how_much_may_be_folded() {
        let mut builder = Builder::new(Bucket::default());
        let bytes = FOLDED_BYTES_BASE;
        assert!(!builder.affords(bytes, 0) && builder.affords(bytes - FOLDED_BYTES_RESERVE, FOLD_WORK_BASE));
        builder.initializer(Tensor::from_slice(&[FOLDED_BYTES_RESERVE], &vec![0u8; FOLDED_BYTES_RESERVE]));
        assert!(builder.affords(bytes, 0));
        assert!(builder.charge(usize::MAX, 0).is_err() && !builder.affords(0, 0));
    }
}
