//! Engines, models, contexts, events, batchers and memories: what a host program handles. The C ABI is a thin layer over this module, and
//! Rust programs use it as it is.
//!
//! ```no_run
//! use streaminfer::runtime::{ContextOptions, Engine, EngineOptions, ModelOptions};
//! # fn main() -> streaminfer::error::Result<()> {
//! let engine = Engine::open(&EngineOptions::default())?;
//! let model = engine.load("mlp.onnx", &ModelOptions::default())?;
//! let mut context = model.context(&ContextOptions::default())?;
//! context.prepare()?;
//! context.input_mut::<f32>(0)?.fill(1.0);
//! context.run()?;
//! println!("{:?}", context.output::<f32>(0)?);
//! # Ok(())
//! # }
//! ```

mod batcher;
mod bucket;
mod claims;
mod completion;
mod context;
mod engine;
mod event;
mod ledger;
mod link;
mod memory;
mod model;
mod owner;
mod padding;
mod request;
mod seat;
mod source;
mod timer;
mod view;
mod wait;

#[doc(hidden)]
pub use crate::device::CopyEngines;
pub use crate::device::host::HostRange;
pub use crate::device::host::memory::{Pages, Plain};
pub use crate::device::{DeviceInfo, DeviceKind, DeviceState, ImageInfo, Precision, Priority, RowLayout, Stamps};
pub use batcher::{
    Axes, BatchTimings, Batcher, BatcherOptions, BatcherStats, Closing, Occupancy, Shapes, SlotId, SlotView, Totals,
};
pub use bucket::Bucket;
pub use completion::Completion;
pub use context::{Context, ContextOptions, Controller, SubmitOptions, Timings};
pub use engine::{Engine, EngineOptions, Stats, devices, gpus};
pub use event::Event;
pub use memory::{CopyOptions, Memory, MemoryInfo, MemoryKind};
pub use model::{InputInfo, Model, ModelInfo, ModelOptions, OutputInfo};
pub use padding::{Padding, PaddingKind};
pub use view::View;
pub use wait::WaitPolicy;
