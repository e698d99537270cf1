//! The bank actor: owns the ledger. Applies decided slots in order, answers the clients of this node, answers queries.
//!
//! A command is answered when it is applied here: at that point f + 1 disks bind it. A linearizable query waits for one
//! round among the nodes, which it shares with all others of that moment, and then until the slot that the round named is
//! applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::bank::{Query, ReadLevel, Refusal, Status, Success};
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, NodeId, Slot};
use rabia_bank_messages::peer::DIGEST_INTERVAL;
use rabia_bank_messages::stages::Stage;
use rustc_hash::FxHashMap;

use crate::ledger::{Applied, Ledger, RequestOutcome};
use crate::node::{Failed, Gauges};
use crate::snapshotter::{OwnDigest, Snapshotter};
use crate::voter::{Read, Voter};

/// Names a client of this node: one connection, or one host that embeds it.
pub type ClientId = u64;

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
    /// The session with this number is open.
    Opened(u64),
    /// The session is closed.
    Closed,
}

/// A client has come. Its answers go there.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    /// Who.
    pub client: ClientId,
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

/// A query that can't be answered yet.
struct WaitingRead {
    waiter: Waiter,
    query: Query,
    deadline: Instant,
}

/// How often reads that nobody waits for any more are dropped.
const SWEEP: Duration = Duration::from_secs(1);

/// All reads up to `read` may be answered once `slot` is applied.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct ReadAt {
    /// The highest number of the reads.
    pub read: u64,
    /// The slot to wait for.
    pub slot: Slot,
}

/// Owns the ledger.
pub struct Bank {
    me: NodeId,
    genesis: Genesis,
    ledger: Ledger,
    clients: FxHashMap<ClientId, Recipient<Answers>>,
    expected: FxHashMap<BatchId, Vec<Waiter>>,
    /// Linearizable reads that wait for their round, by number.
    rounds: BTreeMap<u64, WaitingRead>,
    reads: u64,
    /// Reads that wait for a slot.
    at_slot: BTreeMap<Slot, Vec<WaitingRead>>,
    failed: bool,
    gauges: Arc<Gauges>,
    voter: Addr<Voter>,
    snapshotter: Addr<Snapshotter>,
    node: Recipient<Failed>,
}

impl Bank {
    /// The bank of node `me`, with what it has replayed.
    pub fn new(
        me: NodeId,
        genesis: Genesis,
        ledger: Ledger,
        gauges: Arc<Gauges>,
        voter: Addr<Voter>,
        snapshotter: Addr<Snapshotter>,
        node: Recipient<Failed>,
    ) -> Bank {
        gauges.applied_slot.store(ledger.applied(), Ordering::Relaxed);
        Bank {
            me,
            genesis,
            ledger,
            clients: FxHashMap::default(),
            expected: FxHashMap::default(),
            rounds: BTreeMap::new(),
            reads: 0,
            at_slot: BTreeMap::new(),
            failed: false,
            gauges,
            voter,
            snapshotter,
            node,
        }
    }

    fn answer(&self, waiter: Waiter, slot: Option<Slot>, result: Result<Success, Refusal>) {
        if let Some(client) = self.clients.get(&waiter.client) {
            let result = result.map(Done::Success);
            let answers = vec![Answered { tag: waiter.tag, slot, replayed: false, result }];
            client.do_send(Answers { answers, applied: None });
        }
    }

    /// Tells the waiting clients what came of the requests of a batch.
    fn answer_batch(&self, slot: Slot, applied: Instant, waiters: Vec<Waiter>, outcomes: &[RequestOutcome]) {
        assert_eq!(
            waiters.len(),
            outcomes.len(),
            "a batch of this node in slot {slot} has other requests than it was given"
        );
        let mut answers: FxHashMap<ClientId, Vec<Answered>> = FxHashMap::default();
        for (waiter, outcome) in waiters.iter().zip(outcomes) {
            if self.clients.contains_key(&waiter.client) {
                answers.entry(waiter.client).or_default().push(self.render(waiter.tag, slot, outcome));
            }
        }
        for (client, answers) in answers {
            if let Some(client) = self.clients.get(&client) {
                client.do_send(Answers { answers, applied: Some(applied) });
            }
        }
    }

    fn render(&self, tag: u64, slot: Slot, outcome: &RequestOutcome) -> Answered {
        let (slot, replayed, result) = match outcome {
            RequestOutcome::Opened { session } => (slot, false, Ok(Done::Opened(*session))),
            RequestOutcome::Closed => (slot, false, Ok(Done::Closed)),
            RequestOutcome::Command { slot, replayed, outcome } => {
                (*slot, *replayed, self.ledger.render(outcome).map(Done::Success))
            }
            RequestOutcome::Rejected(rejection) => (slot, false, Err(rejection.refusal())),
        };
        Answered { tag, slot: Some(slot), replayed, result }
    }

    fn read(&mut self, waiter: Waiter, query: &Query) {
        let slot = self.ledger.applied();
        let result = match self.ledger.query(query) {
            Some(result) => result,
            None => Ok(Success::Status { status: Box::new(self.status()) }),
        };
        self.answer(waiter, Some(slot), result);
    }

    fn read_at(&mut self, slot: Slot, read: WaitingRead) {
        if slot <= self.ledger.applied() {
            self.read(read.waiter, &read.query);
        } else {
            self.at_slot.entry(slot).or_default().push(read);
        }
    }

    /// Without a quorum, or for a slot far ahead, reads would gather for ever.
    fn sweep(&mut self) {
        let now = Instant::now();
        self.rounds.retain(|_, read| read.deadline > now);
        self.at_slot.retain(|_, reads| {
            reads.retain(|read| read.deadline > now);
            !reads.is_empty()
        });
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
            connected: self.genesis.nodes().filter(|n| gauges.connected[n.index()].load(Ordering::Relaxed)).collect(),
            applied_slot: summary.applied,
            decided_slots: summary.decided_slots,
            null_slots: summary.null_slots,
            repeated_batches: summary.repeated_batches,
            phases: std::array::from_fn(|index| load(&gauges.phases[index])),
            open_slots: load(&gauges.open_slots),
            accounts: summary.accounts,
            transactions: summary.transactions,
            total_balance: summary.total_balance,
            sessions: summary.sessions,
            clients: load(&gauges.clients),
            chain_head: self.ledger.chain_head(),
            state_digest: self.ledger.digest(),
            commits: load(&gauges.commits),
            uptime_s: gauges.started.elapsed().as_secs(),
            process: crate::process::used(),
            stages: gauges.stages.read(),
        }
    }
}

impl Actor for Bank {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |bank, _| bank.sweep());
    }
}

impl Handler<Register> for Bank {
    type Result = ();

    fn handle(&mut self, Register { client, answers }: Register, _: &mut Self::Context) {
        self.clients.insert(client, answers);
    }
}

impl Handler<Unregister> for Bank {
    type Result = ();

    fn handle(&mut self, Unregister(client): Unregister, _: &mut Self::Context) {
        self.clients.remove(&client);
    }
}

impl Handler<Expect> for Bank {
    type Result = ();

    fn handle(&mut self, Expect { id, waiters }: Expect, _: &mut Self::Context) {
        self.expected.insert(id, waiters);
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

    fn handle(&mut self, Apply { slot, batch, decided }: Apply, _: &mut Self::Context) {
        if self.failed {
            return;
        }
        let named = batch.as_ref().map(|(id, payload)| (id, payload));
        match self.ledger.apply(slot, named) {
            Ok(Applied::Batch(outcomes)) => {
                let now = Instant::now();
                self.gauges.stages.note(Stage::Apply, now - decided);
                if let Some(waiters) = batch.and_then(|(id, _)| self.expected.remove(&id)) {
                    self.answer_batch(slot, now, waiters, &outcomes);
                }
            }
            Ok(Applied::Null | Applied::Repeated) => {}
            Err(error) => {
                self.failed = true;
                let message = format!("slot {slot} can't be applied: {error}. Is a newer version in the cluster?");
                return self.node.do_send(Failed(message));
            }
        }
        self.gauges.applied_slot.store(slot, Ordering::Relaxed);
        if slot.is_multiple_of(DIGEST_INTERVAL) {
            self.snapshotter.do_send(OwnDigest { slot, digest: self.ledger.digest() });
        }
        while let Some(due) = self.at_slot.first_entry().filter(|due| *due.key() <= slot) {
            for read in due.remove() {
                self.read(read.waiter, &read.query);
            }
        }
    }
}

impl Handler<Ask> for Bank {
    type Result = ();

    fn handle(&mut self, Ask { waiter, query, read, deadline }: Ask, _: &mut Self::Context) {
        match read {
            _ if query == (Query::GetStatus {}) => self.read(waiter, &query),
            ReadLevel::Local => self.read(waiter, &query),
            ReadLevel::AtLeast(slot) => self.read_at(slot, WaitingRead { waiter, query, deadline }),
            ReadLevel::Linearizable => {
                self.reads += 1;
                self.rounds.insert(self.reads, WaitingRead { waiter, query, deadline });
                self.voter.do_send(Read(self.reads));
            }
        }
    }
}

impl Handler<ReadAt> for Bank {
    type Result = ();

    fn handle(&mut self, ReadAt { read, slot }: ReadAt, _: &mut Self::Context) {
        let later = self.rounds.split_off(&(read + 1));
        for (_, read) in std::mem::replace(&mut self.rounds, later) {
            self.read_at(slot, read);
        }
    }
}
