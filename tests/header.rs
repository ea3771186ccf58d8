//! `include/streaminfer.h` is current. `UPDATE_HEADER=1 cargo test --test header` rewrites it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The header's sections in order, and which names belong to each, by prefix. Handles come first, since every section
/// uses them; a constant that fits none is a status.
const SECTIONS: &[(&str, &[&str])] = &[
    ("Objects", &[]),
    ("Versions", &["SI_ABI", "SI_STRUCT", "si_abi", "si_version", "si_struct"]),
    ("Statuses and errors", &["si_result", "si_status", "si_error", "SI_"]),
    ("Devices", &["si_device", "SI_DEVICE_KIND", "SI_DEVICE_STATE", "SI_DEVICE_NAME"]),
    ("Tensors", &["si_tensor", "SI_TENSOR", "SI_DTYPE", "SI_RANK"]),
    ("Engines", &["si_engine", "SI_ENGINE", "si_stats", "si_completion"]),
    ("Models", &["si_model", "si_bucket", "si_padding", "SI_PRECISION", "SI_PADDING"]),
    ("Contexts", &["si_context", "si_submit", "si_timings", "si_completion_record", "SI_WAIT", "SI_TIMEOUT_INFINITE"]),
    ("Events", &["si_event"]),
    ("Batchers", &["si_batch", "si_slot"]),
    ("Memories", &["si_memory", "SI_MEMORY", "si_copy", "si_context_attach"]),
];

/// The handle types.
const OBJECTS: &[&str] = &["si_engine", "si_model", "si_context", "si_event", "si_batcher", "si_slot", "si_memory"];

/// One declaration with its comment.
struct Item {
    name: String,
    text: String,
}

/// What cbindgen makes of `src/ffi`, item by item.
fn items() -> Vec<Item> {
    let config = cbindgen::Config::from_file(Path::new(ROOT).join("cbindgen.toml")).expect("cbindgen.toml");
    let files = [
        "version", "error", "device", "record", "engine", "tensor", "model", "context", "event", "batcher", "memory",
        "pointer",
    ];
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in files {
        builder = builder.with_src(Path::new(ROOT).join(format!("src/ffi/{file}.rs")));
    }
    let mut raw = Vec::new();
    builder.generate().expect("cbindgen").write(&mut raw);
    let mut text = String::from_utf8(raw).expect("UTF-8");

    // The border's pointer types are transparent: put the pointer in place of the name.
    text =
        text.replace("typedef struct ", "typedef@").replace("struct si_", "si_").replace("typedef@", "typedef struct ");
    let typedefs = text.lines().filter(|line| line.starts_with("typedef ") && line.contains('*'));
    let mut aliases: Vec<(String, String)> = Vec::new();
    for line in typedefs.map(str::to_owned).collect::<Vec<_>>() {
        let (target, name) = line["typedef ".len()..].trim_end_matches(';').rsplit_once('*').expect("a pointer");
        let mut target = target.trim().replace("struct ", "");
        if let Some((_, inner)) = aliases.iter().find(|(alias, _)| target == format!("const {alias}")) {
            target = format!("{inner}const");
        }
        aliases.push((name.to_owned(), format!("{target} *")));
        text = text.replace(&format!("{line}\n"), "");
    }
    // Longest name first, since one alias may end another.
    aliases.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    for (name, target) in &aliases {
        text = text.replace(&format!("{name} "), target);
    }
    text = join_short_comments(&text);
    let declarations = text.split("\n\n").map(str::trim).filter(|item| !item.is_empty());
    declarations.filter_map(|text| name_of(text).map(|name| Item { name, text: text.to_owned() })).collect()
}

/// Puts a comment of one line on one line.
fn join_short_comments(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut joined = String::new();
    let mut at = 0;
    while at < lines.len() {
        let short = lines[at].trim() == "/**" && lines.get(at + 2).is_some_and(|line| line.trim() == "*/");
        if short {
            let indent = &lines[at][..lines[at].len() - 3];
            writeln!(joined, "{indent}/** {} */", lines[at + 1].trim().trim_start_matches("* ")).unwrap();
        } else {
            writeln!(joined, "{}", lines[at]).unwrap();
        }
        at += if short { 3 } else { 1 };
    }
    joined
}

/// The name that a declaration declares; `None` for text that declares nothing.
fn name_of(text: &str) -> Option<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.starts_with("/*") && !line.starts_with(" *")).collect();
    let first = code.first()?;
    let identifier = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
    if let Some(rest) = first.strip_prefix("#define ") {
        return identifier(rest);
    }
    if let Some(rest) = first.strip_prefix("typedef struct ") {
        return identifier(rest);
    }
    if let Some(rest) = first.strip_prefix("typedef ") {
        return identifier(rest.rsplit(' ').next()?);
    }
    let (head, _) = first.split_once('(')?;
    identifier(head.rsplit([' ', '*']).next()?)
}

fn section_of(name: &str) -> usize {
    if OBJECTS.contains(&name) {
        return 0;
    }
    let longest = |prefixes: &[&str]| prefixes.iter().filter(|prefix| name.starts_with(*prefix)).map(|p| p.len()).max();
    let fits = SECTIONS.iter().enumerate().filter_map(|(section, (_, prefixes))| Some((longest(prefixes)?, section)));
    fits.max().unwrap_or_else(|| panic!("{name} belongs to no section of the header")).1
}

fn generate() -> String {
    let mut header = include_str!("header/prologue.h")
        .replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
        .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
        .replace("@PATCH@", env!("CARGO_PKG_VERSION_PATCH"));
    let mut items = items();
    items.sort_by_key(|item| OBJECTS.iter().position(|object| *object == item.name));
    for (section, (title, _)) in SECTIONS.iter().enumerate() {
        writeln!(header, "\n/* ---- {title} {} */", "-".repeat(104 - title.len())).unwrap();
        for item in items.iter().filter(|item| section_of(&item.name) == section) {
            writeln!(header, "\n{}", item.text).unwrap();
        }
    }
    header.push_str(include_str!("header/epilogue.h"));
    header
}

#[test]
fn the_committed_header_is_current() {
    let path = Path::new(ROOT).join("include/streaminfer.h");
    let generated = generate();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "include/streaminfer.h is stale: UPDATE_HEADER=1 cargo test --test header");
}

#[test]
fn every_name_mentioned_is_declared() {
    let header = generate();
    let declared: BTreeSet<String> = items().into_iter().map(|item| item.name).collect();
    let words = header.split(|c: char| !c.is_alphanumeric() && c != '_');
    let names = words.filter(|word| word.to_ascii_lowercase().starts_with("si_") && !word.ends_with('_'));
    let fixed = |name: &str| name.starts_with("SI_VERSION_") || name == "si_status";
    let unknown: BTreeSet<&str> = names.filter(|name| !declared.contains(*name) && !fixed(name)).collect();
    assert!(unknown.is_empty(), "mentioned but not declared: {unknown:?}");
}
