//! Link arguments of the shared library: its SONAME, which carries the version of the binary interface, and a promise
//! never to unload it, because its threads may outlive a dlclose.

use std::fs;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/ffi/version.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let version = fs::read_to_string("src/ffi/version.rs").expect("src/ffi/version.rs");
    let (_, number) = version.split_once("SI_ABI_VERSION: u32 = ").expect("the version of the binary interface");
    let number = number.split(';').next().unwrap_or_default();
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libstreaminfer.so.{number}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
