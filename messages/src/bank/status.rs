//! The state of one node, as it says it to whoever asks.

use serde::{Deserialize, Serialize};

use crate::ids::{self, ClusterId, Digest, Millis, NodeId, Slot};
use crate::number;
use crate::open::OtherFields;
use crate::stages::{self, Stages};

/// The state of a node and what it has applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The number of the member that answers, from 1.
    pub node: NodeId,
    /// The id that its cluster got when it was created.
    #[serde(with = "ids::text")]
    pub cluster: ClusterId,
    /// The version of its program, such as 0.1.0.
    pub version: String,
    /// How many members the cluster has.
    pub members: usize,
    /// Peers with a working link.
    pub connected: Vec<NodeId>,
    /// The level of the cluster: see [`level`](crate::level).
    #[serde(default)]
    pub level: u32,
    /// The highest level that the node's program knows.
    #[serde(default)]
    pub can: u32,
    /// The highest level that the program of each member knows, as it said in the log: node 1 first. Who never said it knows level 1.
    #[serde(default)]
    pub members_can: Vec<u32>,
    /// Whether it has met a quorum that lets it speak since its start. Until then it answers no read of what is on its disk.
    #[serde(default = "yes")]
    pub admitted: bool,
    /// Whether another member has another log or another state, so that it answers no client.
    #[serde(default)]
    pub in_doubt: bool,
    /// The state below is that after this slot.
    pub applied_slot: Slot,
    /// Slots that carried a batch.
    pub decided_slots: u64,
    /// Slots that were forfeited.
    pub null_slots: u64,
    /// Batches that were decided a second time, and changed nothing then.
    pub repeated_batches: u64,
    /// Batches that were decided and can't be applied: every node applied them as empty ones. Not 0 means that a node is or was
    /// damaged, or ran another program.
    #[serde(default)]
    pub unusable_batches: u64,
    /// Phases of the slots that this node decided itself: how many took 1, 2, 3, and 4 or more.
    pub phases: [u64; 4],
    /// The slot that the last snapshot on its disk stands after: a start applies what came behind it.
    pub snapshot_slot: Slot,
    /// The furthest slot that it knows of: its own, or a peer's. It catches up where that is above `applied_slot`.
    pub known_slot: Slot,
    /// Bytes that came so far of a snapshot that it is being sent, since its peers' logs do not go back to where it is; 0 if it is
    /// sent none.
    pub receiving_bytes: u64,
    /// Undecided slots that are in agreement now.
    pub open_slots: u64,
    /// How many accounts were ever created.
    pub accounts: u64,
    /// How many transactions; their ids run from 1 to this number.
    pub transactions: u64,
    /// The sum of all balances of the cluster's own asset, in minor units.
    #[serde(deserialize_with = "number::signed")]
    pub total_balance: i64,
    /// How many sessions have neither ended nor expired.
    pub sessions: u64,
    /// Connections of clients to this node.
    pub clients: u64,
    /// How many it takes at most: by its limits, or by what its process may have open.
    #[serde(default)]
    pub max_clients: u64,
    /// How many files and sockets its process may have open.
    #[serde(default)]
    pub descriptors: u64,
    /// The hash of the last history record.
    #[serde(with = "ids::text")]
    pub chain_head: Digest,
    /// Covers accounts, sessions and the head of the chain, at `applied_slot`.
    #[serde(with = "ids::text")]
    pub state_digest: Digest,
    /// The time that sessions expire by: the highest stamp of a batch applied, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub log_time: Millis,
    /// This node's clock less the median of all that it knows of, in milliseconds: below 0 it is behind. Where only one other is
    /// known, less that one.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// How far this node's clock shows beyond what monotonic clocks confirm, in milliseconds, if that is more than an hour: it is not
    /// believed then. Else 0.
    #[serde(default)]
    pub clock_leap_ms: Millis,
    /// When the certificate expires that it shows clients, in milliseconds since the Unix epoch; 0 where it speaks no TLS with them.
    #[serde(default)]
    pub certificate_expires_at: Millis,
    /// Durable commits since the start, each one sync of the disk.
    pub commits: u64,
    /// Seconds since the node's start.
    pub uptime_s: u64,
    /// What the process has used so far.
    pub process: Process,
    /// How long each stage of this node's work took, since its start.
    #[serde(deserialize_with = "stages::known")]
    pub stages: Stages,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: OtherFields,
}

/// Nodes that do not say it answer whoever asks.
fn yes() -> bool {
    true
}

/// What a node's process has used since it began, as the system counts it. A process that holds several nodes, or more than
/// nodes, counts all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Processor time of all threads, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory it ever had, in bytes.
    pub peak_memory_bytes: u64,
    /// What it sent to disks, in bytes.
    pub written_bytes: u64,
}
