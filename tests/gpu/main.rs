//! Every step kind at every precision on the device that `STREAMINFER_DEVICE` names, against the definitions in double precision: on
//! fresh random operands, dense and strided, with odd extents, on poisoned outputs, again and in several contexts. Needs nothing but
//! this program and a driver, so that it can be carried to a GPU; without a device to look at it says so and ends well.
//!
//!     gpu [--seed N] [--only TEXT] [--groups A,B] [--skip-groups A,B] [--every N] [--cover N] [--all] [--list] [--verbose]
//!         [--progress] [--budget SECONDS] [--done FILE]
//!     gpu --node-tests FOLDER | --models FOLDER [--only TEXT] [--verbose]
//!     gpu --driver
//!
//! Writes lines of JSON and ends with status 1 if anything failed. `--all` adds the cases that take long without a GPU, `--every` leaves
//! out all but each N-th, `--cover` all but the cheapest checks (of all cases) by which every entry is launched N times, and says which entries
//! those were and which it has no check for; both together take what either takes. `--list` prints the checks with their entries and runs none. When `--budget` is spent,
//! what is left is counted and the status is 3 if nothing failed; with the same `--done` file a later run goes on there. The two folders name files to check
//! instead: node_tests.rs and models.rs say what they hold. `--driver` compares the driver's result codes with the simulated one's instead.

mod arrays;
mod cases;
mod check;
mod concurrent;
mod driver;
mod entries;
mod journal;
mod models;
mod net;
mod node_tests;
mod options;
mod report;
mod steps;
#[path = "../wire/mod.rs"]
mod wire;

use options::Options;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use streaminfer::runtime::{Engine, EngineOptions};

/// Nothing failed, but not all was done.
const UNFINISHED: u8 = 3;

fn main() -> ExitCode {
    check::prove_comparison();
    entries::prove_choice();
    options::prove_strictness();
    let Ok(device) = std::env::var("STREAMINFER_DEVICE") else {
        println!("gpu: STREAMINFER_DEVICE names no device, nothing to do");
        return ExitCode::SUCCESS;
    };
    let options = match Options::read(std::env::args().skip(1)) {
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
    let (failures, left_out) = match (&options.node_tests, &options.models) {
        (Some(folder), _) => (node_tests::run(&engine, folder, &options.only, options.is_verbose), 0),
        (_, Some(folder)) => (models::run(&engine, folder, &options.only), 0),
        _ => match steps::run(&engine, &options, seed) {
            Ok(ended) => ended,
            Err(text) => {
                eprintln!("gpu: {text}");
                return ExitCode::from(2);
            }
        },
    };
    let images = engine.images();
    let load_ms = |compiled: bool| -> serde_json::Map<String, serde_json::Value> {
        let images = images.iter().filter(|image| image.is_compiled == compiled);
        images.map(|image| (image.family.to_string(), (image.load_ns / 1_000_000).into())).collect()
    };
    println!("{}", serde_json::json!({ "group": "images", "compiled_ms": load_ms(true), "loaded_ms": load_ms(false) }));
    drop(engine);
    println!("{}", serde_json::json!({ "group": "all", "failed": failures, "left_out": left_out }));
    match (failures, left_out) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(UNFINISHED),
        _ => ExitCode::FAILURE,
    }
}
