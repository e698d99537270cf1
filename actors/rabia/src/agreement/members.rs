//! Whose stores are linked, and where this node's own store speaks for its member.

use std::collections::BTreeSet;
use std::ops::Range;

use rabia_bank_messages::genesis::{Genesis, Replacement, Replacements};
use rabia_bank_messages::ids::{MAX_NODES, NodeId, Slot, StoreId};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::setting::Setting;
use crate::stores::{Standing, Stores};
use crate::words::{Effect, Notice};

/// What a replacement means to this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Replaced {
    /// Nothing: it has no effect.
    Nothing,
    /// A peer has a new store.
    Peer(NodeId),
    /// This node's store took the place of another.
    Joins,
    /// This node's store was replaced, and says nothing from this slot on.
    SilentFrom(Slot),
    /// This node's store has no part in it.
    Elsewhere,
}

/// A peer whose former stores nobody needs any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settled {
    pub(super) node: NodeId,
    pub(super) former: Vec<StoreId>,
}

/// The stores of the members, as far as this node knows the log, and those that peers speak from.
#[derive(Clone, Debug)]
pub(super) struct Members {
    setting: Setting,
    stores: Stores,
    /// Where this store speaks for its member. That it may begin is durable: a node that has forgotten it has said nothing.
    speaks: Range<Slot>,
    /// The stores that peers spoke from last.
    linked: [StoreId; MAX_NODES],
    /// Replacements whose former store may still be needed: it is not refused yet.
    unsettled: Vec<Replacement>,
    /// How far the log is durable at each peer, and in which store.
    durable_at: [Option<(StoreId, Slot)>; MAX_NODES],
}

impl Members {
    pub(super) fn new(setting: Setting, genesis: &Genesis, replacements: &Replacements) -> Members {
        let stores = Stores::new(genesis, replacements);
        let silent = if is_broken(Rule::NewStoreByLog) { 0 } else { Slot::MAX };
        let mut linked = [setting.store; MAX_NODES];
        setting.nodes().for_each(|node| linked[node.index()] = stores.current(node));
        Members {
            setting,
            speaks: stores.span(setting.me, setting.store).unwrap_or(silent..Slot::MAX),
            unsettled: stores.replacements().to_vec(),
            stores,
            linked,
            durable_at: [None; MAX_NODES],
        }
    }

    /// The stores of all members, as far as this node knows the log.
    pub(super) fn stores(&self) -> &Stores {
        &self.stores
    }

    // ----- this node's store -----

    /// Where this store speaks for its member.
    pub(super) fn speaks(&self) -> &Range<Slot> {
        &self.speaks
    }

    /// Whether this store says the highest slot that it voted in: it knows all in which a former one spoke.
    pub(super) fn answers_reads(&self, frontier: Slot) -> bool {
        self.speaks.start <= frontier + 1 || is_broken(Rule::NewStoreReads)
    }

    /// Whether this store may speak within the window.
    pub(super) fn speaks_soon(&self, frontier: Slot) -> bool {
        self.speaks.start <= frontier + self.setting.window && frontier + 1 < self.speaks.end
    }

    /// Whether this store took the place of another, and has not found that in its own log yet.
    pub(super) fn is_newcomer(&self) -> bool {
        self.stores.span(self.setting.me, self.setting.store).is_none()
    }

    /// Where this store took the place of another: the slot in which that was decided.
    pub(super) fn joined(&self) -> Option<Slot> {
        self.stores.brought(self.setting.me, self.setting.store).map(|replacement| replacement.slot)
    }

    /// What this store was replaced by.
    pub(super) fn replaced_by(&self) -> Option<Replacement> {
        match self.stores.standing(self.setting.me, self.setting.store) {
            Standing::Former(by) => Some(by),
            Standing::Current | Standing::Unknown => None,
        }
    }

    /// This store took the place of another, durably. True if it speaks from now on.
    pub(super) fn speak(&mut self) -> bool {
        let span = self.stores.span(self.setting.me, self.setting.store);
        let speaks = span.is_some();
        if let Some(span) = span {
            self.speaks = span;
        }
        speaks
    }

    /// Tells the pool where this store speaks, and which slots are needed.
    pub(super) fn tell_pool(&self, frontier: Slot, effects: &mut Vec<Effect>) {
        if self.speaks != (0..Slot::MAX) {
            effects.push(Effect::Pool(Notice::Speaks(self.speaks.clone())));
        }
        // The new store is of use once all slots are decided in which the old one spoke.
        let last = |replacement: &Replacement| self.stores.speaks_from(replacement) - 1;
        let needed = self.stores.replacements().iter().map(last).max();
        effects.extend(needed.filter(|slot| *slot > frontier).map(|slot| Effect::Pool(Notice::Fill(slot))));
    }

    // ----- peers' stores -----

    /// A peer speaks from this store.
    pub(super) fn link_up(&mut self, peer: NodeId, store: StoreId) {
        self.linked[peer.index()] = store;
    }

    /// The store that a peer spoke from last.
    pub(super) fn linked(&self, peer: NodeId) -> StoreId {
        self.linked[peer.index()]
    }

    /// Whether the store at the other end of the link to this peer is the peer's by the log.
    pub(super) fn is_member(&self, peer: NodeId) -> bool {
        self.linked(peer) == self.stores.current(peer)
    }

    /// Whether that store speaks for the peer, now or soon.
    pub(super) fn is_in_force(&self, peer: NodeId, frontier: Slot) -> bool {
        let span = self.stores.span(peer, self.linked(peer));
        span.is_some_and(|span| span.end > frontier + 1) || is_broken(Rule::NewStoreByLog)
    }

    /// Whether that store speaks for the peer in this slot. Where the decisions that say so are not known yet, beyond `window_end`,
    /// it must be the newest known; if that is wrong, it says its messages again.
    pub(super) fn counts(&self, from: NodeId, slot: Slot, window_end: Slot) -> bool {
        let known = slot <= window_end;
        let store = if known { self.stores.of(from, slot) } else { self.stores.current(from) };
        store == self.linked(from) || is_broken(Rule::NewStoreByLog) || is_broken(Rule::StoreBySlot)
    }

    /// A peer says how far its log is durable.
    pub(super) fn says_durable(&mut self, peer: NodeId, slot: Slot) {
        self.durable_at[peer.index()] = Some((self.linked(peer), slot));
    }

    // ----- replacements -----

    /// A member has a new store, by the log.
    pub(super) fn add(&mut self, replacement: Replacement) -> Replaced {
        if !self.stores.add(replacement) {
            return Replaced::Nothing;
        }
        self.unsettled.push(replacement);
        let Setting { me, store, .. } = self.setting;
        if replacement.node != me {
            return Replaced::Peer(replacement.node);
        }
        if replacement.store == store {
            return Replaced::Joins;
        }
        match self.stores.span(me, store) {
            Some(span) => {
                self.speaks.end = span.end;
                Replaced::SilentFrom(span.end)
            }
            None => Replaced::Elsewhere,
        }
    }

    /// Whether nobody needs the store any more that was replaced: this node, whose log is durable up to `durable`, knows all slots in
    /// which it speaks, and that a quorum has them durably. (Before, with one more loss, those slots could not be decided.)
    pub(super) fn is_settled(&self, by: &Replacement, frontier: Slot, durable: Slot) -> bool {
        let last = self.stores.speaks_from(by) - 1;
        let has = |node: &NodeId| {
            let durable = self.durable_at[node.index()].filter(|(store, _)| *store == self.stores.current(*node));
            durable.is_some_and(|(_, slot)| slot >= last)
        };
        let Setting { me, store, quorums, .. } = self.setting;
        let own = if is_broken(Rule::FormerDurable) { frontier } else { durable };
        let own = usize::from(store == self.stores.current(me) && own >= last);
        let others = self.setting.others().filter(has).count();
        frontier >= last && own + others >= quorums.quorum() || is_broken(Rule::FormerHeard)
    }

    /// Takes note of former stores that nobody needs any more, and answers which of peers' there are.
    pub(super) fn settle(&mut self, frontier: Slot, durable: Slot) -> Vec<Settled> {
        if self.unsettled.is_empty() {
            return Vec::new();
        }
        let (settled, unsettled): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsettled).into_iter().partition(|by| self.is_settled(by, frontier, durable));
        self.unsettled = unsettled;
        let peers: BTreeSet<NodeId> =
            settled.iter().map(|by| by.node).filter(|node| *node != self.setting.me).collect();
        let gone = |node| {
            let needed = self.unsettled.iter().filter(|by| by.node == node).count();
            let mut former = self.stores.former(node);
            former.truncate(former.len().saturating_sub(needed));
            Settled { node, former }
        };
        peers.into_iter().map(gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::ids::ClusterId;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn store(number: u8) -> StoreId {
        StoreId([number; 16])
    }

    /// Of node 1 of three, which speaks from this store. W is 16.
    fn members(own: StoreId) -> Members {
        let genesis = Genesis::new(ClusterId([1; 16]), (1..=3).map(store).collect());
        Members::new(Setting::new(&genesis, node(1), own), &genesis, &Replacements::default())
    }

    fn replace(slot: Slot, number: u8, by: u8) -> Replacement {
        Replacement { slot, node: node(number), store: store(by) }
    }

    #[test]
    fn a_store_speaks_where_the_log_says_so() {
        let mut first = members(store(1));
        assert!(first.speaks_soon(0) && first.answers_reads(0) && !first.is_newcomer());
        assert_eq!(first.add(replace(100, 1, 0x11)), Replaced::SilentFrom(116));
        assert_eq!(first.speaks(), &(0..116));
        assert!(first.speaks_soon(114) && !first.speaks_soon(115));
        let mut new = members(store(0x11));
        assert!(new.is_newcomer() && !new.speaks_soon(1_000) && !new.answers_reads(1_000));
        assert_eq!(new.add(replace(100, 1, 0x11)), Replaced::Joins);
        assert!(!new.speaks_soon(1_000), "that is not durable yet");
        assert!(new.speak());
        assert!(!new.answers_reads(114) && new.answers_reads(115));
        assert_eq!((new.joined(), first.replaced_by()), (Some(100), Some(replace(100, 1, 0x11))));
        assert_eq!(members(store(0x12)).add(replace(100, 1, 0x11)), Replaced::Elsewhere);
    }

    #[test]
    fn a_former_store_counts_in_its_slots_and_goes_when_a_quorum_has_them() {
        let mut members = members(store(1));
        assert_eq!(members.add(replace(5, 2, 0x22)), Replaced::Peer(node(2)));
        assert_eq!(members.add(replace(6, 2, 0x22)), Replaced::Nothing, "again");
        assert!(members.counts(node(2), 20, 21) && !members.counts(node(2), 21, 21));
        assert!(!members.counts(node(2), 30, 21), "the newest known speaks beyond the window");
        assert!(members.is_in_force(node(2), 19) && !members.is_in_force(node(2), 20) && !members.is_member(node(2)));
        members.says_durable(node(3), 19);
        assert_eq!(members.settle(20, 20), [], "one has them");
        members.says_durable(node(3), 20);
        assert_eq!(members.settle(19, 19), [], "this node does not know them");
        assert_eq!(members.settle(20, 20), [Settled { node: node(2), former: vec![store(2)] }]);
        assert_eq!(members.settle(20, 20), [], "it is said once");
    }
}
