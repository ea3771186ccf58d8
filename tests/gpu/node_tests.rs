//! ONNX's own node tests, as tools/node_tests.py has written them: a folder a case with `model.onnx`, `input_N.npy` and
//! `output_N.npy`, and `cases.tsv`, whose lines are name, relative tolerance, absolute tolerance, and `fails` where the case is known
//! to disagree with the specification.

use crate::check;
use crate::report::{Outcome, Report};
use npyz::NpyFile;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::Instant;
use streaminfer::error::{Error, Result, Status};
use streaminfer::ir::{DType, Tensor};
use streaminfer::runtime::{Bucket, Engine, InputInfo, ModelOptions};

fn malformed(text: impl Into<String>) -> Error {
    Error::new(Status::Malformed, text.into())
}

fn dtype(text: &str) -> Option<DType> {
    Some(match text {
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "<i8" => DType::I64,
        "<i4" => DType::I32,
        "|i1" => DType::I8,
        "|u1" => DType::U8,
        "|b1" => DType::Bool,
        _ => return None,
    })
}

/// One array.
fn array(path: &Path) -> Result<Tensor> {
    let failed = |error: std::io::Error| malformed(format!("{}: {error}", path.display()));
    let file = NpyFile::new(BufReader::new(File::open(path).map_err(failed)?)).map_err(failed)?;
    let npyz::DType::Plain(text) = file.dtype() else { return Err(malformed("a structure")) };
    let dtype = dtype(&text.to_string()).ok_or_else(|| malformed(format!("an array of {text}")))?;
    if file.order() != npyz::Order::C {
        return Err(malformed("an array in column-major order"));
    }
    let shape = file.shape().iter().map(|&extent| extent as usize).collect();
    let mut data = Vec::new();
    file.into_inner().read_to_end(&mut data).map_err(failed)?;
    Tensor::new(dtype, shape, data.into())
}

/// The arrays `stem_0.npy`, `stem_1.npy`, ... of a folder.
fn arrays(folder: &Path, stem: &str) -> Result<Vec<Tensor>> {
    let paths = (0..).map(|index| folder.join(format!("{stem}_{index}.npy")));
    paths.take_while(|path| path.exists()).map(|path| array(&path)).collect()
}

fn bucket(inputs: &[InputInfo], feed: &[Tensor]) -> Bucket {
    let values = feed.iter().enumerate().filter(|(index, _)| inputs[*index].is_shape_input);
    Bucket {
        shapes: feed.iter().map(|tensor| tensor.shape().to_vec()).collect(),
        values: values.map(|(index, tensor)| (index, tensor.data().to_vec())).collect(),
    }
}

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
        return Err(malformed(text));
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
    report.close(start.elapsed().as_secs_f64(), crate::is_pending)
}
