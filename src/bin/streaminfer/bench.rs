//! `bench`: latency and throughput.

use crate::args::{Bench, Mode};
use crate::arrays::Arrays;
use crate::feed::Feed;
use crate::load::{Lane, Schedule, Tally, measure};
use crate::target::Loaded;
use serde_json::{Map, Value, json};
use std::fs;
use std::sync::Mutex;
use std::time::Duration;
use streaminfer::error::{Error, Result, Status};
use streaminfer::runtime::{ImageInfo, Precision, Stats};

/// Warming up ends after this time, or so many requests a context.
const WARM_UP_TIME: Duration = Duration::from_millis(300);
const WARM_UP_REQUESTS: u64 = 50;

pub fn bench(args: &Bench) -> Result<()> {
    let loaded = Loaded::new(&args.model, &args.target, |inputs| match &args.inputs {
        Some(path) => Feed::from_arrays(&mut Arrays::open(path)?, inputs),
        None => Feed::random(&args.made, inputs, None),
    })?;
    let shared = (args.mode == Mode::Shared).then(|| loaded.context().map(Mutex::new)).transpose()?;
    let lane = |_| {
        Ok(match (args.mode, &shared) {
            (Mode::Shared, Some(context)) => Lane::Shared(context),
            (Mode::PerRequest, _) => Lane::PerRequest(&loaded),
            _ => Lane::Bound(Box::new(loaded.context()?)),
        })
    };
    let mut lanes = (0..args.contexts).map(lane).collect::<Result<Vec<_>>>()?;

    let requests = WARM_UP_REQUESTS * u64::from(args.contexts);
    let warm = measure(&mut lanes, &Schedule::new(Some(WARM_UP_TIME), Some(requests), None, 0))?;
    // What cannot be done once will not get better.
    if let (0, Some(error)) = (warm.latencies.len(), warm.first_error) {
        return Err(error);
    }
    let stats = memory(args, &loaded)?;
    let time = if args.requests.is_some() { None } else { Some(args.duration) };
    let tally = measure(&mut lanes, &Schedule::new(time, args.requests, args.rate, args.made.seed))?;

    if let Some(error) = &tally.first_error {
        eprintln!("warning: {} requests failed, the first with: {error}", tally.errors);
    }
    let report = serde_json::to_string(&report(args, &loaded, &stats, &tally)).expect("maps of text become JSON");
    println!("{report}");
    if let Some(path) = &args.json {
        fs::write(path, report + "\n").map_err(|error| Error::io(Status::Io, path.display(), &error))?;
    }
    Ok(())
}

/// What lives while requests are made. With a context per request there may be none just now, so one is made.
fn memory(args: &Bench, loaded: &Loaded) -> Result<Stats> {
    if args.mode != Mode::PerRequest {
        return Ok(loaded.engine.stats());
    }
    let _context = loaded.context()?;
    let one = loaded.engine.stats();
    let contexts = u64::from(args.contexts);
    Ok(Stats { arena_bytes: one.arena_bytes * contexts, pinned_bytes: one.pinned_bytes * contexts, ..one })
}

fn report(args: &Bench, loaded: &Loaded, stats: &Stats, tally: &Tally) -> Value {
    let micros = |ns: u64| (ns as f64 / 100.0).round() / 10.0;
    let at = |quantile| micros(tally.latencies.value_at_quantile(quantile));
    let inputs = loaded.model.inputs().iter().zip(&loaded.feed.tensors);
    let shapes: Map<String, Value> =
        inputs.map(|(input, tensor)| (input.name.clone(), json!(tensor.shape()))).collect();
    let seconds = tally.elapsed.as_secs_f64();
    let count = tally.latencies.len();
    json!({
        "p50_us": at(0.5),
        "p90_us": at(0.9),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "max_us": micros(tally.latencies.max()),
        "rps": if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 },
        "requests": count,
        "errors": tally.errors,
        "device": loaded.engine.device().id,
        "model": args.model.display().to_string(),
        "shape": shapes,
        "precision": Precision::from(args.target.precision).name(),
        "mode": args.mode.name(),
        "contexts": args.contexts,
        "threads": args.target.threads,
        "weights_bytes": stats.weights_bytes,
        "arena_bytes": stats.arena_bytes,
        "pinned_bytes": stats.pinned_bytes,
        "rate_rps": args.rate,
        "images": loaded.engine.images().iter().map(image).collect::<Vec<_>>(),
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "seed": args.made.seed,
    })
}

/// How a family of kernels was loaded.
fn image(image: &ImageInfo) -> Value {
    let how = if image.is_compiled { "compiled" } else { "machine code" };
    json!({ "family": image.family, "how": how, "load_ms": image.load_ns / 1_000_000 })
}
