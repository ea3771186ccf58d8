//! Which launches one worker does alone, and where the workers must meet.

use super::{Launch, Operand, Region};
use std::ops::Range;

/// Scalar operations below which sharing a launch costs more than it gains.
const ALONE_WORK_MAX: u64 = 4096;

/// What a launch does with a stretch of memory.
struct Access {
    region: Region,
    bytes: Range<usize>,
    writes: bool,
    alone: bool,
}

impl Access {
    fn new(operand: &Operand, writes: bool, alone: bool) -> Self {
        Access { region: operand.region, bytes: operand.extent(), writes, alone }
    }

    fn conflicts(&self, later: &Access) -> bool {
        // What one worker does alone is in order without meeting.
        let ordered = self.alone && later.alone;
        let overlaps = self.bytes.start < later.bytes.end && later.bytes.start < self.bytes.end;
        !ordered && (self.writes || later.writes) && self.region == later.region && overlaps
    }
}

/// Whether a launch of so many scalar operations is left to one worker.
pub fn alone(work: u64) -> bool {
    work < ALONE_WORK_MAX
}

/// Puts a barrier before every launch that depends on one since the last barrier.
pub fn place_barriers(launches: &mut [Launch]) {
    let mut since: Vec<Access> = Vec::new();
    for launch in launches {
        let reads = launch.inputs.iter().filter(|operand| !matches!(operand.region, Region::Constant(_)));
        let mut accesses: Vec<Access> = reads.map(|operand| Access::new(operand, false, launch.alone)).collect();
        accesses.extend(launch.outputs.iter().map(|operand| Access::new(operand, true, launch.alone)));
        launch.barrier = since.iter().any(|earlier| accesses.iter().any(|later| earlier.conflicts(later)));
        if launch.barrier {
            since.clear();
        }
        since.append(&mut accesses);
    }
}
