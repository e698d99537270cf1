//! Work that clients ask for and that changes nothing: answers to queries, looks for transactions of a feed, and answers to commands
//! that need old transactions.
//!
//! It is done in turns of at most some 4,096 steps (`ledger::lookup`). A turn comes when everything else that was ready on this thread
//! has been done, so votes and commands go first. Whose work is done is decided fairly, first between owners, then
//! between the clients of each: a question that takes long goes on when the others had their turn, and so costs whoever asked it,
//! and nobody else. An owner has so many steps a second, whoever else is there; beyond them its work rests. Work ends with its client or
//! its deadline.
//!
//! An answer that needs a block of the history waits for it, fairly likewise, and few are read at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tasks::{Job, Purpose, Task};
use super::{Bank, Out};
use crate::failure::Failure;
use crate::ledger::MOST_AT_ONCE;
use crate::ledger::lookup::Lookup;
use crate::ledger::machine::{Progress, StateMachine};
use crate::parts::clients::{Answered, Waiter};

/// How much of such work is done at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Portions {
    /// Steps of one turn: a quarter of a millisecond to half of one. The last task of a turn may take `slice` steps more.
    pub turn: u64,
    /// Steps that one task takes in a turn. A page of accounts is made at once, in [`MOST_AT_ONCE`] steps where it is a full one.
    pub slice: u64,
    /// Transactions that are looked at for a follower at a time. If none of them belongs to the feed, the follower is told how far that
    /// was.
    pub follow_scan: u64,
    /// Transactions that a follower is told of at a time: some 50 KB.
    pub follow_page: usize,
    /// Steps that one owner has a second, and at once after a while without: then its work rests, and that of others goes on.
    pub a_second: u64,
}

impl Default for Portions {
    fn default() -> Portions {
        const { assert!(SLICE >= MOST_AT_ONCE) };
        Portions { turn: 4_096, slice: SLICE, follow_scan: 4_096, follow_page: 256, a_second: A_SECOND }
    }
}

const SLICE: u64 = 4_096;
/// The records of four banks with a million accounts: some 40 % of what a thread can look at.
const A_SECOND: u64 = 4_000_000;
/// Steps that a task counts for at least: it is taken from a queue, and its answer sent.
const LEAST: u64 = 16;
/// Steps that the status of the node counts for.
const STATUS: u64 = 512;
/// A turn that was full is followed by this pause while commands are being applied: these take several turns of this thread each, and
/// on a machine with few processors, of other nodes' threads as well.
const PAUSE: Duration = Duration::from_millis(1);
/// Work of owners that have had their steps is looked at again this often.
const REST: Duration = Duration::from_millis(20);
/// Commands are being applied if the last one was within this time.
const BUSY: Duration = Duration::from_millis(100);
/// Blocks that are being read, or about to be.
const MAX_READING: usize = 2;

impl<S: StateMachine> Bank<S> {
    /// One turn of work: see [`Out::Work`].
    pub fn work(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        self.work.due = false;
        let (mut left, a_second) = (self.portions.turn, self.portions.a_second);
        while left > 0
            && let Some(task) = self.work.pop(now, a_second)
        {
            if task.is_wanted(now) {
                let owner = task.waiter.client.owner();
                let steps = self.do_task(now, task, out).max(LEAST);
                self.work.rates.note(owner, steps, now, a_second);
                left = left.saturating_sub(steps);
            }
        }
        if left > 0 && !self.work.ready.is_empty() {
            return self.rest(now, out);
        }
        let busy = self.work.applied.is_some_and(|at| now - at < BUSY);
        if left == 0 && busy && !self.work.ready.is_empty() && !self.work.due {
            self.work.due = true;
            out.push(Out::Work { pause: PAUSE });
        } else {
            self.go_on_working(out);
        }
    }

    /// All that is left belongs to owners that have had their steps of this second.
    fn rest(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        if self.work.rests_until.is_none_or(|until| until <= now) {
            self.work.rests_until = Some(now + REST);
            out.push(Out::Work { pause: REST });
        }
    }

    /// A block was read: see [`Out::ReadBlock`].
    pub fn block_read(&mut self, now: Instant, number: u64, block: Result<S::Block, Failure>, out: &mut Vec<Out<S>>) {
        let waits = self.work.reading.iter().position(|(wanted, _)| *wanted == number);
        let Some((_, task)) = waits.map(|place| self.work.reading.remove(place)) else {
            unreachable!("nobody waits for block {number}")
        };
        let Task { waiter, deadline, job } = task;
        let Job::Answer { mut lookup, purpose, .. } = job else { unreachable!("only answers need blocks") };
        match block {
            Ok(block) => {
                lookup.give(Arc::new(block));
                let job = Job::Answer { lookup, purpose, given: Some(number) };
                self.do_later(Task { waiter, deadline, job }, out);
            }
            Err(failure) => out.push(Out::Fail(failure)),
        }
        self.read_blocks(now, out);
    }

    /// Makes an answer when it is its turn.
    pub(super) fn answer_later(&mut self, waiter: Waiter<S>, purpose: Purpose<S>, lookup: Lookup<S>) {
        let job = Job::Answer { lookup: Box::new(lookup), purpose, given: None };
        self.work.push(Task { waiter, deadline: None, job });
    }

    /// Does something when it is its turn.
    pub(super) fn do_later(&mut self, task: Task<S>, out: &mut Vec<Out<S>>) {
        self.work.push(task);
        self.go_on_working(out);
    }

    /// Lets a turn come if something is to be done.
    pub(super) fn go_on_working(&mut self, out: &mut Vec<Out<S>>) {
        if !self.work.ready.is_empty() && !std::mem::replace(&mut self.work.due, true) {
            out.push(Out::Work { pause: Duration::ZERO });
        }
    }

    /// Does a part of a task, and says how many steps it took.
    fn do_task(&mut self, now: Instant, Task { waiter, deadline, job }: Task<S>, out: &mut Vec<Out<S>>) -> u64 {
        let (mut lookup, purpose, given) = match job {
            Job::Status(answer) => {
                out.push(Out::Status { to: waiter, answer });
                return STATUS;
            }
            Job::Follow(follower) => (Box::new(self.look_for(&follower)), Purpose::Follow(follower), None),
            Job::Answer { lookup, purpose, given } => (lookup, purpose, given),
        };
        let mut left = self.portions.slice;
        let progress = self.ledger.go_on(&mut lookup, &mut left);
        match (progress, purpose) {
            (Progress::Done(answer), Purpose::Command { slot, index, replayed }) => {
                let Waiter { client, tag } = waiter;
                let result = self.shown(&client, answer);
                self.tell(client, Answered { tag, slot: Some(slot), index, replayed, result }, out);
            }
            (Progress::Done(answer), Purpose::Query(query)) => {
                let answer = self.read_by(&waiter.client, &query, answer);
                self.answer(waiter, Some(lookup.slot()), answer, out);
            }
            (Progress::Done(answer), Purpose::Follow(follower)) => self.followed(follower, answer, out),
            (Progress::Unfinished, purpose) => {
                let job = Job::Answer { lookup, purpose, given };
                self.work.push(Task { waiter, deadline, job });
            }
            // It would be read again, and again.
            (Progress::Block(number), _) if given == Some(number) => {
                let why =
                    format!("block {number} of the history in the books is damaged: its last transactions are missing");
                out.push(Out::Fail(Failure::Damaged(why)));
            }
            (Progress::Block(number), purpose) => {
                let job = Job::Answer { lookup, purpose, given };
                self.work.push_unread(Task { waiter, deadline, job }, number);
                self.read_blocks(now, out);
            }
        }
        self.portions.slice - left
    }

    /// Has blocks read for the tasks that need them.
    fn read_blocks(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        while self.work.reading.len() < MAX_READING
            && let Some((task, number)) = self.work.unread.pop()
        {
            if task.is_wanted(now) {
                self.work.reading.push((number, task));
                out.push(Out::ReadBlock(number));
            }
        }
    }
}
