//! `doctor`: what is here, and what was looked for and not found.

use crate::args::Doctor;
use serde_json::{Value, json};
use std::env;
use std::path::{Path, PathBuf};
use streaminfer::device::{Node, cuda, host};
use streaminfer::error::Result;
use streaminfer::ffi::version::SI_ABI_VERSION;
use streaminfer::runtime::{DeviceKind, devices, gpus};

const LIBRARY: &str = "libstreaminfer.so";
/// Directories that the system's loader knows without being told.
const LOADER_DIRECTORIES: [&str; 6] =
    ["/usr/local/lib", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib"];

/// Something that was looked for.
struct Search {
    what: &'static str,
    /// Why it matters.
    purpose: &'static str,
    /// Where it could be, best first.
    places: Vec<PathBuf>,
}

impl Search {
    fn found(&self) -> Option<&PathBuf> {
        self.places.iter().find(|place| place.exists())
    }
}

pub fn doctor(args: &Doctor) -> Result<()> {
    let searches = searches();
    if args.json {
        println!("{:#}", as_json(&searches));
        return Ok(());
    }
    println!("streaminfer {}, ABI {SI_ABI_VERSION}, {}", env!("CARGO_PKG_VERSION"), env::consts::ARCH);
    println!("host instructions: {:?}", host::traits().simd);
    println!("GPU kernels: {}", kernels());
    println!("\ndevices");
    for device in devices() {
        let (processors, gib) = (device.processors, device.memory_bytes as f64 / (1u64 << 30) as f64);
        println!("  {:8} {} ({processors} {}, {gib:.1} GiB)", device.id, device.name, processor_name(device.kind));
        if let Some(node) = &device.node {
            println!("           {}", placement(node));
        }
    }
    if let Err(error) = gpus() {
        println!("  no GPU: {error}");
    }
    println!("\nthreads\n  {}", processors(env::var("GOMAXPROCS").ok().as_deref(), host::processors::count()));
    println!("\nlooked for");
    for search in &searches {
        match search.found() {
            Some(place) => println!("  {}: {}", search.what, place.display()),
            None => {
                println!("  {}: not found ({})", search.what, search.purpose);
                search.places.iter().for_each(|place| println!("    tried {}", place.display()));
            }
        }
    }
    Ok(())
}

/// What the library brings for GPUs.
fn kernels() -> String {
    match cuda::MACHINE_CODE {
        "" => "portable PTX, which the driver compiles".into(),
        targets => format!("machine code for {targets}, portable PTX for others"),
    }
}

/// What a GPU's memory node means for a process.
fn placement(node: &Node) -> String {
    let Node { index, cpus } = node;
    format!(
        "on NUMA node {index}, which has {} CPUs: page-locked memory and the library's thread are placed there; run the process there, \
         too: numactl --cpunodebind={index} --preferred={index}, GOMAXPROCS={}",
        cpus.len(),
        cpus.len().min(host::processors::count())
    )
}

/// Whether Go runs as many threads at once as the process has CPUs.
fn processors(setting: Option<&str>, count: usize) -> String {
    match setting.map(|text| text.trim().parse::<usize>()) {
        None => {
            format!("this process may use {count} CPUs; Go 1.25 and newer see that, older ones need GOMAXPROCS={count}")
        }
        Some(Ok(given)) if given == count => format!("GOMAXPROCS={given}, as many as this process may use"),
        Some(Ok(given)) if given > count => {
            format!(
                "GOMAXPROCS={given}, and this process may use {count} CPUs: goroutines wait for each other; set it to {count}"
            )
        }
        Some(Ok(given)) => format!("GOMAXPROCS={given}, and this process may use {count} CPUs: some stay idle"),
        Some(Err(_)) => format!("GOMAXPROCS is no number; this process may use {count} CPUs"),
    }
}

fn processor_name(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Host => "CPUs",
        DeviceKind::Cuda => "multiprocessors",
    }
}

fn as_json(searches: &[Search]) -> Value {
    let device = |device: &streaminfer::runtime::DeviceInfo| {
        json!({
            "id": device.id,
            "name": device.name,
            "processors": device.processors,
            "memory_bytes": device.memory_bytes,
            "numa_node": device.node.as_ref().map(|node| node.index),
            "numa_cpus": device.node.as_ref().map(|node| &node.cpus),
        })
    };
    let search = |search: &Search| json!({ "what": search.what, "found": search.found(), "tried": search.places });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "abi": SI_ABI_VERSION,
        "architecture": env::consts::ARCH,
        "host_instructions": format!("{:?}", host::traits().simd),
        "gpu_kernels": kernels(),
        "devices": devices().iter().map(device).collect::<Vec<_>>(),
        "cpus": host::processors::count(),
        "gomaxprocs": env::var("GOMAXPROCS").ok(),
        "no_gpu": gpus().err().map(|error| error.to_string()),
        "searches": searches.iter().map(search).collect::<Vec<_>>(),
    })
}

fn searches() -> Vec<Search> {
    let in_loader = |name: &str| LOADER_DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).collect();
    vec![
        Search { what: LIBRARY, purpose: "hosts in Go and C load it", places: library_places() },
        Search {
            what: "libcuda.so.1",
            purpose: "the NVIDIA driver's library, without which there is no GPU",
            places: in_loader("libcuda.so.1"),
        },
        Search {
            what: "/dev/nvidiactl",
            purpose: "the NVIDIA driver's device file, which a container must be given",
            places: vec!["/dev/nvidiactl".into()],
        },
    ]
}

/// Where the Go package looks, in its order.
fn library_places() -> Vec<PathBuf> {
    // The variable names the file, or the directory that it is in.
    let told = env::var_os("STREAMINFER_LIBRARY").map(PathBuf::from);
    let told = told.map(|path| if path.is_dir() { path.join(LIBRARY) } else { path });
    let mut places: Vec<PathBuf> = told.into_iter().collect();
    if let Some(directory) = env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned())) {
        places.push(directory.join(LIBRARY));
        places.push(directory.join("../lib").join(LIBRARY));
    }
    let told = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    places.extend(env::split_paths(&told).filter(|path| path.is_absolute()).map(|path| path.join(LIBRARY)));
    places.extend(LOADER_DIRECTORIES.iter().map(|directory| Path::new(directory).join(LIBRARY)));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_what_to_set() {
        let text = placement(&Node { index: 1, cpus: (0..1000).collect() });
        assert!(text.contains("NUMA node 1") && text.contains("--cpunodebind=1 --preferred=1"), "{text}");
        assert!(text.contains(&format!("GOMAXPROCS={}", host::processors::count())), "{text}");
        assert!(processors(None, 8).contains("GOMAXPROCS=8"));
        assert!(processors(Some("64"), 8).contains("set it to 8"));
        assert!(processors(Some("4"), 8).contains("idle") && processors(Some("8"), 8).contains("as many as"));
        assert!(processors(Some("x"), 8).contains("no number"));
    }
}
