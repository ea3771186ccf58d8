//! Many contexts at once: each answers as it does alone, to the bit. Then two models on multiprocessors of their own.

use crate::check::{answer, precisions, prepared};
use crate::net::{Layout, Net};
use crate::options::{CONCURRENT, Options};
use crate::report::{Outcome, Report};
use std::thread;
use std::time::Instant;
use streaminfer::error::Result;
use streaminfer::error::Status;
use streaminfer::ir::Tensor;
use streaminfer::runtime::{ContextOptions, Engine, Model, ModelOptions, Precision, Priority};

const THREADS: usize = 8;
const ROUNDS: usize = 25;

/// Products of which the first splits its sums, attention-like rows in between, a sum over rows at the end.
fn net(seed: u64) -> Net {
    let mut net = Net::new(Layout::Dense, seed);
    let x = net.floats(&[5, 2050]);
    let (wide, narrow) = (net.weight(&[2050, 96], 0.02), net.weight(&[96, 41], 0.1));
    let hidden = net.op("MatMul", &[&x, &wide], []);
    let hidden = net.op("Gelu", &[&hidden], []);
    let scores = net.op("Softmax", &[&hidden], []);
    let mixed = net.op("Add", &[&scores, &hidden], []);
    let y = net.op("MatMul", &[&mixed, &narrow], []);
    net.result(&y);
    net
}

/// Eight contexts of a model on so many multiprocessors, 0 for all; what was wrong. Rounds end early when the time is up.
fn contexts(
    engine: &Engine,
    options: &Options,
    precision: Precision,
    seed: u64,
    multiprocessors: usize,
) -> Result<Vec<String>> {
    let is_late = || options.is_late();
    let mut net = net(seed);
    let options = ModelOptions { precision, multiprocessors, ..ModelOptions::default() };
    let model = engine.load_bytes(net.bytes(), &options)?;
    let feeds: Vec<Vec<Tensor>> = (0..THREADS).map(|_| net.feed()).collect();
    let mut alone = prepared(&model)?;
    let wanted = feeds.iter().map(|feed| answer(&mut alone, feed, 1)).collect::<Result<Vec<_>>>()?;
    if multiprocessors > 0 {
        let whole = engine.load_bytes(net.bytes(), &ModelOptions { precision, ..ModelOptions::default() })?;
        let reference = answer(&mut prepared(&whole)?, &feeds[0], 1)?;
        if let Some(fault) = differs(&wanted[0], &reference) {
            return Ok(vec![fault]);
        }
    }
    let work = |model: &Model, thread: usize| -> Result<Option<String>> {
        let priority = [Priority::Low, Priority::Normal, Priority::High][thread % 3];
        let mut context = model.context(&ContextOptions { priority, ..ContextOptions::default() })?;
        context.prepare()?;
        context.bind()?;
        for round in (0..ROUNDS).take_while(|_| !is_late()) {
            let which = (thread + round) % THREADS;
            if answer(&mut context, &feeds[which], 1)? != wanted[which] {
                return Ok(Some(format!("thread {thread}, round {round}: other bits")));
            }
        }
        context.unbind()?;
        Ok(None)
    };
    thread::scope(|scope| {
        let (model, work) = (&model, &work);
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(model, thread))).collect();
        let ended = threads.into_iter().map(|thread| thread.join().expect("a thread does not panic"));
        Ok(ended.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    })
}

fn outcome(ended: Result<Vec<String>>) -> Outcome {
    match ended {
        Ok(faults) if faults.is_empty() => Outcome::Passed,
        Ok(faults) => Outcome::Failed(faults.join("; ")),
        Err(error) if error.status == Status::Unsupported => Outcome::Refused(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// How far two answers in fp32 are apart, if that is too far: sums were cut into other parts.
fn differs(got: &[Tensor], wanted: &[Tensor]) -> Option<String> {
    for (got, wanted) in got.iter().zip(wanted) {
        let (got, wanted) = (got.to_f64s(), wanted.to_f64s());
        let largest = wanted.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        // What is no number is nowhere near.
        let gap = |(got, wanted): (&f64, &f64)| if got.is_nan() { f64::INFINITY } else { (got - wanted).abs() };
        let apart = got.iter().zip(&wanted).map(gap).fold(0.0, f64::max);
        if apart > largest * 1e-4 {
            return Some(format!("{apart} from the whole GPU's answers of up to {largest}"));
        }
    }
    None
}

/// Reports how a check ended; answers 1 if it was cut short, and so has proved nothing.
fn add(report: &mut Report, options: &Options, place: &str, precision: Precision, ended: Result<Vec<String>>) -> usize {
    if options.is_late() && ended.as_ref().is_ok_and(Vec::is_empty) {
        return 1;
    }
    report.add("eight contexts", place, precision.name(), outcome(ended));
    0
}

/// Two models at once, each on a third of the multiprocessors, and once more: they have been given back. Answers how many had no time.
fn partitions(engine: &Engine, options: &Options, seed: u64, report: &mut Report) -> usize {
    let third = engine.device().processors / 3;
    let mut left_out = 0;
    for round in 0..2 {
        if options.is_late() {
            left_out += 2;
            continue;
        }
        let ended: Vec<_> = thread::scope(|scope| {
            let one = |model: u64| scope.spawn(move || contexts(engine, options, Precision::Fp32, seed + model, third));
            let models: Vec<_> = [round, round + 1].map(one).into_iter().collect();
            models.into_iter().map(|model| model.join().expect("a thread does not panic")).collect()
        });
        let place = "a third of the multiprocessors";
        left_out += ended.into_iter().map(|ended| add(report, options, place, Precision::Fp32, ended)).sum::<usize>();
    }
    left_out
}

/// All precisions; gives the number of failures, and of checks for which there was no time.
pub fn run(engine: &Engine, seed: u64, options: &Options) -> (usize, usize) {
    let (start, mut report) = (Instant::now(), Report::new(CONCURRENT, options.is_verbose));
    let mut left_out = 0;
    for precision in precisions(engine) {
        if options.is_progress {
            println!("{}", serde_json::json!({ "at": "eight contexts", "precision": precision.name() }));
        }
        left_out += match options.is_late() {
            true => 1,
            false => add(&mut report, options, "dense", precision, contexts(engine, options, precision, seed, 0)),
        };
    }
    left_out += partitions(engine, options, seed, &mut report);
    (report.close(start.elapsed().as_secs_f64()), left_out)
}
