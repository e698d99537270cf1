//! What stays the same for as long as a replica runs.

use rabia_bank_messages::genesis::{Genesis, Quorums};
use rabia_bank_messages::ids::{ClusterId, NodeId, StoreId};

/// Who a replica is, and of which cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) me: NodeId,
    pub(super) store: StoreId,
    pub(super) cluster: ClusterId,
    /// W: how many slots are in agreement at once.
    pub(super) window: u64,
    pub(super) quorums: Quorums,
}

impl Setting {
    pub(super) fn new(genesis: &Genesis, me: NodeId, store: StoreId) -> Setting {
        let Genesis { cluster, window, .. } = *genesis;
        Setting { me, store, cluster, window, quorums: genesis.quorums() }
    }

    /// All members, in order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        NodeId::all(self.quorums.members())
    }

    /// All members but this one, in order.
    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        let me = self.me;
        self.nodes().filter(move |node| *node != me)
    }
}
