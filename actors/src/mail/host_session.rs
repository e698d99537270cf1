//! What the session of a host is told.

use actix::prelude::*;
use rabia_bank_messages::bank::{self, ReadLevel, Refusal, Success, Transaction};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::Slot;

/// What came of a command or a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The slot that it was applied in or read at, where there is one.
    pub slot: Option<Slot>,
    /// Of a command: its place in that slot, from 0. Commands are ordered by slot and index.
    pub index: Option<u32>,
    /// Whether a command had been applied before, by an earlier attempt.
    pub replayed: bool,
    /// What it brought.
    pub success: Success,
}

/// What a host hears: a reply, or why there is none.
pub type Heard = Result<Reply, Refusal>;

/// Carry this command out, once.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Heard")]
pub struct Command {
    /// What to do.
    pub command: bank::Command,
    /// Its number in the session, from 1; none: the session numbers it.
    pub number: Option<u64>,
}

impl Command {
    /// A command that the session numbers.
    pub fn new(command: bank::Command) -> Command {
        Command { command, number: None }
    }

    /// A command that the host numbers, to be able to ask again. A session whose host numbers its commands acknowledges none:
    /// its replies are kept until it ends.
    pub fn numbered(number: u64, command: bank::Command) -> Command {
        Command { command, number: Some(number) }
    }
}

/// Answer this query.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Heard")]
pub struct Query {
    /// What to look up.
    pub query: bank::Query,
    /// How fresh the answer must be.
    pub read: ReadLevel,
}

/// Tell this recipient of transactions as they are applied. Answered with [`Success::Subscribed`]. The recipient gets the next
/// page when it has handled the one before, so a slow one costs nothing; the feed ends with the recipient or the session.
#[derive(Message)]
#[rtype(result = "Heard")]
pub struct Subscribe {
    /// Of which transactions, and from which on.
    pub feed: Feed,
    /// Whom.
    pub to: Recipient<Happened>,
}

/// Transactions of a feed, oldest first.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Happened(pub Vec<Transaction>);

/// End.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Close {
    /// End the session in the log, too, when all that waits is answered: nobody goes on with it. Otherwise what waits is answered
    /// `stopping`, and its outcome is unknown.
    pub in_log: bool,
}
