//! Links: an input of one context that is an output of another, or of itself.

use super::request::Request;
use crate::device::{InputSource, LaneMemory, Mark};
use crate::error::{Result, ensure, fail};
use crate::ir::TensorType;
use crate::limits::LINKS_MAX;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// An input of a context that is not prepared, and what it will be.
pub struct Link {
    pub(super) input: usize,
    pub(super) output: usize,
    /// `None` is the context itself.
    pub(super) source: Option<Upstream>,
}

/// Another context whose output is read here.
pub struct Upstream {
    pub(super) request: Arc<Request>,
    pub(super) memory: Arc<dyn LaneMemory>,
    /// Per bucket of that context, the type of the output.
    pub(super) types: Vec<TensorType>,
}

impl Link {
    /// Where the input will lie.
    pub fn input_source(&self) -> InputSource {
        match &self.source {
            Some(upstream) => InputSource::Output(upstream.memory.clone(), self.output),
            None => InputSource::Own(self.output),
        }
    }
}

/// The contexts that read a context's outputs.
#[derive(Default)]
pub struct Readers {
    /// Whether there has ever been one; lets a context without readers submit without a lock.
    any: AtomicBool,
    requests: Mutex<Vec<Weak<Request>>>,
}

impl Readers {
    /// One more reader.
    pub fn add(&self, reader: &Arc<Request>) -> Result<()> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|known| known.strong_count() > 0);
        if requests.iter().any(|known| known.as_ptr() == Arc::as_ptr(reader)) {
            return Ok(());
        }
        ensure!(requests.len() < LINKS_MAX, LimitReached, "a context has at most {LINKS_MAX} contexts linked to it");
        requests.push(Arc::downgrade(reader));
        self.any.store(true, SeqCst);
        Ok(())
    }

    /// Whether there may be readers. One that is linked at this moment has nothing in flight yet.
    pub fn any(&self) -> bool {
        self.any.load(SeqCst)
    }

    /// Adds a mark behind what each reader has been given.
    pub fn mark(&self, marks: &mut Vec<Mark>) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        marks.extend(requests.iter().filter_map(Weak::upgrade).map(|reader| mark_of(&reader)));
    }
}

/// The end of what a context has been given so far.
pub fn mark_of(request: &Request) -> Mark {
    Mark { progress: request.progress().clone(), ordinal: request.ordinal() }
}

/// Checks that the upstream context ran the bucket that this one is about to run, if it ran at all.
pub fn ensure_same_bucket(upstream: &Request, bucket: usize) -> Result<()> {
    let ran = upstream.bucket();
    let fits = upstream.ordinal() == 0 || ran == bucket;
    ensure!(fits, WrongState, "the linked source ran bucket {ran}, and bucket {bucket} is selected here");
    Ok(())
}
