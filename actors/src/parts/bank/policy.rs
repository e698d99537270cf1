//! When the bank takes snapshots.

use rabia_bank_messages::ids::NodeId;

/// When a snapshot is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotPolicy {
    /// After so many bytes of batches …
    pub bytes: u64,
    /// … or so many slots, whichever comes first.
    pub slots: u64,
}

impl SnapshotPolicy {
    /// What a node counts for its first snapshot before anything comes, of the bytes and slots that the log has behind the books. The
    /// nodes of a cluster take theirs in turn, so that while one is busy with it the others are not; so the log of one that is killed
    /// again and again may become nearly twice as long as the policy says.
    pub(super) fn at_start(self, me: NodeId, members: usize, (bytes, slots): (u64, u64)) -> (u64, u64) {
        let part = |whole: u64, turn: usize| whole / members as u64 * turn as u64;
        let count = |whole: u64, replayed: u64| {
            let later = part(whole, members - 1 - me.index());
            part(whole, me.index()).max(replayed.saturating_sub(later))
        };
        (count(self.bytes, bytes), count(self.slots, slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_their_first_snapshots_in_turn_and_do_not_put_them_off_for_ever() {
        let policy = SnapshotPolicy { bytes: 300, slots: 3_000 };
        let at_start =
            |bytes, slots| [1, 2, 3].map(|node| policy.at_start(NodeId::new(node).unwrap(), 3, (bytes, slots)));
        assert_eq!(at_start(0, 0), [(0, 0), (100, 1_000), (200, 2_000)]);
        assert_eq!(at_start(290, 2_900), [(90, 900), (190, 1_900), (290, 2_900)]);
        assert!(at_start(500, 0).iter().all(|(bytes, _)| *bytes >= policy.bytes));
        assert!(at_start(0, 5_000).iter().all(|(_, slots)| *slots >= policy.slots));
        assert_eq!(policy.at_start(NodeId::new(1).unwrap(), 1, (290, 7)), (290, 7));
    }
}
