//! What the bank is asked and told.

use std::sync::Arc;
use std::time::Instant;

use rabia_bank_messages::bank::ReadLevel;
use rabia_bank_messages::ids::{Digest, Slot};

use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::ledger::replicated::Replicated;
use crate::parts::clients::Waiter;
use crate::snapshot::Decision;

/// Look this up for a client.
#[derive(Debug)]
pub struct Ask<S: StateMachine = Bank> {
    /// The client that waits for the answer, and its mark.
    pub waiter: Waiter<S>,
    /// What the machine is asked.
    pub query: S::Query,
    /// How fresh the answer must be.
    pub read: ReadLevel,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Tell this client where a subscription begins: the id of the first transaction that it may be told of. Answered like a
/// query, with [`Done::Subscribed`](crate::parts::clients::Done::Subscribed), or refused if there is nothing to subscribe to.
#[derive(Debug)]
pub struct Subscribe<S: StateMachine = Bank> {
    /// The client that waits for the answer, and its mark.
    pub waiter: Waiter<S>,
    /// Which entries it is about, and where they begin.
    pub feed: S::Feed,
    /// How fresh the answer must be.
    pub read: ReadLevel,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Tell this client of transactions of a feed, once: as soon as there are some, or after so many that were looked at without
/// finding any. Answered with [`Done::Followed`](crate::parts::clients::Done::Followed); who wants more asks again, and so nobody
/// gets more than it can take.
#[derive(Debug)]
pub struct Follow<S: StateMachine = Bank> {
    /// The client that waits for entries, and its mark.
    pub waiter: Waiter<S>,
    /// Which transactions. (Its `from` plays no part.) The asker keeps it, too, for as long as it wants to know.
    pub feed: Arc<S::Feed>,
    /// With ids from here on.
    pub next: u64,
}

/// All reads up to `read` may be answered once `slot` is applied.
#[derive(Clone, Copy, Debug)]
pub struct ReadAt {
    /// The highest number of the reads.
    pub read: u64,
    /// The slot to wait for.
    pub slot: Slot,
}

/// Go on from this state, which is further than this node's own.
#[derive(Debug)]
pub struct Install<S: StateMachine = Bank> {
    /// All that is replicated, verified.
    pub ledger: Box<Replicated<S>>,
    /// The hash of the log up to it.
    pub hash: Digest,
    /// The decisions before it that owners of coming slots are read from.
    pub decisions: Vec<Decision>,
}

/// The snapshot up to this slot, with these transactions, is durable.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// The last slot that is applied in it.
    pub slot: Slot,
    /// The newest transaction in it.
    pub transactions: u64,
}

/// How far the state of a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standpoint {
    /// The last slot that is applied.
    pub applied: Slot,
    /// The newest transaction, and its hash; 0 if there is none.
    pub newest: (u64, Digest),
}
