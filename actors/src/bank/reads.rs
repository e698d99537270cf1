//! Reads: each waits, as its level says, for a round among the nodes or for a slot to be applied, and is work from then on.

use actix::prelude::*;
use rabia_bank_messages::bank::{Query, ReadLevel, Refusal, Success};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::Slot;

use super::Bank;
use super::tasks::{Job, Purpose, Task};
use super::waiting::{Question, WaitingRead};
use crate::mail::bank::{Ask, ReadAt, Subscribe};
use crate::mail::voter::Read;

impl Bank {
    fn ask(&mut self, level: ReadLevel, read: WaitingRead, ctx: &mut Context<Self>) {
        let is_status = matches!(read.question, Question::Query(Query::GetStatus {}));
        if !is_status && !self.trust.may_read(level) {
            return self.waiting.untrusted.push((level, read));
        }
        match level {
            ReadLevel::Local => self.read(read, ctx),
            ReadLevel::AtLeast(slot) => self.read_at(slot, read, ctx),
            ReadLevel::Linearizable => {
                self.waiting.reads += 1;
                self.waiting.rounds.insert(self.waiting.reads, read);
                self.neighbours.voter.read.do_send(Read(self.waiting.reads));
            }
        }
    }

    /// Asks again what had to wait until the node may be believed.
    pub(super) fn ask_again(&mut self, ctx: &mut Context<Self>) {
        for (level, read) in std::mem::take(&mut self.waiting.untrusted) {
            self.ask(level, read, ctx);
        }
    }

    fn read_at(&mut self, slot: Slot, read: WaitingRead, ctx: &mut Context<Self>) {
        if slot <= self.ledger.applied() {
            self.read(read, ctx);
        } else {
            self.waiting.at_slot.entry(slot).or_default().push(read);
        }
    }

    /// Answers the reads that waited for a slot that is applied now.
    pub(super) fn read_due(&mut self, ctx: &mut Context<Self>) {
        let applied = self.ledger.applied();
        while let Some(due) = self.waiting.at_slot.first_entry().filter(|due| *due.key() <= applied) {
            for read in due.remove() {
                self.read(read, ctx);
            }
        }
    }

    /// Begins with the answer to a question whose time has come.
    fn read(&mut self, WaitingRead { waiter, question, deadline }: WaitingRead, ctx: &mut Context<Self>) {
        let query = match question {
            Question::Query(query) => query,
            Question::Subscribe(feed) => {
                return self.answer(&waiter, Some(self.ledger.applied()), self.begin_of(&feed));
            }
        };
        let job = match self.ledger.query(&query) {
            // It costs no more than the question did, and that was taken already.
            Some(lookup) if lookup.is_ready() => {
                let slot = lookup.slot();
                if let Some(answer) = self.ledger.at_hand(lookup) {
                    self.answer(&waiter, Some(slot), answer);
                }
                return;
            }
            Some(lookup) => Job::Answer { lookup: Box::new(lookup), purpose: Purpose::Query, given: None },
            None => Job::Status,
        };
        self.do_later(Task { waiter, deadline: Some(deadline), job }, ctx);
    }

    /// Where a subscription begins.
    fn begin_of(&self, feed: &Feed) -> Result<Success, Refusal> {
        if let Some(account_id) = feed.account_id.clone() {
            let lookup = self.ledger.query(&Query::GetBalance { account_id });
            lookup.and_then(|lookup| self.ledger.at_hand(lookup)).transpose()?;
        }
        let from = feed.from.unwrap_or(self.ledger.newest_transaction() + 1);
        Ok(Success::Subscribed { from: from.max(1) })
    }
}

impl Handler<Ask> for Bank {
    type Result = ();

    fn handle(&mut self, Ask { waiter, query, read, deadline }: Ask, ctx: &mut Self::Context) {
        let level = if query == (Query::GetStatus {}) { ReadLevel::Local } else { read };
        self.ask(level, WaitingRead { waiter, question: Question::Query(query), deadline }, ctx);
    }
}

impl Handler<Subscribe> for Bank {
    type Result = ();

    fn handle(&mut self, Subscribe { waiter, feed, read, deadline }: Subscribe, ctx: &mut Self::Context) {
        self.ask(read, WaitingRead { waiter, question: Question::Subscribe(feed), deadline }, ctx);
    }
}

impl Handler<ReadAt> for Bank {
    type Result = ();

    fn handle(&mut self, ReadAt { read, slot }: ReadAt, ctx: &mut Self::Context) {
        let later = self.waiting.rounds.split_off(&(read + 1));
        for (_, read) in std::mem::replace(&mut self.waiting.rounds, later) {
            self.read_at(slot, read, ctx);
        }
    }
}
