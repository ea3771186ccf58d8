//! A model loaded on a device, with what is put into it.

use crate::args::Target;
use crate::feed::Feed;
use std::path::Path;
use streaminfer::error::Result;
use streaminfer::runtime::{Context, ContextOptions, Engine, EngineOptions, InputInfo, Model, ModelOptions};

/// A model loaded for one bucket.
pub struct Loaded {
    pub engine: Engine,
    pub model: Model,
    pub feed: Feed,
}

impl Loaded {
    /// Opens the device and loads the model for the bucket of what `make_feed` gives.
    pub fn new(path: &Path, target: &Target, make_feed: impl FnOnce(&[InputInfo]) -> Result<Feed>) -> Result<Self> {
        let threads = target.threads.into();
        let engine = Engine::open(&EngineOptions { device: target.device.clone(), threads, ..Default::default() })?;
        let options = ModelOptions { precision: target.precision.into(), ..Default::default() };
        let mut feed = None;
        let model = engine.load_for(path, &options, |inputs| {
            let made = make_feed(inputs)?;
            let bucket = made.bucket(inputs);
            feed = Some(made);
            Ok(vec![bucket])
        })?;
        let feed = feed.expect("a model is loaded for the buckets it was asked for");
        if let Some(error) = engine.passed_over() {
            eprintln!("note: computing on the host, because no GPU can be used: {error}");
        }
        Ok(Loaded { engine, model, feed })
    }

    /// A prepared context whose inputs are written.
    pub fn context(&self) -> Result<Context> {
        let mut context = self.model.context(&ContextOptions::default())?;
        context.prepare()?;
        self.feed.write(&mut context)?;
        Ok(context)
    }
}
