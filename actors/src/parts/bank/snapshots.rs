//! Snapshots of the state: when one is due, and how it is taken while the bank goes on. The bank freezes the ledger between two slots,
//! collects what changed bit by bit between other messages, and hands it to the snapshotter.

use std::time::{Duration, Instant};

use rabia_bank_messages::ids::{Digest, Slot};

use super::words::{Install, Saved};
use super::{Bank, Out};
use crate::ledger::machine::StateMachine;
use crate::snapshot::Snapshot;

/// A snapshot is collected in so many parts, of one step at least: half a millisecond or more each …
const PARTS: usize = 512;
/// … with this pause before the next, so that requests, which need several turns of this thread, are hardly slower meanwhile. Where
/// the pause becomes longer, since there is much to apply, more parts follow: for half as long as it was …
const BETWEEN_PARTS: Duration = Duration::from_millis(1);
/// … but no longer than this. Otherwise a snapshot under load took so long that the log behind it grew and grew.
const MOST_AT_ONCE: Duration = Duration::from_millis(10);

/// What the next snapshot is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Waiting,
    /// It is collected, by parts of so many steps.
    Collecting(usize, Pace),
    Saving,
}

/// How a snapshot is collected in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// Nothing is collected since then.
    Paused(Instant),
    /// One part follows the other until then.
    Going(Instant),
}

impl<S: StateMachine> Bank<S> {
    /// Goes on collecting the snapshot, by one part. See [`Out::Collect`].
    pub fn collect(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        // A state that was installed meanwhile makes the snapshot superfluous.
        let Stage::Collecting(part, pace) = self.stage else { return };
        let until = match pace {
            Pace::Paused(since) => now + ((now - since) / 2).min(MOST_AT_ONCE),
            Pace::Going(until) if now < until => until,
            Pace::Going(_) => {
                self.stage = Stage::Collecting(part, Pace::Paused(now));
                return out.push(Out::Collect { pause: BETWEEN_PARTS });
            }
        };
        let Some(changes) = self.ledger.collect(part) else {
            self.stage = Stage::Collecting(part, Pace::Going(until));
            return out.push(Out::Collect { pause: Duration::ZERO });
        };
        self.stage = Stage::Saving;
        let (decisions, log_hash) = std::mem::replace(&mut self.frozen, (Vec::new(), Digest::ZERO));
        out.push(Out::Save(Snapshot { changes, decisions, log_hash }));
    }

    /// A snapshot is durable.
    pub fn saved(&mut self, now: Instant, Saved { slot, transactions }: Saved, out: &mut Vec<Out<S>>) {
        self.ledger.forget(transactions);
        self.stands(now, slot, out);
    }

    /// The books on disk stand after this slot, by a state that came from a peer.
    pub fn received(&mut self, slot: Slot) {
        self.saved = self.saved.max(slot);
    }

    /// The same, and the snapshot that was to be saved is not needed any more.
    pub fn superseded(&mut self, now: Instant, slot: Slot, out: &mut Vec<Out<S>>) {
        self.stands(now, slot, out);
    }

    /// Somebody wants the books with all that is applied now. Answers the slot that they must stand after; [`Out::Durable`] tells
    /// when they do.
    pub fn take_snapshot(&mut self, now: Instant, out: &mut Vec<Out<S>>) -> Slot {
        let applied = self.ledger.applied();
        if applied > self.saved {
            self.wanted = applied;
            self.begin_snapshot(now, out);
        } else {
            out.push(Out::Durable(self.saved));
        }
        applied
    }

    /// Goes on from a state that is further than the own one.
    ///
    /// # Panics
    /// If it is not.
    pub fn install(
        &mut self,
        now: Instant,
        Install { mut ledger, hash, decisions }: Install<S>,
        out: &mut Vec<Out<S>>,
    ) {
        let (own, new) = (self.ledger.applied(), ledger.applied());
        assert!(new > own, "a state after slot {new} would take the place of one after slot {own}");
        // One of the old state would be collected no further.
        self.stage = Stage::Waiting;
        std::mem::swap(&mut self.ledger, &mut ledger);
        out.push(Out::Discard(ledger));
        self.decisions = decisions.into();
        self.log_hash = hash;
        self.unsaved = self.policy.at_start(self.me, self.genesis.members(), (0, 0));
        self.applied.set(new);
        self.applied.set_level(self.ledger.levels().level());
        self.tell_roster();
        self.tell_time(out);
        // Slots were skipped, and what was answered in them is not known.
        let waiters = std::mem::take(&mut self.expected);
        self.answer_unknown(waiters.into_values(), out);
        self.stands(now, new, out);
        self.read_due(out);
        self.tell_followers(out);
    }

    /// The books on disk stand after this slot or a later one: the snapshot that was under way is durable, or superfluous.
    fn stands(&mut self, now: Instant, slot: Slot, out: &mut Vec<Out<S>>) {
        self.saved = self.saved.max(slot);
        if self.stage == Stage::Saving {
            self.stage = Stage::Waiting;
        }
        out.push(Out::Durable(slot));
        if self.wanted > slot {
            self.begin_snapshot(now, out);
        }
        self.begin_snapshot_if_due(now, out);
    }

    pub(super) fn begin_snapshot_if_due(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        let (bytes, slots) = self.unsaved;
        if bytes >= self.policy.bytes || slots >= self.policy.slots {
            self.begin_snapshot(now, out);
        }
    }

    /// Begins a snapshot, unless one is under way or nothing has changed since the last one.
    fn begin_snapshot(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        if self.stage != Stage::Waiting || self.ledger.applied() <= self.saved {
            return;
        }
        self.unsaved = (0, 0);
        self.frozen = (self.decisions.iter().copied().collect(), self.log_hash);
        let part = self.ledger.freeze().div_ceil(PARTS);
        self.stage = Stage::Collecting(part, Pace::Paused(now));
        self.collect(now, out);
    }
}
