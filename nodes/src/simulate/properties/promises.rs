//! Promises: votes and States of phases ≥ 2 are durable before they are sent, and stay so until their slot's decision is;
//! nothing is said at or above the durable mark, nor beyond the window; and a node says one thing per slot, phase and kind:
//! votes and States ≥ 2 for ever, Proposals and first States in one run.
//!
//! Source: PROTOCOL.md, rules 1, 2, 4, 5, 7, 10 and "Slots together".

use std::collections::{BTreeMap, BTreeSet};

use rabia_bank_messages::ids::{NodeId, Phase, Slot};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_storage::{Commit, Record, Recovered, Said};

use super::{Check, check};

/// What is known to be durable at one node, kept beside its store.
#[derive(Debug, Default)]
struct Durable {
    reserved: Slot,
    records: BTreeMap<(Slot, Phase, bool), Said>,
    decisions: BTreeSet<Slot>,
}

impl Durable {
    fn has(&self, slot: Slot, phase: Phase, said: &Said) -> bool {
        let key = (slot, phase, matches!(said, Said::Vote(_)));
        self.decisions.contains(&slot) || self.records.get(&key) == Some(said)
    }
}

/// What all nodes promised and said.
#[derive(Debug, Default)]
pub(in crate::simulate) struct Promises {
    durable: BTreeMap<NodeId, Durable>,
    /// By node, run (0 for what holds in all runs), slot, phase and kind.
    said: BTreeMap<(NodeId, u64, Slot, Phase, u8), PeerMessage>,
}

impl Promises {
    /// A store reported this commit as durable.
    pub(in crate::simulate) fn committed(&mut self, node: NodeId, commit: &Commit) {
        let durable = self.durable.entry(node).or_default();
        durable.reserved = durable.reserved.max(commit.reserved.unwrap_or(0));
        for Record { slot, phase, said } in &commit.records {
            durable.records.insert((*slot, *phase, matches!(said, Said::Vote(_))), *said);
        }
        for (slot, _) in &commit.decisions {
            durable.decisions.insert(*slot);
        }
        durable.records.retain(|(slot, ..), _| !durable.decisions.contains(slot));
    }

    /// A store was opened, and remembers this.
    pub(in crate::simulate) fn recovered(&mut self, node: NodeId, recovered: &Recovered) -> Check {
        let old = self.durable.entry(node).or_default();
        let mut new = Durable { reserved: recovered.reserved, ..Durable::default() };
        new.decisions.extend(1..=recovered.decided);
        new.decisions.extend(recovered.sparse.iter().map(|(slot, _)| *slot));
        for Record { slot, phase, said } in &recovered.records {
            new.records.insert((*slot, *phase, matches!(said, Said::Vote(_))), *said);
        }
        let forgotten = |what: String| format!("node {node} forgot over a restart what was durable: {what}");
        check(new.reserved >= old.reserved, "durability", || forgotten(format!("the mark {}", old.reserved)))?;
        let slot = old.decisions.difference(&new.decisions).next();
        check(slot.is_none(), "durability", || forgotten(format!("the decision of slot {slot:?}")))?;
        let lost = old.records.iter().find(|((slot, phase, _), said)| !new.has(*slot, *phase, said));
        check(lost.is_none(), "durability", || forgotten(format!("{lost:?}")))?;
        *old = new;
        Ok(())
    }

    /// A node whose log ends at `frontier` says this to others.
    pub(in crate::simulate) fn says(
        &mut self,
        node: NodeId,
        run: u64,
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
        let durable = self.durable.entry(node).or_default();
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
