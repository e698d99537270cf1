//! What the bank of a node has applied, for whoever must know it at once: how far it is, and who may ask. The bank writes it, sessions
//! read it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rabia_bank_messages::ids::Slot;

use crate::ledger::principals::Roster;

/// The last slot that the bank of a node has applied, 0 before the first, and the principals by then. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct AppliedSlot {
    slot: Arc<AtomicU64>,
    /// Counts the changes of the principals.
    changes: Arc<AtomicU64>,
    roster: Arc<Mutex<Arc<Roster>>>,
}

impl AppliedSlot {
    /// As of the moment when it is asked: the bank goes on meanwhile.
    pub fn get(&self) -> Slot {
        self.slot.load(Ordering::Relaxed)
    }

    /// The bank has applied all slots up to this one.
    pub(crate) fn set(&self, slot: Slot) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Principals and tokens.
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often they have changed since the start.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// They are these now.
    pub(crate) fn set_roster(&self, roster: &Arc<Roster>) {
        *self.roster.lock().unwrap_or_else(PoisonError::into_inner) = roster.clone();
        self.changes.fetch_add(1, Ordering::Release);
    }
}
