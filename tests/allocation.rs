//! Between submit and completion nothing is allocated, on any thread.

mod models;

use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use streaminfer::error::Status;
use streaminfer::runtime::{
    Batcher, BatcherOptions, Bucket, Context, ContextOptions, Engine, EngineOptions, ModelOptions, Padding,
    PaddingKind, SlotView, SubmitOptions,
};

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

/// A batcher of up to four rows whose batches wait long enough for any writer.
fn batcher(engine: &Engine) -> Batcher {
    let paddings = vec![Padding { kind: PaddingKind::Batch, dimension: 0, input: 0, axis: 0, value: 0.0 }];
    let buckets = [1, 4].map(|rows| Bucket::new([vec![rows, 2]])).to_vec();
    let model = engine.load_bytes(models::dense(), &ModelOptions { buckets, paddings, ..ModelOptions::default() });
    let options = BatcherOptions { delay_ns: 100_000_000, ..BatcherOptions::default() };
    Batcher::new(&model.unwrap(), &options).unwrap()
}

/// Four requests of one batch, waited for, parked and cancelled, and an abandoned one; or one that its batch's delay sends off.
fn batched(engine: &Engine, batcher: &Batcher, rows: &Bucket, is_full: bool) {
    let first_of = |view: SlotView| view.address.cast::<f32>();
    let reserve = || {
        let slot = batcher.reserve(rows, u64::MAX).unwrap();
        // SAFETY: two floats, which are ours until the commit.
        unsafe { first_of(batcher.input_view(slot, 0).unwrap()).write(2.0) };
        slot
    };
    batcher.abandon(reserve()).unwrap();
    let slots = [(); 4].map(|()| if is_full { Some(reserve()) } else { None });
    let slots = if is_full { slots } else { [Some(reserve()), None, None, None] };
    for (token, &slot) in slots.iter().flatten().enumerate() {
        batcher.commit(slot, token as u64).unwrap();
        if token == 1 {
            batcher.park(slot).unwrap();
        }
        if token == 2 {
            batcher.cancel(slot).unwrap();
        }
    }
    while slots[1].is_some() && engine.reap(4, |completion| assert_eq!(completion.token, 1)) == 0 {
        std::thread::yield_now();
    }
    for (index, &slot) in slots.iter().flatten().enumerate() {
        if index != 2 {
            assert_eq!(batcher.wait(slot, u64::MAX).unwrap(), Status::Ok);
            // SAFETY: an output, which is ours until the release.
            assert!(unsafe { first_of(batcher.output_view(slot, 0).unwrap()).read() } >= 2.0);
        }
        batcher.release(slot).unwrap();
    }
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
            if name == "affine" && threads == 1 {
                // What the process and this thread do once.
                request(&engine, &mut context);
            }
            let rounds = if name == "affine" && threads == 1 { runs } else { 20 };
            assert_eq!(counted(rounds, || request(&engine, &mut context)), 0, "{name}, {threads} threads");
        }
    }
    let (batcher, row) = (batcher(&engine), Bucket::new([vec![1, 2]]));
    for (is_full, rounds) in [(true, 500), (false, 10)] {
        batched(&engine, &batcher, &row, is_full);
        assert_eq!(counted(rounds, || batched(&engine, &batcher, &row, is_full)), 0, "batches, full: {is_full}");
    }
}
