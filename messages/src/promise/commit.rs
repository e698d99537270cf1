//! One durable write.

use super::said::Record;
use crate::batch::Payload;
use crate::ids::{BatchId, Digest, NodeId, Slot, StoreId, Value};
use crate::lineage::Memory;

/// One durable write: everything in it or nothing. The order inside of it does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commit {
    /// Raises `reserved`: the node will say nothing at or above this slot (rule 1).
    pub reserved: Option<Slot>,
    /// What the node binds itself to, below `reserved`.
    pub records: Vec<Record>,
    /// Payloads; those that records and decisions name must be here or in the store.
    pub payloads: Vec<(BatchId, Payload)>,
    /// What slots were decided on. Their records go.
    pub decisions: Vec<(Slot, Value)>,
    /// What is to be remembered of peers; fewer promises than are remembered already are ignored.
    pub peers: Vec<(NodeId, Memory)>,
    /// Everything up to this slot may go: the books cover it, durably. Less than was removed already is ignored.
    pub compact: Option<Slot>,
    /// The books stand after this slot since they came from a peer: what is decided or recorded up to it is removed, also
    /// where slots are missing below it. With the hash of the log there.
    pub installed: Option<(Slot, Digest)>,
    /// How many promises this store has kept, with those of this commit.
    pub promised: Option<u64>,
    /// Stores of peers that nothing is to be remembered of, before `peers` are written.
    pub forget: Vec<(NodeId, StoreId)>,
    /// Runs of this store that began before this start are remembered by nobody, and go.
    pub forget_runs: Option<u64>,
}

impl Commit {
    /// Adds what another commit holds, so that one write carries both.
    pub fn add(&mut self, other: Commit) {
        // Named one by one, so that none is forgotten.
        let Commit { reserved, records, payloads, decisions, peers, compact, installed, promised, forget, forget_runs } =
            other;
        // What comes later may be remembered of a store anew.
        if !forget.is_empty() {
            self.peers.retain(|(node, memory)| !forget.contains(&(*node, memory.store)));
        }
        self.reserved = self.reserved.max(reserved);
        self.records.extend(records);
        self.payloads.extend(payloads);
        self.decisions.extend(decisions);
        self.peers.extend(peers);
        self.promised = self.promised.max(promised);
        self.forget.extend(forget);
        self.forget_runs = self.forget_runs.max(forget_runs);
        self.installed = self.installed.max(installed);
        self.compact = self.compact.max(compact);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Commit { reserved, records, payloads, decisions, peers, compact, installed, promised, forget, forget_runs } =
            self;
        reserved.is_none()
            && compact.is_none()
            && installed.is_none()
            && records.is_empty()
            && payloads.is_empty()
            && decisions.is_empty()
            && peers.is_empty()
            && promised.is_none()
            && forget.is_empty()
            && forget_runs.is_none()
    }
}
