//! Snapshots of the state: when one is due, and how it is taken while the bank goes on. It freezes the ledger between two slots,
//! collects what changed bit by bit between other messages, and hands it to the snapshotter.

use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::ids::{Digest, Slot};
use rabia_bank_storage::BooksView;
use tokio::sync::oneshot;

use super::Bank;
use super::policy::SnapshotStage;
use crate::mail::bank::{Install, Received, Saved, Superseded, TakeSnapshot};
use crate::mail::snapshotter::Save;
use crate::snapshot::Snapshot;

/// A snapshot is collected in so many parts, of one step at least: half a millisecond or more each …
const PARTS: usize = 512;
/// … with this pause before the next, so that requests, which need several turns of this thread, are hardly slower meanwhile. Where
/// the pause becomes longer, since there is much to apply, more parts follow: for half as long as it was …
const BETWEEN_PARTS: Duration = Duration::from_millis(1);
/// … but no longer than this. Otherwise a snapshot under load took so long that the log behind it grew and grew.
const MOST_AT_ONCE: Duration = Duration::from_millis(10);

impl Bank {
    /// The books on disk stand after this slot or a later one: the snapshot that was under way is durable, or superfluous.
    fn saved(&mut self, slot: Slot, ctx: &mut Context<Self>) {
        self.saved = self.saved.max(slot);
        if self.snapshot == SnapshotStage::Saving {
            self.snapshot = SnapshotStage::Waiting;
        }
        for (_, waiter) in self.snapshot_waiters.extract_if(.., |(wanted, _)| *wanted <= slot) {
            // Who asked may be gone.
            let _ = waiter.send(());
        }
        if !self.snapshot_waiters.is_empty() {
            self.begin_snapshot(ctx);
        }
        self.begin_snapshot_if_due(ctx);
    }

    pub(super) fn begin_snapshot_if_due(&mut self, ctx: &mut Context<Self>) {
        let (bytes, slots) = self.unsaved;
        if bytes >= self.policy.bytes || slots >= self.policy.slots {
            self.begin_snapshot(ctx);
        }
    }

    /// Begins a snapshot, unless one is under way or nothing has changed since the last one.
    fn begin_snapshot(&mut self, ctx: &mut Context<Self>) {
        if self.snapshot != SnapshotStage::Waiting || self.ledger.applied() <= self.saved {
            return;
        }
        self.unsaved = (0, 0);
        self.snapshot = SnapshotStage::Collecting;
        self.frozen = (self.decisions.iter().copied().collect(), self.log_hash);
        let part = self.ledger.freeze().div_ceil(PARTS);
        self.collect(part, Instant::now(), ctx);
    }

    /// Goes on collecting the snapshot, by parts of so many steps. The pause behind the last ones began at `paused`.
    fn collect(&mut self, part: usize, paused: Instant, ctx: &mut Context<Self>) {
        // A state that was installed meanwhile makes the snapshot superfluous.
        if self.snapshot != SnapshotStage::Collecting {
            return;
        }
        let began = Instant::now();
        let most = ((began - paused) / 2).min(MOST_AT_ONCE);
        let changes = loop {
            match self.ledger.collect(part) {
                Some(changes) => break changes,
                None if began.elapsed() < most => {}
                None => {
                    let paused = Instant::now();
                    ctx.run_later(BETWEEN_PARTS, move |bank, ctx| bank.collect(part, paused, ctx));
                    return;
                }
            }
        };
        self.snapshot = SnapshotStage::Saving;
        let (decisions, log_hash) = std::mem::replace(&mut self.frozen, (Vec::new(), Digest::ZERO));
        self.neighbours.snapshotter.save.do_send(Save(Snapshot { changes, decisions, log_hash }));
    }
}

impl Handler<Saved> for Bank {
    type Result = ();

    fn handle(&mut self, Saved { slot, transactions }: Saved, ctx: &mut Self::Context) {
        self.ledger.forget(transactions);
        self.saved(slot, ctx);
    }
}

impl Handler<Received> for Bank {
    type Result = ();

    fn handle(&mut self, Received(slot): Received, _: &mut Self::Context) {
        self.saved = self.saved.max(slot);
    }
}

impl Handler<Superseded> for Bank {
    type Result = ();

    fn handle(&mut self, Superseded(slot): Superseded, ctx: &mut Self::Context) {
        self.saved(slot, ctx);
    }
}

impl Handler<TakeSnapshot> for Bank {
    type Result = ResponseFuture<Result<BooksView, String>>;

    fn handle(&mut self, _: TakeSnapshot, ctx: &mut Self::Context) -> Self::Result {
        let (done, durable) = oneshot::channel();
        let wanted = self.ledger.applied();
        if wanted > self.saved {
            self.snapshot_waiters.push((wanted, done));
            self.begin_snapshot(ctx);
        } else {
            // The other end is there.
            let _ = done.send(());
        }
        let books = self.books.clone();
        Box::pin(async move {
            durable.await.map_err(|_| "the node is stopping".to_owned())?;
            books.view().map_err(|error| error.to_string())
        })
    }
}

impl Handler<Install> for Bank {
    type Result = ();

    fn handle(&mut self, Install { ledger, hash, decisions }: Install, ctx: &mut Self::Context) {
        let (own, new) = (self.ledger.applied(), ledger.applied());
        assert!(new > own, "a state after slot {new} would take the place of one after slot {own}");
        // One of the old state would be collected no further.
        self.snapshot = SnapshotStage::Waiting;
        let old = std::mem::replace(&mut self.ledger, *ledger);
        // A million accounts take a while to go: not on this thread.
        drop(tokio::task::spawn_blocking(move || drop(old)));
        self.decisions = decisions.into();
        self.log_hash = hash;
        self.unsaved = self.policy.at_start(self.me, self.genesis.members(), (0, 0));
        self.applied.set(new);
        self.tell_time();
        // Slots were skipped, and what was answered in them is not known.
        let waiters = std::mem::take(&mut self.expected);
        self.abandon(waiters.into_values());
        self.saved(new, ctx);
        self.read_due(ctx);
        self.tell_followers(ctx);
    }
}
