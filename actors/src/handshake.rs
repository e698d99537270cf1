//! Who may speak to this node: rule 12 of the protocol, and everything else that a handshake compares.

use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{MAX_NODES, NodeId, RunId};
use rabia_bank_messages::peer::{Hello, HelloRefused, RefusalReason};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::PeerMemory;

/// What this node says of itself in a handshake, and what it remembers of its peers.
#[derive(Debug)]
pub struct Door {
    genesis: Genesis,
    me: NodeId,
    starts: u64,
    run: RunId,
    memories: [Option<PeerMemory>; MAX_NODES],
}

impl Door {
    /// The door of a node in its `starts`-th run, with what its store remembers of peers.
    pub fn new(genesis: Genesis, me: NodeId, starts: u64, run: RunId, peers: &[(NodeId, PeerMemory)]) -> Door {
        let mut memories = [const { None }; MAX_NODES];
        for (peer, memory) in peers {
            memories[peer.index()] = Some(*memory);
        }
        Door { genesis, me, starts, run, memories }
    }

    /// What this node says of itself. Its store has kept `promised` promises.
    pub fn introduce(&self, to: NodeId, promised: u64) -> Hello {
        Hello {
            cluster: self.genesis.cluster,
            genesis: self.genesis.digest(),
            node: self.me,
            to,
            store: self.genesis.stores[self.me.index()],
            starts: self.starts,
            run: self.run,
            promised,
        }
    }

    /// Whether the peer that says this of itself may speak here. `heard` tells how many promises a
    /// peer was heard to have kept.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, hello: &Hello, heard: impl Fn(NodeId) -> u64) -> Result<(), HelloRefused> {
        let refuse = |reason, message: String| Err(HelloRefused { reason, message });
        if hello.cluster != self.genesis.cluster {
            let message = format!("this is cluster {}, you are of cluster {}", self.genesis.cluster, hello.cluster);
            return refuse(RefusalReason::Cluster, message);
        }
        if hello.genesis != self.genesis.digest() {
            let message = "members, stores, window or limits in your configuration are not those of this node's";
            return refuse(RefusalReason::Genesis, message.into());
        }
        if hello.to != self.me {
            let message = format!("this is node {}, you called for node {}", self.me, hello.to);
            return refuse(RefusalReason::Node, message);
        }
        if hello.node == self.me || hello.node.index() >= self.genesis.members() {
            return refuse(RefusalReason::Node, format!("node {} can't be a peer of node {}", hello.node, self.me));
        }
        let store = self.genesis.stores[hello.node.index()];
        if hello.store != store {
            let message = format!("the store of node {} is {store}, yours is {}", hello.node, hello.store);
            return refuse(RefusalReason::Store, message);
        }
        if let Some(memory) = &self.memories[hello.node.index()] {
            let older = hello.starts < memory.starts;
            let other = hello.starts == memory.starts && hello.run != memory.run;
            if (older || other) && !is_broken(Rule::StartCounters) {
                let message = format!(
                    "your store was seen in its start {} before, this is its start {}: it is an old copy",
                    memory.starts, hello.starts
                );
                return refuse(RefusalReason::OldStarts, message);
            }
        }
        let heard = heard(hello.node);
        if heard > hello.promised && !is_broken(Rule::PromiseCounts) {
            let message = format!(
                "you were heard to have made {heard} promises, but your store knows of {}: it is an old copy",
                hello.promised
            );
            return refuse(RefusalReason::OldPromises, message);
        }
        Ok(())
    }

    /// Takes note of a peer's run. False if nothing is new.
    pub fn remember(&mut self, peer: NodeId, memory: PeerMemory) -> bool {
        let known = &mut self.memories[peer.index()];
        let new = known.as_ref() != Some(&memory);
        *known = Some(memory);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabia_bank_messages::ids::{ClusterId, StoreId};

    fn genesis() -> Genesis {
        Genesis::new(ClusterId([1; 16]), (1..=3).map(|n| StoreId([n; 16])).collect())
    }

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn door(number: u8, starts: u64) -> Door {
        Door::new(genesis(), node(number), starts, RunId([starts as u8; 16]), &[])
    }

    fn reason(door: &Door, hello: &Hello) -> Option<RefusalReason> {
        door.check(hello, |_| 10).err().map(|refused| refused.reason)
    }

    #[test]
    fn a_member_may_speak() {
        let hello = door(2, 1).introduce(node(1), 11);
        assert_eq!(reason(&door(1, 1), &hello), None);
    }

    #[test]
    fn everything_that_does_not_fit_is_named() {
        let at = door(1, 1);
        let good = door(2, 1).introduce(node(1), 11);
        let cases = [
            (Hello { cluster: ClusterId([9; 16]), ..good.clone() }, RefusalReason::Cluster),
            (Hello { genesis: Genesis { window: 3, ..genesis() }.digest(), ..good.clone() }, RefusalReason::Genesis),
            (Hello { to: node(3), ..good.clone() }, RefusalReason::Node),
            (Hello { node: node(1), ..good.clone() }, RefusalReason::Node),
            (Hello { node: node(5), ..good.clone() }, RefusalReason::Node),
            (Hello { store: StoreId([9; 16]), ..good.clone() }, RefusalReason::Store),
            (Hello { promised: 9, ..good.clone() }, RefusalReason::OldPromises),
        ];
        for (hello, expected) in cases {
            assert_eq!(reason(&at, &hello), Some(expected), "{hello:?}");
        }
    }

    #[test]
    fn an_old_copy_of_a_store_is_refused() {
        let mut at = door(1, 1);
        let met = door(2, 5).introduce(node(1), 11);
        assert!(at.remember(met.node, PeerMemory { store: met.store, starts: met.starts, run: met.run }));
        assert_eq!(reason(&at, &met), None, "the same run may come again");
        assert_eq!(reason(&at, &Hello { starts: 4, ..met.clone() }), Some(RefusalReason::OldStarts));
        assert_eq!(reason(&at, &Hello { run: RunId([9; 16]), ..met.clone() }), Some(RefusalReason::OldStarts));
        assert_eq!(reason(&at, &Hello { starts: 6, run: RunId([9; 16]), ..met }), None);
    }
}
