//! Every step kind at every precision on the device that `STREAMINFER_DEVICE` names, against the definitions in double precision: on
//! fresh random operands, dense and strided, with odd extents, on poisoned outputs, again and in several contexts. Needs nothing but
//! this program and a driver, so that it can be carried to a GPU; without a device to look at it says so and ends well.
//!
//!     gpu [--seed N] [--only TEXT] [--all] [--verbose] [--node-tests FOLDER]
//!
//! Writes lines of JSON and ends with status 1 if anything failed. `--all` adds the cases that take long without a GPU;
//! `--node-tests` checks the cases that tools/node_tests.py has written instead.

mod cases;
mod check;
mod concurrent;
mod net;
mod node_tests;
mod report;
#[path = "../wire/mod.rs"]
mod wire;

use cases::{Case, Group};
use check::Subject;
use net::Net;
use report::{Outcome, Report};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use streaminfer::error::Result;
use streaminfer::ir::import::{self, ImportOptions};
use streaminfer::plan::{self, Bucket, Plan};
use streaminfer::runtime::{Engine, EngineOptions};

/// Step kinds that the GPU has no kernel for. A refusal of another kind is a failure.
const PENDING: &[&str] = &["Conv", "ConvTranspose", "Pool", "ScatterNd", "Recurrent", "CumSum", "TopK", "Resize"];
/// All step kinds; a run of everything must have met each.
const KINDS: usize = 17;

#[derive(Default)]
struct Options {
    seed: Option<u64>,
    only: String,
    is_all: bool,
    is_verbose: bool,
    node_tests: Option<PathBuf>,
}

impl Options {
    fn read() -> std::result::Result<Options, String> {
        let mut options = Options::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--seed" => options.seed = Some(value()?.parse().map_err(|_| "--seed needs a number")?),
                "--only" => options.only = value()?,
                "--all" => options.is_all = true,
                "--verbose" => options.is_verbose = true,
                "--node-tests" => options.node_tests = Some(value()?.into()),
                _ => return Err(format!("what is {word}?")),
            }
        }
        Ok(options)
    }
}

/// Whether a refusal names a step kind that is still to come.
fn is_pending(reason: &str) -> bool {
    PENDING.iter().any(|kind| reason.contains(&format!("no kernel for {kind} yet")))
}

fn plan_of(bytes: bytes::Bytes) -> Result<Plan> {
    let graph = import::load_bytes(bytes, &ImportOptions::default())?;
    let shape = |input: &streaminfer::ir::Input| input.dims.iter().flatten().map(|dim| dim.unwrap_or(1)).collect();
    let shapes: Vec<_> = graph.inputs.iter().map(shape).collect();
    let values = vec![None; shapes.len()];
    plan::plan(&graph, Bucket { shapes, values })
}

/// One case in every layout and at every precision.
fn run(engine: &Engine, case: &Case, seed: u64, kinds: &mut BTreeSet<&'static str>, report: &mut Report) {
    for &layout in case.layouts {
        let mut net = Net::new(layout, seed ^ xxhash_rust::xxh3::xxh3_64(case.name.as_bytes()));
        (case.build)(&mut net);
        let (feed, decoy, bytes) = (net.feed(), net.feed(), net.bytes());
        let expected = plan_of(bytes.clone()).and_then(|plan| {
            kinds.extend(plan.steps.iter().map(|step| step.kernel.name()));
            plan::evaluate(&plan, &feed)
        });
        let expected = match expected {
            Ok(expected) => expected,
            Err(error) => {
                let text = format!("no definition: {error}");
                report.add(&case.name, layout.name(), "", Outcome::Failed(text));
                continue;
            }
        };
        let is_rounded = layout == net::Layout::Inner;
        let subject = Subject { name: &case.name, layout: layout.name(), bytes, feed, expected, decoy, is_rounded };
        for precision in check::precisions(engine) {
            check::check(engine, &subject, precision, report);
        }
    }
}

/// All groups of cases; gives the number of failures.
fn step_kinds(engine: &Engine, options: &Options, seed: u64) -> usize {
    let mut kinds = BTreeSet::new();
    let mut failures = 0;
    let is_wanted = |case: &Case| case.name.contains(&options.only) && (options.is_all || !case.is_heavy);
    for Group { name, cases } in cases::groups() {
        let (start, mut report) = (Instant::now(), Report::new(name, options.is_verbose));
        for case in cases.iter().filter(|case| is_wanted(case)) {
            run(engine, case, seed, &mut kinds, &mut report);
        }
        failures += report.close(start.elapsed().as_secs_f64(), is_pending);
    }
    if options.only.is_empty() && kinds.len() != KINDS {
        println!(
            "{}",
            serde_json::json!({ "group": "kinds", "failed": 1, "detail": format!("only {kinds:?} were met") })
        );
        failures += 1;
    }
    failures
}

fn main() -> ExitCode {
    check::prove_comparison();
    let options = match Options::read() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("gpu: {text}");
            return ExitCode::from(2);
        }
    };
    let Ok(device) = std::env::var("STREAMINFER_DEVICE") else {
        println!("gpu: STREAMINFER_DEVICE names no device, nothing to do");
        return ExitCode::SUCCESS;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let seed = options.seed.unwrap_or(now);
    let engine = match Engine::open(&EngineOptions { device, ..EngineOptions::default() }) {
        Ok(engine) => engine,
        Err(error) => {
            println!("{}", serde_json::json!({ "group": "open", "failed": 1, "detail": error.to_string() }));
            return ExitCode::FAILURE;
        }
    };
    let info = engine.device();
    println!("{}", serde_json::json!({ "device": info.id, "name": info.name, "seed": seed }));
    let failures = match &options.node_tests {
        Some(folder) => node_tests::run(&engine, folder, &options.only, options.is_verbose),
        None => step_kinds(&engine, &options, seed) + concurrent::run(&engine, seed, options.is_verbose),
    };
    drop(engine);
    println!("{}", serde_json::json!({ "group": "all", "failed": failures }));
    ExitCode::from(u8::from(failures > 0))
}
