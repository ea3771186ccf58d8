//! One model on the device under test, against expected outputs.

use crate::report::{Outcome, Report};
use bytes::Bytes;
use streaminfer::error::{Result, Status};
use streaminfer::ir::Tensor;
use streaminfer::runtime::{Bucket, Context, ContextOptions, Engine, Model, ModelOptions, Precision};

/// How many times the tolerance a single element may be off, in units of the mean square or of its own size.
const ELEMENT_FACTOR: f64 = 40.0;
/// The share of integers that may differ where a rounded float decides them.
const ROUNDED_SHARE: f64 = 1.0 / 16.0;
/// What outputs hold before each request.
const POISON: u8 = 0xFF;

/// Writes a value into an input of a prepared context.
pub fn write(context: &mut Context, index: usize, tensor: &Tensor) -> Result<()> {
    let view = context.input_view(index)?;
    assert_eq!((view.dtype, view.shape), (tensor.dtype(), tensor.shape()), "input {index}");
    let data = tensor.data();
    assert!(data.len() <= view.capacity_bytes);
    // SAFETY: the library gives so many bytes to write while nothing is in flight, and `context` is borrowed alone.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), view.address, data.len()) };
    Ok(())
}

/// Fills every output, so that nothing that a request leaves out can pass for its result.
pub fn poison(context: &mut Context, outputs: usize) -> Result<()> {
    for index in 0..outputs {
        let view = context.output_view(index)?;
        // SAFETY: as in `write`; the host may also write where it reads outputs.
        unsafe { std::ptr::write_bytes(view.address, POISON, view.capacity_bytes) };
    }
    Ok(())
}

/// The value of an output after a request.
pub fn read(context: &Context, index: usize) -> Result<Tensor> {
    let view = context.output_view(index)?;
    let bytes = view.shape.iter().product::<usize>() * view.dtype.bytes();
    // SAFETY: so many bytes lie there, the request has ended, and they are copied at once.
    let data = unsafe { std::slice::from_raw_parts(view.address, bytes) }.to_vec();
    Tensor::new(view.dtype, view.shape.to_vec(), data.into())
}

/// One request on poisoned outputs.
pub fn answer(context: &mut Context, feed: &[Tensor], outputs: usize) -> Result<Vec<Tensor>> {
    for (index, tensor) in feed.iter().enumerate() {
        write(context, index, tensor)?;
    }
    poison(context, outputs)?;
    context.run()?;
    (0..outputs).map(|index| read(context, index)).collect()
}

/// A context that is ready.
pub fn prepared(model: &Model) -> Result<Context> {
    let mut context = model.context(&ContextOptions::default())?;
    context.prepare()?;
    Ok(context)
}

/// How far floats are from the wanted ones.
pub struct Distance {
    /// ||ours - wanted|| / ||wanted|| over the finite elements.
    pub relative: f64,
    /// The greatest difference of two elements.
    pub greatest: f64,
    /// The element with the greatest difference in units of the mean square or of its own size, and that difference.
    worst: (usize, f64),
}

/// The distance of two arrays; an error where one is infinite or no number and the other is something else.
pub fn distance(ours: &[f64], wanted: &[f64]) -> std::result::Result<Distance, String> {
    let is_odd_one = |(ours, wanted): (&f64, &f64)| {
        let is_same = ours == wanted || ours.is_nan() && wanted.is_nan();
        !(is_same || ours.is_finite() && wanted.is_finite())
    };
    if let Some(at) = ours.iter().zip(wanted).position(is_odd_one) {
        return Err(format!("element {at} is {}, not {}", ours[at], wanted[at]));
    }
    let finite = || ours.iter().zip(wanted).enumerate().filter(|(_, (_, wanted))| wanted.is_finite());
    // Scaled, so that squares of the greatest numbers stay finite.
    let scale = finite().map(|(_, (_, wanted))| wanted.abs()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let square = |value: f64| (value / scale).powi(2);
    let gap: f64 = finite().map(|(_, (ours, wanted))| square(ours - wanted)).sum();
    let norm: f64 = finite().map(|(_, (_, wanted))| square(*wanted)).sum();
    let mean = (norm / finite().count().max(1) as f64).sqrt() * scale;
    let (mut greatest, mut worst) = (0.0f64, (0, 0.0));
    for (at, (ours, wanted)) in finite() {
        let off = (ours - wanted).abs();
        greatest = greatest.max(off);
        let own = off / mean.max(wanted.abs()).max(f64::MIN_POSITIVE);
        if own > worst.1 {
            worst = (at, own);
        }
    }
    Ok(Distance { relative: (gap / norm.max(f64::MIN_POSITIVE)).sqrt(), greatest, worst })
}

/// What is wrong with a result; nothing if it is right.
pub fn difference(ours: &Tensor, wanted: &Tensor, tolerance: f64, is_rounded: bool) -> Option<String> {
    if ours.ty() != wanted.ty() {
        return Some(format!("{:?} instead of {:?}", ours.ty(), wanted.ty()));
    }
    if !wanted.dtype().is_float() {
        let off = ours.to_i64s().iter().zip(wanted.to_i64s()).filter(|(ours, wanted)| **ours != *wanted).count();
        let allowed = if is_rounded { (wanted.count() as f64 * ROUNDED_SHARE) as usize } else { 0 };
        return (off > allowed).then(|| format!("{off} of {} elements differ", wanted.count()));
    }
    let (ours, wanted) = (ours.to_f64s(), wanted.to_f64s());
    let distance = match distance(&ours, &wanted) {
        Ok(distance) => distance,
        Err(text) => return Some(text),
    };
    let (at, own) = distance.worst;
    if distance.relative > tolerance {
        return Some(format!(
            "relative L2 error {:.2e}; element {at} is {}, not {}",
            distance.relative, ours[at], wanted[at]
        ));
    }
    let is_far = own > ELEMENT_FACTOR * tolerance;
    is_far.then(|| format!("element {at} is {}, not {}: {own:.2e} of the mean square", ours[at], wanted[at]))
}

/// A model that is to be checked.
pub struct Subject<'a> {
    pub name: &'a str,
    pub layout: &'a str,
    pub bytes: Bytes,
    /// What is asked, and the answer by definition.
    pub feed: Vec<Tensor>,
    pub expected: Vec<Tensor>,
    /// Another request, that leaves its traces in the memory that the first one uses.
    pub decoy: Vec<Tensor>,
    /// Whether operands were rounded to the precision before a kernel saw them.
    pub is_rounded: bool,
}

/// The subject at one precision: right, right again after another request, and the same in another context. Answers whether it is.
pub fn check(engine: &Engine, subject: &Subject<'_>, precision: Precision, report: &mut Report) -> bool {
    let outcome = match attempt(engine, subject, precision) {
        Ok(None) => Outcome::Passed,
        Ok(Some(text)) => Outcome::Failed(text),
        Err(error) if error.status == Status::Unsupported => Outcome::Refused(error.message),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    let is_right = matches!(outcome, Outcome::Passed);
    report.add(subject.name, subject.layout, precision.name(), outcome);
    is_right
}

/// What is wrong; nothing if all is right.
fn attempt(engine: &Engine, subject: &Subject<'_>, precision: Precision) -> Result<Option<String>> {
    // A file leaves an extent of 0 open.
    let shapes: Vec<Vec<usize>> = subject.feed.iter().map(|tensor| tensor.shape().to_vec()).collect();
    let is_open = shapes.iter().flatten().any(|&extent| extent == 0);
    let buckets = if is_open { vec![Bucket::new(shapes)] } else { Vec::new() };
    let options = ModelOptions { precision, buckets, ..ModelOptions::default() };
    let model = engine.load_bytes(subject.bytes.clone(), &options)?;
    let outputs = subject.expected.len();
    let (mut one, mut other) = (prepared(&model)?, prepared(&model)?);
    answer(&mut one, &subject.decoy, outputs)?;
    let first = answer(&mut one, &subject.feed, outputs)?;
    let is_rounded = subject.is_rounded && precision != Precision::Fp32;
    for (index, (ours, wanted)) in first.iter().zip(&subject.expected).enumerate() {
        if let Some(text) = difference(ours, wanted, precision.tolerance(), is_rounded) {
            return Ok(Some(format!("output {index}: {text}")));
        }
    }
    for (context, which) in [(&mut one, "again"), (&mut other, "in another context")] {
        if answer(context, &subject.feed, outputs)? != first {
            return Ok(Some(format!("other bits {which}")));
        }
    }
    Ok(None)
}

/// The precisions that a device has.
pub fn precisions(engine: &Engine) -> Vec<Precision> {
    let has = |precision: &Precision| engine.device().id != "host" || *precision == Precision::Fp32;
    Precision::ALL.into_iter().filter(has).collect()
}

/// Whether the comparison sees planted faults. Panics if it does not.
pub fn prove_comparison() {
    let of = |value: f32| Tensor::from_slice(&[1], &[value]);
    for (ours, wanted, is_right) in [
        (f32::NAN, f32::NAN, true),
        (f32::NAN, 1.0, false),
        (1.0, f32::INFINITY, false),
        (f32::NEG_INFINITY, f32::INFINITY, false),
        (f32::MAX, f32::MAX, true),
        (0.0, 1e-30, false),
        (1.0, 1.0 + 1e-5, true),
    ] {
        assert_eq!(difference(&of(ours), &of(wanted), 1e-4, false).is_none(), is_right, "{ours} {wanted}");
    }
    // One wrong element among so many hardly moves the norm.
    let mut values = vec![1f32; 1 << 16];
    let wanted = Tensor::from_slice(&[values.len()], &values);
    values[77] = 1.8;
    let ours = Tensor::from_slice(&[values.len()], &values);
    assert!(difference(&ours, &wanted, 1e-2, false).is_some(), "one wrong element");
    let (ours, wanted) = (Tensor::from_slice(&[2], &[1i64, 2]), Tensor::from_slice(&[2], &[1i64, 3]));
    assert!(difference(&ours, &wanted, 1e-2, true).is_some(), "a wrong integer");
}
