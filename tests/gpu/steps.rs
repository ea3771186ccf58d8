//! The groups of cases: which checks are wanted, their answers by definition, and what the device says.

use crate::cases::{self, Case};
use crate::check::{self, Subject};
use crate::concurrent;
use crate::entries::{self, Coverage, Launches};
use crate::journal::Journal;
use crate::net::{Layout, Net};
use crate::options::{CONCURRENT, Options};
use crate::report::{Outcome, Report};
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;
use streaminfer::error::Result;
use streaminfer::ir::import::{self, ImportOptions};
use streaminfer::plan::{self, Bucket, Plan};
use streaminfer::runtime::{Engine, Precision};

/// All step kinds; a run of everything must have met each.
const KINDS: usize = 17;

/// The plan of a model whose inputs have these shapes.
fn plan_of(bytes: Bytes, shapes: Vec<Vec<usize>>) -> Result<Plan> {
    let graph = import::load_bytes(bytes, &ImportOptions::default())?;
    let values = vec![None; shapes.len()];
    plan::plan(&graph, Bucket { shapes, values })
}

/// A case in one layout, at the precisions that are to be checked.
struct Work<'a> {
    group: &'static str,
    case: &'a Case,
    layout: Layout,
    seed: u64,
    /// With what is launched, if that was asked for.
    precisions: Vec<(Precision, Launches)>,
}

/// What evaluating a case gives.
struct Defined<'a> {
    subject: Result<Subject<'a>>,
    kinds: Vec<&'static str>,
}

impl<'a> Work<'a> {
    fn net(&self) -> Net {
        let mut net = Net::new(self.layout, self.seed ^ xxhash_rust::xxh3::xxh3_64(self.case.name.as_bytes()));
        (self.case.build)(&mut net);
        net
    }

    fn define(&self) -> Defined<'a> {
        let Work { case, layout, .. } = *self;
        let mut net = self.net();
        let (feed, decoy, bytes) = (net.feed(), net.feed(), net.bytes());
        let mut kinds = Vec::new();
        let expected = plan_of(bytes.clone(), net.shapes()).and_then(|plan| {
            kinds.extend(plan.steps.iter().map(|step| step.kernel.name()));
            case.answer.map_or_else(|| plan::evaluate(&plan, &feed), |answer| Ok(answer()))
        });
        let is_rounded = layout == Layout::Inner;
        let subject =
            |expected| Subject { name: &case.name, layout: layout.name(), bytes, feed, expected, decoy, is_rounded };
        Defined { subject: expected.map(subject), kinds }
    }
}

/// Applies a function to all positions on all CPUs; answers in their order.
fn on_all_cpus<T: Send>(count: usize, apply: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<(usize, T)> = thread::scope(|scope| {
        let work = || {
            let indices = std::iter::repeat_with(|| next.fetch_add(1, Relaxed)).take_while(|&index| index < count);
            indices.map(|index| (index, apply(index))).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a definition does not panic")).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, value)| value).collect()
}

/// Every check that the options do not leave out by name.
fn wanted<'a>(groups: &'a [cases::Group], options: &Options, precisions: &[Precision], seed: u64) -> Vec<Work<'a>> {
    let is_heavy_wanted = options.is_all || options.cover > 0;
    let mut works = Vec::new();
    for cases::Group { name, cases } in groups.iter().filter(|group| options.has(group.name)) {
        let is_wanted = |case: &&Case| case.name.contains(&options.only) && (is_heavy_wanted || !case.is_heavy);
        let step = if options.cover > 0 { 1 } else { options.every.max(1) };
        for case in cases.iter().filter(is_wanted).step_by(step) {
            let precisions: Vec<_> = precisions.iter().map(|&precision| (precision, Launches::default())).collect();
            works.extend(case.layouts.iter().map(|&layout| {
                let precisions = precisions.clone();
                Work { group: name, case, layout, seed, precisions }
            }));
        }
    }
    works
}

/// Finds out what every check launches, and leaves those out that are not needed for the coverage.
fn cover(engine: &Engine, works: &mut Vec<Work<'_>>, options: &Options) -> std::result::Result<(), String> {
    let traits = entries::traits(engine)?;
    let launches = on_all_cpus(works.len(), |index| {
        let work = &works[index];
        let net = work.net();
        let plan = plan_of(net.bytes(), net.shapes());
        // What cannot be planned or lowered is told when it is checked, and launches nothing.
        let of = |precision| plan.as_ref().ok().and_then(|plan| Launches::of(plan, precision, &traits).ok());
        work.precisions.iter().map(|&(precision, _)| of(precision).unwrap_or_default()).collect::<Vec<_>>()
    });
    for (work, launches) in works.iter_mut().zip(launches) {
        work.precisions.iter_mut().zip(launches).for_each(|(precision, launches)| precision.1 = launches);
    }
    if options.cover == 0 {
        return Ok(());
    }
    let checks: Vec<Launches> = works.iter().flat_map(|work| work.precisions.iter().map(|it| it.1.clone())).collect();
    let chosen = entries::choose(&checks, options.cover);
    let (mut position, mut count, mut last) = (0, 0, "");
    for work in works.iter_mut() {
        // Each N-th of the cases that are not heavy, in all its layouts and precisions.
        if last != work.case.name && !work.case.is_heavy {
            (count, last) = (count + 1, &work.case.name);
        }
        let is_next = options.every > 0 && !work.case.is_heavy && (count - 1) % options.every == 0;
        work.precisions.retain(|_| {
            position += 1;
            is_next || chosen.contains(&(position - 1))
        });
    }
    works.retain(|work| !work.precisions.is_empty());
    Ok(())
}

/// One line a check.
fn list(works: &[Work<'_>]) {
    for work in works {
        for (precision, launches) in &work.precisions {
            let (group, case, layout) = (work.group, &work.case.name, work.layout.name());
            let (precision, entries) = (precision.name(), &launches.entries);
            println!(
                "{}",
                json!({ "group": group, "case": case, "layout": layout, "precision": precision, "entries": entries })
            );
        }
    }
}

/// The checks of one group, as far as they are not done and the time is not up.
fn check_group(engine: &Engine, name: &'static str, works: &[&Work<'_>], options: &Options, round: &mut Round) {
    let (start, mut report) = (Instant::now(), Report::new(name, options.is_verbose));
    if options.is_late() {
        // Their answers need not be worked out.
        round.journal.left_out += works.iter().map(|work| work.precisions.len()).sum::<usize>();
        return;
    }
    for (work, defined) in works.iter().zip(on_all_cpus(works.len(), |index| works[index].define())) {
        round.kinds.extend(defined.kinds);
        let (case, layout) = (work.case.name.as_str(), work.layout.name());
        let subject = match defined.subject {
            Ok(subject) => subject,
            Err(error) => {
                report.add(case, layout, "", Outcome::Failed(format!("no definition: {error}")));
                continue;
            }
        };
        for (precision, launches) in &work.precisions {
            if !round.journal.begin(options, case, layout, precision.name()) {
                continue;
            }
            if check::check(engine, &subject, *precision, &mut report) {
                round.journal.end(case, layout, precision.name());
            }
            round.coverage.add(launches);
        }
    }
    round.failures += report.close(start.elapsed().as_secs_f64());
}

/// What a run has met.
#[derive(Default)]
struct Round {
    journal: Journal,
    coverage: Coverage,
    kinds: BTreeSet<&'static str>,
    failures: usize,
}

/// The checks that the options ask for; gives the number of failures, and of checks for which there was no time.
pub fn run(engine: &Engine, options: &Options, seed: u64) -> std::result::Result<(usize, usize), String> {
    let groups = cases::groups();
    let mut works = wanted(&groups, options, &check::precisions(engine), seed);
    let is_covered = options.cover > 0 || options.is_list;
    if is_covered {
        cover(engine, &mut works, options)?;
    }
    if options.is_list {
        list(&works);
        let mut coverage = Coverage::default();
        works.iter().flat_map(|work| &work.precisions).for_each(|(_, launches)| coverage.add(launches));
        return Ok((report_coverage(&coverage, options), 0));
    }
    let journal = Journal::open(options.done.as_deref()).map_err(|error| format!("--done: {error}"))?;
    let mut round = Round { journal, ..Round::default() };
    for work in &mut works {
        let (case, layout) = (&work.case.name, work.layout.name());
        let (done, open) =
            work.precisions.drain(..).partition(|(precision, _)| round.journal.has(case, layout, precision.name()));
        let done: Vec<(Precision, Launches)> = done;
        done.iter().for_each(|(_, launches)| round.coverage.add(launches));
        work.precisions = open;
        round.journal.planned += work.precisions.len();
    }
    for group in groups.iter().filter(|group| options.has(group.name)) {
        let is_open = |work: &&Work<'_>| work.group == group.name && !work.precisions.is_empty();
        let works: Vec<_> = works.iter().filter(is_open).collect();
        check_group(engine, group.name, &works, options, &mut round);
    }
    if options.is_everything() && round.kinds.len() != KINDS {
        let detail = format!("only {:?} were met", round.kinds);
        println!("{}", json!({ "group": "kinds", "failed": 1, "detail": detail }));
        round.failures += 1;
    }
    if options.has(CONCURRENT) {
        let (failures, left_out) = concurrent::run(engine, seed, options);
        round.failures += failures;
        round.journal.left_out += left_out;
    }
    if is_covered {
        let missing = report_coverage(&round.coverage, options);
        // What there was no time for is said already.
        round.failures += if round.journal.left_out == 0 { missing } else { 0 };
    }
    Ok((round.failures, round.journal.left_out))
}

/// Says which entries were launched; gives the number of those that should have been and were not.
fn report_coverage(coverage: &Coverage, options: &Options) -> usize {
    let missing = coverage.missing();
    println!("{}", json!({ "group": "entries", "launched": coverage.counts(), "not_launched": missing }));
    let is_all = options.only.is_empty() && cases::groups().iter().all(|group| options.has(group.name));
    let is_fault = is_all && (options.cover > 0 || options.is_all);
    if is_fault && !missing.is_empty() {
        eprintln!("gpu: no check launches {}: tests/gpu/cases has to have one for every entry", missing.join(", "));
    }
    if is_fault { missing.len() } else { 0 }
}
