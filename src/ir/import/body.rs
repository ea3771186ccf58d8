//! One graph, with its subgraphs and the functions it calls, from protobuf to [`Graph`].

use super::attribute::{Call, Value, attribute, constant_value, decode_attribute};
use super::budget::Budget;
use super::constant::{Constant, constant};
use super::file::Directory;
use super::function::{Functions, check_opset, normalise_domain};
use super::order::{Draft, prune, sort};
use super::proto::{self, decode};
use super::scope::{ScopeIndex, Scopes};
use super::signature::{declaration, input, output};
use crate::error::{Error, Result, Status, ensure, fail};
use crate::ir::{Attribute, Graph, Initializer, Input, Node, Output, ValueId};
use crate::limits::{FUNCTION_DEPTH_MAX, SUBGRAPH_DEPTH_MAX};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

/// What a node costs beside its texts, numbers and attributes: its slots while it is drafted, ordered and kept.
const NODE_BYTES: usize = 4 * size_of::<Draft>();
/// What up to [`ATTRIBUTES_PER_LEAF`] attributes cost: one leaf of a B-tree.
const LEAF_BYTES: usize = 12 * (size_of::<String>() + size_of::<Attribute>());
/// Every leaf but the first is at least half full.
const ATTRIBUTES_PER_LEAF: usize = 5;
/// What a constant costs beside its data.
const CONSTANT_BYTES: usize = 4 * size_of::<Constant>();

/// Everything that the graphs of one model share while they are imported.
pub struct Importer {
    pub budget: Budget,
    pub scopes: Scopes,
    pub functions: Functions,
    pub directory: Option<Directory>,
    pub opset: i64,
    pub opset_ml: i64,
    /// Collects what is unsupported instead of failing at the first, if a survey is asked for.
    pub survey: Option<Vec<Error>>,
}

/// What surrounds a graph.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// The scope that its names are looked up in after its own.
    pub scope: Option<ScopeIndex>,
    /// The function call that it is part of.
    call: Option<Rc<Call>>,
    /// How many graphs it lies in.
    depth: usize,
}

/// A graph and the outer values that it reads.
pub struct Body {
    pub graph: Graph,
    pub captures: Vec<ValueId>,
}

/// A graph while its nodes are collected.
#[derive(Default)]
struct Sheet {
    inputs: Vec<Input>,
    nodes: Vec<Draft>,
    constants: Vec<(ValueId, Constant)>,
}

/// A list of nodes being walked: the graph's own or, above it, that of a function that is being inlined.
struct Frame {
    nodes: std::vec::IntoIter<Bytes>,
    scope: ScopeIndex,
    call: Option<Rc<Call>>,
}

impl Importer {
    /// Imports a graph. `overridable` names initializers that stay inputs.
    pub fn body(&mut self, bytes: &Bytes, around: &Surroundings, overridable: &[String]) -> Result<Body> {
        let proto: proto::Graph = decode(bytes, "a graph")?;
        let prefix = around.scope.map_or_else(String::new, |scope| self.scopes.prefix(scope).to_owned());
        let scope = self.scopes.push(around.scope, prefix);
        let mut sheet = Sheet::default();
        let constants = self.initializers(&proto, scope, overridable, &mut sheet)?;
        self.inputs(&proto.input, scope, &constants, overridable, &mut sheet)?;
        self.nodes(proto.node, scope, around, &mut sheet)?;
        let outputs = self.outputs(&proto.output, scope)?;
        self.scopes.close(scope);
        self.finish(sheet, outputs)
    }

    /// Defines the initializers and gives their names.
    fn initializers(
        &mut self,
        proto: &proto::Graph,
        scope: ScopeIndex,
        overridable: &[String],
        sheet: &mut Sheet,
    ) -> Result<HashSet<String>> {
        let mut names = HashSet::new();
        for (index, bytes) in proto.initializer.iter().enumerate() {
            let (name, constant) = constant(bytes, &format!("initializer {index}"), &mut self.budget)?;
            ensure!(!name.is_empty(), Malformed, "initializer {index} has no name");
            if overridable.contains(&name) {
                continue;
            }
            self.budget.charge(CONSTANT_BYTES)?;
            sheet.constants.push((self.scopes.define(scope, &name, &mut self.budget)?, constant));
            names.insert(name);
        }
        for bytes in &proto.sparse_initializer {
            let sparse: proto::SparseTensor = decode(bytes, "a sparse initializer")?;
            let values: proto::Tensor = decode(&sparse.values.unwrap_or_default(), "a sparse initializer")?;
            let fault = fail!(Unsupported, "initializer '{}' is a sparse tensor, which is not supported", values.name);
            self.budget.charge(CONSTANT_BYTES)?;
            let value = self.scopes.define(scope, &values.name, &mut self.budget)?;
            sheet.constants.push((value, Constant::Unsupported(fault)));
            names.insert(values.name);
        }
        Ok(names)
    }

    /// Defines the inputs, leaving out those that IR version 3 declares for initializers.
    fn inputs(
        &mut self,
        declarations: &[Bytes],
        scope: ScopeIndex,
        constants: &HashSet<String>,
        overridable: &[String],
        sheet: &mut Sheet,
    ) -> Result<()> {
        for bytes in declarations {
            let info = declaration(bytes, "input")?;
            if !constants.contains(&info.name) {
                let value = self.scopes.define(scope, &info.name, &mut self.budget)?;
                sheet.inputs.push(input(info, value)?);
            }
        }
        for name in overridable {
            let declared = sheet.inputs.iter().any(|input| input.name == *name);
            ensure!(declared, InvalidArgument, "overridable '{name}' is not an input of the model");
        }
        Ok(())
    }

    fn outputs(&mut self, declarations: &[Bytes], scope: ScopeIndex) -> Result<Vec<Output>> {
        let mut outputs: Vec<Output> = Vec::with_capacity(declarations.len());
        let mut names = HashSet::new();
        for bytes in declarations {
            let info = declaration(bytes, "output")?;
            ensure!(names.insert(info.name.clone()), Malformed, "output '{}' is declared twice", info.name);
            let Some(Some(value)) = self.scopes.lookup(scope, &info.name) else {
                return Err(fail!(Malformed, "output '{}' is computed by no node", info.name));
            };
            outputs.push(output(info, value)?);
        }
        Ok(outputs)
    }

    /// Walks the nodes in file order; calls of functions are replaced by what they stand for, one inside the other.
    fn nodes(&mut self, nodes: Vec<Bytes>, scope: ScopeIndex, around: &Surroundings, sheet: &mut Sheet) -> Result<()> {
        self.define_results(&nodes, scope)?;
        let mut frames = vec![Frame { nodes: nodes.into_iter(), scope, call: around.call.clone() }];
        while let Some(frame) = frames.last_mut() {
            let (scope, call) = (frame.scope, frame.call.clone());
            let Some(bytes) = frame.nodes.next() else {
                frames.pop();
                if !frames.is_empty() {
                    self.scopes.close(scope);
                }
                continue;
            };
            self.budget.node()?;
            let mut node: proto::Node = decode(&bytes, "a node")?;
            normalise_domain(&mut node.domain);
            node.name = self.node_name(&node, scope, sheet.nodes.len());
            let place = Surroundings { scope: Some(scope), call, depth: around.depth };
            let described = format!("node '{}' ({})", node.name, node.op_type);
            let entered = match self.functions.get(&node) {
                None => self.node(node, &place, sheet).map(|()| None),
                Some(_) if frames.len() > FUNCTION_DEPTH_MAX => {
                    Err(fail!(TooLarge, "calls of functions nest more than {FUNCTION_DEPTH_MAX} deep"))
                }
                Some(function) => self.call(node, &function, &place, sheet).map(Some),
            };
            frames.extend(entered.map_err(|error| error.within(&described))?);
        }
        Ok(())
    }

    fn node_name(&self, node: &proto::Node, scope: ScopeIndex, index: usize) -> String {
        let prefix = self.scopes.prefix(scope);
        if node.name.is_empty() {
            format!("{prefix}{}_{index}", node.op_type)
        } else {
            format!("{prefix}{}", node.name)
        }
    }

    /// Gives every result of a list of nodes its value, so that nodes may stand in any order.
    fn define_results(&mut self, nodes: &[Bytes], scope: ScopeIndex) -> Result<()> {
        for bytes in nodes {
            let results: proto::NodeOutputs = decode(bytes, "a node")?;
            for name in results.output.iter().filter(|name| !name.is_empty()) {
                self.scopes.define(scope, name, &mut self.budget)?;
            }
        }
        Ok(())
    }

    /// Adds one node that is no call.
    fn node(&mut self, node: proto::Node, place: &Surroundings, sheet: &mut Sheet) -> Result<()> {
        let numbers = (node.input.len() + node.output.len()) * size_of::<Option<ValueId>>();
        let texts = node.name.len() + node.op_type.len() + node.domain.len();
        self.budget.charge(NODE_BYTES + numbers + texts)?;
        let inputs = self.values(&node.input, place)?;
        let outputs = self.values(&node.output, place)?;
        let mut captures = Vec::new();
        // Other operators with subgraphs are not supported, which is for the planner to say; their bodies may use more
        // of ONNX than is understood here.
        let branches = node.op_type == "If" && node.domain.is_empty();
        let (attributes, fault) = self.attributes(&node.attribute, place, branches, &mut captures)?;
        let described = format!("node '{}' ({})", node.name, node.op_type);
        if node.op_type == "Constant" && node.domain.is_empty() {
            self.budget.charge(CONSTANT_BYTES)?;
            let constant = match constant_of(attributes, fault)? {
                Constant::Unsupported(error) => Constant::Unsupported(error.within(described)),
                constant => constant,
            };
            if let [Some(value)] = outputs[..] {
                sheet.constants.push((value, constant));
            }
            return Ok(());
        }
        let fault = fault.map(|error| error.within(described));
        let node = Node { name: node.name, op: node.op_type, domain: node.domain, inputs, outputs, attributes };
        sheet.nodes.push(Draft { node, captures, fault });
        Ok(())
    }

    fn values(&self, names: &[String], place: &Surroundings) -> Result<Vec<Option<ValueId>>> {
        let scope = place.scope.expect("nodes stand in a scope");
        let value = |name: &String| {
            if name.is_empty() {
                return Ok(None);
            }
            let found = self.scopes.lookup(scope, name);
            found.ok_or_else(|| fail!(Malformed, "value '{name}' is defined by no node, input or initializer"))
        };
        names.iter().map(value).collect()
    }

    /// Decodes attributes, walking into subgraphs if there are to be any, else leaving them out. An unsupported one is a
    /// fault, which matters if the node does.
    fn attributes(
        &mut self,
        attributes: &[Bytes],
        place: &Surroundings,
        graphs: bool,
        captures: &mut Vec<ValueId>,
    ) -> Result<(BTreeMap<String, Attribute>, Option<Error>)> {
        let (mut values, mut fault) = (BTreeMap::new(), None);
        for (index, bytes) in attributes.iter().enumerate() {
            if index % ATTRIBUTES_PER_LEAF == 0 {
                self.budget.charge(LEAF_BYTES)?;
            }
            let attribute = decode_attribute(bytes)?;
            let name = attribute.name.clone();
            self.budget.charge(name.len())?;
            let open = self.scopes.depth();
            match self.attribute(attribute, place, graphs, captures) {
                Ok(Some(value)) => {
                    ensure!(
                        values.insert(name.clone(), value).is_none(),
                        Malformed,
                        "attribute '{name}' is given twice"
                    );
                }
                Ok(None) => {}
                Err(error) => {
                    let unsupported = error.status == Status::Unsupported;
                    let error = error.within(format_args!("attribute '{name}'"));
                    if !unsupported {
                        return Err(error);
                    }
                    self.scopes.close(open);
                    fault.get_or_insert(error);
                }
            }
        }
        Ok((values, fault))
    }

    fn attribute(
        &mut self,
        proto: proto::Attribute,
        place: &Surroundings,
        graphs: bool,
        captures: &mut Vec<ValueId>,
    ) -> Result<Option<Attribute>> {
        match attribute(proto, place.call.as_deref(), &mut self.directory, &mut self.budget)? {
            Value::Done(value) => Ok(Some(value)),
            Value::Absent => Ok(None),
            Value::Graph(_) if !graphs => Ok(None),
            Value::Graph(bytes) => {
                let depth = place.depth + 1;
                ensure!(depth <= SUBGRAPH_DEPTH_MAX, TooLarge, "subgraphs nest more than {SUBGRAPH_DEPTH_MAX} deep");
                let body = self.body(&bytes, &Surroundings { depth, ..place.clone() }, &[])?;
                self.budget.charge(body.captures.len() * size_of::<ValueId>())?;
                captures.extend(body.captures);
                Ok(Some(Attribute::Graph(Box::new(body.graph))))
            }
        }
    }

    /// Opens a function's body in place of the node that calls it.
    fn call(
        &mut self,
        node: proto::Node,
        function: &proto::Function,
        place: &Surroundings,
        sheet: &mut Sheet,
    ) -> Result<Frame> {
        check_opset(function, self.opset)?;
        let (given, formal) = (node.input.len(), function.input.len());
        ensure!(given <= formal, Malformed, "{given} inputs for a function that has {formal}");
        let (given, formal) = (node.output.len(), function.output.len());
        ensure!(given <= formal, Malformed, "{given} outputs of a function that has {formal}");
        let arguments = self.values(&node.input, place)?;
        let results = self.values(&node.output, place)?;
        let attributes = self.call_attributes(&node, function, place)?;

        let scope = self.scopes.push(None, format!("{}/", node.name));
        for (index, name) in function.input.iter().enumerate() {
            self.scopes.bind_input(scope, name, arguments.get(index).copied().flatten())?;
        }
        let mut bound = Vec::new();
        for (name, value) in function.output.iter().zip(results).filter_map(|(name, value)| Some((name, value?))) {
            match self.scopes.bind_output(scope, name, value)? {
                None => bound.push(name),
                Some(argument) => self.pass_through(&node.name, argument, value, sheet)?,
            }
        }
        self.budget.charge(function.node.len() * size_of::<Bytes>())?;
        self.define_results(&function.node, scope)?;
        for name in bound {
            let defined = self.scopes.is_defined(scope, name);
            ensure!(defined, Malformed, "output '{name}' of the function is computed by no node of it");
        }
        Ok(Frame { nodes: function.node.clone().into_iter(), scope, call: Some(Rc::new(Call { attributes })) })
    }

    /// The attributes that a function's body can refer to: what the node gives, else the function's defaults.
    fn call_attributes(
        &mut self,
        node: &proto::Node,
        function: &proto::Function,
        place: &Surroundings,
    ) -> Result<BTreeMap<String, Attribute>> {
        let mut captures = Vec::new();
        let (mut attributes, fault) = self.attributes(&node.attribute, place, true, &mut captures)?;
        let (defaults, default_fault) = self.attributes(&function.attribute_proto, place, true, &mut captures)?;
        if let Some(fault) = fault.or(default_fault) {
            return Err(fault);
        }
        // A subgraph would have to be read in the caller's scope wherever the body puts it.
        let graph = attributes.iter().chain(&defaults).find(|(_, value)| matches!(value, Attribute::Graph(_)));
        if let Some((name, _)) = graph {
            return Err(fail!(Unsupported, "attribute '{name}' passes a graph to a function"));
        }
        for (name, value) in defaults {
            attributes.entry(name).or_insert(value);
        }
        Ok(attributes)
    }

    /// A function may give back an argument as it is.
    fn pass_through(&mut self, name: &str, argument: Option<ValueId>, value: ValueId, sheet: &mut Sheet) -> Result<()> {
        ensure!(argument.is_some(), Malformed, "the function gives back an input that is left out");
        self.budget.charge(NODE_BYTES + name.len())?;
        let node = Node {
            name: name.to_owned(),
            op: "Identity".to_owned(),
            domain: String::new(),
            inputs: vec![argument],
            outputs: vec![Some(value)],
            attributes: BTreeMap::new(),
        };
        sheet.nodes.push(Draft { node, captures: Vec::new(), fault: None });
        Ok(())
    }

    /// Orders the nodes, drops what no output needs, and loads the constants that are left.
    fn finish(&mut self, sheet: Sheet, outputs: Vec<Output>) -> Result<Body> {
        let mut needed: HashSet<ValueId> = outputs.iter().map(|output| output.value).collect();
        let drafts = prune(sort(sheet.nodes)?, &mut needed);
        let mut graph = Graph { opset: self.opset, opset_ml: self.opset_ml, outputs, ..Graph::default() };
        let mut outer = needed.clone();
        for input in &sheet.inputs {
            outer.remove(&input.value);
        }
        graph.inputs = sheet.inputs;
        for (value, constant) in sheet.constants {
            outer.remove(&value);
            if needed.contains(&value) {
                match constant.resolve(&mut self.directory) {
                    Ok(tensor) => graph.initializers.push(Initializer { value, tensor }),
                    Err(error) => self.fault(error)?,
                }
            }
        }
        for draft in drafts {
            draft.fault.map_or(Ok(()), |fault| self.fault(fault))?;
            for value in draft.node.outputs.iter().flatten() {
                outer.remove(value);
            }
            graph.nodes.push(draft.node);
        }
        let mut captures: Vec<ValueId> = outer.into_iter().collect();
        captures.sort_unstable();
        Ok(Body { graph, captures })
    }

    /// Something that an output needs cannot be used.
    fn fault(&mut self, error: Error) -> Result<()> {
        match &mut self.survey {
            Some(faults) if error.status == Status::Unsupported => {
                faults.push(error);
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// The tensor of a `Constant` node.
fn constant_of(attributes: BTreeMap<String, Attribute>, fault: Option<Error>) -> Result<Constant> {
    if let Some(fault) = fault {
        return Ok(Constant::Unsupported(fault));
    }
    let count = attributes.len();
    let mut attributes = attributes.into_iter();
    match (attributes.next(), count) {
        (Some((name, value)), 1) => match constant_value(&name, value) {
            Ok(tensor) => Ok(Constant::Ready(tensor)),
            Err(error) if error.status == Status::Unsupported => Ok(Constant::Unsupported(error)),
            Err(error) => Err(error),
        },
        _ => Err(fail!(Malformed, "a constant has one value, not {count}")),
    }
}
