//! What a store is of, and what it holds when it is opened.

use serde::{Deserialize, Serialize};

use super::said::Record;
use crate::batch::Payload;
use crate::genesis::Genesis;
use crate::ids::{BatchId, Digest, NodeId, RunId, Slot, StoreId, Value};
use crate::lineage::{Memory, Secret};

/// What a store belongs to. Written when it is created, compared whenever it is opened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The constants of the cluster, the ids of all members' stores among them.
    pub genesis: Genesis,
    /// The member whose store this is.
    pub node: NodeId,
}

/// A run of a store, from one start to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Began {
    /// Which start of the store it was, from 1.
    pub start: u64,
    /// Drawn at random when it began.
    pub run: RunId,
    /// How many promises the store had kept when it began.
    pub promises: u64,
}

/// What a log holds when it is opened. The decided log itself is read beside the writer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Which store this is: the member's first one, or one that took its place.
    pub store: StoreId,
    /// How often the store was started, this time included: already raised on the disk.
    pub starts: u64,
    /// The node has said nothing at or above this slot (rule 1).
    pub reserved: Slot,
    /// What the node bound itself to in slots that are not decided: by slot and phase, State before Vote.
    pub records: Vec<Record>,
    /// The payloads that these records name, each once.
    pub payloads: Vec<(BatchId, Payload)>,
    /// The end of the decided log without gaps, from the slot of the books on: that slot, if the next one is not decided.
    pub decided: Slot,
    /// What is decided above the first gap, by slot.
    pub sparse: Vec<(Slot, Value)>,
    /// The hashes of the log up to its last slots, the last one up to `decided`. Empty if it is only known how far the books are.
    pub hashes: Vec<Digest>,
    /// The last hash that is kept for ever, and its slot.
    pub kept: Option<(Slot, Digest)>,
    /// What is remembered of peers' stores, by node and store.
    pub peers: Vec<(NodeId, Memory)>,
    /// How many promises this store has kept.
    pub promised: u64,
    /// The runs of this store that somebody may remember, oldest first, this one not included.
    pub runs: Vec<Began>,
    /// What this store makes proofs with.
    pub secret: Secret,
}

impl Recovered {
    /// What the first start of a store finds that was made for a new cluster: an empty log, and no promise.
    pub fn at_first_start(store: StoreId, secret: Secret) -> Recovered {
        Recovered {
            store,
            starts: 1,
            reserved: 1,
            records: Vec::new(),
            payloads: Vec::new(),
            decided: 0,
            sparse: Vec::new(),
            hashes: vec![Digest::ZERO],
            kept: None,
            peers: Vec::new(),
            promised: 0,
            runs: Vec::new(),
            secret,
        }
    }
}
