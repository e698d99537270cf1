//! What a disk keeps: the meaning of the log store, in memory.

use std::collections::BTreeMap;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::lineage::{Memory, Secret, log_hash};
use rabia_bank_messages::peer::{Entry, Value};
use rabia_bank_messages::promise::{Commit, Record, Recovered, Said};

/// The disk of one node.
#[derive(Clone, Default, Debug)]
pub struct Disk {
    starts: u64,
    pub base: Slot,
    pub reserved: Slot,
    pub records: BTreeMap<(Slot, u32, bool), Record>,
    pub payloads: BTreeMap<BatchId, Payload>,
    pub decisions: BTreeMap<Slot, Value>,
    base_hash: Option<Digest>,
    promised: u64,
    peers: BTreeMap<(NodeId, StoreId), Memory>,
}

impl Disk {
    /// Of a node that has said nothing yet.
    pub fn new() -> Disk {
        Disk { reserved: 1, ..Disk::default() }
    }

    pub fn write(&mut self, commit: &Commit) {
        self.reserved = self.reserved.max(commit.reserved.unwrap_or(0));
        self.payloads.extend(commit.payloads.iter().cloned());
        for record in &commit.records {
            let key = (record.slot, record.phase, matches!(record.said, Said::Vote(_)));
            let before = self.records.insert(key, *record);
            assert!(before.is_none_or(|before| before == *record), "{before:?} was overwritten by {record:?}");
        }
        self.decisions.extend(commit.decisions.iter().copied());
        if let Some((slot, hash)) = commit.installed {
            (self.base, self.base_hash) = (slot, Some(hash));
        }
        self.records.retain(|(slot, ..), _| *slot > self.base && !self.decisions.contains_key(slot));
        self.promised = self.promised.max(commit.promised.unwrap_or(0));
        self.peers.retain(|key, _| !commit.forget.contains(key));
        self.peers.extend(commit.peers.iter().map(|(node, memory)| ((*node, memory.store), *memory)));
    }

    /// What a start finds.
    pub fn recover(&mut self, store: StoreId) -> Recovered {
        self.starts += 1;
        let decided = (self.base + 1..).take_while(|slot| self.decisions.contains_key(slot)).last();
        let decided = decided.unwrap_or(self.base);
        let named = self.records.values().filter_map(|record| record.said.batch());
        let payloads: BTreeMap<_, _> = named.map(|id| (id, self.payloads[&id].clone())).collect();
        Recovered {
            store,
            starts: self.starts,
            reserved: self.reserved,
            records: self.records.values().copied().collect(),
            payloads: payloads.into_iter().collect(),
            decided,
            sparse: self.decisions.range(decided + 1..).map(|(slot, value)| (*slot, *value)).collect(),
            hashes: vec![self.log_hash(decided)],
            kept: None,
            peers: self.peers.iter().map(|((node, _), memory)| (*node, *memory)).collect(),
            promised: self.promised,
            runs: Vec::new(),
            secret: Secret([7; 32]),
        }
    }

    /// The hash of the log up to a slot that is decided, with all before it.
    pub fn log_hash(&self, slot: Slot) -> Digest {
        let first = self.base_hash.unwrap_or(Digest::ZERO);
        (self.base + 1..=slot).fold(first, |before, slot| log_hash(before, slot, &self.decisions[&slot]))
    }

    /// The decided log from a slot on.
    pub fn entries(&self, from: Slot) -> Vec<Entry> {
        let decided = (from..).map_while(|slot| Some((slot, *self.decisions.get(&slot)?)));
        decided.map(|(slot, value)| Entry { slot, batch: value.map(|id| (id, self.payloads[&id].clone())) }).collect()
    }
}
