//! Every step kind at every precision on the device that `STREAMINFER_DEVICE` names, against the definitions in double precision: on
//! fresh random operands, dense and strided, with odd extents, on poisoned outputs, again and in several contexts. Needs nothing but
//! this program and a driver, so that it can be carried to a GPU; without a device to look at it says so and ends well.
//!
//!     gpu [--seed N] [--only TEXT] [--every N] [--all] [--verbose] [--node-tests FOLDER] [--models FOLDER]
//!     gpu --driver
//!
//! Writes lines of JSON and ends with status 1 if anything failed. `--all` adds the cases that take long without a GPU, `--every` leaves
//! out all but each N-th. The two folders name files to check instead: node_tests.rs and models.rs say what they hold. `--driver` compares the driver's
//! result codes with the simulated one's instead.

mod arrays;
mod cases;
mod check;
mod concurrent;
mod driver;
mod models;
mod net;
mod node_tests;
mod report;
#[path = "../wire/mod.rs"]
mod wire;

use cases::{Case, Group};
use check::Subject;
use net::{Layout, Net};
use report::{Outcome, Report};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use streaminfer::error::Result;
use streaminfer::ir::import::{self, ImportOptions};
use streaminfer::plan::{self, Bucket, Plan};
use streaminfer::runtime::{Engine, EngineOptions};

/// All step kinds; a run of everything must have met each.
const KINDS: usize = 17;

#[derive(Default)]
struct Options {
    seed: Option<u64>,
    only: String,
    /// 0 is 1.
    every: usize,
    is_all: bool,
    is_verbose: bool,
    is_driver: bool,
    node_tests: Option<PathBuf>,
    models: Option<PathBuf>,
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
                "--every" => options.every = value()?.parse().map_err(|_| "--every needs a number")?,
                "--all" => options.is_all = true,
                "--driver" => options.is_driver = true,
                "--verbose" => options.is_verbose = true,
                "--node-tests" => options.node_tests = Some(value()?.into()),
                "--models" => options.models = Some(value()?.into()),
                // As cargo passes the name of a test.
                _ if !word.starts_with('-') => options.only = word,
                _ => return Err(format!("what is {word}?")),
            }
        }
        Ok(options)
    }
}

fn plan_of(bytes: bytes::Bytes) -> Result<Plan> {
    let graph = import::load_bytes(bytes, &ImportOptions::default())?;
    let shape = |input: &streaminfer::ir::Input| input.dims.iter().flatten().map(|dim| dim.unwrap_or(1)).collect();
    let shapes: Vec<_> = graph.inputs.iter().map(shape).collect();
    let values = vec![None; shapes.len()];
    plan::plan(&graph, Bucket { shapes, values })
}

/// A case in one layout, with its answer by definition.
struct Work<'a> {
    case: &'a Case,
    layout: Layout,
    seed: u64,
}

/// What evaluating a case gives.
struct Defined<'a> {
    subject: Result<Subject<'a>>,
    kinds: Vec<&'static str>,
}

impl<'a> Work<'a> {
    fn define(&self) -> Defined<'a> {
        let Work { case, layout, seed } = *self;
        let mut net = Net::new(layout, seed ^ xxhash_rust::xxh3::xxh3_64(case.name.as_bytes()));
        (case.build)(&mut net);
        let (feed, decoy, bytes) = (net.feed(), net.feed(), net.bytes());
        let mut kinds = Vec::new();
        let expected = plan_of(bytes.clone()).and_then(|plan| {
            kinds.extend(plan.steps.iter().map(|step| step.kernel.name()));
            plan::evaluate(&plan, &feed)
        });
        let is_rounded = layout == Layout::Inner;
        let subject =
            |expected| Subject { name: &case.name, layout: layout.name(), bytes, feed, expected, decoy, is_rounded };
        Defined { subject: expected.map(subject), kinds }
    }
}

/// Evaluates all work on all CPUs, in the order of `work`.
fn define<'a>(work: &[Work<'a>]) -> Vec<Defined<'a>> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut defined: Vec<(usize, Defined<'a>)> = thread::scope(|scope| {
        let evaluate = || {
            let indices = std::iter::repeat_with(|| next.fetch_add(1, Relaxed)).take_while(|&index| index < work.len());
            indices.map(|index| (index, work[index].define())).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(evaluate)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a definition does not panic")).collect()
    });
    defined.sort_by_key(|(index, _)| *index);
    defined.into_iter().map(|(_, defined)| defined).collect()
}

/// All groups of cases; gives the number of failures.
fn step_kinds(engine: &Engine, options: &Options, seed: u64) -> usize {
    let mut kinds = BTreeSet::new();
    let mut failures = 0;
    let is_wanted = |case: &&Case| case.name.contains(&options.only) && (options.is_all || !case.is_heavy);
    for Group { name, cases } in cases::groups() {
        let (start, mut report) = (Instant::now(), Report::new(name, options.is_verbose));
        let mut work = Vec::new();
        for case in cases.iter().filter(is_wanted).step_by(options.every.max(1)) {
            work.extend(case.layouts.iter().map(|&layout| Work { case, layout, seed }));
        }
        for (work, defined) in work.iter().zip(define(&work)) {
            kinds.extend(defined.kinds);
            match defined.subject {
                Ok(subject) => check::precisions(engine)
                    .into_iter()
                    .for_each(|precision| check::check(engine, &subject, precision, &mut report)),
                Err(error) => {
                    let outcome = Outcome::Failed(format!("no definition: {error}"));
                    report.add(&work.case.name, work.layout.name(), "", outcome);
                }
            }
        }
        failures += report.close(start.elapsed().as_secs_f64());
    }
    if options.only.is_empty() && options.every < 2 && kinds.len() != KINDS {
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
    let Ok(device) = std::env::var("STREAMINFER_DEVICE") else {
        println!("gpu: STREAMINFER_DEVICE names no device, nothing to do");
        return ExitCode::SUCCESS;
    };
    let options = match Options::read() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("gpu: {text}");
            return ExitCode::from(2);
        }
    };
    if options.is_driver {
        return ExitCode::from(u8::from(driver::run(options.is_verbose) > 0));
    }
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
    let failures = match (&options.node_tests, &options.models) {
        (Some(folder), _) => node_tests::run(&engine, folder, &options.only, options.is_verbose),
        (_, Some(folder)) => models::run(&engine, folder, &options.only),
        _ => step_kinds(&engine, &options, seed) + concurrent::run(&engine, seed, options.is_verbose),
    };
    for image in engine.images() {
        let (family, load_ms) = (image.family, image.load_ns / 1_000_000);
        println!("{}", serde_json::json!({ "image": family, "is_compiled": image.is_compiled, "load_ms": load_ms }));
    }
    drop(engine);
    println!("{}", serde_json::json!({ "group": "all", "failed": failures }));
    ExitCode::from(u8::from(failures > 0))
}
