//! What the session of a client is told. The session of a host hears answers likewise.

use std::time::Instant;

use actix::prelude::*;
use rabia_bank_messages::bank::{Refusal, Success, Transaction};
use rabia_bank_messages::ids::Slot;

/// The answers to requests of one client.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Answers {
    /// Each of them.
    pub answers: Vec<Answered>,
    /// When the slot was applied that they come from; none for those that needed none.
    pub applied: Option<Instant>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answered {
    /// The client's mark.
    pub tag: u64,
    /// The slot that it was applied in or read at.
    pub slot: Option<Slot>,
    /// Of a request that went through the log: its place in that slot.
    pub index: Option<u32>,
    /// Whether the command had been applied before.
    pub replayed: bool,
    /// What came of it.
    pub result: Result<Done, Refusal>,
}

/// What was done.
#[derive(Debug)]
pub enum Done {
    /// A command was applied, or a query read.
    Success(Success),
    /// A session is open.
    Opened {
        /// Its number.
        session: u64,
        /// Whether it was opened by this request.
        new: bool,
    },
    /// The session is closed.
    Closed,
    /// Transactions of a feed.
    Followed {
        /// Oldest first; none if many were looked at and none belongs to the feed.
        transactions: Vec<Transaction>,
        /// All below this id were looked at.
        next: u64,
    },
}

/// The node is stopping: tell the client and close.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Goaway;
