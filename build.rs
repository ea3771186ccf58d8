//! Link arguments of the shared library: its SONAME, which carries the version of the binary interface, and a promise
//! never to unload it, because its threads may outlive a dlclose. And the GPU's kernels, as one table of images.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/ffi/version.rs");
    println!("cargo:rerun-if-changed=kernels/ptx");
    embed_images();
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let version = fs::read_to_string("src/ffi/version.rs").expect("src/ffi/version.rs");
    let (_, number) = version.split_once("SI_ABI_VERSION: u32 = ").expect("the version of the binary interface");
    let number = number.split(';').next().unwrap_or_default();
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libstreaminfer.so.{number}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

/// Writes `images.rs`: per family of kernels its portable PTX, which ends with a zero as the driver wants it.
fn embed_images() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("kernels/ptx");
    let entries = fs::read_dir(&folder).expect("kernels/ptx");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry of kernels/ptx").path()).collect();
    paths.sort();
    let mut table = String::from("/// Family and image, best first.\nstatic IMAGES: &[(&str, &[u8])] = &[\n");
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "ptx")) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let family = name.split('.').next().expect("a family");
        writeln!(table, "    ({family:?}, concat!(include_str!({path:?}), \"\\0\").as_bytes()),").expect("a string");
    }
    table.push_str("];\n");
    let output = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("images.rs");
    fs::write(output, table).expect("images.rs");
}
