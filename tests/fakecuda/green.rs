//! Multiprocessors of the simulated device, split and given out, and the green contexts that have them.

use crate::driver::{Code, fault};
use std::collections::HashMap;

/// `CUdevResource`: what the driver needs to know later lies in the private part.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Resource {
    kind: i32,
    /// Zero for all of a device.
    split: u32,
    /// The first of the multiprocessors.
    first: u32,
    private: [u8; 84],
    multiprocessors: u32,
    rest: [u8; 44],
}

impl Resource {
    pub fn new(split: u32, first: u32, multiprocessors: u32) -> Self {
        Resource { kind: 1, split, first, private: [0; 84], multiprocessors, rest: [0; 44] }
    }
}

/// A green context: its multiprocessors, and what lives in it.
struct Green {
    device: i32,
    has: Vec<u32>,
    streams: usize,
    execs: usize,
}

#[derive(Default)]
pub struct Greens {
    splits: u32,
    /// Which multiprocessors a description names.
    descriptions: HashMap<usize, Vec<u32>>,
    /// By the handle, which is that of its context, too.
    live: HashMap<usize, Green>,
}

const INVALID_VALUE: Code = 1;
const INVALID_RESOURCE_TYPE: Code = 914;
const INVALID_RESOURCE_CONFIGURATION: Code = 915;

/// The smallest group and what groups are multiples of.
fn granularity(capability: i32, finely: bool) -> (u32, u32) {
    match capability {
        _ if finely => (2, 2),
        9.. => (8, 8),
        _ => (4, 2),
    }
}

impl Greens {
    /// Splits all multiprocessors of a device into groups of equal size: at most `most`, and what is left over.
    pub fn split(
        &mut self,
        from: &Resource,
        capability: i32,
        flags: u32,
        least: u32,
        most: Option<u32>,
    ) -> Result<(Vec<Resource>, Resource), Code> {
        if from.kind != 1 {
            return Err(INVALID_RESOURCE_TYPE);
        }
        if from.split != 0 || flags > 1 {
            return Err(INVALID_VALUE);
        }
        if least > from.multiprocessors {
            return Err(INVALID_RESOURCE_CONFIGURATION);
        }
        let (smallest, step) = granularity(capability, flags == 1);
        let size = least.max(smallest).next_multiple_of(step);
        let count = (from.multiprocessors / size).min(most.unwrap_or(u32::MAX));
        self.splits += 1;
        let group = |index| Resource::new(self.splits, from.first + index * size, size);
        let rest = Resource::new(self.splits, from.first + count * size, from.multiprocessors - count * size);
        Ok(((0..count).map(group).collect(), rest))
    }

    pub fn describe(&mut self, handle: usize, resources: &[Resource]) -> Result<(), Code> {
        if resources.is_empty() {
            return Err(INVALID_VALUE);
        }
        let mut has = Vec::new();
        for resource in resources {
            if resource.kind != 1 {
                return Err(INVALID_RESOURCE_TYPE);
            }
            has.extend(resource.first..resource.first + resource.multiprocessors);
        }
        // Groups of different splits may be the same multiprocessors: the driver takes that.
        has.sort_unstable();
        has.dedup();
        self.descriptions.insert(handle, has);
        Ok(())
    }

    /// A green context. This library gives no multiprocessor to two of them.
    pub fn create(&mut self, handle: usize, description: usize, device: i32) -> Result<(), Code> {
        let Some(has) = self.descriptions.get(&description) else { return Err(INVALID_VALUE) };
        if self.live.values().any(|other| other.has.iter().any(|one| has.contains(one))) {
            fault("a multiprocessor is given to two partitions");
        }
        self.live.insert(handle, Green { device, has: has.clone(), streams: 0, execs: 0 });
        Ok(())
    }

    /// Its device. Nothing is left in it, unless giving that back was made to fail.
    pub fn destroy(&mut self, handle: usize, is_excused: bool) -> i32 {
        let Some(green) = self.live.remove(&handle) else { fault("a green context is destroyed that is not there") };
        let (streams, execs) = (green.streams, green.execs);
        if streams + execs > 0 && !is_excused {
            fault(&format!("a green context is destroyed with {streams} streams and {execs} ready graphs in it"));
        }
        green.device
    }

    pub fn is_live(&self, handle: usize) -> bool {
        self.live.contains_key(&handle)
    }

    pub fn count(&self) -> usize {
        self.live.len()
    }

    /// A stream or ready graph comes or goes in a context, if that is a green one.
    pub fn count_stream(&mut self, context: usize, by: isize) {
        if let Some(green) = self.live.get_mut(&context) {
            green.streams = green.streams.wrapping_add_signed(by);
        }
    }

    pub fn count_exec(&mut self, context: usize, by: isize) {
        if let Some(green) = self.live.get_mut(&context) {
            green.execs = green.execs.wrapping_add_signed(by);
        }
    }
}
