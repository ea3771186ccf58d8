//! What the library does to the process that it lives in: signals, threads, memory.

mod models;

use std::mem::MaybeUninit;
use std::time::Instant;
use streaminfer::runtime::{ContextOptions, Engine, EngineOptions, ModelOptions, SubmitOptions};

/// The handlers of all 31 classic signals, and the alternate stack.
fn signal_state() -> Vec<(usize, u64, i32)> {
    let handler = |signal: i32| {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: only asks; the struct is written or stays zeroed.
        let action = unsafe {
            libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
            action.assume_init()
        };
        (action.sa_sigaction, 0, action.sa_flags)
    };
    let mut stack = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: only asks.
    let stack = unsafe {
        libc::sigaltstack(std::ptr::null(), stack.as_mut_ptr());
        stack.assume_init()
    };
    let mut state: Vec<_> = (1..=31).map(handler).collect();
    state.push((stack.ss_sp as usize, stack.ss_size as u64, stack.ss_flags));
    state
}

/// Name and blocked signals of every thread of this process.
fn threads() -> Vec<(String, u64)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let describe = |task: std::path::PathBuf| {
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned());
        Some((field("Name:")?, u64::from_str_radix(&field("SigBlk:")?, 16).ok()?))
    };
    tasks.filter_map(describe).collect()
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Of these a process may have 65,530.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// One test, since all of it looks at the whole process.
#[test]
fn the_process_is_left_as_it_was() {
    let before = signal_state();
    let engine = Engine::open(&EngineOptions::default()).unwrap();
    let model = engine.load_bytes(models::affine(), &ModelOptions::default()).unwrap();
    let mut context = model.context(&ContextOptions { threads: 3, ..ContextOptions::default() }).unwrap();
    context.prepare().unwrap();
    context.run().unwrap();
    let sequence = context.submit(&SubmitOptions::default()).unwrap();
    context.wait(sequence, u64::MAX).unwrap();
    assert_eq!(signal_state(), before, "signal handlers and alternate stack");
    let workers: Vec<_> = threads().into_iter().filter(|(name, _)| name.starts_with("si-worker")).collect();
    assert_eq!(workers.len(), 3);
    assert_eq!(engine.stats().threads, 3);
    // All but those that cannot be blocked (KILL, STOP) and those that the C library keeps for itself (32, 33).
    let blockable = !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32);
    for (name, blocked) in workers {
        assert_eq!(blocked & blockable, blockable, "{name} leaves a signal unblocked");
    }
    drop(context);
    assert_eq!(threads().iter().filter(|(name, _)| name.starts_with("si-worker")).count(), 0);
    contexts_come_and_go(&engine);
    drop(model);
    let stats = engine.stats();
    assert_eq!((stats.models, stats.contexts, stats.threads, stats.weights_bytes), (0, 0, 0, 0));
}

/// `STREAMINFER_CYCLES=100000` runs the full number.
fn contexts_come_and_go(engine: &Engine) {
    let model = engine.load_bytes(models::affine(), &ModelOptions::default()).unwrap();
    let cycles = number("STREAMINFER_CYCLES", 20_000);
    let cycle = || {
        let mut context = model.context(&ContextOptions::default()).unwrap();
        context.prepare().unwrap();
        context.run().unwrap();
    };
    // The addresses of those that are gone stay reserved: by then, as many as there is room for.
    (0..cycles.max(20_000) / 10).for_each(|_| cycle());
    let (resident, mapped, start) = (resident_bytes(), mappings(), Instant::now());
    (0..cycles).for_each(|_| cycle());
    let grown = resident_bytes().saturating_sub(resident);
    println!("{cycles} contexts in {:?}, {grown} bytes more", start.elapsed());
    assert!(grown <= 4 << 20, "{cycles} contexts leave {grown} bytes");
    assert!(mappings() <= mapped + 64, "{mapped} mappings have become {}", mappings());
    assert_eq!(engine.stats().contexts, 0);
}
