//! What a node says in a phase of a slot, and what of that binds it.

use serde::{Deserialize, Serialize};

use crate::ids::{BatchId, Phase, Slot};

/// What a node says it saw: PROTOCOL.md, rules 3 and 5.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum State {
    /// No batch had a majority.
    Zero,
    /// A majority proposed this batch.
    One(BatchId),
    /// The node may have spoken in this slot and forgotten: fills the quorum, backs no value.
    Abstain,
}

/// What a node binds itself to: PROTOCOL.md, rule 4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Vote {
    /// A majority said [`State::Zero`].
    Zero,
    /// A majority said [`State::One`] of this batch.
    One(BatchId),
    /// No majority said the same.
    Undecided,
}

/// What a node bound itself to in one phase of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// Binds from phase 2 on (rule 5).
    State(State),
    /// Binds in every phase (rule 4).
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
    /// From 1, and below what is reserved.
    pub slot: Slot,
    /// The phase that was reached, from 1.
    pub phase: Phase,
    /// Never an abstention, nor a State of phase 1: they bind nobody.
    pub said: Said,
}
