//! Models.

use super::engine::si_engine;
use super::error::{si_error, si_result};
use super::guard;
use super::objects::{ENGINES, MODELS};
use super::pointer::{In, Many, Out, Text, place, versioned};
use super::tensor::{ModelNames, SI_RANK_MAX, si_tensor_info};
use crate::error::{Result, Status, ensure, fail};
use crate::limits::SHAPE_INPUT_ELEMENTS_MAX;
use crate::runtime::{Axes, Bucket, Model, ModelOptions, Padding, PaddingKind, Precision, Shapes};
use bytes::Bytes;
use std::ffi::c_void;
use std::mem::MaybeUninit;

/// One ONNX file at one precision: its weights on the device once, one program per bucket, shared by all contexts. Any
/// thread may use it, several at once. Contexts keep it alive, so it may be freed before them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_model {
    /// 0 is no model.
    pub handle: u64,
}

/// IEEE 754 binary32 throughout. The default.
pub const SI_PRECISION_FP32: u32 = 1;
/// TensorFloat-32 products, the rest binary32.
pub const SI_PRECISION_TF32: u32 = 2;
/// binary16 storage, binary32 accumulation.
pub const SI_PRECISION_FP16: u32 = 3;
/// bfloat16 storage, binary32 accumulation.
pub const SI_PRECISION_BF16: u32 = 4;

/// One input of a bucket.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_bucket_input {
    /// Set by the caller to sizeof(si_bucket_input), the same in all elements of an array.
    pub struct_size: u32,
    /// Number of axes.
    pub rank: u32,
    /// Extents, outermost first.
    pub dims: [i64; SI_RANK_MAX],
    /// For a shape input, its values in the input's element type, row-major; null for all others. Borrowed for the call.
    pub value: Many<c_void>,
    /// Bytes of value.
    pub value_bytes: u64,
}

/// One concrete set of input shapes, and the values of shape inputs.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_bucket {
    /// Set by the caller to sizeof(si_bucket), the same in all elements of an array.
    pub struct_size: u32,
    /// Elements of inputs: the model's number of inputs.
    pub input_count: u32,
    /// Per model input its shape. Borrowed for the call.
    pub inputs: In<si_bucket_input>,
}

/// The dimension counts independent rows. Proved by analysis of the model at load, or the load is refused.
pub const SI_PADDING_BATCH: u32 = 1;
/// The dimension may be padded because the model masks it. Checked at load: a padded run must equal the exact one.
pub const SI_PADDING_MASKED: u32 = 2;

/// An axis of an input that may be smaller than its bucket's. What is unused of the input is filled before the request
/// starts.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_padding {
    /// Set by the caller to sizeof(si_padding), the same in all elements of an array.
    pub struct_size: u32,
    /// One of `SI_PADDING_*`.
    pub kind: u32,
    /// A number of the caller's choice: axes with the same number always have the same extent.
    pub dimension: u32,
    /// The input.
    pub input_index: u32,
    /// The axis of that input.
    pub axis: u32,
    /// Zero.
    pub reserved: u32,
    /// What the unused part is filled with, for example 0 in an attention mask; converted to the input's element type.
    pub value: f64,
}

/// How a model is loaded. All zero (but struct_size) means every default; a null pointer does too.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_model_options {
    /// Set by the caller to sizeof(si_model_options).
    pub struct_size: u32,
    /// One of `SI_PRECISION_*`. 0: SI_PRECISION_FP32. The host device has no other.
    pub precision: u32,
    /// Buckets to make programs for at load. Borrowed for the call. With none, a model whose inputs all have fixed shapes
    /// gets that one bucket; any other gets its buckets from si_model_add_bucket.
    pub buckets: In<si_bucket>,
    /// Elements of buckets.
    pub bucket_count: u32,
    /// Elements of paddings.
    pub padding_count: u32,
    /// Axes that may be padded. Borrowed for the call. With none, a request has exactly the shapes of a bucket.
    pub paddings: In<si_padding>,
    /// Names of initializers that become inputs, after the model's own and in this order. Borrowed for the call.
    pub overridables: Many<Text>,
    /// Elements of overridables.
    pub overridable_count: u32,
    /// Multiprocessors of the GPU that this model's contexts run on, at least; other models that ask for some get others. The driver
    /// gives them in groups: `si_model_info.multiprocessors` says how many there are. They are given back when the model is freed and
    /// its last context is gone.
    /// 0: the whole GPU, which models without a number share. The host device has none.
    pub multiprocessors: u32,
}

/// What a model is and takes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_model_info {
    /// Set by the caller to sizeof(si_model_info).
    pub struct_size: u32,
    /// One of `SI_PRECISION_*`.
    pub precision: u32,
    /// Inputs, overridable initializers included.
    pub input_count: u32,
    /// Outputs.
    pub output_count: u32,
    /// Buckets that have a program.
    pub bucket_count: u32,
    /// The ONNX operator set of the file.
    pub opset: u32,
    /// Bytes of weights on the device, packed.
    pub weights_bytes: u64,
    /// Bytes of the model file kept because the model was loaded from memory.
    pub retained_bytes: u64,
    /// Equal fingerprints give bit-identical results. Over all buckets.
    pub fingerprint: u64,
    /// Multiprocessors that its contexts run on: those asked for, rounded up, or all of the GPU; 0 on the host device.
    pub multiprocessors: u32,
    /// Zero.
    pub reserved: u32,
}

versioned! { si_bucket_input: 120, si_bucket: 16, si_padding: 32, si_model_options: 48, si_model_info: 48 }

/// Bytes of a shape input's values: more cannot be honest.
const VALUE_BYTES_MAX: usize = SHAPE_INPUT_ELEMENTS_MAX * 8;

/// A model behind a handle, with its names as C strings.
pub struct ModelEntry {
    pub(super) model: Model,
    names: ModelNames,
}

impl ModelEntry {
    fn describe(&self) -> si_model_info {
        let info = self.model.info();
        si_model_info {
            struct_size: size_of::<si_model_info>() as u32,
            precision: match info.precision {
                Precision::Fp32 => SI_PRECISION_FP32,
                Precision::Tf32 => SI_PRECISION_TF32,
                Precision::Fp16 => SI_PRECISION_FP16,
                Precision::Bf16 => SI_PRECISION_BF16,
            },
            input_count: self.model.inputs().len() as u32,
            output_count: self.model.outputs().len() as u32,
            bucket_count: info.buckets as u32,
            opset: info.opset as u32,
            weights_bytes: info.weights_bytes as u64,
            retained_bytes: info.retained_bytes as u64,
            fingerprint: info.fingerprint,
            multiprocessors: info.multiprocessors as u32,
            reserved: 0,
        }
    }

    fn input(&self, index: usize) -> Result<si_tensor_info> {
        let inputs = self.model.inputs();
        let input = inputs.get(index);
        let input = input.ok_or_else(|| fail!(InvalidArgument, "there is no input {index}, only {}", inputs.len()))?;
        Ok(si_tensor_info::input(input, &self.names.inputs[index]))
    }

    fn output(&self, index: usize) -> Result<si_tensor_info> {
        let outputs = self.model.outputs();
        let output = outputs.get(index);
        let output =
            output.ok_or_else(|| fail!(InvalidArgument, "there is no output {index}, only {}", outputs.len()))?;
        Ok(si_tensor_info::output(output, &self.names.outputs[index]))
    }
}

/// Loads a model and puts it behind a handle.
fn load(options: In<si_model_options>, load: impl FnOnce(&ModelOptions) -> Result<Model>) -> Result<u64> {
    let options = options.read()?.map_or_else(|| Ok(ModelOptions::default()), |given| given.options())?;
    let model = load(&options)?;
    let names = ModelNames::of(&model);
    MODELS.insert(ModelEntry { model, names }, (), |_, ()| ())
}

impl si_model_options {
    fn options(&self) -> Result<ModelOptions> {
        let precision = match self.precision {
            0 | SI_PRECISION_FP32 => Precision::Fp32,
            SI_PRECISION_TF32 => Precision::Tf32,
            SI_PRECISION_FP16 => Precision::Fp16,
            SI_PRECISION_BF16 => Precision::Bf16,
            other => return Err(fail!(InvalidArgument, "options.precision {other} is no SI_PRECISION_ value")),
        };
        let buckets = self.buckets.read_array(self.bucket_count, "options.buckets")?;
        let buckets = buckets.iter().map(si_bucket::bucket).collect::<Result<_>>()?;
        let paddings = self.paddings.read_array(self.padding_count, "options.paddings")?;
        let paddings = paddings.iter().map(si_padding::padding).collect::<Result<_>>()?;
        let names = self.overridables.read(self.overridable_count as usize, "options.overridables")?;
        let name = |text: Text| {
            text.read("options.overridables")?
                .ok_or_else(|| fail!(InvalidArgument, "a name of options.overridables is null"))
        };
        let overridables = names.into_iter().map(name).collect::<Result<_>>()?;
        let multiprocessors = self.multiprocessors as usize;
        Ok(ModelOptions { precision, buckets, multiprocessors, overridables, paddings })
    }
}

impl si_padding {
    fn padding(&self) -> Result<Padding> {
        ensure!(
            self.reserved == 0,
            InvalidArgument,
            "options.paddings.reserved is {}, and must be zero",
            self.reserved
        );
        let kind = match self.kind {
            SI_PADDING_BATCH => PaddingKind::Batch,
            SI_PADDING_MASKED => PaddingKind::Masked,
            other => return Err(fail!(InvalidArgument, "options.paddings.kind {other} is no SI_PADDING_ value")),
        };
        let (input, axis) = (self.input_index as usize, self.axis as usize);
        Ok(Padding { kind, dimension: self.dimension, input, axis, value: self.value })
    }
}

/// A request's shapes, read where they stand.
impl Shapes for si_bucket {
    fn input_count(&self) -> usize {
        self.input_count as usize
    }

    fn shape(&self, input: usize) -> Result<Axes> {
        let given = self.inputs.read_element(input as u32, "bucket.inputs")?;
        let rank = given.rank as usize;
        ensure!(rank <= SI_RANK_MAX, InvalidArgument, "bucket.inputs[{input}].rank {rank} is above {SI_RANK_MAX}");
        let negative = given.dims[..rank].iter().find(|&&dim| dim < 0);
        ensure!(negative.is_none(), InvalidArgument, "bucket.inputs[{input}] has an extent below zero");
        Ok(Axes::new(given.dims[..rank].iter().map(|&dim| dim as usize)))
    }

    fn has_values(&self, input: usize, values: Option<&[u8]>) -> bool {
        let given = self.inputs.read_element(input as u32, "bucket.inputs");
        given.is_ok_and(|given| given.value.are(given.value_bytes, values))
    }
}

impl si_bucket {
    /// The bucket that these structs describe.
    pub(super) fn bucket(&self) -> Result<Bucket> {
        let mut bucket = Bucket::default();
        for (index, input) in self.inputs.read_array(self.input_count, "bucket.inputs")?.iter().enumerate() {
            let rank = input.rank as usize;
            ensure!(rank <= SI_RANK_MAX, InvalidArgument, "bucket.inputs[{index}].rank {rank} is above {SI_RANK_MAX}");
            let extent = |&dim: &i64| {
                usize::try_from(dim).map_err(|_| fail!(InvalidArgument, "bucket.inputs[{index}] has the extent {dim}"))
            };
            bucket.shapes.push(input.dims[..rank].iter().map(extent).collect::<Result<_>>()?);
            if !input.value.is_null() {
                let bytes = usize::try_from(input.value_bytes).unwrap_or(usize::MAX);
                ensure!(bytes <= VALUE_BYTES_MAX, InvalidArgument, "bucket.inputs[{index}].value_bytes is {bytes}");
                bucket.values.push((index, input.value.read_bytes(bytes, "bucket.inputs.value")?));
            }
        }
        Ok(bucket)
    }
}

/// Loads an ONNX file. External data is read from the file's own directory only.
///
/// @param engine Borrowed for the call; the model keeps what it needs of it.
/// @param path Zero-terminated, borrowed for the call. si_model_add_bucket opens it again.
/// @param options Borrowed for the call; null means every default.
/// @param out_model Receives the model, owned by the caller, free with si_model_free.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_NOT_FOUND, SI_IO,
///     SI_FORBIDDEN_PATH, SI_MALFORMED, SI_UNSUPPORTED, SI_UNSUPPORTED_DYNAMIC, SI_TOO_LARGE, SI_SHAPE_MISMATCH (a bucket does
///     not suit the model), SI_LIMIT_REACHED, SI_OUT_OF_MEMORY, SI_DRIVER, SI_DEVICE_LOST. For multiprocessors: SI_TOO_LARGE (the GPU
///     does not have so many), SI_LIMIT_REACHED (other models have the rest), SI_UNSUPPORTED (the host device has none; the GPU cannot
///     give some of them, or not with this driver).
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_load(
    engine: si_engine,
    path: Text,
    options: In<si_model_options>,
    out_model: Option<&mut MaybeUninit<si_model>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_model = place(out_model, "out_model")?;
        let path = path.read_path("path")?.ok_or_else(|| fail!(InvalidArgument, "path is null"))?;
        let engine = ENGINES.pin(engine.handle, |engine| Ok(engine.clone()))?;
        let handle = load(options, |options| engine.load(&path, options))?;
        out_model.write(si_model { handle });
        Ok(Status::Ok)
    })
}

/// Loads an ONNX file from memory. The library keeps a copy of it (`si_model_info.retained_bytes`), since
/// si_model_add_bucket needs the weights once more; load from a path where that memory matters. External data is refused.
///
/// @param engine Borrowed for the call; the model keeps what it needs of it.
/// @param data The file's bytes, borrowed for the call.
/// @param data_bytes Their number.
/// @param options Borrowed for the call; null means every default.
/// @param out_model Receives the model, owned by the caller, free with si_model_free.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return As si_model_load, without SI_NOT_FOUND and SI_IO.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_load_bytes(
    engine: si_engine,
    data: Many<u8>,
    data_bytes: usize,
    options: In<si_model_options>,
    out_model: Option<&mut MaybeUninit<si_model>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_model = place(out_model, "out_model")?;
        let engine = ENGINES.pin(engine.handle, |engine| Ok(engine.clone()))?;
        let data = Bytes::from(data.read(data_bytes, "data")?);
        let handle = load(options, |options| engine.load_bytes(data, options))?;
        out_model.write(si_model { handle });
        Ok(Status::Ok)
    })
}

/// Makes a program for one more bucket. Contexts that are prepared already do not get it. A control call: it may take as
/// long as a load. A bucket that the model has already is SI_OK.
///
/// @param model Borrowed for the call.
/// @param bucket Borrowed for the call.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_SHAPE_MISMATCH, SI_NOT_FOUND, SI_IO,
///     SI_WRONG_STATE (the file has changed since the load), SI_UNSUPPORTED, SI_UNSUPPORTED_DYNAMIC, SI_TOO_LARGE,
///     SI_LIMIT_REACHED, SI_OUT_OF_MEMORY, SI_DRIVER, SI_DEVICE_LOST.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_add_bucket(
    model: si_model,
    bucket: In<si_bucket>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let given = bucket.required("bucket")?;
        MODELS.pin(model.handle, |entry| entry.model.add_bucket(&given.bucket()?))?;
        Ok(Status::Ok)
    })
}

/// Describes a model.
///
/// @param model Borrowed for the call.
/// @param out_info Receives the description. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_describe(
    model: si_model,
    out_info: Out<si_model_info>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_info = out_info.check("out_info")?;
        let info = MODELS.pin(model.handle, |entry| Ok(entry.describe()))?;
        out_info.write(&info)?;
        Ok(Status::Ok)
    })
}

/// Describes one input.
///
/// @param model Borrowed for the call.
/// @param input_index From 0, in file order, then the overridable initializers.
/// @param out_info Receives the description. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_input(
    model: si_model,
    input_index: u32,
    out_info: Out<si_tensor_info>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_info = out_info.check("out_info")?;
        let info = MODELS.pin(model.handle, |entry| entry.input(input_index as usize))?;
        out_info.write(&info)?;
        Ok(Status::Ok)
    })
}

/// Describes one output. Extents that are not the same in all buckets so far are -1.
///
/// @param model Borrowed for the call.
/// @param output_index From 0, in file order.
/// @param out_info Receives the description. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_output(
    model: si_model,
    output_index: u32,
    out_info: Out<si_tensor_info>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_info = out_info.check("out_info")?;
        let info = MODELS.pin(model.handle, |entry| entry.output(output_index as usize))?;
        out_info.write(&info)?;
        Ok(Status::Ok)
    })
}

/// Frees a model. Its weights and multiprocessors are given back when its last context is gone.
///
/// @param model Consumed. The zero handle is a no-op.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_model_free(model: si_model, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        MODELS.remove(model.handle, |_| ())?;
        Ok(Status::Ok)
    })
}
