//! Questions that can't be answered yet: they wait for a round among the nodes, for a slot to be applied, or until the node may be
//! believed. See `reads`.

use std::collections::BTreeMap;
use std::time::Instant;

use rabia_bank_messages::bank::{Query, ReadLevel};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::Slot;

use crate::mail::client_session::Waiter;

/// What a client wants to know.
#[derive(Debug)]
pub(super) enum Question {
    Query(Query),
    Subscribe(Feed),
}

/// A question that can't be answered yet.
#[derive(Debug)]
pub(super) struct WaitingRead {
    pub(super) waiter: Waiter,
    pub(super) question: Question,
    pub(super) deadline: Instant,
}

impl WaitingRead {
    fn is_wanted(&self, now: Instant) -> bool {
        self.deadline > now && !self.waiter.client.is_gone()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct WaitingReads {
    /// Linearizable reads that wait for their round, by number.
    pub(super) rounds: BTreeMap<u64, WaitingRead>,
    pub(super) reads: u64,
    /// Reads that wait for a slot.
    pub(super) at_slot: BTreeMap<Slot, Vec<WaitingRead>>,
    /// Reads that wait until the node may be believed.
    pub(super) untrusted: Vec<(ReadLevel, WaitingRead)>,
}

impl WaitingReads {
    /// Without a quorum, or for a slot far ahead, reads would gather for ever.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.rounds.retain(|_, read| read.is_wanted(now));
        self.untrusted.retain(|(_, read)| read.is_wanted(now));
        self.at_slot.retain(|_, reads| {
            reads.retain(|read| read.is_wanted(now));
            !reads.is_empty()
        });
    }
}
