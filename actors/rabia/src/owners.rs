//! Slot owners: who proposes in which slot, read from the decided log alone.
//!
//! All nodes compute the same owner without a message, because nobody speaks in slot s before it knows all decisions up
//! to s − W. The owners of slot s are the origins of the batches decided in (s − 2W − K, s − W], in turn. An origin needs
//! a share of at least one in eight of them: a rare speaker's turns would be forfeited, so its batches are proposed by
//! the owners instead. It is a habit, not a leader: no election, no term, and any node may propose when the owner does not.

use std::collections::BTreeMap;

use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{MAX_NODES, NodeId, Slot};

/// An origin with less than one in so many of the decided batches owns no slot. Above [`MAX_NODES`], so that somebody
/// always owns where anything was decided.
const SHARE: usize = 8;

/// The origins of the decided log's end.
#[derive(Debug)]
pub struct Owners {
    genesis: Genesis,
    origins: BTreeMap<Slot, Option<NodeId>>,
}

impl Owners {
    /// No slot is known yet.
    pub fn new(genesis: Genesis) -> Owners {
        Owners { genesis, origins: BTreeMap::new() }
    }

    /// A slot was decided.
    pub fn decided(&mut self, slot: Slot, origin: Option<NodeId>) {
        self.origins.insert(slot, origin);
    }

    /// All slots up to here are decided: what no later slot looks at is forgotten.
    pub fn frontier(&mut self, frontier: Slot) {
        let keep = *self.genesis.owner_slots(frontier + 1).start();
        while self.origins.first_key_value().is_some_and(|(slot, _)| *slot < keep) {
            self.origins.pop_first();
        }
    }

    /// Who may propose in the slots around this one, in order. Empty where nobody was active lately.
    pub fn of(&self, slot: Slot) -> Vec<NodeId> {
        let slots = self.genesis.owner_slots(slot);
        if slots.is_empty() {
            return Vec::new();
        }
        let mut counts = [0usize; MAX_NODES];
        for origin in self.origins.range(slots).filter_map(|(_, origin)| *origin) {
            counts[origin.index()] += 1;
        }
        let total: usize = counts.iter().sum();
        let owns = |node: &NodeId| counts[node.index()] > 0 && counts[node.index()] * SHARE >= total;
        self.genesis.nodes().filter(owns).collect()
    }
}
