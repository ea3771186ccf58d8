//! `doctor TRACE`: what a trace that Go's package trace has written says is wrong. go/trace has the same findings in the same
//! words; a test there gives both programs the same traces.

mod copies;
mod diagnose;
mod duration;
mod file;
mod waits;

use file::Trace;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;

/// Prints the findings. Ends with 0 if there is no problem, 1 if there is, 2 if the trace cannot be read.
pub fn examine(path: &Path) -> ExitCode {
    let trace = match open(path).map_err(|error| error.to_string()).and_then(file::read) {
        Ok(trace) => trace,
        Err(error) => {
            eprintln!("error: {}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let findings = diagnose::diagnose(&trace);
    findings.iter().for_each(|finding| println!("{finding}"));
    let Trace { events, spans, .. } = &trace;
    println!("{} events and {} requests examined", events.len(), spans.len());
    ExitCode::from(u8::from(findings.iter().any(|finding| finding.is_problem)))
}

/// "-" is the standard input.
fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(BufReader::new(File::open(path)?)))
}
