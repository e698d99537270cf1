//! The proposer actor: drives the pure pool. Requests come in from client sessions, proposals go out to the voter.
//!
//! Whatever waits in the mailbox is taken together: the pool is asked what to propose once, behind all of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, Millis, NodeId};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_messages::stages::Stage;
use tracing::warn;

use crate::budget::{MAX_UNANSWERED, RequestBudget};
use crate::consensus::agreement::{Event, Notice, TICK};
use crate::consensus::pool::{Asker, Now, Pool, PoolEffect, Room};
use crate::mail::bank::{Abandon, BankInbox, Expect};
use crate::mail::client_session::Waiter;
use crate::mail::node::Stop;
use crate::mail::peer_link::{Links, Say};
use crate::mail::proposer::{AcceptClock, AppliedTime, Notices, ProposerInbox, Replace, Submit};
use crate::mail::voter::{Tell, VoterInbox};
use crate::metrics::Metrics;
use crate::parts::waiters::Waiters;
use crate::timekeeper::{LOOK, Timekeeper};

/// Comes behind all that waits in the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
struct Pump;

/// How much is in a batch.
struct Formed {
    requests: usize,
    bytes: usize,
    /// When it was formed, until it was proposed.
    unproposed: Option<Instant>,
}

/// That batches of others had to go is said once in this time.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Drives the pool.
pub struct Proposer {
    pool: Pool,
    started: Instant,
    /// Since when requests gather; none if none does.
    gathering_since: Option<Instant>,
    /// How many, and whose they are.
    gathering: usize,
    waiters: Waiters,
    /// Batches of this node that are not decided.
    formed: rustc_hash::FxHashMap<BatchId, Formed>,
    /// Requests that gather or are in one of these batches, and the bytes of these. They may wait long after their clients have
    /// given up.
    in_flight: RequestBudget,
    /// Batches of others that had to go, as far as it was said, and when.
    dropped_told: u64,
    dropped_at: Option<Instant>,
    pumping: bool,
    /// A timer goes off when the pool has gathered long enough.
    gathers: bool,
    timekeeper: Timekeeper,
    metrics: Arc<Metrics>,
    neighbours: ProposerNeighbours,
}

/// The actors that the proposer speaks to.
pub struct ProposerNeighbours {
    /// Tells clients.
    pub bank: BankInbox,
    /// Agrees on what is proposed.
    pub voter: VoterInbox,
    /// One a peer.
    pub links: Links,
}

/// What a proposer begins with.
pub struct ProposerState {
    /// See [`Proposer::pool`].
    pub pool: Pool,
    /// Looks after the node's clock.
    pub timekeeper: Timekeeper,
    /// Log time by what is applied.
    pub log_time: Millis,
    /// For commands of this node's clients.
    pub requests: RequestBudget,
}

impl Proposer {
    /// The proposer of a node. `started` is the zero of the core's clock.
    pub fn new(
        state: ProposerState,
        started: Instant,
        metrics: Arc<Metrics>,
        neighbours: ProposerNeighbours,
    ) -> Proposer {
        let ProposerState { pool, timekeeper, log_time, requests } = state;
        let mut proposer = Proposer {
            pool,
            started,
            gathering_since: None,
            gathering: 0,
            waiters: Waiters::default(),
            formed: rustc_hash::FxHashMap::default(),
            in_flight: requests,
            dropped_told: 0,
            dropped_at: None,
            pumping: false,
            gathers: false,
            timekeeper,
            metrics,
            neighbours,
        };
        let now = proposer.now();
        proposer.timekeeper.start(now, &mut proposer.pool, log_time);
        proposer
    }

    /// The pool of a node that starts from a log with these last decisions, in this run: see
    /// [`Stores::incarnation`](crate::consensus::stores::Stores::incarnation).
    pub fn pool(
        genesis: &Genesis,
        me: NodeId,
        incarnation: u64,
        frontier: u64,
        last: impl IntoIterator<Item = (u64, Option<BatchId>)>,
    ) -> Pool {
        let mut pool = Pool::new(genesis.clone(), me, incarnation, frontier);
        for (slot, value) in last {
            pool.replay(slot, value);
        }
        pool
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Now { elapsed: self.started.elapsed(), wall }
    }

    fn schedule(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.pumping, true) {
            ctx.notify(Pump);
        }
    }

    fn perform(&mut self, effects: Vec<PoolEffect>) {
        let mut events = Vec::new();
        let now = Instant::now();
        for effect in effects {
            match effect {
                PoolEffect::Formed(id, payload, askers) => {
                    let waiters: Vec<Waiter> =
                        askers.into_iter().map(|Asker { tag, .. }| self.waiters.take(tag)).collect();
                    let formed = Formed { requests: waiters.len(), bytes: payload.len(), unproposed: Some(now) };
                    if let Some(since) = self.gathering_since {
                        self.metrics.stages.note(Stage::Queue, now - since);
                    }
                    self.gathering -= waiters.len();
                    self.gathering_since = (self.gathering > 0).then_some(now);
                    self.in_flight.formed(formed.bytes);
                    self.formed.insert(id, formed);
                    self.neighbours.bank.expect.do_send(Expect { id, waiters });
                    events.push(Event::Hold(id, payload));
                }
                PoolEffect::Propose { slot, value, with_payload } => {
                    let formed = value.and_then(|id| self.formed.get_mut(&id));
                    if let Some(at) = formed.and_then(|formed| formed.unproposed.take()) {
                        self.metrics.stages.note(Stage::Proposal, now - at);
                    }
                    events.push(Event::Propose { slot, value, with_payload });
                }
                PoolEffect::Forget(id) => events.push(Event::Forget(id)),
                PoolEffect::Drop(id) => events.push(Event::Drop(id)),
                PoolEffect::Hold(id, payload) => events.push(Event::Hold(id, payload)),
                PoolEffect::Abandon(id) => {
                    self.done(&id);
                    self.neighbours.bank.abandon.do_send(Abandon(id));
                }
                PoolEffect::Send(to, message) => self.send(to, &message),
            }
        }
        if !events.is_empty() {
            self.neighbours.voter.tell.do_send(Tell(events));
        }
    }

    /// A batch of this node is not in flight any more.
    fn done(&mut self, id: &BatchId) {
        if let Some(Formed { requests, bytes, .. }) = self.formed.remove(id) {
            self.in_flight.give(requests, bytes);
        }
    }

    /// Says now and then how many batches of others had no room.
    fn warn_of_dropped(&mut self) {
        let dropped = self.pool.dropped();
        if dropped > self.dropped_told && self.dropped_at.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            self.dropped_at = Some(Instant::now());
            let batches = dropped - self.dropped_told;
            self.dropped_told = dropped;
            warn!(
                batches,
                "batches of other nodes that nobody proposed had to go: there were too many, or they waited for too long"
            );
        }
    }

    fn send(&self, to: Option<NodeId>, message: &PeerMessage) {
        let goes = |peer: NodeId| to.is_none_or(|to| to == peer) && self.pool.is_linked(peer);
        for (_, link) in self.neighbours.links.iter().filter(|(peer, _)| goes(*peer)) {
            link.say.do_send(Say(message.clone()));
        }
    }
}

impl From<&Addr<Proposer>> for ProposerInbox {
    fn from(proposer: &Addr<Proposer>) -> ProposerInbox {
        ProposerInbox {
            submit: proposer.clone().recipient(),
            replace: proposer.clone().recipient(),
            applied_time: proposer.clone().recipient(),
            accept_clock: proposer.clone().recipient(),
            notices: proposer.clone().recipient(),
        }
    }
}

impl Actor for Proposer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |proposer, ctx| proposer.schedule(ctx));
        ctx.run_interval(LOOK, |proposer, _| {
            let now = proposer.now();
            proposer.timekeeper.look(now, &mut proposer.pool, &proposer.metrics);
        });
    }
}

impl Handler<Submit> for Proposer {
    type Result = ();

    fn handle(&mut self, Submit { waiter, request }: Submit, ctx: &mut Self::Context) {
        if self.pool.is_silent() {
            let message = "this node has a new store, and is not yet as far as the others: ask another one";
            let refusal = Refusal::refused(ErrorCode::Busy, message);
            return waiter.refuse(refusal);
        }
        if self.pool.waits_for_clock() {
            let message =
                "this node was off, and nobody has confirmed yet for how long: see its log, or ask another one";
            let refusal = Refusal::refused(ErrorCode::Busy, message);
            return waiter.refuse(refusal);
        }
        let (owner, client) = (waiter.client.owner(), waiter.client.id());
        let room = Room { requests: self.in_flight.max_requests(), bytes: MAX_UNANSWERED };
        let full = self.in_flight.is_full();
        if full || !self.pool.has_room(owner, client, room) {
            let whose = if full { "on this node" } else { "of this client or its address" };
            let message =
                format!("too many requests {whose} wait already ({} on this node)", self.in_flight.requests());
            let refusal = Refusal::refused(ErrorCode::Busy, message);
            return waiter.refuse(refusal);
        }
        self.in_flight.take();
        self.gathering += 1;
        self.gathering_since.get_or_insert_with(Instant::now);
        let tag = self.waiters.keep(waiter);
        self.pool.submit(self.now(), Asker { owner, client, tag }, request);
        self.schedule(ctx);
    }
}

impl Handler<Replace> for Proposer {
    type Result = ();

    fn handle(&mut self, Replace { node, store }: Replace, ctx: &mut Self::Context) {
        let (id, payload) = self.pool.replace(self.now(), node, store);
        self.neighbours.voter.tell.do_send(Tell(vec![Event::Hold(id, payload)]));
        self.schedule(ctx);
    }
}

impl Handler<AppliedTime> for Proposer {
    type Result = ();

    fn handle(&mut self, AppliedTime(log_time): AppliedTime, _: &mut Self::Context) {
        self.pool.applied_time(self.now(), log_time);
    }
}

impl Handler<AcceptClock> for Proposer {
    type Result = Millis;

    fn handle(&mut self, _: AcceptClock, _: &mut Self::Context) -> Self::Result {
        let (now, mut effects) = (self.now(), Vec::new());
        let beyond = self.pool.accept_clock(now, &mut effects);
        self.perform(effects);
        self.timekeeper.look(now, &mut self.pool, &self.metrics);
        beyond
    }
}

impl Handler<Notices> for Proposer {
    type Result = ();

    fn handle(&mut self, Notices(notices): Notices, ctx: &mut Self::Context) {
        let (now, mut effects) = (self.now(), Vec::new());
        for notice in notices {
            if let Notice::Decided(_, Some(id)) = &notice {
                self.done(id);
            }
            self.pool.notice(now, notice, &mut effects);
        }
        self.perform(effects);
        self.schedule(ctx);
    }
}

impl Handler<Pump> for Proposer {
    type Result = ();

    fn handle(&mut self, _: Pump, ctx: &mut Self::Context) {
        self.pumping = false;
        let (now, mut effects) = (self.now(), Vec::new());
        self.pool.pump(now, &mut effects);
        self.warn_of_dropped();
        if let Some(until) = self.pool.gathers_until(now).filter(|_| !self.gathers) {
            self.gathers = true;
            ctx.run_later(until.saturating_sub(now.elapsed), |proposer, ctx| {
                proposer.gathers = false;
                proposer.schedule(ctx);
            });
        }
        self.perform(effects);
    }
}

impl Handler<Stop> for Proposer {
    type Result = ();

    /// What it still had to say, a crash might have taken too.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
