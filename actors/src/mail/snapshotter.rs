//! What the snapshotter is told.

use actix::prelude::*;
use rabia_bank_messages::ids::{BatchId, NodeId, Slot};
use rabia_bank_messages::peer::PeerMessage;

pub use crate::parts::snapshotter::SendEntries;
use crate::snapshot::Snapshot;

messages!(SendEntries);

/// Make this snapshot durable.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Save(pub Snapshot);

/// Send this peer the payload of this batch, if the log has it.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct SendStored {
    /// The peer that lacks it.
    pub to: NodeId,
    /// The batch whose payload it is.
    pub id: BatchId,
}

/// Tell this peer the hash of the log up to a slot, if it is on disk.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct SendHash {
    /// The peer that compares it with its own.
    pub to: NodeId,
    /// The last slot that the hash covers.
    pub slot: Slot,
}

/// Look for the hash of the log up to this slot, and tell the voter.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct LookUp(pub Slot);

/// A peer said this about snapshots.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AboutSnapshot(pub NodeId, pub PeerMessage);

/// The link to a peer works, or broke.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Linked {
    /// The peer at the other end.
    pub peer: NodeId,
    /// False where the link has broken.
    pub up: bool,
}

/// Where the snapshotter is told.
#[derive(Clone)]
#[allow(missing_docs)] // each is named after its message
pub struct SnapshotterInbox {
    pub save: Recipient<Save>,
    pub send_entries: Recipient<SendEntries>,
    pub send_stored: Recipient<SendStored>,
    pub send_hash: Recipient<SendHash>,
    pub look_up: Recipient<LookUp>,
    pub about_snapshot: Recipient<AboutSnapshot>,
    pub linked: Recipient<Linked>,
}
