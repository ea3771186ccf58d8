//! Requests that a batcher merges give what they give alone, whatever becomes of their neighbours, and each is told of its own
//! end. The rules at exact times are tested in `src/runtime/batcher/board_tests.rs`.

mod models;
mod native;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};
use streaminfer::device::host::clock::monotonic_ns;
use streaminfer::error::{Result, Status};
use streaminfer::runtime::{
    Batcher, BatcherOptions, Bucket, ContextOptions, Engine, EngineOptions, Model, ModelOptions, Padding, PaddingKind,
    SlotId, SlotView,
};

/// No batch closes by its delay before a test is over.
const LONG: u64 = 3_600_000_000_000;

fn batch(input: usize) -> Padding {
    Padding { kind: PaddingKind::Batch, dimension: 0, input, axis: 0, value: 0.0 }
}

fn masked(input: usize, axis: usize, value: f64) -> Padding {
    Padding { kind: PaddingKind::Masked, dimension: 1, input, axis, value }
}

fn engine() -> Engine {
    Engine::open(&EngineOptions { device: "host".into(), ..EngineOptions::default() }).unwrap()
}

/// `models::dense` for up to so many rows.
fn dense(engine: &Engine, rows: &[usize]) -> Model {
    let buckets = rows.iter().map(|&rows| Bucket::new([vec![rows, 2]])).collect();
    let options = ModelOptions { buckets, paddings: vec![batch(0)], ..ModelOptions::default() };
    engine.load_bytes(models::dense(), &options).unwrap()
}

fn rows(count: usize) -> Bucket {
    Bucket::new([vec![count, 2]])
}

/// What `models::dense` makes of a row.
fn expected([x, y]: [f32; 2]) -> [f32; 3] {
    [x + 4.0 * y, 2.0 * x + 5.0 * y, 3.0 * x + 6.0 * y - 100.0].map(|value| value.max(0.0))
}

/// Byte positions of the elements of a view, row-major.
fn positions(view: &SlotView) -> Vec<usize> {
    let mut found = vec![0];
    for (&extent, &stride) in view.shape.as_slice().iter().zip(view.strides_bytes.as_slice()) {
        found = found.iter().flat_map(|at| (0..extent).map(move |index| at + index * stride)).collect();
    }
    assert!(found.iter().all(|at| at + view.dtype.bytes() <= view.capacity_bytes));
    found
}

fn write<T: Copy>(batcher: &Batcher, slot: SlotId, input: usize, values: &[T]) -> Result<()> {
    let view = batcher.input_view(slot, input)?;
    let places = positions(&view);
    assert_eq!((places.len(), view.dtype.bytes()), (values.len(), size_of::<T>()));
    for (&at, &value) in places.iter().zip(values) {
        // SAFETY: inside the slot's rows, which are this test's until it commits or abandons.
        unsafe { view.address.add(at).cast::<T>().write(value) };
    }
    Ok(())
}

fn read(batcher: &Batcher, slot: SlotId, output: usize) -> Result<Vec<f32>> {
    let view = batcher.output_view(slot, output)?;
    let read_one = |at: usize| {
        // SAFETY: inside the slot's rows, which are this test's until it releases.
        unsafe { view.address.add(at).cast::<f32>().read() }
    };
    Ok(positions(&view).into_iter().map(read_one).collect())
}

/// Reserves, writes and commits rows. On a machine that is busy a batch may close before its writer is done.
fn committed(batcher: &Batcher, values: &[[f32; 2]], deadline_ns: u64, token: u64) -> Result<SlotId> {
    loop {
        let slot = batcher.reserve(&rows(values.len()), deadline_ns)?;
        let written = write(batcher, slot, 0, values.as_flattened()).and_then(|()| batcher.commit(slot, token));
        match written {
            Ok(()) => return Ok(slot),
            Err(error) => {
                assert_eq!(error.status, Status::Expired, "{error}");
                batcher.abandon(slot).unwrap();
            }
        }
    }
}

fn eventually(condition: impl Fn() -> bool) {
    let start = SystemTime::now();
    while !condition() {
        assert!(start.elapsed().unwrap() < Duration::from_secs(60), "it never happens");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Random numbers of a test's own.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn float(&mut self) -> f32 {
        self.below(2_001) as f32 / 1_000.0 - 1.0
    }
}

#[test]
fn committed_rows_run_together_and_come_back_to_their_owners() {
    let engine = engine();
    let options = BatcherOptions { delay_ns: LONG, ..BatcherOptions::default() };
    let batcher = Batcher::new(&dense(&engine, &[1, 2, 4]), &options).unwrap();
    for round in 0..50 {
        let values: Vec<[f32; 2]> = (0..4).map(|row| [(round + row) as f32, row as f32 * 30.0]).collect();
        let slots: Vec<SlotId> = values.iter().map(|&row| committed(&batcher, &[row], 0, 0).unwrap()).collect();
        for (slot, &row) in slots.iter().zip(&values) {
            assert_eq!(batcher.wait(*slot, u64::MAX).unwrap(), Status::Ok);
            assert_eq!(read(&batcher, *slot, 0).unwrap(), expected(row));
        }
        // A slot of several rows.
        let pairs = [&values[..2], &values[2..]].map(|rows| committed(&batcher, rows, 0, 0).unwrap());
        for (slot, rows) in pairs.iter().zip(values.chunks(2)) {
            batcher.wait(*slot, u64::MAX).unwrap();
            let both: Vec<f32> = rows.iter().flat_map(|&row| expected(row)).collect();
            assert_eq!(read(&batcher, *slot, 0).unwrap(), both);
        }
        slots.iter().chain(&pairs).for_each(|&slot| batcher.release(slot).unwrap());
    }
    let stats = batcher.stats();
    assert_eq!(
        (stats.totals.batches, stats.totals.rows, stats.totals.padding_rows, stats.occupancy.slots),
        (100, 400, 0, 0)
    );
    assert_eq!(engine.stats().batchers, 1);
}

#[test]
fn slots_know_where_the_time_of_their_batch_went() {
    let engine = engine();
    let options = BatcherOptions { delay_ns: LONG, ..BatcherOptions::default() };
    let batcher = Batcher::new(&dense(&engine, &[1, 4]), &options).unwrap();
    let mut last_ns = monotonic_ns();
    for number in 1..=20 {
        let reserved = batcher.reserve(&rows(1), 0).unwrap();
        assert_eq!(batcher.timings(reserved).unwrap_err().status, Status::WrongState);
        batcher.abandon(reserved).unwrap();
        let mut slots = vec![committed(&batcher, &[[1.0, 2.0]; 3], 0, 0).unwrap()];
        assert_eq!(batcher.timings(slots[0]).unwrap_err().status, Status::InFlight);
        slots.push(committed(&batcher, &[[3.0, 4.0]], 0, 0).unwrap());
        slots.iter().for_each(|&slot| assert_eq!(batcher.wait(slot, u64::MAX).unwrap(), Status::Ok));
        let [one, other] = [slots[0], slots[1]].map(|slot| batcher.timings(slot).unwrap());
        assert_eq!(one, other);
        let (closing, stamps) = (one.closing, one.stamps);
        assert_eq!((closing.number, closing.rows, closing.bucket_rows), (number, 4, 4));
        assert!(closing.usual_ns > 0);
        let moments = [
            last_ns,
            closing.opened_ns,
            closing.closed_ns,
            one.submit_ns,
            stamps.start_ns,
            stamps.inputs_ns,
            stamps.compute_ns,
            stamps.done_ns,
            monotonic_ns(),
        ];
        assert!(moments.is_sorted(), "{moments:?}");
        last_ns = moments[8];
        for slot in slots {
            batcher.release(slot).unwrap();
            assert_eq!(batcher.timings(slot).unwrap_err().status, Status::StaleHandle);
        }
    }
}

#[test]
fn the_first_batch_is_not_taken_for_the_measurement_before_it() {
    let engine = engine();
    let model = dense(&engine, &[1]);
    for round in 0..100 {
        let batcher = Batcher::new(&model, &BatcherOptions { delay_ns: LONG, ..BatcherOptions::default() }).unwrap();
        let slot = committed(&batcher, &[[round as f32, 50.0]], 0, 0).unwrap();
        batcher.wait(slot, u64::MAX).unwrap();
        assert_eq!(read(&batcher, slot, 0).unwrap(), expected([round as f32, 50.0]));
        batcher.release(slot).unwrap();
        assert_eq!(batcher.stats().totals.batches, 1);
    }
}

#[test]
fn what_is_not_committed_in_time_has_expired_and_does_not_matter() {
    let engine = engine();
    let options = BatcherOptions { contexts: 1, delay_ns: 20_000_000, ..BatcherOptions::default() };
    let batcher = Batcher::new(&dense(&engine, &[4]), &options).unwrap();
    let mut seen = 0;
    while seen < 5 {
        let late = batcher.reserve(&rows(1), 0).unwrap();
        let written = write(&batcher, late, 0, &[f32::NAN, f32::INFINITY]);
        let (Ok(view), Ok(slot)) = (written.and_then(|()| batcher.input_view(late, 0)), batcher.reserve(&rows(1), 0))
        else {
            // The batch has closed in between.
            batcher.abandon(late).unwrap();
            continue;
        };
        let is_committed = write(&batcher, slot, 0, &[1.0f32, 2.0]).and_then(|()| batcher.commit(slot, 0)).is_ok();
        if is_committed {
            batcher.wait(slot, u64::MAX).unwrap();
            assert_eq!(read(&batcher, slot, 0).unwrap(), expected([1.0, 2.0]));
            batcher.release(slot).unwrap();
            assert_eq!(batcher.commit(late, 0).unwrap_err().status, Status::Expired);
            assert_eq!(batcher.input_view(late, 0).unwrap_err().status, Status::Expired);
            assert_eq!(
                batcher.reserve(&rows(1), 0).unwrap_err().status,
                Status::Again,
                "somebody may still write there"
            );
            // SAFETY: the rows are ours until the slot is given back, also now.
            unsafe { view.address.cast::<f32>().write(7.0) };
            seen += 1;
        } else {
            batcher.abandon(slot).unwrap();
        }
        batcher.abandon(late).unwrap();
    }
}

#[test]
fn a_deadline_closes_a_batch_and_one_that_has_passed_is_refused() {
    let engine = engine();
    let options = BatcherOptions { delay_ns: LONG, ..BatcherOptions::default() };
    let batcher = Batcher::new(&dense(&engine, &[4]), &options).unwrap();
    assert_eq!(batcher.reserve(&rows(1), monotonic_ns() - 1).unwrap_err().status, Status::Expired);
    // Without the deadline it would wait for an hour. Who wakes too late to meet it says so.
    let ran = (0..20).any(|_| {
        let Ok(slot) = committed(&batcher, &[[3.0, 4.0]], monotonic_ns() + 200_000_000, 0) else { return false };
        let ended = batcher.wait(slot, u64::MAX);
        assert!(matches!(&ended, Ok(Status::Ok)) || ended.as_ref().is_err_and(|error| error.status == Status::Expired));
        batcher.release(slot).unwrap();
        ended.is_ok()
    });
    assert!(ran);
}

#[test]
fn the_queue_is_bounded_and_memory_is_used_again_after_release_only() {
    let engine = engine();
    let options = BatcherOptions { contexts: 1, delay_ns: LONG, ..BatcherOptions::default() };
    let batcher = Batcher::new(&dense(&engine, &[2]), &options).unwrap();
    let slots = [[1.0, 2.0], [3.0, 4.0]].map(|row| committed(&batcher, &[row], 0, 0).unwrap());
    for slot in slots {
        batcher.wait(slot, u64::MAX).unwrap();
        assert_eq!(batcher.reserve(&rows(1), 0).unwrap_err().status, Status::Again);
        assert_eq!(batcher.commit(slot, 0).unwrap_err().status, Status::WrongState);
        assert_eq!(batcher.abandon(slot).unwrap_err().status, Status::WrongState);
        batcher.release(slot).unwrap();
        assert_eq!(batcher.release(slot).unwrap_err().status, Status::StaleHandle);
    }
    let slot = batcher.reserve(&rows(1), 0).unwrap();
    assert_eq!(batcher.release(slot).unwrap_err().status, Status::WrongState);
    assert_eq!(batcher.poll(slot).unwrap_err().status, Status::WrongState);
    assert_eq!(batcher.output_view(slot, 0).unwrap_err().status, Status::WrongState);
    assert_eq!(batcher.input_view(slot, 1).unwrap_err().status, Status::InvalidArgument);
    for shape in [vec![3, 2], vec![0, 2], vec![1, 3], vec![1]] {
        assert_eq!(batcher.reserve(&Bucket::new([shape]), 0).unwrap_err().status, Status::NoBucket);
    }
    assert_eq!(batcher.reserve(&Bucket::default(), 0).unwrap_err().status, Status::ShapeMismatch);
    let stats = batcher.stats();
    assert_eq!((stats.totals.refused, stats.occupancy.forming, stats.classes), (2, 1, 1));
}

#[test]
fn who_cancels_or_waits_no_longer_is_told_at_once() {
    let engine = engine();
    let options = BatcherOptions { delay_ns: LONG, ..BatcherOptions::default() };
    let batcher = Batcher::new(&dense(&engine, &[4]), &options).unwrap();
    let waited = committed(&batcher, &[[1.0, 1.0]], 0, 1).unwrap();
    let parked = committed(&batcher, &[[2.0, 2.0]], 0, 2).unwrap();
    batcher.park(parked).unwrap();
    assert_eq!(batcher.poll(parked).unwrap(), Status::Parked);
    assert_eq!(batcher.output_view(waited, 0).unwrap_err().status, Status::InFlight);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| batcher.wait(waited, u64::MAX).unwrap_err().status);
        // Long enough for the waiter to be asleep, most of the time.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(batcher.cancel(waited).unwrap(), Status::Ok);
        assert_eq!(waiter.join().unwrap(), Status::Cancelled);
    });
    assert_eq!(batcher.cancel(waited).unwrap(), Status::TooLate);
    assert_eq!(batcher.cancel(parked).unwrap(), Status::Ok);
    let mut completions = Vec::new();
    assert_eq!(engine.reap(9, |completion| completions.push(completion)), 1);
    assert_eq!(
        (completions[0].token, completions[0].status, completions[0].context),
        (2, Status::Cancelled, batcher.id())
    );
    let late = committed(&batcher, &[[3.0, 3.0]], 0, 3).unwrap();
    assert_eq!(batcher.wait(late, 1).unwrap_err().status, Status::Timeout);
    // Their rows are padding now, and the fourth is alone.
    let alone = committed(&batcher, &[[5.0, 6.0]], 0, 4).unwrap();
    batcher.wait(alone, u64::MAX).unwrap();
    assert_eq!(read(&batcher, alone, 0).unwrap(), expected([5.0, 6.0]));
    [waited, parked, late, alone].iter().for_each(|&slot| batcher.release(slot).unwrap());
    assert_eq!((batcher.stats().occupancy.slots, batcher.stats().totals.cancelled), (0, 3));
}

#[test]
fn requests_of_other_lengths_form_batches_of_their_own() {
    let engine = engine();
    let shapes = |batch: usize, length: usize| Bucket::new([vec![batch, length], vec![batch, length]]);
    let paddings = vec![batch(0), batch(1), masked(0, 1, 1000.0), masked(1, 1, 0.0)];
    let buckets = vec![shapes(4, 8), shapes(2, 8), shapes(4, 3)];
    let model =
        engine.load_bytes(models::masked_mean(), &ModelOptions { buckets, paddings, ..ModelOptions::default() });
    let options = BatcherOptions { contexts: 4, delay_ns: 2_000_000, ..BatcherOptions::default() };
    let batcher = Batcher::new(&model.unwrap(), &options).unwrap();
    assert_eq!(batcher.stats().classes, 2);
    let mut random = Random(3);
    for round in 0..60 {
        let mut slots = Vec::new();
        for _ in 0..4 {
            let length = 1 + random.below(8) as usize;
            let values: Vec<f32> = (0..length).map(|_| random.float()).collect();
            let slot = loop {
                let slot = match batcher.reserve(&shapes(1, length), 0) {
                    Ok(slot) => slot,
                    Err(error) => panic!("round {round}: {error}"),
                };
                let written = write(&batcher, slot, 0, &values)
                    .and_then(|()| write(&batcher, slot, 1, &vec![1.0f32; length]))
                    .and_then(|()| batcher.commit(slot, 0));
                if written.is_ok() {
                    break slot;
                }
                batcher.abandon(slot).unwrap();
            };
            slots.push((slot, values));
        }
        for (slot, values) in slots {
            batcher.wait(slot, u64::MAX).unwrap();
            let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
            let got = read(&batcher, slot, 0).unwrap();
            assert!(got.len() == 1 && (f64::from(got[0]) - mean).abs() < 1e-5, "{got:?} {mean}");
            batcher.release(slot).unwrap();
        }
    }
    assert!(batcher.stats().totals.batches < 240, "some requests shared a batch");
}

#[test]
fn a_model_whose_rows_are_not_proved_independent_is_refused() {
    let engine = engine();
    let buckets = || vec![Bucket::new([vec![4, 2]])];
    let model =
        engine.load_bytes(models::dense(), &ModelOptions { buckets: buckets(), ..ModelOptions::default() }).unwrap();
    let error = Batcher::new(&model, &BatcherOptions::default()).err().unwrap();
    assert!(error.status == Status::Unsupported && error.message.contains("independent"), "{error}");
    let paddings = vec![batch(0)];
    let options = ModelOptions { buckets: buckets(), paddings, ..ModelOptions::default() };
    let error = engine.load_bytes(models::plain_mean(0), &options).err().unwrap();
    assert!(error.status == Status::Unsupported && error.message.contains("mixes the rows"), "{error}");
    let two = vec![Bucket::new([vec![4, 3], vec![4, 3]])];
    let model = engine.load_bytes(models::masked_mean(), &ModelOptions { buckets: two, ..options });
    // The mask has no batch of its own, so the model is refused when it is loaded, or by the batcher.
    let refused = model.and_then(|model| Batcher::new(&model, &BatcherOptions::default()));
    assert_eq!(refused.err().unwrap().status, Status::Unsupported);
    let options = BatcherOptions { contexts: 65, ..BatcherOptions::default() };
    let refused = Batcher::new(&dense(&engine, &[2]), &options).err().unwrap();
    assert_eq!(refused.status, Status::InvalidArgument);
}

#[test]
fn one_request_in_flight_at_a_time_serves_all_batches() {
    let options = EngineOptions { device: "host".into(), in_flight_max: 1, ..EngineOptions::default() };
    let engine = Engine::open(&options).unwrap();
    let options = BatcherOptions { contexts: 4, delay_ns: LONG, ..BatcherOptions::default() };
    let batcher = Batcher::new(&dense(&engine, &[1]), &options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let batcher = &batcher;
            scope.spawn(move || {
                for round in 0..200 {
                    let row = [thread as f32, round as f32];
                    let slot = committed(batcher, &[row], 0, 0).unwrap();
                    batcher.wait(slot, u64::MAX).unwrap();
                    assert_eq!(read(batcher, slot, 0).unwrap(), expected(row));
                    batcher.release(slot).unwrap();
                }
            });
        }
    });
    assert_eq!(batcher.stats().totals.completed, 800);
}

#[test]
fn closing_while_slots_are_out_tells_everyone_and_leaves_nothing() {
    for round in 0..20 {
        let engine = engine();
        let model = dense(&engine, &[4]);
        let options = BatcherOptions {
            contexts: 3,
            delay_ns: if round % 2 == 0 { LONG } else { 50_000 },
            ..BatcherOptions::default()
        };
        let batcher = Batcher::new(&model, &options).unwrap();
        let waited = committed(&batcher, &[[1.0, 1.0]], 0, 0).unwrap();
        let parked: Vec<u64> = (1..7)
            .filter(|&token| {
                let slot = committed(&batcher, &[[token as f32, 1.0]], 0, token);
                slot.is_ok_and(|slot| batcher.park(slot).is_ok())
            })
            .collect();
        let _ = batcher.reserve(&rows(1), 0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| batcher.wait(waited, u64::MAX));
            batcher.close();
            let ended = waiter.join().unwrap();
            assert!(matches!(ended, Ok(Status::Ok)) || ended.is_err_and(|error| error.status == Status::Cancelled));
        });
        assert!(batcher.reserve(&rows(1), 0).is_err());
        drop(batcher);
        let told = RefCell::new(Vec::new());
        eventually(|| {
            engine.reap(64, |completion| told.borrow_mut().push(completion));
            told.borrow().len() == parked.len()
        });
        let told = told.into_inner();
        let mut tokens: Vec<u64> = told.iter().map(|completion| completion.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, parked, "one completion for each");
        assert!(told.iter().all(|it| matches!(it.status, Status::Ok | Status::Cancelled)), "{told:?}");
        eventually(|| engine.stats().contexts == 0 && engine.stats().batchers == 0 && engine.stats().pinned_bytes == 0);
        assert_eq!(engine.stats().threads, 1, "the engine's timer, which sleeps");
        drop(model);
    }
}

/// What becomes of a request of the storm.
fn storm_request(batcher: &Batcher, random: &mut Random, token: u64, wakes: &Wakes) -> Status {
    let count = 1 + random.below(3) as usize;
    let values: Vec<[f32; 2]> = (0..count).map(|_| [random.below(100) as f32, random.below(100) as f32]).collect();
    let deadline_ns = if random.below(3) == 0 { monotonic_ns() + random.below(3_000_000) } else { 0 };
    let slot = match batcher.reserve(&rows(count), deadline_ns) {
        Ok(slot) => slot,
        Err(error) => return error.status,
    };
    let written = write(batcher, slot, 0, values.as_flattened());
    if random.below(8) == 0 || written.is_err() {
        batcher.abandon(slot).unwrap();
        return Status::WrongState;
    }
    if let Err(error) = batcher.commit(slot, token) {
        batcher.abandon(slot).unwrap();
        return error.status;
    }
    let is_parked = random.below(2) == 0;
    let wake = is_parked.then(|| {
        let (sender, receiver) = mpsc::channel();
        wakes.lock().unwrap().insert(token, sender);
        batcher.park(slot).unwrap();
        receiver
    });
    if random.below(8) == 0 {
        batcher.cancel(slot).unwrap();
    }
    let status = match &wake {
        Some(receiver) => receiver.recv().unwrap(),
        None if random.below(16) == 0 => batcher.wait(slot, random.below(100_000)).unwrap_or_else(|it| it.status),
        None => batcher.wait(slot, u64::MAX).unwrap_or_else(|error| error.status),
    };
    // A timeout of 0 only looks.
    let status = if status == Status::Pending {
        batcher.wait(slot, u64::MAX).unwrap_or_else(|error| error.status)
    } else {
        status
    };
    if status == Status::Ok {
        let sum: Vec<f32> = values.iter().flat_map(|&row| expected(row)).collect();
        assert_eq!(read(batcher, slot, 0).unwrap(), sum);
    }
    batcher.release(slot).unwrap();
    status
}

type Wakes = Mutex<HashMap<u64, mpsc::Sender<Status>>>;

/// `STREAMINFER_STORM=100000` runs more requests per thread.
#[test]
fn a_storm_of_deadlines_abandons_and_cancels_corrupts_nothing() {
    let rounds = std::env::var("STREAMINFER_STORM").ok().and_then(|text| text.parse().ok()).unwrap_or(1_500u64);
    let engine = engine();
    let options = BatcherOptions { contexts: 3, delay_ns: 300_000, ..BatcherOptions::default() };
    let batcher = Batcher::new(&dense(&engine, &[1, 2, 4, 8]), &options).unwrap();
    let wakes = Wakes::default();
    let is_over = Arc::new(AtomicBool::new(false));
    let counts = std::thread::scope(|scope| {
        let reaper = scope.spawn(|| {
            while !is_over.load(SeqCst) {
                let mut ended = Vec::new();
                engine.reap(16, |completion| ended.push(completion));
                for completion in &ended {
                    let sender =
                        wakes.lock().unwrap().remove(&completion.token).expect("one completion for each promise");
                    sender.send(completion.status).unwrap();
                }
                if ended.is_empty() {
                    std::thread::yield_now();
                }
            }
        });
        let workers: Vec<_> = (0..6u64)
            .map(|worker| {
                let (batcher, wakes) = (&batcher, &wakes);
                scope.spawn(move || {
                    let mut random = Random(worker + 1);
                    let mut counts: HashMap<Status, u64> = HashMap::new();
                    for round in 0..rounds {
                        let status = storm_request(batcher, &mut random, worker << 32 | round, wakes);
                        *counts.entry(status).or_default() += 1;
                    }
                    counts
                })
            })
            .collect();
        let mut total: HashMap<Status, u64> = HashMap::new();
        for worker in workers {
            for (status, count) in worker.join().unwrap() {
                *total.entry(status).or_default() += count;
            }
        }
        is_over.store(true, SeqCst);
        reaper.join().unwrap();
        total
    });
    let known = [Status::Ok, Status::Again, Status::Expired, Status::Cancelled, Status::Timeout, Status::WrongState];
    assert!(counts.keys().all(|status| known.contains(status)), "{counts:?}");
    assert!(counts[&Status::Ok] > 0 && counts[&Status::Cancelled] > 0, "{counts:?}");
    assert!(wakes.lock().unwrap().is_empty());
    eventually(|| batcher.stats().occupancy == Default::default());
    assert_eq!(engine.stats().completions, 0);
}

/// Relative L2 difference.
fn difference(exact: &[f32], other: &[f32]) -> f64 {
    assert_eq!(exact.len(), other.len());
    let (mut difference, mut norm) = (0f64, 0f64);
    for (&exact, &other) in exact.iter().zip(other) {
        difference += f64::from(exact - other).powi(2);
        norm += f64::from(exact).powi(2);
    }
    (difference / norm).sqrt()
}

fn cached(name: &str) -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(".cache/models/{name}.onnx"));
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("STREAMINFER_REQUIRE").is_none(), "{} is missing", path.display());
    println!("{name} is left out: {} is missing", path.display());
    None
}

#[test]
fn batched_rows_of_a_classifier_equal_single_rows() {
    let Some(path) = cached("mlp") else { return };
    let engine = engine();
    let buckets = [1, 2, 8].map(|rows| Bucket::new([vec![rows, 784]])).to_vec();
    let model =
        engine.load(path, &ModelOptions { buckets, paddings: vec![batch(0)], ..ModelOptions::default() }).unwrap();
    let mut single = model
        .context(&ContextOptions { buckets: vec![Bucket::new([vec![1, 784]])], ..ContextOptions::default() })
        .unwrap();
    single.prepare().unwrap();
    let options = BatcherOptions { delay_ns: LONG, ..BatcherOptions::default() };
    let batcher = Batcher::new(&model, &options).unwrap();
    let mut random = Random(5);
    let rows: Vec<Vec<f32>> = (0..8).map(|_| (0..784).map(|_| random.float()).collect()).collect();
    let slots: Vec<SlotId> = rows
        .iter()
        .map(|row| {
            let slot = batcher.reserve(&Bucket::new([vec![1, 784]]), 0).unwrap();
            write(&batcher, slot, 0, row).unwrap();
            batcher.commit(slot, 0).unwrap();
            slot
        })
        .collect();
    for (slot, row) in slots.into_iter().zip(&rows) {
        batcher.wait(slot, u64::MAX).unwrap();
        single.input_mut::<f32>(0).unwrap()[..784].copy_from_slice(row);
        single.run().unwrap();
        let got = read(&batcher, slot, 0).unwrap();
        let relative = difference(&single.output::<f32>(0).unwrap()[..got.len()], &got);
        assert!(relative < 1e-5, "{relative:e}: {:?} {got:?}", single.output::<f32>(0).unwrap());
        batcher.release(slot).unwrap();
    }
}

#[test]
fn batched_rows_of_an_encoder_equal_single_rows() {
    let Some(path) = cached("minilm") else { return };
    let engine = engine();
    let shapes = |batch: usize, length: usize| Bucket::new(vec![vec![batch, length]; 3]);
    // Tokens, mask and types, along batch and length.
    let paddings = (0..3).flat_map(|input| [batch(input), masked(input, 1, 0.0)]).collect();
    let options = ModelOptions { buckets: vec![shapes(3, 16)], paddings, ..ModelOptions::default() };
    let model = engine.load(&path, &options).unwrap();
    assert_eq!(model.inputs().iter().map(|input| input.name.as_str()).collect::<Vec<_>>()[1], "attention_mask");
    let batcher =
        Batcher::new(&model, &BatcherOptions { contexts: 1, delay_ns: LONG, ..BatcherOptions::default() }).unwrap();
    let mut random = Random(11);
    let rows: Vec<Vec<i64>> =
        [5usize, 16, 9].map(|length| (0..length).map(|_| 1_000 + random.below(20_000) as i64).collect()).to_vec();
    let slots: Vec<SlotId> = rows
        .iter()
        .map(|row| {
            let slot = batcher.reserve(&shapes(1, row.len()), 0).unwrap();
            write(&batcher, slot, 0, row).unwrap();
            write(&batcher, slot, 1, &vec![1i64; row.len()]).unwrap();
            write(&batcher, slot, 2, &vec![0i64; row.len()]).unwrap();
            batcher.commit(slot, 0).unwrap();
            slot
        })
        .collect();
    for (slot, row) in slots.into_iter().zip(&rows) {
        batcher.wait(slot, u64::MAX).unwrap();
        let exact =
            engine.load(&path, &ModelOptions { buckets: vec![shapes(1, row.len())], ..ModelOptions::default() });
        let mut single = exact.unwrap().context(&ContextOptions::default()).unwrap();
        single.prepare().unwrap();
        single.input_mut::<i64>(0).unwrap()[..row.len()].copy_from_slice(row);
        single.input_mut::<i64>(1).unwrap()[..row.len()].fill(1);
        single.input_mut::<i64>(2).unwrap()[..row.len()].fill(0);
        single.run().unwrap();
        let got = read(&batcher, slot, 0).unwrap();
        let relative = difference(&single.output::<f32>(0).unwrap()[..got.len()], &got);
        assert!(relative < 1e-4, "length {}: {relative:e}", row.len());
        batcher.release(slot).unwrap();
    }
}

#[test]
fn a_c_program_batches_from_many_threads() {
    let folder = native::folder("batcher");
    let model = folder.join("dense.onnx");
    std::fs::write(&model, models::dense()).unwrap();
    let program = native::program(&folder, "batcher", include_str!("abi/batcher.c"));
    let report = native::run(std::process::Command::new(program).arg(&model));
    assert_eq!(report.trim(), "800 requests, 50 of them parked; freed with 3 slots out");
}
