//! Payloads of batches: which are in memory and for how long, and which are asked for.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Slot};
use rabia_bank_messages::promise::Commit;
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rustc_hash::FxHashMap;

/// A payload that was asked for is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Ids of batches whose payloads can't be applied, which are not asked for again.
const REFUSED: usize = 1_024;

/// A payload in memory.
#[derive(Clone, Debug)]
struct Held {
    payload: Payload,
    /// The slot of its decision, or when the pool had no more use for it; none as long as it has.
    last: Option<Slot>,
}

/// What became of a payload that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holding {
    /// It was held before.
    Known,
    /// It is held now, and nobody asked for it.
    New,
    /// It is held now, and slots may have waited for it.
    Awaited,
}

/// The payloads in memory, and those that are missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Payloads {
    held: FxHashMap<BatchId, Held>,
    /// Payloads that may go a while after these slots.
    leaving: VecDeque<(Slot, BatchId)>,
    /// When each missing payload was last asked for, and how often.
    asked: FxHashMap<BatchId, (Duration, usize)>,
    /// Batches whose payloads can't be applied, the newest last.
    refused: VecDeque<BatchId>,
}

impl Payloads {
    /// With what a store has.
    pub(super) fn new(stored: &[(BatchId, Payload)]) -> Payloads {
        let held = |(id, payload): &(BatchId, Payload)| (*id, Held { payload: payload.clone(), last: None });
        Payloads { held: stored.iter().map(held).collect(), ..Payloads::default() }
    }

    pub(super) fn get(&self, id: &BatchId) -> Option<&Payload> {
        self.held.get(id).map(|held| &held.payload)
    }

    pub(super) fn holds(&self, id: &BatchId) -> bool {
        self.held.contains_key(id)
    }

    /// How many are in memory.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether this payload is held for peers that are a little behind: the batch is decided, or the pool has no more use for it.
    pub(super) fn is_leaving(&self, id: &BatchId) -> bool {
        self.held.get(id).is_some_and(|held| held.last.is_some())
    }

    /// Takes a payload, for as long as it is of use.
    pub(super) fn hold(&mut self, id: BatchId, payload: Payload) -> Holding {
        if let Some(held) = self.held.get_mut(&id) {
            held.last = None;
            return Holding::Known;
        }
        self.held.insert(id, Held { payload, last: None });
        if self.asked.remove(&id).is_some() { Holding::Awaited } else { Holding::New }
    }

    /// Whatever names a batch is written with its payload. If that is on disk already it is not written again; whether it is
    /// only the log knows, which removes payloads with decisions.
    pub(super) fn put(&self, id: BatchId, commit: &mut Commit) {
        match self.held.get(&id) {
            Some(held) => commit.payloads.push((id, held.payload.clone())),
            None => assert!(is_broken(Rule::PayloadHeld), "the payload of {id} is gone before it was written"),
        }
    }

    // ----- letting go -----

    /// A payload may go from memory a while after this slot.
    pub(super) fn let_go_after(&mut self, slot: Slot, id: BatchId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.last = Some(slot);
            self.leaving.push_back((slot, id));
        }
    }

    /// Lets those go that may from a slot before `keep` on. One that a slot still rests on stays for a while after `frontier`: who does
    /// not know that its batch was decided may propose it again.
    pub(super) fn let_go(&mut self, keep: Slot, frontier: Slot, rests_on: impl Fn(&BatchId) -> bool) {
        while let Some((slot, id)) = self.leaving.pop_front_if(|(slot, _)| *slot < keep) {
            // One that was given up may have been decided after that, or come again.
            if self.held.get(&id).is_none_or(|held| held.last.is_none_or(|last| last > slot)) {
                continue;
            }
            if rests_on(&id) {
                self.let_go_after(frontier, id);
            } else {
                self.held.remove(&id);
            }
        }
    }

    /// Lets go of a payload at once.
    pub(super) fn remove(&mut self, id: &BatchId) {
        self.held.remove(id);
    }

    // ----- asking -----

    pub(super) fn is_asked_for(&self, id: &BatchId) -> bool {
        self.asked.contains_key(id)
    }

    /// Forgets that others than these were asked for.
    pub(super) fn ask_only_for(&mut self, missing: &BTreeSet<BatchId>) {
        self.asked.retain(|id, _| missing.contains(id));
    }

    /// Whether a missing payload is to be asked for now, and if so, how often that was done before.
    pub(super) fn ask(&mut self, now: Duration, id: BatchId) -> Option<usize> {
        let asked = self.asked.get(&id).copied();
        if asked.is_some_and(|(at, _)| now.saturating_sub(at) < ASK_AGAIN) {
            return None;
        }
        let tries = asked.map_or(0, |(_, tries)| tries);
        self.asked.insert(id, (now, tries + 1));
        Some(tries)
    }

    /// This payload can't be applied: it is asked for no more.
    pub(super) fn refuse(&mut self, id: BatchId) {
        self.asked.remove(&id);
        if !self.refused.contains(&id) {
            self.refused.push_back(id);
            if self.refused.len() > REFUSED {
                self.refused.pop_front();
            }
        }
    }

    pub(super) fn is_refused(&self, id: &BatchId) -> bool {
        self.refused.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::ids::{Digest, NodeId};

    use super::*;

    fn batch(sequence: u64) -> (BatchId, Payload) {
        let origin = NodeId::new(2).unwrap();
        let payload = Payload::new(vec![sequence as u8]);
        (BatchId { origin, incarnation: 1, sequence, digest: Digest::of(payload.bytes()) }, payload)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_payload_stays_as_long_as_anything_rests_on_it() {
        let (mut payloads, (id, payload)) = (Payloads::default(), batch(1));
        assert_eq!(payloads.hold(id, payload.clone()), Holding::New);
        payloads.let_go(Slot::MAX, 9, |_| false);
        assert!(payloads.holds(&id), "the pool has use for it");
        payloads.let_go_after(3, id);
        payloads.let_go(3, 9, |_| false);
        assert!(payloads.holds(&id) && payloads.is_leaving(&id));
        payloads.let_go(4, 9, |_| true);
        payloads.let_go(9, 12, |_| false);
        assert!(payloads.holds(&id), "it may go after slot 9");
        assert_eq!(payloads.hold(id, payload), Holding::Known);
        payloads.let_go(10, 12, |_| false);
        assert!(payloads.holds(&id), "it came again");
        payloads.let_go_after(12, id);
        payloads.let_go(13, 14, |_| false);
        assert!(!payloads.holds(&id));
    }

    #[test]
    fn what_is_missing_is_asked_for_again_after_a_while() {
        let (mut payloads, (id, payload)) = (Payloads::default(), batch(1));
        assert_eq!(payloads.ask(ms(0), id), Some(0));
        assert_eq!(payloads.ask(ms(99), id), None);
        assert_eq!(payloads.ask(ms(100), id), Some(1));
        assert!(payloads.is_asked_for(&id));
        assert_eq!(payloads.hold(id, payload), Holding::Awaited);
        assert!(!payloads.is_asked_for(&id));
        payloads.ask(ms(200), batch(2).0);
        payloads.ask_only_for(&BTreeSet::new());
        assert_eq!(payloads.ask(ms(201), batch(2).0), Some(0));
    }

    #[test]
    fn only_the_newest_refused_batches_are_remembered() {
        let mut payloads = Payloads::default();
        for sequence in 0..=REFUSED as u64 {
            payloads.refuse(batch(sequence).0);
        }
        assert!(!payloads.is_refused(&batch(0).0));
        assert!(payloads.is_refused(&batch(1).0) && payloads.is_refused(&batch(REFUSED as u64).0));
    }
}
