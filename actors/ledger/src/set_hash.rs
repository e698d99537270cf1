//! A hash of a set, kept up to date entry by entry.
//!
//! Each entry's BLAKE3 hash is read as four 64-bit numbers, and the hash of the set is their sum, lane by lane,
//! modulo 2^64. So an entry can be added or taken away at any time, in any order, at the cost of hashing that entry
//! alone, and equal sets have equal hashes whatever way led there.
//!
//! It is meant to find nodes that diverged by accident (a bug, a bit flipped in memory), and does: two different sets
//! agree with a probability of 2^-256. It does not withstand an adversary who chooses entries to make sums meet, which
//! is why the history has a chain of ordinary hashes besides.

/// The sum of the hashes of a set's entries; zero for the empty set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SetHash([u64; 4]);

impl SetHash {
    /// The hash of the set with this one entry.
    pub(super) fn of(entry: &[u8]) -> SetHash {
        let hash = blake3::hash(entry);
        let (lanes, _) = hash.as_bytes().as_chunks::<8>();
        SetHash(std::array::from_fn(|lane| u64::from_be_bytes(lanes[lane])))
    }

    /// Adds the entries of another set.
    pub(super) fn add(&mut self, other: SetHash) {
        for (lane, more) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(more);
        }
    }

    /// Takes away entries that were added before.
    pub(super) fn subtract(&mut self, other: SetHash) {
        for (lane, less) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_sub(less);
        }
    }

    /// The bytes, to go into a digest.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (part, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            part.copy_from_slice(&lane.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_taking_away_undoes_adding() {
        let [a, b] = [SetHash::of(b"a"), SetHash::of(b"b")];
        let (mut one, mut other) = (SetHash::default(), SetHash::default());
        one.add(a);
        one.add(b);
        other.add(b);
        other.add(a);
        assert_eq!(one, other);
        assert_ne!(one, a);
        one.subtract(b);
        assert_eq!(one, a);
        one.subtract(a);
        assert_eq!(one.to_bytes(), [0; 32]);
    }

    #[test]
    fn an_entry_that_is_there_twice_counts_twice() {
        let mut twice = SetHash::of(b"a");
        twice.add(SetHash::of(b"a"));
        assert_ne!(twice, SetHash::of(b"a"));
        assert_ne!(twice, SetHash::default());
    }
}
