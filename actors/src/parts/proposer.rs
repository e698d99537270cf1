//! What goes into the pool, and what follows from what the pool wants.
//!
//! - **Room.** A command is refused as busy where too many wait on this node, or too many of its client or principal; where this node's
//!   store does not speak yet or any more; and where nobody has confirmed how long the node was off. Commands count until
//!   their batch is decided or given up, however long their clients wait.
//! - **Order.** The bank hears who waits for a batch before anything is said of the batch. Whatever happens together is proposed
//!   together: the pool is asked once what to propose, behind all of it.
//! - **Time.** The clock is looked at every [`LOOK`](super::timekeeper::LOOK) (see [`timekeeper`](super::timekeeper)).
//!
//! How requests are grouped, in which slot they are proposed and what becomes of other nodes' batches, the [pool](crate::consensus::pool)
//! decides.

use std::sync::Arc;
use std::time::Duration;

use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::batch::EncodedRequest;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, Millis, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_messages::stages::Stage;
use rustc_hash::FxHashMap;

use super::timekeeper::{Look, Timekeeper};
use super::waiters::Waiters;
use crate::budget::{Exceeded, MAX_UNANSWERED, RequestBudget, Requests};
use crate::consensus::agreement::{Event, Notice};
use crate::consensus::clocks::Witness;
use crate::consensus::pool::{Asker, Now, Pool, PoolEffect, Room};
use crate::consensus::turns::{ClientId, Owner};
use crate::metrics::Metrics;

/// That batches of others had to go is told once in this time.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Out<W> {
    /// What the pool wants of the agreement core, in this order.
    Tell(Vec<Event>),
    /// These wait for the requests of a batch, in their order.
    Expect(BatchId, Vec<W>),
    /// Nobody waits for this batch any more: what becomes of it is unknown here.
    Abandon(BatchId),
    /// Tell whoever waits that nothing was done.
    Refuse(W, Refusal),
    /// Say this to a peer.
    Say(NodeId, PeerMessage),
    /// Call [`Proposer::pump`] behind all that waits by then.
    Pump,
    /// So many batches of other nodes had no room since this was told last.
    Dropped(u64),
    /// What there is to tell or to keep of the clock.
    Clock(Look),
}

/// What a proposer begins with.
#[derive(Debug)]
pub struct ProposerState {
    /// What [`pool`] makes of the log's last decisions.
    pub pool: Pool,
    /// Log time by what is applied.
    pub log_time: Millis,
    /// What an earlier run knew of time.
    pub witness: Witness,
    /// How long ago the machine was booted, times of sleep included; none where the system does not tell.
    pub since_boot: Option<Duration>,
    /// For commands of this node's clients.
    pub requests: RequestBudget,
    /// All members but this one.
    pub peers: Vec<NodeId>,
}

/// A batch of this node that is not decided.
#[derive(Debug)]
struct Formed {
    /// What is in it, by owner.
    requests: FxHashMap<Owner, Requests>,
    /// When it was formed, until it was proposed.
    unproposed: Option<Duration>,
}

/// The pool, and who waits for what is in it: `W` says who, and the proposer hands it on as it came.
#[derive(Debug)]
pub struct Proposer<W> {
    pool: Pool,
    peers: Vec<NodeId>,
    /// Since when requests gather; none if none does.
    gathering_since: Option<Duration>,
    /// How many, and whose they are.
    gathering: usize,
    /// With whose work their requests are, and the bytes of these.
    waiters: Waiters<(W, Owner, usize)>,
    formed: FxHashMap<BatchId, Formed>,
    /// Requests that gather or are in a batch that is not decided.
    in_flight: RequestBudget,
    /// Batches of others that had to go, as far as it was told, and when.
    dropped_told: u64,
    dropped_at: Option<Duration>,
    /// [`Out::Pump`] is on its way.
    pumping: bool,
    timekeeper: Timekeeper,
    metrics: Arc<Metrics>,
    /// Empty, and kept for its room.
    effects: Vec<PoolEffect>,
}

impl<W> Proposer<W> {
    /// A proposer that starts now.
    pub fn new(now: Now, state: ProposerState, metrics: Arc<Metrics>) -> Proposer<W> {
        let ProposerState { mut pool, log_time, witness, since_boot, requests, peers } = state;
        pool.start_clock(now, log_time, witness);
        Proposer {
            pool,
            peers,
            gathering_since: None,
            gathering: 0,
            waiters: Waiters::default(),
            formed: FxHashMap::default(),
            in_flight: requests,
            dropped_told: 0,
            dropped_at: None,
            pumping: false,
            timekeeper: Timekeeper::new(now, since_boot),
            metrics,
            effects: Vec::new(),
        }
    }

    /// The slots that are in use and not decided, for diagnosis.
    pub fn undecided(&self) -> impl std::fmt::Debug {
        self.pool.undecided()
    }

    // ----- requests -----

    /// This client of this owner wants this put into the log. The answer comes from the bank, unless it is refused here.
    pub fn submit(
        &mut self,
        now: Now,
        (owner, client): (Owner, ClientId),
        waiter: W,
        request: EncodedRequest,
        out: &mut Vec<Out<W>>,
    ) {
        let room = Room { requests: self.in_flight.max_requests(), bytes: MAX_UNANSWERED };
        let full = self.in_flight.check(owner);
        let why = if self.pool.is_silent() {
            "this node has a new store, and is not yet as far as the others: ask another one".into()
        } else if self.pool.waits_for_clock() {
            "this node was off, and nobody has confirmed yet for how long: see its log, or ask another one".into()
        } else if full.is_err() || !self.pool.has_room(owner, client, room) {
            let whose = if full == Err(Exceeded::Node) { "on this node" } else { "of this client or its principal" };
            format!("too many requests {whose} wait already ({} on this node)", self.in_flight.requests())
        } else {
            let bytes = request.len();
            self.in_flight.take(owner, bytes);
            self.gathering += 1;
            self.gathering_since.get_or_insert(now.elapsed);
            let tag = self.waiters.keep((waiter, owner, bytes));
            self.pool.submit(now, Asker { owner, client, tag }, request);
            return self.schedule(out);
        };
        out.push(Out::Refuse(waiter, Refusal::refused(ErrorCode::Busy, why)));
    }

    /// A member is to get a new store. The bank's state tells when that is decided.
    pub fn replace(&mut self, now: Now, node: NodeId, store: StoreId, out: &mut Vec<Out<W>>) {
        let (id, payload) = self.pool.replace(now, node, store);
        out.push(Out::Tell(vec![Event::Hold(id, payload)]));
        self.schedule(out);
    }

    /// This node's program knows the levels up to this one. The bank's state tells when that is decided.
    pub fn can(&mut self, now: Now, level: u32, out: &mut Vec<Out<W>>) {
        let (id, payload) = self.pool.can(now, level);
        out.push(Out::Tell(vec![Event::Hold(id, payload)]));
        self.schedule(out);
    }

    /// What the voter learnt.
    pub fn notices(&mut self, now: Now, notices: Vec<Notice>, out: &mut Vec<Out<W>>) {
        let mut effects = std::mem::take(&mut self.effects);
        for notice in notices {
            if let Notice::Decided(_, Some(id)) = &notice {
                self.done(id);
            }
            self.pool.notice(now, notice, &mut effects);
        }
        self.pass_on(now, effects, out);
        self.schedule(out);
    }

    // ----- time -----

    /// To be called every [`TICK`](crate::consensus::agreement::TICK).
    pub fn tick(&mut self, out: &mut Vec<Out<W>>) {
        self.schedule(out);
    }

    /// When there may be something to propose though nothing happens and no tick comes.
    pub fn wakes_at(&self, now: Now) -> Option<Duration> {
        self.pool.gathers_until(now)
    }

    /// It is the time of [`Proposer::wakes_at`].
    pub fn wake(&mut self, out: &mut Vec<Out<W>>) {
        self.schedule(out);
    }

    /// The state that is applied has this log time.
    pub fn applied_time(&mut self, now: Now, log_time: Millis) {
        self.pool.applied_time(now, log_time);
    }

    /// An operator says that this node's clock is right. Answers how far it shows beyond what was confirmed, in milliseconds; 0 where
    /// nothing was wrong with it.
    pub fn accept_clock(&mut self, now: Now, since_boot: Option<Duration>, out: &mut Vec<Out<W>>) -> Millis {
        let mut effects = std::mem::take(&mut self.effects);
        let beyond = self.pool.accept_clock(now, &mut effects);
        self.pass_on(now, effects, out);
        self.look(now, since_boot, out);
        beyond
    }

    /// Looks at the clock. The machine was booted so long ago, times of sleep included.
    pub fn look(&mut self, now: Now, since_boot: Option<Duration>, out: &mut Vec<Out<W>>) {
        let look = self.timekeeper.look(now, since_boot, &mut self.pool);
        self.metrics.note_clock(look.state.offset, look.state.leap);
        if look.tell || look.leapt.is_some() || look.keep.is_some() {
            out.push(Out::Clock(look));
        }
    }

    // ----- what the pool wants -----

    fn schedule(&mut self, out: &mut Vec<Out<W>>) {
        if !std::mem::replace(&mut self.pumping, true) {
            out.push(Out::Pump);
        }
    }

    /// Asks the pool what to propose.
    pub fn pump(&mut self, now: Now, out: &mut Vec<Out<W>>) {
        self.pumping = false;
        let mut effects = std::mem::take(&mut self.effects);
        self.pool.pump(now, &mut effects);
        self.warn_of_dropped(now, out);
        self.pass_on(now, effects, out);
    }

    fn pass_on(&mut self, now: Now, mut effects: Vec<PoolEffect>, out: &mut Vec<Out<W>>) {
        let mut events = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                PoolEffect::Formed(id, payload, askers) => {
                    self.formed(now.elapsed, id, askers, out);
                    events.push(Event::Hold(id, payload));
                }
                PoolEffect::Propose { slot, value, with_payload } => {
                    let formed = value.and_then(|id| self.formed.get_mut(&id));
                    if let Some(at) = formed.and_then(|formed| formed.unproposed.take()) {
                        self.metrics.stages.note(Stage::Proposal, now.elapsed.saturating_sub(at));
                    }
                    events.push(Event::Propose { slot, value, with_payload });
                }
                PoolEffect::Forget(id) => events.push(Event::Forget(id)),
                PoolEffect::Drop(id) => events.push(Event::Drop(id)),
                PoolEffect::Hold(id, payload) => events.push(Event::Hold(id, payload)),
                PoolEffect::Abandon(id) => {
                    self.done(&id);
                    out.push(Out::Abandon(id));
                }
                PoolEffect::Send(to, message) => {
                    let goes = |peer: &&NodeId| to.is_none_or(|to| to == **peer) && self.pool.is_linked(**peer);
                    out.extend(self.peers.iter().filter(goes).map(|peer| Out::Say(*peer, message.clone())));
                }
            }
        }
        self.effects = effects;
        if !events.is_empty() {
            out.push(Out::Tell(events));
        }
    }

    fn formed(&mut self, now: Duration, id: BatchId, askers: Vec<Asker>, out: &mut Vec<Out<W>>) {
        let mut waiters = Vec::with_capacity(askers.len());
        let mut requests = FxHashMap::<Owner, Requests>::default();
        for Asker { tag, .. } in askers {
            let (waiter, owner, bytes) = self.waiters.take(tag);
            waiters.push(waiter);
            requests.entry(owner).or_default().add(bytes);
        }
        if let Some(since) = self.gathering_since {
            self.metrics.stages.note(Stage::Queue, now.saturating_sub(since));
        }
        self.gathering -= waiters.len();
        self.gathering_since = (self.gathering > 0).then_some(now);
        self.formed.insert(id, Formed { requests, unproposed: Some(now) });
        out.push(Out::Expect(id, waiters));
    }

    /// A batch of this node is not in flight any more.
    fn done(&mut self, id: &BatchId) {
        if let Some(Formed { requests, .. }) = self.formed.remove(id) {
            requests.into_iter().for_each(|(owner, requests)| self.in_flight.give(owner, requests));
        }
    }

    /// Tells now and then how many batches of others had no room.
    fn warn_of_dropped(&mut self, now: Now, out: &mut Vec<Out<W>>) {
        let dropped = self.pool.dropped();
        let again = self.dropped_at.is_none_or(|at| now.elapsed.saturating_sub(at) >= TELL_AGAIN);
        if dropped > self.dropped_told && again {
            self.dropped_at = Some(now.elapsed);
            out.push(Out::Dropped(dropped - self.dropped_told));
            self.dropped_told = dropped;
        }
    }
}

/// The pool of a node that starts from a log with these last decisions, in this run: see
/// [`Stores::incarnation`](crate::consensus::stores::Stores::incarnation).
pub fn pool(
    genesis: &Genesis,
    me: NodeId,
    incarnation: u64,
    frontier: Slot,
    last: impl IntoIterator<Item = (Slot, Value)>,
) -> Pool {
    let mut pool = Pool::new(genesis.clone(), me, incarnation, frontier);
    for (slot, value) in last {
        pool.replay(slot, value);
    }
    pool
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rabia_bank_messages::bank::Command;
    use rabia_bank_messages::batch::{Action, RequestHeader};
    use rabia_bank_messages::ids::{ClusterId, SessionKey};

    use super::*;

    const NOW: Now = Now { elapsed: Duration::from_secs(1), wall: 1_000 };

    /// The proposer of node 1 of three, for so many requests.
    fn proposer(requests: usize) -> Proposer<u64> {
        let genesis = Genesis::new(ClusterId([1; 16]), (1..=3).map(|number| StoreId([number; 16])).collect());
        let mut nodes = genesis.nodes();
        let me = nodes.next().unwrap();
        let state = ProposerState {
            pool: pool(&genesis, me, 1, 0, []),
            log_time: 0,
            witness: Witness::default(),
            since_boot: None,
            requests: RequestBudget::new(requests, requests),
            peers: nodes.collect(),
        };
        Proposer::new(Now { elapsed: Duration::ZERO, ..NOW }, state, Arc::new(Metrics::new(Instant::now(), 0, 0)))
    }

    fn submit_of(proposer: &mut Proposer<u64>, from: (Owner, ClientId), tag: u64) -> Vec<Out<u64>> {
        let header = RequestHeader { session: 0, key: SessionKey([1; 16]), number: 0, acknowledged: 0, token: 0 };
        let mut out = Vec::new();
        proposer.submit(NOW, from, tag, EncodedRequest::new(&header, &Action::<Command>::Open), &mut out);
        out
    }

    fn submit(proposer: &mut Proposer<u64>, tag: u64) -> Vec<Out<u64>> {
        submit_of(proposer, (Owner::Host, 1), tag)
    }

    #[test]
    fn who_waits_for_a_batch_is_known_before_anything_is_said_of_it() {
        let mut proposer = proposer(10);
        assert!(matches!(submit(&mut proposer, 7)[..], [Out::Pump]));
        assert!(submit(&mut proposer, 8).is_empty(), "the pool is asked once");
        let mut out = Vec::new();
        proposer.pump(NOW, &mut out);
        let [Out::Expect(id, waiters), Out::Tell(events)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(waiters[..], [7, 8]);
        assert!(matches!(&events[..], [Event::Hold(held, _), Event::Propose { .. }] if held == id), "{events:?}");
        assert!(matches!(submit(&mut proposer, 9)[..], [Out::Pump]));
    }

    #[test]
    fn requests_count_until_their_batch_is_decided() {
        let other = (Owner::Address([127, 0, 0, 1].into()), 3);
        let mut proposer = proposer(4);
        for (from, tag) in [((Owner::Host, 1), 5), ((Owner::Host, 2), 6), (other, 7)] {
            submit_of(&mut proposer, from, tag);
        }
        let mut out = Vec::new();
        proposer.pump(NOW, &mut out);
        let Some(Out::Expect(id, waiters)) = out.first() else { panic!("{out:?}") };
        assert_eq!(waiters.len(), 3);
        assert!(matches!(submit(&mut proposer, 8)[..], [Out::Pump]), "the fourth of four");
        let refused = submit_of(&mut proposer, other, 9);
        let [Out::Refuse(waiter, refusal)] = &refused[..] else { panic!("{refused:?}") };
        assert!(*waiter == 9 && refusal.code == ErrorCode::Busy, "{refused:?}");
        proposer.notices(NOW, vec![Notice::Decided(1, Some(*id)), Notice::Frontier(1)], &mut Vec::new());
        assert!(submit_of(&mut proposer, other, 10).is_empty(), "it is taken, and the pool is about to be asked");
    }
}
