//! What the bank is told.

use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use rabia_bank_messages::bank::{Query, ReadLevel};
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId};
use rabia_bank_storage::BooksView;

use super::client_session::Waiter;
use crate::ledger::Ledger;
use crate::snapshot::Decision;

// ----- of sessions -----

/// Answer this query.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Ask {
    /// Who asks.
    pub waiter: Waiter,
    /// What.
    pub query: Query,
    /// How fresh the answer must be.
    pub read: ReadLevel,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Tell this client where a subscription begins: the id of the first transaction that it may be told of. Answered like a
/// query, with [`Subscribed`](rabia_bank_messages::bank::Success::Subscribed), or refused if there is no such account.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Subscribe {
    /// Who asks.
    pub waiter: Waiter,
    /// What about.
    pub feed: Feed,
    /// How fresh the answer must be.
    pub read: ReadLevel,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Tell this client of transactions of a feed, once: as soon as there are some, or after so many that were looked at without
/// finding any. Answered with [`Done::Followed`](super::client_session::Done::Followed); who wants more asks again, and so nobody
/// gets more than it can take.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Follow {
    /// Who asks.
    pub waiter: Waiter,
    /// Which transactions. (Its `from` plays no part.) The asker keeps it, too, for as long as it wants to know.
    pub feed: Arc<Feed>,
    /// With ids from here on.
    pub next: u64,
}

// ----- of the proposer -----

/// These wait for the requests of a batch, in their order. Comes before the batch is proposed.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Expect {
    /// The batch.
    pub id: BatchId,
    /// One per request.
    pub waiters: Vec<Waiter>,
}

/// This node does not know what became of this batch, or may become of it. Whoever waits for its requests is told so.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Abandon(pub BatchId);

// ----- of the voter -----

/// Apply the next slot.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Apply {
    /// The slot.
    pub slot: Slot,
    /// What it was decided on.
    pub batch: Option<(BatchId, Payload)>,
    /// When it, and all slots before it, were decided.
    pub decided: Instant,
}

/// All reads up to `read` may be answered once `slot` is applied.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct ReadAt {
    /// The highest number of the reads.
    pub read: u64,
    /// The slot to wait for.
    pub slot: Slot,
}

/// Go on from this state, which is further than this node's own.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Install {
    /// The state.
    pub ledger: Box<Ledger>,
    /// The hash of the log up to it.
    pub hash: Digest,
    /// The decisions before it that owners of coming slots are read from.
    pub decisions: Vec<Decision>,
}

/// Another member has another log or state than this node: no client is answered until that is settled. With false: it is settled.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Doubt(pub bool);

/// Links to a quorum have worked: this store is no old copy that anybody knows of. Reads of what is applied here may be answered.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Admitted;

// ----- of the snapshotter -----

/// The snapshot up to this slot, with these transactions, is durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Saved {
    /// The slot.
    pub slot: Slot,
    /// The newest transaction in it.
    pub transactions: u64,
}

/// The books on disk stand after this slot by now, by a state that came from a peer.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Received(pub Slot);

/// The same, and the snapshot that was to be saved is not needed any more.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Superseded(pub Slot);

/// How far is this node's state?
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Standpoint")]
pub struct TellStandpoint;

/// How far the state of a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standpoint {
    /// The last slot that is applied.
    pub applied: Slot,
    /// The newest transaction, and its hash; 0 if there is none.
    pub newest: (u64, Digest),
}

// ----- of whoever holds the node -----

/// Is this a member's store now, by what is applied here? Answered with the slot in which it was decided that it takes the place
/// of another, or none if that would have an effect now; or why it would not.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<Option<Slot>, String>")]
pub struct StandingOf {
    /// The member.
    pub node: NodeId,
    /// The store.
    pub store: StoreId,
}

/// Take a snapshot of the state as it is now, unless the last one is. Answered with the books when it is durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<BooksView, String>")]
pub struct TakeSnapshot;

/// Where the bank is told.
#[derive(Clone)]
#[allow(missing_docs)] // each is named after its message
pub struct BankInbox {
    pub ask: Recipient<Ask>,
    pub subscribe: Recipient<Subscribe>,
    pub follow: Recipient<Follow>,
    pub expect: Recipient<Expect>,
    pub abandon: Recipient<Abandon>,
    pub apply: Recipient<Apply>,
    pub read_at: Recipient<ReadAt>,
    pub install: Recipient<Install>,
    pub doubt: Recipient<Doubt>,
    pub admitted: Recipient<Admitted>,
    pub saved: Recipient<Saved>,
    pub received: Recipient<Received>,
    pub superseded: Recipient<Superseded>,
    pub tell_standpoint: Recipient<TellStandpoint>,
    pub standing_of: Recipient<StandingOf>,
    pub take_snapshot: Recipient<TakeSnapshot>,
}
