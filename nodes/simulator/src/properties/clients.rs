//! What clients may rely on: a command is applied once and its answer is what the model answers at its place in the log, as far as
//! whoever asks may see it; it is ordered after every command that was acknowledged before it was sent; a linearizable read sees all of those too, and
//! any read is the state after the slot that it names. A command whose answer was lost is unknown: it may be applied or not.
//!
//! The order is that of (slot, index in the batch), so that linearizability needs no search: Herlihy and Wing,
//! "Linearizability" (TOPLAS 1990); BANK.md, invariant 6 and "Sessions and retries"; PROTOCOL.md, "Linearizable reads".

use rabia_bank_actors::ledger::machine::StateMachine;
use rabia_bank_messages::bank::{Outcome, ReadLevel};
use rabia_bank_messages::ids::Slot;
use rabia_bank_model::{Answer, Model, Plain};

use super::super::workload::{EntryOf, FeedOf, Workload};
use super::{Check, check};

/// A place in the order of all commands.
pub(crate) type Position = (Slot, usize);

/// What was acknowledged, to anybody.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// The last place of anything that a client has seen: by an answer to a command, or by a linearizable read.
    seen: Position,
    acknowledged: Vec<((u64, u64), Position)>,
    /// Commands that were refused, and not asked for again.
    refused: Vec<(u64, u64)>,
    /// How many reads were answered so far.
    pub(crate) reads: u64,
}

impl Clients {
    /// What everything sent from now on must come after.
    pub(crate) fn now(&self) -> Position {
        self.seen
    }

    /// How many commands were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// A client that has shown this token got the answer to a command that it first sent when `after` had been seen.
    pub(crate) fn command<M: Plain>(
        &mut self,
        model: &Model<M>,
        token: u64,
        name: (u64, u64),
        after: Position,
        (slot, answer): (Slot, Answer<M::Success>),
    ) -> Check {
        let Some(applied) = model.applied.get(&name) else {
            return check(false, "exactly once", || {
                format!("{name:?} was answered, but is not in the log: {answer:?}")
            });
        };
        let position = applied.position;
        let answer = M::plain(answer);
        check(slot == position.0 && model.is_told(token, slot, &applied.answer, &answer), "exactly once", || {
            format!(
                "{name:?} was answered {answer:?} of slot {slot}, the model answers {:?} of {position:?}",
                applied.answer
            )
        })?;
        self.acknowledge(name, position, after)
    }

    /// A client got the answer to an administrator's command that it first sent when `after` had been seen.
    pub(crate) fn administered<W: Workload>(
        &mut self,
        model: &Model<W>,
        name: (u64, u64),
        after: Position,
        (slot, answer): (Slot, Answer<W::Success>),
    ) -> Check {
        let Some((position, outcome)) = model.administered(name) else {
            return check(false, "exactly once", || {
                format!("{name:?} was answered, but is not in the log: {answer:?}")
            });
        };
        let right = match (&answer, outcome) {
            (Ok(success), Ok(number)) => <W::Machine as StateMachine>::administered(*number).as_ref() == Some(success),
            (Err(refusal), Err(code)) => refusal.code == *code && refusal.outcome == Outcome::Refused,
            _ => false,
        };
        check(right && slot == position.0, "exactly once", || {
            format!("{name:?} was answered {answer:?} of slot {slot}, the model answers {outcome:?} of {position:?}")
        })?;
        self.acknowledge(name, position, after)
    }

    fn acknowledge(&mut self, name: (u64, u64), position: Position, after: Position) -> Check {
        check(position > after, "real-time order", || {
            format!("{name:?} is at {position:?} in the log, though {after:?} had been seen when it was sent")
        })?;
        self.acknowledged.push((name, position));
        self.seen = self.seen.max(position);
        Ok(())
    }

    /// A client that has shown this token got the answer to a query that it first sent when `after` had been seen.
    pub(crate) fn read<M: Plain>(
        &mut self,
        model: &Model<M>,
        token: u64,
        (query, level): (&M::Query, ReadLevel),
        after: Position,
        (slot, answer): (Slot, Answer<M::Success>),
    ) -> Check {
        let least = match level {
            ReadLevel::Linearizable => after.0,
            ReadLevel::AtLeast(slot) => slot,
            ReadLevel::Local => 0,
        };
        check(slot >= least, "linearizable reads", || {
            format!("{query:?} ({level:?}) was answered at slot {slot}, but must see slot {least}")
        })?;
        let answer = M::plain(answer);
        check(model.is_answer(token, query, slot, &answer), "reads", || {
            let (expected, put) = (model.query(query, slot), model.shown_by(token, slot).collect::<Vec<_>>());
            format!("{query:?} at slot {slot} was answered {answer:?}, the model has {expected:?} for one of {put:?}")
        })?;
        self.reads += 1;
        if level == ReadLevel::Linearizable {
            self.seen = self.seen.max((slot, usize::MAX));
        }
        Ok(())
    }

    /// A client that has shown this token got entries of a feed from this id on, of those before `next`: all of them, as far as it may
    /// see them, and no more at a time than the limits (entries to look at, entries to tell of) allow. None only if as many were
    /// looked at as are at a time, or it may not follow the feed.
    pub(crate) fn followed<W: Workload>(
        &mut self,
        model: &Model<W>,
        token: u64,
        (feed, from): (&FeedOf<W>, u64),
        (scan, page): (u64, usize),
        (entries, next): (Vec<EntryOf<W>>, u64),
    ) -> Check {
        let expected = model.machine().entries(feed, from..next);
        let reached = expected.as_ref().is_some_and(|all| !all.is_empty()) || next >= from + scan;
        // Its node was at least as far as what it has looked at.
        let since = model.machine().slot_of(next.saturating_sub(1));
        let all = model.shown_by(token, since).any(|put| {
            let mut seen = expected.clone();
            match (&mut seen, put) {
                (Some(seen), Some(put)) => W::hide(feed, seen, put),
                (Some(seen), None) => seen.clear(),
                (None, _) => {}
            }
            seen.as_ref() == Some(&entries)
        });
        check(all && reached && entries.len() <= page, "reads", || {
            format!("{feed:?} from {from} on was told {entries:?} up to {next}, of the model's {expected:?}")
        })?;
        self.reads += 1;
        Ok(())
    }

    /// A client was told that no attempt of this command was executed, and asks no more.
    pub(crate) fn refused(&mut self, name: (u64, u64)) {
        self.refused.push(name);
    }

    /// At the end: everything that was acknowledged stands where it stood, and nothing that was refused was executed.
    pub(crate) fn nothing_lost<M: Plain>(&self, model: &Model<M>) -> Check {
        for (name, position) in &self.acknowledged {
            let now = place(model, *name);
            check(now == Some(*position), "acknowledged is never lost", || {
                format!("{name:?} was acknowledged at {position:?}, and is now at {now:?}")
            })?;
        }
        for name in &self.refused {
            check(place(model, *name).is_none(), "refused is not executed", || {
                format!("{name:?} was refused for good, and was applied all the same")
            })?;
        }
        check(!self.acknowledged.is_empty(), "something is acknowledged", || "no command was acknowledged in this run")
    }
}

/// Where a command stands in the log, a machine's or an administrator's.
fn place<M: Plain>(model: &Model<M>, name: (u64, u64)) -> Option<Position> {
    let applied = model.applied.get(&name).map(|applied| applied.position);
    applied.or_else(|| model.administered(name).map(|(position, _)| position))
}
