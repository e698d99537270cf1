//! A whole cluster and its clients in one thread, in virtual time, from one seed: the code that ships, in a bad world.
//!
//! Under simulation are the agreement core, the pool, the ledger, the handshake, the log, the books, and the desk that saves, sends
//! and takes snapshots, as they are in a node, and so is what shares a commit of the log (`parts`); the simulator takes the place of
//! the actors, sockets, disks and clocks around them (`world`). Messages are lost, delayed, duplicated and reordered, and payloads damaged (`network`); nodes
//! crash in the middle of writes and starts, alone or together, stand still, lose their disks, get an old copy back, or a new
//! store, with the former one put back now and then;
//! syncs are slow or fail, and what was not synced survives in part (`disk`); clocks jump and drift, and in one seed of seven
//! those of a majority leap by days (`faults`); clients lose patience and ask others, are slow, let their sessions expire, or
//! never acknowledge anything (`clients`). In two seeds of seven some members say nonsense besides ([`nonsense`], which says where
//! the line is drawn), in one of eleven batches that nobody can apply get past every check. After some seconds
//! everything heals, and all must be finished within a bound; then the cluster must come to rest.
//!
//! What must hold is in `properties`, one file each. A run ends with the first violation.
//!
//! The same seed is the same run, to the last byte of the trace: nothing here depends on time, on addresses, or on the order
//! of a hash map. Seeds are run on several threads (`jobs`), each seed in one.
//!
//! # How much it does
//!
//! `rabia-bank simulate --ops 2000`, optimised, the 20,200 seeds from 200,001 on: no violation. The last 4,000 of them, from 216,201
//! on, ran on the present code, the others before the pool stopped hearing of proposals that do not count.
//!
//! | | |
//! | --- | --- |
//! | slots | 29,593,699, of them forfeited 2,075,986, the coin asked in 840,490 |
//! | decisions by votes in phase 1, 2, 3, later | 71,275,612, 2,046,565, 34,290, 4,392 |
//! | commands acknowledged, reads answered | 25,360,995, 13,469,954 |
//! | messages lost, delayed, duplicated; payloads damaged | 22,983,438, 14,461,321, 19,231,132; 158,136 |
//! | answers to clients lost, requests sent again | 430,764, 19,554,259 |
//! | sessions expired under a request | 1,573,952 |
//! | partitions: halves, one way, one node, swizzled; links reset | 26,808, 26,712, 26,427, 26,407; 16,404 |
//! | crashes of one, several, all nodes; starts cut short | 21,578, 26,718, 26,438; 23,208 |
//! | of them between a write and its sync, in the books | 19,149, 4,662 |
//! | nodes paused, clocks jumped | 21,429, 26,785 |
//! | syncs slow, failing | 22,244, 21,773 |
//! | disks wiped, replaced; former stores, old copies put back | 10,293, 10,833; 4,613, 2,753 |
//! | snapshots saved, installed, overtaken | 4,429,385, 20,600, 822 |
//!
//! On a machine with nothing else to do a processor runs about 125 such seeds a minute.
//!
//! # Does it find anything?
//!
//! In test builds rules can be broken, one at a time: `Rule` in `rabia_bank_messages::sabotage` says what each of them is. The
//! test `broken_rules_are_noticed` runs those that are found at once; this command runs all, and prints by which property they
//! are noticed and with which seed (with `OPS` of so many requests, `SEEDS` at most, `RULE` only this one):
//!
//! ```text
//! cargo test --release -p rabia-bank --test simulate -- --ignored --nocapture after_how_many_seeds
//! ```
//!
//! Measured with 300 requests a seed, from seed 1 on:
//!
//! | broken rule | noticed by | seed |
//! | --- | --- | --- |
//! | `Reserve` (rule 1) | reserve | 1 |
//! | `TaintRemembered` (rule 1) | tainted slots | 1 |
//! | `TaintedAbstains` (rule 3 †) | tainted slots | 1 |
//! | `ProposalMajority` (rule 3) | messages follow from messages | 1 |
//! | `StateQuorum` (rule 4) | messages follow from messages | 1 |
//! | `VoteFollowsMajority` (rule 4 †) | majorities are voted for | 2 |
//! | `VoteDurableFirst` (rule 4 †) | durable before sent | 1 |
//! | `DecisionNeedsVotes` (rule 5) | messages follow from messages | 1 |
//! | `VoteBindsState` (rule 5) | messages follow from messages | 2 |
//! | `CommonCoin` (rule 5) | messages follow from messages | 2 |
//! | `StateDurableFirst` (rule 5 †) | durable before sent | 1 |
//! | `PayloadHeld` (rule 6 ‡) | messages follow from messages | 1 |
//! | `ParkedReplaced` (rule 6 ‡) | nobody waits for what it has | 2 |
//! | `PayloadDurable` (rule 6) | store | 1 |
//! | `PayloadDigest` (rule 6) | store | 5 |
//! | `PayloadChecked` (members say nonsense) | validity | 2 |
//! | `NumbersChecked` (members say nonsense) | assertions (an overflow) | 2 |
//! | `DecisionsStay` (members say nonsense) | assertions | 2 |
//! | `UnusableIsEmpty` (a batch that can't be applied is decided) | assertions | 8 |
//! | `OnePerSender` (rule 7) | messages follow from messages | 1 |
//! | `FirstCounts` (rule 7) | majorities are voted for | 16 |
//! | `Repeat` (rule 9) | liveness | 1 |
//! | `RecordsStay` (rule 10 †) | durability | 2 |
//! | `SnapshotKeepsAbove` (rule 10 †) | durability | 9 |
//! | `RestartSpeaks` (rule 11 ‡) | liveness | 1 |
//! | `RestartSaysAll` (rule 11 ‡) | liveness | 10 |
//! | `RunsKnown` (rule 12) | nothing | > 120 |
//! | `PromiseCounts` (rule 12) | old copies | 32 |
//! | `StoreMadeOnce` (rule 12) | handshake | 8 |
//! | `NewStoreByLog` (replacing only through the log) | one store a member | 4 |
//! | `NewStoreWindow` | one store a member | 19 |
//! | `NewStoreReads` | one store a member | 11 |
//! | `Window` | window | 1 |
//! | `StampAhead` | validity | 2 |
//! | `NoLeaps` | log time | 80 |
//! | `InOrder` | order | 1 |
//! | `SnapshotSettlesPending` | quiet | 5 |
//! | `ReadRound` | linearizable reads | 1 |
//! | `ReadQuorum` | read rounds | 1 |
//! | `ReadSeesVotes` | linearizable reads | 3 |
//! | `ReadEcho` | read rounds | 2 |
//! | `ReadWaits` | linearizable reads | 6 |
//! | `ReportedDurable` (a sync comes before what it allows) | durable before sent | 1 |
//! | `RecordsWritten` | durable before sent | 1 |
//! | `SyncsSync` | store | 2 |
//! | `BooksCoverLog` | store | 1 |
//! | `BatchOnce` | the ledger is the model | 1 |
//! | `RepliesKept` | the ledger is the model | 1 |
//! | `SessionsExpire` | the ledger is the model | 4 |
//! | `MonotonicTime` | assertions (an overflow) | 1 |
//! | `OverflowChecked` | assertions | 8 |
//!
//! A log does not fork here: it takes a copy of a store whose promises a peer has not heard of, and that peer's vote, which is
//! more than a cluster bears. So `RunsKnown`, and the rules about logs that differ, are broken in the tests of the handshake and of
//! the agreement core (`forks`), and with the real program.

mod clients;
mod disk;
mod faults;
mod jobs;
mod network;
pub mod nonsense;
mod properties;
mod trace;
mod world;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use jobs::{Jobs, name_seeds_of_panics};
pub use properties::Violation;
use trace::Trace;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Settings {
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
    /// Slots decided.
    pub slots: u64,
    /// Of them forfeited.
    pub null_slots: u64,
    /// Commands acknowledged.
    pub acknowledged: u64,
    /// Reads answered.
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

/// A run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// What happened.
    pub report: Report,
    /// What was wrong.
    pub violation: Option<Violation>,
    /// The story, if it was wanted.
    pub trace: Vec<String>,
}

/// Runs one seed. An assertion that fails in the code under simulation is a violation too. (Where panics abort, [`Jobs`] and
/// [`name_seeds_of_panics`] see to that.)
pub fn run(seed: u64, settings: &Settings) -> Run {
    let running = catch_unwind(AssertUnwindSafe(|| match world::World::new(seed, settings) {
        Ok(world) => world.run(),
        Err(violation) => (Report::default(), Some(violation)),
    }));
    match running {
        Ok((report, violation)) => Run { report, violation, trace: Trace::take() },
        Err(panic) => panicked(&*panic),
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
