//! ONNX bytes to [`Graph`].
//!
//! A file is opened safely and read into owned memory (`file`); its protobuf is walked against the budgets before
//! anything is decoded (`scan`, `budget`); then graphs are decoded node by node (`proto`, `attribute`, `constant`,
//! `signature`), names become values (`scope`), model-local functions are inlined (`function`, `body`), and nodes are
//! put in order and dropped if no output needs them (`order`). Nothing recurses but into subgraphs, whose depth is
//! bounded by [`crate::limits::SUBGRAPH_DEPTH_MAX`]. Weights stay slices of the file.

mod attribute;
mod body;
mod budget;
mod constant;
mod file;
mod function;
mod order;
mod proto;
mod scan;
mod scope;
mod signature;

use crate::error::{Error, Result, ensure, fail};
use crate::ir::Graph;
use crate::limits::{MODEL_FILE_BYTES_MAX, OPSET_MAX, OPSET_MIN};
use body::{Importer, Surroundings};
use budget::Budget;
use bytes::Bytes;
use file::Directory;
use function::{Functions, is_default};
use proto::{OperatorSet, decode};
use scope::Scopes;
use std::path::Path;

/// What a caller can choose when a model is imported.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Names of initializers that are declared as inputs, too, and that the caller will supply. All others are
    /// constants.
    pub overridable: Vec<String>,
}

/// Imports the model file at `path`. External data is read from its directory only.
///
/// # Errors
/// `NotFound`, `Io`, `ForbiddenPath` (the model or its external data is not a plain file, or leads outside),
/// `Malformed`, `Unsupported`, `TooLarge`, `OutOfMemory`; `InvalidArgument` for an overridable name that is no input.
pub fn load(path: &Path, options: &ImportOptions) -> Result<Graph> {
    let bytes = file::read_model(path)?;
    import(bytes, Some(Directory::of_model(path)), options, None).map(|(graph, _)| graph)
}

/// Imports the model file at `path` to look at it: attributes and constants that are not supported are left out of the
/// graph and listed, where [`load`] would fail with the first of them.
///
/// # Errors
/// Those of [`load`]; `Unsupported` for the opset, an input, an output or a function.
pub fn survey(path: &Path, options: &ImportOptions) -> Result<(Graph, Vec<Error>)> {
    import(file::read_model(path)?, Some(Directory::of_model(path)), options, Some(Vec::new()))
}

/// Imports a model from memory, which can have no external data.
///
/// # Errors
/// Those of [`load`].
pub fn load_bytes(bytes: Bytes, options: &ImportOptions) -> Result<Graph> {
    ensure!(!bytes.is_empty(), Malformed, "the model is empty");
    ensure!(bytes.len() as u64 <= MODEL_FILE_BYTES_MAX, TooLarge, "the model is larger than a protobuf message can be");
    import(bytes, None, options, None).map(|(graph, _)| graph)
}

fn import(
    bytes: Bytes,
    directory: Option<Directory>,
    options: &ImportOptions,
    survey: Option<Vec<Error>>,
) -> Result<(Graph, Vec<Error>)> {
    let mut budget = Budget::new(bytes.len());
    budget.charge(scan::scan(&bytes)?)?;
    let model: proto::Model = decode(&bytes, "the model")?;
    let Some(graph) = model.graph else { return Err(fail!(Malformed, "the file has no graph: is it an ONNX model?")) };
    let opset = version(&model.opset_import, is_default)?.unwrap_or(1);
    ensure!(
        (OPSET_MIN..=OPSET_MAX).contains(&opset),
        Unsupported,
        "the model is written for opset {opset}; opsets {OPSET_MIN} to {OPSET_MAX} are supported"
    );
    let opset_ml = version(&model.opset_import, |domain| domain == "ai.onnx.ml")?.unwrap_or(0);
    let functions = Functions::new(&model.functions)?;
    let mut importer = Importer { budget, scopes: Scopes::default(), functions, directory, opset, opset_ml, survey };
    let body = importer.body(&graph, &Surroundings::default(), &options.overridable)?;
    Ok((Graph { names: importer.scopes.values, ..body.graph }, importer.survey.unwrap_or_default()))
}

/// The version of an operator set that a model imports.
fn version(imports: &[OperatorSet], is_wanted: impl Fn(&str) -> bool) -> Result<Option<i64>> {
    let mut versions = imports.iter().filter(|import| is_wanted(&import.domain)).map(|import| import.version);
    let first = versions.next();
    if let (Some(first), Some(second)) = (first, versions.find(|&version| Some(version) != first)) {
        return Err(fail!(Malformed, "the model imports an operator set twice, as versions {first} and {second}"));
    }
    Ok(first)
}
