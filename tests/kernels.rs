//! The PTX that the repository keeps is that of the sources beside it, and holds every entry that the library knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use streaminfer::kernels::entry;

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// Files of a folder with one of these extensions, in order of name.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    paths
}

fn fnv1a(data: &[u8], state: u64) -> u64 {
    data.iter().fold(state, |state, &byte| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Adds the headers of kernels/ that a source includes, directly or not.
fn include(source: &Path, headers: &mut BTreeSet<String>) {
    let text = fs::read_to_string(source).unwrap();
    for name in text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"')) {
        if headers.insert(name.to_owned()) {
            include(&kernels().join(name), headers);
        }
    }
}

/// As tools/kernels.py computes it.
fn source_hash(source: &Path) -> String {
    let own = fnv1a(&fs::read(source).unwrap(), 0xCBF2_9CE4_8422_2325);
    let mut headers = BTreeSet::new();
    include(source, &mut headers);
    let all = headers.iter().fold(own, |state, name| fnv1a(&fs::read(kernels().join(name)).unwrap(), state));
    format!("{all:016x}")
}

/// The entries of one text of PTX.
fn entries_of(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix(".visible .entry "));
    names.map(|rest| rest.trim_end_matches('(').to_owned()).collect()
}

/// Per family and target: the hash of its sources, and its entries.
fn manifest() -> BTreeMap<(String, String), (String, BTreeSet<String>)> {
    let text = fs::read_to_string(kernels().join("ptx/manifest.txt")).unwrap();
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let key = (words.next().unwrap(), words.next().unwrap());
        (key, (words.next().unwrap(), words.collect()))
    };
    text.lines().map(line).collect()
}

#[test]
fn the_ptx_is_that_of_the_sources() {
    let manifest = manifest();
    for ((family, target), (hash, entries)) in &manifest {
        let source = kernels().join(format!("{family}.cu"));
        assert_eq!(*hash, source_hash(&source), "kernels/ptx/{family}.{target}.ptx is stale: run make kernels");
        let text = fs::read_to_string(kernels().join(format!("ptx/{family}.{target}.ptx"))).unwrap();
        assert_eq!(entries_of(&text), *entries, "{family}.{target}");
        let architecture = format!(".target {}", target.replace("compute", "sm"));
        assert!(text.lines().any(|line| line == architecture), "{family} is not for {target}");
        assert!(text.contains(".version 9.0\n"), "{family}: the oldest supported driver takes PTX 9.0");
    }
    let of = |wanted: &str| -> BTreeSet<String> {
        manifest.keys().filter(|(_, target)| target == wanted).map(|(family, _)| family.clone()).collect()
    };
    let alone = |family: &String| {
        fs::read_to_string(kernels().join(format!("{family}.cu"))).unwrap().contains("ARCH_90A_ALONE")
    };
    let families: BTreeSet<String> =
        of("compute_80").into_iter().chain(of("compute_90a").into_iter().filter(alone)).collect();
    let sources: BTreeSet<String> =
        files(&kernels(), "cu").iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(
        families, sources,
        "every family has portable PTX or says that it is for one GPU alone, and nothing else has"
    );
    assert!(!of("compute_80").iter().any(alone), "portable PTX of what is for one GPU alone");
    assert_eq!(files(&kernels().join("ptx"), "ptx").len(), manifest.len(), "a file that the manifest does not list");
}

#[test]
fn every_entry_is_in_the_ptx_of_its_family() {
    let manifest = manifest();
    let mut known = 0;
    for entry in entry::entries() {
        let of = |target: &str| manifest.get(&(entry.family.to_owned(), target.to_owned()));
        let (_, entries) = of("compute_80").or_else(|| of("compute_90a")).unwrap();
        assert!(entries.contains(entry.name), "{} is not in {}", entry.name, entry.family);
        known += 1;
    }
    let exported: usize = manifest.values().map(|(_, entries)| entries.len()).sum();
    assert!(known >= 20 && exported >= known, "{known} known, {exported} exported");
}
