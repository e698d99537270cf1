//! What a session is told, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use rabia_bank_messages::bank::{ReadLevel, Refusal, Success};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::client::SessionName;
use rabia_bank_messages::ids::Slot;

use crate::ledger::Bank;
use crate::ledger::machine::{Entry, StateMachine};

/// What bounds a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that may wait for their answers.
    pub in_flight: usize,
    /// How long a request may wait for its answer.
    pub timeout: Duration,
}

/// Who numbers a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// The session: the next one.
    Next,
    /// Whoever sends it, to be able to ask again.
    Given {
        /// From 1, another one for each command.
        number: u64,
        /// The answers to all commands up to this number were received; 0 for none. A session acknowledges nothing more of
        /// itself once it was given a number.
        acknowledged: u64,
    },
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply<T = Success> {
    /// The slot that it was applied in or read at, where there is one.
    pub slot: Option<Slot>,
    /// Of a command: its place in that slot, from 0.
    pub index: Option<u32>,
    /// Whether a command had been applied before, by an earlier attempt.
    pub replayed: bool,
    /// What it brought, or why it brought nothing.
    pub result: Result<T, Refusal>,
}

impl<T> From<Refusal> for Reply<T> {
    fn from(refusal: Refusal) -> Reply<T> {
        Reply { slot: None, index: None, replayed: false, result: Err(refusal) }
    }
}

/// What whoever drives a session is to do.
#[derive(Debug)]
pub enum Out<A, S: StateMachine = Bank> {
    /// This goes to the proposer.
    Submit {
        /// The mark of the answer.
        tag: u64,
        /// The session and the number.
        header: RequestHeader,
        /// What is asked for.
        action: Action<S::Command>,
    },
    /// This goes to the bank.
    Ask {
        /// The mark of the answer.
        tag: u64,
        /// What the machine is asked.
        query: S::Query,
        /// How fresh the answer must be.
        read: ReadLevel,
        /// When nobody waits for the answer any more.
        deadline: Duration,
    },
    /// This goes to the bank: where does a subscription begin?
    Subscribe {
        /// The mark of the answer.
        tag: u64,
        /// What it is about.
        feed: S::Feed,
        /// How fresh the answer must be.
        read: ReadLevel,
        /// When nobody waits for the answer any more.
        deadline: Duration,
    },
    /// This goes to the bank: the next entries of a subscription, once.
    Follow {
        /// The mark of the answer.
        tag: u64,
        /// What it is about.
        feed: Arc<S::Feed>,
        /// The first id to look at.
        next: u64,
    },
    /// A request is settled.
    Answer {
        /// The mark that it had; 0 if it was refused at once.
        tag: u64,
        /// As it came with the request.
        asker: A,
        /// The outcome, or why there is none.
        reply: Reply<S::Answer>,
    },
    /// The session is open.
    Opened {
        /// Who asked for it, if it was not a command.
        asker: Option<A>,
        /// The number and the key that the log knows it by.
        session: SessionName,
        /// Whether this attempt has opened it.
        new: bool,
    },
    /// The session was not opened. Commands that waited for it were answered before.
    NotOpened {
        /// Who asked for it, if it was not a command.
        asker: Option<A>,
        /// The reason, with a stable code.
        refusal: Refusal,
    },
    /// A page of a subscription; no entries if many were looked at and none belongs to it.
    Entries {
        /// The name that it was begun with.
        subscription: u64,
        /// In ascending order of their ids.
        entries: Vec<Entry<S>>,
        /// All below this id were looked at.
        next: u64,
    },
    /// The session is closed, and nothing waits any more.
    Closed,
}
