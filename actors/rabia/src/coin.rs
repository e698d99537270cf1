//! The common coin.

use rabia_bank_messages::ids::{ClusterId, Phase, Slot};
use rabia_bank_messages::sabotage::{Rule, is_broken};

/// The epoch of a cluster's membership. Membership does not change yet.
const EPOCH: u64 = 0;

/// The common coin of rule 5: a pure function of cluster, epoch, slot and phase, so that all replicas see the same side.
pub fn coin(cluster: ClusterId, slot: Slot, phase: Phase) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&cluster.0);
    hasher.update(&EPOCH.to_be_bytes());
    let slot = if is_broken(Rule::CoinBySlot) { 0 } else { slot };
    hasher.update(&slot.to_be_bytes());
    hasher.update(&phase.to_be_bytes());
    hasher.finalize().as_bytes()[0] & 1 == 1
}
