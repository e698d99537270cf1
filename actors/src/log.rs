//! The log actor: the one writer of the log, on a thread of its own.
//!
//! Writes are grouped: whatever waits when a commit ends goes into the next one, together, and is reported together. The
//! first storage error stops the node: a commit that failed may be there after a restart, so nothing may go on from it.
//!
//! What a snapshot covers is removed bit by bit, with writes that are due anyway or, where there are none, alone.

use std::sync::Arc;

use actix::prelude::*;
use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::promise::Commit;
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::LogStore;

use crate::consensus::agreement::Ticket;
use crate::mail::log::{Compact, LogInbox, Persist};
use crate::mail::node::{Failed, Stop};
use crate::mail::voter::Persisted;
use crate::metrics::Metrics;

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
    metrics: Arc<Metrics>,
    persisted: Recipient<Persisted>,
    node: Recipient<Failed>,
}

impl Log {
    /// The writer of `store`.
    pub fn new(
        store: LogStore,
        metrics: Arc<Metrics>,
        persisted: Recipient<Persisted>,
        node: Recipient<Failed>,
    ) -> Log {
        Log {
            store,
            waiting: Commit::default(),
            ticket: 0,
            scheduled: false,
            failed: false,
            compact: 0,
            metrics,
            persisted,
            node,
        }
    }

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
                self.metrics.note_commit();
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

impl From<&Addr<Log>> for LogInbox {
    fn from(log: &Addr<Log>) -> LogInbox {
        LogInbox { persist: log.clone().recipient(), compact: log.clone().recipient() }
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
