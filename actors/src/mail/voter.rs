//! What the voter is told.

use actix::prelude::*;
use rabia_bank_messages::genesis::Replacements;
use rabia_bank_messages::ids::{Digest, NodeId, Slot};
use rabia_bank_messages::peer::{Evidence, Hello, HelloRefused, PeerMessage};

use crate::consensus::agreement::{Event, Ticket};
use crate::parts::voter::LinkUp;
use crate::snapshot::Decision;

/// What the pool wants of the agreement core, in this order.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Tell(pub Vec<Event>);

/// All writes up to this ticket are durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Persisted(pub Ticket);

// ----- of links -----

/// A peer said this, in this order.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct FromPeer {
    /// The authenticated end of the link.
    pub peer: NodeId,
    /// All messages of one frame.
    pub messages: Vec<PeerMessage>,
}

/// The link to a peer works, or broke.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct LinkState {
    /// The peer at the other end.
    pub peer: NodeId,
    /// What there is to know of it, if it works.
    pub up: Option<LinkUp>,
}

/// What does this node say of itself to this peer?
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Hello")]
pub struct Introduce(pub NodeId);

/// A peer said this of itself. Answered, once what has to be remembered of it is durable, with what this node says.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Hello, HelloRefused>")]
pub struct Meet(pub Hello);

/// A peer refused this node, for this reason.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct RefusedBy {
    /// The member that answered the hello.
    pub peer: NodeId,
    /// What this node can check in its own store. Without it, a refusal is hearsay.
    pub evidence: Option<Evidence>,
}

// ----- of the bank -----

/// Somebody wants to read what is acknowledged now. Reads are numbered, ascending.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Read(pub u64);

/// The digest of this node's state after a slot.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct OwnDigest {
    /// The last slot that is applied in it.
    pub slot: Slot,
    /// Covers all that is replicated, so it is the same wherever the same slots are applied.
    pub digest: Digest,
}

// ----- of the snapshotter -----

/// The hash of this node's log up to a slot, if it was found on disk.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct LookedUp {
    /// The last slot that the hash covers.
    pub slot: Slot,
    /// None if the log has the slot no more.
    pub hash: Option<Digest>,
}

/// The snapshot that a peer sends does not have this node's history.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct OtherHistory {
    /// The peer that the snapshot comes from.
    pub peer: NodeId,
    /// The slot that it stands after.
    pub slot: Slot,
}

/// The books on disk stand after this slot now, by a snapshot that came from a peer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Installed {
    /// The last slot that is applied in them.
    pub slot: Slot,
    /// The hash of the log up to it.
    pub hash: Digest,
    /// The replacements of stores up to it.
    pub replacements: Replacements,
    /// The decisions before it that owners of coming slots are read from.
    pub decisions: Vec<Decision>,
    /// Hands the state over to the bank: to be called if this node goes on from it, before the bank hears of anything that follows.
    pub hand_over: Box<dyn FnOnce() + Send>,
}

/// Where the voter is told.
#[derive(Clone)]
#[allow(missing_docs)] // each is named after its message
pub struct VoterInbox {
    pub tell: Recipient<Tell>,
    pub from_peer: Recipient<FromPeer>,
    pub link_state: Recipient<LinkState>,
    pub introduce: Recipient<Introduce>,
    pub meet: Recipient<Meet>,
    pub refused_by: Recipient<RefusedBy>,
    pub read: Recipient<Read>,
    pub own_digest: Recipient<OwnDigest>,
    pub looked_up: Recipient<LookedUp>,
    pub other_history: Recipient<OtherHistory>,
    pub installed: Recipient<Installed>,
}
