//! Requests that took longer than their queueing and usual service explain, and where, as go/trace/waits.go says it.

use super::diagnose::Finding;
use super::duration::Duration;
use super::file::{Span, Trace};
use std::cmp::Reverse;

/// What a request may take beyond its queueing and its bucket's usual service time.
const SLACK_NS_MAX: i64 = 500_000;

/// The parts of a request in which time can be lost, in their order, and what to change.
const PARTS: [(&str, &str); 8] = [
    ("copying inputs", "Write in place with Pool.Do, or hand over less"),
    (
        "submitting",
        "The device had no permit left or the call was descheduled: fewer sessions over all pools, or fewer busy threads",
    ),
    (
        "waiting for the device",
        "More requests are on the device than it runs at once: fewer sessions, so that they queue by deadline",
    ),
    ("moving inputs", "Smaller inputs, or a model that takes them in a smaller type"),
    ("computing", "The device is shared or slowed: other processes, throttling, more sessions than processors"),
    ("moving outputs", "Smaller outputs: let the model reduce them"),
    (
        "waking up",
        "The goroutine was runnable and found no processor: fewer busy goroutines, garbage collections or processes on these processors",
    ),
    ("copying outputs", "Read in place with Pool.Do, or ask for fewer outputs"),
];

/// Position of the moment `woke` among [`Span::moments_ns`]: a request that has not come so far tells nothing.
const WOKE: usize = 6;

impl Span {
    /// How long each part took. Inputs that were copied while the request was still queueing took none of its time.
    fn parts_ns(&self) -> [i64; PARTS.len()] {
        let mut moments_ns = self.moments_ns;
        moments_ns[0] = moments_ns[0].max(self.acquired_ns);
        let mut from = self.acquired_ns;
        moments_ns.map(|moment| moment.wrapping_sub(std::mem::replace(&mut from, moment)))
    }

    /// The time that neither the queue nor the bucket's usual service time explains.
    fn excess_ns(&self) -> i64 {
        self.moments_ns[PARTS.len() - 1].wrapping_sub(self.acquired_ns).wrapping_sub(self.service_ns)
    }
}

/// One finding for each part that was the cause.
pub fn waits(trace: &Trace) -> Vec<Finding> {
    let complete = trace.spans.iter();
    let complete = complete.filter(|s| s.moments_ns[WOKE] != 0 && s.service_ns != 0 && s.error.is_empty());
    let (slow, normal): (Vec<&Span>, Vec<&Span>) = complete.partition(|span| span.excess_ns() > SLACK_NS_MAX);
    let usual = medians(&normal);
    let mut caused: [Vec<&Span>; PARTS.len()] = Default::default();
    for span in &slow {
        caused[cause(span, &usual)].push(span);
    }
    let mut findings = Vec::new();
    for (part, spans) in caused.iter().enumerate() {
        // The first of the worst.
        let Some(worst) = spans.iter().min_by_key(|span| Reverse(span.excess_ns())) else { continue };
        let (name, change) = PARTS[part];
        let mut by = if worst.label.is_empty() { String::new() } else { format!(", by {}", worst.label) };
        if worst.batch != 0 {
            by += &format!(", in batch {} of {} rows", worst.batch, worst.rows);
        }
        let what = format!(
            "{} of {} recorded requests took over {} longer than queue and service time, most of it {name}; \
             the worst {} ({} of it there, usually {}){by}",
            spans.len(),
            normal.len() + slow.len(),
            Duration(SLACK_NS_MAX),
            Duration(worst.excess_ns()),
            Duration(worst.parts_ns()[part]),
            Duration(usual[part])
        );
        findings.push(Finding { is_problem: true, name: format!("slow {name}"), what, change });
    }
    findings.sort_by(|one, other| other.what.cmp(&one.what));
    findings
}

/// The part that took most beyond what is usual, the first of several.
fn cause(span: &Span, usual: &[i64; PARTS.len()]) -> usize {
    let (mut cause, mut lost) = (0, -1);
    for (part, took) in span.parts_ns().into_iter().enumerate() {
        let more = took.wrapping_sub(usual[part]);
        if more > lost {
            (cause, lost) = (part, more);
        }
    }
    cause
}

/// Of what each part takes, 0 if there are no spans.
fn medians(spans: &[&Span]) -> [i64; PARTS.len()] {
    let mut usual = [0; PARTS.len()];
    for (part, usual) in usual.iter_mut().enumerate() {
        let mut all: Vec<i64> = spans.iter().map(|span| span.parts_ns()[part]).collect();
        all.sort_unstable();
        *usual = all.get(all.len() / 2).copied().unwrap_or(0);
    }
    usual
}
