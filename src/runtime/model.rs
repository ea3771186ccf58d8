//! Models: weights once, one program per bucket, shared by contexts.

use super::bucket::Bucket;
use super::context::{Context, ContextOptions};
use super::engine::EngineCore;
use super::ledger::{Account, Entry};
use super::padding::{Followers, Padding, Paddings};
use super::source::Source;
use crate::device::host::process::Lock;
use crate::device::{Loader, LoaderOrder, Precision, Program};
use crate::error::{Result, ensure, fail};
use crate::ir::import::ImportOptions;
use crate::ir::{DType, Graph, TensorType};
use crate::limits::BUCKETS_MAX;
use crate::plan;
use std::sync::Arc;

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// Arithmetic and storage of floating-point steps.
    pub precision: Precision,
    /// Buckets to make programs for. With none, a model whose inputs all have fixed shapes gets that one.
    pub buckets: Vec<Bucket>,
    /// Multiprocessors at least that the model's contexts run on, alone among the models that ask for some; 0: all of the GPU, shared. The
    /// host device has none. They are given back when the model is dropped and its last context is gone.
    pub multiprocessors: usize,
    /// Names of initializers that become inputs.
    pub overridables: Vec<String>,
    /// Axes that may be smaller than their bucket's.
    pub paddings: Vec<Padding>,
}

/// An input as the model declares it.
#[derive(Clone, Debug)]
pub struct InputInfo {
    /// ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents, `None` for an open one; `None` altogether if no shape is declared.
    pub dims: Option<Vec<Option<usize>>>,
    /// Names of symbolic axes, as long as `dims`.
    pub dim_names: Vec<Option<String>>,
    /// Whether its values belong to a bucket's key.
    pub is_shape_input: bool,
    /// Whether it is an initializer that the options made overridable.
    pub is_overridable: bool,
}

/// An output as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputInfo {
    /// ONNX name.
    pub name: String,
    /// Element type; `None` if the model does not declare it and has no bucket yet.
    pub dtype: Option<DType>,
    /// Extents that are the same in all buckets, `None` for others; `None` altogether before the first bucket, or if even
    /// the ranks differ.
    pub dims: Option<Vec<Option<usize>>>,
}

/// What a model is and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Arithmetic and storage.
    pub precision: Precision,
    /// ONNX operator set of the file.
    pub opset: i64,
    /// Buckets that have a program.
    pub buckets: usize,
    /// Multiprocessors that its contexts run on, those of its partition or all; 0 on the host device.
    pub multiprocessors: usize,
    /// Bytes of weights, packed.
    pub weights_bytes: usize,
    /// Bytes of the file kept.
    pub retained_bytes: usize,
    /// Equal for models whose programs all give bit-identical results.
    pub fingerprint: u64,
}

/// A bucket with its program.
pub struct Prepared {
    pub(super) bucket: plan::Bucket,
    pub(super) program: Arc<dyn Program>,
    pub(super) inputs: Vec<TensorType>,
    pub(super) outputs: Vec<TensorType>,
    /// Which output axes follow which paddable dimension.
    pub(super) followers: Followers,
}

/// The programs made so far, and what their weights take.
#[derive(Default)]
struct Shelf {
    prepared: Vec<Arc<Prepared>>,
    weights: Vec<Entry>,
    /// What `weights` add up to.
    weights_bytes: usize,
}

/// What contexts share of a model.
pub struct ModelCore {
    pub(super) engine: Arc<EngineCore>,
    pub(super) inputs: Vec<InputInfo>,
    pub(super) outputs: Vec<(String, Option<DType>)>,
    source: Source,
    import: ImportOptions,
    pub(super) paddings: Paddings,
    precision: Precision,
    opset: i64,
    loader: Box<dyn Loader>,
    shelf: Lock<Shelf>,
    _entries: [Entry; 2],
}

impl ModelCore {
    /// The buckets that have programs, in the order in which they were added. A forked child has none if one was being added at the fork.
    pub fn prepared(&self) -> Vec<Arc<Prepared>> {
        self.shelf.lock().map_or_else(|_| Vec::new(), |shelf| shelf.prepared.clone())
    }

    /// The prepared bucket that is equal to `bucket`.
    pub fn find(&self, bucket: &plan::Bucket) -> Result<Arc<Prepared>> {
        let shelf = self.shelf.lock()?;
        let found = shelf.prepared.iter().find(|prepared| prepared.bucket == *bucket);
        found.cloned().ok_or_else(|| fail!(NoBucket, "the model has no bucket {}", describe(&self.inputs, bucket)))
    }

    /// What is missing for the one bucket of a model without options.
    pub fn open_dimensions(&self) -> String {
        let open = self.inputs.iter().filter_map(|input| {
            let axis_name = |axis: usize| match input.dim_names.get(axis) {
                Some(Some(name)) => name.clone(),
                _ => format!("axis {axis}"),
            };
            let axes: Vec<String> = match &input.dims {
                None => vec!["any shape".into()],
                Some(dims) => (0..dims.len()).filter(|&axis| dims[axis].is_none()).map(axis_name).collect(),
            };
            let axes = if axes.is_empty() && input.is_shape_input { vec!["its values".into()] } else { axes };
            (!axes.is_empty()).then(|| format!("'{}' ({})", input.name, axes.join(", ")))
        });
        open.collect::<Vec<_>>().join(", ")
    }

    fn make_program(&self, graph: &Graph, bucket: &plan::Bucket) -> Result<()> {
        // Held over the whole load: two buckets loaded at once would pack the same weights, and one may be equal to the
        // other.
        let mut shelf = self.shelf.lock()?;
        if shelf.prepared.iter().any(|prepared| prepared.bucket == *bucket) {
            return Ok(());
        }
        ensure!(shelf.prepared.len() < BUCKETS_MAX, LimitReached, "a model has at most {BUCKETS_MAX} buckets");
        self.paddings.check(bucket)?;
        let plan = plan::plan(graph, bucket.clone())?;
        let followers =
            if self.paddings.is_empty() { Followers::new() } else { self.paddings.followers(graph, bucket, &plan)? };
        let program = self.loader.load(plan)?;
        if !self.paddings.is_empty() {
            let load = |smaller| self.loader.load(plan::plan(graph, smaller)?);
            self.paddings.compare(&*self.engine.device, self.precision, bucket, &program, &followers, load)?;
        }
        let added = self.loader.weights_bytes() - shelf.weights_bytes;
        shelf.weights.push(self.engine.ledger.enter(Account::Weights, added)?);
        shelf.weights_bytes += added;
        let (inputs, outputs) = (program.inputs(), program.outputs());
        shelf.prepared.push(Arc::new(Prepared { bucket: bucket.clone(), program, inputs, outputs, followers }));
        Ok(())
    }

    /// The bucket of a model whose inputs all have fixed shapes and that has no shape input.
    fn only_bucket(&self) -> Option<plan::Bucket> {
        let fixed = |input: &InputInfo| input.dims.as_ref()?.iter().copied().collect::<Option<Vec<usize>>>();
        let shapes = self.inputs.iter().map(fixed).collect::<Option<Vec<_>>>()?;
        let values = vec![None; shapes.len()];
        (!self.inputs.iter().any(|input| input.is_shape_input)).then_some(plan::Bucket { shapes, values })
    }
}

/// A bucket in words.
pub fn describe(inputs: &[InputInfo], bucket: &plan::Bucket) -> String {
    let one = |(index, shape): (usize, &Vec<usize>)| {
        let name = inputs.get(index).map_or("?", |input| input.name.as_str());
        match bucket.values.get(index) {
            Some(Some(value)) => format!("{name}{shape:?}={:?}", value.to_f64s()),
            _ => format!("{name}{shape:?}"),
        }
    };
    bucket.shapes.iter().enumerate().map(one).collect::<Vec<_>>().join(" ")
}

/// One ONNX file at one precision. Cloning gives a second handle; contexts keep what they need.
#[derive(Clone)]
pub struct Model {
    pub(super) core: Arc<ModelCore>,
}

impl Model {
    /// Imports the file and makes the programs that the options ask for. The graph is dropped afterwards: weights live on in
    /// packed form only.
    pub(super) fn load(
        engine: &Arc<EngineCore>,
        mut source: Source,
        options: &ModelOptions,
        choose: impl FnOnce(&[InputInfo]) -> Result<Vec<Bucket>>,
    ) -> Result<Model> {
        engine.ensure_alive()?;
        let loader = engine
            .device
            .loader(LoaderOrder { precision: options.precision, multiprocessors: options.multiprocessors })?;
        let import = ImportOptions { overridable: options.overridables.clone() };
        let graph = source.import(&import)?;
        let retained = engine.ledger.enter(Account::Retained, source.retained_bytes())?;
        let core = ModelCore {
            engine: engine.clone(),
            inputs: describe_inputs(&graph, &options.overridables),
            outputs: graph.outputs.iter().map(|output| (output.name.clone(), output.dtype)).collect(),
            source,
            import,
            paddings: Paddings::new(&options.paddings, &graph)?,
            precision: options.precision,
            opset: graph.opset,
            loader,
            shelf: Lock::default(),
            _entries: [engine.ledger.enter(Account::Models, 1)?, retained],
        };
        let chosen = choose(&core.inputs)?;
        let given = options.buckets.iter().chain(&chosen);
        let given = given.map(|bucket| bucket.resolve(&core.inputs)).collect::<Result<Vec<_>>>()?;
        let only = if given.is_empty() { core.only_bucket() } else { None };
        for bucket in given.iter().chain(&only) {
            core.make_program(&graph, bucket)?;
        }
        Ok(Model { core: Arc::new(core) })
    }

    /// Makes a program for one more bucket, importing the file once more. Contexts that are prepared do not get it.
    ///
    /// # Errors
    /// `WrongState` if the file has changed, `ShapeMismatch`, and those of planning.
    pub fn add_bucket(&self, bucket: &Bucket) -> Result<()> {
        self.core.engine.ensure_alive()?;
        let bucket = bucket.resolve(&self.core.inputs)?;
        if self.core.find(&bucket).is_ok() {
            return Ok(());
        }
        let graph = self.core.source.import_again(&self.core.import)?;
        self.core.make_program(&graph, &bucket)
    }

    /// What the model is and takes.
    pub fn info(&self) -> ModelInfo {
        let prepared = self.core.prepared();
        let mix = |hash: u64, prepared: &Arc<Prepared>| {
            let print = prepared.program.fingerprint();
            hash.rotate_left(7) ^ print as u64 ^ (print >> 64) as u64
        };
        ModelInfo {
            precision: self.core.precision,
            opset: self.core.opset,
            buckets: prepared.len(),
            multiprocessors: self.core.loader.multiprocessors(),
            weights_bytes: self.core.loader.weights_bytes(),
            retained_bytes: self.core.source.retained_bytes(),
            fingerprint: prepared.iter().fold(0, mix),
        }
    }

    /// The inputs, in file order.
    pub fn inputs(&self) -> &[InputInfo] {
        &self.core.inputs
    }

    /// The outputs, in file order.
    pub fn outputs(&self) -> Vec<OutputInfo> {
        let prepared = self.core.prepared();
        let one = |(index, (name, declared)): (usize, &(String, Option<DType>))| {
            let mut types = prepared.iter().map(|prepared| &prepared.outputs[index]);
            let first = types.next();
            let dims = first.map(|ty| ty.shape.iter().copied().map(Some).collect::<Vec<_>>());
            let dims = types.fold(dims, |dims, ty| merge_dims(dims?, &ty.shape));
            OutputInfo { name: name.clone(), dtype: first.map(|ty| ty.dtype).or(*declared), dims }
        };
        self.core.outputs.iter().enumerate().map(one).collect()
    }

    /// The buckets that have programs.
    pub fn buckets(&self) -> Vec<Bucket> {
        self.core.prepared().iter().map(|prepared| Bucket::of(&prepared.bucket)).collect()
    }

    /// A context, not prepared yet.
    ///
    /// # Errors
    /// `NoBucket`, `LimitReached`, `InvalidArgument`.
    pub fn context(&self, options: &ContextOptions) -> Result<Context> {
        Context::new(&self.core, options, None)
    }
}

/// Keeps the extents that are equal; `None` if the ranks differ.
fn merge_dims(dims: Vec<Option<usize>>, shape: &[usize]) -> Option<Vec<Option<usize>>> {
    let merge = |(dim, &extent): (Option<usize>, &usize)| dim.filter(|&dim| dim == extent);
    (dims.len() == shape.len()).then(|| dims.into_iter().zip(shape).map(merge).collect())
}

fn describe_inputs(graph: &Graph, overridables: &[String]) -> Vec<InputInfo> {
    let one = |(input, is_shape_input): (&crate::ir::Input, bool)| {
        let rank = input.dims.as_ref().map_or(0, Vec::len);
        let mut dim_names = input.dim_names.clone();
        dim_names.resize(rank, None);
        InputInfo {
            name: input.name.clone(),
            dtype: input.dtype,
            dims: input.dims.clone(),
            dim_names,
            is_shape_input,
            is_overridable: overridables.contains(&input.name),
        }
    };
    graph.inputs.iter().zip(plan::shape_inputs(graph)).map(one).collect()
}
