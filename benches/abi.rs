//! What a call across the C border costs: `cargo bench --bench abi`. The calls are made as C makes them.

use criterion::{Criterion, criterion_group, criterion_main};
use std::ffi::c_void;
use std::hint::black_box;
use std::ptr::{null, null_mut};
// Defines the functions below.
use streaminfer as _;

#[path = "../tests/models/mod.rs"]
mod models;

/// Any handle: a struct of one number, which travels as that number does.
type Handle = u64;

// SAFETY: as in include/streaminfer.h.
unsafe extern "C" {
    fn si_abi_version() -> u32;
    fn si_engine_open(options: *const c_void, out: *mut Handle, error: *mut c_void) -> i32;
    fn si_engine_close(engine: Handle, error: *mut c_void) -> i32;
    fn si_model_load_bytes(
        engine: Handle,
        data: *const u8,
        data_bytes: usize,
        options: *const c_void,
        out: *mut Handle,
        error: *mut c_void,
    ) -> i32;
    fn si_model_free(model: Handle, error: *mut c_void) -> i32;
    fn si_context_new(model: Handle, options: *const c_void, out: *mut Handle, error: *mut c_void) -> i32;
    fn si_context_prepare(context: Handle, error: *mut c_void) -> i32;
    fn si_context_run(context: Handle, options: *const c_void, error: *mut c_void) -> i32;
    fn si_context_submit(context: Handle, options: *const c_void, out: *mut u32, error: *mut c_void) -> i32;
    fn si_context_wait(context: Handle, sequence: u32, timeout_ns: u64, error: *mut c_void) -> i32;
    fn si_context_poll(context: Handle, sequence: u32, error: *mut c_void) -> i32;
    fn si_context_free(context: Handle, error: *mut c_void) -> i32;
}

fn abi(criterion: &mut Criterion) {
    let bytes = models::affine();
    let (mut engine, mut model, mut context, mut sequence) = (0, 0, 0, 0);
    let error = null_mut();
    // SAFETY: pointers to live places of the declared types, null where the header allows it.
    unsafe {
        assert_eq!(si_engine_open(null(), &mut engine, error), 0);
        assert_eq!(si_model_load_bytes(engine, bytes.as_ptr(), bytes.len(), null(), &mut model, error), 0);
        assert_eq!(si_context_new(model, null(), &mut context, error), 0);
        assert_eq!(si_context_prepare(context, error), 0);
        assert_eq!(si_context_submit(context, null(), &mut sequence, error), 0);
        assert_eq!(si_context_wait(context, sequence, u64::MAX, error), 0);
    }
    criterion.bench_function("si_abi_version", |bencher| {
        // SAFETY: no argument.
        bencher.iter(|| unsafe { si_abi_version() });
    });
    criterion.bench_function("si_context_poll, idle", |bencher| {
        // SAFETY: as above.
        bencher.iter(|| unsafe { si_context_poll(black_box(context), black_box(sequence), error) });
    });
    criterion.bench_function("si_context_run, four numbers", |bencher| {
        // SAFETY: as above.
        bencher.iter(|| unsafe { si_context_run(black_box(context), null(), error) });
    });
    // SAFETY: as above.
    unsafe {
        assert_eq!(si_context_free(context, error), 0);
        assert_eq!(si_model_free(model, error), 0);
        assert_eq!(si_engine_close(engine, error), 0);
    }
}

criterion_group!(benches, abi);
criterion_main!(benches);
