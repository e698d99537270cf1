//! The log actor: the one writer of the store, on a thread of its own.
//!
//! Writes are grouped: whatever waits when a commit ends goes into the next one, together, and is reported together. The
//! first storage error stops the node: a commit that failed may be there after a restart, so nothing may go on from it.

use actix::prelude::*;
use rabia_bank_storage::{Commit, LogStore};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::consensus::agreement::Ticket;
use crate::node::{Failed, Gauges};

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
    gauges: Arc<Gauges>,
    persisted: Recipient<Persisted>,
    node: Recipient<Failed>,
}

impl Log {
    /// The writer of `store`.
    pub fn new(store: LogStore, gauges: Arc<Gauges>, persisted: Recipient<Persisted>, node: Recipient<Failed>) -> Log {
        Log { store, waiting: Commit::default(), ticket: 0, scheduled: false, failed: false, gauges, persisted, node }
    }
}

impl Actor for Log {
    type Context = Context<Self>;
}

impl Handler<Persist> for Log {
    type Result = ();

    fn handle(&mut self, Persist { ticket, mut commit }: Persist, ctx: &mut Self::Context) {
        assert!(ticket > self.ticket, "ticket {ticket} after {}", self.ticket);
        self.ticket = ticket;
        let waiting = &mut self.waiting;
        waiting.reserved = waiting.reserved.max(commit.reserved);
        waiting.records.append(&mut commit.records);
        waiting.payloads.append(&mut commit.payloads);
        waiting.decisions.append(&mut commit.decisions);
        waiting.peers.append(&mut commit.peers);
        if !commit.heard.is_empty() {
            waiting.heard = commit.heard;
        }
        if !std::mem::replace(&mut self.scheduled, true) {
            ctx.notify(Write);
        }
    }
}

impl Handler<Write> for Log {
    type Result = ();

    /// Blocks this thread for the time of one sync: it has nothing else to do.
    fn handle(&mut self, _: Write, _: &mut Self::Context) {
        self.scheduled = false;
        if self.failed {
            return;
        }
        let commit = std::mem::take(&mut self.waiting);
        match self.store.commit(&commit) {
            Ok(()) => {
                self.gauges.commits.fetch_add(1, Ordering::Relaxed);
                self.persisted.do_send(Persisted(self.ticket));
            }
            Err(error) => {
                self.failed = true;
                self.node.do_send(Failed(error.to_string()));
            }
        }
    }
}
