//! The bank actor: owns the ledger. Applies decided slots in order, answers the clients of this node, answers queries.
//!
//! A command is answered when it is applied here: at that point f + 1 disks bind it. A linearizable query waits for one
//! round among the nodes, which it shares with all others of that moment, and then until the slot that the round named is
//! applied (`reads`). From then on it is work, and so is a look for transactions of a feed: it is done in turns between other
//! messages, fairly between those who ask (`work`). What is older than memory is read by a thread of its own (`reader`).
//!
//! From time to time the bank takes a snapshot (`snapshots`). When that is durable, old transactions leave memory, and the log that
//! is not needed any more goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::bank::{ErrorCode, Refusal, Success};
use rabia_bank_messages::genesis::{Genesis, Replacement};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, NodeId, Slot};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::DIGEST_INTERVAL;
use rabia_bank_messages::stages::Stage;
use rabia_bank_storage::BooksReader;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tracing::info;

use crate::applied::AppliedSlot;
use crate::consensus::stores::{Standing, Stores};
use crate::consensus::turns::ClientId;
use crate::ledger::{Applied, Ledger, Progress, RequestOutcome};
use crate::mail::bank::{Abandon, Apply, BankInbox, Expect, StandingOf, Standpoint, TellStandpoint};
use crate::mail::client_session::{Answered, Answers, Client, Done, Waiter};
use crate::mail::node::{Failed, Stop};
use crate::mail::proposer::{AppliedTime, ProposerInbox};
use crate::mail::snapshotter::SnapshotterInbox;
use crate::mail::voter::VoterInbox;
use crate::metrics::Metrics;
use crate::rebuild::{Rebuilt, warn_of_unusable};
use crate::snapshot::Decision;
use policy::SnapshotStage;
use reader::Reader;
use tasks::{Purpose, Work};
use trust::Trust;
use waiting::WaitingReads;

pub use policy::SnapshotPolicy;

mod doubt;
mod followers;
mod policy;
mod reader;
mod reads;
mod snapshots;
mod status;
mod tasks;
mod trust;
mod waiting;
mod work;

/// The proposer is told of log time when it has gone on by so many milliseconds: it looks for leaps of an hour.
const TELL_TIME: Millis = 1_000;

/// How often a bank looks whether it is far behind, and drops work that nobody waits for any more.
const SWEEP: Duration = Duration::from_secs(1);

/// Owns the ledger.
pub struct Bank {
    me: NodeId,
    genesis: Genesis,
    ledger: Ledger,
    /// The answers of a batch, by client; empty between batches.
    answers: FxHashMap<ClientId, (Client, Vec<Answered>)>,
    expected: FxHashMap<BatchId, Vec<Waiter>>,
    waiting: WaitingReads,
    work: Work,
    books: BooksReader,
    policy: SnapshotPolicy,
    snapshot: SnapshotStage,
    /// The slot that the books on disk stand after.
    saved: Slot,
    /// Who waits for a snapshot of which slot.
    snapshot_waiters: Vec<(Slot, oneshot::Sender<()>)>,
    /// Bytes of batches and slots since the last snapshot.
    unsaved: (u64, u64),
    /// The newest decisions: as many as owners of coming slots are read from.
    decisions: VecDeque<Decision>,
    /// The hash of the log up to what is applied.
    log_hash: Digest,
    /// The same, when the ledger was frozen.
    frozen: (Vec<Decision>, Digest),
    trust: Trust,
    /// The log time that the proposer was told of last.
    told_time: Millis,
    applied: AppliedSlot,
    metrics: Arc<Metrics>,
    neighbours: BankNeighbours,
}

/// The actors that the bank speaks to.
pub struct BankNeighbours {
    /// Reads with the others, and compares states.
    pub voter: VoterInbox,
    /// Goes by log time.
    pub proposer: ProposerInbox,
    /// Saves.
    pub snapshotter: SnapshotterInbox,
    /// Stops the node.
    pub node: Recipient<Failed>,
}

/// What a bank begins with.
pub struct BankState {
    /// The state of the books and the log.
    pub rebuilt: Rebuilt,
    /// The books on disk.
    pub books: BooksReader,
    /// The slot that they stand after.
    pub saved: Slot,
    /// When to take snapshots.
    pub policy: SnapshotPolicy,
}

impl Bank {
    /// The bank of node `me`. It writes to `applied` how far it is.
    pub fn new(
        me: NodeId,
        genesis: Genesis,
        state: BankState,
        applied: AppliedSlot,
        metrics: Arc<Metrics>,
        neighbours: BankNeighbours,
    ) -> Bank {
        let BankState { rebuilt: Rebuilt { ledger, decisions, hash, replayed_bytes }, books, saved, policy } = state;
        let unsaved = policy.at_start(me, genesis.members(), (replayed_bytes, ledger.applied() - saved));
        applied.set(ledger.applied());
        Bank {
            me,
            genesis,
            ledger,
            books,
            waiting: WaitingReads::default(),
            work: Work::default(),
            policy,
            snapshot: SnapshotStage::Waiting,
            saved,
            snapshot_waiters: Vec::new(),
            unsaved,
            decisions: decisions.into(),
            log_hash: hash,
            frozen: (Vec::new(), Digest::ZERO),
            trust: Trust::default(),
            answers: FxHashMap::default(),
            expected: FxHashMap::default(),
            told_time: 0,
            applied,
            metrics,
            neighbours,
        }
    }

    fn answer(&self, waiter: &Waiter, slot: Option<Slot>, result: Result<Success, Refusal>) {
        let result = result.map(Done::Success);
        self.tell(&waiter.client, Answered { tag: waiter.tag, slot, index: None, replayed: false, result });
    }

    fn tell(&self, client: &Client, answered: Answered) {
        self.send(client, Answers { answers: vec![answered], applied: None });
    }

    /// Tells the waiting clients that nobody knows what became of their requests, or may become of them.
    fn abandon(&self, batches: impl IntoIterator<Item = Vec<Waiter>>) {
        let message = "this node does not know what became of the request (it was far behind, or its clock is ahead)";
        for waiter in batches.into_iter().flatten() {
            self.answer(&waiter, None, Err(Refusal::unknown(ErrorCode::NoQuorum, message)));
        }
    }

    /// Tells the waiting clients what came of the requests of a batch.
    fn answer_batch(
        &mut self,
        slot: Slot,
        applied: Instant,
        waiters: Vec<Waiter>,
        outcomes: &[RequestOutcome],
        ctx: &mut Context<Self>,
    ) {
        assert_eq!(
            waiters.len(),
            outcomes.len(),
            "a batch of this node in slot {slot} has other requests than it was given"
        );
        let mut answers = std::mem::take(&mut self.answers);
        for (index, (waiter, outcome)) in (0..).zip(waiters.into_iter().zip(outcomes)) {
            let client = waiter.client.clone();
            if !client.is_gone()
                && let Some(answer) = self.render(waiter, (slot, index), outcome)
            {
                answers.entry(client.id()).or_insert_with(|| (client, Vec::new())).1.push(answer);
            }
        }
        for (_, (client, answers)) in answers.drain() {
            self.send(&client, Answers { answers, applied: Some(applied) });
        }
        self.answers = answers;
        self.go_on_working(ctx);
    }

    /// The answer to a request, unless it needs old transactions: then it comes later. It is made at once, however long: its
    /// length is bounded by that of the command, and who sent the command has waited for its turn already.
    fn render(&mut self, waiter: Waiter, place: (Slot, u32), outcome: &RequestOutcome) -> Option<Answered> {
        let tag = waiter.tag;
        let (slot, now) = (place.0, Some(place.1));
        let (slot, index, replayed, result) = match outcome {
            RequestOutcome::Opened { session, new } => {
                (slot, now, false, Ok(Done::Opened { session: *session, new: *new }))
            }
            RequestOutcome::Closed => (slot, now, false, Ok(Done::Closed)),
            RequestOutcome::Command { slot, index, replayed, outcome } => {
                let mut lookup = self.ledger.render(outcome);
                let Progress::Done(answer) = self.ledger.go_on(&mut lookup, &mut u64::MAX.clone()) else {
                    self.answer_later(
                        waiter,
                        Purpose::Command { slot: *slot, index: Some(*index), replayed: *replayed },
                        lookup,
                    );
                    return None;
                };
                (*slot, Some(*index), *replayed, answer.map(Done::Success))
            }
            RequestOutcome::Rejected(rejection) => (slot, now, false, Err(rejection.refusal())),
        };
        Some(Answered { tag, slot: Some(slot), index, replayed, result })
    }

    /// Takes note of a slot that was applied, and begins a snapshot if one is due.
    fn note_slot(&mut self, slot: Slot, batch: Option<(BatchId, u64)>, ctx: &mut Context<Self>) {
        let value = batch.map(|(id, _)| id);
        self.decisions.push_back((slot, value));
        self.log_hash = log_hash(self.log_hash, slot, &value);
        let keep = *self.genesis.owner_slots(slot + 1).start();
        while self.decisions.pop_front_if(|(slot, _)| *slot < keep).is_some() {}
        let (bytes, slots) = &mut self.unsaved;
        *bytes += batch.map_or(0, |(_, bytes)| bytes);
        *slots += 1;
        self.begin_snapshot_if_due(ctx);
    }

    /// Tells the proposer when log time has gone on.
    fn tell_time(&mut self) {
        let time = self.ledger.log_time();
        if time >= self.told_time.saturating_add(TELL_TIME) {
            self.told_time = time;
            self.neighbours.proposer.applied_time.do_send(AppliedTime(time));
        }
    }
}

impl From<&Addr<Bank>> for BankInbox {
    fn from(bank: &Addr<Bank>) -> BankInbox {
        BankInbox {
            ask: bank.clone().recipient(),
            subscribe: bank.clone().recipient(),
            follow: bank.clone().recipient(),
            expect: bank.clone().recipient(),
            abandon: bank.clone().recipient(),
            apply: bank.clone().recipient(),
            read_at: bank.clone().recipient(),
            install: bank.clone().recipient(),
            doubt: bank.clone().recipient(),
            admitted: bank.clone().recipient(),
            saved: bank.clone().recipient(),
            received: bank.clone().recipient(),
            superseded: bank.clone().recipient(),
            tell_standpoint: bank.clone().recipient(),
            standing_of: bank.clone().recipient(),
            take_snapshot: bank.clone().recipient(),
        }
    }
}

impl Actor for Bank {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |bank, _| bank.sweep());
        match Reader::start(self.books.clone()) {
            Ok(reader) => self.work.reader = Some(reader),
            Err(error) => {
                self.neighbours
                    .node
                    .do_send(Failed(format!("no thread to read old transactions with: {error}").into()));
            }
        }
        self.begin_snapshot_if_due(ctx);
    }
}

impl Handler<Expect> for Bank {
    type Result = ();

    fn handle(&mut self, Expect { id, waiters }: Expect, _: &mut Self::Context) {
        self.expected.insert(id, waiters);
    }
}

impl Handler<Abandon> for Bank {
    type Result = ();

    fn handle(&mut self, Abandon(id): Abandon, _: &mut Self::Context) {
        let waiters = self.expected.remove(&id);
        self.abandon(waiters);
    }
}

impl Handler<Apply> for Bank {
    type Result = ();

    fn handle(&mut self, Apply { slot, batch, decided }: Apply, ctx: &mut Self::Context) {
        let named = batch.as_ref().map(|(id, payload)| (id, payload));
        match self.ledger.apply(slot, named) {
            Applied::Batch(outcomes) => {
                let now = Instant::now();
                self.metrics.stages.note(Stage::Apply, now - decided);
                if let Some(waiters) = batch.as_ref().and_then(|(id, _)| self.expected.remove(id)) {
                    self.answer_batch(slot, now, waiters, &outcomes, ctx);
                }
            }
            Applied::Replacement => {
                if let Some(Replacement { node, store, .. }) = self.ledger.replacements().list().last() {
                    info!(slot, of = %node, %store, "a store takes the place of another");
                }
            }
            Applied::Null | Applied::Repeated => {}
            Applied::Unusable(why) => {
                let id = batch.as_ref().map(|(id, _)| id);
                warn_of_unusable(slot, id, &why);
                let waiters = id.and_then(|id| self.expected.remove(id));
                self.abandon(waiters);
            }
        }
        self.applied.set(slot);
        self.tell_time();
        if slot.is_multiple_of(DIGEST_INTERVAL) {
            self.tell_digest(slot);
        }
        self.note_slot(slot, batch.map(|(id, payload)| (id, payload.len() as u64)), ctx);
        self.work.applied = Some(Instant::now());
        self.read_due(ctx);
        self.tell_followers(ctx);
    }
}

impl Handler<StandingOf> for Bank {
    type Result = Result<Option<Slot>, String>;

    fn handle(&mut self, StandingOf { node, store }: StandingOf, _: &mut Self::Context) -> Self::Result {
        let stores = Stores::new(&self.genesis, self.ledger.replacements());
        if node.index() < self.genesis.members()
            && let Standing::Former(by) = stores.standing(node, store)
        {
            return Err(format!("store {store} was replaced itself, in slot {}, by {}", by.slot, by.store));
        }
        match stores.brought(node, store) {
            Some(replacement) => Ok(Some(replacement.slot)),
            None => stores.check(node, store).map(|()| None),
        }
    }
}

impl Handler<TellStandpoint> for Bank {
    type Result = MessageResult<TellStandpoint>;

    fn handle(&mut self, _: TellStandpoint, _: &mut Self::Context) -> Self::Result {
        let newest = (self.ledger.newest_transaction(), self.ledger.chain_head());
        MessageResult(Standpoint { applied: self.ledger.applied(), newest })
    }
}

impl Handler<Stop> for Bank {
    type Result = ();

    /// What it still had to say, a crash might have taken too.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
