//! Read rounds: a node goes on to its next round only when a quorum, itself included, has answered the last one. Answers
//! to another round, or to another run's, are none.
//!
//! A read is answered no earlier than at the last slot that any node had applied when it was asked.
//!
//! Source: PROTOCOL.md, "Linearizable reads without the log".

use std::collections::{BTreeMap, BTreeSet};

use rabia_bank_messages::ids::{NodeId, Slot};
use rabia_bank_messages::peer::PeerMessage;

use super::{Check, check};

/// A round, and who has answered it.
#[derive(Debug)]
struct Round {
    /// The run of the node, by its start counter, and the number of the round.
    name: (u64, u64),
    answered: BTreeSet<NodeId>,
}

/// The last round of each node.
#[derive(Debug)]
pub(crate) struct ReadRounds {
    quorum: usize,
    last: BTreeMap<NodeId, Round>,
    /// What the reads of each node must see, by their numbers.
    reads: BTreeMap<(NodeId, u64), Slot>,
}

impl ReadRounds {
    pub(crate) fn new(quorum: usize) -> ReadRounds {
        ReadRounds { quorum, last: BTreeMap::new(), reads: BTreeMap::new() }
    }

    /// A start of this node begins: rounds of earlier ones are over.
    pub(crate) fn started(&mut self, node: NodeId) {
        self.last.remove(&node);
        self.reads.retain(|(of, _), _| *of != node);
    }

    /// A node asks for a read of this number, when slots up to this one were applied anywhere.
    pub(crate) fn asks(&mut self, node: NodeId, number: u64, applied: Slot) {
        self.reads.insert((node, number), applied);
    }

    /// The reads of a node up to this number are to be answered when this slot is applied.
    pub(crate) fn ends(&mut self, node: NodeId, number: u64, slot: Slot) -> Check {
        let ended = self.reads.extract_if((node, 0)..=(node, number), |_, _| true);
        let sees = ended.map(|(_, applied)| applied).max().unwrap_or(0);
        check(slot >= sees, "linearizable reads", || {
            format!("reads of node {node} wait for slot {slot}, but {sees} was applied before they were asked")
        })
    }

    /// A message is about to reach a node.
    pub(crate) fn hears(&mut self, node: NodeId, from: NodeId, message: &PeerMessage) {
        if let PeerMessage::ReadIndexAnswer { starts, round, .. } = message
            && let Some(last) = self.last.get_mut(&node).filter(|last| last.name == (*starts, *round))
        {
            last.answered.insert(from);
        }
    }

    /// A node says this.
    pub(crate) fn says(&mut self, node: NodeId, message: &PeerMessage) -> Check {
        let PeerMessage::ReadIndex { starts, round } = message else { return Ok(()) };
        let name = (*starts, *round);
        let quorum = self.quorum;
        let last = self.last.entry(node).or_insert_with(|| Round { name, answered: BTreeSet::new() });
        if last.name == name {
            return Ok(());
        }
        let ended = std::mem::replace(last, Round { name, answered: BTreeSet::new() });
        check(ended.answered.len() + 1 >= quorum, "read rounds", || {
            format!("node {node} asks in round {round}, but the one before had no quorum of answers: {ended:?}")
        })
    }
}
