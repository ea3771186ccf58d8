//! What a forked child may do with its parent's GPU: ask, and free. The simulated driver ends a child that calls it, and a child has none of the
//! memory that the driver has mapped.

use super::fake::{Fake, QUERIES, WORK};
use super::*;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use streaminfer::runtime::{Event, SlotId};

/// Runs `body` in a child, which has to come to its end.
fn in_a_child(body: impl FnOnce()) {
    // SAFETY: the child leaves without any handler; the library promises that it may be used there.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: an alarm ends a child that waits for good.
        unsafe { libc::alarm(30) };
        let ended = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: as above.
        unsafe { libc::_exit(ended.is_err().into()) };
    }
    let mut status = 0;
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child ended with {status:#x}");
}

/// Everything that a program may have of a GPU.
struct Estate {
    gpu: Engine,
    model: Model,
    padded: Model,
    context: Context,
    reader: Context,
    unprepared: Context,
    event: Event,
    batcher: Batcher,
    pinned: Memory,
    lent: Memory,
    rows: Memory,
    /// In flight.
    sequence: u32,
    slot: SlotId,
}

impl Estate {
    fn new() -> Result<(Estate, Fake)> {
        let gpu = gpu()?;
        let model = load(&gpu, Precision::Fp32)?;
        let paddings = vec![Padding { kind: PaddingKind::Batch, dimension: 0, input: 0, axis: 0, value: 0.0 }];
        let buckets = [1, 4].map(|rows| Bucket::new([vec![rows, 2]])).to_vec();
        let padded = gpu.load_bytes(models::dense(), &ModelOptions { buckets, paddings, ..ModelOptions::default() })?;
        let affine = gpu.load_bytes(models::affine(), &ModelOptions::default())?;
        let batcher = Batcher::new(&padded, &BatcherOptions { delay_ns: 1, ..BatcherOptions::default() })?;
        let (pinned, lent) = (Memory::pinned(&gpu, 4096)?, Memory::registered(&gpu, Pages::map(4096)?.into())?);
        let rows = Memory::rows(&gpu, RowLayout { rows: 2, row_bytes: 8, element_bytes: None })?;
        let mut context = model.context(&ContextOptions::default())?;
        context.attach_input(0, &lent, 0)?;
        context.attach_output(0, &pinned, 0)?;
        context.prepare()?;
        let source = prepared(&affine, &ContextOptions::default())?;
        let mut reader = affine.context(&ContextOptions::default())?;
        reader.link(0, &source, 0)?;
        reader.prepare()?;
        let (unprepared, event) = (model.context(&ContextOptions::default())?, Event::new(&gpu)?);
        let fake = Fake::find();
        fake.hold(WORK | QUERIES);
        context.input_mut::<f32>(0)?.fill(1.0);
        let sequence = context.submit(&SubmitOptions::default())?;
        event.record(&context)?;
        let slot = loop {
            let slot = batcher.reserve(&Bucket::new([vec![1, 2]]), 0)?;
            match batcher.commit(slot, 0) {
                // This thread was not run while its batch closed.
                Err(error) if error.status == Status::Expired => batcher.abandon(slot)?,
                committed => break committed.map(|()| slot)?,
            }
        };
        let estate = Estate {
            gpu,
            model,
            padded,
            context,
            reader,
            unprepared,
            event,
            batcher,
            pinned,
            lent,
            rows,
            sequence,
            slot,
        };
        Ok((estate, fake))
    }

    /// What a child is told.
    fn ask(&mut self) {
        let Estate { gpu, model, padded, context, event, batcher, slot, sequence, .. } = self;
        let (sequence, slot) = (*sequence, *slot);
        fn lost<T>(what: &str, answer: Result<T>) {
            assert_eq!(answer.err().map(|error| error.status), Some(Status::DeviceLost), "{what}");
        }
        lost("poll", context.poll(sequence));
        lost("wait", context.wait(sequence, u64::MAX));
        lost("submit", context.submit(&SubmitOptions::default()));
        lost("view", context.input_view(0).map(|_| ()));
        lost("cancel", context.controller().cancel(sequence));
        lost("prepare", self.unprepared.prepare());
        lost("run", self.reader.run());
        lost("record", event.record(context));
        lost("follow", event.wait(context));
        lost("load", load(gpu, Precision::Fp32));
        lost("add", padded.add_bucket(&Bucket::new([vec![3, 2]])));
        lost("context", model.context(&ContextOptions::default()));
        lost("batcher", Batcher::new(model, &BatcherOptions::default()));
        lost("reserve", batcher.reserve(&Bucket::new([vec![1, 2]]), 0));
        lost("slot's wait", batcher.wait(slot, u64::MAX));
        lost("slot's poll", batcher.poll(slot));
        lost("slot's cancel", batcher.cancel(slot));
        lost("slot's release", batcher.release(slot));
        lost("pinned", Memory::pinned(gpu, 4096));
        lost("registered", Pages::map(4096).and_then(|pages| Memory::registered(gpu, pages.into())));
        lost("rows", Memory::rows(gpu, RowLayout { rows: 2, row_bytes: 8, element_bytes: None }));
        lost("write", self.rows.write(&CopyOptions::default(), &[0; 16]));
        assert_eq!(gpu.stats().device_state, DeviceState::Dead);
        assert_eq!((gpu.reap(1, |_| {}), model.info().buckets), (0, 2));
        // A bucket is being added by a thread that the child has not.
        assert_eq!((padded.info().buckets, batcher.stats()), (0, Default::default()));
        assert_eq!(self.lent.info().attached, 1);
        let refusal = super::gpu().err().expect("the driver does not work in a child");
        assert!(refusal.status == Status::NoDevice && refusal.message.contains("forked"), "{refusal}");
        let own = Engine::open(&EngineOptions::default()).unwrap();
        let model = load(&own, Precision::Fp32).unwrap();
        answer(&mut prepared(&model, &ContextOptions::default()).unwrap(), 0).unwrap();
    }

    fn into_objects(self) -> Vec<Box<dyn Any>> {
        let Estate { gpu, model, padded, context, reader, unprepared, event, batcher, pinned, lent, rows, .. } = self;
        let contexts: [Box<dyn Any>; 3] = [Box::new(context), Box::new(reader), Box::new(unprepared)];
        let memories: [Box<dyn Any>; 3] = [Box::new(pinned), Box::new(lent), Box::new(rows)];
        let others: [Box<dyn Any>; 5] =
            [Box::new(gpu), Box::new(model), Box::new(padded), Box::new(event), Box::new(batcher)];
        others.into_iter().chain(contexts).chain(memories).collect()
    }
}

/// Children ask and free in every order, while requests are in flight, a bucket is being added, and the engine's thread is inside of a call of
/// the driver with a lock.
pub fn forked() -> Result<()> {
    let (mut estate, fake) = Estate::new()?;
    let padded = estate.padded.clone();
    let adding = std::thread::spawn(move || padded.add_bucket(&Bucket::new([vec![8, 2]])));
    // Two requests and the one of the proof that the new bucket takes.
    fake.await_held(WORK, 3);
    fake.await_held(QUERIES, 1);
    in_a_child(|| estate.ask());
    let (sequence, slot) = (estate.sequence, estate.slot);
    let mut objects = estate.into_objects();
    let count = objects.len();
    for first in 0..count {
        in_a_child(|| {
            objects.rotate_left(first);
            if first % 2 == 0 {
                objects.reverse();
            }
            objects.drain(..).for_each(drop);
        });
    }
    // The parent's requests go on as if nothing had been.
    fake.hold(0);
    adding.join().unwrap()?;
    for object in objects {
        if let Some(batcher) = object.downcast_ref::<Batcher>() {
            assert_eq!(batcher.wait(slot, u64::MAX)?, Status::Ok);
            batcher.release(slot)?;
        }
        if let Ok(mut context) = object.downcast::<Context>()
            && context.poll(sequence).is_ok()
        {
            assert_eq!(context.wait(sequence, u64::MAX)?, Status::Ok);
            assert_eq!(context.output::<f32>(0)?[..3], [5.0, 7.0, 0.0]);
        }
    }
    Ok(())
}

#[test]
fn a_forked_child_is_told_and_frees_and_leaves_the_driver_alone() {
    for seed in ["1", "2"] {
        succeed("forked", &[("FAKECUDA_SEED", seed)]);
    }
}

#[test]
fn exit_fork_and_dlclose_may_come_while_work_is_in_flight_on_a_gpu() {
    let folder = native::folder("endings-cuda");
    let [slow, quick] = [("slow", models::heavy(20_000)), ("quick", models::affine())].map(|(name, model)| {
        let path = folder.join(name).with_extension("onnx");
        fs::write(&path, model).unwrap();
        path
    });
    let program = native::program(&folder, "endings", include_str!("../abi/endings.c"));
    for what in ["exit", "exit-elsewhere", "fork", "unload"] {
        let mut command = Command::new(&program);
        command.arg(what).arg(&slow).arg(native::library()).arg("cuda:0").arg(&quick);
        command.env("LD_LIBRARY_PATH", driver());
        native::run(&mut command);
    }
}
