//! Durable writes: what waits for the disk, and what may be said once it is there (rules 1, 4, 8 and 12).
//!
//! Every write has a ticket. What it allows comes out of [`Durable::next_saved`] when the ticket was reported back, in the order in
//! which it was asked for: first the count of promises, then the mark of rule 1, then the rest.

use std::collections::VecDeque;
use std::time::Duration;

use rabia_bank_messages::ids::{BatchId, Slot};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_messages::promise::{Commit, Recovered};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::payloads::Payloads;
use crate::lineage::Lineage;
use crate::words::{Effect, Ticket};

/// Rule 8: a decision is on disk after this time, also when nothing else is written.
const LAZY_WRITE: Duration = Duration::from_millis(100);
/// In windows: how far the durable mark of rule 1 is ahead. Far enough to ride on other writes, near enough that a
/// restart taints few slots.
const RESERVE: u64 = 3;

/// What waits for a durable write, and may be done then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Saving {
    /// What this node says next in a slot.
    Slot(Slot),
    /// Speaking in slots below this mark.
    Reserved(Slot),
    /// Saying that so many promises were kept.
    Promises(u64),
    /// Saying that the log is durable up to this slot: decisions, or a snapshot there.
    Log(Slot),
    /// Speaking at all: the decision by which this store took the place of another.
    Joining,
}

/// A proposal that waits for the mark of rule 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) slot: Slot,
    pub(super) value: Value,
    pub(super) with_payload: bool,
}

/// What is durable, and what is on its way to the disk.
///
/// Invariant: `reserved` is the mark that is durable, and never above `reserving`.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    window: u64,
    lineage: Lineage,
    /// Up to this slot the log with its payloads is durable.
    log: Slot,
    reserved: Slot,
    reserving: Slot,
    unreserved: Vec<Wanted>,
    ticket: Ticket,
    saving: VecDeque<(Ticket, Saving)>,
    /// Decisions that go with the next write.
    unwritten: Vec<(Slot, Value)>,
    unwritten_since: Option<Duration>,
}

impl Durable {
    pub(super) fn new(window: u64, recovered: &Recovered) -> Durable {
        Durable {
            window,
            lineage: Lineage::new(recovered),
            log: recovered.decided,
            reserved: recovered.reserved,
            reserving: recovered.reserved,
            unreserved: Vec::new(),
            ticket: 0,
            saving: VecDeque::new(),
            unwritten: Vec::new(),
            unwritten_since: None,
        }
    }

    /// The runs of this store, and what it remembers of others.
    pub(super) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub(super) fn lineage_mut(&mut self) -> &mut Lineage {
        &mut self.lineage
    }

    /// Up to this slot the log with its payloads is durable.
    pub(super) fn log(&self) -> Slot {
        self.log
    }

    /// This node has said nothing at or above this slot, durably.
    pub(super) fn reserved(&self) -> Slot {
        self.reserved
    }

    /// How many promises this node has kept, as peers are told.
    pub(super) fn promised(&self) -> PeerMessage {
        let count = self.lineage.promised();
        PeerMessage::Promised { count, proof: self.lineage.proof(count) }
    }

    // ----- what waits -----

    /// A slot was decided, the next in order. It is written with the next write, or a while later.
    pub(super) fn note_decided(&mut self, now: Duration, slot: Slot, value: Value) {
        self.unwritten.push((slot, value));
        self.unwritten_since.get_or_insert(now);
    }

    /// The first decided slot that is not on its way to the disk.
    pub(super) fn first_unwritten(&self) -> Option<Slot> {
        self.unwritten.first().map(|(slot, _)| *slot)
    }

    /// Whether a decision waits that no other write has carried along.
    pub(super) fn has_unwritten(&self) -> bool {
        self.unwritten_since.is_some()
    }

    /// Whether a decision has waited for long enough.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.unwritten_since.is_some_and(|since| now.saturating_sub(since) >= LAZY_WRITE)
    }

    /// A proposal waits until the mark is above its slot.
    pub(super) fn want(&mut self, wanted: Wanted) {
        self.unreserved.push(wanted);
    }

    /// The proposals that wait for the mark.
    pub(super) fn take_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.unreserved)
    }

    /// Whether a decision or a proposal that waits names this batch.
    pub(super) fn names(&self, id: &BatchId) -> bool {
        let unwritten = self.unwritten.iter().any(|(_, value)| *value == Some(*id));
        unwritten || self.unreserved.iter().any(|wanted| wanted.value == Some(*id))
    }

    /// A snapshot at this slot takes the place of what waits up to it.
    pub(super) fn skip_to(&mut self, slot: Slot) {
        self.unwritten.retain(|(unwritten, _)| *unwritten > slot);
        self.unreserved.retain(|wanted| wanted.slot > slot);
    }

    /// This store says nothing from this slot on.
    pub(super) fn fall_silent(&mut self, end: Slot) {
        self.unreserved.retain(|wanted| wanted.slot < end);
    }

    // ----- writes -----

    /// Rule 1: whether the mark has to be raised, for a node that may speak within the window behind this frontier, by a write
    /// of its own if no other does.
    pub(super) fn needs_mark(&self, frontier: Slot) -> bool {
        self.reserving <= frontier + self.window
    }

    /// Adds all that is waiting to the write, and issues it. `speaks_behind` is the frontier of a node that may speak within the
    /// window behind it: the mark of rule 1 is kept ahead of that.
    pub(super) fn save(
        &mut self,
        mut commit: Commit,
        saving: Option<Saving>,
        speaks_behind: Option<Slot>,
        payloads: &Payloads,
        effects: &mut Vec<Effect>,
    ) {
        commit.decisions.append(&mut self.unwritten);
        self.unwritten_since = None;
        let named: Vec<_> = commit.decisions.iter().filter_map(|(_, value)| *value).collect();
        named.into_iter().for_each(|id| payloads.put(id, &mut commit));
        self.ticket += 1;
        let ahead = speaks_behind.map(|frontier| frontier + RESERVE * self.window + 1);
        if let Some(ahead) = ahead.filter(|ahead| self.reserving < ahead - self.window) {
            self.reserving = ahead;
            commit.reserved = Some(ahead);
        }
        let ticket = self.ticket;
        // To remember another run of a peer binds this node as a vote does: a copy that forgot it counts less.
        let binds = commit.reserved.is_some() || !commit.records.is_empty() || !commit.peers.is_empty();
        // The count of promises is said before whatever else this write allows to be said.
        let promises = self.lineage.write(ticket, binds, &mut commit).map(Saving::Promises);
        let log = commit.decisions.last().map(|(slot, _)| *slot).max(commit.installed.map(|(slot, _)| slot));
        let mut waiting = [promises, commit.reserved.map(Saving::Reserved), log.map(Saving::Log), saving];
        if is_broken(Rule::PromisesFirst) {
            waiting.rotate_left(1);
        }
        self.saving.extend(waiting.into_iter().flatten().map(|saving| (ticket, saving)));
        effects.push(Effect::Save(ticket, commit));
    }

    /// All writes up to this one are durable. Takes note of the next thing that waited for one of them, and answers what it was.
    pub(super) fn next_saved(&mut self, ticket: Ticket) -> Option<Saving> {
        self.lineage.saved(ticket);
        let (_, saving) = self.saving.pop_front_if(|(needed, _)| *needed <= ticket)?;
        match saving {
            Saving::Promises(count) => self.lineage.keep(count),
            Saving::Log(slot) => self.log = self.log.max(slot),
            Saving::Reserved(mark) => self.reserved = self.reserved.max(mark),
            Saving::Joining | Saving::Slot(_) => {}
        }
        Some(saving)
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::ids::StoreId;
    use rabia_bank_messages::lineage::Secret;

    use super::*;

    const WINDOW: u64 = 16;

    fn durable() -> Durable {
        let recovered = Recovered::at_first_start(StoreId([1; 16]), Secret([1; 32]));
        Durable::new(WINDOW, &recovered)
    }

    fn saved(durable: &mut Durable, ticket: Ticket) -> Vec<Saving> {
        std::iter::from_fn(|| durable.next_saved(ticket)).collect()
    }

    /// The writes among the effects.
    fn commits(effects: Vec<Effect>) -> Vec<(Ticket, Commit)> {
        let write = |effect| match effect {
            Effect::Save(ticket, commit) => (ticket, commit),
            other => panic!("{other:?}"),
        };
        effects.into_iter().map(write).collect()
    }

    #[test]
    fn promises_are_said_before_what_the_same_write_allows() {
        let (mut durable, mut effects) = (durable(), Vec::new());
        durable.note_decided(Duration::ZERO, 1, None);
        durable.save(Commit::default(), Some(Saving::Slot(5)), Some(1), &Payloads::default(), &mut effects);
        let mark = 1 + RESERVE * WINDOW + 1;
        let expected =
            Commit { reserved: Some(mark), decisions: vec![(1, None)], promised: Some(1), ..Commit::default() };
        assert_eq!(commits(effects), [(1, expected)]);
        assert_eq!((saved(&mut durable, 0), durable.reserved(), durable.log()), (Vec::new(), 1, 0));
        let all = [Saving::Promises(1), Saving::Reserved(mark), Saving::Log(1), Saving::Slot(5)];
        assert_eq!(saved(&mut durable, 1), all);
        assert_eq!((durable.reserved(), durable.log()), (mark, 1));
    }

    #[test]
    fn the_mark_rides_on_other_writes_and_is_not_raised_by_who_is_silent() {
        let (mut durable, mut effects) = (durable(), Vec::new());
        durable.save(Commit::default(), None, None, &Payloads::default(), &mut effects);
        assert!(durable.needs_mark(0));
        durable.save(Commit::default(), None, Some(0), &Payloads::default(), &mut effects);
        assert!(!durable.needs_mark(0));
        durable.save(Commit::default(), None, Some(WINDOW), &Payloads::default(), &mut effects);
        durable.save(Commit::default(), None, Some(WINDOW + 1), &Payloads::default(), &mut effects);
        let marks: Vec<_> = commits(effects).into_iter().map(|(_, commit)| commit.reserved).collect();
        assert_eq!(marks, [None, Some(49), None, Some(66)]);
    }

    #[test]
    fn a_decision_is_written_after_a_while_or_with_another_write() {
        let (mut durable, mut effects) = (durable(), Vec::new());
        durable.note_decided(Duration::from_millis(10), 1, None);
        durable.note_decided(Duration::from_millis(50), 2, None);
        assert!(!durable.is_due(Duration::from_millis(109)) && durable.is_due(Duration::from_millis(110)));
        assert_eq!(durable.first_unwritten(), Some(1));
        durable.skip_to(1);
        assert_eq!(durable.first_unwritten(), Some(2));
        durable.save(Commit::default(), None, None, &Payloads::default(), &mut effects);
        assert!(!durable.has_unwritten() && !durable.is_due(Duration::from_secs(9)));
        assert_eq!(commits(effects)[0].1.decisions, [(2, None)]);
    }
}
