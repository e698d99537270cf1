//! The hash of the log, slot by slot: see [`log_hash`].

use std::collections::VecDeque;

use rabia_bank_messages::ids::{Digest, Slot};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::{DIGEST_INTERVAL, Value};

/// So many of the newest are in memory: 128 KiB. Peers that are a little behind are compared with them.
const KEPT: usize = 4_096;

/// The hashes of the log up to its newest slots.
#[derive(Clone, Debug)]
pub struct Hashes {
    end: Slot,
    /// The last is that of `end`. Never empty.
    newest: VecDeque<Digest>,
    /// The last multiple of [`DIGEST_INTERVAL`] that this log went through, with its hash.
    multiple: Option<(Slot, Digest)>,
}

impl Hashes {
    /// Of a log that ends at this slot; the last of the hashes is that of all of it, none for an empty log. `multiple` is the last
    /// hash that is kept for ever.
    pub fn new(end: Slot, newest: &[Digest], multiple: Option<(Slot, Digest)>) -> Hashes {
        let newest = if newest.is_empty() { vec![Digest::ZERO] } else { newest.to_vec() };
        Hashes { end, newest: newest.into(), multiple }
    }

    /// The hash of the whole log.
    pub fn last(&self) -> Digest {
        self.newest.back().copied().unwrap_or(Digest::ZERO)
    }

    /// The hash of the log up to this slot, if it is in memory.
    pub fn of(&self, slot: Slot) -> Option<Digest> {
        let back = self.end.checked_sub(slot)?;
        let index = (self.newest.len() as u64).checked_sub(1 + back);
        let newest = index.and_then(|index| self.newest.get(index as usize));
        newest.copied().or(self.multiple.filter(|(multiple, _)| *multiple == slot).map(|(_, hash)| hash))
    }

    /// The next slot is decided on this.
    pub fn push(&mut self, value: &Value) {
        let hash = log_hash(self.last(), self.end + 1, value);
        self.end += 1;
        self.newest.push_back(hash);
        if self.newest.len() > KEPT {
            self.newest.pop_front();
        }
        if self.end.is_multiple_of(DIGEST_INTERVAL) {
            self.multiple = Some((self.end, hash));
        }
    }

    /// Goes on behind a snapshot.
    pub fn restart(&mut self, slot: Slot, hash: Digest) {
        *self = Hashes::new(slot, &[hash], self.multiple);
    }

    /// The last multiple of [`DIGEST_INTERVAL`] that this log went through, with its hash.
    pub fn multiple(&self) -> Option<(Slot, Digest)> {
        self.multiple
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_known_and_follow_from_each_other() {
        let mut hashes = Hashes::new(0, &[], None);
        let mut all = vec![Digest::ZERO];
        for slot in 1..=5_000 {
            hashes.push(&None);
            all.push(log_hash(all[slot as usize - 1], slot, &None));
        }
        assert_eq!(hashes.last(), all[5_000]);
        for slot in [5_000, 4_999, 5_001 - KEPT as Slot] {
            assert_eq!(hashes.of(slot), Some(all[slot as usize]), "slot {slot}");
        }
        assert_eq!((hashes.of(5_001), hashes.of(5_000 - KEPT as Slot)), (None, None));
        let multiple = (4 * DIGEST_INTERVAL, all[4 * DIGEST_INTERVAL as usize]);
        assert_eq!(hashes.multiple(), Some(multiple));
        let again = Hashes::new(5_000, &all[4_000..], None);
        assert_eq!((again.last(), again.of(4_000), again.of(3_999)), (all[5_000], Some(all[4_000]), None));
        hashes.restart(9_000, Digest([7; 32]));
        assert_eq!((hashes.last(), hashes.of(9_000), hashes.of(5_000)), (Digest([7; 32]), Some(Digest([7; 32])), None));
        assert_eq!(hashes.of(multiple.0), Some(multiple.1), "it is kept");
    }
}
