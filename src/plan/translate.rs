//! The walk over an operator graph that makes a plan: every value becomes a view, every node views or steps.

use super::ops::{self, Call};
use super::{Bucket, Builder, Origin, Plan, TensorId, View};
use crate::error::{Result, ensure, fail};
use crate::ir::{Attribute, Graph, Input, Node, TensorType, ValueId};
use crate::kernels::{Instr, Map};
use crate::limits::{SHAPE_INPUT_ELEMENTS_MAX, SUBGRAPH_DEPTH_MAX};
use std::collections::HashSet;

/// Translates the graph for one bucket, without optimising it.
pub fn translate(graph: &Graph, bucket: Bucket) -> Result<Plan> {
    check_bucket(graph, &bucket)?;
    let mut walk = Walk {
        names: &graph.names,
        values: vec![None; graph.names.len()],
        builder: Builder::new(bucket),
        opset: graph.opset,
        opset_ml: graph.opset_ml,
    };
    walk.inputs(&graph.inputs)?;
    walk.body(graph, 0)?;
    walk.outputs(graph)?;
    Ok(walk.builder.plan)
}

/// Whether the bucket gives every input a shape that the model's declaration allows.
pub fn check_bucket(graph: &Graph, bucket: &Bucket) -> Result<()> {
    ensure!(
        bucket.shapes.len() == graph.inputs.len() && bucket.values.len() == graph.inputs.len(),
        ShapeMismatch,
        "the model has {} inputs and the bucket {}",
        graph.inputs.len(),
        bucket.shapes.len()
    );
    for ((input, shape), value) in graph.inputs.iter().zip(&bucket.shapes).zip(&bucket.values) {
        TensorType::new(input.dtype, shape.clone()).map_err(|error| error.within(&input.name))?;
        if let Some(dims) = &input.dims {
            let fits = dims.len() == shape.len()
                && dims.iter().zip(shape).all(|(dim, extent)| dim.is_none_or(|dim| dim == *extent));
            ensure!(
                fits,
                ShapeMismatch,
                "input '{}' is declared as {}, not {shape:?}",
                input.name,
                describe_dims(input)
            );
        }
        if let Some(value) = value {
            let fits = value.dtype() == input.dtype && value.shape() == shape;
            ensure!(
                fits,
                ShapeMismatch,
                "the value of input '{}' is {value:?}, not {}{shape:?}",
                input.name,
                input.dtype
            );
        }
    }
    Ok(())
}

/// The declared extents of an input, open ones by name or `?`.
pub fn describe_dims(input: &Input) -> String {
    let Some(dims) = &input.dims else { return "any shape".into() };
    let extents = dims.iter().enumerate().map(|(axis, dim)| match (dim, input.dim_names.get(axis)) {
        (Some(extent), _) => extent.to_string(),
        (None, Some(Some(name))) => name.clone(),
        _ => "?".into(),
    });
    format!("[{}]", extents.collect::<Vec<_>>().join(", "))
}

/// Per model input, whether its *values* decide shapes or branches, so that they belong to a bucket's key. Found by walking
/// back from every operand that must be known while planning; `Shape` and `Size` end the walk, for they need no values.
pub fn shape_inputs(graph: &Graph) -> Vec<bool> {
    let mut producers = vec![None; graph.names.len()];
    let mut pending = Vec::new();
    let mut graphs = vec![graph];
    while let Some(body) = graphs.pop() {
        for node in &body.nodes {
            for output in node.outputs.iter().flatten() {
                producers[output.0 as usize] = Some(node);
            }
            let operands = ops::shape_operands(node).iter();
            pending.extend(operands.filter_map(|&operand| node.inputs.get(operand).copied().flatten()));
            graphs.extend(subgraphs(node));
        }
    }
    let mut needed = HashSet::new();
    while let Some(value) = pending.pop() {
        if !needed.insert(value) {
            continue;
        }
        let Some(node) = producers[value.0 as usize] else { continue };
        if !matches!(node.op.as_str(), "Shape" | "Size") {
            pending.extend(node.inputs.iter().flatten());
            pending.extend(subgraphs(node).flat_map(|body| body.outputs.iter().map(|output| output.value)));
        }
    }
    let small = |input: &Input| {
        let dims = input.dims.as_deref().unwrap_or(&[]);
        let fits = dims.iter().all(|dim| dim.is_none_or(|extent| extent <= SHAPE_INPUT_ELEMENTS_MAX));
        !input.dtype.is_float() && dims.len() <= 1 && fits
    };
    // Scales, depths and bounds of ranges may be floats; a float input that feeds nothing else is a shape input as well.
    let floats = |input: &Input| input.dtype.is_float() && input.dims.as_ref().is_some_and(|dims| dims.len() <= 1);
    let only_shapes = |input: &Input| {
        consumers(graph, input.value).all(|node| {
            let mut uses = (0..node.inputs.len()).filter(|&index| node.inputs[index] == Some(input.value));
            uses.all(|index| ops::shape_operands(node).contains(&index))
        })
    };
    graph
        .inputs
        .iter()
        .map(|input| needed.contains(&input.value) && (small(input) || floats(input) && only_shapes(input)))
        .collect()
}

fn consumers(graph: &Graph, value: ValueId) -> impl Iterator<Item = &Node> {
    graph.nodes.iter().filter(move |node| node.inputs.contains(&Some(value)))
}

fn subgraphs(node: &Node) -> impl Iterator<Item = &Graph> {
    node.attributes.values().filter_map(|attribute| match attribute {
        Attribute::Graph(graph) => Some(&**graph),
        _ => None,
    })
}

struct Walk<'a> {
    names: &'a [String],
    values: Vec<Option<View>>,
    builder: Builder,
    opset: i64,
    opset_ml: i64,
}

impl Walk<'_> {
    fn inputs(&mut self, inputs: &[Input]) -> Result<()> {
        for (index, input) in inputs.iter().enumerate() {
            self.builder.node.clone_from(&input.name);
            let ty = TensorType::new(input.dtype, self.builder.plan.bucket.shapes[index].clone())?;
            let view = self.builder.tensor(ty, Origin::Input(index));
            self.builder.plan.inputs.push(view.tensor);
            let value = self.builder.plan.bucket.values[index].clone();
            self.values[input.value.0 as usize] = Some(value.map_or(view, |value| self.builder.constant(value)));
        }
        Ok(())
    }

    fn body(&mut self, graph: &Graph, depth: usize) -> Result<()> {
        ensure!(depth <= SUBGRAPH_DEPTH_MAX, TooLarge, "subgraphs nest deeper than {SUBGRAPH_DEPTH_MAX}");
        for initializer in &graph.initializers {
            self.builder.node.clone_from(&self.names[initializer.value.0 as usize]);
            let view = self.builder.initializer(initializer.tensor.clone());
            self.values[initializer.value.0 as usize] = Some(view);
        }
        for node in &graph.nodes {
            let opset = if node.domain == "ai.onnx.ml" { self.opset_ml } else { self.opset };
            let site = || {
                format!(
                    "node '{}' ({}{}{}, opset {opset})",
                    node.name,
                    node.domain,
                    if node.domain.is_empty() { "" } else { "." },
                    node.op
                )
            };
            let outputs = self.node(node, opset, depth).map_err(|error| error.within(site()))?;
            for (index, output) in node.outputs.iter().enumerate() {
                let Some(output) = output else { continue };
                let view = outputs
                    .get(index)
                    .ok_or_else(|| fail!(Unsupported, "output {index} is not supported").within(site()))?;
                self.values[output.0 as usize] = Some(view.clone());
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, opset: i64, depth: usize) -> Result<Vec<View>> {
        self.builder.node.clone_from(&node.name);
        if node.domain.is_empty() && node.op == "If" {
            return self.branch(node, depth);
        }
        let operator =
            ops::lookup(&node.domain, &node.op).ok_or_else(|| fail!(Unsupported, "the operator is not supported"))?;
        let inputs = node
            .inputs
            .iter()
            .map(|input| input.map(|value| self.value(value)).transpose())
            .collect::<Result<Vec<_>>>()?;
        operator.translate(&mut self.builder, &Call { node, opset, inputs })
    }

    fn value(&self, value: ValueId) -> Result<View> {
        let index = value.0 as usize;
        self.values[index]
            .clone()
            .ok_or_else(|| fail!(Malformed, "value '{}' is used before it is defined", self.names[index]))
    }

    /// `If`: the branch taken if the condition is known, else both and a choice between their results.
    fn branch(&mut self, node: &Node, depth: usize) -> Result<Vec<View>> {
        let condition =
            node.inputs.first().copied().flatten().ok_or_else(|| fail!(Malformed, "the condition is missing"))?;
        let condition = self.value(condition)?;
        ensure!(condition.count() == 1, Malformed, "the condition has shape {:?}, not one element", condition.shape);
        let condition = self.builder.reshape(&condition, &[])?;
        if let Some(known) = self.builder.value(&condition)? {
            let taken = if known.at(0).as_i64() != 0 { "then_branch" } else { "else_branch" };
            return self.branch_results(node, taken, depth);
        }
        let yes = self.branch_results(node, "then_branch", depth)?;
        let no = self.branch_results(node, "else_branch", depth)?;
        self.builder.node.clone_from(&node.name);
        let mut chosen = Vec::with_capacity(yes.len());
        for (index, (yes, no)) in yes.iter().zip(&no).enumerate() {
            let same = self.builder.plan.view_type(yes) == self.builder.plan.view_type(no);
            ensure!(
                same,
                UnsupportedDynamic,
                "the condition depends on data and output {index} is {:?} in one branch and {:?} in the other",
                yes.shape,
                no.shape
            );
            let dtype = self.builder.dtype(yes);
            let body = vec![Instr::Input(0), Instr::Input(1), Instr::Input(2), Instr::Select(0, 1, 2)];
            chosen.push(self.builder.map(&[&condition, yes, no], body, dtype)?);
        }
        Ok(chosen)
    }

    fn branch_results(&mut self, node: &Node, name: &str, depth: usize) -> Result<Vec<View>> {
        let Some(Attribute::Graph(body)) = node.attributes.get(name) else {
            return Err(fail!(Malformed, "attribute '{name}' is missing"));
        };
        self.body(body, depth + 1)?;
        body.outputs.iter().map(|output| self.value(output.value)).collect()
    }

    /// Every output becomes a dense tensor of its own that steps write.
    fn outputs(&mut self, graph: &Graph) -> Result<()> {
        let mut taken: HashSet<TensorId> = HashSet::new();
        for output in &graph.outputs {
            let mut view = self.value(output.value)?;
            let def = self.builder.plan.tensor(view.tensor);
            let whole = view.is_dense() && view.count() == def.ty.count() && view.shape == def.ty.shape;
            if !(whole && matches!(def.origin, Origin::Steps) && taken.insert(view.tensor)) {
                self.builder.node.clone_from(&output.name);
                view = self.builder.store(&view)?;
                taken.insert(view.tensor);
            }
            self.builder.plan.tensors[view.tensor.0 as usize].name.clone_from(&output.name);
            self.builder.plan.outputs.push(view.tensor);
        }
        Ok(())
    }
}

impl Builder {
    /// A dense copy of a view made by a step, even where the view is constant.
    fn store(&mut self, view: &View) -> Result<View> {
        let ty = self.plan.view_type(view);
        let copy = Map { inputs: vec![ty.dtype], body: vec![Instr::Input(0)], output: ty.dtype };
        let stored = self.tensor(ty, Origin::Steps);
        let step = super::Step {
            kernel: copy.into(),
            inputs: vec![view.clone()],
            outputs: vec![stored.clone()],
            node: self.node.clone(),
        };
        self.plan.steps.push(step);
        Ok(stored)
    }
}
