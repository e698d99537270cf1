//! The log actor: the one writer of the log, on a thread of its own. Which writes share a commit is the [part](crate::parts::log)'s
//! matter. The first storage error stops the node.

use std::sync::Arc;

use actix::prelude::*;
use rabia_bank_storage::LogStore;

use crate::mail::log::{Compact, LogInbox, Persist};
use crate::mail::node::{Failed, Stop};
use crate::mail::voter::Persisted;
use crate::metrics::Metrics;
use crate::parts::log::{self, Begun};

/// Comes behind all that waits in the mailbox when the first write of a group arrived.
#[derive(Message)]
#[rtype(result = "()")]
struct Write;

/// The only writer of the log's file.
pub struct Log {
    part: log::Log,
    store: LogStore,
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
        Log { part: log::Log::default(), store, metrics, persisted, node }
    }

    /// Blocks this thread for the time of one sync: it has nothing else to do.
    fn write(&mut self, ctx: &mut Context<Self>) {
        let Some(Begun { commit, reported }) = self.part.begin(|upto| self.store.next_compaction(upto)) else { return };
        if let Some(ticket) = reported {
            self.persisted.do_send(Persisted(ticket));
        }
        if let Err(error) = self.store.commit(&commit) {
            self.part.failed();
            return self.node.do_send(Failed((&error).into()));
        }
        self.metrics.note_commit();
        let ended = self.part.written(|upto| self.store.next_compaction(upto));
        if let Some(ticket) = ended.persisted {
            self.persisted.do_send(Persisted(ticket));
        }
        if ended.due {
            ctx.notify(Write);
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
        if self.part.persist(ticket, commit) {
            ctx.notify(Write);
        }
    }
}

impl Handler<Compact> for Log {
    type Result = ();

    fn handle(&mut self, Compact { upto }: Compact, ctx: &mut Self::Context) {
        if self.part.compact(upto) {
            ctx.notify(Write);
        }
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
        self.write(ctx);
        ctx.stop();
    }
}
