//! Link arguments of the shared library: its SONAME, which carries the version of the binary interface, and a promise
//! never to unload it, because its threads may outlive a dlclose. And the GPU's kernels, as one table of images.
//!
//! The repository's portable PTX is always in the table. `STREAMINFER_IMAGES` may name a folder with machine code that
//! tools/kernels.py has made of the same sources (`make build FATBIN=1`): it then stands in front.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What tools/kernels.py compiles for.
const ARCHITECTURES: &str = "sm_80, sm_90a, sm_100, sm_120";

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

/// Writes `images.rs`: per family of kernels its machine code, if there is any, and its portable PTX, which ends with a zero as the
/// driver wants it.
fn embed_images() {
    println!("cargo:rerun-if-env-changed=STREAMINFER_IMAGES");
    let machine_code = env::var_os("STREAMINFER_IMAGES").map(PathBuf::from);
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("kernels/ptx");
    let entries = fs::read_dir(&folder).expect("kernels/ptx");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry of kernels/ptx").path()).collect();
    // The newest target of a family first.
    paths.sort();
    paths.reverse();
    let manifest = fs::read_to_string(folder.join("manifest.txt")).expect("kernels/ptx/manifest.txt");
    let mut table = String::new();
    if machine_code.is_some() {
        // The driver reads numbers of eight bytes in machine code.
        table.push_str("#[repr(C, align(16))]\nstruct Aligned<T>(T);\n");
    }
    table.push_str("/// Family and image, best first.\nstatic IMAGES: &[(&str, &[u8])] = &[\n");
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "ptx")) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let family = name.split('.').next().expect("a family");
        let is_first = !table.contains(&format!("({family:?},"));
        if let Some(images) = machine_code.as_ref().filter(|_| is_first) {
            let image = images.join(image_name(&manifest, family));
            assert!(image.is_file(), "{} is missing: run make images", image.display());
            println!("cargo:rerun-if-changed={}", image.display());
            writeln!(table, "    ({family:?}, &Aligned(*include_bytes!({image:?})).0),").expect("a string");
        }
        writeln!(table, "    ({family:?}, concat!(include_str!({path:?}), \"\\0\").as_bytes()),").expect("a string");
    }
    table.push_str("];\n");
    let architectures = if machine_code.is_some() { ARCHITECTURES } else { "" };
    writeln!(table, "/// The GPUs that machine code is embedded for, in words; empty if there is none.")
        .expect("a string");
    writeln!(table, "pub const MACHINE_CODE: &str = {architectures:?};").expect("a string");
    let output = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("images.rs");
    fs::write(output, table).expect("images.rs");
}

/// The file that machine code made of the family's present sources has: its name carries their hash.
fn image_name(manifest: &str, family: &str) -> String {
    let hash = manifest.lines().find_map(|line| {
        let mut words = line.split(' ');
        (words.next() == Some(family)).then(|| words.nth(1)).flatten()
    });
    format!("{family}.{}.fatbin", hash.unwrap_or_else(|| panic!("{family} is not in kernels/ptx/manifest.txt")))
}
