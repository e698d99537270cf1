//! What the bank of a node has applied, for whoever must know it at once: how far it is, at which level, and who may ask. The bank writes it, sessions
//! read it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rabia_bank_messages::bank::{ErrorCode, Outcome, Refusal};
use rabia_bank_messages::batch::Batched;
use rabia_bank_messages::ids::Slot;

use crate::ledger::principals::Roster;

/// The last slot that the bank of a node has applied, 0 before the first, the level and the principals by then. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct AppliedSlot {
    slot: Arc<AtomicU64>,
    level: Arc<AtomicU32>,
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

    /// The level in force.
    pub fn level(&self) -> u32 {
        self.level.load(Ordering::Relaxed)
    }

    /// It is this one now.
    pub(crate) fn set_level(&self, level: u32) {
        self.level.store(level, Ordering::Relaxed);
    }

    /// Refuses a command here that is of a level which is not in force: its batch would be an empty one. Where it is the `first` time that
    /// the command is said, it was certainly not carried out.
    ///
    /// # Errors
    /// That there is no such command.
    pub fn check_level(&self, command: &impl Batched, first: bool) -> Result<(), Refusal> {
        let (needed, level) = (command.level(), self.level());
        if needed <= level {
            return Ok(());
        }
        let message = format!("there is such a command from level {needed} on, and the cluster is at level {level}");
        let outcome = if first { Outcome::Refused } else { Outcome::Unknown };
        Err(Refusal { outcome, ..Refusal::refused(ErrorCode::NotEnabled, message) })
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
