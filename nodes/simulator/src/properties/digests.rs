//! Equal slot, equal digest: after every slot, on every node, also where the slot was replayed after a restart.
//!
//! Source: BANK.md, invariant 5.

use rabia_bank_messages::ids::{Digest, NodeId, Slot};

use super::{Check, check};

/// The digest after each slot, as the first node had it.
#[derive(Debug, Default)]
pub(crate) struct Digests(Vec<Digest>);

impl Digests {
    /// A node has this digest after a slot.
    pub(crate) fn after(&mut self, node: NodeId, slot: Slot, digest: Digest) -> Check {
        let Some(index) = slot.checked_sub(1) else { return Ok(()) };
        match self.0.get(index as usize) {
            Some(known) => check(*known == digest, "equal digests", || {
                format!("after slot {slot} node {node} has the digest {digest}, another node had {known}")
            }),
            None => {
                self.0.push(digest);
                check(self.0.len() as Slot == slot, "equal digests", || format!("slot {slot} was skipped"))
            }
        }
    }
}
