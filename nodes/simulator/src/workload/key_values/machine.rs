//! The store as nodes replicate it: values in memory, in pages of keys in the order in which they came, and the history in blocks, of
//! which only the newest stay in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rabia_bank_actors::ledger::BadRow;
use rabia_bank_actors::ledger::machine::{
    self, Ask, Begun, Figures, Given, History, Moment, Progress, Rows, StateMachine, Whole,
};
use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::Digest;
use rabia_bank_messages::msgpack;
use serde::{Deserialize, Serialize};

use super::{Change, Command, Query, Success, Watch, is_fit};

/// Keys on a page of a snapshot.
const PAGE: usize = 3;
/// Changes in a full block.
const BLOCK: u64 = 8;
/// Changes that stay in memory though they are in durable blocks.
const KEEP: u64 = 16;

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done(u64),
    Conflict(Option<String>),
    /// The key or the value is too long, or the key empty.
    Unfit,
}

/// What the row of the state has of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    keys: u64,
    changes: u64,
    hash: Digest,
}

/// A question that looks at the history, change by change.
#[derive(Debug)]
pub(crate) enum Task {
    /// Downwards from the change `next`.
    Past { key: Option<String>, next: u64, limit: usize, found: Vec<Change> },
    /// Upwards from `next` to `end`.
    Feed { watch: Watch, next: u64, end: u64, limit: usize, found: Vec<Change> },
}

/// A block of the history.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Block {
    number: u64,
    before: Digest,
    changes: Vec<Change>,
}

/// A snapshot that is being taken.
#[derive(Debug)]
struct Taking {
    pages: Vec<(u32, Vec<u8>)>,
    blocks: Vec<(u64, Vec<u8>)>,
    /// The block that comes next, and the newest change.
    next: u64,
    end: u64,
}

/// Keys and values in memory, and a history that leaves it block by block.
#[derive(Debug)]
pub(crate) struct KeyValues {
    /// In the order in which the keys came, so that each stays on its page.
    entries: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
    /// Pages that changed since the last snapshot.
    changed: BTreeSet<u32>,
    /// The newest changes: those behind the `forgotten` ones, which are in full blocks on disk.
    changes: VecDeque<Change>,
    forgotten: u64,
    /// The hash of the last one that is forgotten.
    before: Digest,
    /// The newest change that a snapshot took.
    saved: u64,
    taking: Option<Taking>,
}

impl KeyValues {
    fn new() -> KeyValues {
        KeyValues {
            entries: Vec::new(),
            places: BTreeMap::new(),
            changed: BTreeSet::new(),
            changes: VecDeque::new(),
            forgotten: 0,
            before: Digest::ZERO,
            saved: 0,
            taking: None,
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.places.get(key).map(|place| &*self.entries[*place].1)
    }

    fn set(&mut self, key: &str, value: &str) {
        let place = *self.places.entry(key.into()).or_insert(self.entries.len());
        match self.entries.get_mut(place) {
            Some(entry) => entry.1 = value.into(),
            None => self.entries.push((key.into(), value.into())),
        }
        self.changed.insert((place / PAGE) as u32);
    }

    fn page(&self, page: u32) -> Vec<u8> {
        let first = page as usize * PAGE;
        msgpack::encode(&&self.entries[first..self.entries.len().min(first + PAGE)])
    }

    /// The hash of the change of this id, which is in memory, or the last one that is not.
    fn hash_of(&self, id: u64) -> Digest {
        match id.checked_sub(self.forgotten + 1) {
            Some(place) => self.changes[place as usize].hash,
            None => self.before,
        }
    }

    fn block(&self, number: u64, end: u64) -> Block {
        let first = number * BLOCK;
        assert!(first >= self.forgotten, "block {number} is forgotten, up to change {}", self.forgotten);
        let held = self.changes.iter().skip((first - self.forgotten) as usize);
        let changes = held.take((end - first).min(BLOCK) as usize).cloned().collect();
        Block { number, before: self.hash_of(first), changes }
    }

    /// The change of this id, if it is in memory or in one of these blocks; else the block that it is in.
    fn find<'a>(&'a self, id: u64, blocks: &'a Given<Block>) -> Result<&'a Change, u64> {
        if let Some(place) = id.checked_sub(self.forgotten + 1) {
            return Ok(&self.changes[place as usize]);
        }
        let number = (id - 1) / BLOCK;
        let block = blocks.iter().find(|block| block.number == number);
        block.and_then(|block| block.changes.get((id - 1 - number * BLOCK) as usize)).ok_or(number)
    }
}

impl StateMachine for KeyValues {
    const NAME: &'static str = "simulated key-value store 1";

    type Command = Command;
    type Outcome = Outcome;
    type Kept = Whole<Outcome>;
    type Query = Query;
    type Answer = Success;
    type Task = Task;
    type Feed = Watch;
    type Block = Block;
    type Head = Head;

    fn new_cluster(_: &Genesis) -> KeyValues {
        KeyValues::new()
    }

    fn apply(&mut self, command: &Command, at: Moment) -> Outcome {
        let (Command::Put { key, value } | Command::Swap { key, value, .. }) = command;
        if !is_fit(key, value) {
            return Outcome::Unfit;
        }
        if let Command::Swap { expected, .. } = command
            && self.get(key) != expected.as_deref()
        {
            return Outcome::Conflict(self.get(key).map(String::from));
        }
        let History { entries, head } = self.history();
        self.changes.push_back(Change::new(entries + 1, at.slot, key, value, head));
        self.set(key, value);
        Outcome::Done(entries + 1)
    }

    fn begin(&self, ask: Ask<'_, KeyValues>) -> Begun<KeyValues> {
        Begun::Done(Ok(match ask {
            Ask::Outcome(Outcome::Done(id)) => Success::Done(*id),
            Ask::Outcome(Outcome::Conflict(found)) => Success::Conflict(found.clone()),
            Ask::Outcome(Outcome::Unfit) => {
                let why = "a key has 1 to 64 bytes, and a value up to 64";
                return Begun::Done(Err(Refusal::refused(ErrorCode::Malformed, why)));
            }
            Ask::Query(Query::Get(key)) => Success::Value(self.get(key).map(String::from)),
            Ask::Query(Query::Keys { after, limit }) => {
                let behind = self.places.keys().filter(|key| after.as_ref().is_none_or(|after| *key > after));
                Success::Keys(behind.take(*limit).cloned().collect())
            }
            Ask::Query(Query::Past { key, before, limit }) => {
                let newest = self.history().entries;
                let next = before.map_or(newest, |before| newest.min(before.saturating_sub(1)));
                return Begun::Task(Task::Past { key: key.clone(), next, limit: *limit, found: Vec::new() });
            }
            Ask::Feed { feed, next, scan, limit } => {
                let next = next.max(1);
                let end = self.history().entries.min(next.saturating_add(scan) - 1);
                return Begun::Task(Task::Feed { watch: feed.clone(), next, end, limit, found: Vec::new() });
            }
        }))
    }

    fn state_hash(&mut self) -> [u8; 32] {
        Digest::of(&msgpack::encode(&self.entries)).0
    }

    fn history(&self) -> History {
        let entries = self.forgotten + self.changes.len() as u64;
        History { entries, head: self.hash_of(entries) }
    }

    fn figures(&self) -> Figures {
        Figures { accounts: self.entries.len() as u64, ..Figures::default() }
    }

    fn head(&self) -> Head {
        let History { entries: changes, head: hash } = self.history();
        Head { keys: self.entries.len() as u64, changes, hash }
    }

    fn freeze(&mut self) -> usize {
        let changed = std::mem::take(&mut self.changed);
        let pages = changed.into_iter().map(|page| (page, self.page(page))).collect();
        let (next, end) = (self.saved / BLOCK, self.history().entries);
        self.taking = Some(Taking { pages, blocks: Vec::new(), next, end });
        (end.div_ceil(BLOCK) - next) as usize
    }

    /// A step is a block.
    fn collect(&mut self, steps: usize) -> Option<Rows> {
        let Some(mut taking) = self.taking.take() else { panic!("no snapshot is being taken") };
        for _ in 0..steps {
            if taking.next * BLOCK >= taking.end {
                break;
            }
            taking.blocks.push((taking.next, msgpack::encode(&self.block(taking.next, taking.end))));
            taking.next += 1;
        }
        if taking.next * BLOCK < taking.end {
            self.taking = Some(taking);
            return None;
        }
        let Taking { pages, blocks, end: entries, .. } = taking;
        self.saved = entries;
        Some(Rows { pages, blocks, entries })
    }

    fn forget(&mut self, entries: u64) {
        let forget = entries.min(self.history().entries.saturating_sub(KEEP));
        while self.forgotten + BLOCK <= forget {
            self.before = self.hash_of(self.forgotten + BLOCK);
            self.changes.drain(..BLOCK as usize);
            self.forgotten += BLOCK;
        }
    }

    fn load(_: &Head) -> KeyValues {
        KeyValues::new()
    }

    fn load_page(&mut self, page: u32, row: &[u8]) -> Result<(), BadRow> {
        let bad = |why: String| BadRow::new(format!("page {page}: {why}"));
        let entries: Vec<(String, String)> = msgpack::decode(row).map_err(|why| bad(why.to_string()))?;
        if self.entries.len() != page as usize * PAGE {
            return Err(bad("it does not follow the one before".into()));
        }
        entries.iter().for_each(|(key, value)| self.set(key, value));
        Ok(())
    }

    fn loaded(&mut self, head: Head, last: Option<&Block>) -> Result<(), BadRow> {
        self.changed.clear();
        let found = self.entries.len() as u64;
        if found != head.keys {
            return Err(BadRow::new(format!("{found} keys, where {} should be", head.keys)));
        }
        (self.saved, self.forgotten, self.before) = (head.changes, head.changes, head.hash);
        if let Some(block) = last {
            (self.forgotten, self.before) = (block.number * BLOCK, block.before);
            // On disk it may be fuller, by a later snapshot that was never complete.
            self.changes.extend(block.changes.iter().take_while(|change| change.id <= head.changes).cloned());
        }
        let (found, expected) = (self.history(), KeyValues::history_of(&head));
        if found == expected { Ok(()) } else { Err(BadRow::new(format!("{found:?}, where {expected:?} should be"))) }
    }

    fn history_of(head: &Head) -> History {
        History { entries: head.changes, head: head.hash }
    }
}

impl machine::Task<KeyValues> for Task {
    fn run(&mut self, store: &KeyValues, blocks: &Given<Block>, steps: &mut u64) -> Progress<Success> {
        loop {
            let id = match self {
                Task::Past { next, limit, found, .. } if *next == 0 || found.len() >= *limit => {
                    return Progress::Done(Ok(Success::Changes(std::mem::take(found))));
                }
                Task::Feed { next, end, limit, found, .. } if *next > *end || found.len() >= *limit => {
                    return Progress::Done(Ok(Success::Told(std::mem::take(found), *next)));
                }
                Task::Past { next, .. } | Task::Feed { next, .. } => *next,
            };
            let Some(left) = steps.checked_sub(1) else { return Progress::Unfinished };
            let change = match store.find(id, blocks) {
                Ok(change) => change,
                Err(number) => return Progress::Block(number),
            };
            *steps = left;
            match self {
                Task::Past { key, next, found, .. } => {
                    found.extend(key.as_ref().is_none_or(|key| *key == change.key).then(|| change.clone()));
                    *next -= 1;
                }
                Task::Feed { watch, next, found, .. } => {
                    found.extend(watch.is_about(change).then(|| change.clone()));
                    *next += 1;
                }
            }
        }
    }
}

impl machine::Feed<KeyValues> for Watch {
    type Entry = Change;

    fn first(&self, store: &KeyValues) -> Result<u64, Refusal> {
        Ok(store.history().entries + 1)
    }

    fn subscribed(&self, from: u64) -> Success {
        Success::Subscribed(from)
    }

    fn entries(&self, answer: Success) -> Option<(Vec<Change>, u64)> {
        match answer {
            Success::Told(changes, next) => Some((changes, next)),
            _ => None,
        }
    }
}

impl machine::Block for Block {
    const ENTRIES: u64 = BLOCK;

    /// Every hash is computed again.
    fn decode(number: u64, row: &[u8]) -> Result<Block, BadRow> {
        let bad = |why: String| BadRow::new(format!("block {number} of the history: {why}"));
        let block: Block = msgpack::decode(row).map_err(|why| bad(why.to_string()))?;
        if block.number != number || !(1..=BLOCK).contains(&(block.changes.len() as u64)) {
            return Err(bad(format!("the row is of block {}, with {} changes", block.number, block.changes.len())));
        }
        let mut before = block.before;
        for (change, id) in block.changes.iter().zip(number.saturating_mul(BLOCK).saturating_add(1)..) {
            let Change { slot, key, value, .. } = change;
            let expected = Change::new(id, *slot, key, value, before);
            if *change != expected {
                return Err(bad(format!("{change:?}, where {expected:?} should be")));
            }
            before = change.hash;
        }
        Ok(block)
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn before(&self) -> Digest {
        self.before
    }

    fn len(&self) -> u64 {
        self.changes.len() as u64
    }

    fn hash_of(&self, id: u64) -> Option<Digest> {
        let place = id.checked_sub(self.number * BLOCK + 1)?;
        self.changes.get(usize::try_from(place).ok()?).map(|change| change.hash)
    }
}
