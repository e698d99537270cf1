//! How far a node has applied the log, for whoever must know it at once: the bank writes it, sessions tell clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rabia_bank_messages::ids::Slot;

/// The last slot that the bank of a node has applied; 0 before the first. Clones show the same one.
#[derive(Clone, Debug, Default)]
pub struct AppliedSlot(Arc<AtomicU64>);

impl AppliedSlot {
    /// As of the moment when it is asked: the bank goes on meanwhile.
    pub fn get(&self) -> Slot {
        self.0.load(Ordering::Relaxed)
    }

    /// The bank has applied all slots up to this one.
    pub(crate) fn set(&self, slot: Slot) {
        self.0.store(slot, Ordering::Relaxed);
    }
}
