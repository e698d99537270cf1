//! Work that clients ask for and that changes nothing: answers to queries, looks for transactions of a feed, and answers to commands
//! that need old transactions.
//!
//! It is done in turns of at most some 4,096 steps (`ledger::lookup`). A turn comes when everything else that was ready on this thread
//! has been done, so votes and commands go first. Whose work is done is decided fairly, first between owners, then
//! between the clients of each: a question that takes long goes on when the others had their turn, and so costs whoever asked it,
//! and nobody else. Work ends with its client or its deadline.
//!
//! An answer that needs a block of the history waits for it, fairly likewise, and few are read at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::bank::Success;
use tokio::task::yield_now;

use super::Bank;
use super::tasks::{Job, Purpose, Task};
use crate::failure::Failure;
use crate::ledger::{Block, Lookup, MOST_AT_ONCE, Progress};
use crate::mail::client_session::{Answered, Answers, Done, Waiter};
use crate::mail::node::Failed;
use crate::snapshot::BooksError;

/// Steps of one turn: a quarter of a millisecond to half of one. The last task of a turn may take as many again.
const TURN: u64 = 4_096;
/// Steps that one task takes in a turn.
const SLICE: u64 = 4_096;
const _: () = assert!(SLICE >= MOST_AT_ONCE);
/// Steps that a task counts for at least: it is taken from a queue, and its answer sent.
const LEAST: u64 = 16;
/// Steps that the status of the node counts for.
const STATUS: u64 = 512;
/// A turn that was full is followed by this pause while commands are being applied: these take several turns of this thread each, and
/// on a machine with few processors, of other nodes' threads as well.
const PAUSE: Duration = Duration::from_millis(1);
/// Commands are being applied if the last one was within this time.
const BUSY: Duration = Duration::from_millis(100);
/// Blocks that are being read, or about to be.
const MAX_READING: usize = 2;

impl Bank {
    /// Makes an answer when it is its turn.
    pub(super) fn answer_later(&mut self, waiter: Waiter, purpose: Purpose, lookup: Lookup) {
        let job = Job::Answer { lookup: Box::new(lookup), purpose, given: None };
        self.work.push(Task { waiter, deadline: None, job });
    }

    /// Does something when it is its turn.
    pub(super) fn do_later(&mut self, task: Task, ctx: &mut Context<Self>) {
        self.work.push(task);
        self.go_on_working(ctx);
    }

    /// Lets a turn come if something is to be done.
    pub(super) fn go_on_working(&mut self, ctx: &mut Context<Self>) {
        if !self.work.ready.is_empty() && !std::mem::replace(&mut self.work.due, true) {
            // Behind all that is ready now, and a look at the sockets.
            ctx.spawn(yield_now().into_actor(self).map(|(), bank, ctx| bank.work(ctx)));
        }
    }

    fn is_wanted(&self, task: &Task, now: Instant) -> bool {
        let is_there = match &task.job {
            Job::Follow(follower) | Job::Answer { purpose: Purpose::Follow(follower), .. } => follower.is_there(),
            Job::Status | Job::Answer { .. } => !task.waiter.client.is_gone(),
        };
        is_there && task.deadline.is_none_or(|deadline| deadline > now)
    }

    /// One turn.
    fn work(&mut self, ctx: &mut Context<Self>) {
        self.work.due = false;
        let began = Instant::now();
        let mut left = TURN;
        while left > 0
            && let Some(task) = self.work.ready.pop()
        {
            if self.is_wanted(&task, began) {
                left = left.saturating_sub(self.do_task(task, ctx).max(LEAST));
            }
        }
        let busy = self.work.applied.is_some_and(|at| began - at < BUSY);
        if left == 0 && busy && !self.work.ready.is_empty() && !self.work.due {
            self.work.due = true;
            ctx.run_later(PAUSE, |bank, ctx| bank.work(ctx));
        } else {
            self.go_on_working(ctx);
        }
    }

    /// Does a part of a task, and says how many steps it took.
    fn do_task(&mut self, Task { waiter, deadline, job }: Task, ctx: &mut Context<Self>) -> u64 {
        let (mut lookup, purpose, given) = match job {
            Job::Status => {
                // Whoever looks after the node must hear of it also while it is in doubt.
                let result = Ok(Done::Success(Success::Status { status: Box::new(self.status()) }));
                let slot = Some(self.ledger.applied());
                let answers = vec![Answered { tag: waiter.tag, slot, index: None, replayed: false, result }];
                waiter.client.tell(Answers { answers, applied: None });
                return STATUS;
            }
            Job::Follow(follower) => (Box::new(self.look_for(&follower)), Purpose::Follow(follower), None),
            Job::Answer { lookup, purpose, given } => (lookup, purpose, given),
        };
        let mut left = SLICE;
        let progress = self.ledger.go_on(&mut lookup, &mut left);
        match (progress, purpose) {
            (Progress::Done(answer), Purpose::Command { slot, index, replayed }) => {
                let result = answer.map(Done::Success);
                let Waiter { client, tag } = waiter;
                self.tell(&client, Answered { tag, slot: Some(slot), index, replayed, result });
            }
            (Progress::Done(answer), Purpose::Query) => self.answer(&waiter, Some(lookup.slot()), answer),
            (Progress::Done(answer), Purpose::Follow(follower)) => self.followed(follower, answer, ctx),
            (Progress::Unfinished, purpose) => {
                let job = Job::Answer { lookup, purpose, given };
                self.work.push(Task { waiter, deadline, job });
            }
            // It would be read again, and again.
            (Progress::Block(number), _) if given == Some(number) => {
                let why =
                    format!("block {number} of the history in the books is damaged: its last transactions are missing");
                self.neighbours.node.do_send(Failed(Failure::Damaged(why)));
            }
            (Progress::Block(number), purpose) => {
                let job = Job::Answer { lookup, purpose, given };
                self.work.push_unread(Task { waiter, deadline, job }, number);
                self.read_blocks(ctx);
            }
        }
        SLICE - left
    }

    /// Has blocks read for the tasks that need them.
    fn read_blocks(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        while self.work.reading < MAX_READING
            && let Some((task, number)) = self.work.unread.pop()
        {
            if !self.is_wanted(&task, now) {
                continue;
            }
            let Some(reader) = &self.work.reader else { return };
            self.work.reading += 1;
            let block = reader.read(number);
            ctx.spawn(block.into_actor(self).map(move |block, bank, ctx| {
                bank.work.reading -= 1;
                match block {
                    Ok(block) => bank.take_block(task, number, block, ctx),
                    Err(_) => {
                        let why = "the thread that reads old transactions has ended";
                        bank.neighbours.node.do_send(Failed(why.to_owned().into()));
                    }
                }
                bank.read_blocks(ctx);
            }));
        }
    }

    fn take_block(&mut self, task: Task, number: u64, block: Result<Block, BooksError>, ctx: &mut Context<Self>) {
        let Task { waiter, deadline, job } = task;
        let Job::Answer { mut lookup, purpose, .. } = job else { unreachable!("only answers need blocks") };
        match block {
            Ok(block) => {
                lookup.give(Arc::new(block));
                let job = Job::Answer { lookup, purpose, given: Some(number) };
                self.do_later(Task { waiter, deadline, job }, ctx);
            }
            Err(error) => self.neighbours.node.do_send(Failed((&error).into())),
        }
    }
}
