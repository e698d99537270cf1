//! The snapshotter actor: keeps the books on disk, and serves peers that lack decided slots.
//!
//! - **Saving.** The bank hands over what changed; it is written off the core's thread, in one transaction. When it is durable the
//!   bank forgets old transactions, and the log goes but for a tail: back to the snapshot before, for peers that are a
//!   little behind, and to the snapshot that a peer is being sent.
//! - **Serving.** A peer gets decided slots from the log. Where the log does not go back so far it is told so, and asks for a
//!   snapshot, piece by piece (module `offer`). One answer a peer is under way at most: a peer that asks again meanwhile is
//!   answered once, with what it asked last.
//! - **Receiving.** The other side of it (module `transfer`). What is received is verified and stored off the core's thread; then
//!   the voter and the bank go on from there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::ids::{Digest, MAX_NODES, NodeId, Slot};
use rabia_bank_messages::peer::{PeerMessage, SnapshotCursor};
use rabia_bank_storage::{BooksReader, BooksStore, BooksView, Entries, LogReader, StoreError};
use tracing::{info, warn};

use crate::failure::Failure;
use crate::mail::bank::{BankInbox, Received, Saved, Standpoint, Superseded, TellStandpoint};
use crate::mail::log::{Compact, LogInbox};
use crate::mail::node::{Failed, Stop};
use crate::mail::peer_link::Links;
use crate::mail::snapshotter::{
    AboutSnapshot, Linked, LookUp, Save, SendEntries, SendHash, SendStored, SnapshotterInbox,
};
use crate::mail::voter::{Installed, LookedUp, OtherHistory, VoterInbox};
use crate::metrics::Metrics;
use desk::{Answer, Desk, Job, Outcome, SnapshotWanted};

pub mod desk;
pub mod offer;
mod transfer;

/// The most bytes of decided slots in one answer, so that other messages to the peer get between.
const ENTRIES_BYTES: usize = 1 << 20;
/// Payloads that are read from the log for one peer at a time. It asks again for others.
const MAX_FETCHES: usize = 8;
/// A peer that has not asked for so long does not need the snapshot any more that it was sent, nor the log behind it.
const OFFER_KEPT: Duration = Duration::from_secs(60);
/// Rows that do not come are asked for again after this time …
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// … and after so many times of another peer.
const ASK_OTHERS: u32 = 2;
/// After a snapshot was received the decided slots behind it are asked for, also of peers whose log does not go back so
/// far: for this time that is no reason to ask for another snapshot.
const SETTLE: Duration = Duration::from_secs(10);
/// How often it is said how far a snapshot is that is being received.
const REPORT: Duration = Duration::from_secs(2);
/// How often peers and offers are looked after.
const SWEEP: Duration = Duration::from_secs(1);

/// The snapshot that a peer is being sent.
struct Offered {
    slot: Slot,
    /// None while rows are read from it, and when all were sent.
    view: Option<BooksView>,
    /// Rows are read from it.
    reading: bool,
    used: Instant,
}

impl Offered {
    /// Whether all rows of the snapshot at this slot were sent.
    fn is_sent(&self, slot: Slot) -> bool {
        self.slot == slot && self.view.is_none()
    }
}

/// The snapshot that is being received.
struct Receiving {
    from: NodeId,
    /// When it was said last how far it is.
    reported: Instant,
    /// None until it is known.
    wanted: Option<SnapshotWanted>,
    asked: Instant,
    tries: u32,
}

/// The actors that the snapshotter speaks to.
pub struct SnapshotterNeighbours {
    /// Forgets what is durable.
    pub bank: BankInbox,
    /// Goes on from a state that came from a peer.
    pub voter: VoterInbox,
    /// Removes what is not needed.
    pub log: LogInbox,
    /// One a peer.
    pub links: Links,
    /// Stops the node.
    pub node: Recipient<Failed>,
}

/// Saves, serves, receives and compares.
pub struct Snapshotter {
    reader: LogReader,
    books: BooksReader,
    /// None while it works.
    desk: Option<Desk>,
    jobs: VecDeque<Job>,
    /// The slot of the last snapshot.
    saved: Slot,
    offers: [Option<Offered>; MAX_NODES],
    receiving: Option<Receiving>,
    installed: Option<Instant>,
    neighbours: SnapshotterNeighbours,
    /// Peers that an answer is being read for, and what they asked meanwhile.
    serving: [Option<Option<SendEntries>>; MAX_NODES],
    /// Payloads that are being read for each peer.
    fetches: [usize; MAX_NODES],
    /// Whether the link to each peer works.
    linked: [bool; MAX_NODES],
    metrics: Arc<Metrics>,
}

impl Snapshotter {
    /// The snapshotter of a node with this log and these books.
    pub fn new(
        reader: LogReader,
        store: BooksStore,
        neighbours: SnapshotterNeighbours,
        metrics: Arc<Metrics>,
    ) -> Snapshotter {
        let (books, saved) = (store.reader(), store.slot());
        metrics.note_snapshot(saved);
        Snapshotter {
            reader,
            books,
            desk: Some(Desk::new(store)),
            jobs: VecDeque::new(),
            saved,
            offers: [const { None }; MAX_NODES],
            receiving: None,
            installed: None,
            neighbours,
            serving: [None; MAX_NODES],
            fetches: [0; MAX_NODES],
            linked: [false; MAX_NODES],
            metrics,
        }
    }

    fn fail(&self, why: impl Into<Failure>) {
        self.neighbours.node.do_send(Failed(why.into()));
    }

    // ----- the books -----

    /// Does the next job, if none is under way.
    fn work(&mut self, ctx: &mut Context<Self>) {
        // A job stays in its place until the desk is free.
        let Some(mut desk) = self.desk.take() else { return };
        let Some(job) = self.jobs.pop_front() else {
            self.desk = Some(desk);
            return;
        };
        let working = tokio::task::spawn_blocking(move || {
            let outcome = desk.work(job);
            (desk, outcome)
        });
        ctx.spawn(working.into_actor(self).map(|worked, snapshotter, ctx| {
            match worked {
                Ok((desk, outcome)) => {
                    snapshotter.desk = Some(desk);
                    snapshotter.worked(outcome);
                    snapshotter.work(ctx);
                }
                // Half a snapshotter must not go on. If the runtime is going down nobody hears this.
                Err(error) => snapshotter.fail(format!("working on the books failed: {error}")),
            }
        }));
    }

    fn worked(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Saved { slot, transactions } => {
                info!(slot, transactions, "a snapshot is durable");
                self.metrics.note_snapshot(slot);
                self.neighbours.bank.saved.do_send(Saved { slot, transactions });
                self.neighbours.log.compact.do_send(Compact { upto: self.keep_log_from() });
                self.saved = slot;
            }
            Outcome::Ask(wanted) => {
                if let Some(receiving) = &mut self.receiving {
                    receiving.wanted = Some(wanted);
                    receiving.tries = 0;
                    if receiving.reported.elapsed() >= REPORT {
                        receiving.reported = Instant::now();
                        let SnapshotWanted { slot, at, received } = wanted;
                        let mib = received >> 20;
                        info!(peer = %receiving.from, slot, mib, part = ?at.part, row = at.row, "receiving a snapshot");
                    }
                    self.metrics.note_received(wanted.received);
                }
                self.ask();
            }
            Outcome::Installed { slot, hash, ledger, decisions } => {
                info!(slot, "a snapshot was received and is durable");
                self.receiving = None;
                self.installed = Some(Instant::now());
                self.saved = slot;
                self.metrics.note_snapshot(slot);
                self.metrics.note_received(0);
                self.neighbours.bank.received.do_send(Received(slot));
                self.neighbours.voter.installed.do_send(Installed { slot, hash, ledger, decisions });
            }
            Outcome::Overtaken { slot } => {
                info!(slot, "a snapshot is not needed any more: the slots came one by one meanwhile");
                self.receiving = None;
                self.metrics.note_received(0);
            }
            Outcome::GaveUp(why) => {
                let from = self.receiving.take().map(|receiving| receiving.from);
                self.metrics.note_received(0);
                warn!(peer = ?from, why, "a snapshot could not be received; it is asked for again");
            }
            Outcome::OtherHistory { slot, why } => {
                let from = self.receiving.take().map(|receiving| receiving.from);
                self.metrics.note_received(0);
                warn!(peer = ?from, slot, why, "a snapshot does not have this node's history");
                if let Some(peer) = from {
                    self.neighbours.voter.other_history.do_send(OtherHistory { peer, slot });
                }
            }
            Outcome::Failed(why) => self.fail(why),
            Outcome::Superseded { slot } => self.neighbours.bank.superseded.do_send(Superseded(slot)),
            Outcome::Nothing => {}
        }
    }

    /// The log goes up to the snapshot before the last, and to those that peers are being sent.
    fn keep_log_from(&self) -> Slot {
        self.offers.iter().flatten().map(|offer| offer.slot).chain([self.saved]).min().unwrap_or(0)
    }

    // ----- receiving a snapshot -----

    fn compacted(&mut self, from: NodeId, log_from: Slot, ctx: &mut Context<Self>) {
        let settling = self.installed.is_some_and(|at| at.elapsed() < SETTLE);
        if self.receiving.is_some() || settling {
            return;
        }
        self.receiving =
            Some(Receiving { from, reported: Instant::now(), wanted: None, asked: Instant::now(), tries: 0 });
        let standpoint = self.neighbours.bank.tell_standpoint.send(TellStandpoint).into_actor(self);
        ctx.spawn(standpoint.map(move |standpoint, snapshotter, ctx| {
            // Without an answer the node is stopping.
            let Ok(Standpoint { applied, newest }) = standpoint else { return };
            if applied + 1 >= log_from {
                snapshotter.receiving = None;
                return;
            }
            info!(
                peer = %from,
                log_from,
                "this node is further behind than its peer's log goes back: receiving a snapshot"
            );
            snapshotter.jobs.push_back(Job::Begin { own: newest });
            snapshotter.work(ctx);
        }));
    }

    fn ask(&mut self) {
        let Some(receiving) = &mut self.receiving else { return };
        let Some(SnapshotWanted { slot, at, .. }) = receiving.wanted else { return };
        receiving.asked = Instant::now();
        let from = receiving.from;
        self.say(from, PeerMessage::GetSnapshot { slot, at });
    }

    /// Asks again where no answer comes.
    fn ask_again(&mut self) {
        let linked = |peer: &NodeId| self.linked[peer.index()];
        let Some(receiving) = &mut self.receiving else { return };
        if self.desk.is_none() || receiving.asked.elapsed() < ASK_AGAIN {
            return;
        }
        receiving.tries += 1;
        if receiving.tries > ASK_OTHERS || !linked(&receiving.from) {
            let peers = self.neighbours.links.iter().map(|(peer, _)| peer);
            let others = peers.filter(|peer| *peer != receiving.from && linked(peer));
            if let Some(other) = others.min_by_key(|peer| (*peer < receiving.from, *peer)) {
                receiving.from = other;
                receiving.tries = 0;
            }
        }
        self.ask();
    }

    // ----- sending a snapshot -----

    fn offer(&mut self, to: NodeId, slot: Slot, at: SnapshotCursor, ctx: &mut Context<Self>) {
        let offered = self.offers[to.index()].take();
        let view = match offered {
            // One answer a peer is under way, whatever it asks; and all rows were sent a moment ago.
            Some(offered) if offered.reading || (offered.is_sent(slot) && offered.used.elapsed() < ASK_AGAIN) => {
                self.offers[to.index()] = Some(offered);
                return;
            }
            Some(Offered { slot: of, view: Some(view), .. }) if of == slot => Ok(view),
            _ => self.books.view(),
        };
        let view = match view {
            Ok(view) => view,
            Err(error) => return self.fail(&error),
        };
        let slot = view.slot();
        self.offers[to.index()] = Some(Offered { slot, view: None, reading: true, used: Instant::now() });
        let reading = tokio::task::spawn_blocking(move || (offer::rows_at(&view, at, offer::PIECE), view));
        ctx.spawn(reading.into_actor(self).map(move |read, snapshotter, _| {
            // Without a result the runtime is going down.
            let Ok((rows, view)) = read else { return };
            let (part, rows, next) = match rows {
                Ok(offer) => offer,
                Err(error) => return snapshotter.fail(error.to_string()),
            };
            let view = next.is_some().then_some(view);
            if view.is_none() {
                info!(peer = %to, slot, "a snapshot was sent");
            }
            snapshotter.offers[to.index()] = Some(Offered { slot, view, reading: false, used: Instant::now() });
            snapshotter.say(to, PeerMessage::SnapshotRows { slot, at, part, rows, next });
        }));
    }

    fn say(&self, to: NodeId, message: PeerMessage) {
        self.neighbours.links.say(to, message);
    }

    /// Reads on a thread for blocking work; an error of the store stops the node.
    fn read<T: Send + 'static>(
        &self,
        ctx: &mut Context<Self>,
        read: impl FnOnce(&LogReader) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(&mut Self, Option<T>, &mut Context<Self>) + 'static,
    ) {
        let reader = self.reader.clone();
        let reading = tokio::task::spawn_blocking(move || read(&reader));
        let reading = reading.into_actor(self).map(|result, snapshotter, ctx| {
            let read = match result {
                Ok(Ok(read)) => Some(read),
                Ok(Err(error)) => {
                    snapshotter.fail(error.to_string());
                    None
                }
                // The runtime is going down.
                Err(_) => None,
            };
            then(snapshotter, read, ctx);
        });
        ctx.spawn(reading);
    }

    fn serve(&mut self, request: SendEntries, ctx: &mut Context<Self>) {
        let SendEntries { to, from, decided } = request;
        if let Some(next) = &mut self.serving[to.index()] {
            *next = Some(request);
            return;
        }
        self.serving[to.index()] = Some(None);
        let read = move |reader: &LogReader| {
            let before = reader.hash(from.saturating_sub(1))?;
            Ok((before.unwrap_or(Digest::ZERO), reader.entries(from, ENTRIES_BYTES)?))
        };
        self.read(ctx, read, move |snapshotter, entries, ctx| {
            let next = snapshotter.serving[to.index()].take().flatten();
            match entries {
                Some((before, Entries::Found(entries))) => {
                    snapshotter.say(to, PeerMessage::Entries { before, entries, decided });
                }
                Some((_, Entries::Compacted { upto })) => {
                    snapshotter.say(to, PeerMessage::Compacted { log_from: upto + 1 });
                }
                None => {}
            }
            if let Some(next) = next {
                snapshotter.serve(next, ctx);
            }
        });
    }
}

impl From<&Addr<Snapshotter>> for SnapshotterInbox {
    fn from(snapshotter: &Addr<Snapshotter>) -> SnapshotterInbox {
        SnapshotterInbox {
            save: snapshotter.clone().recipient(),
            send_entries: snapshotter.clone().recipient(),
            send_stored: snapshotter.clone().recipient(),
            send_hash: snapshotter.clone().recipient(),
            look_up: snapshotter.clone().recipient(),
            about_snapshot: snapshotter.clone().recipient(),
            linked: snapshotter.clone().recipient(),
        }
    }
}

impl Actor for Snapshotter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |snapshotter, _| {
            snapshotter.ask_again();
            for offer in &mut snapshotter.offers {
                offer.take_if(|offer| offer.used.elapsed() > OFFER_KEPT);
            }
        });
    }
}

impl Handler<Save> for Snapshotter {
    type Result = ();

    fn handle(&mut self, Save(snapshot): Save, ctx: &mut Self::Context) {
        self.jobs.push_back(Job::Save(snapshot));
        self.work(ctx);
    }
}

impl Handler<AboutSnapshot> for Snapshotter {
    type Result = ();

    fn handle(&mut self, AboutSnapshot(peer, message): AboutSnapshot, ctx: &mut Self::Context) {
        match message {
            PeerMessage::Compacted { log_from } => self.compacted(peer, log_from, ctx),
            PeerMessage::GetSnapshot { slot, at } => self.offer(peer, slot, at, ctx),
            PeerMessage::SnapshotRows { slot, at, part, rows, next } => {
                // One answer waits at most: nobody asked for more.
                let waits = self.jobs.iter().any(|job| matches!(job, Job::Take(_)));
                if !waits && self.receiving.as_ref().is_some_and(|receiving| receiving.from == peer) {
                    self.jobs.push_back(Job::Take(Answer { slot, at, part, rows, next }));
                    self.work(ctx);
                }
            }
            other => unreachable!("{other:?} is not about snapshots"),
        }
    }
}

impl Handler<Linked> for Snapshotter {
    type Result = ();

    fn handle(&mut self, Linked { peer, up }: Linked, _: &mut Self::Context) {
        self.linked[peer.index()] = up;
    }
}

impl Handler<SendEntries> for Snapshotter {
    type Result = ();

    fn handle(&mut self, request: SendEntries, ctx: &mut Self::Context) {
        if request.decided > request.from.saturating_add(1_000) && self.serving[request.to.index()].is_none() {
            info!(peer = %request.to, from = request.from, to = request.decided, "a peer is catching up");
        }
        self.serve(request, ctx);
    }
}

impl Handler<SendHash> for Snapshotter {
    type Result = ();

    fn handle(&mut self, SendHash { to, slot }: SendHash, ctx: &mut Self::Context) {
        let read = move |reader: &LogReader| reader.hash(slot);
        self.read(ctx, read, move |snapshotter, hash, _| {
            if let Some(hash) = hash.flatten() {
                snapshotter.say(to, PeerMessage::LogHash { slot, hash });
            }
        });
    }
}

impl Handler<LookUp> for Snapshotter {
    type Result = ();

    fn handle(&mut self, LookUp(slot): LookUp, ctx: &mut Self::Context) {
        let read = move |reader: &LogReader| reader.hash(slot);
        self.read(ctx, read, move |snapshotter, hash, _| {
            snapshotter.neighbours.voter.looked_up.do_send(LookedUp { slot, hash: hash.flatten() });
        });
    }
}

impl Handler<SendStored> for Snapshotter {
    type Result = ();

    fn handle(&mut self, SendStored { to, id }: SendStored, ctx: &mut Self::Context) {
        if self.fetches[to.index()] >= MAX_FETCHES {
            return;
        }
        self.fetches[to.index()] += 1;
        self.read(
            ctx,
            move |reader| reader.payload(&id),
            move |snapshotter, payload, _| {
                snapshotter.fetches[to.index()] -= 1;
                if let Some(payload) = payload.flatten() {
                    snapshotter.say(to, PeerMessage::Batch { id, payload });
                }
            },
        );
    }
}

impl Handler<Stop> for Snapshotter {
    type Result = ();

    /// What it still had to say, a crash might have taken too.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
