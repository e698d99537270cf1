//! Feeds: clients that want to be told of transactions as they are applied. Looking for these is work like answering a query.

use actix::prelude::*;
use rabia_bank_messages::bank::Success;

use super::Bank;
use super::tasks::{Follower, Job, Task};
use crate::ledger::{Answer, Lookup};
use crate::mail::bank::Follow;
use crate::mail::client_session::{Answered, Done, Waiter};

/// Transactions that are looked at for a follower at a time. If none of them belongs to the feed, the follower is told how far that was.
const FOLLOW_SCAN: u64 = 4096;
/// Transactions that a follower is told of at a time: some 50 KB.
const FOLLOW_PAGE: usize = 256;

impl Bank {
    pub(super) fn look_for(&self, follower: &Follower) -> Lookup {
        self.ledger.transactions_from(&follower.feed, follower.next, FOLLOW_SCAN, FOLLOW_PAGE)
    }

    /// Tells a follower what was found, or keeps it until there is something.
    pub(super) fn followed(&mut self, mut follower: Follower, answer: Answer, ctx: &mut Context<Self>) {
        let Ok(Success::Transactions { transactions, next: Some(next) }) = answer else {
            unreachable!("the transactions of a feed were answered with {answer:?}")
        };
        follower.next = next;
        if !transactions.is_empty() || next - follower.asked >= FOLLOW_SCAN {
            let Waiter { client, tag } = follower.waiter;
            let result = Ok(Done::Followed { transactions, next });
            self.tell(&client, Answered { tag, slot: None, index: None, replayed: false, result });
        } else if next <= self.ledger.newest_transaction() {
            // It came while the others were looked at.
            self.do_later(Task { waiter: follower.waiter.clone(), deadline: None, job: Job::Follow(follower) }, ctx);
        } else {
            self.work.followers.push(follower);
        }
    }

    /// Sees to it that those who follow are told of what is new.
    pub(super) fn tell_followers(&mut self, ctx: &mut Context<Self>) {
        let newest = self.ledger.newest_transaction();
        let mut followers = std::mem::take(&mut self.work.followers);
        for follower in followers.extract_if(.., |follower| follower.next <= newest) {
            self.do_later(Task { waiter: follower.waiter.clone(), deadline: None, job: Job::Follow(follower) }, ctx);
        }
        self.work.followers = followers;
    }
}

impl Handler<Follow> for Bank {
    type Result = ();

    fn handle(&mut self, Follow { waiter, feed, next }: Follow, ctx: &mut Self::Context) {
        let follower = Follower { waiter: waiter.clone(), feed, asked: next, next };
        self.do_later(Task { waiter, deadline: None, job: Job::Follow(follower) }, ctx);
    }
}
