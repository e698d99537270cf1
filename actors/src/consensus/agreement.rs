//! The agreement core: Weak-MVC of all slots in the window, catching up, and the read rule.
//!
//! [`Agreement`] takes an [`Event`] and appends [`Effect`]s, which the voter actor (or the simulator) performs in order.
//! What must be durable before it is sent is an [`Effect::Save`] here; the messages come out when [`Event::Saved`] came
//! back. Time is an argument of every call: the core reads no clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::genesis::{Genesis, Quorums, Replacement};
use rabia_bank_messages::ids::{BatchId, MAX_NODES, Millis, NodeId, Phase, Slot as SlotNumber, StoreId};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::{Commit, PeerMemory, Record, Recovered, Said};
use rustc_hash::FxHashMap;

mod belief;

use super::coin::coin;
use super::slot::{Slot, SlotEffect, SlotMessage, Stage, bound_to};
use super::stores::{Replacements, Standing, Stores};

/// What happened, to the agreement core.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer said this.
    Received(NodeId, PeerMessage),
    /// All [`Effect::Save`]s up to this ticket are durable.
    Saved(Ticket),
    /// The pool wants this proposed.
    Propose {
        /// In which slot.
        slot: SlotNumber,
        /// Which batch; null gives the slot up.
        value: Value,
        /// Send the payload along: the others can't have it yet.
        with_payload: bool,
    },
    /// The pool has a new batch, or one again that it had no more use for.
    Hold(BatchId, Payload),
    /// The pool knows that this batch is decided: its payload came once more.
    Forget(BatchId),
    /// The pool has no room for this batch.
    Drop(BatchId),
    /// The link to this peer works (again). It speaks from this store.
    LinkUp(NodeId, StoreId),
    /// The link to this peer broke.
    LinkDown(NodeId),
    /// Somebody wants to read what is acknowledged now. Reads are numbered by the caller, ascending.
    Read(u64),
    /// A snapshot of the state after this slot came from a peer and is durable, also in the books on disk.
    Installed {
        /// The slot. It must be above the frontier.
        slot: SlotNumber,
        /// The decisions up to it that owners of coming slots are read from.
        decisions: Vec<(SlotNumber, Value)>,
        /// The replacements of stores up to it.
        replacements: Replacements,
    },
    /// Time passed. At least every [`TICK`].
    Tick,
}

/// Numbers the durable writes of one run, ascending.
pub type Ticket = u64;

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this to one peer.
    Send(NodeId, PeerMessage),
    /// Send this to all peers.
    Broadcast(PeerMessage),
    /// Make this durable and report [`Event::Saved`].
    Save(Ticket, Commit),
    /// Apply the next slot.
    Deliver(SlotNumber, Option<(BatchId, Payload)>),
    /// Tell the pool.
    Pool(Notice),
    /// All reads up to `read` see what was acknowledged before they were asked, once `slot` is applied.
    ReadAt {
        /// The highest number of the reads.
        read: u64,
        /// The slot to wait for.
        slot: SlotNumber,
    },
    /// Answer this peer's [`PeerMessage::CatchUp`] from the log on disk.
    SendEntries {
        /// Who asked.
        to: NodeId,
        /// From which slot on.
        from: SlotNumber,
    },
    /// Answer this peer's [`PeerMessage::Fetch`] from the log on disk, if the batch is there.
    SendStored {
        /// Who asked.
        to: NodeId,
        /// For which payload.
        id: BatchId,
    },
    /// The store at the other end of this link has become the peer's, and nothing is remembered of it: break the link, so that
    /// the two meet again.
    MeetAgain(NodeId),
    /// This peer says what can't be: break the link, and say why.
    Refuse(NodeId, String),
    /// This peer said what is not taken. Say so, but go on with the link.
    Warn(NodeId, String),
}

/// What the agreement core tells the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer proposed this; the payload is held.
    Heard {
        /// In which slot.
        slot: SlotNumber,
        /// Who.
        from: NodeId,
        /// What.
        value: Value,
        /// The batch's payload.
        payload: Option<Payload>,
    },
    /// Somebody spoke in this slot, in which this node has not proposed.
    InUse(SlotNumber, NodeId),
    /// This node has spoken in this slot in a former run: there is nothing to propose.
    Spoken(SlotNumber),
    /// A slot is decided. Not always in order.
    Decided(SlotNumber, Value),
    /// All slots up to this one are decided.
    Frontier(SlotNumber),
    /// All slots up to this one are decided, these were the last. The others were not told.
    Installed(SlotNumber, Vec<(SlotNumber, Value)>),
    /// A batch that waits for a slot came from another node.
    Arrived(BatchId, Payload),
    /// A peer says what its clock shows.
    Clock {
        /// Who.
        peer: NodeId,
        /// Its wall clock.
        wall: Millis,
        /// What monotonic clocks confirm there, if that is known.
        confirmed: Option<Millis>,
        /// Whether it does not back a batch of this node for that.
        refuses: bool,
    },
    /// The link to this peer works.
    LinkUp(NodeId),
    /// The link to this peer broke.
    LinkDown(NodeId),
    /// This node may speak in these slots only: its store took the place of another, or was replaced.
    Speaks(Range<SlotNumber>),
    /// All slots up to this one are needed: where nothing waits they are forfeited.
    Fill(SlotNumber),
}

/// How often the core wants to hear of time.
pub const TICK: Duration = Duration::from_millis(10);
/// Rule 8: a decision is on disk after this time, also when nothing else is written.
const LAZY_WRITE: Duration = Duration::from_millis(100);
/// Rule 9: what was said for an undecided slot is said again after this time.
const REPEAT: Duration = Duration::from_millis(250);
/// Payloads and read rounds that were asked for are asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A node that makes no progress for this time while a peer knows more asks for the decided slots.
const STALLED: Duration = Duration::from_millis(100);
/// An unanswered request for decided slots is repeated, to another peer, after this time.
const CATCH_UP_AGAIN: Duration = Duration::from_millis(500);
/// A message for a slot that was decided so recently crossed our decision on the wire: no need to answer it.
const CROSSED: Duration = Duration::from_millis(50);
/// How often an idle node says how far it is.
const ALIVE: Duration = Duration::from_millis(200);
/// Ids of batches whose payloads can't be applied, which are not asked for again.
const REFUSED: usize = 1_024;
/// A message of a phase so far above the own one is dropped: the peer says it again. So nobody makes a slot large.
const PHASES_AHEAD: Phase = 16;
/// Decisions that are kept in memory, to answer late messages.
const RECENT: usize = 4_096;
/// In windows: messages for slots beyond this are dropped, the sender is far ahead.
pub const AHEAD: u64 = 4;
/// In windows: how far the durable mark of rule 1 is ahead. Far enough to ride on other writes, near enough that a
/// restart taints few slots.
const RESERVE: u64 = 3;

/// A decided slot that is kept to answer late messages.
#[derive(Clone, Debug)]
struct Decided {
    value: Value,
    at: Duration,
}

/// A payload in memory.
#[derive(Clone, Debug)]
struct Held {
    payload: Payload,
    /// The slot of its decision, or when the pool had no more use for it; none as long as it has.
    last: Option<SlotNumber>,
}

/// A round of the read rule.
#[derive(Clone, Debug)]
struct ReadRound {
    number: u64,
    /// The highest read that it serves.
    read: u64,
    /// The replacements of stores that were known when it began.
    stores: usize,
    asked: Duration,
    answers: [Option<SlotNumber>; MAX_NODES],
}

/// Reads whose round has ended, which wait for its slot.
#[derive(Clone, Copy, Debug)]
struct EndedRound {
    /// The highest of them.
    read: u64,
    slot: SlotNumber,
    /// The replacements of stores that were known when it began.
    stores: usize,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgreementCounters {
    /// Slots that this replica decided by votes: in phase 1, 2, 3, and 4 or later.
    pub phases: [u64; 4],
    /// Messages of peers that can't be, for each of which the link was refused.
    pub refused: u64,
    /// Messages of stores that are not heard by this node's log.
    pub not_taken: u64,
    /// Payloads that can't be applied, or are not what their ids say.
    pub bad_payloads: u64,
}

/// A replica's part in all slots.
///
/// Invariants:
/// - `frontier` is the end of the gapless decided log, all of it delivered in order.
/// - Nothing is said for a slot above `frontier + window`, nor at or above `reserved`, nor outside of `speaks`.
/// - `open` holds slots above `frontier` only.
#[derive(Clone, Debug)]
pub struct Agreement {
    me: NodeId,
    genesis: Genesis,
    quorums: Quorums,
    starts: u64,
    store: StoreId,
    stores: Stores,
    /// Where this store speaks for its member. That it may begin is durable: a node that has forgotten it has said nothing.
    speaks: Range<SlotNumber>,
    /// The stores that peers spoke from last.
    linked: [StoreId; MAX_NODES],
    /// Members whose former store is still remembered on disk.
    unforgotten: Vec<NodeId>,
    frontier: SlotNumber,
    open: BTreeMap<SlotNumber, Slot>,
    /// Slots of a former run that have to be spoken in once the window reaches them.
    unsaid: VecDeque<SlotNumber>,
    recent: BTreeMap<SlotNumber, Decided>,
    payloads: FxHashMap<BatchId, Held>,
    /// Payloads of decided slots, to be forgotten a while later.
    delivered: VecDeque<(SlotNumber, BatchId)>,
    /// When each missing payload was last asked for, and how often.
    fetching: FxHashMap<BatchId, (Duration, usize)>,
    /// Batches whose payloads can't be applied, the newest last.
    refused: VecDeque<BatchId>,
    reserved: SlotNumber,
    reserving: SlotNumber,
    /// Proposals that wait for the mark of rule 1.
    unreserved: Vec<(SlotNumber, Value, bool)>,
    ticket: Ticket,
    saving: VecDeque<(Ticket, Saving)>,
    unwritten: Vec<(SlotNumber, Value)>,
    unwritten_since: Option<Duration>,
    /// How many promises each peer was heard to have kept (rule 12). This node's own stand in `promised`.
    heard: [u64; MAX_NODES],
    /// Promises that are durable …
    promised: u64,
    /// … and on their way to the disk.
    promising: u64,
    unwritten_heard: bool,
    /// Since when this node is linked to no member that its log knows.
    alone_since: Option<Duration>,
    /// It has been so for long.
    alone: bool,
    up: [bool; MAX_NODES],
    /// What each peer says that it knows decided.
    known: [SlotNumber; MAX_NODES],
    /// Requests for decided slots that each peer left without an answer, since it gave one.
    misses: [u32; MAX_NODES],
    highest_vote: SlotNumber,
    highest_decided: SlotNumber,
    progressed: Duration,
    repeated: Duration,
    alive: Duration,
    catching_up: Option<(Duration, NodeId)>,
    last_asked: usize,
    round: Option<ReadRound>,
    ended: Vec<EndedRound>,
    rounds: u64,
    waiting_read: Option<u64>,
    counters: AgreementCounters,
}

/// What waits for a durable write.
#[derive(Clone, Copy, Debug)]
enum Saving {
    Slot(SlotNumber),
    Reserved(SlotNumber),
    Promises(u64),
    /// The decision by which this store took the place of another.
    Joining,
}

impl Agreement {
    /// A replica with what its store remembers, and the replacements of stores up to the end of its log. Appends what it has to
    /// say and write at once.
    pub fn new(
        genesis: Genesis,
        me: NodeId,
        recovered: &Recovered,
        replacements: &Replacements,
        effects: &mut Vec<Effect>,
    ) -> Agreement {
        let quorums = genesis.quorums();
        let stores = Stores::new(&genesis, replacements);
        let silent = if is_broken(Rule::NewStoreByLog) { 0 } else { SlotNumber::MAX };
        let mut linked = [recovered.store; MAX_NODES];
        genesis.nodes().for_each(|node| linked[node.index()] = stores.current(node));
        let mut agreement = Agreement {
            me,
            quorums,
            starts: recovered.starts,
            store: recovered.store,
            speaks: stores.span(me, recovered.store).unwrap_or(silent..SlotNumber::MAX),
            stores,
            linked,
            unforgotten: Vec::new(),
            frontier: recovered.decided,
            open: BTreeMap::new(),
            unsaid: VecDeque::new(),
            recent: BTreeMap::new(),
            payloads: FxHashMap::default(),
            delivered: VecDeque::new(),
            fetching: FxHashMap::default(),
            refused: VecDeque::new(),
            reserved: recovered.reserved,
            reserving: recovered.reserved,
            unreserved: Vec::new(),
            ticket: 0,
            saving: VecDeque::new(),
            unwritten: Vec::new(),
            unwritten_since: None,
            heard: [0; MAX_NODES],
            promised: 0,
            promising: 0,
            unwritten_heard: false,
            alone_since: None,
            alone: false,
            up: [false; MAX_NODES],
            known: [0; MAX_NODES],
            misses: [0; MAX_NODES],
            highest_vote: 0,
            highest_decided: recovered.decided,
            progressed: Duration::ZERO,
            repeated: Duration::ZERO,
            alive: Duration::ZERO,
            catching_up: None,
            last_asked: 0,
            round: None,
            ended: Vec::new(),
            rounds: 0,
            waiting_read: None,
            counters: AgreementCounters::default(),
            genesis,
        };
        agreement.recall_heard(recovered);
        agreement.promised = agreement.heard[me.index()];
        agreement.promising = agreement.promised;
        for (id, payload) in &recovered.payloads {
            agreement.payloads.insert(*id, Held { payload: payload.clone(), last: None });
        }
        agreement.restore_slots(recovered, effects);
        agreement.tell_pool_of_stores(effects);
        agreement.reserve_ahead(effects);
        agreement.move_window(Duration::ZERO, effects);
        agreement
    }

    /// What was heard of a store is of no meaning for the one that took its place.
    fn recall_heard(&mut self, recovered: &Recovered) {
        for (node, count) in &recovered.heard {
            let memory = recovered.peers.iter().find(|(peer, _)| peer == node);
            let of = memory.map_or(self.genesis.stores[node.index()], |(_, memory)| memory.store);
            if *node == self.me || of == self.stores.current(*node) {
                self.heard[node.index()] = *count;
            } else {
                self.forget_heard(*node);
            }
        }
    }

    fn forget_heard(&mut self, node: NodeId) {
        self.heard[node.index()] = 0;
        self.unforgotten.push(node);
        self.unwritten_heard = true;
    }

    fn tell_pool_of_stores(&self, effects: &mut Vec<Effect>) {
        if self.speaks != (0..SlotNumber::MAX) {
            effects.push(Effect::Pool(Notice::Speaks(self.speaks.clone())));
        }
        // The new store is of use once all slots are decided in which the old one spoke.
        let needed =
            self.stores.replacements().iter().map(|replacement| self.stores.speaks_from(replacement) - 1).max();
        effects.extend(needed.filter(|slot| *slot > self.frontier).map(|slot| Effect::Pool(Notice::Fill(slot))));
    }

    /// Rules 1 and 11: every undecided slot below the mark is one in which this node may have spoken.
    fn restore_slots(&mut self, recovered: &Recovered, effects: &mut Vec<Effect>) {
        let mut records: BTreeMap<SlotNumber, Vec<(u32, Said)>> = BTreeMap::new();
        for record in &recovered.records {
            assert!(record.slot < recovered.reserved, "{record:?} at or above the mark {}", recovered.reserved);
            if let Said::Vote(_) = record.said {
                self.highest_vote = self.highest_vote.max(record.slot);
            }
            records.entry(record.slot).or_default().push((record.phase, record.said));
        }
        for slot in (self.frontier + 1..recovered.reserved).filter(|slot| self.speaks.contains(slot)) {
            let said = records.remove(&slot).unwrap_or_default();
            if said.is_empty() && is_broken(Rule::TaintRemembered) {
                continue;
            }
            self.open.insert(slot, Slot::restored(self.me, self.quorums, &said));
            self.unsaid.push_back(slot);
            effects.push(Effect::Pool(Notice::Spoken(slot)));
        }
        for (slot, value) in &recovered.sparse {
            if !is_broken(Rule::SparseRead) {
                self.highest_decided = self.highest_decided.max(*slot);
            }
            let open = self.open.entry(*slot).or_insert_with(|| Slot::new(self.me, self.quorums));
            open.adopt(*value);
            effects.push(Effect::Pool(Notice::Decided(*slot, *value)));
        }
    }

    /// The end of the gapless decided log.
    pub fn frontier(&self) -> SlotNumber {
        self.frontier
    }

    /// This node has said nothing at or above this slot, durably (rule 12).
    pub fn reserved(&self) -> SlotNumber {
        self.reserved
    }

    /// How many promises this node's store has kept (rule 12).
    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// How many promises this peer was heard to have kept (rule 12).
    pub fn heard(&self, peer: NodeId) -> u64 {
        self.heard[peer.index()]
    }

    /// The stores of all members, as far as this node knows the log.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Where this node's store took the place of another: the slot in which that was decided, once it is in the log here.
    pub fn joined(&self) -> Option<SlotNumber> {
        self.stores.brought(self.me, self.store).map(|replacement| replacement.slot)
    }

    /// What this node's store was replaced by, once all slots are decided in which it speaks: there is nothing left to do.
    pub fn retired(&self) -> Option<Replacement> {
        match self.stores.standing(self.me, self.store) {
            Standing::Former(by) if self.stores.speaks_from(&by) <= self.frontier + 1 => Some(by),
            _ => None,
        }
    }

    /// Whether this store knows all slots in which a former one spoke, and is the member's newest: what it says of the highest
    /// slot that it voted in counts.
    pub fn is_current(&self) -> bool {
        let knows_all = self.speaks.start <= self.frontier + 1 || is_broken(Rule::NewStoreReads);
        knows_all && self.speaks.end == SlotNumber::MAX
    }

    /// How many slots are in agreement and undecided.
    pub fn open_slots(&self) -> usize {
        self.open.values().filter(|slot| !slot.is_silent() && !matches!(slot.stage(), Stage::Decided(_))).count()
    }

    /// Whether the payload of this batch is in memory.
    pub fn holds(&self, id: &BatchId) -> bool {
        self.payloads.contains_key(id)
    }

    /// How many payloads are in memory.
    pub fn payloads(&self) -> usize {
        self.payloads.len()
    }

    /// Counters since the start.
    pub fn counters(&self) -> AgreementCounters {
        self.counters
    }

    /// Makes it durable that a peer was met in this run (rule 12). The ticket is that of the write.
    pub fn remember_peer(&mut self, peer: NodeId, memory: PeerMemory, effects: &mut Vec<Effect>) -> Ticket {
        self.save(Commit { peers: vec![(peer, memory)], ..Commit::default() }, None, effects)
    }

    /// Takes what happened at `now` and appends what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Received(from, message) => self.receive(now, from, message, effects),
            Event::Saved(ticket) => self.saved(now, ticket, effects),
            Event::Propose { slot, value, with_payload } => self.propose(now, slot, value, with_payload, effects),
            Event::Hold(id, payload) => {
                self.hold(now, id, payload, effects);
            }
            Event::Forget(id) => self.forget(id),
            Event::Drop(id) => self.drop_payload(id),
            Event::LinkUp(peer, store) => self.link_up(peer, store, effects),
            Event::LinkDown(peer) => {
                self.up[peer.index()] = false;
                effects.push(Effect::Pool(Notice::LinkDown(peer)));
            }
            Event::Read(read) => {
                self.waiting_read = Some(read);
                self.start_round(now, effects);
            }
            Event::Installed { slot, decisions, replacements } => {
                self.installed(now, slot, decisions, &replacements, effects);
            }
            Event::Tick => self.tick(now, effects),
        }
    }

    // ----- messages -----

    fn receive(&mut self, now: Duration, from: NodeId, message: PeerMessage, effects: &mut Vec<Effect>) {
        if !self.takes(from, &message, effects) {
            return;
        }
        match message {
            PeerMessage::Proposal { slot, value, payload } => {
                let ahead = slot > self.frontier && slot <= self.frontier + AHEAD * self.genesis.window;
                let held = match (value, payload) {
                    (Some(id), Some(payload)) if ahead => {
                        self.hold_waiting(now, from, id, payload, effects).then_some(id)
                    }
                    _ => None,
                };
                self.slot_message(now, from, slot, SlotMessage::Proposal(value), effects);
                // One that does not count is not followed, so nobody would ever let go of its payload.
                if let Some(id) = held
                    && self.open.get(&slot).is_none_or(|open| open.proposal(from) != Some(value))
                {
                    self.drop_payload(id);
                }
            }
            PeerMessage::State { slot, phase, state } => {
                self.slot_message(now, from, slot, SlotMessage::State(phase, state), effects);
            }
            PeerMessage::Vote { slot, phase, vote } => {
                self.slot_message(now, from, slot, SlotMessage::Vote(phase, vote), effects);
            }
            PeerMessage::Decide { slot, value } => {
                self.knows(from, slot.saturating_sub(self.genesis.window));
                if self.contradicts(slot, value) {
                    return self.refuse_decision(from, slot, value, effects);
                }
                self.adopt(now, slot, value, effects);
            }
            PeerMessage::Batch { id, payload } => {
                if self.may_send(from, &id) && self.hold_waiting(now, from, id, payload.clone(), effects) {
                    effects.push(Effect::Pool(Notice::Arrived(id, payload)));
                }
            }
            PeerMessage::Fetch { id } => match self.payloads.get(&id) {
                // Who is not in force gets what is decided.
                Some(held) if held.last.is_some() || self.is_in_force(from) => {
                    effects.push(Effect::Send(from, PeerMessage::Batch { id, payload: held.payload.clone() }));
                }
                Some(_) => {}
                None => effects.push(Effect::SendStored { to: from, id }),
            },
            PeerMessage::ReadIndex { starts, round } => {
                if self.is_current() {
                    let slot = self.read_index();
                    effects.push(Effect::Send(from, PeerMessage::ReadIndexAnswer { starts, round, slot }));
                }
            }
            PeerMessage::ReadIndexAnswer { starts, round, slot } => {
                self.read_answer(now, from, starts, round, slot, effects);
            }
            PeerMessage::CatchUp { from: slot } if slot > self.frontier => {
                let answer = PeerMessage::Entries { entries: Vec::new(), decided: self.frontier };
                effects.push(Effect::Send(from, answer));
            }
            PeerMessage::CatchUp { from: slot } => effects.push(Effect::SendEntries { to: from, from: slot }),
            PeerMessage::Entries { entries, decided } => self.entries(now, from, entries, decided, effects),
            PeerMessage::Alive { decided } => {
                // It says what it knows now, which may be less than what was once said in its name.
                self.known[from.index()] = decided;
                self.catch_up(now, effects);
            }
            PeerMessage::Promised { count } if self.linked[from.index()] == self.stores.current(from) => {
                let heard = &mut self.heard[from.index()];
                *heard = count.max(*heard);
                self.unwritten_heard = true;
            }
            PeerMessage::Clock { wall, confirmed, refuses } => {
                effects.push(Effect::Pool(Notice::Clock { peer: from, wall, confirmed, refuses }));
            }
            // Of a store that is not the peer's, or not any more.
            PeerMessage::Promised { .. }
            // The snapshotter's business.
            | PeerMessage::StateDigest { .. }
            | PeerMessage::Compacted { .. }
            | PeerMessage::GetSnapshot { .. }
            | PeerMessage::SnapshotRows { .. } => {}
        }
    }

    fn slot_message(
        &mut self,
        now: Duration,
        from: NodeId,
        slot: SlotNumber,
        message: SlotMessage,
        effects: &mut Vec<Effect>,
    ) {
        // Nobody speaks in a slot before it knows all decisions a window below.
        self.knows(from, slot.saturating_sub(self.genesis.window));
        if slot == 0 || slot > self.frontier + AHEAD * self.genesis.window {
            return self.catch_up(now, effects);
        }
        if slot <= self.frontier || self.open.get(&slot).is_some_and(|s| matches!(s.stage(), Stage::Decided(_))) {
            return self.answer_late(now, from, slot, effects);
        }
        if !self.counts(from, slot) {
            return;
        }
        let payload = message.names().and_then(|id| self.payloads.get(id)).map(|held| held.payload.clone());
        let held = payload.is_some() || is_broken(Rule::PayloadHeld);
        let open = self.open.entry(slot).or_insert_with(|| Slot::new(self.me, self.quorums));
        if let SlotMessage::State(phase, _) | SlotMessage::Vote(phase, _) = message
            && phase > open.phase() + PHASES_AHEAD
        {
            return;
        }
        let silent = open.is_silent();
        open.receive(from, message, held);
        match message {
            // What does not count is not followed, and its payload is not kept.
            SlotMessage::Proposal(value) if silent && open.proposal(from) == Some(value) => {
                effects.push(Effect::Pool(Notice::Heard { slot, from, value, payload }));
            }
            _ if silent => effects.push(Effect::Pool(Notice::InUse(slot, from))),
            _ => {}
        }
        if let (Some(id), false) = (message.names(), held) {
            self.fetch(now, *id, Some(from), effects);
        }
        self.advance(now, slot, effects);
        if slot > self.frontier + self.genesis.window {
            self.catch_up(now, effects);
        }
    }

    /// Whether the store at the other end of this link speaks for the peer in this slot. Where the decisions that say so are
    /// not known yet, it must be the newest known; if that is wrong, it says its messages again.
    fn counts(&self, from: NodeId, slot: SlotNumber) -> bool {
        let known = slot <= self.frontier + self.genesis.window;
        let store = if known { self.stores.of(from, slot) } else { self.stores.current(from) };
        store == self.linked[from.index()] || is_broken(Rule::NewStoreByLog) || is_broken(Rule::StoreBySlot)
    }

    /// Rule 8: whoever still speaks in a decided slot is told the decision.
    fn answer_late(&mut self, now: Duration, from: NodeId, slot: SlotNumber, effects: &mut Vec<Effect>) {
        if is_broken(Rule::LateAnswered) {
            return;
        }
        let answer = match self.recent.get(&slot) {
            Some(decided) if now.saturating_sub(decided.at) < CROSSED => return,
            Some(decided) => PeerMessage::Decide { slot, value: decided.value },
            // Too old to remember: the peer will catch up from the log.
            None => PeerMessage::Alive { decided: self.frontier },
        };
        effects.push(Effect::Send(from, answer));
    }

    fn propose(
        &mut self,
        now: Duration,
        slot: SlotNumber,
        value: Value,
        with_payload: bool,
        effects: &mut Vec<Effect>,
    ) {
        if slot <= self.frontier || slot > self.reach() || !self.speaks.contains(&slot) {
            return;
        }
        if slot >= self.reserved && !is_broken(Rule::Reserve) {
            self.unreserved.push((slot, value, with_payload));
            return self.reserve_ahead(effects);
        }
        let payload = value.and_then(|id| self.payloads.get(&id)).map(|held| held.payload.clone());
        // Rule 2. The pool proposes what is held; where that went meanwhile, the slot is given up.
        let value = value.filter(|_| payload.is_some());
        let coin = self.coin(slot);
        let open = self.open.entry(slot).or_insert_with(|| Slot::new(self.me, self.quorums));
        if !open.is_silent() {
            return;
        }
        let mut out = Vec::new();
        open.propose(value, coin, &mut out);
        let payload = payload.filter(|_| with_payload);
        self.perform(now, slot, out, payload, effects);
    }

    /// The last slot that this node may speak in.
    fn reach(&self) -> SlotNumber {
        let windows = if is_broken(Rule::Window) { 2 } else { 1 };
        self.frontier + windows * self.genesis.window
    }

    fn coin(&self, slot: SlotNumber) -> impl Fn(Phase) -> bool + use<> {
        let (cluster, own) = (self.genesis.cluster, is_broken(Rule::CommonCoin) && self.me.index() == 0);
        move |phase| coin(cluster, slot, phase) != own
    }

    fn advance(&mut self, now: Duration, slot: SlotNumber, effects: &mut Vec<Effect>) {
        if slot > self.reach() {
            return;
        }
        let coin = self.coin(slot);
        let Some(open) = self.open.get_mut(&slot) else { return };
        let mut out = Vec::new();
        open.advance(coin, &mut out);
        self.perform(now, slot, out, None, effects);
    }

    fn perform(
        &mut self,
        now: Duration,
        slot: SlotNumber,
        out: Vec<SlotEffect>,
        mut payload: Option<Payload>,
        effects: &mut Vec<Effect>,
    ) {
        for effect in out {
            match effect {
                SlotEffect::Say(message) => {
                    assert!(
                        slot < self.reserved || is_broken(Rule::Reserve),
                        "speaking in slot {slot} at or above the mark {}",
                        self.reserved
                    );
                    assert!(
                        self.speaks.contains(&slot) || is_broken(Rule::NewStoreByLog),
                        "speaking in slot {slot}, this store is silent but in {:?}",
                        self.speaks
                    );
                    effects.push(Effect::Broadcast(peer_message(slot, message, payload.take())));
                }
                SlotEffect::Save(phase, said) => {
                    let mut commit = Commit { records: vec![Record { slot, phase, said }], ..Commit::default() };
                    if let Some(id) = bound_to(&said)
                        && !is_broken(Rule::PayloadDurable)
                    {
                        self.put_payload(*id, &mut commit);
                    }
                    self.save(commit, Some(Saving::Slot(slot)), effects);
                }
                SlotEffect::Decide(value, phase) => {
                    self.counters.phases[(phase as usize - 1).min(3)] += 1;
                    effects.push(Effect::Broadcast(PeerMessage::Decide { slot, value }));
                    self.decided(now, slot, value, effects);
                }
            }
        }
    }

    // ----- durable writes -----

    /// Adds all that is waiting to the write, and issues it.
    fn save(&mut self, mut commit: Commit, saving: Option<Saving>, effects: &mut Vec<Effect>) -> Ticket {
        commit.decisions.append(&mut self.unwritten);
        self.unwritten_since = None;
        let named: Vec<_> = commit.decisions.iter().filter_map(|(_, value)| *value).collect();
        for id in named {
            self.put_payload(id, &mut commit);
        }
        self.ticket += 1;
        let ahead = self.frontier + RESERVE * self.genesis.window + 1;
        if self.reserving < ahead - self.genesis.window && self.speaks_soon() {
            self.reserving = ahead;
            commit.reserved = Some(ahead);
        }
        let ticket = self.ticket;
        // The count of promises is said before whatever else this write allows to be said.
        let promises = self.count_promise(&mut commit).map(Saving::Promises);
        let mut waiting = [promises, commit.reserved.map(Saving::Reserved), saving];
        if is_broken(Rule::PromisesFirst) {
            waiting.rotate_left(1);
        }
        self.saving.extend(waiting.into_iter().flatten().map(|saving| (ticket, saving)));
        effects.push(Effect::Save(ticket, commit));
        ticket
    }

    /// Rule 12: the store counts what it binds its node to, and remembers how many promises of peers that rests on.
    fn count_promise(&mut self, commit: &mut Commit) -> Option<u64> {
        let binds = commit.reserved.is_some() || !commit.records.is_empty();
        if binds {
            self.promising += 1;
            self.heard[self.me.index()] = self.promising;
            self.unwritten_heard = true;
        }
        commit.replaced.append(&mut self.unforgotten);
        if std::mem::take(&mut self.unwritten_heard) {
            commit.heard = self.genesis.nodes().map(|node| (node, self.heard[node.index()])).collect();
        }
        binds.then_some(self.promising)
    }

    /// Whatever names a batch is written with its payload. If that is on disk already it is not written again; whether it is
    /// only the log knows, which removes payloads with decisions.
    fn put_payload(&self, id: BatchId, commit: &mut Commit) {
        match self.payloads.get(&id) {
            Some(held) => commit.payloads.push((id, held.payload.clone())),
            None => assert!(is_broken(Rule::PayloadHeld), "the payload of {id} is gone before it was written"),
        }
    }

    /// Rule 1: raises the mark by a write of its own where no other write does.
    fn reserve_ahead(&mut self, effects: &mut Vec<Effect>) {
        if self.reserving <= self.frontier + self.genesis.window && self.speaks_soon() {
            self.save(Commit::default(), None, effects);
        }
    }

    /// Whether this store may speak within the window.
    fn speaks_soon(&self) -> bool {
        self.speaks.start <= self.frontier + self.genesis.window && self.frontier + 1 < self.speaks.end
    }

    fn saved(&mut self, now: Duration, ticket: Ticket, effects: &mut Vec<Effect>) {
        while let Some((_, saving)) = self.saving.pop_front_if(|(needed, _)| *needed <= ticket) {
            match saving {
                Saving::Promises(count) => {
                    self.promised = count;
                    effects.push(Effect::Broadcast(PeerMessage::Promised { count }));
                }
                Saving::Reserved(mark) => {
                    self.reserved = self.reserved.max(mark);
                    for (slot, value, with_payload) in std::mem::take(&mut self.unreserved) {
                        self.propose(now, slot, value, with_payload, effects);
                    }
                }
                Saving::Joining => self.speak(effects),
                Saving::Slot(slot) => {
                    let coin = self.coin(slot);
                    let Some(open) = self.open.get_mut(&slot) else { continue };
                    if let Stage::SavingVote(..) = open.stage() {
                        self.highest_vote = self.highest_vote.max(slot);
                    }
                    let mut out = Vec::new();
                    open.saved(coin, &mut out);
                    self.perform(now, slot, out, None, effects);
                }
            }
        }
    }

    // ----- payloads -----

    /// Takes a payload. False if it was held.
    fn hold(&mut self, now: Duration, id: BatchId, payload: Payload, effects: &mut Vec<Effect>) -> bool {
        if let Some(held) = self.payloads.get_mut(&id) {
            held.last = None;
            return false;
        }
        self.payloads.insert(id, Held { payload, last: None });
        if self.fetching.remove(&id).is_some() {
            let waiting: Vec<_> = self
                .open
                .iter()
                .filter(|(_, open)| open.needed().any(|needed| *needed == id))
                .map(|(slot, _)| *slot)
                .collect();
            for slot in waiting {
                self.count_parked(now, slot, &id, effects);
            }
            self.move_window(now, effects);
        }
        true
    }

    /// A batch that is decided is of use for some slots more, to peers that are a little behind.
    fn forget(&mut self, id: BatchId) {
        let undelivered = self.open.values().any(|open| open.stage() == Stage::Decided(Some(id)));
        if !undelivered {
            self.let_go_after(self.frontier, id);
        }
    }

    fn count_parked(&mut self, now: Duration, slot: SlotNumber, id: &BatchId, effects: &mut Vec<Effect>) {
        let Some(open) = self.open.get_mut(&slot) else { return };
        let proposers = open.hold(id);
        if open.is_silent() {
            let payload = self.payloads.get(id).map(|held| held.payload.clone());
            for from in proposers {
                let heard = Notice::Heard { slot, from, value: Some(*id), payload: payload.clone() };
                effects.push(Effect::Pool(heard));
            }
        }
        self.advance(now, slot, effects);
    }

    /// Rule 6: asks for a payload, at once and then again, every peer in turn.
    fn fetch(&mut self, now: Duration, id: BatchId, from: Option<NodeId>, effects: &mut Vec<Effect>) {
        let decided = || self.open.values().any(|open| open.stage() == Stage::Decided(Some(id)));
        if self.refused.contains(&id) && !decided() {
            return;
        }
        let asked = self.fetching.get(&id).copied();
        if asked.is_some_and(|(at, _)| now.saturating_sub(at) < ASK_AGAIN) {
            return;
        }
        let tries = asked.map_or(0, |(_, tries)| tries);
        let peers: Vec<_> = self.peers_up().filter(|peer| self.is_in_force(*peer)).collect();
        let first = from.or_else(|| peers.get(tries % peers.len().max(1)).copied());
        self.fetching.insert(id, (now, tries + 1));
        effects.extend(first.map(|peer| Effect::Send(peer, PeerMessage::Fetch { id })));
    }

    // ----- decisions -----

    /// Takes a decision that contradicts none that is known here.
    fn adopt(&mut self, now: Duration, slot: SlotNumber, value: Value, effects: &mut Vec<Effect>) {
        if slot <= self.frontier || slot > self.frontier + AHEAD * self.genesis.window {
            return;
        }
        let open = self.open.entry(slot).or_insert_with(|| Slot::new(self.me, self.quorums));
        if let Stage::Decided(_) = open.stage() {
            return;
        }
        open.adopt(value);
        self.decided(now, slot, value, effects);
    }

    fn decided(&mut self, now: Duration, slot: SlotNumber, value: Value, effects: &mut Vec<Effect>) {
        self.highest_decided = self.highest_decided.max(slot);
        self.recent.insert(slot, Decided { value, at: now });
        effects.push(Effect::Pool(Notice::Decided(slot, value)));
        if let Some(id) = value
            && !self.payloads.contains_key(&id)
        {
            self.fetch(now, id, None, effects);
        }
        self.move_window(now, effects);
    }

    /// Delivers what is decided in order, and speaks where the window has come to.
    fn move_window(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let (before, first) = (self.frontier, effects.len());
        while let Some(open) = self.open.get(&(self.frontier + 1)) {
            let Stage::Decided(value) = open.stage() else { break };
            let batch = match value {
                None => None,
                Some(id) => match self.payloads.get(&id) {
                    Some(held) => Some((id, held.payload.clone())),
                    None => {
                        self.fetch(now, id, None, effects);
                        break;
                    }
                },
            };
            self.frontier += 1;
            self.open.remove(&self.frontier);
            self.deliver(now, value, batch, effects);
        }
        if is_broken(Rule::InOrder) {
            effects[first..].reverse();
        }
        if self.frontier > before {
            self.progressed = now;
            effects.push(Effect::Pool(Notice::Frontier(self.frontier)));
            let (old_end, end) = (before + self.genesis.window, self.frontier + self.genesis.window);
            let entered: Vec<_> = self.open.range(old_end + 1..=end).map(|(slot, _)| *slot).collect();
            for slot in entered {
                self.advance(now, slot, effects);
            }
        }
        self.say_unsaid(now, effects);
        self.release_reads(now, effects);
    }

    fn deliver(&mut self, now: Duration, value: Value, batch: Option<(BatchId, Payload)>, effects: &mut Vec<Effect>) {
        let slot = self.frontier;
        self.unwritten.push((slot, value));
        self.unwritten_since.get_or_insert(now);
        self.recent.entry(slot).or_insert(Decided { value, at: now });
        while self.recent.len() > RECENT {
            self.recent.pop_first();
        }
        if let Some(id) = value {
            self.let_go_after(slot, id);
        }
        // One that can't be decoded stops the ledger.
        let replacement = batch.as_ref().and_then(|(_, payload)| payload.replacement().ok().flatten());
        effects.push(Effect::Deliver(slot, batch));
        if let Some((node, store)) = replacement {
            self.replaced(Replacement { slot, node, store }, effects);
        }
        // What is not on its way to the disk yet is kept.
        let unwritten = self.unwritten.first().map_or(slot, |(slot, _)| *slot);
        let keep = unwritten.min(slot.saturating_sub(2 * self.genesis.window));
        while let Some((slot, id)) = self.delivered.pop_front_if(|(slot, _)| *slot < keep) {
            // One that was given up may have been decided after that, or come again.
            if self.payloads.get(&id).is_none_or(|held| held.last.is_none_or(|last| last > slot)) {
                continue;
            }
            // One that was decided may be proposed again, by who does not know.
            if self.open.values().any(|open| open.rests_on(&id)) {
                self.let_go_after(self.frontier, id);
            } else {
                self.payloads.remove(&id);
            }
        }
    }

    /// A payload may go from memory a while after this slot.
    fn let_go_after(&mut self, slot: SlotNumber, id: BatchId) {
        if let Some(held) = self.payloads.get_mut(&id) {
            held.last = Some(slot);
            self.delivered.push_back((slot, id));
        }
    }

    // ----- stores -----

    /// A member has a new store, by the log.
    fn replaced(&mut self, replacement: Replacement, effects: &mut Vec<Effect>) {
        if !self.stores.add(replacement) {
            return;
        }
        let Replacement { node, store, .. } = replacement;
        if node != self.me {
            self.forget_heard(node);
            if self.linked[node.index()] == store && self.up[node.index()] {
                effects.push(Effect::MeetAgain(node));
            }
        } else if store == self.store {
            self.save(Commit::default(), Some(Saving::Joining), effects);
        } else if let Some(span) = self.stores.span(self.me, self.store) {
            self.fall_silent(span.end);
        }
        self.tell_pool_of_stores(effects);
    }

    /// This store took the place of another, durably.
    fn speak(&mut self, effects: &mut Vec<Effect>) {
        if let Some(span) = self.stores.span(self.me, self.store) {
            self.speaks = span;
            self.tell_pool_of_stores(effects);
            self.reserve_ahead(effects);
        }
    }

    /// This store was replaced by another, which speaks from slot `end` on. What a former run may have said there, before it
    /// knew, it did not say: it knows what is decided a window below.
    fn fall_silent(&mut self, end: SlotNumber) {
        self.speaks.end = end;
        self.unsaid.retain(|slot| *slot < end);
        self.unreserved.retain(|(slot, ..)| *slot < end);
        self.open.retain(|slot, open| *slot < end || matches!(open.stage(), Stage::Decided(_)));
    }

    /// Rule 11, for slots that have come into the window.
    fn say_unsaid(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let end = self.frontier + self.genesis.window;
        while let Some(slot) = self.unsaid.pop_front_if(|slot| *slot <= end) {
            self.say_again(slot, None, effects);
            self.advance(now, slot, effects);
        }
    }

    /// Rule 9.
    fn say_again(&self, slot: SlotNumber, to: Option<NodeId>, effects: &mut Vec<Effect>) {
        let Some(open) = self.open.get(&slot).filter(|_| self.speaks.contains(&slot)) else { return };
        for message in open.said() {
            let message = peer_message(slot, message, None);
            effects.push(match to {
                Some(peer) => Effect::Send(peer, message),
                None => Effect::Broadcast(message),
            });
        }
    }

    fn say_all_again(&self, to: Option<NodeId>, effects: &mut Vec<Effect>) {
        if is_broken(Rule::Repeat) {
            return;
        }
        for slot in self.open.range(..=self.frontier + self.genesis.window).map(|(slot, _)| *slot) {
            self.say_again(slot, to, effects);
        }
    }

    // ----- links and time -----

    fn link_up(&mut self, peer: NodeId, store: StoreId, effects: &mut Vec<Effect>) {
        self.up[peer.index()] = true;
        self.linked[peer.index()] = store;
        (self.known[peer.index()], self.misses[peer.index()]) = (0, 0);
        effects.push(Effect::Send(peer, PeerMessage::Alive { decided: self.frontier }));
        if !self.is_in_force(peer) {
            return;
        }
        effects.push(Effect::Pool(Notice::LinkUp(peer)));
        effects.push(Effect::Send(peer, PeerMessage::Promised { count: self.promised }));
        self.say_all_again(Some(peer), effects);
        if let Some(round) = &self.round {
            effects.push(Effect::Send(peer, PeerMessage::ReadIndex { starts: self.starts, round: round.number }));
        }
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.look_who_is_known(now, effects);
        // A former store has said all that it may: the handshake tells it so.
        let former = self.peers_up().filter(|peer| {
            let span = self.stores.span(*peer, self.linked[peer.index()]);
            span.is_some_and(|span| span.end <= self.frontier + 1)
        });
        effects.extend(former.map(Effect::MeetAgain));
        if self.unwritten_since.is_some_and(|since| now.saturating_sub(since) >= LAZY_WRITE) {
            self.save(Commit::default(), None, effects);
        }
        if now.saturating_sub(self.repeated.max(self.progressed)) >= REPEAT {
            self.repeated = now;
            self.say_all_again(None, effects);
        }
        let needed = self.open.values().flat_map(Slot::needed);
        let missing: BTreeSet<BatchId> = needed.filter(|id| !self.payloads.contains_key(id)).copied().collect();
        self.fetching.retain(|id, _| missing.contains(id));
        for id in missing {
            self.fetch(now, id, None, effects);
        }
        if let Some(round) = &mut self.round
            && now.saturating_sub(round.asked) >= ASK_AGAIN
        {
            round.asked = now;
            effects.push(Effect::Broadcast(PeerMessage::ReadIndex { starts: self.starts, round: round.number }));
        }
        if now.saturating_sub(self.alive) >= ALIVE {
            self.alive = now;
            effects.push(Effect::Broadcast(PeerMessage::Alive { decided: self.frontier }));
        }
        self.catch_up(now, effects);
    }

    // ----- catching up -----

    fn knows(&mut self, peer: NodeId, decided: SlotNumber) {
        let known = &mut self.known[peer.index()];
        *known = decided.max(*known);
    }

    /// Asks for decided slots where a peer knows more and agreement alone does not bring them.
    fn catch_up(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let furthest = self.peers_up().map(|peer| self.known[peer.index()]).max().unwrap_or(0);
        let stalled = now.saturating_sub(self.progressed) >= STALLED;
        if furthest <= self.frontier || (furthest <= self.frontier + self.genesis.window && !stalled) {
            return;
        }
        if let Some((asked, peer)) = self.catching_up
            && self.up[peer.index()]
        {
            if now.saturating_sub(asked) < CATCH_UP_AGAIN {
                return;
            }
            self.misses[peer.index()] = self.misses[peer.index()].saturating_add(1);
        }
        if let Some(peer) = self.whom_to_ask() {
            self.ask_entries(now, peer, effects);
        }
    }

    fn ask_entries(&mut self, now: Duration, peer: NodeId, effects: &mut Vec<Effect>) {
        self.catching_up = Some((now, peer));
        effects.push(Effect::Send(peer, PeerMessage::CatchUp { from: self.frontier + 1 }));
    }

    /// Rule 10: goes on behind a snapshot. Only what lies at or below it is forgotten.
    fn installed(
        &mut self,
        now: Duration,
        slot: SlotNumber,
        decisions: Vec<(SlotNumber, Value)>,
        replacements: &Replacements,
        effects: &mut Vec<Effect>,
    ) {
        assert!(slot > self.frontier, "a snapshot at slot {slot} is not above the frontier {}", self.frontier);
        self.frontier = slot;
        self.highest_decided = self.highest_decided.max(slot);
        self.progressed = now;
        self.catching_up = None;
        self.misses = [0; MAX_NODES];
        self.open = self.open.split_off(&(slot + 1));
        self.unsaid.retain(|unsaid| *unsaid > slot);
        self.recent.retain(|recent, _| *recent > slot);
        self.unwritten.retain(|(unwritten, _)| *unwritten > slot);
        self.unreserved.retain(|(unreserved, ..)| *unreserved > slot);
        // Payloads of batches that were decided in other slots that were skipped go when they are decided again.
        decisions.iter().filter_map(|(_, value)| *value).for_each(|id| self.let_go_after(slot, id));
        let told = if is_broken(Rule::InstalledTold) { Vec::new() } else { decisions };
        effects.push(Effect::Pool(Notice::Installed(slot, told)));
        for replacement in replacements.list() {
            self.replaced(*replacement, effects);
        }
        self.save(Commit { installed: Some(slot), ..Commit::default() }, None, effects);
        let entered: Vec<_> = self.open.range(..=slot + self.genesis.window).map(|(slot, _)| *slot).collect();
        for slot in entered {
            self.advance(now, slot, effects);
        }
        self.move_window(now, effects);
    }

    // ----- reads -----

    /// The highest slot in which this node has durably voted or which it knows decided.
    fn read_index(&self) -> SlotNumber {
        let voted = if is_broken(Rule::ReadSeesVotes) { 0 } else { self.highest_vote };
        voted.max(self.highest_decided)
    }

    fn start_round(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.round.is_some() {
            return;
        }
        let Some(read) = self.waiting_read.take() else { return };
        if is_broken(Rule::ReadRound) {
            return effects.push(Effect::ReadAt { read, slot: 0 });
        }
        self.rounds += 1;
        let answers = [None; MAX_NODES];
        let stores = self.stores.version();
        self.round = Some(ReadRound { number: self.rounds, read, stores, asked: now, answers });
        if self.quorums.members() > 1 {
            effects.push(Effect::Broadcast(PeerMessage::ReadIndex { starts: self.starts, round: self.rounds }));
        }
        self.finish_round(now, effects);
    }

    fn read_answer(
        &mut self,
        now: Duration,
        from: NodeId,
        starts: u64,
        number: u64,
        slot: SlotNumber,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(round) = &mut self.round
            && ((starts, number) == (self.starts, round.number) || is_broken(Rule::ReadEcho))
            && self.linked[from.index()] == self.stores.current(from)
        {
            round.answers[from.index()] = Some(slot);
            self.finish_round(now, effects);
        }
    }

    fn finish_round(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let own = self.is_current().then(|| self.read_index());
        let Some(round) = &mut self.round else { return };
        // A store that has become current since the round began answers, too.
        round.answers[self.me.index()] = round.answers[self.me.index()].or(own);
        let answers = round.answers.iter().flatten();
        if answers.clone().count() < self.quorums.quorum() && !is_broken(Rule::ReadQuorum) {
            return;
        }
        let slot = answers.copied().max().unwrap_or(0);
        let ended = EndedRound { read: round.read, slot, stores: round.stores };
        match self.ended.last_mut().filter(|last| (last.slot, last.stores) == (slot, ended.stores)) {
            // One that asks again may come behind a later one.
            Some(last) => last.read = last.read.max(ended.read),
            None => self.ended.push(ended),
        }
        self.round = None;
        self.release_reads(now, effects);
        self.start_round(now, effects);
    }

    /// Lets those reads go whose slot is decided, with all before it. If a store was replaced since their round began, they ask
    /// again: an answer may have come from a store that others had replaced, and with it left behind, by then. (Those others
    /// voted in the slot that says so, so a quorum that includes that store names this slot at least.)
    fn release_reads(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let (frontier, stores) = (self.frontier, self.stores.version());
        for EndedRound { read, slot, stores: known } in self.ended.extract_if(.., |ended| ended.slot <= frontier) {
            if known == stores {
                effects.push(Effect::ReadAt { read, slot });
            } else {
                self.waiting_read = self.waiting_read.max(Some(read));
            }
        }
        self.start_round(now, effects);
    }

    fn peers_up(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.genesis.nodes().filter(|node| *node != self.me && self.up[node.index()])
    }
}

fn peer_message(slot: SlotNumber, message: SlotMessage, payload: Option<Payload>) -> PeerMessage {
    match message {
        SlotMessage::Proposal(value) => PeerMessage::Proposal { slot, value, payload },
        SlotMessage::State(phase, state) => PeerMessage::State { slot, phase, state },
        SlotMessage::Vote(phase, vote) => PeerMessage::Vote { slot, phase, vote },
    }
}
