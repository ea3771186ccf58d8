//! `bench`: latency and throughput.

use crate::args::{Bench, Disturbance, Made, Mode, Neighbour};
use crate::arrays::Arrays;
use crate::beside::Beside;
use crate::feed::Feed;
use crate::load::{Gate, Lane, Schedule, Tally, measure};
use crate::target::{Loaded, Share, note, open};
use serde_json::{Map, Value, json};
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streaminfer::error::{Error, Result, Status};
use streaminfer::runtime::{DeviceKind, Engine, ImageInfo, Precision, Stats};

/// Warming up ends after this time, or so many requests a context.
const WARM_UP_TIME: Duration = Duration::from_millis(300);
const WARM_UP_REQUESTS: u64 = 50;

pub fn bench(args: &Bench) -> Result<()> {
    let engine = open(&args.target, args.permits.into())?;
    let gate = (args.permits > 0).then(|| Arc::new(Gate::new(args.permits.into())));
    let loaded = load(args, &engine, own_share(args))?;
    note(&engine);
    let shared = (args.mode == Mode::Shared).then(|| loaded.context().map(Mutex::new)).transpose()?;
    let lane = |_| {
        Ok(match (args.mode, &shared) {
            (Mode::Shared, Some(context)) => Lane::Shared(context),
            (Mode::PerRequest, _) => Lane::PerRequest(&loaded),
            _ => Lane::Bound {
                context: Box::new(loaded.context()?),
                is_gpu: loaded.engine.device().kind == DeviceKind::Cuda,
            },
        })
    };
    let mut lanes = (0..args.contexts).map(lane).collect::<Result<Vec<_>>>()?;
    let stats = memory(args, &loaded)?;
    let mut beside = Company::start(args, &loaded, gate.as_ref())?;

    let requests = WARM_UP_REQUESTS * u64::from(args.contexts);
    let gate = gate.as_deref();
    let warm = measure(&mut lanes, &Schedule::new(Some(WARM_UP_TIME), Some(requests), None, 0), gate)?;
    // What cannot be done once will not get better.
    if let (0, Some(error)) = (warm.latencies.len(), warm.first_error) {
        return Err(error);
    }
    let time = if args.requests.is_some() { None } else { Some(args.duration) };
    beside.count();
    let tally = measure(&mut lanes, &Schedule::new(time, args.requests, args.rate, args.made.seed), gate)?;
    let mut report = report(args, &loaded, &stats, &tally);
    beside.end(args, &mut report)?;

    if let Some(error) = &tally.first_error {
        eprintln!("warning: {} requests failed, the first with: {error}", tally.errors);
    }
    let report = serde_json::to_string(&report).expect("maps of text become JSON");
    println!("{report}");
    if let Some(path) = &args.json {
        fs::write(path, report + "\n").map_err(|error| Error::io(Status::Io, path.display(), &error))?;
    }
    Ok(())
}

fn own_share(args: &Bench) -> Share {
    Share { multiprocessors: args.multiprocessors.into(), priority: args.priority.into() }
}

fn load(args: &Bench, engine: &Engine, share: Share) -> Result<Loaded> {
    Loaded::new(engine, &args.model, &args.target, share, |inputs| match &args.inputs {
        Some(path) => Feed::from_arrays(&mut Arrays::open(path)?, inputs),
        None => Feed::random(&args.made, inputs, None),
    })
}

/// What goes on beside the requests that are measured.
struct Company {
    neighbour: Option<(Loaded, Beside)>,
    disturbance: Option<(Disturbance, Beside)>,
}

impl Company {
    fn start(args: &Bench, measured: &Loaded, gate: Option<&Arc<Gate>>) -> Result<Company> {
        let neighbour = args.neighbour.model.as_ref().map(|path| {
            let Neighbour { shapes, ranges, contexts, priority, multiprocessors, .. } = &args.neighbour;
            let made = Made { shapes: shapes.clone(), ranges: ranges.clone(), seed: args.made.seed };
            let share = Share { multiprocessors: (*multiprocessors).into(), priority: (*priority).into() };
            let feed = |inputs: &_| Feed::random(&made, inputs, None);
            let loaded = Loaded::new(&measured.engine, path, &args.target, share, feed)
                .map_err(|error| error.within("the neighbour"))?;
            let contexts = (0..*contexts).map(|_| loaded.context()).collect::<Result<Vec<_>>>()?;
            let storm = Beside::storm(contexts, gate);
            storm.begun().map_err(|error| error.within("the neighbour"))?;
            Ok::<_, Error>((loaded, storm))
        });
        let neighbour = neighbour.transpose()?;
        let disturbance = args.disturb.map(|kind| {
            // Loaded again as a whole: the model's multiprocessors are taken.
            let (again, engine) = (args.clone(), measured.engine.clone());
            let share = Share { multiprocessors: 0, ..own_share(args) };
            let beside = Beside::disturb(kind, measured, move || load(&again, &engine, share));
            beside.begun().map(|()| (kind, beside))
        });
        Ok(Company { neighbour, disturbance: disturbance.transpose()? })
    }

    fn count(&mut self) {
        self.neighbour.iter_mut().for_each(|(_, storm)| storm.count());
        self.disturbance.iter_mut().for_each(|(_, beside)| beside.count());
    }

    /// Ends it and puts down what was done. What could not be done is an error: the figures would be those of a quiet device.
    fn end(self, args: &Bench, report: &mut Value) -> Result<()> {
        if let Some((kind, beside)) = self.disturbance {
            let (count, _, failure) = beside.end();
            if let Some(error) = failure {
                return Err(error);
            }
            report["disturb"] = json!({ "what": kind.name(), "count": count });
        }
        let Some((loaded, storm)) = self.neighbour else { return Ok(()) };
        let (requests, rate, failure) = storm.end();
        if let Some(error) = failure {
            return Err(error.within("the neighbour"));
        }
        report["neighbour"] = json!({
            "model": args.neighbour.model.as_ref().map(|path| path.display().to_string()),
            "shape": shapes(&loaded),
            "contexts": args.neighbour.contexts,
            "priority": args.neighbour.priority.name(),
            "multiprocessors": loaded.model.info().multiprocessors,
            "requests": requests,
            "rps": (rate * 10.0).round() / 10.0,
        });
        Ok(())
    }
}

/// The shapes that the model gets, by input.
fn shapes(loaded: &Loaded) -> Map<String, Value> {
    let inputs = loaded.model.inputs().iter().zip(&loaded.feed.tensors);
    inputs.map(|(input, tensor)| (input.name.clone(), json!(tensor.shape()))).collect()
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
    let submit = |quantile| (!tally.submits.is_empty()).then(|| micros(tally.submits.value_at_quantile(quantile)));
    let seconds = tally.elapsed.as_secs_f64();
    let count = tally.latencies.len();
    json!({
        "p50_us": at(0.5),
        "p90_us": at(0.9),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "max_us": micros(tally.latencies.max()),
        "submit_p50_us": submit(0.5),
        "submit_p99_us": submit(0.99),
        "rps": if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 },
        "requests": count,
        "errors": tally.errors,
        "device": loaded.engine.device().id,
        "model": args.model.display().to_string(),
        "shape": shapes(loaded),
        "precision": Precision::from(args.target.precision).name(),
        "mode": args.mode.name(),
        "contexts": args.contexts,
        "threads": args.target.threads,
        "priority": args.priority.name(),
        "multiprocessors": loaded.model.info().multiprocessors,
        "permits": args.permits,
        "neighbour": null,
        "disturb": null,
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
