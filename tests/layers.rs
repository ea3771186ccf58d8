//! The rules of ARCHITECTURE.md that a reader would otherwise have to take on trust: which layer may use which, and where
//! `unsafe` may stand.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with the layers that it may name; `error` and `limits` are open to all.
const LAYERS: &[(&str, &[&str])] = &[
    ("ir", &[]),
    ("kernels", &["ir"]),
    ("plan", &["ir", "kernels"]),
    ("lower", &["ir", "kernels", "plan"]),
    ("device", &["ir", "kernels", "plan", "lower"]),
    ("runtime", &["ir", "kernels", "plan", "lower", "device"]),
    ("ffi", &["ir", "runtime"]),
];

/// Where `unsafe` may stand.
const UNSAFE_ALLOWED: &[&str] = &["src/ffi/", "src/device/host/", "src/device/cuda/"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

/// Layers named by `crate::layer` paths in a line, those inside `use crate::{..}` included.
fn named_layers(line: &str) -> Vec<&'static str> {
    let line = code(line);
    let by_path = |name: &str| {
        let path = format!("crate::{name}");
        line.match_indices(&path)
            .any(|(at, _)| !line[at + path.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let in_braces = |name: &str| {
        line.contains("use crate::{")
            && line.split(['{', ',', '}']).any(|part| part.trim().starts_with(&format!("{name}::")))
    };
    LAYERS.iter().map(|(name, _)| *name).filter(|name| by_path(name) || in_braces(name)).collect()
}

fn violations(layer: &str, allowed: &[&str], text: &str) -> Vec<String> {
    let hits = text
        .lines()
        .enumerate()
        .flat_map(|(number, line)| named_layers(line).into_iter().map(move |name| (number, name)));
    hits.filter(|(_, name)| *name != layer && !allowed.contains(name))
        .map(|(number, name)| format!("{}: {name}", number + 1))
        .collect()
}

#[test]
fn layers_depend_one_way() {
    let mut files = 0;
    for (layer, allowed) in LAYERS {
        for path in sources(&root().join("src").join(layer)) {
            let found = violations(layer, allowed, &fs::read_to_string(&path).unwrap());
            assert!(found.is_empty(), "{} uses layers above it: {found:?}", path.display());
            files += 1;
        }
    }
    assert!(files > 50, "only {files} files were looked at");
}

#[test]
fn the_check_sees_a_planted_dependency() {
    assert_eq!(violations("plan", &["ir", "kernels"], "use crate::device::Lane;"), ["1: device"]);
    assert_eq!(violations("plan", &["ir"], "use crate::{error::Result, lower::Program};"), ["1: lower"]);
    assert!(violations("plan", &["ir"], "// crate::device is not known here").is_empty());
}

#[test]
fn unsafe_stands_only_where_memory_is_managed() {
    for path in sources(&root().join("src")) {
        let relative = path.strip_prefix(root()).unwrap().display().to_string();
        if UNSAFE_ALLOWED.iter().any(|folder| relative.starts_with(folder)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let is_unsafe =
            |line: &str| code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        let hit = text.lines().position(is_unsafe);
        assert!(hit.is_none(), "{relative}:{} has unsafe code outside {UNSAFE_ALLOWED:?}", hit.unwrap_or(0) + 1);
    }
}
