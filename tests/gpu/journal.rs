//! Which checks are done, so that a run that was cut short can go on, and how far this run is.

use crate::options::Options;
use serde_json::json;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// A line a check.
fn key(name: &str, layout: &str, precision: &str) -> String {
    format!("{name}\t{layout}\t{precision}")
}

#[derive(Default)]
pub struct Journal {
    done: HashSet<String>,
    file: Option<File>,
    /// Checks begun in this run, and how many it has.
    begun: usize,
    pub planned: usize,
    pub left_out: usize,
}

impl Journal {
    /// What an earlier run has written to this file.
    pub fn open(path: Option<&Path>) -> std::io::Result<Journal> {
        let Some(path) = path else { return Ok(Journal::default()) };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let done = fs::read_to_string(path)?.lines().map(str::to_owned).collect();
        Ok(Journal { done, file: Some(file), ..Journal::default() })
    }

    pub fn has(&self, name: &str, layout: &str, precision: &str) -> bool {
        self.done.contains(&key(name, layout, precision))
    }

    /// A check is about to begin; not if the time is up.
    pub fn begin(&mut self, options: &Options, name: &str, layout: &str, precision: &str) -> bool {
        if options.is_late() {
            self.left_out += 1;
            return false;
        }
        self.begun += 1;
        if options.is_progress {
            let (number, of) = (self.begun, self.planned);
            println!("{}", json!({ "at": name, "layout": layout, "precision": precision, "number": number, "of": of }));
        }
        true
    }

    /// It has not failed.
    pub fn end(&mut self, name: &str, layout: &str, precision: &str) {
        let key = key(name, layout, precision);
        if let Some(file) = &mut self.file {
            writeln!(file, "{key}").expect("the list of checks that are done");
        }
        self.done.insert(key);
    }
}
