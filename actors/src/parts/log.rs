//! Which writes share a commit of the log.
//!
//! Whatever waits when a commit ends goes into the next one, together, and is reported together, once it is durable. What a snapshot
//! covers is removed bit by bit, with writes that are due anyway or, where there are none, alone. After a storage error nothing is
//! written any more: a commit that failed may be there after a restart, so nothing may go on from it.
//!
//! Whoever drives this commits: [`persist`](Log::persist) and [`compact`](Log::compact) say when a write has become due, which begins
//! behind all that waits in the mailbox by then.

use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::promise::Commit;
use rabia_bank_messages::sabotage::{Rule, is_broken};

use crate::consensus::agreement::Ticket;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Resting,
    Due,
    /// The commit that is under way makes all up to this ticket durable; none if it only removes slots.
    Writing(Option<Ticket>),
    Failed,
}

/// What waits for the log's writer.
#[derive(Debug)]
pub struct Log {
    waiting: Commit,
    /// The last write in it.
    ticket: Option<Ticket>,
    /// The last write that was asked for.
    last: Ticket,
    /// Slots up to this one are to be removed.
    compact: Slot,
    stage: Stage,
}

impl Default for Log {
    fn default() -> Log {
        Log { waiting: Commit::default(), ticket: None, last: 0, compact: 0, stage: Stage::Resting }
    }
}

/// A write that begins.
#[derive(Debug)]
pub struct Begun {
    /// All that has gathered by then.
    pub commit: Commit,
    /// Reported too early: only where [`Rule::ReportedDurable`] is broken.
    pub reported: Option<Ticket>,
}

/// What follows when a write has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// All writes up to this ticket are durable.
    pub persisted: Option<Ticket>,
    /// The next write is due.
    pub due: bool,
}

impl Log {
    /// Something to be made durable. True if a write has become due.
    ///
    /// # Panics
    /// If tickets do not ascend.
    pub fn persist(&mut self, ticket: Ticket, mut commit: Commit) -> bool {
        assert!(ticket > self.last, "ticket {ticket} after {}", self.last);
        if is_broken(Rule::RecordsWritten) {
            commit.records.clear();
        }
        (self.last, self.ticket) = (ticket, Some(ticket));
        self.waiting.add(commit);
        self.schedule()
    }

    /// Decided slots up to this one may go. True if a write has become due.
    pub fn compact(&mut self, upto: Slot) -> bool {
        self.compact = self.compact.max(upto);
        self.schedule()
    }

    fn schedule(&mut self) -> bool {
        let becomes_due = self.stage == Stage::Resting;
        if becomes_due {
            self.stage = Stage::Due;
        }
        becomes_due
    }

    /// The write that is due takes what waits. `next` says up to which slot the store removes decisions at a time, on the way to the one
    /// that it is given. None if no write is due.
    pub fn begin(&mut self, next: impl FnOnce(Slot) -> Option<Slot>) -> Option<Begun> {
        if self.stage != Stage::Due {
            return None;
        }
        let mut commit = std::mem::take(&mut self.waiting);
        commit.compact = next(self.compact);
        let ticket = self.ticket.take();
        self.stage = Stage::Writing(ticket);
        Some(Begun { commit, reported: ticket.filter(|_| is_broken(Rule::ReportedDurable)) })
    }

    /// The write that began is durable.
    pub fn written(&mut self, next: impl FnOnce(Slot) -> Option<Slot>) -> Ended {
        let Stage::Writing(persisted) = self.stage else { unreachable!("nothing is written in {:?}", self.stage) };
        let due = self.ticket.is_some() || next(self.compact).is_some();
        self.stage = if due { Stage::Due } else { Stage::Resting };
        Ended { persisted, due }
    }

    /// The store has failed.
    pub fn failed(&mut self) {
        self.stage = Stage::Failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Commit {
        Commit { reserved: Some(7), ..Commit::default() }
    }

    #[test]
    fn what_waits_while_a_write_is_under_way_goes_into_the_next_one_together() {
        let mut log = Log::default();
        assert!(log.persist(1, record()) && !log.persist(2, Commit::default()), "one write is due");
        let begun = log.begin(|_| None).unwrap();
        assert_eq!((begun.commit.reserved, begun.reported), (Some(7), None));
        assert!(!log.persist(3, record()) && !log.persist(5, Commit::default()), "it is under way");
        assert!(log.begin(|_| None).is_none());
        assert_eq!(log.written(|_| None), Ended { persisted: Some(2), due: true });
        assert_eq!(log.begin(|_| None).unwrap().commit.reserved, Some(7));
        assert_eq!(log.written(|_| None), Ended { persisted: Some(5), due: false });
        assert!(log.persist(6, record()));
    }

    #[test]
    fn slots_go_bit_by_bit_also_where_nothing_else_is_written() {
        let mut log = Log::default();
        assert!(log.compact(20) && !log.compact(10));
        assert_eq!(log.begin(|upto| Some(upto - 10)).unwrap().commit.compact, Some(10));
        assert_eq!(log.written(Some), Ended { persisted: None, due: true });
        assert_eq!(log.begin(Some).unwrap().commit.compact, Some(20));
        assert_eq!(log.written(|_| None), Ended { persisted: None, due: false });
    }

    #[test]
    fn nothing_is_written_after_an_error() {
        let mut log = Log::default();
        log.persist(1, record());
        log.begin(|_| None);
        log.failed();
        assert!(!log.persist(2, record()) && !log.compact(9) && log.begin(|_| None).is_none());
    }
}
