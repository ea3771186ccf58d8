//! The trace in the file: the member `streaminfer` of a Chrome trace, as go/trace/trace.go describes it.

use serde_json::{Deserializer, Map, Value};
use std::collections::HashMap;
use std::io::Read;

type Result<T> = std::result::Result<T, String>;

/// What was recorded, oldest first.
pub struct Trace {
    pub process: Process,
    /// Exact by kind, while events may have been sampled and overwritten.
    pub counts: HashMap<String, u64>,
    pub events: Vec<Event>,
    pub spans: Vec<Span>,
}

/// What the process looked like when the trace was taken.
pub struct Process {
    pub gomaxprocs: i64,
    pub threads: i64,
    pub engine_threads: i64,
    pub bound_workers: i64,
    pub throttled_ns: i64,
    pub throttled_periods: i64,
}

/// A call on a session, a batcher or a memory.
pub struct Event {
    pub kind: String,
    pub at_ns: i64,
    pub took_ns: i64,
    pub session: u64,
    pub thread: i64,
    /// Of a copy.
    pub bytes: i64,
    pub label: String,
    pub note: String,
}

/// One request through a pool or a batcher. A moment that was not reached is 0.
pub struct Span {
    pub label: String,
    pub error: String,
    /// The batch that it ran in, 0 for none, and the rows of requests there.
    pub batch: u64,
    pub rows: i64,
    pub service_ns: i64,
    pub acquired_ns: i64,
    /// The ends of the parts that `waits` knows, in their order: copied, submitted, started, inputs, computed, done, woke, ended.
    pub moments_ns: [i64; 8],
}

/// An object whose absent members are zero.
struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    fn of(value: &'a Value, what: &str) -> Result<Self> {
        value.as_object().map(Object).ok_or_else(|| format!("{what} is no object"))
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn number(&self, name: &str) -> Result<i64> {
        self.get(name).map_or(Some(0), Value::as_i64).ok_or_else(|| format!("{name} is no whole number"))
    }

    fn count(&self, name: &str) -> Result<u64> {
        self.get(name).map_or(Some(0), Value::as_u64).ok_or_else(|| format!("{name} is no count"))
    }

    fn text(&self, name: &str) -> Result<String> {
        let text = self.get(name).map_or(Some(""), Value::as_str);
        text.map(str::to_owned).ok_or_else(|| format!("{name} is no text"))
    }

    fn list<T>(&self, name: &str, read: impl Fn(Object<'a>) -> Result<T>) -> Result<Vec<T>> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let values = value.as_array().ok_or_else(|| format!("{name} is no list"))?;
        values.iter().map(|value| read(Object::of(value, name)?)).collect()
    }
}

/// Reads a trace.
pub fn read(source: impl Read) -> Result<Trace> {
    let mut values = Deserializer::from_reader(source).into_iter::<Value>();
    let file = values.next().ok_or("the file is empty")?.map_err(|error| error.to_string())?;
    let file = Object::of(&file, "the file")?;
    let trace = file.get("streaminfer").ok_or("the file was not written by package trace of streaminfer")?;
    let trace = Object::of(trace, "streaminfer")?;
    let empty = Value::Object(Map::new());
    let counts = Object::of(trace.get("counts").unwrap_or(&empty), "counts")?;
    Ok(Trace {
        process: process(&Object::of(trace.get("process").unwrap_or(&empty), "process")?)?,
        counts: counts.0.keys().map(|kind| Ok((kind.clone(), counts.count(kind)?))).collect::<Result<_>>()?,
        events: trace.list("events", event)?,
        spans: trace.list("spans", span)?,
    })
}

fn process(object: &Object<'_>) -> Result<Process> {
    Ok(Process {
        gomaxprocs: object.number("gomaxprocs")?,
        threads: object.number("threads")?,
        engine_threads: object.number("engine_threads")?,
        bound_workers: object.number("bound_workers")?,
        throttled_ns: object.number("throttled")?,
        throttled_periods: object.number("throttled_periods")?,
    })
}

fn event(object: Object<'_>) -> Result<Event> {
    Ok(Event {
        kind: object.text("kind")?,
        at_ns: object.number("at")?,
        took_ns: object.number("took")?,
        session: object.count("session")?,
        thread: object.number("thread")?,
        bytes: object.number("bytes")?,
        label: object.text("label")?,
        note: object.text("note")?,
    })
}

fn span(object: Object<'_>) -> Result<Span> {
    let mut moments_ns = [0; 8];
    let names = ["copied", "submitted", "started", "inputs", "computed", "done", "woke", "ended"];
    for (moment, name) in moments_ns.iter_mut().zip(names) {
        *moment = object.number(name)?;
    }
    Ok(Span {
        label: object.text("label")?,
        error: object.text("error")?,
        batch: object.count("batch")?,
        rows: object.number("rows")?,
        service_ns: object.number("service")?,
        acquired_ns: object.number("acquired")?,
        moments_ns,
    })
}
