//! Answers in steps: nobody's question may keep the node from its other work, however much has to be looked at for it.
//!
//! An answer is begun ([`Replicated::query`](crate::replicated::Replicated::query), [`render`](crate::replicated::Replicated::render),
//! [`feed`](crate::replicated::Replicated::feed)) and then goes on by as many steps as it is allowed each time
//! ([`go_on`](crate::replicated::Replicated::go_on)). What a step is, the machine says: of the bank, a record or an account that is looked at.
//!
//! The ledger reads no disk. An answer that needs a block of the history says which ([`Progress::Block`]),
//! and goes on where it was when it was given that block ([`Lookup::give`]).

use std::sync::Arc;

use rabia_bank_messages::ids::Slot;

use crate::machine::{Begun, Given, Progress, StateMachine, Task};

/// An answer that is being made.
#[derive(Debug)]
pub struct Lookup<S: StateMachine> {
    work: Begun<S>,
    blocks: Given<S::Block>,
    slot: Slot,
}

impl<S: StateMachine> Lookup<S> {
    pub(crate) fn new(work: Begun<S>, slot: Slot) -> Lookup<S> {
        Lookup { work, blocks: Given::default(), slot }
    }

    /// Gives it the block that it needs.
    pub fn give(&mut self, block: Arc<S::Block>) {
        self.blocks.add(block);
    }

    /// Whether the answer is there already: beginning with it was all that there was to do.
    pub fn is_ready(&self) -> bool {
        matches!(self.work, Begun::Done(_))
    }

    /// The slot whose state the answer shows, once there is an answer.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    pub(crate) fn go_on(&mut self, machine: &mut S, applied: Slot, steps: &mut u64) -> Progress<S::Answer> {
        if let Begun::Task(task) = &self.work {
            if !task.prepare(machine, steps) {
                return Progress::Unfinished;
            }
            // What is read at once shows the moment when it is read, which may be long after the question was asked.
            if task.sees_now() {
                self.slot = applied;
            }
        }
        self.run(machine, steps)
    }

    pub(crate) fn at_hand(mut self, machine: &S) -> Progress<S::Answer> {
        match &self.work {
            Begun::Task(task) if task.needs_preparation() => Progress::Unfinished,
            _ => self.run(machine, &mut u64::MAX.clone()),
        }
    }

    fn run(&mut self, machine: &S, steps: &mut u64) -> Progress<S::Answer> {
        match &mut self.work {
            Begun::Done(answer) => Progress::Done(answer.clone()),
            Begun::Task(task) => task.run(machine, &self.blocks, steps),
        }
    }
}
