//! Which entries a check launches, and checks that launch every entry. A program is lowered here as the device lowers it, so nothing has
//! to run for that.

use libloading::Library;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use streaminfer::error::Result;
use streaminfer::kernels::entry;
use streaminfer::lower::cuda::{Traits, lower};
use streaminfer::plan::Plan;
use streaminfer::runtime::{Engine, Precision};

/// Numbers of multiprocessors, capability and shared memory in the driver's list of attributes.
const ATTRIBUTES: [c_int; 4] = [16, 75, 76, 97];

/// What launches of a replay cost beside those of its program: fetching and finishing.
const ALWAYS: [&str; 2] = ["transfer_fetch", "transfer_finish"];

/// What a check launches, and about how much work that is.
#[derive(Clone, Debug, Default)]
pub struct Launches {
    pub entries: BTreeSet<&'static str>,
    threads: u64,
}

impl Launches {
    pub fn of(plan: &Plan, precision: Precision, traits: &Traits) -> Result<Launches> {
        let program = lower(plan, precision, traits)?;
        let mut launches = Launches { entries: BTreeSet::from(ALWAYS), threads: 0 };
        for launch in &program.launches {
            let blocks: u64 = launch.geometry.grid.iter().map(|&extent| u64::from(extent)).product();
            launches.threads += blocks * u64::from(launch.geometry.block);
            launches.entries.insert(launch.entry.name);
        }
        Ok(launches)
    }
}

/// The traits of the device under test, as its driver says them.
pub fn traits(engine: &Engine) -> std::result::Result<Traits, String> {
    let id = engine.device().id;
    let index: c_int =
        id.strip_prefix("cuda:").and_then(|index| index.parse().ok()).ok_or(format!("{id} has no entries"))?;
    // SAFETY: the engine has loaded and started it.
    let library = unsafe { Library::new("libcuda.so.1") }.map_err(|error| error.to_string())?;
    let mut values = [0 as c_int; 4];
    for (value, attribute) in values.iter_mut().zip(ATTRIBUTES) {
        // SAFETY: the manual's signature; an index is the device's handle.
        let code = unsafe {
            type Get = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
            let get = library.get::<Get>(b"cuDeviceGetAttribute").map_err(|error| error.to_string())?;
            get(value, attribute, index)
        };
        if code != 0 {
            return Err(format!("attribute {attribute} of {id}: the driver answers {code}"));
        }
    }
    // The driver's threads may outlive this: it stays.
    std::mem::forget(library);
    let [multiprocessors, major, minor, shared_bytes_max] = values.map(|value| value as u32);
    Ok(Traits { multiprocessors, capability: (major, minor), shared_bytes_max })
}

/// Positions of checks, the cheapest that will do, by which every entry is launched so many times, or as often as there are checks.
pub fn choose(checks: &[Launches], times: usize) -> BTreeSet<usize> {
    let mut by_entry: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, check) in checks.iter().enumerate() {
        check.entries.iter().for_each(|entry| by_entry.entry(entry).or_default().push(position));
    }
    let mut rarest: Vec<_> = by_entry.into_values().collect();
    // What few checks launch leaves no choice, and may cover the rest.
    rarest.sort_by_key(Vec::len);
    let mut chosen = BTreeSet::new();
    for mut positions in rarest {
        let missing = times.saturating_sub(positions.iter().filter(|position| chosen.contains(*position)).count());
        positions.retain(|position| !chosen.contains(position));
        positions.sort_by_key(|&position| checks[position].threads);
        chosen.extend(positions.into_iter().take(missing));
    }
    chosen
}

/// Entries with how many checks have launched them, and the names of those that none has.
#[derive(Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, usize>,
}

impl Coverage {
    pub fn add(&mut self, launches: &Launches) {
        launches.entries.iter().for_each(|entry| *self.counts.entry(entry).or_default() += 1);
    }

    /// Every entry of the library that no check has launched.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing: Vec<_> =
            entry::entries().map(|entry| entry.name).filter(|name| !self.counts.contains_key(name)).collect();
        missing.sort_unstable();
        missing
    }

    pub fn counts(&self) -> &BTreeMap<&'static str, usize> {
        &self.counts
    }
}

/// Whether a choice covers what it can, at little cost. Panics if it does not.
pub fn prove_choice() {
    let check = |entries: &[&'static str], threads| Launches { entries: entries.iter().copied().collect(), threads };
    let checks = [check(&["a", "b"], 9), check(&["a"], 1), check(&["b"], 5), check(&["c"], 100), check(&["a", "b"], 2)];
    assert_eq!(choose(&checks, 1), BTreeSet::from([1, 3, 4]), "c has one check, a's and b's are the cheapest");
    assert_eq!(choose(&checks, 9).len(), checks.len(), "all of them are too few");
}
