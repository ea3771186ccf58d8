//! Requests that are not launched: no permit is left, or the driver refuses.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering::Acquire};

fn limited(in_flight_max: usize) -> Result<Engine> {
    Engine::open(&EngineOptions { device: "cuda:0".into(), in_flight_max, ..EngineOptions::default() })
}

/// Waits as a host that spins by itself, so that the library does not hear of the end.
fn unheard(context: &Context, sequence: u32) -> Result<()> {
    // SAFETY: the record lives as long as its context; the device stores this number at once.
    let done = unsafe { &*context.record_address()?.cast::<AtomicU32>() };
    while done.load(Acquire) != sequence {
        std::thread::yield_now();
    }
    Ok(())
}

/// More contexts than permits; ended requests that nobody has looked at; batches that find no permit.
pub fn crowd() -> Result<()> {
    let (gpu, other) = (limited(2)?, limited(1)?);
    let model = load(&gpu, Precision::Fp32)?;
    let (mut alone, mut elsewhere) = (
        prepared(&model, &ContextOptions::default())?,
        prepared(&load(&other, Precision::Fp32)?, &ContextOptions::default())?,
    );
    for round in 0..20 {
        let sequence = alone.submit(&SubmitOptions::default())?;
        unheard(&alone, sequence)?;
        // The only permit of this engine is the other engine's request's, which has ended.
        answer(&mut elsewhere, round)?;
        assert_eq!(alone.wait(sequence, u64::MAX)?, Status::Ok);
    }
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let run = |mut context: Context| {
            let (refused, gpu) = (&refused, &gpu);
            scope.spawn(move || -> Result<()> {
                let mut rounds = 0;
                while rounds < 40 {
                    match context.submit(&SubmitOptions::default()) {
                        Ok(sequence) => {
                            let flying = gpu.stats().in_flight;
                            assert!(flying <= 2, "{flying} in flight");
                            context.wait(sequence, u64::MAX)?;
                            rounds += 1;
                        }
                        Err(error) if error.status == Status::Again => {
                            assert!(error.message.contains("allows 2"), "{error}");
                            refused.fetch_add(1, Relaxed);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })
        };
        let contexts = (0..5).map(|_| prepared(&model, &ContextOptions::default())).collect::<Result<Vec<_>>>()?;
        let threads: Vec<_> = contexts.into_iter().map(run).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    assert!(refused.load(Relaxed) > 0, "five contexts have found two permits each time");
    assert_eq!((gpu.stats().in_flight, other.stats().in_flight), (0, 0));
    batches(&other)
}

/// Batches of a batcher with more contexts than there are permits come later, and all come.
fn batches(gpu: &Engine) -> Result<()> {
    let paddings = vec![Padding { kind: PaddingKind::Batch, dimension: 0, input: 0, axis: 0, value: 0.0 }];
    let buckets = [1, 2].map(|rows| Bucket::new([vec![rows, 2]])).to_vec();
    let model = gpu.load_bytes(models::dense(), &ModelOptions { buckets, paddings, ..ModelOptions::default() })?;
    let options = BatcherOptions { contexts: 3, delay_ns: 20_000_000, ..BatcherOptions::default() };
    let batcher = Batcher::new(&model, &options)?;
    let request = |x: f32| -> Result<()> {
        let slot = loop {
            match committed(&batcher, x) {
                // All batches are taken, or this thread was not run while its batch closed.
                Err(error) if [Status::Again, Status::Expired].contains(&error.status) => std::thread::yield_now(),
                committed => break committed?,
            }
        };
        collected(&batcher, slot, x)
    };
    std::thread::scope(|scope| {
        let run = |thread: usize| {
            let request = &request;
            scope.spawn(move || (0..25).try_for_each(|round| request((thread * 25 + round) as f32 / 8.0)))
        };
        let threads: Vec<_> = (0..6).map(run).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    assert_eq!(gpu.stats().in_flight, 0);
    Ok(())
}

/// Three contexts in a chain, the last two with a sum that they carry from request to request.
struct Chain {
    source: Context,
    sums: [Context; 2],
}

impl Chain {
    fn new(gpu: &Engine) -> Result<Chain> {
        let load = |bytes| gpu.load_bytes(bytes, &ModelOptions::default());
        let (affine, accumulator) = (load(models::affine())?, load(models::accumulator())?);
        let source = prepared(&affine, &ContextOptions::default())?;
        let linked = |source: &Context| -> Result<Context> {
            let mut context = accumulator.context(&ContextOptions::default())?;
            context.link(0, source, 0)?;
            context.link_self(1, 0)?;
            context.prepare()?;
            Ok(context)
        };
        let first = linked(&source)?;
        let second = linked(&first)?;
        Ok(Chain { source, sums: [first, second] })
    }

    /// Rounds of all three, one after the other, with what comes out if a refused request is as if it had never been.
    fn in_turn(&mut self, rounds: usize) -> Result<usize> {
        let Chain { source, sums: [first, second] } = self;
        let (mut y, mut expected, mut refused) = (0.0, [0.0; 2], 0);
        let mut is_refused = |error: streaminfer::error::Error| {
            refused += 1;
            if matches!(error.status, Status::Driver | Status::OutOfMemory) { Ok(()) } else { Err(error) }
        };
        for round in 0..rounds {
            source.input_mut::<f32>(0)?.fill(round as f32);
            let begun = source.submit(&SubmitOptions::default());
            match first.run() {
                Ok(()) => expected[0] += if begun.is_ok() { 2.0 * round as f32 + 1.0 } else { y },
                Err(error) => is_refused(error)?,
            }
            match begun {
                Ok(sequence) => {
                    assert_eq!(source.wait(sequence, u64::MAX)?, Status::Ok);
                    y = 2.0 * round as f32 + 1.0;
                }
                Err(error) => is_refused(error)?,
            }
            match second.run() {
                Ok(()) => expected[1] += expected[0],
                Err(error) => is_refused(error)?,
            }
            for (context, wanted) in [&*first, &*second].into_iter().zip(expected) {
                assert_eq!(context.output::<f32>(0)?, [wanted; 4], "round {round}, {refused} refused");
            }
        }
        Ok(refused)
    }

    /// All three at once, on threads of their own; every one comes to its end.
    fn at_once(self, rounds: usize) -> Result<usize> {
        let Chain { source, sums: [first, second] } = self;
        let run = |mut context: Context| {
            std::thread::spawn(move || {
                let failed = |_: &usize| context.run().is_err();
                (0..rounds).filter(failed).count()
            })
        };
        let threads = [source, first, second].map(run);
        Ok(threads.into_iter().map(|thread| thread.join().unwrap()).sum())
    }
}

/// A chain of linked contexts; the environment lets launches fail.
pub fn linked() -> Result<()> {
    let gpu = gpu()?;
    let rounds: usize = env::var("ROUNDS").unwrap().parse().unwrap();
    let mut chain = Chain::new(&gpu)?;
    let refused = chain.in_turn(rounds)?;
    let refused = refused + chain.at_once(4 * rounds)?;
    println!("scenario: {refused} refused");
    let start = Instant::now();
    while gpu.stats().contexts > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", gpu.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(gpu.stats().in_flight, 0, "permits of refused requests");
    let mut after = Chain::new(&gpu)?;
    assert_eq!(after.in_turn(rounds.min(2))?, 0, "later requests are as good as any");
    Ok(())
}

#[test]
fn requests_that_find_no_permit_are_refused_and_leave_none_behind() {
    for seed in ["1", "2", "3"] {
        succeed("crowd", &[("FAKECUDA_SEED", seed)]);
    }
}

#[test]
fn a_refused_launch_of_linked_contexts_is_as_if_it_had_never_been() {
    let launches = |rounds: &str| counts("linked", &[("ROUNDS", rounds)])["cuGraphLaunch"];
    // The second chain is prepared as the first one is: as many launches before the rounds as after those of none.
    let prepared = launches("0") / 2;
    assert!(launches("4") > prepared + 4 * 3 + 16 * 3, "{prepared}");
    for (symbol, first, last) in [
        // Each of the three in the first rounds, then some while all run at once.
        ("cuGraphLaunch", prepared + 1, prepared + 6),
        ("cuGraphLaunch", prepared + 20, prepared + 24),
        ("cuStreamWaitValue64_v2", 1, 4),
    ] {
        for nth in first..=last {
            for code in ["2", "999"] {
                let fail = format!("{symbol}:{nth}:{code}");
                let text = said(&play("linked", &[("ROUNDS", "4"), ("FAKECUDA_FAIL", &fail)]));
                assert!(text.contains("scenario: done"), "{fail}: {text}");
                let is_counted = text.contains("scenario: 1 refused");
                assert!(is_counted || symbol != "cuGraphLaunch", "{fail}: {text}");
            }
        }
    }
    // From here on all are refused, or the GPU is lost: everyone is told, nobody waits for good.
    let lost = (prepared + 20..prepared + 32).map(|nth| format!("cuGraphLaunch:{nth}:700"));
    let waits = ["1:700", "4:700"].map(|fail| format!("cuStreamWaitValue64_v2:{fail}"));
    for fail in lost.chain([format!("cuGraphLaunch:{}:999:sticky", prepared + 3)]).chain(waits) {
        let text = said(&play("linked", &[("ROUNDS", "4"), ("FAKECUDA_FAIL", &fail)]));
        assert!(text.contains("scenario: ") && !text.contains("scenario: done"), "{fail}: {text}");
    }
}

/// A model whose tiles the tensor memory accelerator brings. A context that cannot be prepared leaves the engine as it was: the next one
/// serves.
pub fn brought() -> Result<()> {
    let gpu = gpu()?;
    let options = ModelOptions { precision: Precision::Fp16, ..ModelOptions::default() };
    let model = gpu.load_bytes(models::heavy(2), &options)?;
    let first = prepared(&model, &ContextOptions::default()).err();
    assert_eq!(gpu.stats().contexts, 0);
    let mut context = prepared(&model, &ContextOptions::default())?;
    let x: Vec<f32> = (0..256 * 256).map(|index| (index % 2039) as f32).collect();
    context.input_mut::<f32>(0)?.copy_from_slice(&x);
    context.run()?;
    assert!(context.output::<f32>(0)? == x, "the product with the identity");
    first.map_or(Ok(()), Err)
}

#[test]
fn a_tensor_map_may_be_refused() {
    let calls = counts("brought", &[]);
    assert_eq!(calls["cuTensorMapEncodeTiled"], 8, "two factors of two products of two contexts");
    let waited = calls["cuStreamSynchronize"];
    for nth in 1..=4 {
        for code in ["1", "2", "801", "999"] {
            let fail = format!("cuTensorMapEncodeTiled:{nth}:{code}");
            let (text, calls) = counted("brought", &[("FAKECUDA_FAIL", &fail)]);
            // Of the two waits of a context that is prepared one is left: its memory is cleared until then, and goes back to the pool.
            assert_eq!(calls["cuStreamSynchronize"], waited - 1, "{fail}");
            assert!(text.contains("cuTensorMapEncodeTiled") && !text.contains("scenario: done"), "{fail}: {text}");
        }
    }
    // Refused again, or the GPU is lost.
    for fail in ["cuTensorMapEncodeTiled:1:1:sticky", "cuTensorMapEncodeTiled:2:700"] {
        let text = said(&play("brought", &[("FAKECUDA_FAIL", fail)]));
        assert!(text.contains("scenario: ") && !text.contains("scenario: done"), "{fail}: {text}");
    }
}
