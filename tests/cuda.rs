//! The GPU's path without a GPU: scenarios run in processes of their own, on the simulated driver of tests/fakecuda, which computes with
//! the reference twins and ends a process that misuses it.
#![cfg(target_os = "linux")]

#[path = "cuda/checker.rs"]
mod checker;
#[path = "cuda/fake.rs"]
mod fake;
#[path = "cuda/forked.rs"]
mod forked;
#[path = "cuda/isolation.rs"]
mod isolation;
#[path = "cuda/late.rs"]
mod late;
#[path = "cuda/memory.rs"]
mod memory;
mod models;
mod native;
#[path = "cuda/quiet.rs"]
mod quiet;
#[path = "cuda/refused.rs"]
mod refused;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, fs};
use streaminfer::error::{Result, Status};
use streaminfer::runtime::{
    Batcher, BatcherOptions, Bucket, Context, ContextOptions, CopyEngines, CopyOptions, DeviceState, Engine,
    EngineOptions, Memory, Model, ModelOptions, Padding, PaddingKind, Pages, Precision, Priority, RowLayout, SlotId,
    SubmitOptions, WaitPolicy,
};

/// A folder in which the simulated driver is called `libcuda.so.1`.
fn driver() -> &'static Path {
    static DRIVER: OnceLock<PathBuf> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let build = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "fakecuda"]).status().unwrap();
        assert!(build.success(), "the simulated driver does not build");
        let target = Path::new(env!("CARGO_BIN_EXE_streaminfer")).ancestors().nth(2).unwrap();
        let folder = target.join(format!("fakecuda-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let link = folder.join("libcuda.so.1");
        let _ = fs::remove_file(&link);
        symlink(target.join("debug/examples/libfakecuda.so"), &link).unwrap();
        folder
    })
}

/// Runs a scenario in a process of its own.
fn play(scenario: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["scenario", "--exact", "--nocapture"]);
    command.env("SCENARIO", scenario).env("LD_LIBRARY_PATH", driver()).env("RUST_BACKTRACE", "0");
    command.envs(environment.iter().copied());
    ended(command)
}

/// The output of a process, which must end within a minute.
fn ended(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// What a process said, after a check that it ended by itself.
fn said(output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.signal(), None, "{text}");
    assert!(!text.contains("fakecuda:") && !text.contains("panicked"), "{text}");
    text
}

fn succeed(scenario: &str, environment: &[(&str, &str)]) {
    let text = said(&play(scenario, environment));
    assert!(text.contains("scenario: done"), "{environment:?}: {text}");
}

/// What a scenario said, and what the driver counted meanwhile: calls of each function, kernels, and streams of each priority.
fn counted(scenario: &str, environment: &[(&str, &str)]) -> (String, BTreeMap<String, usize>) {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let log = driver().join(format!("{scenario}.{}.log", RUNS.fetch_add(1, Relaxed)));
    let output = play(scenario, &[environment, &[("FAKECUDA_LOG", log.to_str().unwrap())]].concat());
    let (said, text) = (said(&output), fs::read_to_string(&log).unwrap());
    let lines = text.lines().map(|line| line.rsplit_once(' ').unwrap());
    (said, lines.map(|(name, n)| (name.into(), n.parse().unwrap())).collect())
}

/// The same of a scenario that succeeds.
fn counts(scenario: &str, environment: &[(&str, &str)]) -> BTreeMap<String, usize> {
    let (text, counts) = counted(scenario, environment);
    assert!(text.contains("scenario: done"), "{environment:?}: {text}");
    counts
}

/// How often each function was called in a run of a scenario.
fn calls(scenario: &str) -> BTreeMap<String, usize> {
    counts(scenario, &[]).into_iter().filter(|(name, _)| name.starts_with("cu")).collect()
}

/// The scenario that the environment names; without one there is nothing to do.
#[test]
fn scenario() {
    let Ok(name) = env::var("SCENARIO") else { return };
    let played = match name.as_str() {
        "serve" => serve(gpu()),
        "copied" => serve(copying()),
        "many" => many(),
        "churn" => churn(),
        "lost" => lost(),
        "batch" => batch(),
        "partition" => isolation::partition(),
        "permits" => isolation::permits(),
        "quiet" => quiet::quiet(),
        "recycled" => late::recycled(),
        "doubtful" => late::doubtful(),
        "crowd" => refused::crowd(),
        "linked" => refused::linked(),
        "brought" => refused::brought(),
        "priorities" => isolation::priorities(),
        "lend" => memory::lend(),
        "leave" => memory::leave(),
        "forked" => forked::forked(),
        "launches" => checker::launches(),
        "rows" => checker::rows(),
        "afford" => memory::afford(),
        "upload" => memory::upload(),
        other => panic!("there is no scenario {other}"),
    };
    match played {
        Ok(()) => println!("scenario: done"),
        Err(error) => println!("scenario: {error}"),
    }
}

fn gpu() -> Result<Engine> {
    Engine::open(&EngineOptions { device: "cuda:0".into(), ..EngineOptions::default() })
}

fn load(engine: &Engine, precision: Precision) -> Result<Model> {
    let buckets = [2, 5].map(|batch| Bucket::new([vec![batch, 2]])).to_vec();
    engine.load_bytes(models::dense(), &ModelOptions { precision, buckets, ..ModelOptions::default() })
}

fn prepared(model: &Model, options: &ContextOptions) -> Result<Context> {
    let mut context = model.context(options)?;
    context.prepare()?;
    Ok(context)
}

/// One request on inputs that depend on `round`, and its outputs.
fn answer(context: &mut Context, round: usize) -> Result<Vec<f32>> {
    for (index, x) in context.input_mut::<f32>(0)?.iter_mut().enumerate() {
        *x = (index * 7 + round * 3) as f32 / 4.0 - 2.0;
    }
    context.run()?;
    Ok(context.output::<f32>(0)?.to_vec())
}

/// Whose inputs and outputs are all moved by copy engines.
fn copying() -> Result<Engine> {
    let copy_engines = Some(CopyEngines { inputs_from: 1, outputs_from: 1 });
    Engine::open(&EngineOptions { device: "cuda:0".into(), copy_engines, ..EngineOptions::default() })
}

/// Both buckets, again and again, as the host computes them.
fn serve(gpu: Result<Engine>) -> Result<()> {
    let gpu = gpu?;
    let host = Engine::open(&EngineOptions { device: "host".into(), ..EngineOptions::default() })?;
    let mut expected = prepared(&load(&host, Precision::Fp32)?, &ContextOptions::default())?;
    let mut context = prepared(&load(&gpu, Precision::Fp32)?, &ContextOptions::default())?;
    for round in 0..4 {
        let bucket = Bucket::new([vec![if round % 2 == 0 { 2 } else { 5 }, 2]]);
        expected.select(&bucket)?;
        context.select(&bucket)?;
        assert_eq!(answer(&mut context, round)?, answer(&mut expected, round)?);
        let timings = context.timings()?;
        assert!(timings.submit_ns <= timings.stamps.done_ns && timings.sequence == round as u32 + 1);
    }
    Ok(())
}

/// Every precision, several threads with contexts of their own.
fn many() -> Result<()> {
    let gpu = gpu()?;
    for precision in Precision::ALL {
        let model = load(&gpu, precision)?;
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let wait = [WaitPolicy::Hybrid, WaitPolicy::Spin, WaitPolicy::Yield, WaitPolicy::Block][thread];
                let mut context = prepared(&model, &ContextOptions { wait, ..ContextOptions::default() })?;
                Ok(std::thread::spawn(move || -> Result<()> {
                    for round in 0..20 {
                        let got = answer(&mut context, round)?;
                        for (row, got) in got.chunks(3).enumerate() {
                            let x = [0, 1].map(|column| ((row * 2 + column) * 7 + round * 3) as f32 / 4.0 - 2.0);
                            let products =
                                [x[0] + 4.0 * x[1], 2.0 * x[0] + 5.0 * x[1], 3.0 * x[0] + 6.0 * x[1] - 100.0];
                            for (got, exact) in got.iter().zip(products) {
                                assert!((got - exact.max(0.0)).abs() <= exact.abs() / 100.0, "{got} {exact}");
                            }
                        }
                    }
                    Ok(())
                }))
            })
            .collect::<Result<_>>()?;
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())?;
    }
    Ok(())
}

/// Contexts come and go, some with a request in flight.
fn churn() -> Result<()> {
    let gpu = gpu()?;
    let model = load(&gpu, Precision::Fp16)?;
    for round in 0..100 {
        let mut context = prepared(&model, &ContextOptions::default())?;
        if round % 3 == 0 {
            context.submit(&SubmitOptions::default())?;
        } else {
            answer(&mut context, round)?;
        }
    }
    let start = Instant::now();
    while gpu.stats().contexts > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", gpu.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(gpu.stats().in_flight, 0);
    Ok(())
}

/// The GPU dies while requests are in flight: everyone who waits is told, and the process goes on with the host.
fn lost() -> Result<()> {
    let gpu = gpu()?;
    let model = load(&gpu, Precision::Fp32)?;
    let policies = [WaitPolicy::Spin, WaitPolicy::Yield, WaitPolicy::Block, WaitPolicy::Hybrid];
    let mut contexts = Vec::new();
    for wait in policies {
        contexts.push(prepared(&model, &ContextOptions { wait, ..ContextOptions::default() })?);
    }
    let mut parked = prepared(&model, &ContextOptions::default())?;
    let sequence = parked.submit(&SubmitOptions { token: 9, deadline_ns: 0 })?;
    // What the GPU finished before it died is told as it was.
    let was_parked = parked.park(sequence).is_ok();
    let waiters: Vec<_> = contexts
        .into_iter()
        .map(|mut context| {
            std::thread::spawn(move || {
                loop {
                    if let Err(error) = context.run() {
                        return error.status;
                    }
                }
            })
        })
        .collect();
    let start = Instant::now();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), Status::DeviceLost);
    }
    while was_parked && gpu.reap(1, |completion| assert_eq!(completion.token, 9)) == 0 {
        std::thread::yield_now();
        assert!(start.elapsed() < Duration::from_secs(20), "nobody told the parked request's owner");
    }
    assert_eq!(gpu.stats().device_state, DeviceState::Dead);
    assert_eq!(load(&gpu, Precision::Fp32).err().unwrap().status, Status::DeviceLost);
    let host = Engine::open(&EngineOptions { device: "host".into(), ..EngineOptions::default() })?;
    answer(&mut prepared(&load(&host, Precision::Fp32)?, &ContextOptions::default())?, 0)?;
    Ok(())
}

/// A row of a batch, written and committed.
fn committed(batcher: &Batcher, x: f32) -> Result<SlotId> {
    let slot = batcher.reserve(&Bucket::new([vec![1, 2]]), 0)?;
    let written = batcher.input_view(slot, 0).and_then(|view| {
        // SAFETY: two floats, which are ours until the commit.
        unsafe { view.address.cast::<[f32; 2]>().write([x, 1.0]) };
        batcher.commit(slot, 0)
    });
    if written.is_err() {
        batcher.abandon(slot)?;
    }
    written.map(|()| slot)
}

/// The end of a row that was committed, and a check of its result.
fn collected(batcher: &Batcher, slot: SlotId, x: f32) -> Result<()> {
    let ended = batcher.wait(slot, u64::MAX);
    if ended.is_ok() {
        // SAFETY: three floats, which are ours until the release.
        let got = unsafe { batcher.output_view(slot, 0)?.address.cast::<[f32; 3]>().read() };
        assert_eq!(got, [x + 4.0, 2.0 * x + 5.0, 0.0]);
    }
    batcher.release(slot)?;
    ended.map(|_| ())
}

/// Several threads on one batcher. A batch that fails fails those whose rows it has, and the next one is as good as any. Without
/// THREADS there are no batches.
fn batch() -> Result<()> {
    let gpu = gpu()?;
    let paddings = vec![Padding { kind: PaddingKind::Batch, dimension: 0, input: 0, axis: 0, value: 0.0 }];
    let buckets = [1, 4].map(|rows| Bucket::new([vec![rows, 2]])).to_vec();
    let model = gpu.load_bytes(models::dense(), &ModelOptions { buckets, paddings, ..ModelOptions::default() })?;
    let batcher =
        Batcher::new(&model, &BatcherOptions { contexts: 3, delay_ns: 20_000_000, ..BatcherOptions::default() })?;
    let threads = env::var("THREADS").map_or(0, |text| text.parse().unwrap());
    let request = |x: f32| -> Result<()> {
        let slot = loop {
            match committed(&batcher, x) {
                // This thread was not run while its batch closed.
                Err(error) if error.status == Status::Expired => {}
                committed => break committed?,
            }
        };
        collected(&batcher, slot, x)
    };
    let failures: usize = std::thread::scope(|scope| {
        let run = |thread: usize| {
            let request = &request;
            scope.spawn(move || (0..20).filter(|round| request((thread * 20 + round) as f32 / 8.0).is_err()).count())
        };
        let threads: Vec<_> = (0..threads).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("scenario: {failures} failures");
    if threads > 0 { request(1.0) } else { Ok(()) }
}

#[test]
fn batches_on_a_gpu_come_back_to_their_owners() {
    for seed in ["1", "2"] {
        let text = said(&play("batch", &[("THREADS", "3"), ("FAKECUDA_SEED", seed)]));
        assert!(text.contains("scenario: 0 failures") && text.contains("scenario: done"), "{text}");
    }
    // A launch that the driver refuses, after those of the preparation, of the proof of padding and of the calibration.
    let third = calls("batch")["cuGraphLaunch"] + 3;
    let text = said(&play("batch", &[("THREADS", "3"), ("FAKECUDA_FAIL", &format!("cuGraphLaunch:{third}:2"))]));
    assert!(text.contains("scenario: done"), "{text}");
    let failures = text.split_once("scenario: ").unwrap().1.split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!((1..=3).contains(&failures), "the requests of one batch fail: {text}");
}

#[test]
fn answers_are_those_of_the_host() {
    succeed("serve", &[]);
    succeed("copied", &[]);
}

#[test]
fn every_precision_and_wait_policy_under_several_schedules() {
    for seed in ["1", "2", "3"] {
        succeed("many", &[("FAKECUDA_SEED", seed)]);
    }
}

#[test]
fn contexts_that_are_dropped_in_flight_leave_nothing() {
    succeed("churn", &[]);
}

#[test]
fn a_gpu_that_dies_in_flight_releases_every_waiter() {
    // The first kernels run while contexts are prepared: two buckets of three kernels in five contexts.
    for nth in [40, 47, 60] {
        for code in ["700", "719"] {
            succeed("lost", &[("FAKECUDA_FAIL", &format!("kernel:{nth}:{code}"))]);
        }
    }
}

/// Lets calls of a function fail in a scenario, which has to end by itself. Answers how often it ended with an error.
fn sweep(scenario: &str, symbol: &str, count: usize) -> usize {
    let mut failures = 0;
    for nth in [1, 2, count / 2, count] {
        for code in ["2", "999", "700"] {
            for sticky in ["", ":sticky"] {
                let text = said(&play(scenario, &[("FAKECUDA_FAIL", &format!("{symbol}:{nth}:{code}{sticky}"))]));
                assert!(text.contains("scenario: "), "{symbol} {nth} {code}{sticky}: {text}");
                failures += usize::from(!text.contains("scenario: done"));
            }
        }
    }
    failures
}

#[test]
fn every_driver_call_may_fail() {
    let served = calls("serve");
    let failures: usize = served.iter().map(|(symbol, &count)| sweep("serve", symbol, count)).sum();
    assert!(failures > 100, "only {failures} failures were seen");
    // What only copy engines need.
    let copied = calls("copied").into_iter().filter(|(symbol, _)| !served.contains_key(symbol));
    let failures: Vec<_> = copied.map(|(symbol, count)| (sweep("copied", &symbol, count), symbol)).collect();
    assert!(failures.len() == 1 && failures[0].0 > 10, "{failures:?}");
}

#[test]
fn after_a_fatal_fault_the_driver_is_left_alone() {
    let log = driver().join("fatal.log");
    let environment = [("FAKECUDA_FAIL", "cuGraphLaunch:3:700"), ("FAKECUDA_LOG", log.to_str().unwrap())];
    assert!(said(&play("serve", &environment)).contains("DeviceLost"));
    assert!(!log.exists(), "a dead GPU's context was released");
}

/// The command line with this environment: status and standard error.
fn opened(environment: &[(&str, &str)], device: &str, directory: &Path) -> (bool, String) {
    let model = driver().join("dense.onnx");
    fs::write(&model, models::dense()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_streaminfer"));
    command.args(["bench", model.to_str().unwrap(), "--shape", "x=2x2", "--requests", "3", "--device", device]);
    let output = command.current_dir(directory).envs(environment.iter().copied()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_keeps_a_gpu_from_use_is_said_and_auto_takes_the_host() {
    let folder = driver().to_str().unwrap();
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("LD_LIBRARY_PATH", "/nonexistent")], "no NVIDIA driver"),
        (&[("LD_LIBRARY_PATH", folder), ("FAKECUDA_DEVICES", "0")], "shows none"),
        (&[("LD_LIBRARY_PATH", folder), ("FAKECUDA_CAPABILITY", "7.5")], "7.5"),
        (
            &[("LD_LIBRARY_PATH", folder), ("FAKECUDA_VERSION", "12090")],
            "CUDA 12.9, and this library needs one for 13.0",
        ),
        (&[("LD_LIBRARY_PATH", folder), ("FAKECUDA_FAIL", "cuInit:1:100")], "CUDA_ERROR_NO_DEVICE"),
        (&[("LD_LIBRARY_PATH", folder), ("FAKECUDA_FAIL", "cuDevicePrimaryCtxRetain:1:2")], "out of memory"),
    ];
    for (environment, expected) in cases {
        let (success, text) = opened(environment, "cuda:0", driver());
        assert!(!success && text.contains(expected), "{text}");
        let (success, text) = opened(environment, "auto", driver());
        assert!(success && text.contains("host") && text.contains(expected), "{text}");
    }
    let (success, text) = opened(&[("LD_LIBRARY_PATH", folder)], "auto", driver());
    assert!(success && !text.contains("host"), "{text}");
    let (success, _) = opened(&[("LD_LIBRARY_PATH", folder)], "GPU-73696d75", driver());
    assert!(success, "a shortened UUID");
}

#[test]
fn a_driver_in_the_working_directory_is_not_loaded() {
    for search_path in ["", ".", "/usr/lib:"] {
        let (success, text) = opened(&[("LD_LIBRARY_PATH", search_path)], "cuda:0", driver());
        assert!(!success && text.contains("NoDevice"), "'{search_path}': {text}");
    }
}
