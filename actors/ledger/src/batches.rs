//! Which batches were applied lately, so that one that is decided in a second slot changes nothing there.

use std::collections::{BTreeSet, VecDeque};

use rabia_bank_messages::ids::{BatchId, Digest, MAX_NODES, NodeId};

use super::set_hash::SetHash;

/// How many batches of one origin are remembered, at 32 bytes each. Nobody speaks in a slot before it knows all decisions up to a
/// window below it, so two decisions of one batch lie less than a window apart (16 slots by default), unless somebody has forgotten
/// the first one: it restarted, or skipped the slot by a snapshot, while a copy of the batch still waited. If so many others of its
/// origin were applied meanwhile, the batch is applied again, like requests that a client sends again: a session that is open
/// answers what it answered before, and one that has ended refuses them.
const REMEMBERED: usize = 4096;

/// The name of a batch within its origin: incarnation and sequence.
pub(super) type Name = (u64, u64);

#[derive(Debug, Default)]
struct Origin {
    /// In the order of application.
    names: VecDeque<Name>,
    /// The same ones, to find one.
    known: BTreeSet<Name>,
}

/// The batches applied last, by origin.
#[derive(Debug, Default)]
pub(super) struct AppliedBatches {
    origins: [Origin; MAX_NODES],
    hash: SetHash,
}

impl AppliedBatches {
    /// Remembers a batch. False if it was remembered already: then it was applied before.
    pub(super) fn insert(&mut self, id: &BatchId) -> bool {
        let origin = &mut self.origins[id.origin.index()];
        let name = (id.incarnation, id.sequence);
        if !origin.known.insert(name) {
            return false;
        }
        self.hash.add(set_hash(id.origin.get(), name));
        origin.names.push_back(name);
        if origin.names.len() > REMEMBERED
            && let Some(oldest) = origin.names.pop_front()
        {
            origin.known.remove(&oldest);
            self.hash.subtract(set_hash(id.origin.get(), oldest));
        }
        true
    }

    /// What a snapshot has of it: by origin, in the order of application.
    pub(super) fn to_row(&self) -> Vec<Vec<Name>> {
        self.origins.iter().map(|origin| origin.names.iter().copied().collect()).collect()
    }

    /// The batches of a snapshot. `None` if there are more origins than nodes, or one is there twice.
    pub(super) fn from_row(row: Vec<Vec<Name>>) -> Option<AppliedBatches> {
        let mut batches = AppliedBatches::default();
        for (index, names) in row.into_iter().enumerate() {
            let origin = u8::try_from(index + 1).ok().and_then(NodeId::new)?;
            for (incarnation, sequence) in names {
                if !batches.insert(&BatchId { origin, incarnation, sequence, digest: Digest::ZERO }) {
                    return None;
                }
            }
        }
        Some(batches)
    }

    /// The hash of the set of the batches remembered.
    pub(super) fn set_hash(&self) -> SetHash {
        self.hash
    }
}

fn set_hash(origin: u8, (incarnation, sequence): Name) -> SetHash {
    let mut bytes = [0; 5 + 1 + 8 + 8];
    bytes[..5].copy_from_slice(b"batch");
    bytes[5] = origin;
    bytes[6..14].copy_from_slice(&incarnation.to_be_bytes());
    bytes[14..].copy_from_slice(&sequence.to_be_bytes());
    SetHash::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(origin: u8, sequence: u64) -> BatchId {
        let origin = NodeId::new(origin).unwrap();
        BatchId { origin, incarnation: 1, sequence, digest: Digest::ZERO }
    }

    #[test]
    fn the_latest_are_remembered_in_order_of_application_and_by_origin() {
        let mut batches = AppliedBatches::default();
        // The lowest sequence comes last: it must not be the first to be forgotten.
        for sequence in (1..=REMEMBERED as u64).rev() {
            assert!(batches.insert(&id(1, sequence)));
        }
        assert!(!batches.insert(&id(1, 1)), "the latest is remembered");
        assert!(!batches.insert(&id(1, REMEMBERED as u64)), "the earliest is remembered");
        assert!(batches.insert(&id(2, 1)), "another origin's is another batch");
        assert!(batches.insert(&id(1, 5000)), "one more is new");
        assert!(!batches.insert(&id(1, 1)), "the latest are still remembered");
        assert!(batches.insert(&id(1, REMEMBERED as u64)), "the earliest made room");
    }

    #[test]
    fn the_hash_follows_from_what_is_remembered_alone() {
        let (mut long, mut short) = (AppliedBatches::default(), AppliedBatches::default());
        for sequence in 1..=REMEMBERED as u64 + 100 {
            long.insert(&id(3, sequence));
            if sequence > 100 {
                short.insert(&id(3, sequence));
            }
        }
        assert_eq!(long.set_hash(), short.set_hash());
    }
}
