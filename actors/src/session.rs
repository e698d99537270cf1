//! What sessions of clients and of hosts have in common.

use std::time::Duration;

use actix::Recipient;
use rabia_bank_messages::bank::{ErrorCode, ReadLevel, Refusal};
use rabia_bank_messages::ids::{ClusterId, NodeId, Slot};

use crate::applied::AppliedSlot;
use crate::budget::Budgets;
use crate::mail::bank::BankInbox;
use crate::mail::proposer::Submit;

/// What all sessions of a node have in common.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The longest message of a client, in bytes.
    pub max_message_bytes: usize,
    /// Requests of one connection that may wait for their answers.
    pub max_in_flight: usize,
    /// How long a request may wait before it is answered `no_quorum`.
    pub request_timeout: Duration,
    /// What may wait.
    pub budgets: Budgets,
}

/// Whom sessions speak to.
#[derive(Clone)]
pub struct SessionNeighbours {
    /// Puts commands into the log.
    pub submit: Recipient<Submit>,
    /// Answers.
    pub bank: BankInbox,
    /// How far that is.
    pub applied: AppliedSlot,
}

/// The refusal of a question that had no answer by its deadline, so long after it was asked, on a node that has applied the
/// slots up to `applied`. A slot that is not there yet is no sign of a lost quorum, and the client can tell from the answer
/// whether it will ever come.
pub(crate) fn missed(read: ReadLevel, applied: Slot, waited: Duration) -> Refusal {
    let seconds = waited.as_secs_f32();
    match read {
        ReadLevel::AtLeast(slot) if slot > applied => Refusal::refused(
            ErrorCode::NotYetApplied,
            format!("slot {slot} was not applied here within {seconds} s; the last one is slot {applied}"),
        ),
        ReadLevel::Linearizable => {
            let message = format!("no quorum of nodes answered within {seconds} s, or there is too much to look at");
            Refusal::refused(ErrorCode::NoQuorum, message)
        }
        ReadLevel::Local | ReadLevel::AtLeast(_) => {
            let message = format!(
                "not answered within {seconds} s: this node has met no quorum since its start, or doubts its log (its status says \
                 so), or there is too much to look at"
            );
            Refusal::refused(ErrorCode::NoQuorum, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slot_that_is_not_there_is_missed_for_itself() {
        let code = |read| missed(read, 7, Duration::from_secs(5)).code;
        assert_eq!(code(ReadLevel::AtLeast(8)), ErrorCode::NotYetApplied);
        assert_eq!(code(ReadLevel::AtLeast(7)), ErrorCode::NoQuorum);
        assert_eq!(code(ReadLevel::Linearizable), ErrorCode::NoQuorum);
    }
}
