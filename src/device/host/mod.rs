//! The CPU: memory, threads and fast kernels.

pub mod area;
mod attention;
pub mod clock;
mod conv;
mod cursor;
mod device;
pub mod eventfd;
pub mod futex;
mod gather;
pub mod gemm;
mod kernel;
mod map;
pub mod memory;
mod norm;
pub mod numa;
mod number;
mod pool;
pub mod process;
pub mod processors;
mod program;
mod quarantine;
mod recurrent;
mod reduce;
mod resize;
mod scan;
mod scatter;
mod shared;
pub mod simd;
mod softmax;
mod stream;
mod team;
#[cfg(test)]
mod testing;
pub mod threads;
mod topk;
mod weights;

pub use device::HostDevice;
pub use kernel::{Share, Span, Task};
pub use map::RowMap;
pub use program::{LaneMemory, LoadedProgram, Replay};
pub use shared::{HostRange, check_range};
pub use weights::{WeightStore, Weights};

use crate::lower::host::{Simd, Traits};

/// What lowering may use on this machine.
pub fn traits() -> Traits {
    Traits { simd: detect_simd() }
}

#[cfg(target_arch = "x86_64")]
fn detect_simd() -> Simd {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Simd::Avx512,
        (true, false) => Simd::Avx2,
        _ => Simd::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect_simd() -> Simd {
    Simd::Portable
}
