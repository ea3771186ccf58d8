//! ONNX's own node tests, as tools/node_tests.py has written them: a folder a case with `model.onnx`, `input_N.npy` and
//! `output_N.npy`, and `cases.tsv`, whose lines are name, relative tolerance, absolute tolerance, and `fails` where the case is known
//! to disagree with the specification.

use crate::arrays::{arrays, bucket};
use crate::check;
use crate::report::{Outcome, Report};
use std::fs;
use std::path::Path;
use std::time::Instant;
use streaminfer::error::{Error, Result, Status};
use streaminfer::ir::Tensor;
use streaminfer::runtime::{Engine, ModelOptions};

/// As numpy's `isclose`: `|ours - wanted| <= atol + rtol |wanted|`.
fn is_close(ours: f64, wanted: f64, rtol: f64, atol: f64) -> bool {
    ours == wanted || ours.is_nan() && wanted.is_nan() || (ours - wanted).abs() <= atol + rtol * wanted.abs()
}

/// What is wrong with a result; nothing if it is right.
fn difference(ours: &Tensor, wanted: &Tensor, rtol: f64, atol: f64) -> Option<String> {
    if ours.ty() != wanted.ty() {
        return Some(format!("{:?} instead of {:?}", ours.ty(), wanted.ty()));
    }
    if !wanted.dtype().is_float() {
        return (ours != wanted).then(|| "other integers".into());
    }
    let (ours, wanted) = (ours.to_f64s(), wanted.to_f64s());
    let far = ours.iter().zip(&wanted).position(|(ours, wanted)| !is_close(*ours, *wanted, rtol, atol));
    far.map(|at| format!("element {at} is {}, not {}", ours[at], wanted[at]))
}

/// What is wrong with one case; nothing if it passes.
fn complaint(engine: &Engine, folder: &Path, rtol: f64, atol: f64) -> Result<Option<String>> {
    let (feed, wanted) = (arrays(folder, "input")?, arrays(folder, "output")?);
    let mut misfit = None;
    let model = engine.load_for(folder.join("model.onnx"), &ModelOptions::default(), |inputs| {
        if inputs.len() != feed.len() {
            misfit = Some(format!("{} inputs, and {} arrays", inputs.len(), feed.len()));
            return Ok(Vec::new());
        }
        Ok(vec![bucket(inputs, &feed)])
    });
    if let Some(text) = misfit {
        return Err(Error::new(Status::Malformed, text));
    }
    let mut context = check::prepared(&model?)?;
    let ours = check::answer(&mut context, &feed, wanted.len())?;
    let mut differences = ours.iter().zip(&wanted).map(|(ours, wanted)| difference(ours, wanted, rtol, atol));
    Ok(differences.find_map(|difference| difference))
}

/// All cases of a folder; gives the number of failures.
pub fn run(engine: &Engine, folder: &Path, only: &str, is_verbose: bool) -> usize {
    let (start, mut report) = (Instant::now(), Report::new("node tests", is_verbose));
    let table = fs::read_to_string(folder.join("cases.tsv")).unwrap_or_default();
    let mut count = 0;
    for line in table.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        let (name, number) = (words[0], |index: usize| words[index].parse::<f64>().expect("a tolerance"));
        if !name.contains(only) {
            continue;
        }
        count += 1;
        let is_known = words.get(3) == Some(&"fails");
        let outcome = match complaint(engine, &folder.join(name), number(1), number(2)) {
            Ok(None) if is_known => Outcome::Failed("passes, although it is known to fail".into()),
            Ok(None) => Outcome::Passed,
            Ok(Some(_)) if is_known => Outcome::Passed,
            Ok(Some(text)) => Outcome::Failed(text),
            Err(error) if error.status == Status::Unsupported => Outcome::Refused(error.message),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        report.add(name, "", "fp32", outcome);
    }
    if count == 0 {
        report.add("", "", "", Outcome::Failed(format!("{} has no cases", folder.display())));
    }
    report.close(start.elapsed().as_secs_f64())
}
