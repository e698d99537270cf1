//! What the session of a client is told. The session of a host hears answers likewise.

use std::time::Instant;

use actix::prelude::*;

use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
pub use crate::parts::clients::{Answered, Client, Done, Waiter};

/// The answers to requests of one client.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Answers<S: StateMachine = Bank> {
    /// Each bears the mark of its request.
    pub answers: Vec<Answered<S>>,
    /// When the slot was applied that they come from; none for those that needed none.
    pub applied: Option<Instant>,
}

/// The node is stopping: tell the client and close.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Goaway;
