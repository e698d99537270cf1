//! What clients want of the bank that changes nothing, and that waits for its turn: see `work`.

use std::sync::Arc;
use std::time::Instant;

use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::Slot;

use super::reader::Reader;
use crate::consensus::turns::FairQueue;
use crate::ledger::Lookup;
use crate::mail::client_session::Waiter;

/// What is to be done.
pub(super) struct Task {
    /// For whom.
    pub(super) waiter: Waiter,
    /// Nobody waits for it any more after this time.
    pub(super) deadline: Option<Instant>,
    pub(super) job: Job,
}

pub(super) enum Job {
    /// Tell what state the node is in.
    Status,
    /// Begin to look for transactions of a feed.
    Follow(Follower),
    /// Make an answer.
    Answer {
        lookup: Box<Lookup>,
        purpose: Purpose,
        /// The block that it was given last.
        given: Option<u64>,
    },
}

/// What an answer is to.
pub(super) enum Purpose {
    Command { slot: Slot, index: Option<u32>, replayed: bool },
    Query,
    Follow(Follower),
}

/// All that is to be done.
#[derive(Default)]
pub(super) struct Work {
    pub(super) ready: FairQueue<Task>,
    /// Tasks that wait for a block to be read, by number.
    pub(super) unread: FairQueue<(Task, u64)>,
    pub(super) reading: usize,
    /// None until the bank has started.
    pub(super) reader: Option<Reader>,
    /// Those who wait for transactions that are not there yet.
    pub(super) followers: Vec<Follower>,
    /// The next turn is on its way.
    pub(super) due: bool,
    /// When the last slot was applied.
    pub(super) applied: Option<Instant>,
}

impl Work {
    /// Adds a task to those that can be done, in its client's turn.
    pub(super) fn push(&mut self, task: Task) {
        let (owner, client) = (task.waiter.client.owner(), task.waiter.client.id());
        self.ready.push(owner, client, task);
    }

    /// Adds a task to those that wait for a block, in its client's turn.
    pub(super) fn push_unread(&mut self, task: Task, block: u64) {
        let (owner, client) = (task.waiter.client.owner(), task.waiter.client.id());
        self.unread.push(owner, client, (task, block));
    }

    /// Drops followers that want no more.
    pub(super) fn sweep(&mut self) {
        self.followers.retain(Follower::is_there);
    }
}

/// One that wants to be told of transactions of a feed.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) waiter: Waiter,
    pub(super) feed: Arc<Feed>,
    /// Where it asked from.
    pub(super) asked: u64,
    /// What was looked at already lies below this.
    pub(super) next: u64,
}

impl Follower {
    /// Whether the asker still wants to know.
    pub(super) fn is_there(&self) -> bool {
        Arc::strong_count(&self.feed) > 1 && !self.waiter.client.is_gone()
    }
}
