//! What was found, as lines of JSON: every failure, every refusal's reason with its count, one summary a group.

use serde_json::json;
use std::collections::BTreeMap;

/// How one check ended.
pub enum Outcome {
    Passed,
    /// The device has no kernel for it; the message says for what.
    Refused(String),
    Failed(String),
}

/// The outcomes of one group of checks.
pub struct Report {
    group: &'static str,
    is_verbose: bool,
    passed: usize,
    failed: usize,
    /// Reasons, with how often each was given.
    refused: BTreeMap<String, usize>,
}

impl Report {
    pub fn new(group: &'static str, is_verbose: bool) -> Self {
        Report { group, is_verbose, passed: 0, failed: 0, refused: BTreeMap::new() }
    }

    pub fn add(&mut self, name: &str, layout: &str, precision: &str, outcome: Outcome) {
        let (word, detail) = match outcome {
            Outcome::Passed => {
                self.passed += 1;
                ("passed", String::new())
            }
            Outcome::Refused(message) => {
                // The node's name stands in front, and says nothing about the reason.
                let reason = message.rsplit(": ").next().unwrap_or(&message).to_owned();
                *self.refused.entry(reason).or_default() += 1;
                ("refused", message)
            }
            Outcome::Failed(message) => {
                self.failed += 1;
                ("failed", message)
            }
        };
        if self.is_verbose || word == "failed" {
            let group = self.group;
            println!(
                "{}",
                json!({ "group": group, "case": name, "layout": layout, "precision": precision, "outcome": word, "detail": detail })
            );
        }
    }

    /// Says how well a check has passed.
    pub fn note(&self, name: &str, precision: &str, text: &str, seconds: f64) {
        let (group, seconds) = (self.group, (seconds * 1000.0).round() / 1000.0);
        println!(
            "{}",
            json!({ "group": group, "case": name, "precision": precision, "note": text, "seconds": seconds })
        );
    }

    /// Prints the summary; gives the number of failures, refusals among them: every step kind has kernels.
    pub fn close(self, seconds: f64) -> usize {
        println!(
            "{}",
            json!({
                "group": self.group,
                "passed": self.passed,
                "failed": self.failed,
                "refused": self.refused,
                "seconds": (seconds * 100.0).round() / 100.0,
            })
        );
        self.failed + self.refused.values().sum::<usize>()
    }
}
