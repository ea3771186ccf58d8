//! Whole models at every precision against outputs computed beforehand or, where a case has none, by the host device: `cases.tsv` in a
//! folder has a line a case, with its model's path and the folder of `input_N.npy` and `output_N.npy`, both relative to it.
//!
//! That folder may have a `rounding.tsv`: precision, then for each output how far it moves if nothing but weights and inputs is rounded.
//! Where that is more than the tolerance, no device keeps it.

use crate::arrays::{arrays, bucket};
use crate::check::{self, answer, distance, prepared};
use crate::report::{Outcome, Report};
use std::fs;
use std::path::Path;
use std::time::Instant;
use streaminfer::error::{Result, Status};
use streaminfer::ir::Tensor;
use streaminfer::runtime::{Engine, EngineOptions, Model, ModelOptions, Precision};

/// Results that are closer than so many times the tolerance have no relative error to speak of: a detector that sees nothing gives
/// probabilities of 1e-6. At binary32 this is 2^-22.
const SATURATED: f64 = 1e4 / (1 << 22) as f64;

/// How many times further than by rounding of weights and inputs alone an output may be off: what is stored on the way is rounded, too.
const ROUNDING_FACTOR: f64 = 4.0;

/// How far rounding alone moves each output of a case; empty if that is not known.
fn rounding(folder: &Path, precision: Precision) -> Vec<f64> {
    let table = fs::read_to_string(folder.join("rounding.tsv")).unwrap_or_default();
    let rows = table.lines().filter_map(|line| line.split_once('\t'));
    let row = rows.into_iter().find(|(name, _)| *name == precision.name());
    row.map(|(_, row)| row.split('\t').filter_map(|word| word.parse().ok()).collect()).unwrap_or_default()
}

fn load(engine: &Engine, model: &Path, precision: Precision, feed: &[Tensor]) -> Result<Model> {
    let options = ModelOptions { precision, ..ModelOptions::default() };
    engine.load_for(model, &options, |inputs| Ok(vec![bucket(inputs, feed)]))
}

/// The outputs as the host device computes them.
fn by_host(model: &Path, feed: &[Tensor]) -> Result<Vec<Tensor>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let host = Engine::open(&EngineOptions { device: "host".into(), threads, ..EngineOptions::default() })?;
    let model = load(&host, model, Precision::Fp32, feed)?;
    let outputs = model.outputs().len();
    answer(&mut prepared(&model)?, feed, outputs)
}

/// The largest relative error of all outputs in words; an error says what is wrong.
fn judge(ours: &[Tensor], wanted: &[Tensor], tolerance: f64, rounding: &[f64]) -> std::result::Result<String, String> {
    let mut worst = (0.0, 0.0);
    for (index, (ours, wanted)) in ours.iter().zip(wanted).enumerate() {
        if ours.ty() != wanted.ty() || !wanted.dtype().is_float() && ours != wanted {
            return Err(format!("output {index} is {ours:?}, not {wanted:?}"));
        }
        let allowed = rounding.get(index).map_or(tolerance, |moved| tolerance.max(ROUNDING_FACTOR * moved));
        let found = distance(&ours.to_f64s(), &wanted.to_f64s()).map_err(|text| format!("output {index}: {text}"))?;
        if found.relative > worst.0 {
            worst = (found.relative, found.greatest);
        }
        if found.relative > allowed && found.greatest > SATURATED * tolerance {
            return Err(format!(
                "output {index}: relative L2 error {:.2e}, {:.2e} at most; {allowed:.2e} is allowed",
                found.relative, found.greatest
            ));
        }
    }
    Ok(format!("relative L2 error {:.1e}, {:.1e} at most", worst.0, worst.1))
}

fn attempt(
    engine: &Engine,
    model: &Path,
    precision: Precision,
    (feed, wanted): (&[Tensor], &[Tensor]),
    rounding: &[f64],
) -> Result<std::result::Result<String, String>> {
    let model = load(engine, model, precision, feed)?;
    let mut context = prepared(&model)?;
    let ours = answer(&mut context, feed, wanted.len())?;
    if answer(&mut context, feed, wanted.len())? != ours {
        return Ok(Err("other bits again".into()));
    }
    Ok(judge(&ours, wanted, precision.tolerance(), rounding))
}

/// All cases of a folder; gives the number of failures.
pub fn run(engine: &Engine, folder: &Path, only: &str) -> usize {
    let (start, mut report) = (Instant::now(), Report::new("models", false));
    let table = fs::read_to_string(folder.join("cases.tsv")).unwrap_or_default();
    let mut count = 0;
    for words in table.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|words| words[0].contains(only))
    {
        count += 1;
        let (name, model, place) = (words[0], folder.join(words[1]), folder.join(words[2]));
        let values = arrays(&place, "input").and_then(|feed| {
            let wanted = arrays(&place, "output")?;
            let wanted = if wanted.is_empty() { by_host(&model, &feed)? } else { wanted };
            Ok((feed, wanted))
        });
        let (feed, wanted) = match values {
            Ok(values) => values,
            Err(error) => {
                report.add(name, "", "", Outcome::Failed(error.to_string()));
                continue;
            }
        };
        for precision in check::precisions(engine) {
            let begun = Instant::now();
            let outcome = match attempt(engine, &model, precision, (&feed, &wanted), &rounding(&place, precision)) {
                Ok(Ok(text)) => {
                    report.note(name, precision.name(), &text, begun.elapsed().as_secs_f64());
                    Outcome::Passed
                }
                Ok(Err(text)) => Outcome::Failed(text),
                Err(error) if error.status == Status::Unsupported => Outcome::Refused(error.message),
                Err(error) => Outcome::Failed(error.to_string()),
            };
            report.add(name, "", precision.name(), outcome);
        }
    }
    if count == 0 {
        report.add("", "", "", Outcome::Failed(format!("{} has no cases", folder.display())));
    }
    report.close(start.elapsed().as_secs_f64())
}
