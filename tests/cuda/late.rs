//! Requests that take long: what others wait for meanwhile, and what the watchdog makes of the driver's answers.

use super::fake::{Fake, PRODUCTS, REDUCTIONS};
use super::*;
use streaminfer::runtime::Event;

/// Contexts that take long: of one product, and of one sum.
fn late(gpu: &Engine) -> Result<[Context; 2]> {
    let load = |bytes, shape: &[usize]| {
        let buckets = vec![Bucket::new([shape.to_vec()])];
        gpu.load_bytes(bytes, &ModelOptions { buckets, ..ModelOptions::default() })
    };
    let models = [load(models::heavy(1), &[256, 256])?, load(models::plain_mean(1), &[3, 40])?];
    let [product, sum] = models.each_ref().map(|model| prepared(model, &ContextOptions::default()));
    Ok([product?, sum?])
}

/// A request waits for two others. The one that it waits for last ends first, and its context goes, as its event does: another context takes its
/// completion record, in which nothing has ended.
pub fn recycled() -> Result<()> {
    let gpu = gpu()?;
    let fake = Fake::find();
    let model = gpu.load_bytes(models::affine(), &ModelOptions::default())?;
    let mut after = prepared(&model, &ContextOptions::default())?;
    for round in 0..3 {
        let [mut product, mut sum] = late(&gpu)?;
        // Ordinals that a fresh record is far from.
        for _ in 0..3 {
            sum.run()?;
        }
        fake.hold(PRODUCTS | REDUCTIONS);
        let sequences = [product.submit(&SubmitOptions::default())?, sum.submit(&SubmitOptions::default())?];
        for context in [&product, &sum] {
            let event = Event::new(&gpu)?;
            event.record(context)?;
            event.wait(&mut after)?;
        }
        let last = after.submit(&SubmitOptions::default()).map(|sequence| (after, sequence));
        fake.hold(PRODUCTS);
        assert_eq!(sum.wait(sequences[1], u64::MAX)?, Status::Ok);
        drop(sum);
        let next = model.context(&ContextOptions::default())?;
        fake.hold(0);
        assert_eq!(product.wait(sequences[0], u64::MAX)?, Status::Ok);
        after = match last {
            Ok((mut after, sequence)) => {
                assert_eq!(after.wait(sequence, u64::MAX)?, Status::Ok);
                after
            }
            // The context is gone, and its waits are in the stream.
            Err(error) => {
                println!("scenario: refused in round {round}: {error}");
                prepared(&model, &ContextOptions::default())?
            }
        };
        // Comes behind everything that waits.
        prepared(&model, &ContextOptions::default())?.run()?;
        drop(next);
    }
    drop(after);
    let start = Instant::now();
    while gpu.stats().contexts > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", gpu.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[test]
fn a_wait_outlives_the_context_that_it_waits_for() {
    succeed("recycled", &[]);
}

#[test]
fn waits_of_a_refused_request_outlive_the_contexts_that_they_are_for() {
    let launches = calls("recycled")["cuGraphLaunch"];
    let mut refused = 0;
    for nth in 1..=launches {
        for symbol in ["cuGraphLaunch", "cuStreamWaitValue64_v2"] {
            let text = said(&play("recycled", &[("FAKECUDA_FAIL", &format!("{symbol}:{nth}:2"))]));
            assert!(text.contains("scenario: "), "{symbol} {nth}: {text}");
            refused += usize::from(text.contains("refused in round") && text.contains("scenario: done"));
        }
    }
    // Of three rounds one launch and two waits each.
    assert_eq!(refused, 9);
}

/// A request that does not end, while the driver answers to the watchdog in its way. Then it ends.
pub fn doubtful() -> Result<()> {
    let gpu = gpu()?;
    let [mut product, mut sum] = late(&gpu)?;
    let fake = Fake::find();
    fake.hold(PRODUCTS);
    let sequence = product.submit(&SubmitOptions::default())?;
    if env::var_os("ENDS").is_some() {
        // As long as several looks of the watchdog take.
        std::thread::sleep(Duration::from_millis(600));
        fake.hold(0);
        assert_eq!(product.wait(sequence, u64::MAX)?, Status::Ok);
        assert_eq!(gpu.stats().device_state, DeviceState::Ok);
        return sum.run();
    }
    let error = product.wait(sequence, u64::MAX).err().unwrap();
    assert_eq!(error.status, Status::DeviceLost, "{error}");
    assert_eq!(gpu.stats().device_state, DeviceState::Dead);
    assert_eq!(sum.run().err().unwrap().status, Status::DeviceLost);
    Ok(())
}

#[test]
fn an_error_that_the_watchdog_gets_again_and_again_is_the_end_of_the_gpu() {
    for fail in ["cuStreamQuery:1:214", "cuStreamQuery:1:220", "cuStreamQuery:1:719", "cuStreamQuery:1:999:sticky"] {
        succeed("doubtful", &[("FAKECUDA_FAIL", fail)]);
    }
    // Once, or while a graph is captured elsewhere in the process: the GPU may be well.
    for fail in ["cuStreamQuery:1:999", "cuStreamQuery:1:901:sticky"] {
        succeed("doubtful", &[("FAKECUDA_FAIL", fail), ("ENDS", "1")]);
    }
    // The watchdog cannot even make the GPU's context its own. All who came before it did; without them there is no request.
    let pushes = counts("doubtful", &[("ENDS", "1")])["cuCtxPushCurrent_v2"];
    let fails = |nth: &usize| {
        let fail = format!("cuCtxPushCurrent_v2:{nth}:999:sticky");
        said(&play("doubtful", &[("FAKECUDA_FAIL", &fail)])).contains("scenario: done")
    };
    assert!((1..=pushes).any(|nth| fails(&nth)), "nobody is told");
}
