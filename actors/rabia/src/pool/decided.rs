//! The batches that were decided lately, so that a late copy is not proposed again.

use std::collections::VecDeque;

use rabia_bank_messages::ids::{BatchId, Slot};
use rustc_hash::FxHashMap;

/// So many are remembered.
const REMEMBERED: usize = 16_384;

/// Batches that were decided, and in which slot.
#[derive(Debug, Default)]
pub(super) struct DecidedBatches {
    slots: FxHashMap<BatchId, Slot>,
    order: VecDeque<(Slot, BatchId)>,
}

impl DecidedBatches {
    /// A batch was decided, perhaps once more.
    pub(super) fn add(&mut self, slot: Slot, id: BatchId) {
        self.slots.insert(id, slot);
        self.order.push_back((slot, id));
        while self.order.len() > REMEMBERED {
            // One that was decided again has a later place, too.
            if let Some((slot, old)) = self.order.pop_front()
                && self.slots.get(&old) == Some(&slot)
            {
                self.slots.remove(&old);
            }
        }
    }

    /// The slot in which a batch was decided last.
    pub(super) fn slot(&self, id: &BatchId) -> Option<Slot> {
        self.slots.get(id).copied()
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::ids::{Digest, NodeId};

    use super::*;

    fn batch(sequence: u64) -> BatchId {
        BatchId { origin: NodeId::new(1).unwrap(), incarnation: 1, sequence, digest: Digest([0; 32]) }
    }

    #[test]
    fn a_batch_is_remembered_from_its_last_decision_on() {
        let mut decided = DecidedBatches::default();
        for sequence in [1, 2] {
            decided.add(sequence, batch(sequence));
        }
        decided.add(3, batch(1));
        for sequence in 0..REMEMBERED as u64 - 1 {
            decided.add(10 + sequence, batch(10 + sequence));
        }
        assert_eq!((decided.slot(&batch(1)), decided.slot(&batch(2))), (Some(3), None));
    }
}
