//! Many contexts at once: each answers as it does alone, to the bit.

use crate::check::{answer, precisions, prepared};
use crate::net::{Layout, Net};
use crate::report::{Outcome, Report};
use std::thread;
use std::time::Instant;
use streaminfer::error::Result;
use streaminfer::ir::Tensor;
use streaminfer::runtime::{Engine, Model, ModelOptions, Precision};

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

fn one_precision(engine: &Engine, precision: Precision, seed: u64) -> Result<Vec<String>> {
    let mut net = net(seed);
    let options = ModelOptions { precision, ..ModelOptions::default() };
    let model = engine.load_bytes(net.bytes(), &options)?;
    let feeds: Vec<Vec<Tensor>> = (0..THREADS).map(|_| net.feed()).collect();
    let mut alone = prepared(&model)?;
    let wanted = feeds.iter().map(|feed| answer(&mut alone, feed, 1)).collect::<Result<Vec<_>>>()?;
    let work = |model: &Model, thread: usize| -> Result<Option<String>> {
        let mut context = prepared(model)?;
        context.bind()?;
        for round in 0..ROUNDS {
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

/// All precisions; gives the number of failures.
pub fn run(engine: &Engine, seed: u64, is_verbose: bool) -> usize {
    let (start, mut report) = (Instant::now(), Report::new("concurrent", is_verbose));
    for precision in precisions(engine) {
        let outcome = match one_precision(engine, precision, seed) {
            Ok(faults) if faults.is_empty() => Outcome::Passed,
            Ok(faults) => Outcome::Failed(faults.join("; ")),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        report.add("eight contexts", "dense", precision.name(), outcome);
    }
    report.close(start.elapsed().as_secs_f64())
}
