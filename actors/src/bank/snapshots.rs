//! Snapshots of the state: when one is due, and how it is taken while the bank goes on. It freezes the ledger between two slots,
//! collects what changed bit by bit between other messages, and hands it to the snapshotter.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::ids::{Digest, NodeId, Slot};
use rabia_bank_storage::BooksView;
use tokio::sync::oneshot;

use super::Bank;
use crate::ledger::Ledger;
use crate::node::Decision;
use crate::snapshot::Snapshot;
use crate::snapshotter::Save;

/// The snapshot up to this slot, with these transactions, is durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Saved {
    /// The slot.
    pub slot: Slot,
    /// The newest transaction in it.
    pub transactions: u64,
}

/// The books on disk stand after this slot by now, by a state that came from a peer, and the snapshot that was to be saved is
/// not needed any more.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Superseded(pub Slot);

/// Go on from this state, which is further than this node's own.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Install {
    /// The state.
    pub ledger: Box<Ledger>,
    /// The hash of the log up to it.
    pub hash: Digest,
    /// The decisions before it that owners of coming slots are read from.
    pub decisions: Vec<Decision>,
}

/// Take a snapshot of the state as it is now, unless the last one is. Answered with the books when it is durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<BooksView, String>")]
pub struct TakeSnapshot;

/// When a snapshot is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotPolicy {
    /// After so many bytes of batches …
    pub bytes: u64,
    /// … or so many slots, whichever comes first.
    pub slots: u64,
}

impl SnapshotPolicy {
    /// What a node counts for its first snapshot before anything comes, of the bytes and slots that the log has behind the books. The
    /// nodes of a cluster take theirs in turn, so that while one is busy with it the others are not; so the log of one that is killed
    /// again and again may become nearly twice as long as the policy says.
    pub(super) fn at_start(self, me: NodeId, members: usize, (bytes, slots): (u64, u64)) -> (u64, u64) {
        let part = |whole: u64, turn: usize| whole / members as u64 * turn as u64;
        let count = |whole: u64, replayed: u64| {
            let later = part(whole, members - 1 - me.index());
            part(whole, me.index()).max(replayed.saturating_sub(later))
        };
        (count(self.bytes, bytes), count(self.slots, slots))
    }
}

/// What the next snapshot is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SnapshotStage {
    Waiting,
    Collecting,
    Saving,
}

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
        let saved = self.gauges.snapshot_slot.load(Ordering::Relaxed);
        if self.snapshot != SnapshotStage::Waiting || self.ledger.applied() <= saved {
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
        self.snapshotter.do_send(Save(Snapshot { changes, decisions, log_hash }));
    }
}

impl Handler<Saved> for Bank {
    type Result = ();

    fn handle(&mut self, Saved { slot, transactions }: Saved, ctx: &mut Self::Context) {
        self.ledger.forget(transactions);
        self.saved(slot, ctx);
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
        if wanted > self.gauges.snapshot_slot.load(Ordering::Relaxed) {
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
        self.gauges.applied_slot.store(new, Ordering::Relaxed);
        self.tell_time();
        // Slots were skipped, and what was answered in them is not known.
        let waiters = std::mem::take(&mut self.expected);
        self.abandon(waiters.into_values());
        self.saved(new, ctx);
        self.read_due(ctx);
        self.tell_followers(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_their_first_snapshots_in_turn_and_do_not_put_them_off_for_ever() {
        let policy = SnapshotPolicy { bytes: 300, slots: 3_000 };
        let at_start =
            |bytes, slots| [1, 2, 3].map(|node| policy.at_start(NodeId::new(node).unwrap(), 3, (bytes, slots)));
        assert_eq!(at_start(0, 0), [(0, 0), (100, 1_000), (200, 2_000)]);
        assert_eq!(at_start(290, 2_900), [(90, 900), (190, 1_900), (290, 2_900)]);
        assert!(at_start(500, 0).iter().all(|(bytes, _)| *bytes >= policy.bytes));
        assert!(at_start(0, 5_000).iter().all(|(_, slots)| *slots >= policy.slots));
        assert_eq!(policy.at_start(NodeId::new(1).unwrap(), 1, (290, 7)), (290, 7));
    }
}
