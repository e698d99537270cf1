//! The pool core: which requests wait, how they are grouped, and what to propose in which slot.
//!
//! Never a matter of safety: whatever the pool proposes, agreement holds. It decides how many slots are forfeited and how
//! long a request waits. The choice is that of slot owners (see [`Owners`]):
//!
//! - Slots are opened from the lowest on, each by its owner, with the batch that waits longest and its payload. The others,
//!   hearing it first, propose the same.
//! - A node whose turn it is not sends its batches to all, and the owner of the next slot proposes them: a node that has more
//!   work than turns waits for one message more, and no slot is forfeited.
//! - Where there is no owner, or nothing was decided for a while, anyone proposes in the next slot at once.
//! - A node that knows that a batch was decided does not propose it again. One that does not know, since it skipped the slot by a
//!   snapshot or was started again, would propose it without end. So the others let it pass: it is decided once more, which
//!   changes no account, and then all know.
//! - A gap below a slot in use is filled by its owner, with null where nothing waits. An owner that can't be reached, or is
//!   silent, is replaced by the live nodes in turn. When a member gets a new store, the slots in which the old one speaks are
//!   in use: the new one waits for them.
//! - Batches of others that wait have a budget, of each origin and in all. Beyond it the origin's oldest ones go, and so does one
//!   that nobody proposed for long. Its origin still has it, and proposes it itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rabia_bank_messages::batch::{EncodedRequest, MAX_BATCH_REQUESTS, Payload};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, Digest, MAX_NODES, Millis, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_messages::sabotage::{Rule, is_broken};

mod decided;
mod queue;

use decided::DecidedBatches;
use queue::{Pending, Queue};

use super::clocks::{ClockState, Clocks, LOOK, Leapt, MAX_STAMP_AHEAD, SAY, Witness};
use super::gathering::{Gathered, Gathering};
use super::owners::Owners;
use super::words::Notice;
use crate::turns::{ClientId, Owner};

pub use super::gathering::{Asker, Room};
pub use super::words::{Now, PoolEffect};
pub use queue::{MAX_ALL_WAITING_BYTES, MAX_WAIT, MAX_WAITING, MAX_WAITING_BYTES};

/// An owner that is silent for so many times the usual duration of a slot is replaced …
const PATIENCE: u32 = 8;
/// … but not sooner than this (a busy machine is not a dead one) …
const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// … nor later than this.
const PATIENCE_MAX: Duration = Duration::from_millis(400);
/// A node with nothing in flight proposes whatever it has. With one batch in flight the next is formed from this size on,
/// in bytes, and each further one at twice the size: more and smaller batches would be more work for the same answers.
const SECOND_BATCH: usize = 32 * 1024;
/// After so many doublings a batch is full anyway.
const MAX_DOUBLINGS: i32 = 3;
/// Beside others in flight, no batch is formed while these have so many commands, those of bulks counted: what comes now would wait
/// for all of them. It is some 20 ms of work, and more than is in flight elsewhere while a batch is being agreed on.
const COMMANDS_AHEAD: u64 = 16_384;
/// Nor while they have so many bytes.
const BYTES_AHEAD: usize = 1 << 20;
/// Where so many requests are expected back, a batch waits for them …
const WORTH_GATHERING: u32 = 8;
/// … but no longer than this.
const GATHER: Duration = Duration::from_millis(2);
/// Where no slot was decided for this long, nodes do not wait for their turn …
const QUIET: Duration = Duration::from_millis(5);
/// … nor for less than so many times the usual duration of a slot. Not sooner: clients that were answered by one slot ask
/// again at the same moment, on all nodes, and large batches take long to arrive.
const QUIET_SLOTS: u32 = 2;
/// A node that is sent a batch stamped too far ahead says what its own clock shows, to the same node not sooner again than
/// after this time.
const CLOCK_PAUSE: Duration = Duration::from_millis(100);

/// What the pool knows of an undecided slot.
#[derive(Debug, Default)]
struct Seen {
    /// This node proposed, or spoke there in a former run.
    proposed: bool,
    value: Value,
    /// What was heard first.
    heard: Option<(NodeId, Value)>,
    /// Since when the slot is needed: somebody spoke in it or in a later one.
    since: Option<Duration>,
    decided: bool,
}

/// The pool of one node.
///
/// Invariants:
/// - `queue` holds batches that are not known to be decided.
/// - This node proposes at most once in a slot.
#[derive(Debug)]
pub struct Pool {
    me: NodeId,
    genesis: Genesis,
    incarnation: u64,
    sequence: u64,
    gather: Gathering,
    gather_order: u64,
    /// How many requests the next batch waits for, and until when: clients that were just answered ask again at once, and
    /// one batch of all of them is half the work of two that take turns.
    expected: (u32, Duration),
    queue: Queue,
    done: DecidedBatches,
    owners: Owners,
    slots: BTreeMap<Slot, Seen>,
    frontier: Slot,
    /// The slots in which this node's store speaks.
    speaks: Range<Slot>,
    /// When the frontier last moved.
    moved: Duration,
    up: [bool; MAX_NODES],
    suspect: [bool; MAX_NODES],
    /// Smoothed time from proposing to deciding.
    slot_time: Duration,
    proposed_at: BTreeMap<Slot, Duration>,
    clocks: Clocks,
    /// When all were told what this node's clock shows.
    clock_said: Option<Duration>,
    /// When each peer was told what this node's clock shows.
    clock_told: [Option<Duration>; MAX_NODES],
}

impl Pool {
    /// The pool of a run. `incarnation` is no other run's of this node: see [`Stores::incarnation`](super::stores::Stores::incarnation).
    pub fn new(genesis: Genesis, me: NodeId, incarnation: u64, frontier: Slot) -> Pool {
        Pool {
            me,
            incarnation,
            sequence: 0,
            gather: Gathering::default(),
            gather_order: 0,
            expected: (0, Duration::ZERO),
            queue: Queue::new(me, genesis.members()),
            done: DecidedBatches::default(),
            owners: Owners::new(genesis.clone()),
            slots: BTreeMap::new(),
            frontier,
            speaks: 0..Slot::MAX,
            moved: Duration::ZERO,
            up: [false; MAX_NODES],
            suspect: [false; MAX_NODES],
            slot_time: PATIENCE_MIN / PATIENCE,
            proposed_at: BTreeMap::new(),
            clocks: Clocks::new(me, genesis.quorums().majority()),
            clock_said: None,
            clock_told: [None; MAX_NODES],
            genesis,
        }
    }

    /// Tells the pool of a decision from before its start, so that owners are known.
    pub fn replay(&mut self, slot: Slot, value: Value) {
        self.owners.decided(slot, value.map(|id| id.origin));
        if let Some(id) = value {
            self.done.add(slot, id);
        }
    }

    /// Adds a request. It is grouped and proposed by the next [`Pool::pump`].
    pub fn submit(&mut self, now: Now, from: Asker, request: EncodedRequest) {
        if self.gather.is_empty() {
            self.gather_order = self.queue.next_order();
        }
        self.gather.push(now.elapsed, from, request);
    }

    /// Whether another request of this client may wait, where so much may on this node.
    pub fn has_room(&self, owner: Owner, client: ClientId, room: Room) -> bool {
        self.gather.has_room(owner, client, room)
    }

    /// Adds a batch that gives a member a new store. Whether it was decided, the bank's state tells.
    pub fn replace(&mut self, now: Now, node: NodeId, store: StoreId) -> (BatchId, Payload) {
        self.add_entry(now, Payload::replacing(node, store, self.stamp(now)))
    }

    /// Adds a batch that says which levels this node's program knows. Likewise.
    pub fn can(&mut self, now: Now, level: u32) -> (BatchId, Payload) {
        self.add_entry(now, Payload::can(level, self.stamp(now)))
    }

    /// Adds a batch without requests.
    fn add_entry(&mut self, now: Now, payload: Payload) -> (BatchId, Payload) {
        self.sequence += 1;
        let digest = Digest::of(payload.bytes());
        let id = BatchId { origin: self.me, incarnation: self.incarnation, sequence: self.sequence, digest };
        let order = self.queue.next_order();
        self.queue.add(id, Pending::own(payload.clone(), order, now.elapsed, 0));
        (id, payload)
    }

    /// Whether this node's store speaks nowhere in the window: it took the place of another and is not as far yet, or was
    /// replaced itself. Nothing that is submitted would be proposed.
    pub fn is_silent(&self) -> bool {
        let window = self.frontier + 1..self.frontier + self.genesis.window + 1;
        self.speaks.start >= window.end || self.speaks.end <= window.start
    }

    /// Batches of this node that are formed and not decided, and bytes that gather for the next.
    pub fn load(&self) -> (usize, usize) {
        (self.queue.own().count(), self.gather.bytes())
    }

    /// Takes what the agreement core tells.
    pub fn notice(&mut self, now: Now, notice: Notice, effects: &mut Vec<PoolEffect>) {
        match notice {
            Notice::Heard { slot, from, value, payload } => {
                self.suspect[from.index()] = false;
                if let (Some(id), Some(payload)) = (value, payload) {
                    self.arrived(now, id, payload, effects);
                }
                if slot > self.frontier {
                    let seen = self.slots.entry(slot).or_default();
                    // What an owner says is followed even if another was heard before and not followed.
                    if seen.heard.is_none() || self.owner(slot) == Some(from) {
                        self.slots.entry(slot).or_default().heard = Some((from, value));
                    }
                }
            }
            Notice::InUse(slot, from) => {
                self.suspect[from.index()] = false;
                if slot > self.frontier {
                    self.slots.entry(slot).or_default();
                }
            }
            Notice::Spoken(slot) => self.slots.entry(slot).or_default().proposed = true,
            Notice::Decided(slot, value) => self.decided(now, slot, value),
            Notice::Frontier(frontier) => self.frontier(now, frontier),
            Notice::Installed(frontier, decisions) => {
                for (slot, value) in decisions {
                    self.replay(slot, value);
                }
                // Some of it may have been decided in the slots that were skipped, and the others, who know that, would never
                // back it again. What was not, its origin proposes, or its clients ask for again.
                if is_broken(Rule::SnapshotSettlesPending) {
                    self.queue.release_all();
                } else {
                    self.queue.forget_given_up();
                    self.queue.abandon(effects, |_, _| true);
                }
                self.frontier(now, frontier);
            }
            Notice::Arrived(id, payload) => self.arrived(now, id, payload, effects),
            Notice::Clock { peer, wall, confirmed, refuses } => {
                self.clocks.hear(now, peer, wall, confirmed);
                if refuses {
                    let latest = self.stamp(now).saturating_add(MAX_STAMP_AHEAD);
                    let me = self.me;
                    self.queue.abandon(effects, |id, pending| id.origin == me && !pending.is_ripe_by(latest));
                }
            }
            Notice::LinkUp(peer) => {
                self.up[peer.index()] = true;
                self.suspect[peer.index()] = false;
                effects.push(PoolEffect::Send(Some(peer), self.clock(now, false)));
                effects.extend(self.queue.shared().map(|message| PoolEffect::Send(Some(peer), message)));
            }
            Notice::LinkDown(peer) => self.up[peer.index()] = false,
            Notice::Speaks(slots) => self.speaks = slots,
            Notice::Fill(slot) if slot > self.frontier => {
                self.slots.entry(slot).or_default();
            }
            Notice::Fill(_) => {}
        }
    }

    fn frontier(&mut self, now: Now, frontier: Slot) {
        self.frontier = frontier;
        self.moved = now.elapsed;
        self.slots = self.slots.split_off(&(frontier + 1));
        self.proposed_at = self.proposed_at.split_off(&(frontier + 1));
        self.owners.frontier(frontier);
    }

    fn stamp(&self, now: Now) -> Millis {
        self.clocks.stamp(now, &self.up, self.genesis.members())
    }

    /// What this node's clock shows.
    fn clock(&self, now: Now, refuses: bool) -> PeerMessage {
        PeerMessage::Clock { wall: now.wall, confirmed: self.clocks.confirmed(now), refuses }
    }

    /// The node starts with a state of this log time, and knows this of time besides.
    pub fn start_clock(&mut self, now: Now, log_time: Millis, witness: Witness) {
        self.clocks.start(now, log_time, witness);
    }

    /// The state that is applied has this log time.
    pub fn applied_time(&mut self, now: Now, log_time: Millis) {
        self.clocks.applied(now, log_time);
    }

    /// The monotonic clock that goes on while the machine sleeps went so far, in milliseconds, while that of [`Now`] went otherwise.
    pub fn correct_clock(&mut self, by: i64) {
        self.clocks.correct(by);
    }

    /// An operator says that this node's clock is right. Answers how far it shows beyond what was confirmed, in milliseconds.
    pub fn accept_clock(&mut self, now: Now, effects: &mut Vec<PoolEffect>) -> Millis {
        let beyond = self.clocks.accept(now);
        self.say_clock(now, effects);
        beyond
    }

    /// How this node's clock stands, and what monotonic clocks confirm, if that is known.
    pub fn clock_state(&self, now: Now) -> (ClockState, Option<Millis>) {
        (self.clocks.state(now), self.clocks.confirmed(now))
    }

    /// How far confirmed time went beyond monotonic clocks since this was asked last, in milliseconds, and why.
    pub fn take_leap(&mut self) -> Option<(Millis, Leapt)> {
        self.clocks.take_leap()
    }

    /// Whether no batch may be stamped, since nobody has confirmed yet how long the node was off.
    pub fn waits_for_clock(&self) -> bool {
        self.clocks.is_unsure()
    }

    fn say_clock(&mut self, now: Now, effects: &mut Vec<PoolEffect>) {
        self.clock_said = Some(now.elapsed);
        effects.push(PoolEffect::Send(None, self.clock(now, false)));
    }

    fn decided(&mut self, now: Now, slot: Slot, value: Value) {
        self.owners.decided(slot, value.map(|id| id.origin));
        if let Some(id) = value {
            if let Some(pending) = self.queue.decided(&id)
                && id.origin == self.me
            {
                self.expect(now, &pending.payload);
            }
            self.done.add(slot, id);
        }
        if slot <= self.frontier {
            return;
        }
        let seen = self.slots.entry(slot).or_default();
        seen.decided = true;
        let (ours, heard) = (seen.value, seen.heard);
        // What was proposed here and not decided waits for another slot.
        for id in [ours, heard.and_then(|(_, value)| value)].into_iter().flatten() {
            if Some(id) != value {
                self.queue.release(&id, slot);
            }
        }
        if let Some(at) = self.proposed_at.remove(&slot) {
            let took = now.elapsed.saturating_sub(at);
            self.slot_time = (self.slot_time * 7 + took) / 8;
        }
    }

    /// The clients of this batch are about to be answered, and may ask again.
    fn expect(&mut self, now: Now, answered: &Payload) {
        // One that is applied as an empty batch may claim any count.
        let requests = answered.count().unwrap_or(0).min(MAX_BATCH_REQUESTS);
        let expected = self.gather.count().saturating_add(requests);
        if expected >= WORTH_GATHERING {
            self.expected = (expected, now.elapsed + GATHER);
        }
    }

    /// Until when requests gather that could be proposed already.
    pub fn gathers_until(&self, now: Now) -> Option<Duration> {
        let (expected, until) = self.expected;
        (!self.gather.is_empty() && self.gather.count() < expected && now.elapsed < until).then_some(until)
    }

    /// Batches of other nodes that had to go, since the start.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Whether what is said to all goes to this peer.
    pub fn is_linked(&self, peer: NodeId) -> bool {
        self.up[peer.index()]
    }

    fn arrived(&mut self, now: Now, id: BatchId, payload: Payload, effects: &mut Vec<PoolEffect>) {
        if self.done.slot(&id).is_some() {
            return effects.push(PoolEffect::Forget(id));
        }
        if self.queue.get(&id).is_some() {
            return;
        }
        if self.queue.comes_again(&id) {
            effects.push(PoolEffect::Hold(id, payload.clone()));
        }
        let told = self.clock_told[id.origin.index()];
        let again = told.is_none_or(|told| now.elapsed.saturating_sub(told) >= CLOCK_PAUSE);
        let pending = Pending::shared(payload, self.queue.next_order(), now.elapsed);
        let is_ripe = pending.is_ripe_by(self.clocks.latest(now));
        self.queue.add(id, pending);
        if again && !is_ripe {
            self.clock_told[id.origin.index()] = Some(now.elapsed);
            effects.push(PoolEffect::Send(Some(id.origin), self.clock(now, true)));
        }
        if id.origin != self.me {
            self.queue.keep_within_budget(id.origin, effects);
        }
    }

    /// Groups what was gathered into a batch that waits.
    fn form(&mut self, now: Now, effects: &mut Vec<PoolEffect>) -> Option<BatchId> {
        if self.gather.is_empty() {
            return None;
        }
        self.sequence += 1;
        let stamp = self.stamp(now);
        let Gathered { mut batch, askers, commands } = self.gather.take(now.elapsed);
        let (id, payload) = batch.finish(self.me, self.incarnation, self.sequence, stamp);
        self.queue.add(id, Pending::own(payload.clone(), self.gather_order, now.elapsed, commands));
        effects.push(PoolEffect::Formed(id, payload, askers));
        // What is left takes its place behind the batches that wait already.
        self.gather_order = self.queue.next_order();
        Some(id)
    }

    /// Proposes whatever can be proposed now. To be called after every change, and at least every 10 ms.
    pub fn pump(&mut self, now: Now, effects: &mut Vec<PoolEffect>) {
        self.clocks.look(now);
        let pause = if self.clocks.is_unsure() { LOOK } else { SAY };
        if self.clock_said.is_none_or(|said| now.elapsed.saturating_sub(said) >= pause) {
            self.say_clock(now, effects);
        }
        self.queue.sweep(now.elapsed, effects);
        let windows = if is_broken(Rule::Window) { 2 } else { 1 };
        let first = self.speaks.start.max(self.frontier + 1);
        let end = self.speaks.end.min(self.frontier + windows * self.genesis.window + 1);
        for slot in first..end {
            match self.slots.get(&slot) {
                Some(seen) if seen.proposed || seen.decided => {}
                Some(_) => self.join(now, slot, effects),
                None if self.slots.range(slot..).next().is_some() => self.join(now, slot, effects),
                None => {
                    if !self.open(now, slot, effects) {
                        return self.share(now, slot, effects);
                    }
                }
            }
        }
    }

    /// Whose turn this slot is: its owner's, or where that can't be reached, a live node's.
    fn turn(&self, slot: Slot, owners: &[NodeId]) -> Option<NodeId> {
        let of = |nodes: &[NodeId]| nodes.get(slot as usize % nodes.len().max(1)).copied();
        let owner = of(owners)?;
        if self.unreachable(owner) { of(&self.live()) } else { Some(owner) }
    }

    /// Proposes in a slot that is in use, or below one that is: what another node proposed, or to fill the gap.
    fn join(&mut self, now: Now, slot: Slot, effects: &mut Vec<PoolEffect>) {
        self.slots.entry(slot).or_default().since.get_or_insert(now.elapsed);
        if let Some(value) = self.echo(now, slot) {
            return self.propose(now, slot, value, effects);
        }
        let owners = self.owners.of(slot);
        let turn = self.turn(slot, &owners);
        let overdue = self.overdue(now, slot);
        if overdue && let Some(late) = turn.filter(|late| *late != self.me) {
            self.suspect[late.index()] = true;
        }
        if overdue || turn == Some(self.me) {
            let value = self.next(now, true, effects);
            self.propose(now, slot, value, effects);
        }
    }

    /// Proposes in the lowest slot that nobody uses, if it is this node's turn there and something waits.
    fn open(&mut self, now: Now, slot: Slot, effects: &mut Vec<PoolEffect>) -> bool {
        let owners = self.owners.of(slot);
        let quiet = QUIET.max(self.slot_time * QUIET_SLOTS);
        let idle = slot == self.frontier + 1 && now.elapsed.saturating_sub(self.moved) > quiet;
        let turn = self.turn(slot, &owners);
        let stale = self.oldest(now).is_some_and(|since| now.elapsed.saturating_sub(since) > self.patience());
        if !(idle || stale || turn.is_none() || turn == Some(self.me)) {
            return false;
        }
        if stale && let Some(late) = turn.filter(|late| *late != self.me) {
            self.suspect[late.index()] = true;
        }
        match self.next(now, idle, effects) {
            Some(id) => {
                self.propose(now, slot, Some(id), effects);
                true
            }
            None => false,
        }
    }

    /// The batches that wait and may be backed by now, longest first.
    fn ripe(&self, now: Now) -> impl Iterator<Item = (BatchId, &Pending)> {
        let latest = self.clocks.latest(now);
        self.queue.waiting().filter(move |(_, pending)| pending.is_ripe_by(latest))
    }

    /// Since when the batch waits that waits longest.
    fn oldest(&self, now: Now) -> Option<Duration> {
        self.ripe(now).next().map(|(_, pending)| pending.since)
    }

    /// What to say after another node: the same, if it can be backed.
    fn echo(&self, now: Now, slot: Slot) -> Option<Value> {
        let (from, value) = self.slots.get(&slot)?.heard?;
        match value {
            Some(id) if self.is_forgotten_at(slot, &id) => Some(value),
            Some(id) => {
                let pending = self.queue.get(&id)?;
                pending.is_ripe_by(self.clocks.latest(now)).then_some(value)
            }
            // Only the owner gives a slot up; others may say null because they restarted.
            None => (self.owner(slot) == Some(from)).then_some(None),
        }
    }

    /// Whether whoever proposes this batch in this slot has forgotten that it was decided: nobody speaks in a slot before it
    /// knows what was decided a window below.
    fn is_forgotten_at(&self, slot: Slot, id: &BatchId) -> bool {
        self.done.slot(id).is_some_and(|decided| decided + self.genesis.window <= slot)
    }

    fn propose(&mut self, now: Now, slot: Slot, value: Value, effects: &mut Vec<PoolEffect>) {
        let with_payload = value.is_some_and(|id| self.queue.propose(&id, slot));
        let seen = self.slots.entry(slot).or_default();
        assert!(!seen.proposed, "proposing twice in slot {slot}");
        seen.proposed = true;
        seen.value = value;
        self.proposed_at.insert(slot, now.elapsed);
        effects.push(PoolEffect::Propose { slot, value, with_payload });
    }

    /// The batch to propose next: the one that waits longest. What gathers becomes a batch if it is its turn; `force`
    /// does not let it grow.
    fn next(&mut self, now: Now, force: bool, effects: &mut Vec<PoolEffect>) -> Option<BatchId> {
        let waiting = self.ripe(now).next().map(|(id, pending)| (pending.order, id));
        let first = waiting.is_none_or(|(order, _)| order > self.gather_order);
        if first && !self.gather.is_empty() && (force || self.may_form(now)) {
            return self.form(now, effects);
        }
        waiting.map(|(_, id)| id)
    }

    /// Whether the gathered requests should become a batch now rather than grow.
    fn may_form(&self, now: Now) -> bool {
        if self.gather.is_empty() {
            return false;
        }
        let (mut in_flight, mut commands, mut bytes) = (0, 0, 0);
        for pending in self.queue.own() {
            in_flight += 1;
            commands += pending.commands;
            bytes += pending.payload.len();
        }
        let least = SECOND_BATCH << (in_flight - 1).clamp(0, MAX_DOUBLINGS);
        let is_large = self.gather.next_bytes(now.elapsed) >= least;
        match in_flight {
            0 => is_large || self.gathers_until(now).is_none(),
            _ => is_large && commands < COMMANDS_AHEAD && bytes < BYTES_AHEAD,
        }
    }

    /// A node whose turn it is not in the lowest free slot sends its batches to all: whose turn it is proposes them.
    fn share(&mut self, now: Now, slot: Slot, effects: &mut Vec<PoolEffect>) {
        if self.turn(slot, &self.owners.of(slot)).is_none_or(|turn| turn == self.me) {
            return;
        }
        while self.may_form(now) {
            self.form(now, effects);
        }
        self.queue.share(effects);
    }

    fn overdue(&self, now: Now, slot: Slot) -> bool {
        let since = self.slots.get(&slot).and_then(|seen| seen.since);
        since.is_some_and(|since| now.elapsed.saturating_sub(since) > self.patience())
    }

    fn patience(&self) -> Duration {
        (self.slot_time * PATIENCE).clamp(PATIENCE_MIN, PATIENCE_MAX)
    }

    fn owner(&self, slot: Slot) -> Option<NodeId> {
        let owners = self.owners.of(slot);
        owners.get(slot as usize % owners.len().max(1)).copied()
    }

    fn unreachable(&self, node: NodeId) -> bool {
        node != self.me && (!self.up[node.index()] || self.suspect[node.index()])
    }

    fn live(&self) -> Vec<NodeId> {
        self.genesis.nodes().filter(|node| !self.unreachable(*node)).collect()
    }

    /// The slots that this node could propose in and that are in use, for diagnosis.
    pub fn undecided(&self) -> BTreeSet<Slot> {
        self.slots.iter().filter(|(_, seen)| !seen.decided).map(|(slot, _)| *slot).collect()
    }
}
