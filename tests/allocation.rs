//! Between submit and completion nothing is allocated, on any thread.

mod models;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use streaminfer::error::Status;
use streaminfer::runtime::{ContextOptions, Engine, EngineOptions, ModelOptions, SubmitOptions};

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

/// One test, since the allocator is the process's. `STREAMINFER_RUNS=1000000` runs the full number.
#[test]
fn warm_requests_allocate_nothing() {
    let rounds = std::env::var("STREAMINFER_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000);
    assert_eq!(counted(1, || drop(std::hint::black_box(vec![1u8]))), 1, "the counter counts");
    let engine = Engine::open(&EngineOptions::default()).unwrap();
    for (bytes, threads) in [(models::affine(), 1), (models::affine(), 3), (models::heavy(2), 2)] {
        let model = engine.load_bytes(bytes, &ModelOptions::default()).unwrap();
        let mut context = model.context(&ContextOptions { threads, ..ContextOptions::default() }).unwrap();
        context.prepare().unwrap();
        let options = SubmitOptions { token: 5, deadline_ns: u64::MAX };
        let request = |context: &mut streaminfer::runtime::Context| {
            context.input_mut::<f32>(0).unwrap().fill(2.0);
            context.run().unwrap();
            let waited = context.submit(&options).unwrap();
            context.wait(waited, u64::MAX).unwrap();
            let parked = context.submit(&options).unwrap();
            context.park(parked).unwrap();
            while engine.reap(4, |completion| assert_eq!(completion.status, Status::Ok)) == 0 {
                std::thread::yield_now();
            }
            assert!(context.output::<f32>(0).unwrap()[0] > 0.0);
        };
        (0..20).for_each(|_| request(&mut context));
        let rounds = if threads == 1 { rounds } else { rounds / 20 };
        assert_eq!(counted(rounds, || request(&mut context)), 0, "{threads} threads");
    }
}
