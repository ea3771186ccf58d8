//! Memories, through the Rust interface and from C: on the host device, or on the one that `auto` finds.

mod models;
mod native;

use std::process::Command;
use std::time::{Duration, Instant};
use streaminfer::error::{Result, Status};
use streaminfer::runtime::{
    Bucket, Context, ContextOptions, CopyOptions, Engine, EngineOptions, HostRange, Memory, MemoryKind, Model,
    ModelOptions, Padding, PaddingKind, Pages, RowLayout, SubmitOptions,
};

/// Waits for what happens soon without the caller, at most 20 seconds.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "not yet so: {what}");
        std::thread::yield_now();
    }
}

fn engine() -> Engine {
    Engine::open(&EngineOptions::default()).unwrap()
}

fn affine(engine: &Engine) -> Model {
    engine.load_bytes(models::affine(), &ModelOptions::default()).unwrap()
}

fn new(model: &Model) -> Context {
    model.context(&ContextOptions::default()).unwrap()
}

fn refused<T>(result: Result<T>) -> (Status, String) {
    let error = result.err().expect("it should have been refused");
    (error.status, error.message)
}

/// That it is refused with `InvalidArgument`, in words that have `text`.
fn invalid<T>(result: Result<T>, text: &str) {
    let (status, message) = refused(result);
    assert!(status == Status::InvalidArgument && message.contains(text), "{status:?}: {message}");
}

#[test]
fn an_attached_input_and_output_are_used_in_place() {
    let engine = engine();
    let model = affine(&engine);
    let (taken, lent) = (Memory::pinned(&engine, 4096).unwrap(), Pages::map(4096).unwrap());
    for mut memory in [taken, Memory::registered(&engine, lent.into()).unwrap()] {
        memory.bytes_mut().unwrap()[..16].copy_from_slice(&[1.0f32, 2.0, 3.0, 4.0].map(f32::to_ne_bytes).concat());
        let mut context = new(&model);
        context.attach_input(0, &memory, 0).unwrap();
        context.attach_output(0, &memory, 64).unwrap();
        assert_eq!(refused(memory.bytes_mut()).0, Status::WrongState);
        context.prepare().unwrap();
        // What was there before is what the request reads.
        context.run().unwrap();
        assert_eq!(context.output::<f32>(0).unwrap(), [3.0, 5.0, 7.0, 9.0]);
        let begin = memory.info().address.unwrap();
        assert_eq!(context.input_view(0).unwrap().address, begin);
        assert_eq!(context.output_view(0).unwrap().address, begin.wrapping_add(64));
        context.input_mut::<f32>(0).unwrap().fill(10.0);
        context.run().unwrap();
        assert_eq!(memory.info().attached, 2);
        drop(context);
        wait_until("nothing is attached", || memory.info().attached == 0);
        let bytes = memory.bytes_mut().unwrap();
        assert_eq!((&bytes[..4], &bytes[64..68]), (&10f32.to_ne_bytes()[..], &21f32.to_ne_bytes()[..]));
    }
}

/// Of tensors whose bytes are no multiple of what a copy moves at once.
#[test]
fn what_lies_behind_an_attached_tensor_is_left_alone() {
    const OTHERS: u8 = 0xAB;
    let engine = engine();
    let bucket = Bucket::new([vec![1, 2]]);
    let options = ModelOptions { buckets: vec![bucket], ..ModelOptions::default() };
    let model = engine.load_bytes(models::dense(), &options).unwrap();
    let mut memory = Memory::registered(&engine, Pages::map(4096).unwrap().into()).unwrap();
    memory.bytes_mut().unwrap().fill(OTHERS);
    let mut context = new(&model);
    context.attach_input(0, &memory, 0).unwrap();
    context.attach_output(0, &memory, 64).unwrap();
    context.prepare().unwrap();
    context.input_mut::<f32>(0).unwrap().fill(1.0);
    context.run().unwrap();
    drop(context);
    wait_until("nothing is attached", || memory.info().attached == 0);
    let bytes = memory.bytes_mut().unwrap();
    assert_eq!(bytes[64..76], [5.0f32, 7.0, 0.0].map(f32::to_ne_bytes).concat());
    assert!(bytes[8..64].iter().chain(&bytes[76..]).all(|&byte| byte == OTHERS));
}

#[test]
fn a_memory_lives_as_long_as_a_context_that_uses_it() {
    let engine = engine();
    let model = affine(&engine);
    let memory = Memory::pinned(&engine, 4096).unwrap();
    let mut context = new(&model);
    context.attach_input(0, &memory, 0).unwrap();
    context.prepare().unwrap();
    drop(memory);
    assert_eq!((engine.stats().memories, engine.stats().memory_bytes), (1, 4096));
    context.input_mut::<f32>(0).unwrap().fill(1.0);
    context.run().unwrap();
    assert_eq!(context.output::<f32>(0).unwrap(), [3.0; 4]);
    drop(context);
    wait_until("the memory is gone", || engine.stats().memories == 0);
    assert_eq!(engine.stats().memory_bytes, 0);
}

#[test]
fn links_may_lead_from_and_past_attached_tensors() {
    let engine = engine();
    let model = affine(&engine);
    let memory = Memory::pinned(&engine, 4096).unwrap();
    let mut source = new(&model);
    source.attach_output(0, &memory, 128).unwrap();
    source.prepare().unwrap();
    let mut target = new(&model);
    target.link(0, &source, 0).unwrap();
    target.attach_output(0, &memory, 256).unwrap();
    target.prepare().unwrap();
    source.input_mut::<f32>(0).unwrap().fill(1.0);
    source.run().unwrap();
    target.run().unwrap();
    assert_eq!((source.output::<f32>(0).unwrap(), target.output::<f32>(0).unwrap()), (&[3.0; 4][..], &[7.0; 4][..]));
    // What a linked context reads stays taken while that context is there.
    drop(source);
    target.run().unwrap();
    assert_eq!(memory.info().attached, 2);
    invalid(new(&model).attach_input(0, &memory, 128), "another input or output");
    drop(target);
    wait_until("nothing is attached", || memory.info().attached == 0);
    // An output that is the next request's input.
    let model = engine.load_bytes(models::accumulator(), &ModelOptions::default()).unwrap();
    let mut context = new(&model);
    context.link_self(1, 0).unwrap();
    context.attach_output(0, &memory, 1024).unwrap();
    context.prepare().unwrap();
    context.input_mut::<f32>(0).unwrap().fill(2.0);
    (0..3).for_each(|_| context.run().unwrap());
    assert_eq!(context.output::<f32>(0).unwrap(), [6.0; 4]);
}

#[test]
fn what_cannot_be_attached_is_refused_by_name() {
    let (engine, other) = (engine(), engine());
    let model = affine(&engine);
    let memory = Memory::pinned(&engine, 256).unwrap();
    let rows = Memory::rows(&engine, RowLayout { rows: 4, row_bytes: 64, element_bytes: Some(4) }).unwrap();
    let mut context = new(&model);
    invalid(context.attach_input(1, &memory, 0), "no input 1");
    invalid(context.attach_output(7, &memory, 0), "no output 7");
    invalid(context.attach_input(0, &memory, 32), "multiple of 64");
    invalid(context.attach_input(0, &memory, 256), "256 bytes");
    invalid(context.attach_input(0, &memory, usize::MAX - 63), "256 bytes");
    invalid(context.attach_input(0, &rows, 0), "device memory");
    invalid(context.attach_input(0, &Memory::pinned(&engine, 8).unwrap(), 0), "input 'x'");
    invalid(context.attach_input(0, &Memory::pinned(&other, 256).unwrap(), 0), "different engines");
    assert_eq!(memory.info().attached, 0);
    context.attach_input(0, &memory, 64).unwrap();
    invalid(context.attach_input(0, &memory, 128), "attached already");
    invalid(context.attach_output(0, &memory, 64), "another input or output");
    let mut source = new(&model);
    invalid(source.attach_input(0, &memory, 64), "another input or output");
    source.prepare().unwrap();
    invalid(context.link(0, &source, 0), "attached already");
    assert_eq!(refused(source.attach_output(0, &memory, 128)).0, Status::WrongState);
    let mut target = new(&model);
    target.link(0, &source, 0).unwrap();
    invalid(target.attach_input(0, &memory, 128), "is linked");
    drop(context);
    assert_eq!(memory.info().attached, 0);
}

/// A bucket that is added between attaching and preparing needs more room.
#[test]
fn room_is_looked_at_again_when_a_context_is_prepared() {
    let engine = engine();
    let buckets = vec![Bucket::new([vec![1, 2]])];
    let model = engine.load_bytes(models::dense(), &ModelOptions { buckets, ..ModelOptions::default() }).unwrap();
    let memory = Memory::pinned(&engine, 64 + 3 * 12).unwrap();
    let (mut context, mut beside) = (new(&model), new(&model));
    context.attach_input(0, &memory, 0).unwrap();
    beside.attach_output(0, &memory, 64).unwrap();
    model.add_bucket(&Bucket::new([vec![9, 2]])).unwrap();
    invalid(context.prepare(), "another input or output");
    invalid(beside.prepare(), "output 'y'");
    drop(beside);
    context.prepare().unwrap();
    context.select(&Bucket::new([vec![9, 2]])).unwrap();
    context.input_mut::<f32>(0).unwrap().fill(1.0);
    context.run().unwrap();
    assert_eq!(context.output::<f32>(0).unwrap(), [5.0, 7.0, 0.0].repeat(9));
}

/// What padding fills is filled where the input is attached.
#[test]
fn a_padded_request_is_filled_in_place() {
    let engine = engine();
    let paddings = vec![Padding { kind: PaddingKind::Batch, dimension: 0, input: 0, axis: 0, value: 3.0 }];
    let buckets = vec![Bucket::new([vec![4, 2]])];
    let model =
        engine.load_bytes(models::dense(), &ModelOptions { buckets, paddings, ..ModelOptions::default() }).unwrap();
    let memory = Memory::pinned(&engine, 4096).unwrap();
    let mut context = new(&model);
    context.attach_input(0, &memory, 0).unwrap();
    context.prepare().unwrap();
    context.select(&Bucket::new([vec![1, 2]])).unwrap();
    assert_eq!(context.input_mut::<f32>(0).unwrap()[2..], [3.0; 6]);
}

#[test]
fn ranges_are_registered_once_and_whole() {
    let engine = engine();
    let pages = Pages::map(4 * 4096).unwrap();
    let at = |offset: usize, bytes: usize| {
        // SAFETY: the pages live as long as the test, or are not there and refused.
        let range = unsafe { HostRange::new(pages.address().wrapping_add(offset), bytes) };
        Memory::registered(&engine, range)
    };
    let first = at(0, 4097).unwrap();
    assert_eq!((first.info().kind, first.info().bytes), (MemoryKind::Registered, 4097));
    assert_eq!((engine.stats().registered_bytes, engine.stats().memory_bytes), (4097, 0));
    invalid(at(0, 4097), "registered already");
    invalid(at(4096, 64), "registered already");
    invalid(at(64, 64), "no multiple of 4096");
    invalid(at(0, 0), "empty");
    invalid(at(8192, 1 << 35), "bytes at");
    // SAFETY: refused.
    invalid(Memory::registered(&engine, unsafe { HostRange::new(std::ptr::null_mut(), 64) }), "null");
    let second = at(8192, 4096).unwrap();
    assert_eq!(engine.stats().memories, 2);
    drop(first);
    let third = at(0, 8192).unwrap();
    drop((second, third));
    assert_eq!((engine.stats().memories, engine.stats().registered_bytes), (0, 0));
}

#[test]
fn rows_come_back_as_they_were_written() {
    let engine = engine();
    for element_bytes in [None, Some(4), Some(8), Some(16)] {
        let layout = RowLayout { rows: 7, row_bytes: 70, element_bytes };
        let memory = Memory::rows(&engine, layout).unwrap();
        let info = memory.info();
        let expected = if element_bytes.is_some() { MemoryKind::Pitched } else { MemoryKind::Linear };
        assert_eq!((info.kind, info.address, info.rows, info.row_bytes), (expected, None, 7, 70));
        assert!(info.pitch_bytes >= 70 && (element_bytes.is_some() || info.pitch_bytes == 70));
        assert!(element_bytes.is_none() || info.pitch_bytes.is_multiple_of(64));
        assert_eq!((info.bytes, engine.stats().memory_bytes), (7 * info.pitch_bytes, 7 * info.pitch_bytes as u64));
        let written: Vec<u8> = (0..7 * 70u32).map(|index| index as u8).collect();
        memory.write(&CopyOptions::default(), &written).unwrap();
        let mut read = vec![0xAA; 6 * 77 + 70];
        memory.read(&CopyOptions { host_pitch_bytes: 77, ..CopyOptions::default() }, &mut read).unwrap();
        for (row, written) in written.chunks(70).enumerate() {
            assert_eq!(&read[77 * row..][..70], written);
            assert!(read[77 * row + 70..].iter().take(7).all(|&between| between == 0xAA));
        }
        let part = CopyOptions { first_row: 2, rows: 3, first_byte: 5, row_bytes: 2, host_pitch_bytes: 3 };
        memory.write(&part, &[200; 8]).unwrap();
        let mut all = vec![0; 7 * 70];
        memory.read(&CopyOptions::default(), &mut all).unwrap();
        for (index, (now, before)) in all.iter().zip(&written).enumerate() {
            let is_inside = (2..5).contains(&(index / 70)) && (5..7).contains(&(index % 70));
            assert_eq!(*now, if is_inside { 200 } else { *before }, "byte {index}");
        }
    }
}

#[test]
fn copies_that_do_not_fit_are_refused() {
    let engine = engine();
    let memory = Memory::rows(&engine, RowLayout { rows: 3, row_bytes: 10, element_bytes: Some(4) }).unwrap();
    let copy = CopyOptions::default();
    invalid(memory.write(&copy, &[0; 29]), "29");
    invalid(memory.read(&copy, &mut [0; 29]), "29");
    invalid(memory.write(&CopyOptions { first_row: 2, rows: 2, ..copy }, &[0; 99]), "rows 2..4");
    invalid(memory.write(&CopyOptions { first_byte: 9, row_bytes: 2, ..copy }, &[0; 99]), "bytes 9..11");
    invalid(memory.read(&CopyOptions { host_pitch_bytes: 9, ..copy }, &mut [0; 99]), "9 bytes apart");
    invalid(memory.read(&CopyOptions { first_row: usize::MAX, rows: 1, ..copy }, &mut [0; 99]), "exceeds");
    // Behind the last row there is nothing, and nothing is copied.
    memory.write(&CopyOptions { first_row: 3, ..copy }, &[]).unwrap();
    let host = Memory::pinned(&engine, 64).unwrap();
    invalid(host.write(&copy, &[0; 64]), "in place");
    let mut rows = memory;
    invalid(rows.bytes_mut(), "copy it");
}

#[test]
fn sizes_and_budgets_are_bounded() {
    let engine = Engine::open(&EngineOptions { memory_bytes_max: 10_000, ..EngineOptions::default() }).unwrap();
    let rows = |rows, row_bytes, element_bytes| Memory::rows(&engine, RowLayout { rows, row_bytes, element_bytes });
    assert_eq!(refused(Memory::pinned(&engine, 0)).0, Status::InvalidArgument);
    assert_eq!(refused(Memory::pinned(&engine, usize::MAX)).0, Status::TooLarge);
    assert_eq!(refused(Memory::pinned(&engine, 10_001)).0, Status::OutOfMemory);
    assert_eq!(refused(rows(0, 8, Some(4))).0, Status::InvalidArgument);
    assert_eq!(refused(rows(8, 0, None)).0, Status::InvalidArgument);
    assert_eq!(refused(rows(8, 8, Some(5))).0, Status::InvalidArgument);
    assert_eq!(refused(rows(usize::MAX, 8, None)).0, Status::TooLarge);
    assert_eq!(refused(rows(1, 1 << 31, None)).0, Status::TooLarge);
    assert_eq!(refused(rows(100, 101, Some(16))).0, Status::OutOfMemory);
    assert_eq!((engine.stats().memories, engine.stats().memory_bytes), (0, 0));
    // The host program's own memory is not the engine's.
    let lent = Memory::registered(&engine, Pages::map(1 << 20).unwrap().into()).unwrap();
    assert_eq!(engine.stats().registered_bytes, lent.info().bytes as u64);
}

/// A context that is dropped in flight keeps what it is attached to until its device is done.
#[test]
fn a_draining_context_keeps_its_memory() {
    let engine = engine();
    let model = engine.load_bytes(models::heavy(2_000), &ModelOptions::default()).unwrap();
    let bytes = model.inputs()[0].dims.iter().flatten().map(|dim| dim.unwrap_or(1)).product::<usize>() * 4;
    let memory = Memory::pinned(&engine, bytes).unwrap();
    let mut context = new(&model);
    context.attach_input(0, &memory, 0).unwrap();
    context.prepare().unwrap();
    context.submit(&SubmitOptions::default()).unwrap();
    drop(context);
    drop(memory);
    wait_until("context and memory are gone", || (engine.stats().contexts, engine.stats().memories) == (0, 0));
    assert_eq!(engine.stats().memory_bytes, 0);
}

#[test]
fn a_c_host_keeps_tensors_in_buffers_of_its_own() {
    let folder = native::folder("memory");
    let model = folder.join("affine.onnx");
    std::fs::write(&model, models::affine()).unwrap();
    let program = native::program(&folder, "memory", include_str!("abi/memory.c"));
    native::run(Command::new(program).arg(model));
}
