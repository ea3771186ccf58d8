//! `inspect`: what a model is made of, what is not supported, what it becomes.

use crate::args::Inspect;
use crate::feed::Feed;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use streaminfer::device::host;
use streaminfer::error::{Result, Status};
use streaminfer::ir::import::{self, ImportOptions};
use streaminfer::ir::{Attribute, Graph, Tensor, TensorType};
use streaminfer::lower::host::{Launch, Operand, Program, Region, lower};
use streaminfer::plan::{self, Bucket, Plan, Step, View, ops};
use streaminfer::runtime::InputInfo;

/// What a dimension that is open, and that no option fixes, is taken as.
const OPEN_EXTENT: usize = 1;

/// Something in the model that the library does not have.
struct Gap {
    /// Where it is.
    place: String,
    what: String,
}

/// A model and what becomes of it.
struct Report {
    graph: Graph,
    inputs: Vec<InputInfo>,
    operators: BTreeMap<String, usize>,
    gaps: Vec<Gap>,
    bucket: Bucket,
    /// `None` if something is not supported.
    made: Option<Result<Made>>,
}

/// The model planned and lowered for one bucket.
struct Made {
    plan: Plan,
    program: Program,
}

pub fn inspect(args: &Inspect) -> Result<()> {
    let report = Report::new(args)?;
    if args.json {
        println!("{:#}", report.as_json(&args.model));
    } else {
        print!("{}", report.as_text(&args.model));
    }
    Ok(())
}

impl Report {
    fn new(args: &Inspect) -> Result<Report> {
        let (graph, faults) = import::survey(&args.model, &ImportOptions::default())?;
        let inputs = inputs_of(&graph);
        let (operators, mut gaps) = count_operators(&graph);
        gaps.extend(faults.into_iter().map(|fault| Gap { place: "import".into(), what: fault.message }));
        // A wrong option is an error; a model that cannot be planned is what this command is to show.
        let feed = Feed::random(&args.made, &inputs, Some(OPEN_EXTENT))?;
        let value = |(tensor, input): (Tensor, &InputInfo)| input.is_shape_input.then_some(tensor);
        let bucket = Bucket {
            shapes: feed.tensors.iter().map(|tensor| tensor.shape().to_vec()).collect(),
            values: feed.tensors.into_iter().zip(&inputs).map(value).collect(),
        };
        let made = gaps.is_empty().then(|| make(&graph, &bucket));
        // What only planning can find, such as an attribute's value, it finds one by one.
        if let Some(Err(error)) = &made
            && matches!(error.status, Status::Unsupported | Status::UnsupportedDynamic)
        {
            gaps.push(Gap { place: "planning".into(), what: error.message.clone() });
        }
        Ok(Report { graph, inputs, operators, gaps, bucket, made })
    }
}

fn make(graph: &Graph, bucket: &Bucket) -> Result<Made> {
    let plan = plan::plan(graph, bucket.clone())?;
    let program = lower(&plan, &host::traits())?;
    Ok(Made { plan, program })
}

fn inputs_of(graph: &Graph) -> Vec<InputInfo> {
    let shape_inputs = plan::shape_inputs(graph);
    let one = |(input, is_shape_input): (&streaminfer::ir::Input, bool)| InputInfo {
        name: input.name.clone(),
        dtype: input.dtype,
        dims: input.dims.clone(),
        dim_names: input.dim_names.clone(),
        is_shape_input,
        is_overridable: false,
    };
    graph.inputs.iter().zip(shape_inputs).map(one).collect()
}

/// Counts the operators of a graph and its subgraphs, and lists those that nothing translates.
fn count_operators(graph: &Graph) -> (BTreeMap<String, usize>, Vec<Gap>) {
    let (mut counts, mut gaps) = (BTreeMap::new(), Vec::new());
    let mut graphs = vec![graph];
    while let Some(body) = graphs.pop() {
        for node in &body.nodes {
            let name = if node.domain.is_empty() { node.op.clone() } else { format!("{}.{}", node.domain, node.op) };
            let place = || format!("node '{}' ({name})", node.name);
            gaps.extend(ops::gaps(node, graph.opset).into_iter().map(|what| Gap { place: place(), what }));
            *counts.entry(name).or_insert(0) += 1;
            graphs.extend(node.attributes.values().filter_map(|attribute| match attribute {
                Attribute::Graph(body) => Some(&**body),
                _ => None,
            }));
        }
    }
    (counts, gaps)
}

fn dims_text(dims: Option<&[Option<usize>]>, names: &[Option<String>]) -> String {
    let Some(dims) = dims else { return "any shape".into() };
    let one = |(axis, dim): (usize, &Option<usize>)| match (dim, names.get(axis)) {
        (Some(extent), _) => extent.to_string(),
        (None, Some(Some(name))) => name.clone(),
        _ => "?".into(),
    };
    format!("[{}]", dims.iter().enumerate().map(one).collect::<Vec<_>>().join(", "))
}

fn type_text(ty: &TensorType) -> String {
    format!("{}{:?}", ty.dtype, ty.shape)
}

/// The bucket in words.
fn bucket_text(inputs: &[InputInfo], bucket: &Bucket) -> String {
    let one = |((input, shape), value): ((&InputInfo, &Vec<usize>), &Option<Tensor>)| match value {
        Some(value) => format!("{}{shape:?}={:?}", input.name, value.to_f64s()),
        None => format!("{}{shape:?}", input.name),
    };
    inputs.iter().zip(&bucket.shapes).zip(&bucket.values).map(one).collect::<Vec<_>>().join(" ")
}

impl Made {
    fn view_text(&self, view: &View) -> String {
        let name = &self.plan.tensor(view.tensor).name;
        let mark = if self.plan.constant(view).is_some() { "const " } else { "" };
        format!("{mark}{name}:{}", type_text(&self.plan.view_type(view)))
    }

    fn step_text(&self, step: &Step) -> String {
        let views = |views: &[View]| views.iter().map(|view| self.view_text(view)).collect::<Vec<_>>().join(", ");
        format!("{} ({}) -> {} # {}", step.kernel.name(), views(&step.inputs), views(&step.outputs), step.node)
    }

    fn operand_text(operand: &Operand) -> String {
        let region = match operand.region {
            Region::Arena => format!("arena+{}", operand.byte_offset),
            Region::Constant(index) => format!("constant {index}+{}", operand.byte_offset),
            Region::Input(index) => format!("input {index}+{}", operand.byte_offset),
            Region::Output(index) => format!("output {index}+{}", operand.byte_offset),
        };
        format!("{region}:{}{:?}", operand.dtype, operand.shape)
    }

    fn launch_text(launch: &Launch) -> String {
        let operands = |operands: &[Operand]| operands.iter().map(Self::operand_text).collect::<Vec<_>>().join(", ");
        let flags =
            format!("{}{}", if launch.barrier { "barrier " } else { "" }, if launch.alone { "alone " } else { "" });
        let (inputs, outputs) = (operands(&launch.inputs), operands(&launch.outputs));
        format!("{flags}{} ({inputs}) -> {outputs} # {}", launch.op.name(), launch.node)
    }

    /// Named byte counts.
    fn memory(&self) -> [(&'static str, usize); 5] {
        let ports = |ports: &[streaminfer::lower::host::Port]| ports.iter().map(|port| port.bytes).sum();
        [
            ("weights_bytes", self.program.constant_bytes()),
            ("arena_bytes", self.program.arena_bytes),
            ("input_bytes", ports(&self.program.inputs)),
            ("output_bytes", ports(&self.program.outputs)),
            ("scratch_bytes_per_thread", self.program.scratch_bytes),
        ]
    }

    /// Adds memory, plan, program and fingerprint.
    fn describe(&self, bucket: &mut Map<String, Value>) {
        let memory = self.memory().map(|(name, bytes)| (name.to_owned(), json!(bytes)));
        let steps: Vec<String> = self.plan.steps.iter().map(|step| self.step_text(step)).collect();
        let launches: Vec<String> = self.program.launches.iter().map(Made::launch_text).collect();
        bucket.insert("memory".into(), Map::from_iter(memory).into());
        bucket.insert("plan".into(), steps.into());
        bucket.insert("program".into(), launches.into());
        bucket.insert("fingerprint".into(), self.fingerprint().into());
    }

    fn fingerprint(&self) -> String {
        format!("{:032x}", self.program.fingerprint)
    }
}

impl Report {
    fn as_text(&self, path: &Path) -> String {
        let mut lines = vec![format!("{}: opset {}, {} nodes", path.display(), self.graph.opset, self.nodes())];
        lines.push("\ninputs".into());
        for input in &self.inputs {
            let note = if input.is_shape_input { " (its values decide shapes)" } else { "" };
            let dims = dims_text(input.dims.as_deref(), &input.dim_names);
            lines.push(format!("  {}: {}{dims}{note}", input.name, input.dtype));
        }
        lines.push("\noutputs".into());
        for (index, output) in self.graph.outputs.iter().enumerate() {
            lines.push(format!("  {}: {}", output.name, self.output_text(index)));
        }
        lines.push("\noperators".into());
        lines.extend(self.operators.iter().map(|(name, count)| format!("  {count:5} {name}")));
        lines.push("\nunsupported".into());
        lines.extend(self.gaps.iter().map(|gap| format!("  {}: {}", gap.place, gap.what)));
        lines.extend(self.gaps.is_empty().then(|| "  nothing known".to_owned()));
        match &self.made {
            None => {}
            Some(Err(error)) => {
                lines.push(format!("\nbucket\n  {}", bucket_text(&self.inputs, &self.bucket)));
                lines.push(format!("\nplan\n  failed: {error}\n  other shapes and values: --shape, --range"));
            }
            Some(Ok(made)) => {
                lines.push(format!("\nbucket\n  {}", bucket_text(&self.inputs, &self.bucket)));
                lines.push("\nmemory".into());
                lines.extend(made.memory().iter().map(|(name, bytes)| format!("  {name:25} {bytes:>12}")));
                lines.push(format!("\nplan, {} steps", made.plan.steps.len()));
                lines.extend(made.plan.steps.iter().map(|step| format!("  {}", made.step_text(step))));
                lines.push(format!(
                    "\nprogram for {:?}, {} launches",
                    made.program.traits.simd,
                    made.program.launches.len()
                ));
                lines.extend(made.program.launches.iter().map(|launch| format!("  {}", Made::launch_text(launch))));
                lines.push(format!("\nfingerprint {}", made.fingerprint()));
            }
        }
        lines.join("\n") + "\n"
    }

    fn nodes(&self) -> usize {
        self.operators.values().sum()
    }

    /// The type of an output in the bucket, or as much of it as the file declares.
    fn output_text(&self, index: usize) -> String {
        match &self.made {
            Some(Ok(made)) => type_text(&made.plan.tensor(made.plan.outputs[index]).ty),
            _ => self.graph.outputs[index].dtype.map_or("unknown".into(), |dtype| dtype.to_string()),
        }
    }

    fn as_json(&self, path: &Path) -> Value {
        let input = |input: &InputInfo| {
            json!({
                "name": input.name,
                "dtype": input.dtype.name(),
                "dims": input.dims,
                "dim_names": input.dim_names,
                "shape_input": input.is_shape_input,
            })
        };
        let output = |(index, output): (usize, &streaminfer::ir::Output)| {
            let ty = match &self.made {
                Some(Ok(made)) => Some(&made.plan.tensor(made.plan.outputs[index]).ty),
                _ => None,
            };
            let dtype = ty.map(|ty| ty.dtype).or(output.dtype).map(|dtype| dtype.name());
            json!({ "name": output.name, "dtype": dtype, "dims": ty.map(|ty| &ty.shape) })
        };
        let gap = |gap: &Gap| json!({ "where": gap.place, "what": gap.what });
        json!({
            "model": path.display().to_string(),
            "opset": self.graph.opset,
            "nodes": self.nodes(),
            "inputs": self.inputs.iter().map(input).collect::<Vec<_>>(),
            "outputs": self.graph.outputs.iter().enumerate().map(output).collect::<Vec<_>>(),
            "operators": self.operators,
            "unsupported": self.gaps.iter().map(gap).collect::<Vec<_>>(),
            "buckets": [self.bucket_json()],
        })
    }

    /// The bucket and what becomes of the model for it, or why nothing does.
    fn bucket_json(&self) -> Value {
        let shapes =
            self.inputs.iter().zip(&self.bucket.shapes).map(|(input, shape)| (input.name.clone(), json!(shape)));
        let values = self.inputs.iter().zip(&self.bucket.values);
        let values = values.filter_map(|(input, value)| Some((input.name.clone(), json!(value.as_ref()?.to_f64s()))));
        let mut bucket = Map::new();
        bucket.insert("shape".into(), shapes.collect::<Map<_, _>>().into());
        bucket.insert("values".into(), values.collect::<Map<_, _>>().into());
        match &self.made {
            Some(Ok(made)) => made.describe(&mut bucket),
            Some(Err(error)) => drop(bucket.insert("error".into(), error.to_string().into())),
            None => drop(bucket.insert("error".into(), "the model uses what is not supported".into())),
        }
        bucket.into()
    }
}
