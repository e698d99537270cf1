//! What the cores are told, and what they want done.
//!
//! [`Event`]s go into the agreement core and [`Effect`]s come out, to be performed in their order by the voter actor or the
//! simulator. A [`Notice`] goes on to the pool, which says in [`PoolEffect`]s what it wants done.

use std::ops::Range;
use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, Millis, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_messages::promise::Commit;

use super::gathering::Asker;
use rabia_bank_messages::genesis::Replacements;

/// What happened, to the agreement core.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer said this.
    Received(NodeId, PeerMessage),
    /// All [`Effect::Save`]s up to this ticket are durable.
    Saved(Ticket),
    /// The pool wants this proposed.
    Propose {
        /// Above what is decided without a gap, by a window at most. Otherwise nothing is proposed.
        slot: Slot,
        /// Which batch; null gives the slot up.
        value: Value,
        /// Send the payload along: the others can't have it yet.
        with_payload: bool,
    },
    /// The pool has a new batch, or one again that it had no more use for.
    Hold(BatchId, Payload),
    /// The pool knows that this batch is decided: its payload came once more.
    Forget(BatchId),
    /// The pool has no room for this batch.
    Drop(BatchId),
    /// The link to this peer works (again). It speaks from this store.
    LinkUp(NodeId, StoreId),
    /// The link to this peer broke.
    LinkDown(NodeId),
    /// Somebody wants to read what is acknowledged now. Reads are numbered by the caller, ascending.
    Read(u64),
    /// A snapshot of the state after this slot came from a peer and is durable, also in the books on disk.
    Installed {
        /// The slot. It must be above the frontier.
        slot: Slot,
        /// The hash of the log up to it.
        hash: Digest,
        /// The decisions up to it that owners of coming slots are read from.
        decisions: Vec<(Slot, Value)>,
        /// The replacements of stores up to it.
        replacements: Replacements,
    },
    /// The digest of this node's state after a slot.
    OwnDigest {
        /// The last slot that is applied in it.
        slot: Slot,
        /// Covers all that is replicated, so it is the same wherever the same slots are applied.
        digest: Digest,
    },
    /// What [`Effect::LookUp`] asked for: none if the log has it no more.
    LookedUp {
        /// The one that was asked about.
        slot: Slot,
        /// The hash of the log up to it.
        hash: Option<Digest>,
    },
    /// The snapshot that this peer sends, after this slot, does not have this node's history.
    OtherHistory(NodeId, Slot),
    /// Time passed. At least every [`TICK`].
    Tick,
}

/// Numbers the durable writes of one run, ascending.
pub type Ticket = u64;

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this to one peer.
    Send(NodeId, PeerMessage),
    /// Send this to all peers.
    Broadcast(PeerMessage),
    /// Make this durable and report [`Event::Saved`].
    Save(Ticket, Commit),
    /// Apply the next slot.
    Deliver(Slot, Option<(BatchId, Payload)>),
    /// This is news for the pool of this node.
    Pool(Notice),
    /// All reads up to `read` see what was acknowledged before they were asked, once `slot` is applied.
    ReadAt {
        /// The highest number of the reads.
        read: u64,
        /// The slot to wait for.
        slot: Slot,
    },
    /// Answer this peer's [`PeerMessage::CatchUp`] from the log on disk.
    SendEntries {
        /// The peer that lacks them.
        to: NodeId,
        /// From which slot on.
        from: Slot,
    },
    /// Answer this peer's [`PeerMessage::Fetch`] from the log on disk, if the batch is there.
    SendStored {
        /// The peer that lacks it.
        to: NodeId,
        /// The batch whose payload it is.
        id: BatchId,
    },
    /// Tell this peer the hash of the log up to a slot, if it is on disk.
    SendHash {
        /// The peer that compares it with its own.
        to: NodeId,
        /// The last slot that the hash covers.
        slot: Slot,
    },
    /// Look on disk for the hash of the log up to a slot, and report [`Event::LookedUp`].
    LookUp(Slot),
    /// This peer's log begins at a slot that is beyond this node's, whose history it has: ask it for a snapshot.
    GetSnapshot {
        /// The peer that has one to send.
        from: NodeId,
        /// The first slot of its log.
        log_from: Slot,
    },
    /// No client is answered from now on, or they are again: see [`forks`](super::forks).
    Doubt(bool),
    /// No majority has this node's log and state. If that is certain, the node stops.
    Split {
        /// What each node says of its log and state, for people.
        what: String,
        /// Whether there were enough comparisons.
        certain: bool,
    },
    /// The store at the other end of this link has become the peer's, and nothing is remembered of it: break the link, so that
    /// the two meet again.
    MeetAgain(NodeId),
    /// This peer says what can't be: break the link, and say why.
    Refuse(NodeId, String),
    /// This peer said what is not taken. Say so, but go on with the link.
    Warn(NodeId, String),
}

/// What the agreement core tells the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer proposed this; the payload is held.
    Heard {
        /// The slot that it is proposed in.
        slot: Slot,
        /// The peer that proposed it.
        from: NodeId,
        /// The batch; null to give the slot up.
        value: Value,
        /// The requests of the batch, encoded; none with null.
        payload: Option<Payload>,
    },
    /// Somebody spoke in this slot, in which this node has not proposed.
    InUse(Slot, NodeId),
    /// This node has spoken in this slot in a former run: there is nothing to propose.
    Spoken(Slot),
    /// A slot is decided. Not always in order.
    Decided(Slot, Value),
    /// All slots up to this one are decided.
    Frontier(Slot),
    /// All slots up to this one are decided, these were the last. The others were not told.
    Installed(Slot, Vec<(Slot, Value)>),
    /// A batch that waits for a slot came from another node.
    Arrived(BatchId, Payload),
    /// A peer says what its clock shows.
    Clock {
        /// The peer whose clock it is.
        peer: NodeId,
        /// Its wall clock, in milliseconds since the Unix epoch.
        wall: Millis,
        /// What monotonic clocks confirm there, if that is known.
        confirmed: Option<Millis>,
        /// Whether it does not back a batch of this node for that.
        refuses: bool,
    },
    /// The link to this peer works.
    LinkUp(NodeId),
    /// The link to this peer broke.
    LinkDown(NodeId),
    /// This node may speak in these slots only: its store took the place of another, or was replaced.
    Speaks(Range<Slot>),
    /// All slots up to this one are needed: where nothing waits they are forfeited.
    Fill(Slot),
}

/// How often the core wants to hear of time.
pub const TICK: Duration = Duration::from_millis(10);

/// What the pool wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolEffect {
    /// A batch of this node was formed: its requests, which these wait for in their order, are answered when it is applied. Comes
    /// before anything else is said of the batch.
    Formed(BatchId, Payload, Vec<Asker>),
    /// Hand this to the agreement core as [`Event::Propose`].
    Propose {
        /// Above what is decided without a gap, by a window at most.
        slot: Slot,
        /// Which batch, or null.
        value: Value,
        /// Send the payload along.
        with_payload: bool,
    },
    /// This batch is decided already, or given up: this node needs its payload no longer.
    Forget(BatchId),
    /// There is no room for this batch of another node, or it waited for too long: its payload may go at once.
    Drop(BatchId),
    /// This batch, which was given up or had no room, came again: its payload is needed.
    Hold(BatchId, Payload),
    /// This node does not know what became of this batch of its own, or may become of it, and waits for it no longer.
    /// Whoever waits for its requests is told so.
    Abandon(BatchId),
    /// Send a batch that waits to one peer or all.
    Send(Option<NodeId>, PeerMessage),
}

/// Both clocks of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Since the node's start, monotonic.
    pub elapsed: Duration,
    /// Milliseconds since the Unix epoch, by the node's own clock.
    pub wall: Millis,
}
