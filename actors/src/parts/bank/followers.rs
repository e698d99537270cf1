//! Feeds: clients that want to be told of transactions as they are applied. Looking for these is work like answering a query.

use rabia_bank_messages::bank::Success;

use super::tasks::Follower;
use super::words::Follow;
use super::{Bank, Out};
use crate::ledger::{Answer, Lookup};
use crate::parts::clients::{Answered, Done, Waiter};

impl Bank {
    /// Somebody wants to be told of transactions of a feed, once.
    pub fn follow(&mut self, Follow { waiter, feed, next }: Follow, out: &mut Vec<Out>) {
        self.do_later(Follower { waiter, feed, asked: next, next }.into_task(), out);
    }

    pub(super) fn look_for(&self, follower: &Follower) -> Lookup {
        let Follower { feed, next, .. } = follower;
        self.ledger.transactions_from(feed, *next, self.portions.follow_scan, self.portions.follow_page)
    }

    /// Tells a follower what was found, or keeps it until there is something.
    pub(super) fn followed(&mut self, mut follower: Follower, answer: Answer, out: &mut Vec<Out>) {
        let Ok(Success::Transactions { transactions, next: Some(next) }) = answer else {
            unreachable!("the transactions of a feed were answered with {answer:?}")
        };
        follower.next = next;
        if !transactions.is_empty() || next - follower.asked >= self.portions.follow_scan {
            let Waiter { client, tag } = follower.waiter;
            let result = Ok(Done::Followed { transactions, next });
            self.tell(client, Answered { tag, slot: None, index: None, replayed: false, result }, out);
        } else if next <= self.ledger.newest_transaction() {
            // It came while the others were looked at.
            self.do_later(follower.into_task(), out);
        } else {
            self.work.followers.push(follower);
        }
    }

    /// Sees to it that those who follow are told of what is new.
    pub(super) fn tell_followers(&mut self, out: &mut Vec<Out>) {
        let newest = self.ledger.newest_transaction();
        let mut followers = std::mem::take(&mut self.work.followers);
        for follower in followers.extract_if(.., |follower| follower.next <= newest) {
            self.do_later(follower.into_task(), out);
        }
        self.work.followers = followers;
    }
}
