//! One store a member: in no slot do two stores of a member speak, nobody listens to two, and a new one answers reads only when
//! it knows all slots in which the former one spoke.
//!
//! Source: PROTOCOL.md, "Replacing a lost store".

use rabia_bank_messages::batch::{Batched, Payload};
use rabia_bank_messages::genesis::{Genesis, Replacement};
use rabia_bank_messages::ids::{NodeId, Slot, StoreId};
use rabia_bank_messages::peer::PeerMessage;

use super::{Check, Violation, check};

const PROPERTY: &str = "one store a member";

/// The stores of all members, by the log of the cluster.
#[derive(Debug)]
pub(crate) struct Stores {
    window: Slot,
    first: Vec<StoreId>,
    /// In which slot, whose, and by which one: each store once.
    replaced: Vec<(Slot, NodeId, StoreId)>,
    /// The end of the log.
    end: Slot,
}

impl Stores {
    pub(crate) fn new(genesis: &Genesis) -> Stores {
        Stores { window: genesis.window, first: genesis.stores.clone(), replaced: Vec::new(), end: 0 }
    }

    /// Some node knows this slot to be decided, and all before it.
    pub(crate) fn decided<C: Batched>(&mut self, slot: Slot, payload: Option<&Payload>) -> Check {
        if slot <= self.end {
            return Ok(());
        }
        self.end = slot;
        let usable = payload.filter(|payload| payload.check::<C>().is_ok());
        let replacement = usable.map_or(Ok(None), Payload::replacement);
        let replacement = replacement.map_err(|bad| Violation { property: PROPERTY, what: bad.to_string() })?;
        if let Some((node, store)) = replacement.filter(|(_, store)| self.replaced_in(*store).is_none()) {
            self.replaced.push((slot, node, store));
        }
        Ok(())
    }

    /// The slot that made this a member's store.
    pub(crate) fn replaced_in(&self, store: StoreId) -> Option<Slot> {
        self.replaced.iter().find(|(.., by)| *by == store).map(|(slot, ..)| *slot)
    }

    /// Whether the log up to this slot tells of these replacements, and of no others.
    pub(crate) fn tell(&self, replacements: &[Replacement], upto: Slot) -> bool {
        let told = self.replaced.iter().take_while(|(slot, ..)| *slot <= upto);
        told.copied().eq(replacements.iter().map(|by| (by.slot, by.node, by.store)))
    }

    /// The newest store of a member by what is decided up to this slot.
    pub(crate) fn newest(&self, node: NodeId, upto: Slot) -> StoreId {
        let known = self.replaced.iter().rfind(|(slot, of, _)| *of == node && *slot <= upto);
        known.map_or(self.first[node.index()], |(.., store)| *store)
    }

    /// The store that speaks for a member in a slot.
    fn speaker(&self, node: NodeId, slot: Slot) -> StoreId {
        self.newest(node, slot.saturating_sub(self.window))
    }

    /// The last slot in which a store speaks that was replaced.
    pub(crate) fn last_slot(&self, node: NodeId, store: StoreId) -> Option<Slot> {
        let mut of_node = self.replaced.iter().filter(|(_, of, _)| *of == node);
        let first = store == self.first[node.index()];
        let next = if first { of_node.next() } else { of_node.skip_while(|(.., by)| *by != store).nth(1) };
        next.map(|(slot, ..)| slot + self.window - 1)
    }

    /// Whether what a store says of this slot counts where the log is known up to `frontier`.
    pub(crate) fn counts(&self, node: NodeId, store: StoreId, slot: Slot, frontier: Slot) -> bool {
        // Beyond the window it can't be known which store speaks, and the newest that is known counts.
        store == self.newest(node, frontier.min(slot.saturating_sub(self.window)))
    }

    /// A node that speaks from this store, and knows the log up to `frontier`, says this.
    pub(crate) fn says(&self, node: NodeId, store: StoreId, frontier: Slot, message: &PeerMessage) -> Check {
        let slot = match message {
            PeerMessage::Proposal { slot, .. } | PeerMessage::State { slot, .. } | PeerMessage::Vote { slot, .. } => {
                *slot
            }
            PeerMessage::ReadIndexAnswer { .. } => {
                // A former store goes on as long as it is let.
                let knows_all = self.replaced_in(store).is_none_or(|slot| frontier + 1 >= slot + self.window);
                let known = store == self.first[node.index()] || self.replaced_in(store).is_some();
                return check(knows_all && known, PROPERTY, || {
                    format!("store {store} of node {node} knows the log up to slot {frontier} and says {message:?}")
                });
            }
            _ => return Ok(()),
        };
        let speaker = self.speaker(node, slot);
        check(speaker == store, PROPERTY, || {
            format!("store {speaker} speaks for node {node} in slot {slot}, and {store} says {message:?}")
        })
    }
}
