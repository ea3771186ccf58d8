//! Models made to kill: each is refused with a status and a sentence, in time and within the memory that a file of its
//! size may cost. ONNX Runtime and tract died on several of these.

mod files;
mod peak;
mod planning;
mod structure;
mod tensors;
#[path = "../wire/mod.rs"]
mod wire;

use bytes::Bytes;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use streaminfer::error::{Error, Status};
use streaminfer::ir::{Graph, import};
use streaminfer::plan::{self, Bucket};

#[global_allocator]
static ALLOCATOR: peak::Counting = peak::Counting;

/// Memory that refusing a model may take at any one time, the file included.
const PEAK_BASE_BYTES: usize = 64 << 20;
const PEAK_PER_FILE_BYTE: usize = 4;
/// Time that it may take in an optimised build.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Where a hostile model is.
enum Model {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

/// A hostile model and how it must be refused.
struct Case {
    name: &'static str,
    model: Model,
    status: Status,
    /// What the sentence must say.
    says: &'static str,
}

/// A case from memory.
fn case(name: &'static str, model: impl AsRef<[u8]>, status: Status, says: &'static str) -> Case {
    Case { name, model: Model::Bytes(model.as_ref().to_vec()), status, says }
}

/// Imports a model and plans it for its declared shapes, open dimensions taken as 1.
fn load(model: &Model) -> Result<(), Error> {
    let graph = match model {
        Model::Bytes(bytes) => import::load_bytes(Bytes::copy_from_slice(bytes), &Default::default())?,
        Model::Path(path) => import::load(path, &Default::default())?,
    };
    plan::plan(&graph, bucket(&graph)).map(drop)
}

fn bucket(graph: &Graph) -> Bucket {
    let shape = |dims: &Option<Vec<Option<usize>>>| dims.iter().flatten().map(|dim| dim.unwrap_or(1)).collect();
    Bucket {
        shapes: graph.inputs.iter().map(|input| shape(&input.dims)).collect(),
        values: vec![None; graph.inputs.len()],
    }
}

/// What is wrong with how a case is refused.
fn verdict(case: &Case) -> Option<String> {
    let file_bytes = match &case.model {
        Model::Bytes(bytes) => bytes.len(),
        Model::Path(_) => 0,
    };
    let start = Instant::now();
    let (result, peak) = peak::peak_of(|| load(&case.model));
    let (time, peak_max) = (start.elapsed(), PEAK_BASE_BYTES + PEAK_PER_FILE_BYTE * file_bytes);
    let Err(error) = result else { return Some("it was accepted".into()) };
    if error.status != case.status || !error.message.contains(case.says) {
        return Some(format!("expected {:?} '{}', got {error}", case.status, case.says));
    }
    if peak > peak_max {
        return Some(format!("{peak} bytes at once for a file of {file_bytes}, {error}"));
    }
    if time > TIME_MAX && !cfg!(debug_assertions) {
        return Some(format!("it took {time:?}, {error}"));
    }
    None
}

/// One test, for the allocator counts what all threads do.
#[test]
fn hostile_models_are_refused_in_bounds() {
    let folder = files::Folder::new();
    let groups = [structure::cases(), tensors::cases(), planning::cases(), files::cases(&folder)];
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in groups.into_iter().flatten() {
        count += 1;
        wrong.extend(verdict(&case).map(|what| format!("{}: {what}", case.name)));
    }
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 60, "only {count} cases");

    // The detector detects: an honest model is not refused, and a model is not imported for free.
    let honest = case("honest", wire::with_nodes([wire::node("Relu", &["x"], &["y"])]), Status::Ok, "");
    assert_eq!(verdict(&honest).as_deref(), Some("it was accepted"));
    assert!(peak::peak_of(|| load(&honest.model)).1 > 100);
}
