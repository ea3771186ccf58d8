//! What the command line asks for.

use crate::cases;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The group that is not of cases.
pub const CONCURRENT: &str = "concurrent";

#[derive(Default)]
pub struct Options {
    pub seed: Option<u64>,
    pub only: String,
    /// 0 is 1.
    pub every: usize,
    /// By so many checks every entry is to be launched; 0: checks are not chosen by what they launch.
    pub cover: usize,
    pub until: Option<Instant>,
    pub done: Option<PathBuf>,
    pub is_all: bool,
    pub is_list: bool,
    pub is_verbose: bool,
    pub is_progress: bool,
    pub is_driver: bool,
    pub node_tests: Option<PathBuf>,
    pub models: Option<PathBuf>,
    groups: Option<Vec<String>>,
    skipped: Vec<String>,
}

/// The names of all groups.
fn known() -> Vec<&'static str> {
    cases::groups().iter().map(|group| group.name).chain([CONCURRENT]).collect()
}

/// Names of groups, separated by commas.
fn names(word: &str, text: &str) -> Result<Vec<String>, String> {
    let known = known();
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{word}: there is no group '{name}'; there are {}", known.join(", "))),
        None => Ok(names),
    }
}

impl Options {
    /// From the words behind the program's name.
    pub fn read(words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{word} needs a number, not '{text}'"));
            match word.as_str() {
                "--seed" => options.seed = Some(number(value()?)?),
                "--only" => options.only = value()?,
                "--groups" => options.groups = Some(names(&word, &value()?)?),
                "--skip-groups" => options.skipped = names(&word, &value()?)?,
                "--every" => options.every = number(value()?)? as usize,
                "--cover" => options.cover = number(value()?)? as usize,
                "--budget" => options.until = Some(Instant::now() + Duration::from_secs(number(value()?)?)),
                "--done" => options.done = Some(value()?.into()),
                "--all" => options.is_all = true,
                "--list" => options.is_list = true,
                "--driver" => options.is_driver = true,
                "--verbose" => options.is_verbose = true,
                "--progress" => options.is_progress = true,
                "--node-tests" => options.node_tests = Some(value()?.into()),
                "--models" => options.models = Some(value()?.into()),
                // As cargo passes the name of a test.
                _ if !word.starts_with('-') => options.only = word,
                _ => return Err(format!("what is {word}?")),
            }
        }
        let is_chosen = options.groups.is_some() || !options.skipped.is_empty() || options.cover > 0 || options.is_list;
        if is_chosen && (options.node_tests.is_some() || options.models.is_some() || options.is_driver) {
            return Err("--groups, --skip-groups, --cover and --list choose among the step kinds only".into());
        }
        Ok(options)
    }

    /// Whether a group is asked for.
    pub fn has(&self, group: &str) -> bool {
        let is_named = self.groups.as_ref().is_none_or(|groups| groups.iter().any(|name| name == group));
        is_named && !self.skipped.iter().any(|name| name == group)
    }

    /// Whether nothing of the step kinds is left out.
    pub fn is_everything(&self) -> bool {
        let is_whole = self.only.is_empty() && self.every < 2 && self.cover == 0 && self.done.is_none();
        is_whole && known().iter().all(|group| *group == CONCURRENT || self.has(group))
    }

    /// Whether the time is up.
    pub fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Whether bad words are refused by name. Panics if not.
pub fn prove_strictness() {
    let read = |text: &str| Options::read(text.split(' ').map(str::to_owned));
    for (text, named) in [
        ("--groups rows,nothing", "'nothing'"),
        ("--skip-groups Concurrent", "'Concurrent'"),
        ("--groups", "--groups needs a value"),
        ("--cover few", "'few'"),
        ("--models x --cover 2", "--cover"),
        ("--frobnicate", "--frobnicate"),
    ] {
        let error = read(text).err().unwrap_or_else(|| panic!("'{text}' is accepted"));
        assert!(error.contains(named), "'{text}': {error}");
    }
    let options = read("--groups rows,concurrent --skip-groups concurrent").expect("known groups");
    assert!(options.has("rows") && !options.has(CONCURRENT) && !options.has("movement"));
    assert!(!options.is_everything() && read("--skip-groups concurrent").is_ok_and(|options| options.is_everything()));
}
