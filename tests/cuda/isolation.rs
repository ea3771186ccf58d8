//! What models, contexts and engines on one GPU take from each other.

use super::*;

/// Models on multiprocessors of their own, at every priority.
pub fn partition() -> Result<()> {
    let gpu = gpu()?;
    let host = Engine::open(&EngineOptions { device: "host".into(), ..EngineOptions::default() })?;
    let mut expected = prepared(&load(&host, Precision::Fp32)?, &ContextOptions::default())?;
    let model = |multiprocessors| {
        let buckets = [2, 5].map(|batch| Bucket::new([vec![batch, 2]])).to_vec();
        gpu.load_bytes(models::dense(), &ModelOptions { multiprocessors, buckets, ..ModelOptions::default() })
    };
    let (small, large, whole) = (model(43)?, model(88)?, model(0)?);
    let sizes = [&small, &large, &whole].map(|model| model.info().multiprocessors);
    assert_eq!(sizes, [44, 88, 132], "multiprocessors come in twos");
    let none_left = model(2).err().unwrap();
    assert!(none_left.status == Status::LimitReached && none_left.message.contains("0 of 132 are left"), "{none_left}");
    let too_many = model(133).err().unwrap();
    assert!(too_many.status == Status::TooLarge && too_many.message.contains("132"), "{too_many}");
    let far_too_many = model(1 << 20).err().unwrap();
    assert_eq!(far_too_many.status, Status::TooLarge, "{far_too_many}");
    for (round, model) in [&small, &large, &whole].into_iter().enumerate() {
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            let mut context = prepared(model, &ContextOptions { priority, ..ContextOptions::default() })?;
            assert_eq!(answer(&mut context, round)?, answer(&mut expected, round)?);
        }
    }
    // The model's last context gives the multiprocessors back, though its last request is still to come to its end.
    let mut last = prepared(&small, &ContextOptions::default())?;
    drop(small);
    assert_eq!(model(44).err().unwrap().status, Status::LimitReached);
    last.submit(&SubmitOptions::default())?;
    drop(last);
    let start = Instant::now();
    while let Err(error) = model(44) {
        let is_slow = start.elapsed() > Duration::from_secs(20);
        if error.status != Status::LimitReached || is_slow {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Two engines have one GPU, on which one request hangs.
pub fn permits() -> Result<()> {
    let [first, second] = [0, 1].map(|in_flight_max| {
        Engine::open(&EngineOptions { device: "cuda:0".into(), in_flight_max, ..EngineOptions::default() })
    });
    let (first, second) = (first?, second?);
    let mut hangs = prepared(&load(&first, Precision::Fp32)?, &ContextOptions::default())?;
    let mut waits = prepared(&load(&second, Precision::Fp32)?, &ContextOptions::default())?;
    hangs.submit(&SubmitOptions::default())?;
    let refusal = waits.submit(&SubmitOptions::default()).err().map(|error| error.status);
    assert_eq!(refusal, Some(Status::Again), "the other engine's request counts");
    assert_eq!((first.stats().in_flight, second.stats().in_flight), (1, 0));
    println!("scenario: done");
    // The request never ends, and dropping the engine would wait for it.
    std::process::exit(0)
}

/// Contexts or batchers of each priority, as many as the environment says.
pub fn priorities() -> Result<()> {
    let gpu = gpu()?;
    let numbers: Vec<usize> = env::var("COUNTS").unwrap().split(',').map(|number| number.parse().unwrap()).collect();
    let (whom, is_partition) = (env::var("WHOM").unwrap(), env::var("WHOM").unwrap() == "partition");
    let paddings = vec![Padding { kind: PaddingKind::Batch, dimension: 0, input: 0, axis: 0, value: 0.0 }];
    let buckets = vec![Bucket::new([vec![4, 2]])];
    let multiprocessors = if is_partition { 8 } else { 0 };
    let options = ModelOptions { buckets, paddings, multiprocessors, ..ModelOptions::default() };
    let model = gpu.load_bytes(models::dense(), &options)?;
    for (priority, contexts) in [Priority::Low, Priority::Normal, Priority::High].into_iter().zip(numbers) {
        if whom == "batcher" && contexts > 0 {
            Batcher::new(&model, &BatcherOptions { contexts, priority, ..BatcherOptions::default() })?;
        }
        for _ in 0..if whom == "batcher" { 0 } else { contexts } {
            answer(&mut prepared(&model, &ContextOptions { priority, ..ContextOptions::default() })?, 1)?;
        }
    }
    Ok(())
}

#[test]
fn streams_have_the_priorities_that_are_asked_for() {
    for (whom, place) in [("contexts", "stream"), ("partition", "green stream"), ("batcher", "stream")] {
        let with = |numbers: &str| counts("priorities", &[("WHOM", whom), ("COUNTS", numbers)]);
        let before = with("0,0,0");
        let mut more = with("1,2,4");
        more.retain(|name, count| {
            *count -= before.get(name).copied().unwrap_or(0);
            name.contains("stream") && *count > 0
        });
        let expected = [(0, 1), (-2, 2), (-5, 4)].map(|(level, count)| (format!("{place} of priority {level}"), count));
        assert_eq!(more, BTreeMap::from(expected), "{whom}");
    }
}

#[test]
fn every_driver_call_for_a_partition_may_fail() {
    let served = calls("serve");
    let own = calls("partition").into_iter().filter(|(symbol, _)| !served.contains_key(symbol));
    let own: Vec<_> = own.collect();
    assert_eq!(own.len(), 7, "{own:?}");
    let failures: usize = own.iter().map(|(symbol, count)| sweep("partition", symbol, *count)).sum();
    assert!(failures > 50, "only {failures} failures were seen");
}

#[test]
fn engines_of_one_gpu_share_its_permits() {
    // Twelve kernels run while the contexts are prepared: two buckets of three kernels each.
    succeed("permits", &[("FAKECUDA_FAIL", "kernel:13:hang")]);
}

#[test]
fn models_have_multiprocessors_of_their_own_until_their_last_context_is_gone() {
    for seed in ["1", "2", "3"] {
        succeed("partition", &[("FAKECUDA_SEED", seed)]);
    }
    let text = said(&play("partition", &[("FAKECUDA_FAIL", "cuDeviceGetDevResource:1:801")]));
    assert!(text.contains("Unsupported"), "{text}");
}
