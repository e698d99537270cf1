//! What the tests of the store share: a disk that forgets what was not synced, a model of a store, and random commits.
#![allow(dead_code)] // each test file uses a part of it

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use rabia_bank_messages::batch::{BatchBuilder, Payload};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, NodeId, Phase, Proof, RunId, Slot, StoreId};
use rabia_bank_messages::lineage::{Memory, Secret, log_hash};
use rabia_bank_messages::peer::{DIGEST_INTERVAL, Entry, State, Value, Vote};
use rabia_bank_messages::promise::{Commit, Record, Recovered, Said};
use rabia_bank_storage::{Entries, LogStore, StorageBackend};

pub fn node(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

pub fn identity() -> rabia_bank_messages::promise::Identity {
    let genesis = Genesis::new(ClusterId([9; 16]), (1..=3).map(|n| StoreId([n; 16])).collect());
    rabia_bank_messages::promise::Identity { genesis, node: node(1) }
}

/// A batch of its own for each number; the stamp makes the payloads differ, and `size` how long they are.
pub fn batch(origin: u8, sequence: u64, size: usize) -> (BatchId, Payload) {
    let (id, payload) = BatchBuilder::default().finish(node(origin), 1, sequence, sequence);
    if size <= payload.len() {
        return (id, payload);
    }
    // The store does not look into payloads, only at their digests.
    let mut bytes = payload.bytes().to_vec();
    bytes.resize(size, sequence as u8);
    let digest = rabia_bank_messages::ids::Digest::of(&bytes);
    (BatchId { digest, ..id }, Payload::new(bytes))
}

pub fn vote(slot: Slot, phase: Phase, vote: Vote) -> Record {
    Record { slot, phase, said: Said::Vote(vote) }
}

pub fn state(slot: Slot, phase: Phase, state: State) -> Record {
    Record { slot, phase, said: Said::State(state) }
}

/// SplitMix64: small, and the same everywhere for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A disk that keeps, for sure, only what was synced.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    /// What the running program reads back.
    live: Vec<u8>,
    /// What was there at the last sync.
    synced: Vec<u8>,
    /// What was asked for since then.
    pending: Vec<Change>,
    syncs: u64,
    changes: u64,
    /// After so many changes and syncs, all further ones fail.
    failure: Option<(u64, ErrorKind)>,
}

enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl std::fmt::Debug for Platter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Platter({} bytes)", self.live.len())
    }
}

impl Disk {
    pub fn new(image: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(Platter { live: image.clone(), synced: image, ..Platter::default() })))
    }

    /// Makes all writes, syncs and changes of length fail after this many more of them.
    pub fn fail_after(&self, changes: u64, kind: ErrorKind) {
        let mut platter = self.platter();
        platter.failure = Some((platter.changes + changes, kind));
    }

    pub fn has_failed(&self) -> bool {
        let platter = self.platter();
        platter.failure.is_some_and(|(last, _)| platter.changes > last)
    }

    pub fn syncs(&self) -> u64 {
        self.platter().syncs
    }

    pub fn changes(&self) -> u64 {
        self.platter().changes
    }

    /// What another process finds after this one was killed: the system still writes what it was given.
    pub fn after_kill(&self) -> Vec<u8> {
        self.platter().live.clone()
    }

    /// What is found after a power failure: what was synced, and any part of what was not, torn anywhere.
    pub fn after_power_failure(&self, random: &mut Random) -> Vec<u8> {
        let platter = self.platter();
        let mut image = platter.synced.clone();
        let piece = [1, 64, 512, 4096][random.below(4) as usize];
        // Nothing, some, most, or all: a commit is whole only if all of it is there.
        let kept_of_eight = [0, 4, 7, 8, 8][random.below(5) as usize];
        for change in &platter.pending {
            match change {
                Change::Length(length) if random.below(8) < kept_of_eight => image.resize(*length as usize, 0),
                Change::Length(_) => {}
                Change::Write(offset, data) => {
                    for (index, piece_of_data) in data.chunks(piece).enumerate() {
                        if random.below(8) < kept_of_eight {
                            put(&mut image, *offset as usize + index * piece, piece_of_data);
                        }
                    }
                }
            }
        }
        image
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn change(&self) -> Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter();
        platter.changes += 1;
        match platter.failure {
            Some((last, kind)) if platter.changes > last => Err(Error::from(kind)),
            _ => Ok(platter),
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if image.len() < offset + data.len() {
        image.resize(offset + data.len(), 0);
    }
    image[offset..offset + data.len()].copy_from_slice(data);
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.platter().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let platter = self.platter();
        let offset = offset as usize;
        let data = platter.live.get(offset..offset + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut platter = self.change()?;
        platter.live.resize(len as usize, 0);
        platter.pending.push(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut platter = self.change()?;
        platter.syncs += 1;
        platter.synced = platter.live.clone();
        platter.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut platter = self.change()?;
        put(&mut platter.live, offset as usize, data);
        platter.pending.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// What a store should hold, kept in the simplest way.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    pub starts: u64,
    pub reserved: Slot,
    pub records: BTreeMap<(Slot, Phase, bool), Record>,
    pub payloads: BTreeMap<BatchId, Payload>,
    pub decisions: BTreeMap<Slot, Value>,
    pub peers: BTreeMap<(NodeId, StoreId), Memory>,
    pub promised: u64,
    pub secret: Secret,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            starts: 0,
            reserved: 1,
            records: BTreeMap::new(),
            payloads: BTreeMap::new(),
            decisions: BTreeMap::new(),
            peers: BTreeMap::new(),
            promised: 0,
            // That of a store on a given backend.
            secret: Secret(Digest::of(&[[9; 16], [1; 16]].concat()).0),
        }
    }
}

impl Model {
    pub fn apply(&mut self, commit: &Commit) {
        self.reserved = commit.reserved.unwrap_or(self.reserved);
        self.payloads.extend(commit.payloads.iter().cloned());
        self.decisions.extend(commit.decisions.iter().copied());
        for record in &commit.records {
            let key = (record.slot, record.phase, matches!(record.said, Said::Vote(_)));
            self.records.insert(key, *record);
        }
        self.records.retain(|(slot, _, _), _| !self.decisions.contains_key(slot));
        self.peers.retain(|key, _| !commit.forget.contains(key));
        for (node, memory) in &commit.peers {
            let known = self.peers.entry((*node, memory.store)).or_insert(*memory);
            if known.promises <= memory.promises {
                *known = *memory;
            }
        }
        self.promised = self.promised.max(commit.promised.unwrap_or(0));
    }

    pub fn after(&self, commit: &Commit) -> Model {
        let mut after = self.clone();
        after.apply(commit);
        after
    }

    pub fn recovered(&self) -> Recovered {
        let decided = (1..).take_while(|slot| self.decisions.contains_key(slot)).last().unwrap_or(0);
        let mut payloads: Vec<_> = self.records.values().filter_map(named).collect();
        payloads.sort();
        payloads.dedup();
        Recovered {
            store: identity().genesis.stores[0],
            starts: self.starts,
            reserved: self.reserved,
            records: self.records.values().copied().collect(),
            payloads: payloads.into_iter().map(|id| (id, self.payloads[&id].clone())).collect(),
            decided,
            sparse: self.decisions.range(decided + 1..).map(|(slot, value)| (*slot, *value)).collect(),
            hashes: self.hashes(decided),
            kept: self.kept(decided),
            peers: self.peers.iter().map(|((node, _), memory)| (*node, *memory)).collect(),
            promised: self.promised,
            runs: Vec::new(),
            secret: self.secret,
        }
    }

    /// From that of the empty log on.
    pub fn hashes(&self, decided: Slot) -> Vec<Digest> {
        let mut hashes = vec![Digest::ZERO];
        hashes.extend((1..=decided).scan(Digest::ZERO, |before, slot| {
            *before = log_hash(*before, slot, &self.decisions[&slot]);
            Some(*before)
        }));
        hashes
    }

    fn kept(&self, decided: Slot) -> Option<(Slot, Digest)> {
        let multiple = decided - decided % DIGEST_INTERVAL;
        (multiple > 0).then(|| (multiple, self.hashes(multiple)[multiple as usize]))
    }

    pub fn entries(&self) -> Vec<Entry> {
        let entry = |(slot, value): (&Slot, &Value)| Entry {
            slot: *slot,
            batch: value.map(|id| (id, self.payloads[&id].clone())),
        };
        self.decisions.range(..=self.recovered().decided).map(entry).collect()
    }

    /// A commit that a correct node might make.
    pub fn random_commit(&self, random: &mut Random) -> Commit {
        let mut commit = Commit::default();
        let base = self.recovered().decided;
        if self.reserved <= base + 8 {
            commit.reserved = Some(base + 16 + random.below(4));
        }
        for _ in 0..random.below(4) {
            let slot = base + 1 + random.below(6);
            let kind = random.below(4);
            // Only States of later phases are promises.
            let phase = if kind == 1 || kind == 2 { 2 } else { 1 } + random.below(3) as Phase;
            let (id, payload) = batch(1 + random.below(3) as u8, slot, 30 + random.below(3) as usize * 3000);
            let said = match kind {
                0 => Said::Vote(Vote::Undecided),
                1 => Said::State(State::Zero),
                2 => Said::State(State::One(id)),
                _ => Said::Vote(Vote::One(id)),
            };
            let key = (slot, phase, matches!(said, Said::Vote(_)));
            let twice = commit.records.iter().any(|r| (r.slot, r.phase, matches!(r.said, Said::Vote(_))) == key);
            if twice || self.records.contains_key(&key) || self.decisions.contains_key(&slot) {
                continue;
            }
            let record = Record { slot, phase, said };
            if named(&record).is_some() {
                commit.payloads.push((id, payload));
            }
            commit.records.push(record);
        }
        for _ in 0..random.below(3) {
            let slot = base + 1 + random.below(3);
            if self.decisions.contains_key(&slot) || commit.decisions.iter().any(|(s, _)| *s == slot) {
                continue;
            }
            let promised = self.records.values().find(|r| r.slot == slot).and_then(named);
            commit.decisions.push((slot, promised.filter(|_| !random.one_in(4))));
        }
        if random.one_in(3) {
            let peer = node(2 + random.below(2) as u8);
            commit.peers.push((peer, memory(peer.get(), (base % 250) as u8, base + random.below(9))));
            commit.promised = Some(self.promised + 1);
        }
        if random.one_in(20) {
            let peer = 2 + random.below(2) as u8;
            commit.forget.push((node(peer), StoreId([peer; 16])));
        }
        commit
    }
}

/// Of the first store of a node.
pub fn memory(store: u8, run: u8, promises: u64) -> Memory {
    Memory { store: StoreId([store; 16]), run: RunId([run; 16]), promises, proof: Proof([run; 16]) }
}

fn named(record: &Record) -> Option<BatchId> {
    match record.said {
        Said::State(State::One(id)) | Said::Vote(Vote::One(id)) => Some(id),
        _ => None,
    }
}

/// The whole decided log, in pages of a few entries.
pub fn read_log(store: &LogStore) -> std::result::Result<Vec<Entry>, rabia_bank_storage::StoreError> {
    let (reader, mut log) = (store.reader(), Vec::new());
    loop {
        match reader.entries(log.len() as Slot + 1, 10_000)? {
            Entries::Found(page) if page.is_empty() => return Ok(log),
            Entries::Found(page) => log.extend(page),
            Entries::Compacted { upto } => panic!("the log was compacted up to slot {upto}"),
        }
    }
}
