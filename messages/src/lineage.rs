//! What tells a store from an old copy of it, and one log from another (PROTOCOL.md, rule 12).
//!
//! A store counts its promises, over all its runs. Whoever hears a node remembers in which [`Run`] of its store it spoke, and how
//! many promises it had kept: a [`Memory`]. A store that does not know the run, or ended it with fewer promises, is an old copy.
//! The node of such a copy can check that itself, for a memory carries a [`Proof`] that only the store and its copies can make.
//!
//! The [`log_hash`] of a slot covers all decisions up to it: where it is the same at two nodes, so are their logs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Proof, RunId, Slot, StoreId, Value};

/// More promises than a store can keep: a million a second for half a million years.
pub const MAX_PROMISES: u64 = 1 << 62;

/// A run of a store, and how many promises the store had kept when it ended, or has kept so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Drawn at random when it began.
    pub run: RunId,
    /// Promises of the store in this run and all before it.
    pub promises: u64,
}

/// What is remembered of a peer's store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// The store that it spoke from.
    pub store: StoreId,
    /// The run in which it spoke last.
    pub run: RunId,
    /// How many promises the store had kept by then.
    pub promises: u64,
    /// Only the store, or a copy of it, can make it.
    pub proof: Proof,
}

/// What a store makes proofs with. It never leaves the store, but a copy of the store has it too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The proof that the store kept so many promises up to this moment of a run.
    pub fn prove(&self, run: RunId, promises: u64) -> Proof {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&run.0).update(&promises.to_be_bytes());
        let mut proof = [0; 16];
        proof.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Proof(proof)
    }

    /// Whether the store, or a copy of it, said what is remembered of it.
    pub fn has_said(&self, memory: &Memory) -> bool {
        self.prove(memory.run, memory.promises) == memory.proof
    }
}

/// The hash of the log up to `slot`, which was decided on `value`; `before` is that of the slot before. The hash of an empty log is
/// [`Digest::ZERO`]: BLAKE3 over `before | slot u64 | 0`, or `before | slot u64 | 1 | origin u8 | incarnation u64 | sequence u64 |
/// digest`, with integers big-endian.
pub fn log_hash(before: Digest, slot: Slot, value: &Value) -> Digest {
    let mut bytes = [0; 32 + 8 + 1 + 1 + 8 + 8 + 32];
    bytes[..32].copy_from_slice(&before.0);
    bytes[32..40].copy_from_slice(&slot.to_be_bytes());
    let Some(id) = value else { return Digest::of(&bytes[..41]) };
    bytes[40] = 1;
    bytes[41] = id.origin.get();
    bytes[42..50].copy_from_slice(&id.incarnation.to_be_bytes());
    bytes[50..58].copy_from_slice(&id.sequence.to_be_bytes());
    bytes[58..].copy_from_slice(&id.digest.0);
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BatchId, NodeId};

    #[test]
    fn a_proof_is_of_one_store_run_and_count() {
        let (secret, other) = (Secret([1; 32]), Secret([2; 32]));
        let memory = |run, promises| {
            let proof = secret.prove(RunId([7; 16]), 5);
            Memory { store: StoreId([3; 16]), run: RunId([run; 16]), promises, proof }
        };
        assert!(secret.has_said(&memory(7, 5)));
        assert!(!other.has_said(&memory(7, 5)) && !secret.has_said(&memory(8, 5)) && !secret.has_said(&memory(7, 6)));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn the_hash_of_a_log_covers_all_of_it() {
        let Some(origin) = NodeId::new(2) else { unreachable!() };
        let id = BatchId { origin, incarnation: 3, sequence: 4, digest: Digest([5; 32]) };
        let values = [None, Some(id), Some(BatchId { sequence: 5, ..id }), Some(BatchId { incarnation: 2, ..id })];
        let mut hashes: Vec<Digest> = Vec::new();
        for before in [Digest::ZERO, Digest([1; 32])] {
            for slot in [1, 2] {
                hashes.extend(values.iter().map(|value| log_hash(before, slot, value)));
            }
        }
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
        // Kept in files and compared between programs: this may not change.
        let first = log_hash(Digest::ZERO, 1, &None).to_string();
        assert_eq!(first, Digest::of(&[&[0; 39][..], &[1, 0]].concat()).to_string());
    }
}
