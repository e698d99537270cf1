//! A key-value store with put, get and compare-and-swap, that keeps every change: something else than the bank. Its history leaves
//! memory after a few dozen changes, so that even short runs read it back from disk.
//!
//! The model is the list of all changes; what a key had is the last one that names it. What must hold beside the answers: the history
//! is that list, and its hashes lead to the ledger's.

mod machine;

use std::collections::BTreeSet;
use std::ops::Range;

use fastrand::Rng;
use rabia_bank_actors::ledger::replicated::Replicated;
use rabia_bank_messages::bank::{ErrorCode, Refusal, Transaction};
use rabia_bank_messages::batch::Batched;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{Digest, Millis, Slot};
use rabia_bank_messages::msgpack;
use rabia_bank_model::{Answer, At, Model, Plain};
use serde::{Deserialize, Serialize};

use self::machine::KeyValues;
use super::super::properties::{Check, Violation, check};
use super::Workload;

/// The longest key and the longest value, in bytes: what is kept of an outcome has one value.
const LONGEST: usize = 64;
/// Keys that commands are about.
const KEYS: u64 = 10;
/// Values that they are given.
const VALUES: u64 = 20;

/// What changes the store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Put {
        key: String,
        value: String,
    },
    /// Only where the key has this value; none: where there is no such key.
    Swap {
        key: String,
        expected: Option<String>,
        value: String,
    },
}

impl Batched for Command {}

/// What can be asked.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    Get(String),
    /// The keys behind this one, in alphabetical order, and so many at most.
    Keys {
        after: Option<String>,
        limit: usize,
    },
    /// The changes of a key, or of all, with ids below this one, newest first, and so many at most.
    Past {
        key: Option<String>,
        before: Option<u64>,
        limit: usize,
    },
}

/// What a command or a query brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Success {
    /// By the change of this id.
    Done(u64),
    /// Nothing was done: this is the value.
    Conflict(Option<String>),
    Value(Option<String>),
    Keys(Vec<String>),
    Changes(Vec<Change>),
    /// A subscription begins with this id.
    Subscribed(u64),
    /// Changes of a feed, and where it goes on.
    Told(Vec<Change>, u64),
}

/// A change, as the history has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Change {
    /// From 1, in the order of application.
    id: u64,
    slot: Slot,
    key: String,
    value: String,
    /// Over this change and the hash of the one before it.
    hash: Digest,
}

impl Change {
    /// The change behind the one with the hash `before`.
    fn new(id: u64, slot: Slot, key: &str, value: &str, before: Digest) -> Change {
        let hash = Digest::of(&msgpack::encode(&(before, id, slot, key, value)));
        Change { id, slot, key: key.into(), value: value.into(), hash }
    }
}

/// What a subscription is about: a key, or all.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    key: Option<String>,
}

impl Watch {
    fn is_about(&self, change: &Change) -> bool {
        self.key.as_ref().is_none_or(|key| *key == change.key)
    }
}

/// Whether a key may have this value.
fn is_fit(key: &str, value: &str) -> bool {
    (1..=LONGEST).contains(&key.len()) && value.len() <= LONGEST
}

/// The store in plain words: all changes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Change>);

impl Changes {
    /// What they were after a slot.
    fn until(&self, slot: Slot) -> &[Change] {
        &self.0[..self.0.partition_point(|change| change.slot <= slot)]
    }

    fn value(&self, key: &str, slot: Slot) -> Option<&str> {
        self.until(slot).iter().rfind(|change| change.key == key).map(|change| &*change.value)
    }
}

impl Plain for Changes {
    type Command = Command;
    type Query = Query;
    type Success = Success;

    fn command(&mut self, command: &Command, At { slot, .. }: At<'_>) -> Answer<Success> {
        let (Command::Put { key, value } | Command::Swap { key, value, .. }) = command;
        if !is_fit(key, value) {
            return Err(Refusal::refused(ErrorCode::Malformed, ""));
        }
        let found = self.value(key, slot).map(String::from);
        if let Command::Swap { expected, .. } = command
            && found != *expected
        {
            return Ok(Success::Conflict(found));
        }
        let before = self.0.last().map_or(Digest::ZERO, |change| change.hash);
        let id = self.0.len() as u64 + 1;
        self.0.push(Change::new(id, slot, key, value, before));
        Ok(Success::Done(id))
    }

    fn query(&self, query: &Query, slot: Slot) -> Answer<Success> {
        let changes = self.until(slot);
        Ok(match query {
            Query::Get(key) => Success::Value(self.value(key, slot).map(String::from)),
            Query::Keys { after, limit } => {
                let keys: BTreeSet<&String> = changes.iter().map(|change| &change.key).collect();
                let behind = keys.into_iter().filter(|key| after.as_ref().is_none_or(|after| *key > after));
                Success::Keys(behind.take(*limit).cloned().collect())
            }
            Query::Past { key, before, limit } => {
                let wanted = changes.iter().rev().filter(|change| {
                    before.is_none_or(|before| change.id < before) && key.as_ref().is_none_or(|key| *key == change.key)
                });
                Success::Changes(wanted.take(*limit).cloned().collect())
            }
        })
    }
}

fn key(random: &mut Rng) -> String {
    match random.u32(..40) {
        0 => String::new(),
        1 => "k".repeat(LONGEST + 1),
        2 => "nothing".into(),
        _ => format!("key-{}", random.u64(..KEYS)),
    }
}

fn value(random: &mut Rng) -> String {
    match random.u32(..40) {
        0 => String::new(),
        1 => "v".repeat(LONGEST),
        2 => "v".repeat(LONGEST + 1),
        _ => format!("value-{}", random.u64(..VALUES)),
    }
}

fn limit(random: &mut Rng) -> usize {
    if random.u32(..6) == 0 { usize::MAX } else { random.usize(..12) }
}

impl Workload for Changes {
    type Machine = KeyValues;

    const PRINCIPALS: bool = false;

    fn new_cluster(_: &Genesis) -> Changes {
        Changes::default()
    }

    /// Half of the swaps expect what the key has by now, which others may change on the way.
    fn any_command(&self, random: &mut Rng) -> Command {
        let (key, value) = (key(random), value(random));
        if random.bool() {
            return Command::Put { key, value };
        }
        let expected = match random.u32(..4) {
            0 => None,
            1 => Some(self::value(random)),
            _ => self.value(&key, Slot::MAX).map(String::from),
        };
        Command::Swap { key, expected, value }
    }

    fn any_query(&self, _: Millis, random: &mut Rng) -> Query {
        match random.u32(..4) {
            0 => Query::Keys { after: random.bool().then(|| key(random)), limit: limit(random) },
            1 => {
                let before = random.bool().then(|| random.u64(..self.0.len() as u64 + 3));
                Query::Past { key: random.bool().then(|| key(random)), before, limit: limit(random) }
            }
            _ => Query::Get(key(random)),
        }
    }

    fn any_feed(&self, random: &mut Rng) -> (Watch, u64) {
        (Watch { key: random.bool().then(|| key(random)) }, random.u64(..self.0.len() as u64 + 3))
    }

    fn entries(&self, watch: &Watch, ids: Range<u64>) -> Option<Vec<Change>> {
        let (from, next) = (ids.start.max(1), ids.end);
        if from == next {
            return Some(Vec::new());
        }
        let looked_at = self.0.get(from as usize - 1..next as usize - 1)?;
        Some(looked_at.iter().filter(|change| watch.is_about(change)).cloned().collect())
    }

    fn slot_of(&self, id: u64) -> Slot {
        id.checked_sub(1).and_then(|place| self.0.get(place as usize)).map_or(0, |change| change.slot)
    }

    fn holds(slot: Slot, ledger: &Replicated<KeyValues>, model: &Model<Changes>) -> Check {
        let history = ledger.history();
        let changes = &model.machine().0;
        let head = changes.last().map_or(Digest::ZERO, |change| change.hash);
        check((history.entries, history.head) == (changes.len() as u64, head), "the history is the model's", || {
            format!("after slot {slot} the history is {history:?}, and the model's has {} and {head}", changes.len())
        })
    }

    fn all_pages(
        mut ask: impl FnMut(&Query) -> Result<Option<Success>, Violation>,
    ) -> Result<Vec<Transaction>, Violation> {
        let (mut after, mut before) = (None, None);
        while let Some(Success::Keys(keys)) = ask(&Query::Keys { after, limit: 3 })?
            && let Some(last) = keys.last()
        {
            after = Some(last.clone());
        }
        while let Some(Success::Changes(changes)) = ask(&Query::Past { key: None, before, limit: 25 })?
            && let Some(last) = changes.last()
        {
            before = Some(last.id);
        }
        Ok(Vec::new())
    }
}
