//! The C ABI: one file per noun, each a thin layer over [`crate::runtime`]. `include/streaminfer.h` is generated from
//! these files and is the contract; `cargo test --test header` proves it current.
//!
//! Every fallible export runs inside [`guard`], which checks handles, catches panics and fills the caller's
//! error. Pointers arrive as the types of [`pointer`], the only place that follows them.
#![allow(non_camel_case_types)]

pub mod context;
pub mod device;
pub mod engine;
pub mod error;
pub mod event;
pub mod model;
mod pointer;
pub mod record;
pub mod tensor;
pub mod version;

mod guard;
