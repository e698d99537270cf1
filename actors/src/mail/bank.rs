//! What the bank is told.

use std::time::Instant;

use actix::prelude::*;
use rabia_bank_messages::bank::Status;
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, NodeId, Slot, StoreId};
use rabia_bank_storage::BooksView;

use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
pub use crate::parts::bank::words::{Ask, Follow, Install, ReadAt, Saved, Standpoint, Subscribe};
use crate::parts::clients::Waiter;

messages!(ReadAt, Saved);
messages_of_machine!(Ask, Subscribe, Follow, Install);

// ----- of the proposer -----

/// These wait for the requests of a batch, in their order. Comes before the batch is proposed.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Expect<S: StateMachine = Bank> {
    /// A batch that this node has formed.
    pub id: BatchId,
    /// One for each request of the batch.
    pub waiters: Vec<Waiter<S>>,
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
    /// One above the slot before.
    pub slot: Slot,
    /// What it was decided on.
    pub batch: Option<(BatchId, Payload)>,
    /// When it, and all slots before it, were decided.
    pub decided: Instant,
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

// ----- of whoever holds the node -----

/// Is this a member's store now, by what is applied here? Answered with the slot in which it was decided that it takes the place
/// of another, or none if that would have an effect now; or why it would not.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<Option<Slot>, String>")]
pub struct StandingOf {
    /// The member that the store is said to be of.
    pub node: NodeId,
    /// The store that would speak for it.
    pub store: StoreId,
}

/// Take a snapshot of the state as it is now, unless the last one is. Answered with the books when it is durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<BooksView, String>")]
pub struct TakeSnapshot;

/// What state is this node in?
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Status")]
pub struct TellStatus;

/// Where the bank is told what is the same for every machine.
#[derive(Clone)]
#[allow(missing_docs)] // each is named after its message
pub struct BankInbox {
    pub abandon: Recipient<Abandon>,
    pub apply: Recipient<Apply>,
    pub read_at: Recipient<ReadAt>,
    pub doubt: Recipient<Doubt>,
    pub admitted: Recipient<Admitted>,
    pub saved: Recipient<Saved>,
    pub received: Recipient<Received>,
    pub superseded: Recipient<Superseded>,
    pub tell_standpoint: Recipient<TellStandpoint>,
    pub standing_of: Recipient<StandingOf>,
    pub take_snapshot: Recipient<TakeSnapshot>,
    pub tell_status: Recipient<TellStatus>,
}

/// Where the bank is told what speaks of its machine.
#[allow(missing_docs)] // each is named after its message
pub struct MachineInbox<S: StateMachine = Bank> {
    pub ask: Recipient<Ask<S>>,
    pub subscribe: Recipient<Subscribe<S>>,
    pub follow: Recipient<Follow<S>>,
    pub expect: Recipient<Expect<S>>,
    pub install: Recipient<Install<S>>,
}

impl<S: StateMachine> Clone for MachineInbox<S> {
    fn clone(&self) -> MachineInbox<S> {
        MachineInbox {
            ask: self.ask.clone(),
            subscribe: self.subscribe.clone(),
            follow: self.follow.clone(),
            expect: self.expect.clone(),
            install: self.install.clone(),
        }
    }
}
