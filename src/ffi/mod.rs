//! The C ABI: one file per noun, each a thin layer over [`crate::runtime`]. `include/streaminfer.h` is generated from
//! these files and is the contract; `cargo test --test header` proves it current.
//!
//! Every fallible export runs inside [`guard`], which checks handles, catches panics and fills the caller's
//! error. Pointers arrive as the types of [`pointer`], the only place that follows them.
#![expect(non_camel_case_types, reason = "types have the names that C sees")]

pub mod batcher;
pub mod context;
pub mod device;
pub mod engine;
pub mod error;
pub mod event;
mod guard;
pub mod memory;
pub mod model;
mod objects;
mod pointer;
pub mod record;
mod slot;
mod table;
pub mod tensor;
pub mod version;

/// What `slot` counts with; `tests/slot_race.rs` puts loom's atomics in its place.
mod atomic {
    pub use std::sync::atomic::{AtomicU64, Ordering};
}
