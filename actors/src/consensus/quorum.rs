//! How many messages a step needs, and the common coin.

use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{ClusterId, Phase, Slot};

/// The thresholds of a cluster of n replicas.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Quorums {
    members: u8,
}

impl Quorums {
    /// The thresholds of this cluster.
    pub fn of(genesis: &Genesis) -> Quorums {
        Quorums { members: genesis.members() as u8 }
    }

    /// n.
    pub fn members(self) -> usize {
        usize::from(self.members)
    }

    /// f = ⌊(n − 1) / 2⌋: how many may be down at once.
    pub fn faults(self) -> usize {
        (self.members() - 1) / 2
    }

    /// n − f: how many messages a step waits for.
    pub fn quorum(self) -> usize {
        self.members() - self.faults()
    }

    /// ⌊n / 2⌋ + 1.
    pub fn majority(self) -> usize {
        self.members() / 2 + 1
    }
}

/// The epoch of a cluster's membership. Membership does not change yet.
const EPOCH: u64 = 0;

/// The common coin of rule 5: a pure function of cluster, epoch, slot and phase, so that all replicas see the same side.
pub fn coin(cluster: ClusterId, slot: Slot, phase: Phase) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&cluster.0);
    hasher.update(&EPOCH.to_be_bytes());
    hasher.update(&slot.to_be_bytes());
    hasher.update(&phase.to_be_bytes());
    hasher.finalize().as_bytes()[0] & 1 == 1
}
