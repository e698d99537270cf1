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
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::bank::{ErrorCode, OtherFields, Query, ReadLevel, Refusal, Status, Success, Transaction};
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::{Genesis, Replacement};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, NodeId, Slot, StoreId};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::DIGEST_INTERVAL;
use rabia_bank_messages::stages::Stage;
use rabia_bank_storage::BooksReader;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tracing::info;

use crate::consensus::stores::{Standing, Stores};
use crate::ledger::{Applied, Ledger, Progress, RequestOutcome};
use crate::node::{Decision, Failed, Gauges, Rebuilt, warn_of_unusable};
use crate::owner::Owner;
use crate::proposer::{AppliedTime, Proposer};
use crate::snapshotter::Snapshotter;
use crate::voter::Voter;
use reader::Reader;
use reads::WaitingReads;
use snapshots::SnapshotStage;
use trust::Trust;
use work::{Purpose, Work};

pub use reads::ReadAt;
pub use snapshots::{Install, Saved, SnapshotPolicy, Superseded, TakeSnapshot};
pub use trust::{Admitted, Doubt, Newest};

mod followers;
mod reader;
mod reads;
mod snapshots;
mod trust;
mod work;

/// The proposer is told of log time when it has gone on by so many milliseconds: it looks for leaps of an hour.
const TELL_TIME: Millis = 1_000;

pub use crate::owner::ClientId;

/// Who waits for an answer, and the client's own mark on the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// The client.
    pub client: ClientId,
    /// Chosen by the client, handed back with the answer.
    pub tag: u64,
}

/// The answers to requests of one client.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Answers {
    /// Each of them.
    pub answers: Vec<Answered>,
    /// When the slot was applied that they come from; none for those that needed none.
    pub applied: Option<Instant>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answered {
    /// The client's mark.
    pub tag: u64,
    /// The slot that it was applied in or read at.
    pub slot: Option<Slot>,
    /// Of a request that went through the log: its place in that slot.
    pub index: Option<u32>,
    /// Whether the command had been applied before.
    pub replayed: bool,
    /// What came of it.
    pub result: Result<Done, Refusal>,
}

/// What was done.
#[derive(Debug)]
pub enum Done {
    /// A command was applied, or a query read.
    Success(Success),
    /// A session is open.
    Opened {
        /// Its number.
        session: u64,
        /// Whether it was opened by this request.
        new: bool,
    },
    /// The session is closed.
    Closed,
    /// Transactions of a feed.
    Followed {
        /// Oldest first; none if as many as make news were looked at in vain.
        transactions: Vec<Transaction>,
        /// All below this id were looked at.
        next: u64,
    },
}

/// A client has come. Its answers go there.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    /// Who.
    pub client: ClientId,
    /// Whose work it is that the client asks for.
    pub owner: Owner,
    /// Where to.
    pub answers: Recipient<Answers>,
}

/// A client has gone.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Unregister(pub ClientId);

/// These wait for the requests of a batch, in their order. Comes before the batch is proposed.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Expect {
    /// The batch.
    pub id: BatchId,
    /// One per request.
    pub waiters: Vec<Waiter>,
}

/// This node does not know what became of this batch, or may become of it. Whoever waits for its requests is told so.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Abandon(pub BatchId);

/// Tell this client that nothing was done.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Reject {
    /// Whom.
    pub waiter: Waiter,
    /// Why.
    pub refusal: Refusal,
}

/// Apply the next slot.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Apply {
    /// The slot.
    pub slot: Slot,
    /// What it was decided on.
    pub batch: Option<(BatchId, Payload)>,
    /// When it, and all slots before it, were decided.
    pub decided: Instant,
}

/// Answer this query.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Ask {
    /// Who asks.
    pub waiter: Waiter,
    /// What.
    pub query: Query,
    /// How fresh the answer must be.
    pub read: ReadLevel,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Tell this client where a subscription begins: the id of the first transaction that it may be told of. Answered like a
/// query, with [`Success::Subscribed`], or refused if there is no such account.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Subscribe {
    /// Who asks.
    pub waiter: Waiter,
    /// What about.
    pub feed: Feed,
    /// How fresh the answer must be.
    pub read: ReadLevel,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Tell this client of transactions of a feed, once: as soon as there are some, or as many were looked at in vain as make
/// news. Answered with [`Done::Followed`]; who wants more asks again, and so nobody gets more than it can take.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Follow {
    /// Who asks.
    pub waiter: Waiter,
    /// Which transactions. (Its `from` plays no part.) The asker keeps it, too, for as long as it wants to know.
    pub feed: Arc<Feed>,
    /// With ids from here on.
    pub next: u64,
}

/// Is this a member's store now, by what is applied here? Answered with the slot in which it was decided that it takes the place
/// of another, or none if that would have an effect now; or why it would not.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<Option<Slot>, String>")]
pub struct StandingOf {
    /// The member.
    pub node: NodeId,
    /// The store.
    pub store: StoreId,
}

/// A node that is so many slots behind what it knows of says how far it is.
const FAR_BEHIND: u64 = 1_000;
/// How often that is said, and work is dropped that nobody waits for any more.
const SWEEP: Duration = Duration::from_secs(1);

/// A client of this node.
struct Client {
    owner: Owner,
    answers: Recipient<Answers>,
}

/// Owns the ledger.
pub struct Bank {
    me: NodeId,
    genesis: Genesis,
    ledger: Ledger,
    clients: FxHashMap<ClientId, Client>,
    expected: FxHashMap<BatchId, Vec<Waiter>>,
    waiting: WaitingReads,
    work: Work,
    books: BooksReader,
    policy: SnapshotPolicy,
    snapshot: SnapshotStage,
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
    gauges: Arc<Gauges>,
    /// The log time that the proposer was told of last.
    told_time: Millis,
    voter: Addr<Voter>,
    proposer: Addr<Proposer>,
    snapshotter: Addr<Snapshotter>,
    node: Recipient<Failed>,
}

/// What a bank begins with.
pub struct BankState {
    /// The state of the books and the log.
    pub rebuilt: Rebuilt,
    /// The books on disk.
    pub books: BooksReader,
    /// When to take snapshots.
    pub policy: SnapshotPolicy,
}

impl Bank {
    /// The bank of node `me`.
    #[allow(clippy::too_many_arguments)] // its neighbours, each of them once
    pub fn new(
        me: NodeId,
        genesis: Genesis,
        state: BankState,
        gauges: Arc<Gauges>,
        voter: Addr<Voter>,
        proposer: Addr<Proposer>,
        snapshotter: Addr<Snapshotter>,
        node: Recipient<Failed>,
    ) -> Bank {
        let BankState { rebuilt: Rebuilt { ledger, decisions, hash, replayed_bytes }, books, policy } = state;
        let replayed_slots = ledger.applied() - gauges.snapshot_slot.load(Ordering::Relaxed);
        let unsaved = policy.at_start(me, genesis.members(), (replayed_bytes, replayed_slots));
        gauges.applied_slot.store(ledger.applied(), Ordering::Relaxed);
        Bank {
            me,
            genesis,
            ledger,
            books,
            waiting: WaitingReads::default(),
            work: Work::default(),
            policy,
            snapshot: SnapshotStage::Waiting,
            snapshot_waiters: Vec::new(),
            unsaved,
            decisions: decisions.into(),
            log_hash: hash,
            frozen: (Vec::new(), Digest::ZERO),
            trust: Trust::default(),
            clients: FxHashMap::default(),
            expected: FxHashMap::default(),
            gauges,
            told_time: 0,
            voter,
            proposer,
            snapshotter,
            node,
        }
    }

    fn answer(&self, waiter: Waiter, slot: Option<Slot>, result: Result<Success, Refusal>) {
        let result = result.map(Done::Success);
        self.tell(waiter.client, Answered { tag: waiter.tag, slot, index: None, replayed: false, result });
    }

    fn tell(&self, client: ClientId, answered: Answered) {
        self.send(client, Answers { answers: vec![answered], applied: None });
    }

    /// Tells the waiting clients that nobody knows what became of their requests, or may become of them.
    fn abandon(&self, batches: impl IntoIterator<Item = Vec<Waiter>>) {
        let message = "this node does not know what became of the request (it was far behind, or its clock is ahead)";
        for waiter in batches.into_iter().flatten() {
            self.answer(waiter, None, Err(Refusal::unknown(ErrorCode::NoQuorum, message)));
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
        let mut answers: FxHashMap<ClientId, Vec<Answered>> = FxHashMap::default();
        for (index, (waiter, outcome)) in (0..).zip(waiters.iter().zip(outcomes)) {
            if self.clients.contains_key(&waiter.client)
                && let Some(answer) = self.render(*waiter, (slot, index), outcome)
            {
                answers.entry(waiter.client).or_default().push(answer);
            }
        }
        for (client, answers) in answers {
            self.send(client, Answers { answers, applied: Some(applied) });
        }
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

    fn sweep(&mut self) {
        let (applied, known) = (self.ledger.applied(), self.gauges.known_elsewhere.load(Ordering::Relaxed));
        if known > applied + FAR_BEHIND && self.gauges.received_bytes.load(Ordering::Relaxed) == 0 {
            info!(slot = applied, of = known, "catching up");
        }
        self.waiting.sweep(Instant::now());
        self.work.sweep();
        self.tell_digest_when_idle();
    }

    fn status(&mut self) -> Status {
        let summary = self.ledger.summary();
        let load = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Ordering::Relaxed);
        let gauges = &self.gauges;
        Status {
            node: self.me,
            cluster: self.genesis.cluster,
            version: env!("CARGO_PKG_VERSION").into(),
            members: self.genesis.members(),
            admitted: self.trust.admitted,
            in_doubt: self.trust.in_doubt,
            connected: self.genesis.nodes().filter(|n| gauges.connected[n.index()].load(Ordering::Relaxed)).collect(),
            applied_slot: summary.applied,
            decided_slots: summary.decided_slots,
            null_slots: summary.null_slots,
            repeated_batches: summary.repeated_batches,
            unusable_batches: summary.unusable_batches,
            phases: std::array::from_fn(|index| load(&gauges.phases[index])),
            snapshot_slot: load(&gauges.snapshot_slot),
            known_slot: load(&gauges.known_elsewhere).max(summary.applied),
            receiving_bytes: load(&gauges.received_bytes),
            open_slots: load(&gauges.open_slots),
            accounts: summary.accounts,
            transactions: summary.transactions,
            total_balance: summary.total_balance,
            sessions: summary.sessions,
            clients: load(&gauges.clients),
            max_clients: gauges.max_clients,
            descriptors: gauges.descriptors,
            chain_head: self.ledger.chain_head(),
            state_digest: self.ledger.digest(),
            log_time: self.ledger.log_time(),
            clock_offset_ms: gauges.clock_offset_ms.load(Ordering::Relaxed),
            clock_leap_ms: load(&gauges.clock_leap_ms),
            commits: load(&gauges.commits),
            uptime_s: gauges.started.elapsed().as_secs(),
            process: crate::process::used(),
            stages: gauges.stages.read(),
            other: OtherFields::default(),
        }
    }
}

impl Bank {
    /// Tells the proposer when log time has gone on.
    fn tell_time(&mut self) {
        let time = self.ledger.log_time();
        if time >= self.told_time.saturating_add(TELL_TIME) {
            self.told_time = time;
            self.proposer.do_send(AppliedTime(time));
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
                self.node.do_send(Failed(format!("no thread to read old transactions with: {error}").into()));
            }
        }
        self.begin_snapshot_if_due(ctx);
    }
}

impl Handler<Register> for Bank {
    type Result = ();

    fn handle(&mut self, Register { client, owner, answers }: Register, _: &mut Self::Context) {
        self.clients.insert(client, Client { owner, answers });
    }
}

impl Handler<Unregister> for Bank {
    type Result = ();

    fn handle(&mut self, Unregister(client): Unregister, _: &mut Self::Context) {
        self.clients.remove(&client);
        self.work.remove(client);
        self.trust.remove(client);
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

impl Handler<Reject> for Bank {
    type Result = ();

    fn handle(&mut self, Reject { waiter, refusal }: Reject, _: &mut Self::Context) {
        self.answer(waiter, None, Err(refusal));
    }
}

impl Handler<Apply> for Bank {
    type Result = ();

    fn handle(&mut self, Apply { slot, batch, decided }: Apply, ctx: &mut Self::Context) {
        let named = batch.as_ref().map(|(id, payload)| (id, payload));
        match self.ledger.apply(slot, named) {
            Applied::Batch(outcomes) => {
                let now = Instant::now();
                self.gauges.stages.note(Stage::Apply, now - decided);
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
        self.gauges.applied_slot.store(slot, Ordering::Relaxed);
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
