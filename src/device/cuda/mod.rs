//! NVIDIA GPUs through the driver alone.
//!
//! [`gpu`] opens a GPU and knows whether it lives; [`memory`] and [`module`] hold what all engines on it share. A [`lane`] is one stream
//! with one graph per bucket: the first kernel fetches the inputs from mapped host memory, the last one puts the outputs there and stores the
//! completion, so that a request is one driver call and its end is seen by reading memory. The [`reactor`] looks on behalf of
//! those who sleep, and notices when the GPU is lost.

mod device;
mod fault;
mod gpu;
mod graph;
mod inherited;
mod lane;
mod memory;
mod module;
mod partition;
mod program;
mod reactor;
mod record;
mod registered;
mod rows;
mod sys;
mod tensor;

pub use device::CudaDevice;
pub use module::MACHINE_CODE;
pub(in crate::device) use record::MappedRecord;
