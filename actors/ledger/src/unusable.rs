//! Decided batches that can't be applied: no honest node proposes one, but where one is decided all the same every node
//! applies it as an empty batch, and remembers that it did.

use std::collections::VecDeque;

use rabia_bank_messages::ids::{BatchId, Slot};

/// How many of them are named; of more, only the newest are, and all are counted. 72 bytes each.
pub const NAMED: usize = 1024;

/// The decided batches that could not be applied, up to a slot: part of the bank's state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnusableBatches {
    count: u64,
    newest: VecDeque<(Slot, BatchId)>,
}

impl UnusableBatches {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The newest of them, [`NAMED`] at most, in the order of their slots.
    pub fn newest(&self) -> impl ExactSizeIterator<Item = (Slot, BatchId)> + '_ {
        self.newest.iter().copied()
    }

    pub(super) fn add(&mut self, slot: Slot, id: BatchId) {
        self.count += 1;
        self.newest.push_back((slot, id));
        if self.newest.len() > NAMED {
            self.newest.pop_front();
        }
    }

    /// Those of a snapshot. `None` if they can't be.
    pub(super) fn from_row(count: u64, newest: Vec<(Slot, BatchId)>) -> Option<UnusableBatches> {
        let in_order = newest.is_sorted_by(|(a, _), (b, _)| a < b);
        let all_named = newest.len() as u64 == count.min(NAMED as u64);
        (in_order && all_named).then(|| UnusableBatches { count, newest: newest.into() })
    }

    pub(super) fn add_to(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.count.to_be_bytes());
        for (slot, id) in &self.newest {
            hasher.update(&slot.to_be_bytes()).update(&[id.origin.get()]);
            hasher.update(&id.incarnation.to_be_bytes()).update(&id.sequence.to_be_bytes()).update(&id.digest.0);
        }
    }
}
