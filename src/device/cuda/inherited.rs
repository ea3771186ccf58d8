//! A lane as a forked child inherits it: it leaves the lane to the parent, whose stream may be at work and whose thread looks after it.

use super::lane::CudaLane;
use crate::device::host::process::Local;
use crate::device::{Lane, LaneMemory, Launch, Mark};
use crate::error::Result;
use std::sync::Arc;

impl Lane for Local<CudaLane> {
    fn arena_bytes(&self) -> usize {
        (**self).arena_bytes()
    }

    fn pinned_bytes(&self) -> usize {
        (**self).pinned_bytes()
    }

    fn threads(&self) -> usize {
        (**self).threads()
    }

    fn memory(&self) -> Arc<dyn LaneMemory> {
        (**self).memory()
    }

    fn input(&self, index: usize) -> Option<(*mut u8, usize)> {
        (**self).input(index)
    }

    fn output(&self, index: usize) -> (*mut u8, usize) {
        (**self).output(index)
    }

    fn input_bytes(&mut self, index: usize) -> Result<&mut [u8]> {
        (**self).input_bytes(index)
    }

    fn output_bytes(&self, index: usize) -> Result<&[u8]> {
        (**self).output_bytes(index)
    }

    fn launch(&mut self, launch: Launch, marks: &mut Vec<Mark>) -> Result<()> {
        (**self).launch(launch, marks)
    }

    fn run(&mut self, launch: Launch, marks: &mut Vec<Mark>) -> Result<()> {
        (**self).run(launch, marks)
    }

    fn settle(&self) {
        (**self).settle();
    }
}
