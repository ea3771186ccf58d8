//! Between submit and completion nothing is allocated, on any thread.

mod models;

use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use streaminfer::error::Status;
use streaminfer::runtime::{Bucket, Context, ContextOptions, Engine, EngineOptions, ModelOptions, SubmitOptions};

/// Counts while it is told to.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(SeqCst) {
            ALLOCATIONS.fetch_add(1, SeqCst);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted(rounds: usize, mut body: impl FnMut()) -> usize {
    ALLOCATIONS.store(0, SeqCst);
    COUNTING.store(true, SeqCst);
    (0..rounds).for_each(|_| body());
    COUNTING.store(false, SeqCst);
    ALLOCATIONS.load(SeqCst)
}

/// The models to try: small ones, and two real ones where `make test` has fetched them.
fn models() -> Vec<(String, Bytes, ModelOptions)> {
    let small = [("affine", models::affine()), ("heavy", models::heavy(2))];
    let mut found: Vec<_> =
        small.into_iter().map(|(name, bytes)| (name.to_owned(), bytes, ModelOptions::default())).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/models");
    for (name, shape) in [("mlp", vec![8, 784]), ("magika", vec![1, 2048])] {
        let path = folder.join(format!("{name}.onnx"));
        let options = ModelOptions { buckets: vec![Bucket::new([shape])], ..ModelOptions::default() };
        match fs::read(&path) {
            Ok(bytes) => found.push((name.to_owned(), bytes.into(), options)),
            Err(error) => {
                assert!(std::env::var_os("STREAMINFER_REQUIRE").is_none(), "{}: {error}", path.display());
                println!("{name} is left out: {}: {error}", path.display());
            }
        }
    }
    found
}

/// A request in each of the ways in which one can be waited for.
fn request(engine: &Engine, context: &mut Context) {
    let options = SubmitOptions { token: 5, deadline_ns: u64::MAX };
    context.run().unwrap();
    let waited = context.submit(&options).unwrap();
    context.wait(waited, u64::MAX).unwrap();
    let parked = context.submit(&options).unwrap();
    context.park(parked).unwrap();
    while engine.reap(4, |completion| assert_eq!(completion.status, Status::Ok)) == 0 {
        std::thread::yield_now();
    }
    assert!(context.timings().unwrap().stamps.done_ns > 0);
}

/// One test, since the allocator is the process's. `STREAMINFER_RUNS=1000000` runs the full number.
#[test]
fn warm_requests_allocate_nothing() {
    let runs = std::env::var("STREAMINFER_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000);
    assert_eq!(counted(1, || drop(std::hint::black_box(vec![1u8]))), 1, "the counter counts");
    let engine = Engine::open(&EngineOptions::default()).unwrap();
    for (name, bytes, options) in models() {
        let model = engine.load_bytes(bytes, &options).unwrap();
        for threads in [1, 3] {
            let mut context = model.context(&ContextOptions { threads, ..ContextOptions::default() }).unwrap();
            context.prepare().unwrap();
            (0..3).for_each(|_| request(&engine, &mut context));
            let rounds = if name == "affine" && threads == 1 { runs } else { 20 };
            assert_eq!(counted(rounds, || request(&engine, &mut context)), 0, "{name}, {threads} threads");
        }
    }
}
