//! Copies between device memory and memory that is not page-locked, as go/trace/copies.go finds them, which says why from these bounds on.

use super::diagnose::{Finding, count, of, places};
use super::duration::Duration;
use super::file::{Event, Trace};

/// Smaller copies do not count, nor fewer, nor those that move less together.
const COPY_BYTES_MIN: i64 = 64 << 10;
const COPIES_MIN: i64 = 10;
const COPIED_BYTES_MIN: i64 = 64 << 20;

pub fn pageable(trace: &Trace) -> Option<Finding> {
    let all = of(trace, "copy pageable");
    let large: Vec<_> = all.iter().copied().filter(|event| event.bytes >= COPY_BYTES_MIN).collect();
    let sum = |value: fn(&Event) -> i64| large.iter().map(|event| value(event)).fold(0, i64::wrapping_add);
    let (bytes, took_ns) = (sum(|event| event.bytes), sum(|event| event.took_ns));
    let counted = count(trace, "copy pageable").cast_signed();
    // Each recorded copy stands for so many, rounded up.
    let recorded = (all.len() as i64).max(1);
    let each = (counted.wrapping_add(recorded - 1) / recorded).max(1);
    let is_usual = (large.len() as i64).wrapping_mul(each) < COPIES_MIN || bytes.wrapping_mul(each) < COPIED_BYTES_MIN;
    (!is_usual).then(|| {
        Finding::problem(
            "pageable copies",
            format!(
                "{counted} copies between device memory and slices that are not page-locked; {} of them that were recorded, \
                 of {} KiB or more each, moved {} KiB in {} ({})",
                large.len(),
                COPY_BYTES_MIN >> 10,
                bytes >> 10,
                Duration(took_ns),
                places(&large)
            ),
            "A GPU's driver copies these once more, through memory of its own: Register the slice once, or fill the Elements of \
             NewPinned, and copy from and to that",
        )
    })
}
