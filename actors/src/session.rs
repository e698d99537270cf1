//! What sessions of clients and of hosts have in common.

use std::time::Duration;

use actix::Recipient;
use rabia_bank_messages::ids::{ClusterId, NodeId, SessionKey};
use tracing::debug;

use crate::applied::AppliedSlot;
use crate::budget::Budgets;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::mail::bank::MachineInbox;
use crate::mail::proposer::Submit;
use crate::parts::session::Limits;

/// What all sessions of a node have in common.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The member that they are sessions of.
    pub node: NodeId,
    /// Told to clients, which must not mix clusters up.
    pub cluster: ClusterId,
    /// All members.
    pub nodes: Vec<NodeId>,
    /// The longest message of a client, in bytes.
    pub max_message_bytes: usize,
    /// Requests of one connection that may wait for their answers.
    pub max_in_flight: usize,
    /// How long a request may wait before it is answered `no_quorum`.
    pub request_timeout: Duration,
    /// The bytes that all of them together may have waiting.
    pub budgets: Budgets,
}

/// Whom sessions speak to.
pub struct SessionNeighbours<S: StateMachine = Bank> {
    /// Puts commands into the log.
    pub submit: Recipient<Submit<S>>,
    /// Answers queries, and has the entries of subscriptions.
    pub machine: MachineInbox<S>,
    /// How far that is.
    pub applied: AppliedSlot,
}

impl SessionSettings {
    /// What bounds a session.
    pub(crate) fn limits(&self) -> Limits {
        Limits { in_flight: self.max_in_flight, timeout: self.request_timeout }
    }
}

/// Draws a key for a session; none if the machine gives no random bytes.
pub(crate) fn draw_key() -> Option<SessionKey> {
    let mut key = [0; 16];
    match getrandom::fill(&mut key) {
        Ok(()) => Some(SessionKey(key)),
        Err(error) => {
            debug!(%error, "no random key for a session");
            None
        }
    }
}
