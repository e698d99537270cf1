//! What peers say, and what a node believes of it.
//!
//! - Numbers that can't be are refused, and the link with them ([`PeerMessage::check`]).
//! - Only a store that speaks for its member by this node's own log is heard. Any other that the handshake let in may ask for
//!   what is decided, and is told nothing else. A node that is linked to nobody whom it knows for some seconds learns what is
//!   decided from a stranger all the same, and says so: the stores of the others may have been replaced while it was away or
//!   had none, and then there is nobody else whom it could ask.
//! - A payload of a batch that waits is held only if all of it can be applied, and comes from its origin, was asked for, or
//!   comes with a proposal that counts. What is decided is held whatever it is: digest and decision name it.
//! - What is decided here stays. Who says that a slot was decided on something else is refused.

use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot as SlotNumber};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::payloads::Holding;
use super::slots::{Late, Taken};
use super::{Agreement, view};
use crate::slot::SlotMessage;
use crate::words::{Effect, Notice};

/// An answer to a read round that names a slot so far beyond what this node knows decided is not counted: its reads would wait
/// until that slot is applied here. The round asks again until then.
pub const READ_AHEAD: u64 = 1_000_000;

impl Agreement {
    /// Whether the message is for this node to act upon. Where it shows that the peer says what can't be, the link is refused.
    /// [`Agreement::handle`] asks this by itself; who acts on messages that are not the core's business asks first.
    pub fn takes(&mut self, from: NodeId, message: &PeerMessage, effects: &mut Vec<Effect>) -> bool {
        if let Err(why) = message.check()
            && !is_broken(Rule::NumbersChecked)
        {
            self.refuse(from, format!("it says what can't be: {why}"), effects);
            return false;
        }
        let taken = match message {
            PeerMessage::CatchUp { .. } | PeerMessage::Fetch { .. } | PeerMessage::GetSnapshot { .. } => true,
            PeerMessage::Entries { .. }
            | PeerMessage::Alive { .. }
            | PeerMessage::Compacted { .. }
            | PeerMessage::SnapshotRows { .. } => self.learns_from(from),
            PeerMessage::ReadIndexAnswer { slot, .. } => {
                self.is_in_force(from) && *slot <= self.frontier() + READ_AHEAD
            }
            _ => self.is_in_force(from),
        };
        if !taken {
            self.counters.not_taken += 1;
        }
        taken
    }

    pub(super) fn refuse(&mut self, peer: NodeId, why: String, effects: &mut Vec<Effect>) {
        self.counters.refused += 1;
        effects.push(Effect::Refuse(peer, why));
    }

    pub(super) fn receive(&mut self, now: Duration, from: NodeId, message: PeerMessage, effects: &mut Vec<Effect>) {
        if !self.takes(from, &message, effects) {
            return;
        }
        // Of a member whose log is another one only requests are taken, and what it says of its log.
        if self.forks.differs(from) && !is_broken(Rule::ForkedIsIgnored) && !is_about_logs(&message) {
            return;
        }
        match message {
            PeerMessage::Proposal { slot, value, payload } => self.proposal(now, from, slot, value, payload, effects),
            PeerMessage::State { slot, phase, state } => {
                self.slot_message(now, from, slot, SlotMessage::State(phase, state), effects);
            }
            PeerMessage::Vote { slot, phase, vote } => {
                self.slot_message(now, from, slot, SlotMessage::Vote(phase, vote), effects);
            }
            PeerMessage::Decide { slot, value } => self.decision(now, from, slot, value, effects),
            PeerMessage::Batch { id, payload } => self.batch(now, from, id, payload, effects),
            PeerMessage::Fetch { id } => self.fetched(from, id, effects),
            PeerMessage::ReadIndex { starts, round } => {
                if self.answers_reads() {
                    let slot = self.reads.index();
                    effects.push(Effect::Send(from, PeerMessage::ReadIndexAnswer { starts, round, slot }));
                }
            }
            PeerMessage::ReadIndexAnswer { starts, round, slot } => {
                let (answer, view) = ((from, self.members.linked(from), slot), view(&self.slots, &self.members));
                self.reads.answer(now, answer, (starts, round), &view, effects);
            }
            PeerMessage::CatchUp { from: slot } if slot > self.frontier() => {
                let (before, entries, decided) = (Digest::ZERO, Vec::new(), self.frontier());
                effects.push(Effect::Send(from, PeerMessage::Entries { before, entries, decided }));
            }
            PeerMessage::CatchUp { from: slot } => effects.push(Effect::SendEntries { to: from, from: slot }),
            PeerMessage::Entries { before, entries, decided } => {
                if entries.is_empty() || self.follows(now, from, before, &entries, effects) {
                    self.entries(now, from, entries, decided, effects);
                }
            }
            PeerMessage::Alive { decided, hash, durable } => {
                self.members.says_durable(from, durable.min(decided));
                self.has_log(now, from, decided, hash, effects);
                self.catching_up.says(from, decided);
                self.catch_up(now, effects);
            }
            PeerMessage::LogHash { slot, hash } => self.has_log(now, from, slot, hash, effects),
            PeerMessage::GetHash { slot } => self.send_hash(from, slot, effects),
            PeerMessage::StateDigest { slot, digest } => {
                if self.members.is_member(from) {
                    self.forks.digest(from, slot, digest);
                    self.look_at_forks(now, effects);
                }
            }
            PeerMessage::Compacted { log_from } => self.compacted(from, log_from, effects),
            PeerMessage::Promised { count, proof } => {
                self.durable.lineage_mut().hear(from, self.members.linked(from), count, proof);
            }
            PeerMessage::Clock { wall, confirmed, refuses } => {
                effects.push(Effect::Pool(Notice::Clock { peer: from, wall, confirmed, refuses }));
            }
            // The snapshotter's business.
            PeerMessage::GetSnapshot { .. } | PeerMessage::SnapshotRows { .. } => {}
        }
    }

    // ----- agreement -----

    fn proposal(
        &mut self,
        now: Duration,
        from: NodeId,
        slot: SlotNumber,
        value: Value,
        payload: Option<Payload>,
        effects: &mut Vec<Effect>,
    ) {
        let held = match (value, payload) {
            (Some(id), Some(payload)) if self.slots.is_ahead(slot) => {
                self.hold_waiting(now, from, id, payload, effects).then_some(id)
            }
            _ => None,
        };
        self.slot_message(now, from, slot, SlotMessage::Proposal(value), effects);
        // One that does not count is not followed, so nobody would ever let go of its payload.
        if let Some(id) = held
            && self.slots.get(slot).is_none_or(|open| open.proposal(from) != Some(value))
        {
            self.drop_payload(id);
        }
    }

    fn slot_message(
        &mut self,
        now: Duration,
        from: NodeId,
        slot: SlotNumber,
        message: SlotMessage,
        effects: &mut Vec<Effect>,
    ) {
        // Nobody speaks in a slot before it knows all decisions a window below.
        self.catching_up.knows(from, slot.saturating_sub(self.setting.window));
        if slot == 0 || slot > self.slots.horizon() {
            return self.catch_up(now, effects);
        }
        if self.slots.is_decided(slot) {
            return self.answer_late(now, from, slot, effects);
        }
        if !self.members.counts(from, slot, self.slots.window_end()) {
            return;
        }
        let payload = message.names().and_then(|id| self.payloads.get(id)).cloned();
        let held = payload.is_some() || is_broken(Rule::PayloadHeld);
        match (self.slots.receive(from, slot, message, held), message) {
            (Taken::Dropped, _) => return,
            (Taken::Spoken, _) => {}
            // What does not count is not followed, and its payload is not kept.
            (Taken::Silent { is_proposal: true }, SlotMessage::Proposal(value)) => {
                effects.push(Effect::Pool(Notice::Heard { slot, from, value, payload }));
            }
            (Taken::Silent { .. }, _) => effects.push(Effect::Pool(Notice::InUse(slot, from))),
        }
        if let (Some(id), false) = (message.names(), held) {
            self.fetch(now, *id, Some(from), effects);
        }
        self.advance(now, slot, effects);
        if slot > self.slots.window_end() {
            self.catch_up(now, effects);
        }
    }

    /// Rule 8: whoever still speaks in a decided slot is told the decision.
    fn answer_late(&self, now: Duration, from: NodeId, slot: SlotNumber, effects: &mut Vec<Effect>) {
        if is_broken(Rule::LateAnswered) {
            return;
        }
        let answer = match self.slots.late(now, slot) {
            Late::Crossed => return,
            Late::Decided(value) => PeerMessage::Decide { slot, value },
            // The peer will catch up from the log.
            Late::Forgotten => self.alive(),
        };
        effects.push(Effect::Send(from, answer));
    }

    fn decision(&mut self, now: Duration, from: NodeId, slot: SlotNumber, value: Value, effects: &mut Vec<Effect>) {
        self.catching_up.knows(from, slot.saturating_sub(self.setting.window));
        if self.slots.contradicts(slot, value) {
            return self.refuse_decision(from, slot, value, effects);
        }
        self.adopt(now, slot, value, effects);
    }

    pub(super) fn refuse_decision(&mut self, from: NodeId, slot: SlotNumber, value: Value, effects: &mut Vec<Effect>) {
        assert!(!is_broken(Rule::DecisionsStay), "slot {slot} was decided twice");
        let said = value.map_or("nothing".into(), |id| format!("batch {id}"));
        self.refuse(from, format!("it says that slot {slot} was decided on {said}, which it was not here"), effects);
    }

    // ----- payloads -----

    /// A batch comes by itself. It is taken if its origin sends it, or it was asked for.
    fn batch(&mut self, now: Duration, from: NodeId, id: BatchId, payload: Payload, effects: &mut Vec<Effect>) {
        let may_send = id.origin == from || self.payloads.is_asked_for(&id);
        if may_send && self.hold_waiting(now, from, id, payload.clone(), effects) {
            effects.push(Effect::Pool(Notice::Arrived(id, payload)));
        }
    }

    /// A peer asks for a payload.
    fn fetched(&self, from: NodeId, id: BatchId, effects: &mut Vec<Effect>) {
        match self.payloads.get(&id) {
            // Who is not in force gets what is decided.
            Some(payload) if self.payloads.is_leaving(&id) || self.is_in_force(from) => {
                effects.push(Effect::Send(from, PeerMessage::Batch { id, payload: payload.clone() }));
            }
            Some(_) => {}
            None => effects.push(Effect::SendStored { to: from, id }),
        }
    }

    /// Takes the payload of a batch that waits. False if it is not taken, or was held.
    fn hold_waiting(
        &mut self,
        now: Duration,
        from: NodeId,
        id: BatchId,
        payload: Payload,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.payloads.holds(&id) {
            return false;
        }
        if !payload.matches(&id) && !is_broken(Rule::PayloadDigest) {
            self.counters.bad_payloads += 1;
            return false;
        }
        if let Err(why) = (self.check)(&payload)
            && !self.slots.is_undelivered(&id)
            && !is_broken(Rule::PayloadChecked)
        {
            self.counters.bad_payloads += 1;
            self.payloads.refuse(id);
            effects.push(Effect::Warn(from, format!("it sent batch {id}, which can't be applied: {why}")));
            return false;
        }
        self.hold(now, id, payload, effects)
    }

    /// Takes a payload. False if it was held.
    pub(super) fn hold(&mut self, now: Duration, id: BatchId, payload: Payload, effects: &mut Vec<Effect>) -> bool {
        match self.payloads.hold(id, payload) {
            Holding::Known => return false,
            Holding::New => {}
            Holding::Awaited => {
                for slot in self.slots.waiting_for(&id) {
                    self.count_parked(now, slot, &id, effects);
                }
                self.move_window(now, effects);
            }
        }
        true
    }

    fn count_parked(&mut self, now: Duration, slot: SlotNumber, id: &BatchId, effects: &mut Vec<Effect>) {
        let Some(open) = self.slots.get_mut(slot) else { return };
        let proposers = open.hold(id);
        if open.is_silent() {
            let payload = self.payloads.get(id);
            for from in proposers {
                let heard = Notice::Heard { slot, from, value: Some(*id), payload: payload.cloned() };
                effects.push(Effect::Pool(heard));
            }
        }
        self.advance(now, slot, effects);
    }

    /// Rule 6: asks for a payload, at once and then again, every peer in turn.
    pub(super) fn fetch(&mut self, now: Duration, id: BatchId, from: Option<NodeId>, effects: &mut Vec<Effect>) {
        if self.payloads.is_refused(&id) && !self.slots.is_undelivered(&id) {
            return;
        }
        let Some(tries) = self.payloads.ask(now, id) else { return };
        let peers: Vec<_> = self.links.heard(&self.forks).filter(|peer| self.is_in_force(*peer)).collect();
        let peer = from.or_else(|| peers.get(tries % peers.len().max(1)).copied());
        effects.extend(peer.map(|peer| Effect::Send(peer, PeerMessage::Fetch { id })));
    }

    /// Lets go of a payload that no slot needs.
    pub(super) fn drop_payload(&mut self, id: BatchId) {
        if self.durable.names(&id) || self.slots.is_of_use(&id) {
            self.payloads.let_go_after(self.frontier(), id);
        } else {
            self.payloads.remove(&id);
        }
    }
}

/// Requests, and what a member says of its log and state.
fn is_about_logs(message: &PeerMessage) -> bool {
    matches!(
        message,
        PeerMessage::Alive { .. }
            | PeerMessage::LogHash { .. }
            | PeerMessage::GetHash { .. }
            | PeerMessage::StateDigest { .. }
            | PeerMessage::CatchUp { .. }
            | PeerMessage::Fetch { .. }
    )
}
