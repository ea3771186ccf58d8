//! Memory that a host program takes from a GPU or lends it.

use super::*;

/// A context's input and output in memory of the host program's, and rows of device memory.
pub fn lend() -> Result<()> {
    let gpu = gpu()?;
    let model = load(&gpu, Precision::Fp32)?;
    let mut pages = vec![Memory::pinned(&gpu, 4096)?];
    pages.push(Memory::registered(&gpu, Pages::map(2 * 4096)?.into())?);
    for memory in pages {
        let mut context = model.context(&ContextOptions::default())?;
        context.attach_input(0, &memory, 64)?;
        context.attach_output(0, &memory, 1024)?;
        context.prepare()?;
        let begin = memory.info().address.expect("host memory").addr();
        for round in 0..3 {
            let got = answer(&mut context, round)?;
            assert_eq!(got[..3], expected(round));
            let places = (context.input_view(0)?.address.addr(), context.output_view(0)?.address.addr());
            assert_eq!(places, (begin + 64, begin + 1024));
        }
        // What is freed first stays until the context is gone.
        drop(memory);
        answer(&mut context, 3)?;
    }
    // The owner of a context's memory is the one who sees its last request end.
    while gpu.stats().memories > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    for element_bytes in [None, Some(8)] {
        let rows = Memory::rows(&gpu, RowLayout { rows: 5, row_bytes: 100, element_bytes })?;
        assert_eq!(rows.info().pitch_bytes, if element_bytes.is_some() { 512 } else { 100 });
        let mut locked = Memory::pinned(&gpu, 600)?;
        let locked = locked.bytes_mut()?;
        locked.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
        let apart = CopyOptions { host_pitch_bytes: 120, ..CopyOptions::default() };
        rows.write(&apart, locked)?;
        let mut back = [0; 500];
        rows.read(&CopyOptions::default(), &mut back)?;
        assert!(back.chunks(100).zip(locked.chunks(120)).all(|(back, locked)| back == &locked[..100]));
        let part = CopyOptions { first_row: 1, rows: 2, first_byte: 10, row_bytes: 3, host_pitch_bytes: 4 };
        rows.write(&part, &[1; 7])?;
        rows.read(&CopyOptions { first_row: 2, rows: 1, ..CopyOptions::default() }, &mut back[..100])?;
        assert_eq!((back[9], back[10], back[12], back[13]), (locked[249], 1, 1, locked[253]));
    }
    Ok(())
}

/// Weights without elements; then weights of which one may not come to the GPU: the model has none of them then, and later all.
pub fn upload() -> Result<()> {
    let gpu = gpu()?;
    // A file leaves an extent of 0 open.
    let buckets = vec![Bucket::new([vec![2, 0]])];
    let nothing = gpu.load_bytes(models::nothing(), &ModelOptions { buckets, ..ModelOptions::default() })?;
    let mut context = prepared(&nothing, &ContextOptions::default())?;
    context.run()?;
    assert_eq!(context.output::<f32>(0)?, [0.0; 6]);
    drop((context, nothing));
    let model = gpu.load_bytes(models::dense(), &ModelOptions::default())?;
    let bucket = Bucket::new([vec![2, 2]]);
    let before = gpu.stats().weights_bytes;
    if let Err(error) = model.add_bucket(&bucket) {
        assert_eq!((error.status, model.info().weights_bytes), (Status::OutOfMemory, 0));
        assert_eq!(gpu.stats().weights_bytes, before);
        println!("scenario: refused");
        model.add_bucket(&bucket)?;
    }
    println!("scenario: {} bytes", model.info().weights_bytes);
    assert_eq!(gpu.stats().weights_bytes, before + model.info().weights_bytes as u64);
    let mut context = prepared(&model, &ContextOptions::default())?;
    assert_eq!(answer(&mut context, 1)?[..3], expected(1));
    Ok(())
}

#[test]
fn weights_that_do_not_all_come_to_the_gpu_are_not_counted() {
    let copies = counts("upload", &[])["cuMemcpyHtoDAsync_v2"];
    let whole = said(&play("upload", &[]));
    let bytes = whole.lines().find(|line| line.ends_with("bytes")).unwrap();
    let mut refused = 0;
    for nth in 1..=copies {
        let text = said(&play("upload", &[("FAKECUDA_FAIL", &format!("cuMemcpyHtoDAsync_v2:{nth}:2"))]));
        // Other copies are the engine's own.
        if text.contains("scenario: refused") {
            assert!(text.lines().any(|line| line == bytes) && text.contains("scenario: done"), "{bytes}: {text}");
            refused += 1;
        }
    }
    assert_eq!(refused, 2, "the copies of two weights");
}

/// The first row of the answer to [`answer`].
fn expected(round: usize) -> [f32; 3] {
    let x = [0, 1].map(|column| (column * 7 + round * 3) as f32 / 4.0 - 2.0);
    [x[0] + 4.0 * x[1], 2.0 * x[0] + 5.0 * x[1], 3.0 * x[0] + 6.0 * x[1] - 100.0].map(|y| y.max(0.0))
}

/// Contexts go with a request in flight that uses lent memory, which is given back when the GPU is done with it.
pub fn leave() -> Result<()> {
    let gpu = gpu()?;
    let model = load(&gpu, Precision::Fp32)?;
    for round in 0..20 {
        let memory = Memory::registered(&gpu, Pages::map(4096)?.into())?;
        let mut context = model.context(&ContextOptions::default())?;
        context.attach_input(0, &memory, 0)?;
        context.attach_output(0, &memory, 2048)?;
        context.prepare()?;
        assert_eq!(memory.info().attached, 2);
        context.submit(&SubmitOptions::default())?;
        // Who is the last to use it ends the registration.
        let memory = Some(memory).filter(|_| round % 2 == 0);
        drop(context);
        let is_used = || memory.as_ref().map_or(gpu.stats().memories > 0, |memory| memory.info().attached > 0);
        let start = Instant::now();
        while is_used() {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", gpu.stats());
            std::thread::yield_now();
        }
    }
    for _ in 0..20 {
        let memory = Memory::pinned(&gpu, 4096)?;
        let mut context = model.context(&ContextOptions::default())?;
        context.attach_output(0, &memory, 0)?;
        context.prepare()?;
        context.input_mut::<f32>(0)?.fill(9.0);
        context.submit(&SubmitOptions::default())?;
        drop((context, memory));
        // The next one who takes as much gets none of what the GPU still writes.
        let mut fresh = Memory::pinned(&gpu, 4096)?;
        assert!(fresh.bytes_mut()?.iter().all(|&byte| byte == 0), "memory is given out with what was in it");
        let start = Instant::now();
        while gpu.stats().memories > 1 || gpu.stats().contexts > 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", gpu.stats());
            assert!(fresh.bytes_mut()?.iter().all(|&byte| byte == 0), "the GPU writes to memory of someone else");
        }
        assert!(fresh.bytes_mut()?.iter().all(|&byte| byte == 0), "the GPU wrote to memory of someone else");
    }
    assert_eq!((gpu.stats().memories, gpu.stats().registered_bytes), (0, 0));
    Ok(())
}

/// Rows beyond the budget, before and after the driver has said how far apart they are.
pub fn afford() -> Result<()> {
    let options = EngineOptions { device: "cuda:0".into(), memory_bytes_max: 10_000, ..EngineOptions::default() };
    let gpu = Engine::open(&options)?;
    let take = |rows| Memory::rows(&gpu, RowLayout { rows, row_bytes: 100, element_bytes: Some(4) });
    for rows in [101, 20] {
        let refusal = take(rows).err().expect("more than the budget");
        assert!(refusal.status == Status::OutOfMemory && refusal.message.contains("budget"), "{rows} rows: {refusal}");
        assert_eq!((gpu.stats().memories, gpu.stats().memory_bytes), (0, 0));
    }
    assert_eq!(take(19)?.info().bytes, 19 * 512);
    Ok(())
}

#[test]
fn rows_are_taken_when_the_budget_has_been_asked() {
    // 20 rows fit without their gaps, 19 with them.
    assert_eq!(calls("afford")["cuMemAllocPitch_v2"], 2);
}

#[test]
fn lent_memory_is_used_in_place_and_given_back() {
    succeed("lend", &[]);
    for seed in ["1", "2"] {
        succeed("leave", &[("FAKECUDA_SEED", seed)]);
    }
    // Memory of another engine of the same GPU, or of another library.
    let text = said(&play("lend", &[("FAKECUDA_FAIL", "cuMemHostRegister_v2:1:712")]));
    assert!(text.contains("InvalidArgument") && text.contains("already"), "{text}");
}

#[test]
fn every_driver_call_for_memory_may_fail() {
    let counts = calls("lend");
    let names =
        ["Host", "Pitch", "2D", "cuMemAlloc_v2", "cuMemFree_v2", "StreamSynchronize", "ExecDestroy", "StreamCreate"];
    let mut failures = 0;
    for (symbol, count) in counts.into_iter().filter(|(symbol, _)| names.iter().any(|name| symbol.contains(name))) {
        for nth in 1..=count.min(8) {
            let code = ["2", "700", "999"][nth % 3];
            for sticky in ["", ":sticky"] {
                let text = said(&play("lend", &[("FAKECUDA_FAIL", &format!("{symbol}:{nth}:{code}{sticky}"))]));
                assert!(text.contains("scenario: "), "{symbol} {nth} {code}{sticky}: {text}");
                failures += usize::from(!text.contains("scenario: done"));
            }
        }
    }
    assert!(failures > 40, "only {failures} failures were seen");
}

#[test]
fn copies_of_rows_are_measured_on_a_gpu() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streaminfer"));
    command.args(["bench-memory", "--device", "cuda:0", "--rows", "8", "--row-bytes", "100", "--repeats", "2"]);
    let text = said(&ended({
        command.env("LD_LIBRARY_PATH", driver());
        command
    }));
    assert!(text.contains("\"cuda:0\"") && text.contains("\"pitch_bytes\":512"), "{text}");
}

#[test]
fn requests_are_measured_with_and_without_copy_engines() {
    let log = driver().join("copies.log");
    let measure = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streaminfer"));
        command.args(["bench-memory", "--requests", "--repeats", "1"]).args(words);
        command.env("LD_LIBRARY_PATH", driver()).env("FAKECUDA_LOG", &log);
        ended(command)
    };
    let text = said(&measure(&["--device", "cuda:0", "--bytes", "4096,300000"]));
    for part in ["\"inputs\":[{\"bytes\":4096", "\"outputs\":[{\"bytes\":4096", "\"engines_us\"", "\"inputs_from\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Of each size an input and an output by the engines, and none by them where kernels are to move it.
    let calls = fs::read_to_string(&log).unwrap();
    assert!(calls.lines().any(|line| line == "cuGraphAddMemcpyNode 4"), "{calls}");
    let refusal = measure(&["--device", "host"]);
    assert!(!refusal.status.success() && said(&refusal).contains("only a GPU has copy engines"));
}
