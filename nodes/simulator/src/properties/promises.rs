//! Promises: votes and States of phases ≥ 2 are durable before they are sent, and stay so until their slot's decision is;
//! nothing is said at or above the durable mark, nor beyond the window; and a node says one thing per slot, phase and kind:
//! votes and States ≥ 2 for ever, Proposals and first States in one run. In a slot in which it may have spoken in a former
//! run it proposes null and abstains.
//!
//! Source: PROTOCOL.md, rules 1 to 5, 7, 10 and "Slots together".

use std::collections::{BTreeMap, BTreeSet};

use rabia_bank_messages::ids::{NodeId, Phase, Slot, StoreId};
use rabia_bank_messages::peer::{PeerMessage, State};
use rabia_bank_messages::promise::{Commit, Record, Recovered, Said};

use super::{Check, check};

/// What is known to be durable in one store, kept beside it.
#[derive(Debug, Default)]
struct Durable {
    reserved: Slot,
    records: BTreeMap<(Slot, Phase, bool), Said>,
    /// All slots up to this one are decided or covered by the books …
    base: Slot,
    /// … and of those above it, these are decided.
    decisions: BTreeSet<Slot>,
    /// Below this one the node may have spoken in a former run.
    tainted: Slot,
}

impl Durable {
    fn has(&self, slot: Slot, phase: Phase, said: &Said) -> bool {
        let key = (slot, phase, matches!(said, Said::Vote(_)));
        self.is_decided(slot) || self.records.get(&key) == Some(said)
    }

    fn is_decided(&self, slot: Slot) -> bool {
        slot <= self.base || self.decisions.contains(&slot)
    }

    fn settle(&mut self) {
        while self.decisions.remove(&(self.base + 1)) {
            self.base += 1;
        }
        let base = self.base;
        self.decisions.retain(|slot| *slot > base);
        self.records.retain(|(slot, ..), _| *slot > base && !self.decisions.contains(slot));
    }
}

/// What all nodes promised and said.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    durable: BTreeMap<StoreId, Durable>,
    /// By node, run (0 for what holds in all runs), slot, phase and kind.
    said: BTreeMap<(NodeId, u64, Slot, Phase, u8), PeerMessage>,
}

impl Promises {
    /// A store reported this commit as durable.
    pub(crate) fn committed(&mut self, store: StoreId, commit: &Commit) {
        let durable = self.durable.entry(store).or_default();
        durable.reserved = durable.reserved.max(commit.reserved.unwrap_or(0));
        for Record { slot, phase, said } in &commit.records {
            durable.records.insert((*slot, *phase, matches!(said, Said::Vote(_))), *said);
        }
        for (slot, _) in &commit.decisions {
            durable.decisions.insert(*slot);
        }
        durable.base = durable.base.max(commit.installed.map_or(0, |(slot, _)| slot));
        durable.settle();
    }

    /// Up to which slot a store has all decisions, or books that cover them.
    pub(crate) fn durable(&self, store: StoreId) -> Slot {
        self.durable.get(&store).map_or(0, |durable| durable.base)
    }

    /// Another disk has this store: it may remember other things.
    pub(crate) fn moved(&mut self, store: StoreId) {
        self.durable.remove(&store);
    }

    /// A store was opened, and remembers this.
    pub(crate) fn recovered(&mut self, node: NodeId, recovered: &Recovered) -> Check {
        let old = self.durable.entry(recovered.store).or_default();
        let Recovered { reserved, decided, .. } = *recovered;
        let mut new = Durable { reserved, base: decided, tainted: reserved, ..Durable::default() };
        new.decisions.extend(recovered.sparse.iter().map(|(slot, _)| *slot));
        for Record { slot, phase, said } in &recovered.records {
            new.records.insert((*slot, *phase, matches!(said, Said::Vote(_))), *said);
        }
        let forgotten = |what: String| format!("node {node} forgot over a restart what was durable: {what}");
        check(new.reserved >= old.reserved, "durability", || forgotten(format!("the mark {}", old.reserved)))?;
        check(new.base >= old.base, "durability", || forgotten(format!("the log up to slot {}", old.base)))?;
        let slot = old.decisions.iter().find(|slot| !new.is_decided(**slot));
        check(slot.is_none(), "durability", || forgotten(format!("the decision of slot {slot:?}")))?;
        let lost = old.records.iter().find(|((slot, phase, _), said)| !new.has(*slot, *phase, said));
        check(lost.is_none(), "durability", || forgotten(format!("{lost:?}")))?;
        *old = new;
        Ok(())
    }

    /// A node whose log ends at `frontier` says this to others.
    pub(crate) fn says(
        &mut self,
        (node, store, run): (NodeId, StoreId, u64),
        frontier: Slot,
        window: u64,
        message: &PeerMessage,
    ) -> Check {
        let (slot, phase, kind, said) = match message {
            PeerMessage::Proposal { slot, .. } => (*slot, 0, 0, None),
            PeerMessage::State { slot, phase: 1, .. } => (*slot, 1, 1, None),
            PeerMessage::State { slot, phase, state } => (*slot, *phase, 1, Some(Said::State(*state))),
            PeerMessage::Vote { slot, phase, vote } => (*slot, *phase, 2, Some(Said::Vote(*vote))),
            _ => return Ok(()),
        };
        let durable = self.durable.entry(store).or_default();
        // What is said of a slot that is decided binds nobody.
        let tainted = slot < durable.tainted && !durable.is_decided(slot);
        let abstains = match message {
            PeerMessage::Proposal { value, .. } => !tainted || value.is_none(),
            PeerMessage::State { phase: 1, state, .. } => tainted == (*state == State::Abstain),
            _ => true,
        };
        check(abstains || durable.is_decided(slot), "tainted slots", || {
            format!("the mark of node {node} was {} when it started, and it says {message:?}", durable.tainted)
        })?;
        check(slot < durable.reserved, "reserve", || {
            format!("node {node} speaks at or above its durable mark {}: {message:?}", durable.reserved)
        })?;
        check(slot <= frontier + window, "window", || {
            format!("node {node} knows the log to slot {frontier} and says {message:?}")
        })?;
        if let Some(said) = &said {
            check(durable.has(slot, phase, said), "durable before sent", || {
                format!("node {node} says what is not durable: {message:?}")
            })?;
        }
        let key = (node, if said.is_some() { 0 } else { run }, slot, phase, kind);
        let content = match message {
            PeerMessage::Proposal { slot, value, .. } => {
                PeerMessage::Proposal { slot: *slot, value: *value, payload: None }
            }
            other => other.clone(),
        };
        let before = self.said.entry(key).or_insert_with(|| content.clone());
        check(*before == content, "one message per sender", || {
            format!("node {node} said {before:?} and says {content:?}")
        })
    }
}
