//! What nodes say to each other (PROTOCOL.md), over one WebSocket link per pair. Between processes that runs over TLS 1.3 with raw
//! public keys (RFC 7250) on both sides, and the store that a [`Hello`] names must be that of the key: see [`StoreId::of_key`].
//!
//! # Frames
//!
//! Every message of the WebSocket is a binary frame of at most [`MAX_PEER_FRAME`](crate::codec::MAX_PEER_FRAME) bytes:
//!
//! ```text
//! opening:    version: u8 = 3 | Opening
//! all others: version: u8 = 3 | PeerMessage | PeerMessage | …        as many as there are, in order
//! ```
//!
//! The first frame each way is an [`Opening`]: a [`Hello`], or from a node that does not accept the other's a
//! [`HelloRefused`], after which it closes. All others carry [`PeerMessage`]s, and many of them share a frame when many
//! are waiting: a frame costs more than a message.
//!
//! # Messages
//!
//! Messages are MessagePack in its [compact form](crate::msgpack): a struct is an array of its fields in the order of their
//! declaration, a variant is its name alone or a map `{name: fields}`, ids and payloads are bin, an absent value is nil.
//! A vote for a batch of node 2 in slot 7 is
//!
//! ```text
//! {"Vote": [7, 1, {"One": [2, incarnation, sequence, digest]}]}
//! ```
//!
//! The layout belongs to the version. Nodes of different versions refuse each other in the handshake, so any change here
//! raises [`PROTOCOL_VERSION`]. A frame with anything damaged in it is refused as a whole: there is no telling what the
//! rest of it means, and the protocol repeats what was lost.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::batch::Payload;
use crate::ids::{BatchId, ClusterId, Digest, Millis, NodeId, Phase, Proof, Slot, StoreId};
use crate::lineage::{Memory, Run};

pub use crate::ids::Value;
pub use crate::promise::{State, Vote};

/// The version of everything in this module.
pub const PROTOCOL_VERSION: u8 = 3;

/// The first frame on a link, each way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The speaker's cluster. A node of another cluster refuses the link.
    pub cluster: ClusterId,
    /// Over all constants of the cluster.
    pub genesis: Digest,
    /// The member that speaks.
    pub node: NodeId,
    /// The node that the speaker expects at the other end.
    pub to: NodeId,
    /// The store that the speaker speaks from.
    pub store: StoreId,
    /// Where the speaker's store took the place of another: the slot in which that was decided, once the speaker has found
    /// it in its own log.
    pub joined: Option<Slot>,
    /// The run of the store in which the speaker is, and how many promises the store has kept: see [`PeerMessage::Promised`].
    pub run: Run,
    /// That the store has kept so many.
    pub proof: Proof,
    /// Former runs of the store, the newest of them, and among them the one that the other end was heard to remember. At most
    /// [`MAX_FORMER_RUNS`].
    pub former: Vec<Run>,
    /// What the speaker remembers durably of the other end.
    pub remembers: Option<Memory>,
    /// The speaker never said what the other end was heard to remember of it: it is to be forgotten.
    pub disputes: Option<Memory>,
    /// The speaker knows all decisions up to this slot …
    pub decided: Slot,
    /// … and this is the hash of its log there.
    pub log_hash: Digest,
}

/// The most former runs in a hello: it stays below 3 KiB.
pub const MAX_FORMER_RUNS: usize = 64;

impl Hello {
    /// Whether the speaker's store has ever been where it is remembered to have been. Otherwise it is an old copy, or another
    /// branch of one.
    pub fn has_been(&self, memory: &Memory) -> bool {
        let mut runs = self.former.iter().chain([&self.run]);
        memory.store == self.store && runs.any(|run| run.run == memory.run && run.promises >= memory.promises)
    }
}

/// Why a link is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum RefusalReason {
    /// Its first byte is another one than [`PROTOCOL_VERSION`].
    #[error("another protocol version")]
    Version,
    /// The cluster ids differ.
    #[error("another cluster")]
    Cluster,
    /// The speaker proved to have the key of another store than the one that it names.
    #[error("a key of another store")]
    Key,
    /// Members, window or limits differ.
    #[error("other constants of the cluster (members, window or limits)")]
    Genesis,
    /// The speaker is no member, or not who was called, or who is called is not this node.
    #[error("an unexpected node")]
    Node,
    /// The log here does not say, or not yet, that the speaker's store is its member's: another node may know.
    #[error("a store that is not known here as the member's")]
    NotYet,
    /// The speaker's store was replaced by another.
    #[error("a store that was replaced")]
    Replaced,
    /// The store was heard to have been where the speaker's never was: that is an old copy.
    #[error("an old copy of the store")]
    OldCopy,
    /// A number that can't be.
    #[error("a number that is not possible")]
    Number,
    /// The first frame was no hello.
    #[error("a first frame that is no hello")]
    NoHello,
}

/// The first frame on a link that is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HelloRefused {
    /// The kind of refusal, for programs.
    pub reason: RefusalReason,
    /// Why, for people: what was expected and what came.
    pub message: String,
    /// What the one who is refused can check. Without it, a refusal is hearsay.
    pub evidence: Option<Evidence>,
}

/// What shows a node that it is refused for a good reason: it checks it in its own store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Evidence {
    /// This is remembered of its store, which has never been there: it is an old copy.
    OldCopy(Memory),
    /// Its store was replaced in this slot.
    Replaced(Slot),
}

/// The frame that opens a link.
#[expect(clippy::large_enum_variant, reason = "there is one for each handshake")]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Opening {
    /// The link may be used.
    Hello(Hello),
    /// The link may not be used; it is closed after this frame.
    Refused(HelloRefused),
}

/// A decided slot, for a node that lacks it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The slot that was decided; slots are numbered from 1.
    pub slot: Slot,
    /// What it was decided on, with the payload.
    pub batch: Option<(BatchId, Payload)>,
}

/// Everything that nodes say after the handshake.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Rule 2. The owner sends the payload along; who only echoes does not.
    Proposal {
        /// The slot that this is about, from 1.
        slot: Slot,
        /// The batch; none for the null slot.
        value: Value,
        /// Present if the speaker made the batch.
        payload: Option<Payload>,
    },
    /// What the speaker goes into a phase with, by rules 3 and 5.
    State {
        /// The slot that this is about, from 1.
        slot: Slot,
        /// The phase of the slot, from 1.
        phase: Phase,
        /// Never changes within a phase.
        state: State,
    },
    /// Rule 4. Durable before it is sent.
    Vote {
        /// The slot that this is about, from 1.
        slot: Slot,
        /// The phase of the slot, from 1.
        phase: Phase,
        /// What the speaker binds itself to.
        vote: Vote,
    },
    /// A slot is decided: rule 8.
    Decide {
        /// The slot that this is about, from 1.
        slot: Slot,
        /// The same at every node.
        value: Value,
    },
    /// A batch that waits for a slot, or the answer to [`PeerMessage::Fetch`].
    Batch {
        /// Names its origin, and the digest of the payload.
        id: BatchId,
        /// Checked against the digest, and byte for byte, before it is held.
        payload: Payload,
    },
    /// Rule 6: send me this payload, if you hold it.
    Fetch {
        /// The batch whose payload it is.
        id: BatchId,
    },
    /// The speaker's store has kept so many promises: durable writes of what the speaker binds itself to (votes, states,
    /// the mark of rule 1), counted over all its runs. Said before the first message that such a write allows, so that
    /// who hears a node knows how many promises its store must remember (rule 12).
    Promised {
        /// Never less than was said before.
        count: u64,
        /// That the store has kept so many.
        proof: Proof,
    },
    /// What the speaker's clock shows. Said when a link comes up, every few seconds, and to whoever stamped a batch so far ahead
    /// of that clock that the speaker does not back it yet. Who hears it stamps by the clocks of a majority.
    Clock {
        /// Milliseconds since the Unix epoch.
        wall: Millis,
        /// It is at least so late, as far as monotonic clocks confirm; none while the speaker does not know.
        confirmed: Option<Millis>,
        /// Whether the speaker does not back a batch of the hearer's for that.
        refuses: bool,
    },
    /// Which is the highest slot in which you have durably voted or which you know decided?
    ReadIndex {
        /// The asker's start counter, echoed.
        starts: u64,
        /// The asker's round, echoed.
        round: u64,
    },
    /// The answer to [`PeerMessage::ReadIndex`].
    ReadIndexAnswer {
        /// The start counter of the question.
        starts: u64,
        /// The round of the question.
        round: u64,
        /// 0 if there is none.
        slot: Slot,
    },
    /// Send me the decided slots from this one on.
    CatchUp {
        /// The first slot that the asker lacks.
        from: Slot,
    },
    /// The answer to [`PeerMessage::CatchUp`]: slots in order without gaps, as many as fit in one message. Empty if the
    /// speaker lacks the first one too.
    Entries {
        /// The hash of the speaker's log before the first of them. Who has another one there has another log.
        before: Digest,
        /// Decided slots, each with the payload of its batch.
        entries: Vec<Entry>,
        /// The speaker knows all decisions up to here.
        decided: Slot,
    },
    /// The answer to [`PeerMessage::CatchUp`] where the speaker's log does not go back so far: a snapshot is to be had.
    Compacted {
        /// The first slot of the speaker's log.
        log_from: Slot,
    },
    /// Send me rows of your snapshot.
    GetSnapshot {
        /// Which one: the slot that it stands after. 0 for the newest.
        slot: Slot,
        /// The first row that the asker lacks.
        at: SnapshotCursor,
    },
    /// The answer to [`PeerMessage::GetSnapshot`].
    SnapshotRows {
        /// The slot that the rows stand after: another one than was asked for if the speaker has that no more.
        slot: Slot,
        /// The place that was asked for.
        at: SnapshotCursor,
        /// The part that the rows are of: a later one than was asked for if nothing was left in that.
        part: SnapshotPart,
        /// Rows by number, in order. The last one may go on in the next answer.
        rows: Vec<(u64, Bytes)>,
        /// Where it goes on; none after the last row of all.
        next: Option<SnapshotCursor>,
    },
    /// Said five times a second: the link works, and the speaker knows all decisions up to here.
    Alive {
        /// The last slot of the gapless decided log.
        decided: Slot,
        /// Of the log up to `decided`.
        hash: Digest,
        /// Up to this slot the log with its payloads, or a snapshot, is durable.
        durable: Slot,
    },
    /// What is the hash of your log up to this slot? Who is not that far, or has it no more, does not answer.
    GetHash {
        /// The slot that this is about, from 1.
        slot: Slot,
    },
    /// The answer to [`PeerMessage::GetHash`].
    LogHash {
        /// The slot that this is about, from 1.
        slot: Slot,
        /// If the receiver has another one there, the logs differ.
        hash: Digest,
    },
    /// The state's digest after a slot that is a multiple of [`DIGEST_INTERVAL`].
    StateDigest {
        /// The slot that this is about, from 1.
        slot: Slot,
        /// Over accounts, sessions and the head of the chain.
        digest: Digest,
    },
}

/// The parts of a snapshot, in the order in which they are sent. Blocks of the history never change, so those that came with
/// one snapshot are good for every later one; the others belong together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum SnapshotPart {
    /// Blocks of the history, by number.
    Blocks,
    /// One row: counters, figures and the last decisions.
    State,
    /// Pages of accounts, by number.
    Accounts,
    /// Open sessions, by their numbers.
    Sessions,
}

/// A place in a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SnapshotCursor {
    /// Parts are sent in their order.
    pub part: SnapshotPart,
    /// The row, or the next one that is there.
    pub row: u64,
    /// So many bytes of the row came before.
    pub offset: u64,
}

/// Nodes compare state digests after every slot that is a multiple of this, and keep the hash of the log there for ever.
pub const DIGEST_INTERVAL: Slot = 1024;
