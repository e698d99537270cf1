//! Sessions that ended: their keys open no session again, so that a retry that comes late is not executed anew.
//!
//! A key is remembered as a hash of it: a backup that says which keys are used up is of no use to speak in a session. Keys are
//! numbered as their sessions end, and kept in pages of [`PAGE`]. The oldest page goes when [`REMEMBERED`] younger keys are
//! there.

use std::collections::{BTreeSet, VecDeque};

use rabia_bank_messages::ids::SessionKey;
use serde::{Deserialize, Serialize};

use super::rows::BadRow;
use super::set_hash::SetHash;

/// Sessions that are remembered at least after they ended: 12 MB of memory, 4 MB in the books.
pub(super) const REMEMBERED: u64 = 262_144;
/// Keys on a page.
const PAGE: u64 = 1_024;

/// What is kept of a key: the first half of a BLAKE3 hash of it.
type KeyHash = [u8; 16];

fn key_hash(key: &SessionKey) -> KeyHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"rabia-bank ended session");
    hasher.update(&key.0);
    let hash = hasher.finalize();
    let (halves, _) = hash.as_bytes().as_chunks::<16>();
    halves[0]
}

/// Keys of sessions that ended, 16 bytes each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EndedRow {
    #[serde(with = "serde_bytes")]
    keys: Vec<u8>,
}

/// The keys of the last sessions that ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// How many left the memory: the number of the first one that is there. Whole pages.
    forgotten: u64,
    /// In the order in which their sessions ended.
    keys: VecDeque<KeyHash>,
    /// The same ones, to find one.
    known: BTreeSet<KeyHash>,
    hash: SetHash,
    /// Pages that changed, or went, since they were saved.
    unsaved: BTreeSet<u64>,
}

impl Ended {
    /// How many sessions ended so far.
    pub(super) fn count(&self) -> u64 {
        self.forgotten + self.keys.len() as u64
    }

    /// Whether a session with this key ended, and is remembered.
    pub(super) fn contains(&self, key: &SessionKey) -> bool {
        self.known.contains(&key_hash(key))
    }

    /// Remembers that the session with this key has ended.
    pub(super) fn insert(&mut self, key: &SessionKey) {
        self.push(key_hash(key));
        while self.keys.len() as u64 >= REMEMBERED + PAGE {
            self.unsaved.insert(self.forgotten / PAGE);
            for key in self.keys.drain(..PAGE as usize) {
                self.hash.subtract(set_hash(self.forgotten, &key));
                self.known.remove(&key);
                self.forgotten += 1;
            }
        }
    }

    fn push(&mut self, key: KeyHash) {
        let number = self.count();
        self.hash.add(set_hash(number, &key));
        self.unsaved.insert(number / PAGE);
        self.known.insert(key);
        self.keys.push_back(key);
    }

    /// The hash of the set of all of them.
    pub(super) fn set_hash(&self) -> SetHash {
        self.hash
    }

    /// The pages that changed since this was asked last; none for one that went.
    pub(super) fn save(&mut self) -> Vec<(u64, Option<EndedRow>)> {
        let pages = std::mem::take(&mut self.unsaved);
        pages.into_iter().map(|page| (page, self.page(page))).collect()
    }

    /// Every page that is remembered, with its number.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u64, EndedRow)> {
        let pages = self.forgotten / PAGE..self.count().div_ceil(PAGE);
        pages.filter_map(|page| self.page(page).map(|row| (page, row)))
    }

    fn page(&self, page: u64) -> Option<EndedRow> {
        let first = (page * PAGE).checked_sub(self.forgotten)? as usize;
        let end = (first + PAGE as usize).min(self.keys.len());
        let keys: Vec<u8> = self.keys.range(first.min(end)..end).flatten().copied().collect();
        (!keys.is_empty()).then_some(EndedRow { keys })
    }

    /// Adds a page of a snapshot. They come in order.
    pub(super) fn load(&mut self, page: u64, EndedRow { keys }: EndedRow) -> Result<(), BadRow> {
        let bad = |what: &str| BadRow::new(format!("page {page} of the sessions that ended: {what}"));
        if self.keys.is_empty() {
            self.forgotten = page.checked_mul(PAGE).ok_or_else(|| bad("no page has such a number"))?;
        }
        let (keys, rest) = keys.as_chunks::<16>();
        if page.checked_mul(PAGE) != Some(self.count())
            || keys.is_empty()
            || keys.len() as u64 > PAGE
            || !rest.is_empty()
        {
            return Err(bad("it does not follow the one before, or is not as long as a page is"));
        }
        for key in keys {
            if self.known.contains(key) {
                return Err(bad("a session that ended twice"));
            }
            self.push(*key);
        }
        self.unsaved.clear();
        Ok(())
    }
}

fn set_hash(number: u64, key: &KeyHash) -> SetHash {
    let mut bytes = [0; 5 + 8 + 16];
    bytes[..5].copy_from_slice(b"ended");
    bytes[5..13].copy_from_slice(&number.to_be_bytes());
    bytes[13..].copy_from_slice(key);
    SetHash::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> SessionKey {
        SessionKey((u128::from(number) << 64 | 7).to_be_bytes())
    }

    #[test]
    fn the_latest_are_remembered_and_saved_page_by_page() {
        let (mut ended, mut rows) = (Ended::default(), std::collections::BTreeMap::new());
        let count = REMEMBERED + 5 * PAGE / 2;
        for number in 0..count {
            ended.insert(&key(number));
            if number % 70_000 == 0 || number == count - 1 {
                for (page, row) in ended.save() {
                    match row {
                        Some(row) => rows.insert(page, row.keys),
                        None => rows.remove(&page),
                    };
                }
            }
        }
        assert_eq!(ended.count(), count);
        assert!(!ended.contains(&key(PAGE)) && !ended.contains(&key(count)));
        assert!((count - REMEMBERED..count).all(|number| ended.contains(&key(number))));
        assert!(ended.save().is_empty(), "all is saved");
        let mut loaded = Ended::default();
        for (page, keys) in rows {
            loaded.load(page, EndedRow { keys }).unwrap();
        }
        assert_eq!((loaded.count(), loaded.set_hash()), (count, ended.set_hash()));
        assert_eq!(loaded.keys, ended.keys);
        ended.insert(&key(count));
        assert_ne!(ended.set_hash(), loaded.set_hash());
        loaded.insert(&key(count));
        assert_eq!(ended.set_hash(), loaded.set_hash());
    }

    #[test]
    fn pages_that_do_not_belong_together_are_refused() {
        let row = |keys: usize| EndedRow { keys: (0..16 * keys).map(|byte| (byte / 16 + byte) as u8).collect() };
        let mut ended = Ended::default();
        assert!(ended.load(u64::MAX, row(1)).is_err());
        let mut ended = Ended::default();
        assert!(ended.load(3, EndedRow { keys: vec![1; 17] }).is_err());
        assert!(ended.load(3, EndedRow { keys: Vec::new() }).is_err());
        assert!(ended.load(3, EndedRow { keys: vec![1; 32] }).is_err(), "one key twice");
        let mut ended = Ended::default();
        ended.load(3, row(5)).unwrap();
        assert!(ended.load(4, row(5)).is_err(), "the page before is not full");
    }
}
