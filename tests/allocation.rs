//! Between submit and completion nothing is allocated, on any thread: on the host, and on the GPU that `STREAMINFER_DEVICE` names, simulated
//! or real.
//!
//! The allocator of this program counts, which has the library under test in it and no driver: a driver's shared object takes
//! its memory from malloc itself, so what it needs for a launch does not count.

mod models;

use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::atomic::{AtomicU32, Ordering::Acquire};
use streaminfer::error::Status;
use streaminfer::runtime::{
    Batcher, BatcherOptions, Bucket, Context, ContextOptions, CopyEngines, Engine, EngineOptions, Event, Memory, Model,
    ModelOptions, Padding, PaddingKind, SlotView, SubmitOptions, WaitPolicy,
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

/// The models to try: small ones, and two real ones where `make test` has fetched them and they are not simulated, which takes minutes.
fn models(engine: &Engine) -> Vec<(String, Bytes, ModelOptions)> {
    let small = [("affine", models::affine()), ("heavy", models::heavy(2))];
    let mut found: Vec<_> =
        small.into_iter().map(|(name, bytes)| (name.to_owned(), bytes, ModelOptions::default())).collect();
    if engine.device().name.starts_with("Simulated") {
        return found;
    }
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

/// The device under test: the one that the environment names, which then has to be there.
fn options() -> EngineOptions {
    EngineOptions { device: std::env::var("STREAMINFER_DEVICE").unwrap_or_default(), ..EngineOptions::default() }
}

fn engine(in_flight_max: usize) -> Engine {
    Engine::open(&EngineOptions { in_flight_max, ..options() }).unwrap()
}

fn prepared(model: &Model, wait: WaitPolicy) -> Context {
    let mut context = model.context(&ContextOptions { wait, ..ContextOptions::default() }).unwrap();
    context.prepare().unwrap();
    context
}

/// Contexts that wait in each way, linked ones, one that waits for another's event, one in memory of the program's own.
fn related(engine: &Engine, rounds: usize) {
    let load = |bytes| engine.load_bytes(bytes, &ModelOptions::default()).unwrap();
    let (affine, accumulator) = (load(models::affine()), load(models::accumulator()));
    for wait in [WaitPolicy::Hybrid, WaitPolicy::Spin, WaitPolicy::Yield, WaitPolicy::Block] {
        let mut context = prepared(&affine, wait);
        request(engine, &mut context);
        assert_eq!(counted(rounds, || request(engine, &mut context)), 0, "{wait:?}");
    }
    let mut source = prepared(&affine, WaitPolicy::Hybrid);
    let mut sink = accumulator.context(&ContextOptions::default()).unwrap();
    sink.link(0, &source, 0).unwrap();
    sink.link_self(1, 0).unwrap();
    sink.prepare().unwrap();
    let mut linked = || {
        let first = source.submit(&SubmitOptions::default()).unwrap();
        sink.run().unwrap();
        source.wait(first, u64::MAX).unwrap();
    };
    linked();
    assert_eq!(counted(rounds, linked), 0, "linked contexts");
    let event = Event::new(engine).unwrap();
    let (mut before, mut after) = (prepared(&affine, WaitPolicy::Hybrid), prepared(&affine, WaitPolicy::Hybrid));
    let mut ordered = || {
        let first = before.submit(&SubmitOptions::default()).unwrap();
        event.record(&before).unwrap();
        event.wait(&mut after).unwrap();
        after.run().unwrap();
        before.wait(first, u64::MAX).unwrap();
    };
    ordered();
    assert_eq!(counted(rounds, ordered), 0, "an event");
    let memory = Memory::pinned(engine, 4096).unwrap();
    let mut attached = affine.context(&ContextOptions::default()).unwrap();
    attached.attach_input(0, &memory, 0).unwrap();
    attached.attach_output(0, &memory, 2048).unwrap();
    attached.prepare().unwrap();
    request(engine, &mut attached);
    assert_eq!(counted(rounds, || request(engine, &mut attached)), 0, "attached memory");
}

/// A submit that finds no permit looks at all lanes, for a request has ended that nobody has looked at.
fn without_a_permit(rounds: usize) {
    let engine = engine(1);
    let model = engine.load_bytes(models::affine(), &ModelOptions::default()).unwrap();
    let (mut unseen, mut next) = (prepared(&model, WaitPolicy::Hybrid), prepared(&model, WaitPolicy::Hybrid));
    let mut permitted = || {
        let sequence = unseen.submit(&SubmitOptions::default()).unwrap();
        // As a host that spins by itself; the library is not called.
        // SAFETY: the record lives as long as its context; the device stores this number at once.
        let done = unsafe { &*unseen.record_address().unwrap().cast::<AtomicU32>() };
        while done.load(Acquire) != sequence {
            std::hint::spin_loop();
        }
        next.run().unwrap();
        unseen.wait(sequence, u64::MAX).unwrap();
    };
    permitted();
    assert_eq!(counted(rounds, permitted), 0, "permits");
}

/// Inputs and outputs that the copy engines of a GPU move, and move right.
fn large() {
    let copy_engines = Some(CopyEngines { inputs_from: 1 << 20, outputs_from: 1 << 20 });
    let engine = Engine::open(&EngineOptions { copy_engines, ..options() }).unwrap();
    let of_model = ModelOptions { buckets: vec![Bucket::new([[140_000, 2].to_vec()])], ..ModelOptions::default() };
    let model = engine.load_bytes(models::dense(), &of_model).unwrap();
    let mut context = prepared(&model, WaitPolicy::Hybrid);
    let fill = |context: &mut Context, first: usize| {
        let rows = context.input_mut::<f32>(0).unwrap().chunks_exact_mut(2);
        rows.enumerate().for_each(|(row, x)| x.copy_from_slice(&[(row + first) as f32, 1.0]));
    };
    for first in [5, 900] {
        fill(&mut context, first);
        request(&engine, &mut context);
        for (row, y) in context.output::<f32>(0).unwrap().chunks_exact(3).enumerate() {
            let x = (row + first) as f32;
            assert_eq!(y, [x + 4.0, 2.0 * x + 5.0, (3.0 * x - 94.0).max(0.0)], "row {row}");
        }
    }
    assert_eq!(counted(3, || request(&engine, &mut context)), 0, "large tensors");
}

/// `STREAMINFER_RUNS=1000000` runs the full number. No harness of cargo's: its thread allocates when a test takes long.
fn main() {
    // Of cargo's words the filter counts; the values of other harnesses' options are none.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_value = |at: usize| at > 0 && matches!(words[at - 1].as_str(), "--test-threads" | "--skip");
    let filter = (0..words.len()).find(|&at| !words[at].starts_with('-') && !is_value(at)).map(|at| &words[at]);
    if filter.is_some_and(|filter| !"warm_requests_allocate_nothing".contains(filter.as_str())) {
        println!("allocation: not asked for");
        return;
    }
    let runs = std::env::var("STREAMINFER_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000);
    assert_eq!(counted(1, || drop(std::hint::black_box(vec![1u8]))), 1, "the counter counts");
    let engine = engine(0);
    for (name, bytes, options) in models(&engine) {
        let model = engine.load_bytes(bytes, &options).unwrap();
        for threads in [1, 3] {
            let mut context = model.context(&ContextOptions { threads, ..ContextOptions::default() }).unwrap();
            context.prepare().unwrap();
            // What the process, this thread and the context do once.
            request(&engine, &mut context);
            let rounds = if name == "affine" && threads == 1 { runs } else { 20 };
            assert_eq!(counted(rounds, || request(&engine, &mut context)), 0, "{name}, {threads} threads");
        }
    }
    related(&engine, 100);
    large();
    let (batcher, row) = (batcher(&engine), Bucket::new([vec![1, 2]]));
    for (is_full, rounds) in [(true, 500), (false, 10)] {
        batched(&engine, &batcher, &row, is_full);
        assert_eq!(counted(rounds, || batched(&engine, &batcher, &row, is_full)), 0, "batches, full: {is_full}");
    }
    without_a_permit(100);
    println!("allocation: none in warm requests on {}", engine.device().id);
}
