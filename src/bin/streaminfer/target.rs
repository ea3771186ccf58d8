//! A model loaded on a device, with what is put into it.

use crate::args::Target;
use crate::feed::Feed;
use std::path::Path;
use streaminfer::error::Result;
use streaminfer::runtime::{Context, ContextOptions, Engine, EngineOptions, InputInfo, Model, ModelOptions, Priority};

/// What a model is given of its device.
#[derive(Clone, Copy, Default)]
pub struct Share {
    /// Multiprocessors of its own; 0: all.
    pub multiprocessors: usize,
    /// Of its contexts.
    pub priority: Priority,
}

/// A model loaded for one bucket.
pub struct Loaded {
    pub engine: Engine,
    pub model: Model,
    pub feed: Feed,
    share: Share,
}

/// Opens the device, for so many requests in flight; 0: no bound.
pub fn open(target: &Target, permits: usize) -> Result<Engine> {
    let (device, threads) = (target.device.clone(), target.threads.into());
    Engine::open(&EngineOptions { device, threads, in_flight_max: permits, ..Default::default() })
}

/// Says why a device that was not named is the host. After the model is loaded: what is wrong is said in one line.
pub fn note(engine: &Engine) {
    if let Some(error) = engine.passed_over() {
        eprintln!("note: computing on the host, because no GPU can be used: {error}");
    }
}

impl Loaded {
    /// Loads a model for the bucket of what `make_feed` gives.
    pub fn new(
        engine: &Engine,
        path: &Path,
        target: &Target,
        share: Share,
        make_feed: impl FnOnce(&[InputInfo]) -> Result<Feed>,
    ) -> Result<Self> {
        let (precision, multiprocessors) = (target.precision.into(), share.multiprocessors);
        let options = ModelOptions { precision, multiprocessors, ..Default::default() };
        let mut feed = None;
        let model = engine.load_for(path, &options, |inputs| {
            let made = make_feed(inputs)?;
            let bucket = made.bucket(inputs);
            feed = Some(made);
            Ok(vec![bucket])
        })?;
        let feed = feed.expect("a model is loaded for the buckets it was asked for");
        Ok(Loaded { engine: engine.clone(), model, feed, share })
    }

    /// A prepared context whose inputs are written.
    pub fn context(&self) -> Result<Context> {
        let priority = self.share.priority;
        // Only the bucket that is measured: others may be added meanwhile.
        let buckets = vec![self.feed.bucket(self.model.inputs())];
        let mut context = self.model.context(&ContextOptions { priority, buckets, ..Default::default() })?;
        context.prepare()?;
        self.feed.write(&mut context)?;
        Ok(context)
    }
}
