//! A kernel and what its code says of launches, as a driver checks it.

use crate::driver::{Code, fault};
use streaminfer::kernels::entry::Entry;

/// Shared memory that a block gets without asking, static and dynamic together.
const SHARED_BYTES_DEFAULT: u32 = 48 << 10;

/// Shared memory that a block can have when it is asked for: the CUDA programming guide's table of compute capabilities.
pub fn shared_bytes_max((major, minor): (i32, i32)) -> u32 {
    let kilobytes = match (major, minor) {
        (8, 0) | (8, 7) => 163,
        (8, _) | (12, _) => 99,
        _ => 227,
    };
    kilobytes << 10
}

pub struct Kernel {
    pub library: usize,
    pub entry: Entry,
    /// Threads of a block at most (`.maxntid`).
    threads_max: u64,
    /// Of each block, in the kernel's own variables.
    static_bytes: u32,
    /// Dynamic shared memory that a launch may ask for.
    dynamic_bytes_max: u32,
    /// Whether the code waits for the launch before.
    pub waits: bool,
}

impl Kernel {
    /// An entry of a library with this text.
    pub fn new(library: usize, entry: Entry, text: &str) -> Kernel {
        let rest = text.split_once(&format!(".visible .entry {}(", entry.name)).map_or("", |(_, rest)| rest);
        let body = rest.split_once(".visible .entry ").map_or(rest, |(body, _)| body);
        let static_bytes = body.lines().filter_map(shared_variable_bytes).sum();
        Kernel {
            library,
            entry,
            threads_max: body.lines().find_map(threads_max).unwrap_or(1024),
            static_bytes,
            dynamic_bytes_max: SHARED_BYTES_DEFAULT.saturating_sub(static_bytes),
            waits: body.contains("griddepcontrol.wait"),
        }
    }

    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
    pub fn allow_shared(&mut self, bytes: u32, capability: (i32, i32)) -> Result<(), Code> {
        if self.static_bytes.saturating_add(bytes) > shared_bytes_max(capability) {
            return Err(1);
        }
        self.dynamic_bytes_max = bytes;
        Ok(())
    }

    pub fn check_launch(&self, grid: [u32; 3], block: [u32; 3], dynamic_bytes: u32) {
        let threads: u64 = block.iter().map(|&extent| u64::from(extent)).product();
        let fits = grid[0] < 1 << 31 && grid[1] < 1 << 16 && grid[2] < 1 << 16 && !grid.contains(&0);
        if !fits || threads == 0 || threads > self.threads_max || dynamic_bytes > self.dynamic_bytes_max {
            fault(&format!(
                "{} is launched with {grid:?} blocks of {block:?} threads and {dynamic_bytes} bytes, and may have {} threads and {} bytes \
                 beside {} of its own",
                self.entry.name, self.threads_max, self.dynamic_bytes_max, self.static_bytes
            ));
        }
    }
}

/// Of a line `.maxntid 128, 1, 1`: the product.
fn threads_max(line: &str) -> Option<u64> {
    let extents = line.trim().strip_prefix(".maxntid ")?;
    extents.split(',').map(|extent| extent.trim().parse::<u64>().ok()).product()
}

/// Of a line `.shared .align 8 .b8 name[1024];`: the bytes.
fn shared_variable_bytes(line: &str) -> Option<u32> {
    let rest = line.trim().strip_prefix(".shared ")?.strip_suffix(';')?;
    let mut words = rest.split_whitespace().rev();
    let (name, ty) = (words.next()?, words.next()?);
    let bits: u32 = ty.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
    let count = match name.split_once('[') {
        Some((_, extents)) => {
            extents.trim_end_matches(']').split("][").map(|extent| extent.parse::<u32>().ok()).product()
        }
        None => Some(1),
    };
    count.map(|count| count * bits / 8)
}
