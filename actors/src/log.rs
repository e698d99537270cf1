//! The log actor: the one writer of the log, on a thread of its own.
//!
//! Writes are grouped: whatever waits when a commit ends goes into the next one, together, and is reported together. The
//! first storage error stops the node: a commit that failed may be there after a restart, so nothing may go on from it.
//!
//! What a snapshot covers is removed bit by bit, with writes that are due anyway or, where there are none, alone.

use actix::prelude::*;
use rabia_bank_messages::promise::Commit;
use rabia_bank_storage::LogStore;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::sabotage::{Rule, is_broken};

use crate::consensus::agreement::Ticket;
use crate::node::{Failed, Gauges, Stop};

/// Make this durable. Answered with [`Persisted`].
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Persist {
    /// Its number, ascending.
    pub ticket: Ticket,
    /// What to write.
    pub commit: Commit,
}

/// All writes up to this ticket are durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Persisted(pub Ticket);

/// A durable snapshot covers these decided slots: they may go.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Compact {
    /// The last of them.
    pub upto: Slot,
}

/// Comes behind all that waits in the mailbox when the first write of a group arrived.
#[derive(Message)]
#[rtype(result = "()")]
struct Write;

/// Owns the store.
pub struct Log {
    store: LogStore,
    waiting: Commit,
    ticket: Ticket,
    scheduled: bool,
    failed: bool,
    /// Slots up to this one are to be removed.
    compact: Slot,
    gauges: Arc<Gauges>,
    persisted: Recipient<Persisted>,
    node: Recipient<Failed>,
}

impl Log {
    /// The writer of `store`.
    pub fn new(store: LogStore, gauges: Arc<Gauges>, persisted: Recipient<Persisted>, node: Recipient<Failed>) -> Log {
        Log {
            store,
            waiting: Commit::default(),
            ticket: 0,
            scheduled: false,
            failed: false,
            compact: 0,
            gauges,
            persisted,
            node,
        }
    }
}

impl Log {
    fn schedule(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.scheduled, true) {
            ctx.notify(Write);
        }
    }

    /// Blocks this thread for the time of one sync: it has nothing else to do.
    fn write(&mut self, ctx: &mut Context<Self>) {
        self.scheduled = false;
        if self.failed {
            return;
        }
        let mut commit = std::mem::take(&mut self.waiting);
        commit.compact = self.store.next_compaction(self.compact);
        if is_broken(Rule::CommittedFirst) {
            self.persisted.do_send(Persisted(self.ticket));
        }
        match self.store.commit(&commit) {
            Ok(()) => {
                self.gauges.commits.fetch_add(1, Ordering::Relaxed);
                self.persisted.do_send(Persisted(self.ticket));
                if self.store.next_compaction(self.compact).is_some() {
                    self.schedule(ctx);
                }
            }
            Err(error) => {
                self.failed = true;
                self.node.do_send(Failed((&error).into()));
            }
        }
    }
}

impl Actor for Log {
    type Context = Context<Self>;
}

impl Handler<Persist> for Log {
    type Result = ();

    fn handle(&mut self, Persist { ticket, commit }: Persist, ctx: &mut Self::Context) {
        assert!(ticket > self.ticket, "ticket {ticket} after {}", self.ticket);
        self.ticket = ticket;
        self.waiting.add(commit);
        self.schedule(ctx);
    }
}

impl Handler<Compact> for Log {
    type Result = ();

    fn handle(&mut self, Compact { upto }: Compact, ctx: &mut Self::Context) {
        self.compact = self.compact.max(upto);
        self.schedule(ctx);
    }
}

impl Handler<Write> for Log {
    type Result = ();

    fn handle(&mut self, _: Write, ctx: &mut Self::Context) {
        self.write(ctx);
    }
}

impl Handler<Stop> for Log {
    type Result = ();

    /// Writes what waits, and lets go of the store.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        if self.scheduled {
            self.write(ctx);
        }
        ctx.stop();
    }
}
