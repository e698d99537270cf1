#![doc = include_str!("../SIMULATION.md")]

mod clients;
mod disk;
mod faults;
mod jobs;
mod network;
pub mod nonsense;
mod properties;
mod staff;
mod trace;
mod workload;
mod world;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use jobs::{Jobs, name_seeds_of_panics};
pub use properties::Violation;
use rabia_bank_model::Bank;
use trace::Trace;
use tracing::subscriber::NoSubscriber;
use workload::{Changes, Workload};
use world::World;

/// What the nodes of a simulated cluster replicate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// What is shipped, with all its commands.
    #[default]
    Bank,
    /// A key-value store with a history.
    KeyValues,
}

/// What is simulated, how large a run is, and whether its story is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the nodes replicate.
    pub machine: Kind,
    /// 3, 4 or 5; none to take turns by seed.
    pub nodes: Option<usize>,
    /// Requests of all clients together.
    pub operations: u64,
    /// Whether to keep the story of the run.
    pub trace: bool,
}

/// What happened in a run, or in several.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// How many slots were decided, null slots among them.
    pub slots: u64,
    /// How many of the slots were forfeited.
    pub null_slots: u64,
    /// How many commands were answered as applied.
    pub acknowledged: u64,
    /// How many queries were answered.
    pub reads: u64,
    /// Decisions by votes at single nodes: in phase 1, 2, 3, and 4 or later.
    pub phases: [u64; 4],
    /// Slots in which a node asked the coin.
    pub coin_slots: u64,
    /// How often each fault was met.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Report {
    fn count(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Report) {
        self.slots += other.slots;
        self.null_slots += other.null_slots;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        for (sum, count) in self.phases.iter_mut().zip(other.phases) {
            *sum += count;
        }
        self.coin_slots += other.coin_slots;
        for (what, count) in &other.faults {
            *self.faults.entry(what).or_default() += count;
        }
    }
}

/// What came of one seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// What happened, in figures.
    pub report: Report,
    /// The first property that was violated; none in a good run.
    pub violation: Option<Violation>,
    /// The story, if it was wanted.
    pub trace: Vec<String>,
}

/// Runs one seed. An assertion that fails in the code under simulation is a violation too. (Where panics abort, [`Jobs`] and
/// [`name_seeds_of_panics`] see to that.)
pub fn run(seed: u64, settings: &Settings) -> Run {
    // What the parts of a node tell people is not the story of the run.
    let _silent = tracing::subscriber::set_default(NoSubscriber::default());
    let running = catch_unwind(AssertUnwindSafe(|| match settings.machine {
        Kind::Bank => live::<Bank>(seed, settings),
        Kind::KeyValues => live::<Changes>(seed, settings),
    }));
    match running {
        Ok((report, violation)) => Run { report, violation, trace: Trace::take() },
        Err(panic) => panicked(&*panic),
    }
}

/// Lets a world live.
fn live<W: Workload>(seed: u64, settings: &Settings) -> (Report, Option<Violation>) {
    match World::<W>::new(seed, settings) {
        Ok(world) => world.run(),
        Err(violation) => (Report::default(), Some(violation)),
    }
}

/// What is left of the run on this thread, in which an assertion failed.
fn panicked(panic: &(dyn Any + Send)) -> Run {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let what = text.unwrap_or_else(|| "a panic without words".to_owned());
    let violation = Some(Violation { property: "assertions", what });
    Run { report: Report::default(), violation, trace: Trace::take() }
}
