//! What a node says in a phase of a slot, and what of that binds it.

use serde::{Deserialize, Serialize};

use crate::ids::{BatchId, Phase, Slot};

/// What a node says it saw: PROTOCOL.md, rules 3 and 5.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum State {
    /// No batch had a majority.
    Zero,
    /// This batch.
    One(BatchId),
    /// The node may have spoken in this slot and forgotten: fills the quorum, backs no value.
    Abstain,
}

/// What a node binds itself to: PROTOCOL.md, rule 4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Vote {
    /// A majority said [`State::Zero`].
    Zero,
    /// A majority said this batch.
    One(BatchId),
    /// No majority.
    Undecided,
}

/// What a node bound itself to in one phase of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// A State (rule 5).
    State(State),
    /// A Vote (rule 4).
    Vote(Vote),
}

impl Said {
    /// The batch that it names, whose payload must then be held.
    pub fn batch(&self) -> Option<BatchId> {
        match self {
            Said::State(State::One(id)) | Said::Vote(Vote::One(id)) => Some(*id),
            Said::State(State::Zero | State::Abstain) | Said::Vote(Vote::Zero | Vote::Undecided) => None,
        }
    }
}

/// A promise: durable before it is sent, kept until the slot is decided, never altered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The slot, from 1.
    pub slot: Slot,
    /// The phase, from 1.
    pub phase: Phase,
    /// What was said.
    pub said: Said,
}
