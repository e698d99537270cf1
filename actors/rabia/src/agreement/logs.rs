//! Comparing logs with those of others, and getting from them what this node lacks.

use std::time::Duration;

use rabia_bank_messages::ids::{Digest, NodeId, Slot as SlotNumber};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::{Entry, PeerMessage};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::Agreement;
use super::catch_up::CatchUp;
use crate::forks::{Compared, Step};
use crate::words::Effect;

impl Agreement {
    // ----- forks -----

    pub(super) fn look_at_forks(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for step in self.forks.look(now, self.slots.frontier()) {
            match step {
                Step::Doubt(begins) => effects.push(Effect::Doubt(begins)),
                Step::Ask(slot) => {
                    // The others have to know this node's, too.
                    let own = self.slots.hashes().of(slot).map(|hash| PeerMessage::LogHash { slot, hash });
                    effects.extend(own.into_iter().chain([PeerMessage::GetHash { slot }]).map(Effect::Broadcast));
                }
                Step::Split { what, certain } => effects.push(Effect::Split { what, certain }),
            }
        }
    }

    /// A peer says what its log is.
    pub(super) fn has_log(
        &mut self,
        now: Duration,
        from: NodeId,
        slot: SlotNumber,
        hash: Digest,
        effects: &mut Vec<Effect>,
    ) {
        if !self.members.is_member(from) {
            return;
        }
        match self.forks.says(from, slot, hash, self.slots.frontier(), self.slots.hashes()) {
            Compared::Unknown => effects.push(Effect::LookUp(slot)),
            // It can be compared where both are.
            Compared::Later if !self.forks.agrees(from) => {
                effects.push(Effect::Send(from, PeerMessage::GetHash { slot: self.frontier() }));
            }
            Compared::Later | Compared::Same | Compared::Other => {}
        }
        self.look_at_forks(now, effects);
        let multiple = self.slots.hashes().multiple();
        let confirmed = multiple.is_none_or(|(multiple, _)| self.forks.same(from) >= multiple);
        if let Some(log_from) = self.catching_up.snapshot(from).filter(|_| confirmed) {
            self.compacted(from, log_from, effects);
        }
    }

    /// A peer asks for the hash of the log up to a slot.
    pub(super) fn send_hash(&self, to: NodeId, slot: SlotNumber, effects: &mut Vec<Effect>) {
        match self.slots.hashes().of(slot) {
            Some(hash) => effects.push(Effect::Send(to, PeerMessage::LogHash { slot, hash })),
            None if slot < self.frontier() => effects.push(Effect::SendHash { to, slot }),
            None => {}
        }
    }

    /// Whether decided slots that a peer sends go on from this node's log.
    pub(super) fn follows(
        &mut self,
        now: Duration,
        from: NodeId,
        before: Digest,
        entries: &[Entry],
        effects: &mut Vec<Effect>,
    ) -> bool {
        let (first, frontier) = (entries.first().map_or(0, |entry| entry.slot), self.frontier());
        let Some(mut slot) = first.checked_sub(1).filter(|slot| *slot <= frontier) else { return false };
        let mut hash = before;
        let mut follows = self.has_same_log(from, slot, hash);
        for entry in entries {
            if !follows || entry.slot > frontier || entry.slot != slot + 1 {
                break;
            }
            slot = entry.slot;
            hash = log_hash(hash, slot, &entry.batch.as_ref().map(|(id, _)| *id));
            follows = self.has_same_log(from, slot, hash);
        }
        self.look_at_forks(now, effects);
        follows
    }

    /// Whether the hash of a peer's log is this node's. Of a store that is not the peer's, nothing is remembered.
    fn has_same_log(&mut self, from: NodeId, slot: SlotNumber, hash: Digest) -> bool {
        let hashes = self.slots.hashes();
        if self.members.is_member(from) {
            self.forks.says(from, slot, hash, self.slots.frontier(), hashes) == Compared::Same
        } else {
            hashes.of(slot) == Some(hash)
        }
    }

    /// A peer has the log from this slot on only. Before its snapshot takes the place of this node's log, it must have been one with
    /// it at the last multiple that both keep.
    pub(super) fn compacted(&mut self, from: NodeId, log_from: SlotNumber, effects: &mut Vec<Effect>) {
        self.catching_up.forget_snapshot(from);
        // A new store may know nobody as a member yet.
        if log_from <= self.frontier() + 1 || !self.learns_from(from) {
            return;
        }
        match self.slots.hashes().multiple() {
            Some((slot, _)) if self.forks.same(from) < slot && !is_broken(Rule::SnapshotHistory) => {
                self.catching_up.note_snapshot(from, log_from);
                effects.push(Effect::Send(from, PeerMessage::GetHash { slot }));
            }
            _ => effects.push(Effect::GetSnapshot { from, log_from }),
        }
    }

    // ----- catching up -----

    /// Asks for decided slots where a peer knows more and agreement alone does not bring them.
    pub(super) fn catch_up(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let (frontier, window) = (self.frontier(), self.setting.window);
        let known = self.links.heard(&self.forks).map(|peer| self.catching_up.known(peer));
        let furthest = known.max().unwrap_or(0);
        if !CatchUp::is_needed(now, furthest, frontier, window, self.slots.progressed())
            || self.catching_up.is_waiting(now, |peer| self.links.is_up(peer))
        {
            return;
        }
        let knows_more = |peer: &NodeId| self.catching_up.known(*peer) > frontier && self.learns_from(*peer);
        let ahead: Vec<_> = self.links.heard(&self.forks).filter(knows_more).collect();
        if let Some(peer) = self.catching_up.whom_to_ask(&ahead) {
            self.catching_up.ask(now, peer, frontier, effects);
        }
    }

    /// Decided slots, in order. The payloads are held whatever they are.
    pub(super) fn entries(
        &mut self,
        now: Duration,
        from: NodeId,
        entries: Vec<Entry>,
        decided: SlotNumber,
        effects: &mut Vec<Effect>,
    ) {
        self.catching_up.knows(from, decided);
        let useful = entries.iter().any(|entry| entry.slot > self.frontier());
        let asked = self.catching_up.is_asked(from);
        if useful {
            self.catching_up.is_answered(from);
        }
        for Entry { slot, batch } in entries {
            let value = batch.as_ref().map(|(id, _)| *id);
            if self.slots.contradicts(slot, value) {
                return self.refuse_decision(from, slot, value, effects);
            }
            if let Some((id, payload)) = batch
                && self.slots.is_ahead(slot)
                && !self.payloads.holds(&id)
            {
                if !payload.matches(&id) {
                    return self.refuse(from, format!("it sent another payload than that of batch {id}"), effects);
                }
                self.hold(now, id, payload, effects);
            }
            self.adopt(now, slot, value, effects);
        }
        if useful && asked && self.catching_up.known(from) > self.frontier() {
            self.catching_up.ask(now, from, self.frontier(), effects);
        }
    }
}
