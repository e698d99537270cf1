//! Whether clients may be answered at all (rule 12 of the protocol): not while the node is in doubt about its log or state, and no
//! read of what is on its disk before it has met a quorum that lets it speak.

use std::cell::RefCell;

use rabia_bank_messages::bank::ReadLevel;
use rabia_bank_messages::ids::Slot;

use crate::mail::client_session::{Answers, Client};

/// What of the bank may be believed.
#[derive(Default)]
pub(super) struct Trust {
    pub(super) in_doubt: bool,
    pub(super) admitted: bool,
    /// Answers that wait for the end of a doubt, of clients that are there: what they had asked before it.
    pub(super) held: RefCell<Vec<(Client, Answers)>>,
    /// What was applied when the bank looked last, and the last slot whose digest it told.
    pub(super) seen: Slot,
    pub(super) told: Slot,
}

impl Trust {
    /// Whether a read may begin. A round of reads asks whether this store may speak.
    pub(super) fn may_read(&self, level: ReadLevel) -> bool {
        !self.in_doubt && (self.admitted || level == ReadLevel::Linearizable)
    }

    /// Drops answers to clients that have gone.
    pub(super) fn sweep(&mut self) {
        self.held.get_mut().retain(|(client, _)| !client.is_gone());
    }
}
