//! What the log is told.

use actix::prelude::*;
use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::promise::Commit;

use crate::consensus::agreement::Ticket;

/// Make this durable. Answered with [`Persisted`](super::voter::Persisted).
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Persist {
    /// Above the tickets of all writes before.
    pub ticket: Ticket,
    /// Becomes durable as a whole or not at all.
    pub commit: Commit,
}

/// A durable snapshot covers these decided slots: they may go.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Compact {
    /// The last of them.
    pub upto: Slot,
}

/// Where the log is told.
#[derive(Clone)]
#[allow(missing_docs)] // each is named after its message
pub struct LogInbox {
    pub persist: Recipient<Persist>,
    pub compact: Recipient<Compact>,
}
