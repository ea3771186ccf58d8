//! Programs in C and C++ that tests compile against the header and run against the shared library.

#![allow(dead_code, reason = "each test uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The shared library that was built together with this test.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the test's path");
    let library = test.with_file_name("libstreaminfer.so");
    assert!(library.exists(), "{} is missing", library.display());
    library
}

/// An empty folder of that name for one test.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

/// Runs a tool and answers what it wrote; panics with its complaint if it fails.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// A compiler call with the project's header and the strictest warnings.
pub fn compiler(tool: &str, standard: &str) -> Command {
    let mut command = Command::new(tool);
    command.arg(standard).args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-pthread"]);
    command.arg(format!("-I{ROOT}/include"));
    command
}

/// Compiles C source into a program that finds the library.
pub fn program(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (file, program) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&file, source).expect("the source");
    link(compiler("cc", "-std=c99").arg("-O1").arg(&file), folder, &program);
    program
}

/// Links what `command` compiles with the library, under the name that its SONAME asks for.
pub fn link(command: &mut Command, folder: &Path, program: &Path) {
    let soname = folder.join("libstreaminfer.so.1");
    if !soname.exists() {
        std::os::unix::fs::symlink(library(), &soname).expect("a link to the library");
    }
    run(command.arg(&soname).arg(format!("-Wl,-rpath,{}", folder.display())).arg("-o").arg(program));
}
