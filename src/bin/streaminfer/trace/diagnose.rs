//! What a trace shows, as go/trace/diagnose.go says it.

use super::copies::pageable;
use super::duration::Duration;
use super::file::{Event, Trace};
use super::waits::waits;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// One thing that is found.
pub struct Finding {
    /// Whether there is something to mend.
    pub is_problem: bool,
    /// Always the same for the same kind of finding.
    pub name: String,
    /// What happened.
    pub what: String,
    /// What to change.
    pub change: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_problem { "PROBLEM" } else { "note" };
        write!(f, "{kind}: {}: {}. {}", self.name, self.what, self.change)
    }
}

impl Finding {
    pub fn problem(name: &str, what: String, change: &'static str) -> Self {
        Finding { is_problem: true, name: name.to_owned(), what, change }
    }
}

/// A service that makes so many sessions or more and runs fewer than so many requests on each makes one per request.
const CREATED_MIN: u64 = 8;
const REQUESTS_MIN: u64 = 10;
/// What Go and the C library may have besides processors, the library's threads and bound workers.
const THREADS_OTHER: i64 = 16;

/// All findings, problems first.
pub fn diagnose(trace: &Trace) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    findings.extend(overlaps(trace));
    findings.extend(foreigners(trace));
    findings.extend(waits(trace));
    findings.extend(creates(trace));
    findings.extend(leaks(trace));
    findings.extend(pageable(trace));
    findings.extend(threads(trace));
    findings.extend(throttling(trace));
    findings.extend(migrations(trace));
    findings.sort_by_key(|finding| !finding.is_problem);
    findings
}

pub fn of<'a>(trace: &'a Trace, kind: &str) -> Vec<&'a Event> {
    trace.events.iter().filter(|event| event.kind == kind).collect()
}

pub fn count(trace: &Trace, kind: &str) -> u64 {
    trace.counts.get(kind).copied().unwrap_or(0)
}

/// The places at which events happened, the most frequent first.
pub fn places(events: &[&Event]) -> String {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for event in events {
        let place = if event.label.is_empty() { format!("thread {}", event.thread) } else { event.label.clone() };
        *counts.entry(place).or_default() += 1;
    }
    let mut counted: Vec<(String, usize)> = counts.into_iter().collect();
    counted.sort_by(|(one, ones), (other, others)| others.cmp(ones).then_with(|| one.cmp(other)));
    let has_more = counted.len() > 3;
    let mut places: Vec<String> = counted.into_iter().map(|(place, _)| place).take(3).collect();
    if has_more {
        places.push("others".to_owned());
    }
    places.join(", ")
}

fn overlaps(trace: &Trace) -> Option<Finding> {
    let events = of(trace, "overlap");
    let first = events.first()?;
    Some(Finding::problem(
        "overlapping use",
        format!(
            "{} calls found another goroutine in a call on the same session, first session {} at {} ({})",
            count(trace, "overlap"),
            first.session,
            Duration(first.at_ns),
            places(&events)
        ),
        "A session serves one goroutine at a time: give each worker its own, or lend them from a Pool",
    ))
}

fn foreigners(trace: &Trace) -> Option<Finding> {
    let events = of(trace, "foreign");
    let first = events.first()?;
    Some(Finding::problem(
        "use by a non-holder",
        format!(
            "{} calls came from somebody who did not hold the session, first session {} at {} ({}; {})",
            count(trace, "foreign"),
            first.session,
            Duration(first.at_ns),
            places(&events),
            first.note
        ),
        "Do not keep a session or its views after the function of Pool.Do or Bound.Do has returned, nor use a bound one elsewhere",
    ))
}

/// Sessions made per request.
fn creates(trace: &Trace) -> Option<Finding> {
    let (created, submitted) = (count(trace, "create"), count(trace, "submit"));
    let gone = count(trace, "close").wrapping_add(count(trace, "leaked"));
    let is_usual = created < CREATED_MIN || gone < created / 2 || submitted >= created.wrapping_mul(REQUESTS_MIN);
    (!is_usual).then(|| {
        Finding::problem(
            "sessions per request",
            format!("{created} sessions were made for {submitted} requests ({})", places(&of(trace, "create"))),
            "Making one takes memory, threads and a replay, far longer than a request: make them once, with a Pool",
        )
    })
}

fn leaks(trace: &Trace) -> Option<Finding> {
    let events = of(trace, "leaked");
    events.first()?;
    let made = [of(trace, "create"), of(trace, "create pooled")].concat();
    let made: HashMap<u64, &Event> = made.into_iter().map(|event| (event.session, event)).collect();
    let sources: Vec<&Event> = events.iter().filter_map(|event| made.get(&event.session).copied()).collect();
    let mut what = format!("{} sessions were forgotten without Close", count(trace, "leaked"));
    if !sources.is_empty() {
        what += &format!(", made at {}", places(&sources));
    }
    let change = "The garbage collector does not see how much memory a session has and may come late: close each when done with it";
    Some(Finding::problem("leaked sessions", what, change))
}

fn threads(trace: &Trace) -> Option<Finding> {
    let process = &trace.process;
    let explained = [process.gomaxprocs, process.engine_threads, process.bound_workers, THREADS_OTHER];
    let most = explained.into_iter().fold(0i64, i64::wrapping_add);
    (process.threads > most).then(|| {
        Finding::problem(
            "thread explosion",
            format!(
                "the process has {} threads, where {} processors, {} of the library and {} bound workers explain {most}",
                process.threads, process.gomaxprocs, process.engine_threads, process.bound_workers
            ),
            "Goroutines that block in C or in system calls take a thread each, which Go keeps: bound them before the call",
        )
    })
}

fn throttling(trace: &Trace) -> Option<Finding> {
    let (stopped, periods) = (Duration(trace.process.throttled_ns), trace.process.throttled_periods);
    (periods != 0).then(|| {
        Finding::problem(
            "CPU throttling",
            format!("the control group's CPU quota stopped the process for {stopped} in {periods} periods"),
            "Set GOMAXPROCS, and the sessions' threads, so that together they fit the quota; or raise the quota, or drop the limit",
        )
    })
}

/// Sessions that changed threads without anything being wrong.
fn migrations(trace: &Trace) -> Option<Finding> {
    let (mut last, mut moved) = (HashMap::new(), HashSet::new());
    for event in trace.events.iter().filter(|event| event.kind == "submit" && event.thread != 0) {
        if last.insert(event.session, event.thread).is_some_and(|thread| thread != event.thread) {
            moved.insert(event.session);
        }
    }
    (!moved.is_empty()).then(|| Finding {
        is_problem: false,
        name: "sessions change threads".to_owned(),
        what: format!(
            "{} of {} sessions were used from more than one thread, one after the other",
            moved.len(),
            last.len()
        ),
        change: "That is how goroutines are. On a GPU a Bound worker saves the device's context switch, if its work is several calls",
    })
}
