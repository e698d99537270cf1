//! Who may speak to this node: rule 12 of the protocol, and everything else that a handshake compares.
//!
//! Which store is a peer's is a matter of the log: a store that was replaced is refused, and says so when its node hears it. A
//! node may be behind, and meet a store of which its own log does not say yet that it is the peer's. It takes the
//! peer's word for it ([`Hello::joined`]) if that is about slots that it has not seen, so that the two can bring each other up to
//! date; but nothing is remembered of such a store, no vote of it counts, and when the log says what it is, the two meet
//! again ([`Effect::MeetAgain`](crate::consensus::agreement::Effect::MeetAgain)).

use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{MAX_NODES, NodeId, RunId, Slot, StoreId};
use rabia_bank_messages::peer::{Hello, HelloRefused, RefusalReason};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::PeerMemory;

use crate::consensus::stores::{Standing, Stores};

/// Who was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    /// A peer with the store that is its own by the log: it is to be remembered.
    Member,
    /// A peer with a store that this node's log does not know yet: nothing is remembered of it.
    Stranger,
}

/// What this node says of itself in a handshake, and what it remembers of its peers.
#[derive(Debug)]
pub struct Door {
    genesis: Genesis,
    me: NodeId,
    store: StoreId,
    starts: u64,
    run: RunId,
    memories: [Option<PeerMemory>; MAX_NODES],
}

impl Door {
    /// The door of a node in the `starts`-th run of its store, with what that remembers of peers.
    pub fn new(
        genesis: Genesis,
        me: NodeId,
        store: StoreId,
        starts: u64,
        run: RunId,
        peers: &[(NodeId, PeerMemory)],
    ) -> Door {
        let mut memories = [const { None }; MAX_NODES];
        for (peer, memory) in peers {
            memories[peer.index()] = Some(*memory);
        }
        Door { genesis, me, store, starts, run, memories }
    }

    /// What this node says of itself. Its store took another's place in slot `joined`, and has kept `promised` promises.
    pub fn introduce(&self, to: NodeId, joined: Option<Slot>, promised: u64) -> Hello {
        Hello {
            cluster: self.genesis.cluster,
            genesis: self.genesis.digest(),
            node: self.me,
            to,
            store: self.store,
            joined,
            starts: self.starts,
            run: self.run,
            promised,
        }
    }

    /// Whether the peer that says this of itself may speak here, where the log up to slot `frontier` knows these stores. `heard`
    /// tells how many promises a peer's store was heard to have kept.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(
        &self,
        hello: &Hello,
        stores: &Stores,
        frontier: Slot,
        heard: impl Fn(NodeId) -> u64,
    ) -> Result<Met, HelloRefused> {
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
        match stores.standing(hello.node, hello.store) {
            Standing::Current => {}
            Standing::Former(by) => {
                let message = format!(
                    "your store {} was replaced: in slot {} node {} got another one instead. Stop this node, it has no \
                     part in the cluster any more; its files may be deleted",
                    hello.store, by.slot, hello.node
                );
                return refuse(RefusalReason::Replaced, message);
            }
            Standing::Unknown if is_broken(Rule::NewStoreByLog) => {}
            Standing::Unknown if hello.joined.is_some_and(|slot| slot > frontier) => return Ok(Met::Stranger),
            Standing::Unknown => {
                let message = format!(
                    "the store {} is not that of node {}: if it shall take its place, tell the cluster \
                     (`rabia-bank replace --help`)",
                    hello.store, hello.node
                );
                return refuse(RefusalReason::Store, message);
            }
        }
        if let Some(memory) = self.memories[hello.node.index()].filter(|memory| memory.store == hello.store) {
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
        Ok(Met::Member)
    }

    /// Whether this store of a peer was remembered.
    pub fn remembers(&self, peer: NodeId, store: StoreId) -> bool {
        self.memories[peer.index()].is_some_and(|memory| memory.store == store)
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
    use crate::consensus::stores::Replacements;
    use rabia_bank_messages::genesis::Replacement;
    use rabia_bank_messages::ids::ClusterId;

    fn genesis() -> Genesis {
        Genesis::new(ClusterId([1; 16]), (1..=3).map(|n| StoreId([n; 16])).collect())
    }

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn door_of(number: u8, store: StoreId, starts: u64) -> Door {
        Door::new(genesis(), node(number), store, starts, RunId([starts as u8; 16]), &[])
    }

    fn door(number: u8, starts: u64) -> Door {
        door_of(number, StoreId([number; 16]), starts)
    }

    /// Nothing was replaced up to slot 50.
    fn reason(door: &Door, hello: &Hello) -> Option<RefusalReason> {
        let stores = Stores::new(&genesis(), &Replacements::default());
        door.check(hello, &stores, 50, |_| 10).err().map(|refused| refused.reason)
    }

    #[test]
    fn a_member_may_speak() {
        let hello = door(2, 1).introduce(node(1), None, 11);
        assert_eq!(reason(&door(1, 1), &hello), None);
    }

    #[test]
    fn everything_that_does_not_fit_is_named() {
        let at = door(1, 1);
        let good = door(2, 1).introduce(node(1), None, 11);
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
        let met = door(2, 5).introduce(node(1), None, 11);
        assert!(at.remember(met.node, PeerMemory { store: met.store, starts: met.starts, run: met.run }));
        assert_eq!(reason(&at, &met), None, "the same run may come again");
        assert_eq!(reason(&at, &Hello { starts: 4, ..met.clone() }), Some(RefusalReason::OldStarts));
        assert_eq!(reason(&at, &Hello { run: RunId([9; 16]), ..met.clone() }), Some(RefusalReason::OldStarts));
        assert_eq!(reason(&at, &Hello { starts: 6, run: RunId([9; 16]), ..met }), None);
    }

    #[test]
    fn a_store_is_the_peers_from_the_slot_on_that_says_so() {
        let (mut at, new) = (door(1, 1), StoreId([0x22; 16]));
        let old = door(2, 5).introduce(node(1), None, 11);
        at.remember(old.node, PeerMemory { store: old.store, starts: old.starts, run: old.run });
        let fresh = door_of(2, new, 1);
        // Before anybody decided it, it is not known to itself either.
        assert_eq!(reason(&at, &fresh.introduce(node(1), None, 0)), Some(RefusalReason::Store));
        // A node that is at slot 50 can't know what was decided in slot 60, but it knows what was not in slot 40.
        let check =
            |hello: &Hello, stores: &Stores| at.check(hello, stores, 50, |_| 0).map_err(|refused| refused.reason);
        let mut stores = Stores::new(&genesis(), &Replacements::default());
        assert_eq!(check(&fresh.introduce(node(1), Some(60), 0), &stores), Ok(Met::Stranger));
        assert_eq!(check(&fresh.introduce(node(1), Some(40), 0), &stores), Err(RefusalReason::Store));
        assert_eq!(check(&old, &stores), Ok(Met::Member));
        // When it knows, the starts of the old store are no measure for the new one, and the old one is refused.
        stores.add(Replacement { slot: 45, node: node(2), store: new });
        assert_eq!(check(&fresh.introduce(node(1), None, 0), &stores), Ok(Met::Member));
        assert_eq!(check(&old, &stores), Err(RefusalReason::Replaced));
        assert_eq!(check(&Hello { starts: 99, ..old }, &stores), Err(RefusalReason::Replaced));
    }
}
