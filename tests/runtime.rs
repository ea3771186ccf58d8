//! The runtime's promises, through its Rust interface.

mod models;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use streaminfer::error::Status;
use streaminfer::runtime::{
    Bucket, Context, ContextOptions, Engine, EngineOptions, Event, Model, ModelOptions, SubmitOptions, WaitPolicy,
};

fn engine() -> Engine {
    Engine::open(&EngineOptions::default()).unwrap()
}

fn load(engine: &Engine, bytes: bytes::Bytes) -> Model {
    engine.load_bytes(bytes, &ModelOptions::default()).unwrap()
}

fn prepared(model: &Model) -> Context {
    let mut context = model.context(&ContextOptions::default()).unwrap();
    context.prepare().unwrap();
    context
}

fn status<T: std::fmt::Debug>(result: streaminfer::error::Result<T>) -> Status {
    result.unwrap_err().status
}

/// Waits for something that another thread does, for at most 20 s.
fn eventually(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "it did not happen");
        std::thread::yield_now();
    }
}

const PARKED: SubmitOptions = SubmitOptions { token: 77, deadline_ns: 0 };

#[test]
fn a_request_reads_and_writes_in_place() {
    for wait in [WaitPolicy::Hybrid, WaitPolicy::Spin, WaitPolicy::Yield, WaitPolicy::Block] {
        let model = load(&engine(), models::affine());
        let mut context = model.context(&ContextOptions { wait, threads: 2, ..ContextOptions::default() }).unwrap();
        context.prepare().unwrap();
        let address = context.input_mut::<f32>(0).unwrap().as_ptr();
        for round in 0..50 {
            context.input_mut::<f32>(0).unwrap().copy_from_slice(&[round as f32, 1.0, 2.0, 3.0]);
            if round % 2 == 0 {
                context.run().unwrap();
            } else {
                let sequence = context.submit(&SubmitOptions::default()).unwrap();
                assert_eq!(context.wait(sequence, u64::MAX).unwrap(), Status::Ok);
            }
            assert_eq!(context.output::<f32>(0).unwrap(), [2.0 * round as f32 + 1.0, 3.0, 5.0, 7.0]);
        }
        assert_eq!(context.input_mut::<f32>(0).unwrap().as_ptr(), address);
        let timings = context.timings().unwrap();
        assert_eq!(timings.sequence, 50);
        assert!(timings.submit_ns <= timings.stamps.start_ns && timings.stamps.start_ns <= timings.stamps.done_ns);
    }
}

#[test]
fn buckets_are_selected_and_unknown_ones_refused() {
    let engine = engine();
    let buckets = vec![Bucket::new([vec![1, 2]]), Bucket::new([vec![3, 2]])];
    let model = engine.load_bytes(models::dense(), &ModelOptions { buckets, ..ModelOptions::default() }).unwrap();
    let mut context = prepared(&model);
    for rows in [1usize, 3, 1] {
        context.select(&Bucket::new([vec![rows, 2]])).unwrap();
        context.input_mut::<f32>(0).unwrap().fill(1.0);
        context.run().unwrap();
        assert_eq!(context.output::<f32>(0).unwrap(), [5.0, 7.0, 0.0].repeat(rows));
    }
    assert_eq!(status(context.select(&Bucket::new([vec![2, 2]]))), Status::NoBucket);
    assert_eq!(status(model.add_bucket(&Bucket::new([vec![2, 3]]))), Status::ShapeMismatch);
    model.add_bucket(&Bucket::new([vec![2, 2]])).unwrap();
    assert_eq!(status(context.select(&Bucket::new([vec![2, 2]]))), Status::NoBucket);
    assert_eq!(model.outputs()[0].dims, Some(vec![None, Some(3)]));
    assert_eq!(model.buckets().len(), 3);
    let later = prepared(&model);
    assert_eq!(later.output::<f32>(0).unwrap().len(), 3);
}

#[test]
fn a_model_without_bucket_names_its_open_dimensions() {
    let model = load(&engine(), models::dense());
    let error = model.context(&ContextOptions::default()).unwrap().prepare().unwrap_err();
    assert_eq!(error.status, Status::NoBucket);
    assert!(error.message.contains("'x' (batch)"), "{error}");
}

#[test]
fn values_of_shape_inputs_belong_to_the_bucket() {
    let engine = engine();
    let bucket = |count: i64| Bucket::new([vec![1]]).with_values(0, &[count]);
    let options = ModelOptions { buckets: vec![bucket(2), bucket(5)], ..ModelOptions::default() };
    let model = engine.load_bytes(models::ones(), &options).unwrap();
    assert!(model.inputs()[0].is_shape_input);
    let mut context = prepared(&model);
    for count in [5, 2] {
        context.select(&bucket(count)).unwrap();
        context.run().unwrap();
        assert_eq!(context.output::<f32>(0).unwrap(), vec![1.0; count as usize]);
        assert_eq!(context.input_mut::<i64>(0).unwrap(), [count]);
    }
    assert_eq!(status(context.select(&bucket(3))), Status::NoBucket);
    assert_eq!(status(context.select(&Bucket::new([vec![1]]))), Status::ShapeMismatch);
}

#[test]
fn calls_in_the_wrong_state_say_so() {
    let model = load(&engine(), models::affine());
    let mut context = model.context(&ContextOptions::default()).unwrap();
    assert_eq!(status(context.submit(&SubmitOptions::default())), Status::WrongState);
    assert_eq!(status(context.input_mut::<f32>(0).map(|_| ())), Status::WrongState);
    context.prepare().unwrap();
    assert_eq!(status(context.prepare()), Status::WrongState);
    assert_eq!(status(context.poll(1)), Status::InvalidArgument);
    assert_eq!(status(context.timings()), Status::WrongState);
    assert_eq!(status(context.input_mut::<i64>(0).map(|_| ())), Status::ShapeMismatch);
    assert_eq!(status(context.output::<f32>(1).map(|_| ())), Status::InvalidArgument);
    let sequence = context.submit(&SubmitOptions::default()).unwrap();
    eventually(|| context.output::<f32>(0).is_ok());
    assert_eq!(status(context.submit(&SubmitOptions::default())), Status::InFlight, "nobody was told of the end");
    assert_eq!(context.poll(sequence).unwrap(), Status::Ok);
    assert_eq!(context.poll(sequence).unwrap(), Status::Ok, "the answer is repeated");
    assert_eq!(status(context.park(sequence)), Status::WrongState);
    assert_eq!(status(context.unpark(sequence)), Status::WrongState);
    assert_eq!(status(context.unbind()), Status::WrongState);
}

#[test]
fn a_deadline_that_has_passed_costs_nothing() {
    let model = load(&engine(), models::affine());
    let mut context = prepared(&model);
    assert_eq!(status(context.submit(&SubmitOptions { token: 0, deadline_ns: 1 })), Status::Expired);
    assert_eq!(context.submit(&SubmitOptions::default()).unwrap(), 1, "a refusal uses no number");
}

#[test]
fn a_request_whose_deadline_passes_in_the_queue_expires() {
    let engine = engine();
    let (slow, quick) = (load(&engine, models::heavy(400)), load(&engine, models::affine()));
    let (mut before, mut context) = (prepared(&slow), prepared(&quick));
    let event = Event::new(&engine).unwrap();
    assert_eq!(status(event.wait(&mut context)), Status::NotRecorded);
    let first = before.submit(&SubmitOptions::default()).unwrap();
    event.record(&before).unwrap();
    event.wait(&mut context).unwrap();
    // Until this thread has got a request into the queue before its deadline.
    let mut submit = |budget_ns: u64| {
        let deadline_ns = streaminfer::device::host::clock::monotonic_ns() + budget_ns;
        context.submit(&SubmitOptions { token: 0, deadline_ns }).ok()
    };
    let sequence = (0..8).find_map(|doubled| submit(1_000_000 << doubled)).unwrap();
    assert_eq!(status(context.wait(sequence, u64::MAX)), Status::Expired);
    assert_eq!(status(context.poll(sequence)), Status::Expired);
    assert_eq!(before.wait(first, u64::MAX).unwrap(), Status::Ok);
    context.run().unwrap();
    assert_eq!(engine.stats().failures, 1);
}

#[test]
fn an_event_orders_streams_without_the_host() {
    let engine = engine();
    let (slow, quick) = (load(&engine, models::heavy(200)), load(&engine, models::affine()));
    let (mut first, mut second) = (prepared(&slow), prepared(&quick));
    let event = Event::new(&engine).unwrap();
    let one = first.submit(&SubmitOptions::default()).unwrap();
    event.record(&first).unwrap();
    event.wait(&mut second).unwrap();
    drop(event);
    let two = second.submit(&SubmitOptions::default()).unwrap();
    second.wait(two, u64::MAX).unwrap();
    assert_eq!(first.poll(one).unwrap(), Status::Ok, "what the event marks ended before");
    assert!(first.timings().unwrap().stamps.done_ns <= second.timings().unwrap().stamps.start_ns);
    let other = self::engine();
    let stranger = Event::new(&other).unwrap();
    assert_eq!(status(stranger.record(&first)), Status::InvalidArgument);
}

#[test]
fn linked_contexts_pass_tensors_on_without_a_copy() {
    let engine = engine();
    let model = load(&engine, models::affine());
    let mut first = prepared(&model);
    let mut second = model.context(&ContextOptions::default()).unwrap();
    assert_eq!(status(second.link(1, &first, 0)), Status::InvalidArgument);
    assert_eq!(status(second.link(0, &first, 1)), Status::InvalidArgument);
    second.link(0, &first, 0).unwrap();
    assert_eq!(status(second.link(0, &first, 0)), Status::InvalidArgument);
    second.prepare().unwrap();
    assert_eq!(status(second.link(0, &first, 0)), Status::WrongState);
    assert_eq!(status(second.input_mut::<f32>(0).map(|_| ())), Status::WrongState);
    for round in 0..100 {
        first.input_mut::<f32>(0).unwrap().fill(round as f32);
        let one = first.submit(&SubmitOptions::default()).unwrap();
        let two = second.submit(&SubmitOptions::default()).unwrap();
        first.wait(one, u64::MAX).unwrap();
        second.wait(two, u64::MAX).unwrap();
        assert_eq!(second.output::<f32>(0).unwrap(), [4.0 * round as f32 + 3.0; 4]);
    }
    drop(first);
    second.run().unwrap();
    assert_eq!(second.output::<f32>(0).unwrap()[0], 4.0 * 99.0 + 3.0, "the source's memory outlives it");
}

#[test]
fn linked_contexts_of_two_threads_never_lock_up() {
    let engine = engine();
    let model = load(&engine, models::affine());
    let mut first = prepared(&model);
    let mut second = model.context(&ContextOptions::default()).unwrap();
    second.link(0, &first, 0).unwrap();
    second.prepare().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..2_000).for_each(|_| first.run().unwrap()));
        scope.spawn(|| (0..2_000).for_each(|_| second.run().unwrap()));
    });
}

#[test]
fn a_self_link_keeps_state_on_the_device() {
    let model = load(&engine(), models::accumulator());
    let mut context = model.context(&ContextOptions::default()).unwrap();
    context.link_self(1, 0).unwrap();
    context.prepare().unwrap();
    for round in 1..=10 {
        context.input_mut::<f32>(0).unwrap().fill(1.5);
        context.run().unwrap();
        assert_eq!(context.output::<f32>(0).unwrap(), [1.5 * round as f32; 4]);
    }
}

#[test]
fn a_timeout_drains_the_context() {
    let model = load(&engine(), models::heavy(2_000));
    let mut context = prepared(&model);
    let sequence = context.submit(&SubmitOptions::default()).unwrap();
    assert_eq!(context.wait(sequence, 0).unwrap(), Status::Pending);
    assert_eq!(status(context.wait(sequence, 1_000_000)), Status::Timeout);
    assert_eq!(status(context.poll(sequence)), Status::Timeout);
    assert_eq!(status(context.park(sequence)), Status::Draining);
    // Given up, the device ends early: well before the two thousand products are through.
    eventually(|| context.input_mut::<f32>(0).is_ok());
    assert_eq!(context.submit(&SubmitOptions::default()).unwrap(), 2);
}

#[test]
fn a_cancel_from_another_thread_ends_the_wait() {
    let model = load(&engine(), models::heavy(2_000));
    for along in [false, true] {
        let mut context = prepared(&model);
        let controller = context.controller();
        assert_eq!(status(controller.cancel(1)), Status::InvalidArgument);
        let canceller = std::thread::spawn(move || {
            eventually(|| controller.cancel(1).is_ok());
            assert_eq!(controller.cancel(1).unwrap(), Status::TooLate);
        });
        let waited = if along {
            context.run()
        } else {
            let sequence = context.submit(&SubmitOptions::default()).unwrap();
            context.wait(sequence, u64::MAX).map(|_| ())
        };
        assert_eq!(status(waited), Status::Cancelled);
        canceller.join().unwrap();
        eventually(|| context.input_mut::<f32>(0).is_ok());
    }
}

#[test]
fn a_parked_request_is_announced_exactly_once() {
    let engine = engine();
    let model = load(&engine, models::affine());
    let mut context = prepared(&model);
    for round in 1..=200 {
        let sequence = context.submit(&PARKED).unwrap();
        if round % 2 == 0 {
            eventually(|| context.output::<f32>(0).is_ok());
        }
        context.park(sequence).unwrap();
        assert_eq!(context.poll(sequence).unwrap(), Status::Parked);
        assert_eq!(status(context.submit(&PARKED)), Status::InFlight);
        let mut seen = Vec::new();
        eventually(|| engine.reap(8, |completion| seen.push(completion)) > 0);
        assert_eq!(engine.reap(8, |_| panic!("a second completion")), 0);
        assert_eq!((seen.len(), seen[0].context, seen[0].token), (1, context.id(), 77));
        assert_eq!((seen[0].sequence, seen[0].status), (sequence, Status::Ok));
        assert_eq!(context.poll(sequence).unwrap(), Status::Ok);
    }
}

#[test]
fn an_unparked_request_is_either_announced_or_not() {
    let engine = engine();
    let model = load(&engine, models::affine());
    let mut context = prepared(&model);
    for _ in 0..500 {
        let sequence = context.submit(&PARKED).unwrap();
        context.park(sequence).unwrap();
        match context.unpark(sequence).unwrap() {
            Status::Ok => {
                context.wait(sequence, u64::MAX).unwrap();
                assert_eq!(engine.reap(1, |_| ()), 0);
            }
            late => {
                assert_eq!(late, Status::TooLate);
                assert_eq!(engine.reap(1, |_| ()), 1);
            }
        }
    }
}

#[test]
fn parked_requests_of_many_contexts_all_arrive() {
    let engine = engine();
    let model = load(&engine, models::affine());
    let mut contexts: Vec<Context> = (0..16).map(|_| prepared(&model)).collect();
    let done = Arc::new(AtomicBool::new(false));
    let reaper = {
        let (engine, done) = (engine.clone(), done.clone());
        std::thread::spawn(move || {
            let mut count = 0;
            while !done.load(SeqCst) || engine.stats().completions > 0 {
                count += engine.reap(3, |completion| assert_eq!(completion.status, Status::Ok));
            }
            count
        })
    };
    for _ in 0..100 {
        for context in &mut contexts {
            let mut sequence = 0;
            eventually(|| context.submit(&PARKED).map(|number| sequence = number).is_ok());
            context.park(sequence).unwrap();
        }
    }
    eventually(|| engine.stats().in_flight == 0);
    done.store(true, SeqCst);
    assert_eq!(reaper.join().unwrap(), 1_600);
}

#[test]
fn dropping_a_context_in_flight_announces_its_cancellation() {
    let engine = engine();
    let model = load(&engine, models::heavy(2_000));
    let mut context = prepared(&model);
    let id = context.id();
    let sequence = context.submit(&PARKED).unwrap();
    context.park(sequence).unwrap();
    let start = Instant::now();
    drop((context, model));
    assert!(start.elapsed() < Duration::from_secs(20), "dropping does not wait for the device");
    let mut seen = Vec::new();
    assert_eq!(engine.reap(8, |completion| seen.push(completion)), 1);
    assert_eq!((seen[0].context, seen[0].status), (id, Status::Cancelled));
    eventually(|| engine.stats().contexts == 0);
    let stats = engine.stats();
    assert_eq!((stats.models, stats.threads, stats.in_flight), (0, 0, 0));
    assert_eq!((stats.weights_bytes, stats.retained_bytes, stats.arena_bytes, stats.pinned_bytes), (0, 0, 0, 0));
}

#[test]
fn the_completion_descriptor_is_readable_while_completions_wait() {
    use std::io::Read;
    let engine = engine();
    let model = load(&engine, models::affine());
    let mut context = prepared(&model);
    let mut descriptor = std::fs::File::from(engine.completion_descriptor().unwrap());
    let mut word = [0; 8];
    assert_eq!(descriptor.read(&mut word).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let sequence = context.submit(&PARKED).unwrap();
    context.park(sequence).unwrap();
    eventually(|| descriptor.read(&mut word).is_ok());
    assert_eq!(engine.reap(1, |_| ()), 1);
    assert_eq!(descriptor.read(&mut word).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// A reaper that sleeps on the descriptor and takes one completion at a time is woken as long as any waits.
#[test]
fn the_completion_descriptor_never_misses_one() {
    const CONTEXTS: usize = 3;
    const ROUNDS: usize = 2_000;
    let engine = engine();
    let model = load(&engine, models::affine());
    let descriptor = engine.completion_descriptor().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..CONTEXTS {
            scope.spawn(|| {
                let mut context = prepared(&model);
                for _ in 0..ROUNDS {
                    let sequence = context.submit(&PARKED).unwrap();
                    context.park(sequence).unwrap();
                    eventually(|| context.poll(sequence).unwrap() == Status::Ok);
                }
            });
        }
        let mut count = 0;
        while count < CONTEXTS * ROUNDS {
            let mut readable = rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN);
            let wait = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            let woken = rustix::event::poll(std::slice::from_mut(&mut readable), Some(&wait)).unwrap();
            assert_eq!(woken, 1, "not woken after {count} completions");
            count += engine.reap(1, |_| ());
        }
    });
}

#[test]
fn permits_and_contexts_are_bounded() {
    // On a GPU the requests of other tests would count; tests/cuda.rs looks at that.
    let device = "host".into();
    let options = EngineOptions { device, in_flight_max: 1, contexts_max: 2, ..EngineOptions::default() };
    let engine = Engine::open(&options).unwrap();
    let model = load(&engine, models::heavy(2_000));
    let (mut first, mut second) = (prepared(&model), prepared(&model));
    assert_eq!(model.context(&ContextOptions::default()).err().map(|error| error.status), Some(Status::LimitReached));
    let sequence = first.submit(&SubmitOptions::default()).unwrap();
    assert_eq!(status(second.submit(&SubmitOptions::default())), Status::Again);
    first.controller().cancel(sequence).unwrap();
    eventually(|| engine.stats().in_flight == 0);
    let sequence = second.submit(&SubmitOptions::default()).unwrap();
    second.controller().cancel(sequence).unwrap();
    drop(first);
    eventually(|| model.context(&ContextOptions::default()).is_ok());
}

#[test]
fn memory_beyond_the_budget_is_refused_and_leaves_no_trace() {
    let engine = Engine::open(&EngineOptions { memory_bytes_max: 300_000, ..EngineOptions::default() }).unwrap();
    let model = load(&engine, models::affine());
    let before = engine.stats();
    assert_eq!(
        engine.load_bytes(models::heavy(3), &ModelOptions::default()).err().unwrap().status,
        Status::OutOfMemory
    );
    assert_eq!(engine.stats(), before);
    prepared(&model).run().unwrap();
}

#[test]
fn a_bound_context_belongs_to_its_thread_until_that_ends() {
    let model = load(&engine(), models::affine());
    let mut context = prepared(&model);
    context.bind().unwrap();
    assert_eq!(status(context.bind()), Status::WrongState);
    let mut context = std::thread::spawn(move || {
        assert_eq!(status(context.run()), Status::WrongThread);
        assert_eq!(status(context.unbind()), Status::WrongThread);
        context
    })
    .join()
    .unwrap();
    context.unbind().unwrap();
    let mut context = std::thread::spawn(move || {
        context.bind().unwrap();
        context
    })
    .join()
    .unwrap();
    context.run().unwrap();
    assert_eq!(status(context.unbind()), Status::WrongState, "the owner has ended");
}

#[test]
fn a_file_that_changes_is_not_loaded_again() {
    let path = std::env::temp_dir().join(format!("streaminfer-changing-{}.onnx", std::process::id()));
    std::fs::write(&path, models::dense()).unwrap();
    let model = engine().load(&path, &ModelOptions::default()).unwrap();
    model.add_bucket(&Bucket::new([vec![1, 2]])).unwrap();
    assert_eq!(model.info().retained_bytes, 0);
    std::fs::write(&path, models::affine()).unwrap();
    assert_eq!(status(model.add_bucket(&Bucket::new([vec![2, 2]]))), Status::WrongState);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(status(model.add_bucket(&Bucket::new([vec![2, 2]]))), Status::NotFound);
    model.add_bucket(&Bucket::new([vec![1, 2]])).unwrap();
    prepared(&model).run().unwrap();
}

#[test]
fn devices_that_are_not_there_are_named() {
    let open = |device: &str| Engine::open(&EngineOptions { device: device.into(), ..EngineOptions::default() });
    let error = open("cuda:0").err().unwrap();
    assert_eq!(error.status, Status::NoDevice);
    assert!(error.message.contains("cuda:0"), "{error}");
    assert_eq!(open("gpu").err().unwrap().status, Status::InvalidArgument);
    assert_eq!(open("host").unwrap().device().id, "host");
}
