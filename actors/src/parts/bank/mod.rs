//! What becomes of decided slots and of questions: the bank owns the ledger, applies slots in order, and says what its clients hear.
//!
//! A command is answered when it is applied here: at that point f + 1 disks bind it. A linearizable query waits for one
//! round among the nodes, which it shares with all others of that moment, and then until the slot that the round named is
//! applied (`reads`). From then on it is work, and so is a look for transactions of a feed (`followers`): it is done in turns between
//! other messages, fairly between those who ask (`work`). Nobody is answered while the node may not be believed (`trust`).
//!
//! From time to time the bank takes a snapshot (`snapshots`). When that is durable, old transactions leave memory.
//!
//! Whoever drives this performs what comes [out](Out), reads blocks of the history when it is asked to, and calls
//! [`work`](Bank::work), [`collect`](Bank::collect) and, every [`SWEEP`], [`sweep`](Bank::sweep).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rabia_bank_messages::bank::{ErrorCode, Refusal, Status};
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::genesis::{Genesis, Replacement};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, NodeId, Slot, StoreId};
use rabia_bank_messages::level;
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::DIGEST_INTERVAL;
use rustc_hash::FxHashMap;
use tracing::info;

use crate::applied::AppliedSlot;
use crate::consensus::stores::{Standing, Stores};
use crate::consensus::turns::ClientId;
use crate::failure::Failure;
use crate::ledger;
use crate::ledger::admin_refusal;
use crate::ledger::machine::{Progress, StateMachine};
use crate::ledger::principals::Roster;
use crate::ledger::replicated::{Applied, Replicated, RequestOutcome};
use crate::parts::clients::{Answered, Client, Done, Waiter};
use crate::rebuild::{Rebuilt, warn_of_unusable};
use crate::snapshot::{Decision, Snapshot};
use reads::WaitingReads;
use snapshots::Stage;
use tasks::{Purpose, Work};
use trust::Trust;
use words::Standpoint;

pub use policy::SnapshotPolicy;
pub use work::Portions;

mod followers;
mod may;
mod policy;
mod rates;
mod reads;
mod snapshots;
mod status;
mod tasks;
#[cfg(test)]
mod tests;
mod trust;
pub mod words;
mod work;

/// The proposer is told of log time when it has gone on by so many milliseconds: it looks for leaps of an hour.
const TELL_TIME: Millis = 1_000;

/// That the log does not know which levels this program knows is told to it again after this time.
const SAY_CAN_AGAIN: Duration = Duration::from_secs(5);

/// How often work that nobody waits for any more is dropped, and the state of an idle node compared.
pub const SWEEP: Duration = Duration::from_secs(1);

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Out<S: StateMachine = ledger::Bank> {
    /// Send these answers to a client.
    Answers {
        /// Whoever made the requests.
        to: Client<S>,
        /// Each bears the mark of its request.
        answers: Vec<Answered<S>>,
        /// They come from the slot that is being applied.
        applied: bool,
    },
    /// Make the status of the node ([`Bank::status`]), and send it. (Whoever looks after the node must hear of it also while the node
    /// is in doubt.)
    Status {
        /// The client that waits for it, and its mark.
        to: Waiter<S>,
        /// Makes the answer of it.
        answer: fn(Box<Status>) -> S::Answer,
    },
    /// Let the voter begin a round for this read. Reads are numbered, ascending.
    Read(u64),
    /// Tell the voter the digest of the state after a slot.
    OwnDigest {
        /// The last slot that is applied in it.
        slot: Slot,
        /// Covers all that is replicated, so it is the same wherever the same slots are applied.
        digest: Digest,
    },
    /// Tell the proposer that the state has this log time.
    AppliedTime(Millis),
    /// Put into the log that this node's program knows the levels up to this one.
    Can(u32),
    /// Call [`Bank::work`] after this time; none: behind all that is ready now, and a look at the sockets.
    Work {
        /// How long to wait.
        pause: Duration,
    },
    /// Read this block of the history from the books, off this thread, and report it with [`Bank::block_read`].
    ReadBlock(u64),
    /// Call [`Bank::collect`] after this time; none: at once.
    Collect {
        /// How long to wait.
        pause: Duration,
    },
    /// Have the snapshotter make this durable.
    Save(Snapshot),
    /// The books on disk stand after this slot, or a later one: tell those who wait for it.
    Durable(Slot),
    /// This state is out of use. A million accounts take a while to go: not on this thread.
    Discard(Box<Replicated<S>>),
    /// The node can't go on, for this reason.
    Fail(Failure),
}

/// The ledger, who waits for which answer, and whose turn it is.
pub struct Bank<S: StateMachine = ledger::Bank> {
    me: NodeId,
    genesis: Genesis,
    portions: Portions,
    ledger: Replicated<S>,
    expected: FxHashMap<BatchId, Vec<Waiter<S>>>,
    /// The answers of a batch, by client; empty between batches.
    answers: FxHashMap<ClientId, (Client<S>, Vec<Answered<S>>)>,
    waiting: WaitingReads<S>,
    work: Work<S>,
    policy: SnapshotPolicy,
    stage: Stage,
    /// The slot that the books on disk stand after.
    saved: Slot,
    /// Somebody waits for a snapshot of this slot.
    wanted: Slot,
    /// Bytes of batches and slots since the last snapshot.
    unsaved: (u64, u64),
    /// The newest decisions: as many as owners of coming slots are read from.
    decisions: VecDeque<Decision>,
    /// The hash of the log up to what is applied.
    log_hash: Digest,
    /// The same, when the ledger was frozen.
    frozen: (Vec<Decision>, Digest),
    trust: Trust<S>,
    /// The log time that the proposer was told of last.
    told_time: Millis,
    /// The principals that sessions were told of last.
    told_roster: Arc<Roster>,
    /// When the log was told last which levels this program knows, and the slot that was applied then.
    said_can: Option<(Instant, Slot)>,
    applied: AppliedSlot,
}

/// What a bank begins with.
pub struct BankState<S: StateMachine = ledger::Bank> {
    /// The state of the books and the log.
    pub rebuilt: Rebuilt<S>,
    /// The slot that the books on disk stand after.
    pub saved: Slot,
    /// When to take snapshots.
    pub policy: SnapshotPolicy,
    /// How much is done at a time of what changes nothing.
    pub portions: Portions,
}

impl<S: StateMachine> Bank<S> {
    /// The bank of node `me`. It writes to `applied` how far it is. Call [`start`](Bank::start) before anything else.
    pub fn new(me: NodeId, genesis: Genesis, state: BankState<S>, applied: AppliedSlot) -> Bank<S> {
        let BankState { rebuilt: Rebuilt { ledger, decisions, hash, replayed_bytes }, saved, policy, portions } = state;
        let unsaved = policy.at_start(me, genesis.members(), (replayed_bytes, ledger.applied() - saved));
        applied.set(ledger.applied());
        applied.set_level(ledger.levels().level());
        applied.set_roster(ledger.roster());
        Bank {
            told_roster: ledger.roster().clone(),
            me,
            genesis,
            portions,
            ledger,
            expected: FxHashMap::default(),
            answers: FxHashMap::default(),
            waiting: WaitingReads::default(),
            work: Work::default(),
            policy,
            stage: Stage::Waiting,
            saved,
            wanted: 0,
            unsaved,
            decisions: decisions.into(),
            log_hash: hash,
            frozen: (Vec::new(), Digest::ZERO),
            trust: Trust::default(),
            told_time: 0,
            said_can: None,
            applied,
        }
    }

    /// To be called once, before anything else.
    pub fn start(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        self.begin_snapshot_if_due(now, out);
    }

    /// From now on so much is done at a time.
    pub fn set_portions(&mut self, portions: Portions) {
        self.portions = portions;
    }

    /// The state. Nobody but a check of it needs it.
    pub fn ledger(&mut self) -> &mut Replicated<S> {
        &mut self.ledger
    }

    /// These wait for the requests of a batch, in their order. Comes before the batch is proposed.
    pub fn expect(&mut self, batch: BatchId, waiters: Vec<Waiter<S>>) {
        self.expected.insert(batch, waiters);
    }

    /// This node does not know what became of a batch, or may become of it.
    pub fn abandon(&mut self, batch: &BatchId, out: &mut Vec<Out<S>>) {
        let waiters = self.expected.remove(batch);
        self.answer_unknown(waiters, out);
    }

    /// Applies the next slot, and answers whoever waits for what is in it. Answers what came of it; none where this program does not know
    /// the level that is in force there: nothing was applied, and the node stops.
    pub fn apply(
        &mut self,
        now: Instant,
        slot: Slot,
        batch: Option<(BatchId, Payload)>,
        out: &mut Vec<Out<S>>,
    ) -> Option<Applied<S::Outcome>> {
        self.ledger.levels().check().ok()?;
        let named = batch.as_ref().map(|(id, payload)| (id, payload));
        let applied = self.ledger.apply(slot, named);
        self.applied.set_level(self.ledger.levels().level());
        match &applied {
            Applied::Batch(outcomes) => {
                if let Some(waiters) = named.and_then(|(id, _)| self.expected.remove(id)) {
                    self.answer_batch(slot, waiters, outcomes, out);
                }
            }
            Applied::Replacement => {
                if let Some(Replacement { node, store, .. }) = self.ledger.replacements().list().last() {
                    info!(slot, of = %node, %store, "a store takes the place of another");
                }
            }
            Applied::Can => {
                if let Some((id, _)) = named {
                    info!(slot, of = %id.origin, level = self.ledger.levels().can(id.origin), "a member says which levels its program knows");
                }
            }
            Applied::Null | Applied::Repeated => {}
            Applied::Unusable(why) => {
                let id = named.map(|(id, _)| id);
                warn_of_unusable(slot, id, why);
                let waiters = id.and_then(|id| self.expected.remove(id));
                self.answer_unknown(waiters, out);
            }
        }
        self.applied.set(slot);
        if let Err(too_new) = self.ledger.levels().check() {
            // What is applied stays as it is: no snapshot of it, no digest.
            out.push(Out::Fail(too_new.into()));
            return Some(applied);
        }
        self.tell_roster();
        self.tell_time(out);
        if slot.is_multiple_of(DIGEST_INTERVAL) {
            self.tell_digest(slot, out);
        }
        self.note_slot(slot, batch.map(|(id, payload)| (id, payload.len() as u64)));
        self.begin_snapshot_if_due(now, out);
        self.work.applied = Some(now);
        self.read_due(out);
        self.tell_followers(out);
        Some(applied)
    }

    /// Drops work that nobody waits for any more.
    pub fn sweep(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        self.waiting.sweep(now);
        self.work.sweep(now, self.portions.a_second);
        self.trust.sweep();
        self.tell_digest_when_idle(out);
        self.say_can(now, out);
    }

    /// Puts into the log which levels this program knows, where that says otherwise: it is another program than in the run before. Again
    /// where something else was decided meanwhile, for what was said then may have been given up.
    fn say_can(&mut self, now: Instant, out: &mut Vec<Out<S>>) {
        let (can, applied) = (level::highest(), self.ledger.applied());
        let said_lately = |(at, slot): (Instant, Slot)| now - at < SAY_CAN_AGAIN || slot == applied;
        if !self.trust.admitted || self.ledger.levels().can(self.me) == can || self.said_can.is_some_and(said_lately) {
            return;
        }
        self.said_can = Some((now, applied));
        out.push(Out::Can(can));
    }

    /// How far the state is.
    pub fn standpoint(&self) -> Standpoint {
        let newest = (self.ledger.history().entries, self.ledger.history().head);
        Standpoint { applied: self.ledger.applied(), newest }
    }

    /// Whether a store is a member's now: the slot in which it was decided that it takes the place of another, or none if that would
    /// have an effect now.
    ///
    /// # Errors
    /// Why it would have none.
    pub fn standing_of(&self, node: NodeId, store: StoreId) -> Result<Option<Slot>, String> {
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

    fn answer(
        &mut self,
        waiter: Waiter<S>,
        slot: Option<Slot>,
        result: Result<S::Answer, Refusal>,
        out: &mut Vec<Out<S>>,
    ) {
        let Waiter { client, tag } = waiter;
        let result = result.map(Done::Success);
        self.tell(client, Answered { tag, slot, index: None, replayed: false, result }, out);
    }

    fn tell(&mut self, client: Client<S>, answered: Answered<S>, out: &mut Vec<Out<S>>) {
        self.send(client, vec![answered], false, out);
    }

    /// Tells the waiting clients that nobody knows what became of their requests, or may become of them.
    fn answer_unknown(&mut self, batches: impl IntoIterator<Item = Vec<Waiter<S>>>, out: &mut Vec<Out<S>>) {
        let message = "this node does not know what became of the request (it was far behind, or its clock is ahead)";
        for waiter in batches.into_iter().flatten() {
            self.answer(waiter, None, Err(Refusal::unknown(ErrorCode::NoQuorum, message)), out);
        }
    }

    /// Tells the waiting clients what came of the requests of a batch.
    fn answer_batch(
        &mut self,
        slot: Slot,
        waiters: Vec<Waiter<S>>,
        outcomes: &[RequestOutcome<S::Outcome>],
        out: &mut Vec<Out<S>>,
    ) {
        assert_eq!(
            waiters.len(),
            outcomes.len(),
            "a batch of this node in slot {slot} has other requests than it was given"
        );
        let mut answers = std::mem::take(&mut self.answers);
        for (index, (waiter, outcome)) in (0..).zip(waiters.into_iter().zip(outcomes)) {
            if waiter.client.is_gone() {
                continue;
            }
            let client = waiter.client.clone();
            if let Some(answer) = self.render(waiter, (slot, index), outcome) {
                answers.entry(client.id()).or_insert_with(|| (client, Vec::new())).1.push(answer);
            }
        }
        for (_, (client, answers)) in answers.drain() {
            self.send(client, answers, true, out);
        }
        self.answers = answers;
        self.go_on_working(out);
    }

    /// The answer to a request, unless it needs old transactions: then it comes later. It is made at once, however long: its
    /// length is bounded by that of the command, and who sent the command has waited for its turn already.
    fn render(
        &mut self,
        waiter: Waiter<S>,
        place: (Slot, u32),
        outcome: &RequestOutcome<S::Outcome>,
    ) -> Option<Answered<S>> {
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
                    let purpose = Purpose::Command { slot: *slot, index: Some(*index), replayed: *replayed };
                    self.answer_later(waiter, purpose, lookup);
                    return None;
                };
                (*slot, Some(*index), *replayed, self.shown(&waiter.client, answer))
            }
            RequestOutcome::Administered { slot, index, replayed, outcome } => {
                let answer = outcome.map_err(admin_refusal).and_then(|number| {
                    let none = || Refusal::refused(ErrorCode::Malformed, "nobody administers this machine");
                    S::administered(number).ok_or_else(none)
                });
                (*slot, Some(*index), *replayed, answer.map(Done::Success))
            }
            RequestOutcome::Rejected(rejection) => (slot, now, false, Err(rejection.refusal())),
        };
        Some(Answered { tag, slot: Some(slot), index, replayed, result })
    }

    /// Takes note of a slot that was applied.
    fn note_slot(&mut self, slot: Slot, batch: Option<(BatchId, u64)>) {
        let value = batch.map(|(id, _)| id);
        self.decisions.push_back((slot, value));
        self.log_hash = log_hash(self.log_hash, slot, &value);
        let keep = *self.genesis.owner_slots(slot + 1).start();
        while self.decisions.pop_front_if(|(slot, _)| *slot < keep).is_some() {}
        let (bytes, slots) = &mut self.unsaved;
        *bytes += batch.map_or(0, |(_, bytes)| bytes);
        *slots += 1;
    }

    /// Lets sessions see who may ask, where that has changed.
    fn tell_roster(&mut self) {
        let roster = self.ledger.roster();
        if !Arc::ptr_eq(roster, &self.told_roster) {
            self.told_roster = roster.clone();
            self.applied.set_roster(roster);
        }
    }

    /// Tells the proposer when log time has gone on.
    fn tell_time(&mut self, out: &mut Vec<Out<S>>) {
        let time = self.ledger.log_time();
        if time >= self.told_time.saturating_add(TELL_TIME) {
            self.told_time = time;
            out.push(Out::AppliedTime(time));
        }
    }
}
