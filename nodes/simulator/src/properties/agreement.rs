//! Agreement and validity: all nodes deliver the same value in a slot, in order and without a gap, also after restarts; and
//! a value is null or a batch that a node formed, as it formed it.
//!
//! Source: PROTOCOL.md, rules 1 to 8 and "Slots together"; Rabia (SOSP 2021), section 4: agreement and validity of
//! Weak-MVC.

use std::collections::BTreeMap;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, NodeId, Slot};
use rabia_bank_messages::peer::Value;

use super::{Check, check};

/// The log of the cluster, as the first node that delivered a slot has it.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    log: Vec<Value>,
    formed: BTreeMap<BatchId, Payload>,
    /// Batches that were decided, by all of their ids but the digest.
    names: BTreeMap<(NodeId, u64, u64), BatchId>,
}

impl Agreement {
    /// A node formed a batch.
    pub(crate) fn formed(&mut self, id: BatchId, payload: Payload) -> Check {
        let other = self.formed.insert(id, payload);
        check(other.is_none(), "validity", || format!("batch {id} was formed twice"))
    }

    /// Whether a node formed this batch.
    pub(crate) fn is_formed(&self, id: &BatchId) -> bool {
        self.formed.contains_key(id)
    }

    /// How many slots are decided for all to see.
    pub(crate) fn slots(&self) -> Slot {
        self.log.len() as Slot
    }

    /// How many of them are forfeited.
    pub(crate) fn null_slots(&self) -> u64 {
        self.log.iter().filter(|value| value.is_none()).count() as u64
    }

    /// What a slot was decided on.
    pub(crate) fn decided(&self, slot: Slot) -> Option<Value> {
        self.log.get(slot.checked_sub(1)? as usize).copied()
    }

    /// A node remembers that a slot was decided on this.
    pub(crate) fn remembered(&self, node: NodeId, slot: Slot, value: Value) -> Check {
        let agreed = self.decided(slot);
        check(agreed == Some(value), "agreement", || {
            format!("node {node} remembers {value:?} for slot {slot}, elsewhere it is {agreed:?}")
        })
    }

    /// A node whose log ends at `before` delivers a slot. True if it is the first.
    pub(crate) fn delivered(
        &mut self,
        node: NodeId,
        before: Slot,
        slot: Slot,
        batch: Option<&(BatchId, Payload)>,
    ) -> Result<bool, super::Violation> {
        check(slot == before + 1, "order", || format!("node {node} delivers slot {slot} after slot {before}"))?;
        if let Some((id, payload)) = batch {
            check(self.formed.get(id) == Some(payload), "validity", || {
                format!("slot {slot} is decided on {id}, which nobody formed like that")
            })?;
            let other = *self.names.entry((id.origin, id.incarnation, id.sequence)).or_insert(*id);
            check(other == *id, "validity", || format!("two batches have one name: {other} and {id}"))?;
        }
        let value = batch.map(|(id, _)| *id);
        match self.decided(slot) {
            None => {
                self.log.push(value);
                check(self.slots() == slot, "order", || format!("slot {slot} comes after {}", self.slots()))?;
                Ok(true)
            }
            Some(agreed) => {
                check(agreed == value, "agreement", || {
                    format!("slot {slot} is {agreed:?} elsewhere and {value:?} at node {node}")
                })?;
                Ok(false)
            }
        }
    }
}
