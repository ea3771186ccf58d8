//! streaminfer: predictable neural-network inference for services.
//!
//! An ONNX file becomes a [`ir`] graph, the graph and one set of input shapes become a [`plan`], a plan is lowered
//! to a program for one device, and a context replays that program from its own ordered stream. The modules below
//! stand in that order. `ARCHITECTURE.md` has the map, the invariants and the reasons.

pub mod error;
pub mod limits;

pub mod ir;
pub mod kernels;
pub mod lower;
pub mod plan;

pub mod device;
pub mod runtime;

pub mod ffi;
