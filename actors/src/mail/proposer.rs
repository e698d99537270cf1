//! What the proposer is told.

use actix::prelude::*;
use rabia_bank_messages::batch::{Action, EncodedRequest, RequestHeader};
use rabia_bank_messages::ids::{Millis, NodeId, StoreId};

use super::client_session::Waiter;
use crate::consensus::agreement::Notice;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;

/// Put this request into the log. Its answer comes from the bank.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Submit<S: StateMachine = Bank> {
    /// Who waits for the answer.
    pub waiter: Waiter<S>,
    /// What is asked for.
    pub request: EncodedRequest,
}

impl<S: StateMachine> Submit<S> {
    /// A request of this client.
    pub fn new(waiter: Waiter<S>, header: &RequestHeader, action: &Action<S::Command>) -> Submit<S> {
        Submit { waiter, request: EncodedRequest::new(header, action) }
    }
}

/// Put into the log that this member has a new store. The bank's state tells when it is decided.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Replace {
    /// Whose store is replaced.
    pub node: NodeId,
    /// The store that is to take its place.
    pub store: StoreId,
}

/// Put into the log that this node's program knows the levels up to this one. The bank's state tells when it is decided.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Can(pub u32);

/// The state that is applied has this log time.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct AppliedTime(pub Millis);

/// An operator says that this node's clock is right. Answered with how far it shows beyond what was confirmed, in milliseconds;
/// 0 where nothing was wrong with it.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Millis")]
pub struct AcceptClock;

/// What the voter learnt.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Notices(pub Vec<Notice>);

/// Where the proposer is told. (Sessions have their own way to it, for [`Submit`], which says who waits.)
#[derive(Clone)]
#[allow(missing_docs)] // each is named after its message
pub struct ProposerInbox {
    pub replace: Recipient<Replace>,
    pub can: Recipient<Can>,
    pub applied_time: Recipient<AppliedTime>,
    pub accept_clock: Recipient<AcceptClock>,
    pub notices: Recipient<Notices>,
}
