//! Who waits leaves the driver alone, and so does everyone else while a request runs.

use super::*;
use libloading::os::unix::Library;
use streaminfer::runtime::{Controller, Event};

/// What a submit is: the context made current, the launch, the former context made current.
const SUBMIT_CALLS: usize = 3;

/// How often a thread has called the simulated driver.
struct Calls {
    of_thread: unsafe extern "C" fn() -> usize,
}

impl Calls {
    fn find() -> Calls {
        // SAFETY: the engine has loaded it already.
        let library = unsafe { Library::new("libcuda.so.1") }.unwrap();
        // SAFETY: the simulated driver's function of that name has this type; the library stays loaded.
        let of_thread = unsafe { *library.get::<unsafe extern "C" fn() -> usize>(b"fakecudaCallsOfThread").unwrap() };
        std::mem::forget(library);
        Calls { of_thread }
    }

    /// How many calls this thread makes in `body`, and what that gives.
    fn during<T>(&self, body: impl FnOnce() -> T) -> (usize, T) {
        // SAFETY: it takes nothing and reads a number.
        let count = || unsafe { (self.of_thread)() };
        let before = count();
        let given = body();
        (count() - before, given)
    }
}

/// Every way to learn of an end, on contexts of every policy.
fn waits(gpu: &Engine, context: &mut Context, calls: &Calls) -> Result<()> {
    let options = SubmitOptions { token: 3, deadline_ns: 0 };
    let begin = |context: &mut Context| {
        let (count, sequence) = calls.during(|| context.submit(&options));
        assert_eq!(count, SUBMIT_CALLS, "a submit");
        sequence
    };
    let sequence = begin(context)?;
    let (count, waited) = calls.during(|| context.wait(sequence, u64::MAX));
    assert_eq!((count, waited?), (0, Status::Ok), "a wait");
    let sequence = begin(context)?;
    let (count, polled) = calls.during(|| -> Result<()> {
        while context.poll(sequence)? == Status::Pending {}
        context.timings().map(|_| ())
    });
    polled?;
    assert_eq!(count, 0, "polls");
    let sequence = begin(context)?;
    let (count, parked) = calls.during(|| {
        let parked = context.park(sequence);
        while parked.is_ok() && gpu.reap(1, |completion| assert_eq!(completion.token, 3)) == 0 {
            std::thread::yield_now();
        }
        parked
    });
    parked?;
    assert_eq!(count, 0, "a parked request's owner");
    let sequence = begin(context)?;
    let controller: Controller = context.controller();
    let (count, _) = calls.during(|| (controller.cancel(sequence).is_ok(), context.wait(sequence, u64::MAX).is_ok()));
    assert_eq!(count, 0, "a cancelled request's owner");
    // It drains until the library hears of the end.
    let drained = loop {
        let (count, begun) = calls.during(|| context.submit(&options));
        match begun {
            Err(error) if error.status == Status::Draining => assert_eq!(count, 0, "a refusal"),
            begun => break begun?,
        }
        std::thread::yield_now();
    };
    context.wait(drained, u64::MAX)?;
    Ok(())
}

/// Requests of every policy, events and batches: which thread calls the driver, and how often.
pub fn quiet() -> Result<()> {
    let gpu = gpu()?;
    let calls = Calls::find();
    let (count, _) = calls.during(|| load(&gpu, Precision::Fp32).map(drop));
    assert!(count > 0, "loading a model takes calls, and they are counted");
    let model = load(&gpu, Precision::Fp32)?;
    let rounds: usize = env::var("ROUNDS").unwrap().parse().unwrap();
    for wait in [WaitPolicy::Hybrid, WaitPolicy::Spin, WaitPolicy::Yield, WaitPolicy::Block] {
        let mut context = prepared(&model, &ContextOptions { wait, ..ContextOptions::default() })?;
        for _ in 0..rounds {
            waits(&gpu, &mut context, &calls)?;
        }
    }
    let (mut first, mut second) =
        (prepared(&model, &ContextOptions::default())?, prepared(&model, &ContextOptions::default())?);
    let event = Event::new(&gpu)?;
    for _ in 0..rounds {
        let sequence = first.submit(&SubmitOptions::default())?;
        let (count, ordered) = calls.during(|| event.record(&first).and_then(|()| event.wait(&mut second)));
        ordered?;
        assert_eq!(count, 0, "an event");
        let (count, run) = calls.during(|| second.run());
        run?;
        assert!((SUBMIT_CALLS..=SUBMIT_CALLS + 1).contains(&count), "{count} calls: a launch, and a wait on the GPU");
        first.wait(sequence, u64::MAX)?;
    }
    Ok(())
}

#[test]
fn who_waits_calls_no_driver_and_a_request_is_one_launch() {
    let (few, many) = (counts("quiet", &[("ROUNDS", "5")]), counts("quiet", &[("ROUNDS", "25")]));
    let more = |name: &str| many.get(name).copied().unwrap_or(0) - few.get(name).copied().unwrap_or(0);
    // Four policies of five requests, and two on either side of an event.
    assert_eq!(more("cuGraphLaunch"), 20 * (4 * 5 + 2));
    // Whatever else was called more often, by any thread: a request that follows an event may wait for it on the GPU, and the watchdog asks of
    // requests that take longer than 100 ms, as any may on a busy machine.
    let others: Vec<_> = many.keys().filter(|name| more(name) > 0).map(String::as_str).collect();
    let known = ["cuCtxPushCurrent_v2", "cuGraphLaunch", "cuStreamQuery", "cuStreamWaitValue64_v2", "kernels"];
    assert!(others.iter().all(|name| known.contains(name)), "{others:?}");
    assert_eq!(more("cuCtxPushCurrent_v2"), more("cuGraphLaunch"), "contexts are made current for launches only");
}
