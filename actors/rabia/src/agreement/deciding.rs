//! From a proposal to a delivered slot: what slots want done, decisions, and the window that moves with them.

use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::genesis::{Replacement, Replacements};
use rabia_bank_messages::ids::{BatchId, Digest, Slot as SlotNumber};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_messages::promise::{Commit, Record};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::Agreement;
use super::durable::{Saving, Wanted};
use super::slots::peer_message;
use super::view;
use crate::slot::{SlotEffect, Stage};
use crate::words::{Effect, Notice};

impl Agreement {
    // ----- in agreement -----

    pub(super) fn propose(
        &mut self,
        now: Duration,
        slot: SlotNumber,
        value: Value,
        with_payload: bool,
        effects: &mut Vec<Effect>,
    ) {
        if slot <= self.frontier() || slot > self.slots.reach() || !self.members.speaks().contains(&slot) {
            return;
        }
        if slot >= self.durable.reserved() && !is_broken(Rule::Reserve) {
            self.durable.want(Wanted { slot, value, with_payload });
            return self.reserve_ahead(effects);
        }
        let payload = value.and_then(|id| self.payloads.get(&id)).cloned();
        // Rule 2. The pool proposes what is held; where that went meanwhile, the slot is given up.
        let value = value.filter(|_| payload.is_some());
        let coin = self.slots.coin(slot);
        let open = self.slots.open(slot);
        if !open.is_silent() {
            return;
        }
        let mut out = Vec::new();
        open.propose(value, coin, &mut out);
        let payload = payload.filter(|_| with_payload);
        self.perform(now, slot, out, payload, effects);
    }

    /// Goes as far in a slot as the messages that count allow.
    pub(super) fn advance(&mut self, now: Duration, slot: SlotNumber, effects: &mut Vec<Effect>) {
        if slot > self.slots.reach() {
            return;
        }
        let coin = self.slots.coin(slot);
        let Some(open) = self.slots.get_mut(slot) else { return };
        let mut out = Vec::new();
        open.advance(coin, &mut out);
        self.perform(now, slot, out, None, effects);
    }

    /// What a slot waited for is durable.
    pub(super) fn slot_saved(&mut self, now: Duration, slot: SlotNumber, effects: &mut Vec<Effect>) {
        let coin = self.slots.coin(slot);
        let Some(open) = self.slots.get_mut(slot) else { return };
        if let Stage::SavingVote(..) = open.stage() {
            self.reads.note_vote(slot);
        }
        let mut out = Vec::new();
        open.saved(coin, &mut out);
        self.perform(now, slot, out, None, effects);
    }

    fn perform(
        &mut self,
        now: Duration,
        slot: SlotNumber,
        out: Vec<SlotEffect>,
        mut payload: Option<Payload>,
        effects: &mut Vec<Effect>,
    ) {
        for effect in out {
            match effect {
                SlotEffect::Say(message) => {
                    let (reserved, speaks) = (self.durable.reserved(), self.members.speaks());
                    assert!(
                        slot < reserved || is_broken(Rule::Reserve),
                        "speaking in slot {slot} at or above the mark {reserved}"
                    );
                    assert!(
                        speaks.contains(&slot) || is_broken(Rule::NewStoreByLog),
                        "speaking in slot {slot}, this store is silent but in {speaks:?}"
                    );
                    effects.push(Effect::Broadcast(peer_message(slot, message, payload.take())));
                }
                SlotEffect::Save(phase, said) => {
                    let mut commit = Commit { records: vec![Record { slot, phase, said }], ..Commit::default() };
                    if let Some(id) = said.batch()
                        && !is_broken(Rule::PayloadDurable)
                    {
                        self.payloads.put(id, &mut commit);
                    }
                    self.save(commit, Some(Saving::Slot(slot)), effects);
                }
                SlotEffect::Decide(value, phase) => {
                    self.counters.phases[(phase as usize - 1).min(3)] += 1;
                    effects.push(Effect::Broadcast(PeerMessage::Decide { slot, value }));
                    self.decided(now, slot, value, effects);
                }
            }
        }
    }

    /// Rule 11, for slots that have come into the window.
    fn say_unsaid(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while let Some(slot) = self.slots.pop_unsaid() {
            self.say_again(slot, None, effects);
            self.advance(now, slot, effects);
        }
    }

    // ----- decided -----

    /// Takes a decision that contradicts none that is known here.
    pub(super) fn adopt(&mut self, now: Duration, slot: SlotNumber, value: Value, effects: &mut Vec<Effect>) {
        if !self.slots.is_ahead(slot) {
            return;
        }
        let open = self.slots.open(slot);
        if let Stage::Decided(_) = open.stage() {
            return;
        }
        open.adopt(value);
        self.decided(now, slot, value, effects);
    }

    fn decided(&mut self, now: Duration, slot: SlotNumber, value: Value, effects: &mut Vec<Effect>) {
        self.reads.note_decided(slot);
        self.slots.note_decided(now, slot, value);
        effects.push(Effect::Pool(Notice::Decided(slot, value)));
        if let Some(id) = value
            && !self.payloads.holds(&id)
        {
            self.fetch(now, id, None, effects);
        }
        self.move_window(now, effects);
    }

    /// Delivers what is decided in order, and speaks where the window has come to.
    pub(super) fn move_window(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let (before, first) = (self.frontier(), effects.len());
        while let Some(value) = self.slots.next_decision() {
            let batch = match value.map(|id| (id, self.payloads.get(&id).cloned())) {
                None => None,
                Some((id, Some(payload))) => Some((id, payload)),
                Some((id, None)) => {
                    self.fetch(now, id, None, effects);
                    break;
                }
            };
            self.deliver(now, value, batch, effects);
        }
        if is_broken(Rule::InOrder) {
            effects[first..].reverse();
        }
        if self.frontier() > before {
            effects.push(Effect::Pool(Notice::Frontier(self.frontier())));
            for slot in self.slots.entered_since(before) {
                self.advance(now, slot, effects);
            }
        }
        self.say_unsaid(now, effects);
        self.reads.release(now, &view(&self.slots, &self.members), effects);
    }

    fn deliver(&mut self, now: Duration, value: Value, batch: Option<(BatchId, Payload)>, effects: &mut Vec<Effect>) {
        let slot = self.slots.step(now, value);
        if self.forks.advance(slot, self.slots.hashes()) {
            self.look_at_forks(now, effects);
        }
        self.durable.note_decided(now, slot, value);
        if let Some(id) = value {
            self.payloads.let_go_after(slot, id);
        }
        // One that can't be decoded stops the ledger.
        let replacement = batch.as_ref().and_then(|(_, payload)| payload.replacement().ok().flatten());
        effects.push(Effect::Deliver(slot, batch));
        if let Some((node, store)) = replacement {
            self.replaced(Replacement { slot, node, store }, effects);
        }
        // What is not on its way to the disk yet is kept.
        let unwritten = self.durable.first_unwritten().unwrap_or(slot);
        let keep = unwritten.min(slot.saturating_sub(2 * self.setting.window));
        self.payloads.let_go(keep, slot, |id| self.slots.rests_on(id));
    }

    /// Rule 10: goes on behind a snapshot. Only what lies at or below it is forgotten.
    pub(super) fn installed(
        &mut self,
        now: Duration,
        (slot, hash): (SlotNumber, Digest),
        decisions: Vec<(SlotNumber, Value)>,
        replacements: &Replacements,
        effects: &mut Vec<Effect>,
    ) {
        self.slots.skip_to(now, slot, hash);
        self.durable.skip_to(slot);
        self.reads.note_decided(slot);
        self.catching_up.installed();
        // Payloads of batches that were decided in other slots that were skipped go when they are decided again.
        decisions.iter().filter_map(|(_, value)| *value).for_each(|id| self.payloads.let_go_after(slot, id));
        let told = if is_broken(Rule::InstalledTold) { Vec::new() } else { decisions };
        effects.push(Effect::Pool(Notice::Installed(slot, told)));
        for replacement in replacements.list() {
            self.replaced(*replacement, effects);
        }
        self.save(Commit { installed: Some((slot, hash)), ..Commit::default() }, None, effects);
        let entered: Vec<_> = self.slots.in_window().collect();
        for slot in entered {
            self.advance(now, slot, effects);
        }
        self.move_window(now, effects);
    }
}
