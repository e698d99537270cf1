//! Feeds: clients that want to be told of transactions as they are applied. Looking for these is work like answering a query.

use super::tasks::Follower;
use super::words::Follow;
use super::{Bank, Out};
use rabia_bank_messages::bank::Refusal;

use crate::ledger::lookup::Lookup;
use crate::ledger::machine::{Feed, StateMachine};
use crate::parts::clients::{Answered, Done, Waiter};

impl<S: StateMachine> Bank<S> {
    /// Somebody wants to be told of transactions of a feed, once.
    pub fn follow(&mut self, Follow { waiter, feed, next }: Follow<S>, out: &mut Vec<Out<S>>) {
        self.do_later(Follower { waiter, feed, asked: next, next }.into_task(), out);
    }

    pub(super) fn look_for(&self, follower: &Follower<S>) -> Lookup<S> {
        let Follower { feed, next, .. } = follower;
        self.ledger.feed(feed, *next, self.portions.follow_scan, self.portions.follow_page)
    }

    /// Tells a follower what was found, or keeps it until there is something.
    pub(super) fn followed(
        &mut self,
        mut follower: Follower<S>,
        answer: Result<S::Answer, Refusal>,
        out: &mut Vec<Out<S>>,
    ) {
        let found = answer.ok().and_then(|answer| follower.feed.entries(answer));
        let Some((entries, next)) = found else { unreachable!("no entries are the answer to {:?}", follower.feed) };
        follower.next = next;
        if !entries.is_empty() || next - follower.asked >= self.portions.follow_scan {
            let Waiter { client, tag } = follower.waiter;
            let entries = self.followed_by(&client, &follower.feed, entries);
            let result = Ok(Done::Followed { entries, next });
            self.tell(client, Answered { tag, slot: None, index: None, replayed: false, result }, out);
        } else if next <= self.ledger.history().entries {
            // It came while the others were looked at.
            self.do_later(follower.into_task(), out);
        } else {
            self.work.followers.push(follower);
        }
    }

    /// Sees to it that those who follow are told of what is new.
    pub(super) fn tell_followers(&mut self, out: &mut Vec<Out<S>>) {
        let newest = self.ledger.history().entries;
        let mut followers = std::mem::take(&mut self.work.followers);
        for follower in followers.extract_if(.., |follower| follower.next <= newest) {
            self.do_later(follower.into_task(), out);
        }
        self.work.followers = followers;
    }
}
