//! The CPU: memory, threads and fast kernels.

mod kernel;
mod map;
mod number;
mod pool;
mod program;
mod recurrent;
mod resize;
mod scan;
mod scatter;
pub mod simd;
#[cfg(test)]
mod testing;
mod topk;
mod weights;

pub use kernel::{Share, Span, Task};
pub use map::RowMap;
pub use program::{LaneMemory, LoadedProgram, Replay};
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
