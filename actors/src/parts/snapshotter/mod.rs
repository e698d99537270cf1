//! What becomes of snapshots, and what peers get that lack decided slots.
//!
//! - **Saving.** The bank hands over what changed; it is written in one transaction ([`BooksWriter`]). When it is durable the
//!   bank forgets old transactions, and the log goes but for a tail: back to the snapshot before, for peers that are a
//!   little behind, and to the snapshot that a peer is being sent.
//! - **Serving.** A peer gets decided slots from the log. Where the log does not go back so far it is told so, and asks for a
//!   snapshot, piece by piece ([`offer`]). One answer a peer is under way at most: a peer that asks again meanwhile is
//!   answered once, with what it asked last.
//! - **Receiving.** The other side of it ([`transfer`]): of whom a snapshot is asked, when it is asked for again, and of another. When
//!   all of it is verified and stored, the voter and the bank go on from there.
//!
//! Whoever drives this performs what comes [out](Out), reads and writes files off the core's thread, one job of the writer at a time,
//! and calls [`sweep`](Snapshotter::sweep) every [`SWEEP`].

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, MAX_NODES, NodeId, Slot};
use rabia_bank_messages::peer::{PeerMessage, SnapshotCursor};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::{BooksReader, BooksView, Entries};
use tracing::{info, warn};

use crate::failure::Failure;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::ledger::replicated::Replicated;
use crate::metrics::Metrics;
use crate::parts::bank::words::{Saved, Standpoint};
use crate::snapshot::{Decision, Snapshot};
use books_writer::{Answer, Job, Outcome, SnapshotWanted};
use offer::Offer;

pub use books_writer::BooksWriter;

pub mod books_writer;
pub mod offer;
#[cfg(test)]
mod tests;
pub mod transfer;

/// The most bytes of decided slots in one answer, so that other messages to the peer get between.
pub const ENTRIES_BYTES: usize = 1 << 20;
/// Payloads that are read from the log for one peer at a time. It asks again for others.
const MAX_FETCHES: usize = 8;
/// Rows that did not come after so many times are asked for of another peer.
const ASK_OTHERS: u32 = 2;
/// How often it is said how far a snapshot is that is being received.
const REPORT: Duration = Duration::from_secs(2);
/// A peer that lacks more slots than these is said to be catching up.
const FAR_BEHIND: u64 = 1_000;
/// How often peers and offers are looked after.
pub const SWEEP: Duration = Duration::from_secs(1);

/// How long a snapshotter waits for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// Rows that do not come are asked for again after this time.
    pub ask_again: Duration,
    /// After a snapshot was received the decided slots behind it are asked for, also of peers whose log does not go back so
    /// far: for this time that is no reason to ask for another snapshot.
    pub settle: Duration,
    /// A peer that has not asked for so long does not need the snapshot any more that it was sent, nor the log behind it.
    pub offer_kept: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            ask_again: Duration::from_secs(3),
            settle: Duration::from_secs(10),
            offer_kept: Duration::from_secs(60),
        }
    }
}

/// Send this peer decided slots, from `from` on.
#[derive(Clone, Copy, Debug)]
pub struct SendEntries {
    /// The peer that lacks them.
    pub to: NodeId,
    /// The first slot it lacks.
    pub from: Slot,
    /// This node knows all decisions up to here.
    pub decided: Slot,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Out<S: StateMachine = Bank> {
    /// Let the writer of the books do this, and report it with [`Snapshotter::worked`].
    Work(Job),
    /// Read decided slots for a peer from the log, from `from` on, and the hash up to the slot before. Report them with
    /// [`Snapshotter::entries_read`].
    ReadEntries(SendEntries),
    /// Read the payload of a batch for a peer from the log, and report it with [`Snapshotter::payload_read`].
    ReadPayload {
        /// The peer that lacks it.
        to: NodeId,
        /// The batch whose payload it is.
        id: BatchId,
    },
    /// Read the hash of the log up to a slot, for a peer or, with none, for the voter. Report it with [`Snapshotter::hash_read`].
    ReadHash {
        /// The peer that compares it with its own; none: the voter.
        to: Option<NodeId>,
        /// The last slot that the hash covers.
        slot: Slot,
    },
    /// Read rows of a snapshot for a peer ([`offer::rows_at`]), and report them with [`Snapshotter::rows_read`].
    ReadRows {
        /// The peer that receives the snapshot.
        to: NodeId,
        /// The snapshot, as long as it is held.
        view: BooksView,
        /// The first place that the peer lacks.
        at: SnapshotCursor,
    },
    /// Ask the bank how far it is, and report it with [`Snapshotter::standpoint`].
    AskStandpoint {
        /// A peer has an older state to send …
        from: NodeId,
        /// … since its log begins here.
        log_from: Slot,
    },
    /// Say this to a peer.
    Say(NodeId, PeerMessage),
    /// Tell the bank that a snapshot is durable.
    Saved(Saved),
    /// Tell the bank that the books stand after this slot, by a state that came from a peer.
    Received(Slot),
    /// Tell the bank the same, and that the snapshot which was to be saved is not needed.
    Superseded(Slot),
    /// Tell the log that decided slots up to this one may go.
    Compact(Slot),
    /// Tell the voter of a state that came from a peer.
    Installed {
        /// The slot that it stands after.
        slot: Slot,
        /// The hash of the log up to it.
        hash: Digest,
        /// All that is replicated, made of the rows that came.
        ledger: Box<Replicated<S>>,
        /// The decisions before it that owners of coming slots are read from.
        decisions: Vec<Decision>,
    },
    /// Tell the voter the hash of the log up to a slot, if it is on disk.
    LookedUp {
        /// The last slot that the hash covers.
        slot: Slot,
        /// None if the log has the slot no more.
        hash: Option<Digest>,
    },
    /// Tell the voter that a peer's snapshot does not have this node's history.
    OtherHistory {
        /// The peer that the snapshot comes from.
        peer: NodeId,
        /// The slot that it stands after.
        slot: Slot,
    },
    /// The node can't go on, for this reason.
    Fail(Failure),
}

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

/// Saves, serves and receives.
pub struct Snapshotter<S: StateMachine = Bank> {
    books: BooksReader,
    patience: Patience,
    /// The writer is at work.
    working: bool,
    jobs: VecDeque<Job>,
    /// The slot of the last snapshot.
    saved: Slot,
    offers: [Option<Offered>; MAX_NODES],
    receiving: Option<Receiving>,
    installed: Option<Instant>,
    /// Peers that an answer is being read for, and what they asked meanwhile.
    serving: [Option<Option<SendEntries>>; MAX_NODES],
    /// Payloads that are being read for each peer.
    fetches: [usize; MAX_NODES],
    /// Whether the link to each peer works.
    linked: [bool; MAX_NODES],
    metrics: Arc<Metrics>,
    /// Whose snapshots they are.
    machine: PhantomData<fn() -> S>,
}

impl<S: StateMachine> Snapshotter<S> {
    /// The snapshotter of a node whose books stand after the slot `saved`.
    pub fn new(books: BooksReader, saved: Slot, patience: Patience, metrics: Arc<Metrics>) -> Snapshotter<S> {
        metrics.note_snapshot(saved);
        Snapshotter {
            books,
            patience,
            working: false,
            jobs: VecDeque::new(),
            saved,
            offers: [const { None }; MAX_NODES],
            receiving: None,
            installed: None,
            serving: [None; MAX_NODES],
            fetches: [0; MAX_NODES],
            linked: [false; MAX_NODES],
            metrics,
            machine: PhantomData,
        }
    }

    /// The peer that a snapshot is being received from.
    pub fn receives_from(&self) -> Option<NodeId> {
        self.receiving.as_ref().map(|receiving| receiving.from)
    }

    /// Asks again for what does not come, and forgets offers that nobody uses.
    pub fn sweep(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        self.ask_again(now, out);
        for offer in &mut self.offers {
            offer.take_if(|offer| now - offer.used > self.patience.offer_kept);
        }
    }

    /// The link to a peer works, or broke.
    pub fn linked(&mut self, peer: NodeId, up: bool) {
        self.linked[peer.index()] = up;
    }

    /// A peer said this about snapshots.
    pub fn about_snapshot(&mut self, now: Instant, peer: NodeId, message: PeerMessage, out: &mut Vec<Out<S>>) {
        match message {
            PeerMessage::Compacted { log_from } => self.compacted(now, peer, log_from, out),
            PeerMessage::GetSnapshot { slot, at } => self.offer(now, peer, slot, at, out),
            PeerMessage::SnapshotRows { slot, at, part, rows, next } => {
                // One answer waits at most: nobody asked for more.
                let waits = self.jobs.iter().any(|job| matches!(job, Job::Take(_)));
                if !waits && self.receives_from() == Some(peer) {
                    self.push(Job::Take(Answer { slot, at, part, rows, next }), out);
                }
            }
            other => unreachable!("{other:?} is not about snapshots"),
        }
    }

    // ----- the books -----

    /// The bank hands over what changed.
    pub fn save(&mut self, snapshot: Snapshot, out: &mut Vec<Out<S>>) {
        if is_broken(Rule::BooksCoverLog) {
            out.push(Out::Compact(snapshot.changes.slot));
        }
        self.push(Job::Save(snapshot), out);
    }

    /// Jobs are done one after the other.
    fn push(&mut self, job: Job, out: &mut Vec<Out<S>>) {
        self.jobs.push_back(job);
        self.work(out);
    }

    fn work(&mut self, out: &mut Vec<Out<S>>) {
        // A job stays in its place until the writer is free.
        if !self.working
            && let Some(job) = self.jobs.pop_front()
        {
            self.working = true;
            out.push(Out::Work(job));
        }
    }

    /// The writer of the books has done its job.
    pub fn worked(&mut self, now: Instant, outcome: Outcome<S>, out: &mut Vec<Out<S>>) {
        self.working = false;
        match outcome {
            Outcome::Saved { slot, transactions } => {
                info!(slot, transactions, "a snapshot is durable");
                self.metrics.note_snapshot(slot);
                out.push(Out::Saved(Saved { slot, transactions }));
                out.push(Out::Compact(self.keep_log_from()));
                self.saved = slot;
            }
            Outcome::Ask(wanted) => {
                self.wants(now, wanted);
                self.ask(now, out);
            }
            Outcome::Installed { slot, hash, ledger, decisions } => {
                info!(slot, "a snapshot was received and is durable");
                self.ends_receiving();
                self.installed = Some(now);
                self.saved = slot;
                self.metrics.note_snapshot(slot);
                out.push(Out::Received(slot));
                out.push(Out::Installed { slot, hash, ledger, decisions });
            }
            Outcome::Overtaken { slot } => {
                info!(slot, "a snapshot is not needed: this node is as far as that");
                self.ends_receiving();
            }
            Outcome::GaveUp(why) => {
                let from = self.ends_receiving();
                warn!(peer = ?from, why, "a snapshot could not be received; it is asked for again");
            }
            Outcome::OtherHistory { slot, why } => {
                let from = self.ends_receiving();
                warn!(peer = ?from, slot, why, "a snapshot does not have this node's history");
                out.extend(from.map(|peer| Out::OtherHistory { peer, slot }));
            }
            Outcome::Failed(why) => return out.push(Out::Fail(why)),
            Outcome::Superseded { slot } => out.push(Out::Superseded(slot)),
            Outcome::Nothing => {}
        }
        self.work(out);
    }

    /// The log goes up to the snapshot before the last, and to those that peers are being sent.
    fn keep_log_from(&self) -> Slot {
        self.offers.iter().flatten().map(|offer| offer.slot).chain([self.saved]).min().unwrap_or(0)
    }

    // ----- receiving a snapshot -----

    fn compacted(&mut self, now: Instant, from: NodeId, log_from: Slot, out: &mut Vec<Out<S>>) {
        let settling = self.installed.is_some_and(|at| now - at < self.patience.settle);
        if self.receiving.is_some() || settling {
            return;
        }
        self.receiving = Some(Receiving { from, reported: now, wanted: None, asked: now, tries: 0 });
        out.push(Out::AskStandpoint { from, log_from });
    }

    /// The bank is so far: a snapshot of a peer whose log begins at `log_from` is asked for if the node lacks older slots.
    pub fn standpoint(&mut self, from: NodeId, log_from: Slot, standpoint: Standpoint, out: &mut Vec<Out<S>>) {
        if standpoint.applied + 1 >= log_from {
            self.receiving = None;
            return;
        }
        info!(
            peer = %from,
            log_from,
            "this node is further behind than its peer's log goes back: receiving a snapshot"
        );
        self.push(Job::Begin { own: standpoint }, out);
    }

    fn wants(&mut self, now: Instant, wanted: SnapshotWanted) {
        if let Some(receiving) = &mut self.receiving {
            receiving.wanted = Some(wanted);
            receiving.tries = 0;
            if now - receiving.reported >= REPORT {
                receiving.reported = now;
                let SnapshotWanted { slot, at, received } = wanted;
                let mib = received >> 20;
                info!(peer = %receiving.from, slot, mib, part = ?at.part, row = at.row, "receiving a snapshot");
            }
            self.metrics.note_received(wanted.received);
        }
    }

    fn ends_receiving(&mut self) -> Option<NodeId> {
        self.metrics.note_received(0);
        self.receiving.take().map(|receiving| receiving.from)
    }

    fn ask(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        let Some(receiving) = &mut self.receiving else { return };
        let Some(SnapshotWanted { slot, at, .. }) = receiving.wanted else { return };
        receiving.asked = now;
        out.push(Out::Say(receiving.from, PeerMessage::GetSnapshot { slot, at }));
    }

    /// Asks again where no answer comes.
    fn ask_again(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        let Some(receiving) = &mut self.receiving else { return };
        if self.working || now - receiving.asked < self.patience.ask_again {
            return;
        }
        receiving.tries += 1;
        let linked = |peer: &NodeId| self.linked[peer.index()];
        if receiving.tries > ASK_OTHERS || !linked(&receiving.from) {
            let others = NodeId::all(MAX_NODES).filter(|peer| *peer != receiving.from && linked(peer));
            if let Some(other) = others.min_by_key(|peer| (*peer < receiving.from, *peer)) {
                receiving.from = other;
                receiving.tries = 0;
            }
        }
        self.ask(now, out);
    }

    // ----- sending a snapshot -----

    fn offer(&mut self, now: Instant, to: NodeId, slot: Slot, at: SnapshotCursor, out: &mut Vec<Out<S>>) {
        let offered = self.offers[to.index()].take();
        let view = match offered {
            // One answer a peer is under way, whatever it asks; and all rows were sent a moment ago.
            Some(offered)
                if offered.reading || (offered.is_sent(slot) && now - offered.used < self.patience.ask_again) =>
            {
                self.offers[to.index()] = Some(offered);
                return;
            }
            Some(Offered { slot: of, view: Some(view), .. }) if of == slot => Ok(view),
            _ => self.books.view(),
        };
        let view = match view {
            Ok(view) => view,
            Err(error) => return out.push(Out::Fail((&error).into())),
        };
        self.offers[to.index()] = Some(Offered { slot: view.slot(), view: None, reading: true, used: now });
        out.push(Out::ReadRows { to, view, at });
    }

    /// Rows of a snapshot were read for a peer that had asked for those at `at`.
    pub fn rows_read(
        &mut self,
        now: Instant,
        to: NodeId,
        at: SnapshotCursor,
        (view, rows): (BooksView, Offer),
        out: &mut Vec<Out<S>>,
    ) {
        let (slot, (part, rows, next)) = (view.slot(), rows);
        let view = next.is_some().then_some(view);
        if view.is_none() {
            info!(peer = %to, slot, "a snapshot was sent");
        }
        self.offers[to.index()] = Some(Offered { slot, view, reading: false, used: now });
        out.push(Out::Say(to, PeerMessage::SnapshotRows { slot, at, part, rows, next }));
    }

    // ----- sending what is in the log -----

    /// A peer asks for decided slots.
    pub fn send_entries(&mut self, request: SendEntries, out: &mut Vec<Out<S>>) {
        let SendEntries { to, from, decided } = request;
        if let Some(next) = &mut self.serving[to.index()] {
            *next = Some(request);
            return;
        }
        if decided > from.saturating_add(FAR_BEHIND) {
            info!(peer = %to, from, to = decided, "a peer is catching up");
        }
        self.serve(request, out);
    }

    fn serve(&mut self, request: SendEntries, out: &mut Vec<Out<S>>) {
        self.serving[request.to.index()] = Some(None);
        out.push(Out::ReadEntries(request));
    }

    /// Decided slots were read for a peer; `before` is the hash of the log up to the slot before them, if there is one.
    pub fn entries_read(
        &mut self,
        SendEntries { to, decided, .. }: SendEntries,
        before: Option<Digest>,
        entries: Entries,
        out: &mut Vec<Out<S>>,
    ) {
        out.push(Out::Say(
            to,
            match entries {
                Entries::Found(entries) => {
                    PeerMessage::Entries { before: before.unwrap_or(Digest::ZERO), entries, decided }
                }
                Entries::Compacted { upto } => PeerMessage::Compacted { log_from: upto + 1 },
            },
        ));
        if let Some(next) = self.serving[to.index()].take().flatten() {
            self.serve(next, out);
        }
    }

    /// A peer asks for the payload of a batch.
    pub fn send_stored(&mut self, to: NodeId, id: BatchId, out: &mut Vec<Out<S>>) {
        let fetches = &mut self.fetches[to.index()];
        if *fetches < MAX_FETCHES {
            *fetches += 1;
            out.push(Out::ReadPayload { to, id });
        }
    }

    /// The payload of a batch was read for a peer, if the log has it.
    pub fn payload_read(&mut self, to: NodeId, id: BatchId, payload: Option<Payload>, out: &mut Vec<Out<S>>) {
        self.fetches[to.index()] -= 1;
        if let Some(payload) = payload {
            out.push(Out::Say(to, PeerMessage::Batch { id, payload }));
        }
    }

    /// A peer asks for the hash of the log up to a slot.
    pub fn send_hash(&mut self, to: NodeId, slot: Slot, out: &mut Vec<Out<S>>) {
        out.push(Out::ReadHash { to: Some(to), slot });
    }

    /// The voter asks for the hash of the log up to a slot.
    pub fn look_up(&mut self, slot: Slot, out: &mut Vec<Out<S>>) {
        out.push(Out::ReadHash { to: None, slot });
    }

    /// The hash of the log up to a slot was read, if it is on disk.
    pub fn hash_read(&mut self, to: Option<NodeId>, slot: Slot, hash: Option<Digest>, out: &mut Vec<Out<S>>) {
        match (to, hash) {
            (None, hash) => out.push(Out::LookedUp { slot, hash }),
            (Some(to), Some(hash)) => out.push(Out::Say(to, PeerMessage::LogHash { slot, hash })),
            (Some(_), None) => {}
        }
    }
}
