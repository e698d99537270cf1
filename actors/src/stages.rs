//! Stopwatches: where the time of this node's requests goes, for `status`.
//!
//! The cores know nothing of it: the actors that drive them see every step of a batch and a slot as an effect. A note costs
//! a few nanoseconds, so that it is always on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_messages::promise::Said;
use rabia_bank_messages::stages::{Durations, Stage, Stages};

use crate::consensus::agreement::{Effect, Notice};

/// Counts of all stages since the start.
#[derive(Debug)]
pub struct StageCounts([[AtomicU64; Durations::BUCKETS]; Stage::ALL.len()]);

impl StageCounts {
    pub(crate) fn new() -> StageCounts {
        StageCounts(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }

    /// Notes that a stage took so long.
    pub(crate) fn note(&self, stage: Stage, took: Duration) {
        let bucket = Durations::bucket(took.as_micros() as u64);
        self.0[stage as usize][bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Stages {
        let read = |stage: &Stage| {
            let counts = self.0[*stage as usize].iter().map(|count| count.load(Ordering::Relaxed));
            (*stage, Durations::new(counts.collect()))
        };
        Stage::ALL.iter().map(read).collect()
    }
}

/// When this node came to the stages of a slot, in its first phase.
#[derive(Clone, Copy, Debug, Default)]
struct SlotTimes {
    proposed: Option<Duration>,
    saving: Option<Duration>,
    voted: Option<Duration>,
}

/// Follows the slots of the agreement core by its effects.
#[derive(Debug, Default)]
pub(crate) struct SlotWatch(BTreeMap<Slot, SlotTimes>);

impl SlotWatch {
    /// The core wants this done at `now`.
    pub(crate) fn watch(&mut self, now: Duration, effect: &Effect, counts: &StageCounts) {
        let since = |at: Option<Duration>| at.map(|at| now.saturating_sub(at));
        match effect {
            Effect::Broadcast(PeerMessage::Proposal { slot, .. }) => {
                self.0.entry(*slot).or_default().proposed.get_or_insert(now);
            }
            Effect::Save(_, commit) => {
                let votes = commit.records.iter().filter(|r| r.phase == 1 && matches!(r.said, Said::Vote(_)));
                for vote in votes {
                    let Some(times) = self.0.get_mut(&vote.slot) else { continue };
                    times.saving = Some(now);
                    since(times.proposed).into_iter().for_each(|took| counts.note(Stage::State, took));
                }
            }
            Effect::Broadcast(PeerMessage::Vote { slot, phase: 1, .. }) => {
                let Some(times) = self.0.get_mut(slot).filter(|times| times.voted.is_none()) else { return };
                times.voted = Some(now);
                since(times.saving).into_iter().for_each(|took| counts.note(Stage::Sync, took));
            }
            Effect::Pool(Notice::Decided(slot, _)) => {
                let times = self.0.remove(slot).unwrap_or_default();
                since(times.voted).into_iter().for_each(|took| counts.note(Stage::Vote, took));
            }
            _ => {}
        }
    }
}
