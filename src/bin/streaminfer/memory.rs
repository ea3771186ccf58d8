//! `bench-memory`: what copies between the host and rows of device memory cost. `copies.rs` has those of requests.

use crate::args::BenchMemory;
use crate::copies;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};
use streaminfer::error::{Error, Result, Status};
use streaminfer::runtime::{CopyOptions, Engine, EngineOptions, Memory, MemoryKind, Pages, RowLayout};

pub fn bench(args: &BenchMemory) -> Result<()> {
    let report = if args.requests { copies::requests(args)? } else { rows(args)? };
    let report = report.to_string();
    println!("{report}");
    if let Some(path) = &args.json {
        fs::write(path, report + "\n").map_err(|error| Error::io(Status::Io, path.display(), &error))?;
    }
    Ok(())
}

/// Copies of rows of each width.
fn rows(args: &BenchMemory) -> Result<Value> {
    let engine = Engine::open(&EngineOptions { device: args.device.clone(), ..EngineOptions::default() })?;
    if let Some(error) = engine.passed_over() {
        eprintln!("note: measuring the host, because no GPU can be used: {error}");
    }
    let start = Instant::now();
    let widths = args.row_bytes.iter().map(|&row_bytes| width(&engine, args, row_bytes as usize));
    let widths = widths.collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "device": engine.device().id,
        "name": engine.device().name,
        "rows": args.rows,
        "element_bytes": args.element_bytes,
        "repeats": args.repeats,
        "widths": widths,
        "seconds": (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    }))
}

/// One side of the copies on the host.
enum Side {
    Pageable(Vec<u8>),
    Taken(Memory),
}

impl Side {
    fn name(&self) -> &'static str {
        match self {
            Side::Pageable(_) => "pageable",
            Side::Taken(memory) if memory.info().kind == MemoryKind::Registered => "registered",
            Side::Taken(_) => "pinned",
        }
    }

    fn bytes(&mut self) -> Result<&mut [u8]> {
        match self {
            Side::Pageable(bytes) => Ok(bytes),
            Side::Taken(memory) => memory.bytes_mut(),
        }
    }
}

/// All copies of rows of so many bytes.
fn width(engine: &Engine, args: &BenchMemory, row_bytes: usize) -> Result<Value> {
    let rows = args.rows as usize;
    let bytes = rows.checked_mul(row_bytes);
    let bytes = bytes.ok_or_else(|| Error::new(Status::TooLarge, format!("{rows} rows of {row_bytes} bytes")))?;
    let (pinned, pin) = timed(|| Memory::pinned(engine, bytes))?;
    let pages = Pages::map(bytes)?;
    let (registered, register) = timed(|| Memory::registered(engine, pages.into()))?;
    let mut sides = [Side::Pageable(vec![0; bytes]), Side::Taken(pinned), Side::Taken(registered)];
    let mut copies = Vec::new();
    for (memory, element_bytes) in [("pitched", Some(args.element_bytes as usize)), ("linear", None)] {
        let device = Memory::rows(engine, RowLayout { rows, row_bytes, element_bytes })?;
        for side in &mut sides {
            let name = side.name();
            let [write, read] = round_trips(&device, side.bytes()?, args.repeats)?;
            copies.push(json!({
                "memory": memory,
                "pitch_bytes": device.info().pitch_bytes,
                "host": name,
                "write_us": micros(write),
                "read_us": micros(read),
                "write_gb_s": gigabytes_per_second(bytes, write),
                "read_gb_s": gigabytes_per_second(bytes, read),
            }));
        }
    }
    let (pin_us, register_us) = (micros(pin), micros(register));
    Ok(
        json!({ "row_bytes": row_bytes, "bytes": bytes, "pin_us": pin_us, "register_us": register_us, "copies": copies }),
    )
}

/// The medians of copies to the device and back. What comes back must be what was written.
fn round_trips(device: &Memory, host: &mut [u8], repeats: u32) -> Result<[Duration; 2]> {
    let all = CopyOptions::default();
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    // The first round is not counted.
    for round in 0..=repeats {
        for (index, byte) in host.iter_mut().enumerate() {
            *byte = (index as u32).wrapping_mul(2_654_435_761).wrapping_add(round) as u8;
        }
        let ((), write) = timed(|| device.write(&all, host))?;
        let (first, last) = (host[0], host[host.len() - 1]);
        host.fill(!round as u8);
        let ((), read) = timed(|| device.read(&all, host))?;
        if (host[0], host[host.len() - 1]) != (first, last) {
            return Err(Error::new(Status::Internal, "what was copied back is not what was copied there"));
        }
        if round > 0 {
            writes.push(write);
            reads.push(read);
        }
    }
    Ok([median(writes), median(reads)])
}

pub fn timed<T>(call: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    call().map(|value| (value, start.elapsed()))
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let middle = times.len() / 2;
    if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2 }
}

pub fn micros(time: Duration) -> f64 {
    (time.as_nanos() as f64 / 100.0).round() / 10.0
}

fn gigabytes_per_second(bytes: usize, time: Duration) -> f64 {
    let rate = bytes as f64 / time.as_secs_f64().max(1e-9) / 1e9;
    (rate * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        let times = |ms: &[u64]| ms.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>();
        assert_eq!(median(times(&[9, 1, 5])), Duration::from_millis(5));
        assert_eq!(median(times(&[9, 1, 5, 6])), Duration::from_micros(5_500));
    }
}
