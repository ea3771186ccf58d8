//! Views that are used when they must not be: after their context is gone they lead to nothing, and with the guard an input
//! cannot be written while its request is in flight.

mod models;
mod native;

use std::process::Command;
use streaminfer::error::Status;
use streaminfer::runtime::{
    Batcher, BatcherOptions, Bucket, ContextOptions, Engine, EngineOptions, ModelOptions, Padding, PaddingKind,
};

#[test]
fn misused_views_fault_in_c() {
    let folder = native::folder("views");
    // The second takes far longer than what is looked at while its request runs, on any machine; it is cancelled.
    let models = [200, 20_000].map(|steps| {
        let path = folder.join(format!("heavy-{steps}.onnx"));
        std::fs::write(&path, models::heavy(steps)).unwrap();
        path
    });
    let program = native::program(&folder, "views", include_str!("abi/views.c"));
    native::run(Command::new(&program).args(&models));
}

fn guarded() -> Engine {
    let options = EngineOptions { device: "host".into(), guard_inputs: true, ..EngineOptions::default() };
    Engine::open(&options).unwrap()
}

/// What a request itself writes is never guarded: an output that is the next request's input.
#[test]
fn the_guard_leaves_state_on_the_device_alone() {
    let model = guarded().load_bytes(models::accumulator(), &ModelOptions::default()).unwrap();
    let mut context = model.context(&ContextOptions::default()).unwrap();
    context.link_self(1, 0).unwrap();
    context.prepare().unwrap();
    context.input_mut(0).unwrap().copy_from_slice(&[1.0f32, 2.0, 3.0, 4.0]);
    (0..3).for_each(|_| context.run().unwrap());
    assert_eq!(context.output::<f32>(0).unwrap(), [3.0, 6.0, 9.0, 12.0]);
}

/// The batch of others runs, and who came too late for it may still be writing.
#[test]
fn the_guard_leaves_batches_alone() {
    let row = || Bucket::new([vec![1, 256]]);
    let paddings = vec![Padding { kind: PaddingKind::Batch, dimension: 0, input: 0, axis: 0, value: 0.0 }];
    let buckets = vec![Bucket::new([vec![64, 256]])];
    let options = ModelOptions { buckets, paddings, ..ModelOptions::default() };
    let model = guarded().load_bytes(models::heavy_rows(400), &options).unwrap();
    let options = BatcherOptions { delay_ns: 20_000_000, ..BatcherOptions::default() };
    let batcher = Batcher::new(&model, &options).unwrap();
    let is_running = || batcher.stats().occupancy.running > 0;
    let mut seen = false;
    while !seen {
        let (prompt, late) = (batcher.reserve(&row(), 0).unwrap(), batcher.reserve(&row(), 0).unwrap());
        // The batch may have closed before.
        let view = batcher.input_view(late, 0).map(|view| view.address);
        if let (Ok(rows), Ok(())) = (view, batcher.commit(prompt, 0)) {
            while !is_running() && batcher.wait(prompt, 0).is_ok_and(|status| status == Status::Pending) {
                std::thread::yield_now();
            }
            // SAFETY: rows of a slot that has not been given back.
            unsafe { rows.write_volatile(1) };
            seen = is_running();
            assert_eq!(batcher.wait(prompt, u64::MAX).unwrap(), Status::Ok);
            batcher.release(prompt).unwrap();
        } else {
            batcher.abandon(prompt).unwrap();
        }
        batcher.abandon(late).unwrap();
    }
}
