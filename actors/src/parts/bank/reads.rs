//! Reads: each waits, as its level says, for a round among the nodes or for a slot to be applied, and is work from then on. While the
//! node may not be believed they wait until it may.

use std::collections::BTreeMap;
use std::time::Instant;

use rabia_bank_messages::bank::ReadLevel;
use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::tasks::{Job, Purpose, Task};
use super::words::{Ask, ReadAt, Subscribe};
use super::{Bank, Out};
use crate::ledger::machine::{Feed, StateMachine};
use crate::parts::clients::{Answered, Done, Waiter};

/// What a client wants to know.
#[derive(Debug)]
enum Question<S: StateMachine> {
    Query(S::Query),
    Subscribe(S::Feed),
}

/// A question that can't be answered yet.
#[derive(Debug)]
pub(super) struct WaitingRead<S: StateMachine> {
    waiter: Waiter<S>,
    question: Question<S>,
    deadline: Instant,
}

impl<S: StateMachine> WaitingRead<S> {
    fn is_wanted(&self, now: Instant) -> bool {
        self.deadline > now && !self.waiter.client.is_gone()
    }
}

/// Reads that wait for a round, for a slot, or until the node may be believed.
#[derive(Debug)]
pub(super) struct WaitingReads<S: StateMachine> {
    /// Linearizable reads that wait for their round, by number.
    rounds: BTreeMap<u64, WaitingRead<S>>,
    reads: u64,
    /// Reads that wait for a slot.
    at_slot: BTreeMap<Slot, Vec<WaitingRead<S>>>,
    /// Reads that wait until the node may be believed.
    untrusted: Vec<(ReadLevel, WaitingRead<S>)>,
}

impl<S: StateMachine> Default for WaitingReads<S> {
    fn default() -> WaitingReads<S> {
        WaitingReads { rounds: BTreeMap::new(), reads: 0, at_slot: BTreeMap::new(), untrusted: Vec::new() }
    }
}

impl<S: StateMachine> WaitingReads<S> {
    /// Without a quorum, or for a slot far ahead, reads would gather for ever.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.rounds.retain(|_, read| read.is_wanted(now));
        self.untrusted.retain(|(_, read)| read.is_wanted(now));
        self.at_slot.retain(|_, reads| {
            reads.retain(|read| read.is_wanted(now));
            !reads.is_empty()
        });
    }
}

impl<S: StateMachine> Bank<S> {
    /// A client wants an answer to a query.
    pub fn ask(&mut self, Ask { waiter, query, read, deadline }: Ask<S>, out: &mut Vec<Out<S>>) {
        let level = if S::about_node(&query).is_some() { ReadLevel::Local } else { read };
        self.wait_for(level, WaitingRead { waiter, question: Question::Query(query), deadline }, out);
    }

    /// A client wants to know where a subscription begins.
    pub fn subscribe(&mut self, Subscribe { waiter, feed, read, deadline }: Subscribe<S>, out: &mut Vec<Out<S>>) {
        self.wait_for(read, WaitingRead { waiter, question: Question::Subscribe(feed), deadline }, out);
    }

    /// All reads up to a number may be answered once a slot is applied.
    pub fn read_at(&mut self, ReadAt { read, slot }: ReadAt, out: &mut Vec<Out<S>>) {
        let later = self.waiting.rounds.split_off(&(read + 1));
        for (_, read) in std::mem::replace(&mut self.waiting.rounds, later) {
            self.read_or_wait(slot, read, out);
        }
    }

    fn wait_for(&mut self, level: ReadLevel, read: WaitingRead<S>, out: &mut Vec<Out<S>>) {
        let is_status = matches!(&read.question, Question::Query(query) if S::about_node(query).is_some());
        if !is_status && !self.trust.may_read(level) {
            return self.waiting.untrusted.push((level, read));
        }
        match level {
            ReadLevel::Local => self.read(read, out),
            ReadLevel::AtLeast(slot) => self.read_or_wait(slot, read, out),
            ReadLevel::Linearizable => {
                self.waiting.reads += 1;
                self.waiting.rounds.insert(self.waiting.reads, read);
                out.push(Out::Read(self.waiting.reads));
            }
        }
    }

    /// Asks again what had to wait until the node may be believed.
    pub(super) fn ask_again(&mut self, out: &mut Vec<Out<S>>) {
        for (level, read) in std::mem::take(&mut self.waiting.untrusted) {
            self.wait_for(level, read, out);
        }
    }

    fn read_or_wait(&mut self, slot: Slot, read: WaitingRead<S>, out: &mut Vec<Out<S>>) {
        if slot <= self.ledger.applied() || is_broken(Rule::ReadWaits) {
            self.read(read, out);
        } else {
            self.waiting.at_slot.entry(slot).or_default().push(read);
        }
    }

    /// Answers the reads that waited for a slot that is applied now.
    pub(super) fn read_due(&mut self, out: &mut Vec<Out<S>>) {
        let applied = self.ledger.applied();
        while let Some(due) = self.waiting.at_slot.first_entry().filter(|due| *due.key() <= applied) {
            for read in due.remove() {
                self.read(read, out);
            }
        }
    }

    /// Begins with the answer to a question whose time has come.
    fn read(&mut self, WaitingRead { waiter, question, deadline }: WaitingRead<S>, out: &mut Vec<Out<S>>) {
        let allowed = self.rights(&waiter.client).and_then(|rights| match &question {
            Question::Query(query) => S::check_query(query, &rights),
            Question::Subscribe(feed) => S::check_feed(feed, &rights),
        });
        if let Err(refusal) = allowed {
            let slot = Some(self.ledger.applied());
            return self.answer(waiter, slot, Err(refusal), out);
        }
        let query = match question {
            Question::Query(query) => query,
            Question::Subscribe(feed) => {
                let (Waiter { client, tag }, slot) = (waiter, Some(self.ledger.applied()));
                let first = feed.first(self.ledger.machine());
                let result = first.map(|from| Done::Subscribed { from, answer: feed.subscribed(from) });
                return self.tell(client, Answered { tag, slot, index: None, replayed: false, result }, out);
            }
        };
        if let Some(answer) = S::about_node(&query) {
            return self.do_later(Task { waiter, deadline: Some(deadline), job: Job::Status(answer) }, out);
        }
        let job = match self.ledger.query(&query) {
            // It costs no more than the question did, and that was taken already.
            Some(lookup) if lookup.is_ready() => {
                let slot = lookup.slot();
                if let Some(answer) = self.ledger.at_hand(lookup) {
                    let answer = self.read_by(&waiter.client, &query, answer);
                    self.answer(waiter, Some(slot), answer, out);
                }
                return;
            }
            Some(lookup) => Job::Answer { lookup: Box::new(lookup), purpose: Purpose::Query(query), given: None },
            None => unreachable!("{query:?} is not about the node"),
        };
        self.do_later(Task { waiter, deadline: Some(deadline), job }, out);
    }
}
