//! What clients want of the bank that changes nothing, and that waits for its turn: see `work`.

use std::sync::Arc;
use std::time::Instant;

use rabia_bank_messages::bank::Status;
use rabia_bank_messages::ids::Slot;

use super::rates::Rates;
use crate::consensus::turns::FairQueue;
use crate::ledger::lookup::Lookup;
use crate::ledger::machine::StateMachine;
use crate::parts::clients::Waiter;

/// What is to be done.
pub(super) struct Task<S: StateMachine> {
    pub(super) waiter: Waiter<S>,
    /// Nobody waits for it any more after this time.
    pub(super) deadline: Option<Instant>,
    pub(super) job: Job<S>,
}

impl<S: StateMachine> Task<S> {
    /// Whether somebody still waits for it.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        let is_there = match &self.job {
            Job::Follow(follower) | Job::Answer { purpose: Purpose::Follow(follower), .. } => follower.is_there(),
            Job::Status(_) | Job::Answer { .. } => !self.waiter.client.is_gone(),
        };
        is_there && self.deadline.is_none_or(|deadline| deadline > now)
    }
}

pub(super) enum Job<S: StateMachine> {
    /// Tell what state the node is in, in an answer that is made this way.
    Status(fn(Box<Status>) -> S::Answer),
    /// Begin to look for transactions of a feed.
    Follow(Follower<S>),
    /// Go on with an answer that takes several steps.
    Answer {
        lookup: Box<Lookup<S>>,
        purpose: Purpose<S>,
        /// The block that it was given last.
        given: Option<u64>,
    },
}

/// What an answer is to.
pub(super) enum Purpose<S: StateMachine> {
    Command { slot: Slot, index: Option<u32>, replayed: bool },
    Query(S::Query),
    Follow(Follower<S>),
}

/// All that is to be done.
pub(super) struct Work<S: StateMachine> {
    pub(super) ready: FairQueue<Task<S>>,
    /// Tasks that wait for a block to be read, by number.
    pub(super) unread: FairQueue<(Task<S>, u64)>,
    /// Tasks whose block is being read, by number.
    pub(super) reading: Vec<(u64, Task<S>)>,
    /// Those who wait for transactions that are not there yet.
    pub(super) followers: Vec<Follower<S>>,
    /// The next turn is on its way.
    pub(super) due: bool,
    /// What owners have had of their steps a second.
    pub(super) rates: Rates,
    /// A turn is on its way for what rests: it comes then.
    pub(super) rests_until: Option<Instant>,
    /// When the last slot was applied.
    pub(super) applied: Option<Instant>,
}

impl<S: StateMachine> Default for Work<S> {
    fn default() -> Work<S> {
        Work {
            ready: FairQueue::default(),
            unread: FairQueue::default(),
            reading: Vec::new(),
            followers: Vec::new(),
            due: false,
            rates: Rates::default(),
            rests_until: None,
            applied: None,
        }
    }
}

impl<S: StateMachine> Work<S> {
    /// Adds a task to those that can be done, in its client's turn.
    pub(super) fn push(&mut self, task: Task<S>) {
        let (owner, client) = (task.waiter.client.owner(), task.waiter.client.id());
        self.ready.push(owner, client, task);
    }

    /// Takes the task whose turn it is, of an owner that has so many steps a second.
    pub(super) fn pop(&mut self, now: Instant, a_second: u64) -> Option<Task<S>> {
        let Work { ready, rates, .. } = self;
        ready.pop_of(|owner| rates.may(owner, now, a_second))
    }

    /// Adds a task to those that wait for a block, in its client's turn.
    pub(super) fn push_unread(&mut self, task: Task<S>, block: u64) {
        let (owner, client) = (task.waiter.client.owner(), task.waiter.client.id());
        self.unread.push(owner, client, (task, block));
    }

    /// Drops followers that want no more.
    pub(super) fn sweep(&mut self, now: Instant, a_second: u64) {
        self.followers.retain(Follower::is_there);
        self.rates.sweep(now, a_second);
    }
}

/// One that wants to be told of transactions of a feed.
#[derive(Debug)]
pub(super) struct Follower<S: StateMachine> {
    pub(super) waiter: Waiter<S>,
    pub(super) feed: Arc<S::Feed>,
    /// Where it asked from.
    pub(super) asked: u64,
    /// What was looked at already lies below this.
    pub(super) next: u64,
}

impl<S: StateMachine> Follower<S> {
    /// Whether the asker still wants to know.
    pub(super) fn is_there(&self) -> bool {
        Arc::strong_count(&self.feed) > 1 && !self.waiter.client.is_gone()
    }

    /// The work of looking through the entries that come next.
    pub(super) fn into_task(self) -> Task<S> {
        Task { waiter: self.waiter.clone(), deadline: None, job: Job::Follow(self) }
    }
}
