//! The completion record as C sees it.

/// What a context's device and host write when a request ends: two lines of 128 bytes, so that the two writers never
/// share a cache line. Owned by the context, valid until it is freed; read-only for the host. Its layout is frozen.
///
/// Read `done` and `failed_sequence` with acquire semantics (C11 `atomic_load_explicit`, GCC `__atomic_load_n`). They are
/// a hint for a host that spins: a request has ended when `si_context_poll`, `si_context_wait` or `si_engine_reap` says so.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_completion_record {
    /// Line 1. Sequence number of the last request that was computed to its end.
    pub done: u32,
    /// Zero.
    pub reserved: u32,
    /// When the device started that request, in nanoseconds of the device's clock (CLOCK_MONOTONIC on the host device).
    pub start_ns: u64,
    /// When its inputs were in place.
    pub inputs_ns: u64,
    /// When its outputs were computed.
    pub compute_ns: u64,
    /// When its outputs were visible to the host.
    pub done_ns: u64,
    /// Zero.
    pub reserved_device: [u64; 11],
    /// Line 2. Sequence number of the last request that failed.
    pub failed_sequence: u32,
    /// Why it failed, an `si_result`.
    pub status: i32,
    /// Zero.
    pub reserved_host: [u64; 15],
}

const _: () = assert!(size_of::<si_completion_record>() == 256);
const _: () = assert!(std::mem::offset_of!(si_completion_record, failed_sequence) == 128);
