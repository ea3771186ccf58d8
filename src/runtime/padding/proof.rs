//! The proof that padding is right, made when a bucket is loaded.
//!
//! A batch is proved by axis analysis of the plan: no row reaches another. What is masked is not for analysis to see, so it
//! is measured: a smaller request, padded, must give what a program made for exactly its shapes gives. Both kinds are held against
//! that, because a model may also compute with an extent itself.

use super::{Follower, Followers, PaddingKind, Paddings, advance};
use crate::device::{Device, InputSource, LaneOrder, Launch, Precision, Priority, Program, Sink};
use crate::error::{Result, Status, ensure, fail};
use crate::ir::{Graph, Scalar, Tensor, TensorType};
use crate::plan::axes::{self, Rows};
use crate::plan::{self, Bucket, Plan};
use std::sync::Arc;

impl Paddings {
    /// The bucket with a dimension of extent `smaller`.
    pub fn shrunk(&self, bucket: &Bucket, dimension: u32, smaller: usize) -> Bucket {
        let mut shrunk = bucket.clone();
        for padding in self.axes(dimension) {
            shrunk.shapes[padding.input][padding.axis] = smaller;
        }
        shrunk
    }

    /// Finds out which output axes follow which dimension, and proves that rows of a batch are independent.
    ///
    /// # Errors
    /// `Unsupported` with the step that mixes rows, or the output whose extents follow in another way than in proportion.
    pub fn followers(&self, graph: &Graph, bucket: &Bucket, plan: &Plan) -> Result<Followers> {
        let types: Vec<TensorType> = plan.outputs.iter().map(|&id| plan.tensor(id).ty.clone()).collect();
        let mut followers: Followers = types.iter().map(|ty| vec![None; ty.shape.len()]).collect();
        for (dimension, kind) in self.dimensions() {
            let extent = self.extent(dimension, &bucket.shapes).unwrap_or(1);
            if extent < 2 {
                continue;
            }
            let outputs_at = |smaller: usize| -> Result<Plan> {
                let planned = plan::plan(graph, self.shrunk(bucket, dimension, smaller));
                planned.map_err(|error| error.within(format_args!("padding dimension {dimension} from {smaller}")))
            };
            let usual = (extent * 2 / 3).max(1);
            let found = match kind {
                PaddingKind::Batch => self.rows_of(dimension, plan)?,
                PaddingKind::Masked => proportional(&types, &outputs_at(usual)?, (extent, usual)),
            };
            for (index, axis, repeat) in found {
                let place = followers[index].get_mut(axis).filter(|place| place.is_none());
                let place =
                    place.ok_or_else(|| fail!(Unsupported, "axis {axis} of output {index} follows two dimensions"))?;
                *place = Some(Follower { dimension, repeat });
            }
            for smaller in [usual, extent - 1] {
                let planned = outputs_at(smaller)?;
                let shapes = self.shrunk(bucket, dimension, smaller).shapes;
                let expected = self.output_shapes(&followers, &shapes, &types);
                let actual = planned.outputs.iter().map(|&id| &planned.tensor(id).ty.shape);
                for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    ensure!(
                        expected == actual,
                        Unsupported,
                        "output {index} has shape {actual:?} and not {expected:?} when padding dimension {dimension} is {smaller}: \
                         its extents do not follow that dimension in proportion"
                    );
                }
            }
        }
        Ok(followers)
    }

    /// Where analysis finds the rows of a batch: output, axis, indices for each row.
    fn rows_of(&self, dimension: u32, plan: &Plan) -> Result<Vec<(usize, usize, usize)>> {
        let mut batch_axes = vec![None; plan.inputs.len()];
        for padding in self.axes(dimension) {
            batch_axes[padding.input] = Some(padding.axis);
        }
        let rows = axes::rows(plan, &batch_axes)
            .map_err(|error| error.within(format_args!("padding dimension {dimension} is no batch")))?;
        let rows = rows.into_iter().enumerate();
        Ok(rows
            .filter_map(|(index, rows)| match rows {
                Rows::Independent { axis, repeat } => Some((index, axis, repeat)),
                Rows::Uniform => None,
            })
            .collect())
    }

    /// Runs a smaller request padded and exact, and compares: they may differ by the precision's tolerance, because another shape may be
    /// computed in another order.
    ///
    /// # Errors
    /// `Unsupported` with the output that differs.
    pub fn compare(
        &self,
        device: &dyn Device,
        precision: Precision,
        bucket: &Bucket,
        program: &Arc<dyn Program>,
        followers: &Followers,
        load: impl FnOnce(Bucket) -> Result<Arc<dyn Program>>,
    ) -> Result<()> {
        let dimensions = self.dimensions().into_iter();
        let smaller = dimensions.fold(bucket.clone(), |smaller, (dimension, _)| {
            let extent = self.extent(dimension, &bucket.shapes).unwrap_or(1);
            self.shrunk(&smaller, dimension, (extent * 2 / 3).max(1))
        });
        if smaller == *bucket {
            return Ok(());
        }
        let exact_program = load(smaller.clone())?;
        let exact_inputs = sample_inputs(&exact_program.inputs(), &smaller);
        let mut padded_inputs = Vec::new();
        for (index, (ty, exact)) in program.inputs().iter().zip(&exact_inputs).enumerate() {
            let mut memory = vec![0; ty.bytes()];
            self.fill(index, ty, &smaller.shapes[index], &mut memory);
            let size = ty.dtype.bytes();
            for (place, value) in positions(&smaller.shapes[index], &ty.shape).zip(exact.chunks_exact(size)) {
                memory[place * size..][..size].copy_from_slice(value);
            }
            padded_inputs.push(memory);
        }
        let exact = evaluate(device, &exact_program, &exact_inputs)?;
        let padded = evaluate(device, program, &padded_inputs)?;
        let shapes = self.output_shapes(followers, &smaller.shapes, &program.outputs());
        for (index, (exact, padded)) in exact.iter().zip(&padded).enumerate() {
            ensure!(exact.shape() == shapes[index], Internal, "output {index} of the exact request has another shape");
            let difference = difference(exact, padded);
            let tolerance = if exact.dtype().is_float() { precision.tolerance() } else { 0.0 };
            // NaN is refused, too.
            let is_near = difference <= tolerance;
            ensure!(
                is_near,
                Unsupported,
                "padding changes output {index}: a padded request differs from the exact one by {difference:.1e} of its norm"
            );
        }
        Ok(())
    }
}

/// Output axes that shrank exactly as the dimension did.
fn proportional(types: &[TensorType], shrunk: &Plan, (from, to): (usize, usize)) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for (index, (ty, &id)) in types.iter().zip(&shrunk.outputs).enumerate() {
        let axes = ty.shape.iter().zip(&shrunk.tensor(id).ty.shape).enumerate();
        found.extend(axes.filter(|(_, extents)| *extents == (&from, &to)).map(|(axis, _)| (index, axis, 1)));
    }
    found
}

/// Relative L2 difference between a tensor and the leading corner of a larger one. Infinite or NaN where only one of the two
/// is.
fn difference(exact: &Tensor, padded: &Tensor) -> f64 {
    let (mut difference, mut norm) = (0f64, 0f64);
    for (at, place) in positions(exact.shape(), padded.shape()).enumerate() {
        let (exact, padded) = (exact.at(at).as_f64(), padded.at(place).as_f64());
        if exact != padded && !(exact.is_nan() && padded.is_nan()) {
            difference += (exact - padded).powi(2);
        }
        norm += if exact.is_finite() { exact.powi(2) } else { 0.0 };
    }
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// Positions, in a dense tensor of `outer`, of the elements of its leading corner of shape `inner`, row-major.
fn positions(inner: &[usize], outer: &[usize]) -> impl Iterator<Item = usize> {
    let mut index = vec![0; inner.len()];
    (0..inner.iter().product()).map(move |_| {
        let place = index.iter().zip(outer).fold(0, |place, (&at, &extent)| place * extent + at);
        advance(&mut index, inner);
        place
    })
}

/// Inputs that any model accepts: floats in -1..1, and integers mostly 1, which are tokens, marks of a mask and valid
/// indices alike.
fn sample_inputs(types: &[TensorType], bucket: &Bucket) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut sample = |ty: &TensorType| {
        let values = (0..ty.count()).map(|index| {
            let random = next();
            if ty.dtype.is_float() {
                Scalar::Float((random >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
            } else {
                Scalar::Int(i64::from(index == 0 || !random.is_multiple_of(8)))
            }
        });
        Tensor::from_scalars(ty.dtype, &ty.shape, values).data().to_vec()
    };
    let given = |index: usize| bucket.values[index].as_ref().map(|value| value.data().to_vec());
    types.iter().enumerate().map(|(index, ty)| given(index).unwrap_or_else(|| sample(ty))).collect()
}

/// Nobody to tell.
struct Silence;

impl Sink for Silence {
    fn ending(&self, _status: Status) {}
    fn ended(&self, _ordinal: u64, _status: Status) {}
    fn is_awaited(&self) -> bool {
        false
    }
}

/// The outputs of one request on a lane of its own.
fn evaluate(device: &dyn Device, program: &Arc<dyn Program>, inputs: &[Vec<u8>]) -> Result<Vec<Tensor>> {
    let order = LaneOrder {
        programs: vec![program.clone()],
        inputs: vec![InputSource::Host; inputs.len()],
        outputs: Vec::new(),
        threads: 1,
        priority: Priority::Normal,
        progress: device.progress()?,
        sink: Arc::new(Silence),
        guard_inputs: false,
    };
    let progress = order.progress.clone();
    let mut lane = device.lane(order)?;
    for (index, input) in inputs.iter().enumerate() {
        lane.input_bytes(index)?[..input.len()].copy_from_slice(input);
    }
    lane.run(Launch { bucket: 0, sequence: 1, ordinal: 1, deadline_ns: 0 }, &mut Vec::new())?;
    progress.sleep_until(u64::MAX, || progress.has_reached(1));
    ensure!(progress.status_of(1) == Status::Ok, Internal, "the request that proves padding failed");
    let types = program.outputs().into_iter().enumerate();
    types
        .map(|(index, ty)| {
            let bytes = lane.output_bytes(index)?[..ty.bytes()].to_vec();
            Tensor::new(ty.dtype, ty.shape, bytes.into())
        })
        .collect()
}
