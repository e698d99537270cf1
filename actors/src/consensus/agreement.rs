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
use rabia_bank_messages::ids::{BatchId, Digest, MAX_NODES, Millis, NodeId, Phase, Slot as SlotNumber, StoreId};
use rabia_bank_messages::lineage::{Memory, log_hash};
use rabia_bank_messages::peer::{Entry, PeerMessage, Value};
use rabia_bank_messages::promise::{Commit, Record, Recovered, Said};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rustc_hash::FxHashMap;

mod belief;

use super::coin::coin;
use super::forks::{Compared, Forks, Step};
use super::hashes::Hashes;
use super::lineage::Lineage;
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
        /// The hash of the log up to it.
        hash: Digest,
        /// The decisions up to it that owners of coming slots are read from.
        decisions: Vec<(SlotNumber, Value)>,
        /// The replacements of stores up to it.
        replacements: Replacements,
    },
    /// The digest of this node's state after a slot.
    OwnDigest {
        /// The slot.
        slot: SlotNumber,
        /// The digest.
        digest: Digest,
    },
    /// What [`Effect::LookUp`] asked for: none if the log has it no more.
    LookedUp {
        /// The slot.
        slot: SlotNumber,
        /// The hash of the log up to it.
        hash: Option<Digest>,
    },
    /// The snapshot that this peer sends, after this slot, does not have this node's history.
    OtherHistory(NodeId, SlotNumber),
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
    /// Tell this peer the hash of the log up to a slot, if it is on disk.
    SendHash {
        /// Who asked.
        to: NodeId,
        /// For which slot.
        slot: SlotNumber,
    },
    /// Look on disk for the hash of the log up to a slot, and report [`Event::LookedUp`].
    LookUp(SlotNumber),
    /// This peer's log begins at a slot that is beyond this node's, whose history it has: ask it for a snapshot.
    GetSnapshot {
        /// Whom.
        from: NodeId,
        /// The first slot of its log.
        log_from: SlotNumber,
    },
    /// No client is answered from now on, or they are again: see [`forks`](super::forks).
    Doubt(bool),
    /// No majority has this node's log and state. If that is certain, the node stops.
    Split {
        /// What was compared.
        what: String,
        /// Whether it is.
        certain: bool,
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
    asked: Duration,
    answers: Vec<ReadAnswer>,
}

/// Which node answered, from which store, and the highest slot that it knows of.
type ReadAnswer = (NodeId, StoreId, SlotNumber);

/// A round with answers enough, as far as this node knows who is a member, which waits for its slot.
#[derive(Clone, Debug)]
struct EndedRound {
    round: ReadRound,
    slot: SlotNumber,
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
    frontier: SlotNumber,
    /// Of the log up to the frontier.
    hashes: Hashes,
    /// Up to this slot the log with its payloads is durable.
    durable: SlotNumber,
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
    lineage: Lineage,
    forks: Forks,
    dialled: [bool; MAX_NODES],
    /// Replacements whose former store may still be needed: it is not refused yet.
    unsettled: Vec<Replacement>,
    /// How far the log is durable at each peer, and in which store.
    durable_at: [Option<(StoreId, SlotNumber)>; MAX_NODES],
    /// Peers whose log begins at this slot, and that were asked whether they have this node's history.
    snapshots: [Option<SlotNumber>; MAX_NODES],
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
    /// Decisions up to this slot, or a snapshot there.
    Log(SlotNumber),
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
            frontier: recovered.decided,
            hashes: Hashes::new(recovered.decided, &recovered.hashes, recovered.kept),
            durable: recovered.decided,
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
            lineage: Lineage::new(recovered),
            forks: Forks::new(me, quorums.majority()),
            dialled: [false; MAX_NODES],
            unsettled: Vec::new(),
            durable_at: [None; MAX_NODES],
            snapshots: [None; MAX_NODES],
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
        agreement.unsettled = agreement.stores.replacements().to_vec();
        for (id, payload) in &recovered.payloads {
            agreement.payloads.insert(*id, Held { payload: payload.clone(), last: None });
        }
        agreement.restore_slots(recovered, effects);
        agreement.tell_pool_of_stores(effects);
        agreement.reserve_ahead(effects);
        agreement.move_window(Duration::ZERO, effects);
        agreement
    }

    fn forget_store(&mut self, node: NodeId, store: StoreId) {
        if self.lineage.remembers(node, store).is_some() {
            self.lineage.forget(node, store);
        }
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
        self.lineage.promised()
    }

    /// The runs of this store, and what it remembers of peers' (rule 12).
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Whether no client may be answered: see [`forks`](super::forks).
    pub fn in_doubt(&self) -> bool {
        self.forks.in_doubt()
    }

    /// Whether this member says that its log is another one: nothing else of it counts.
    pub fn has_other_log(&self, peer: NodeId) -> bool {
        self.forks.differs(peer)
    }

    /// Whether links to a quorum work, this node included, whose logs have been compared with this node's.
    pub fn meets_quorum(&self) -> bool {
        let met = |node: &NodeId| self.up[node.index()] && self.is_member(*node) && self.forks.agrees(*node);
        self.genesis.nodes().filter(met).count() + 1 >= self.quorums.quorum()
    }

    /// Up to this slot the log with its payloads is durable here.
    pub fn durable(&self) -> SlotNumber {
        self.durable
    }

    /// Whether nobody needs the store any more that was replaced: this node knows all slots in which it speaks, and that a quorum has
    /// them durably. (Before, with one more loss, those slots could not be decided.)
    pub fn is_settled(&self, by: &Replacement) -> bool {
        let last = self.stores.speaks_from(by) - 1;
        let has = |node: NodeId| {
            let durable = self.durable_at[node.index()].filter(|(store, _)| *store == self.stores.current(node));
            durable.is_some_and(|(_, slot)| slot >= last)
        };
        let own = if is_broken(Rule::FormerDurable) { self.frontier } else { self.durable };
        let own = usize::from(self.store == self.stores.current(self.me) && own >= last);
        let others = self.genesis.nodes().filter(|node| *node != self.me && has(*node)).count();
        self.frontier >= last && own + others >= self.quorums.quorum() || is_broken(Rule::FormerHeard)
    }

    /// Whether the store at the other end of the link to this peer is the peer's by the log.
    fn is_member(&self, peer: NodeId) -> bool {
        self.linked[peer.index()] == self.stores.current(peer)
    }

    /// The link to this peer that comes up next was dialled by this node, or not.
    pub fn note_dialled(&mut self, peer: NodeId, dialled: bool) {
        self.dialled[peer.index()] = dialled;
    }

    /// The hash of the log up to the frontier.
    pub fn log_hash(&self) -> Digest {
        self.hashes.last()
    }

    /// The stores of all members, as far as this node knows the log.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Where this node's store took the place of another: the slot in which that was decided, once it is in the log here.
    pub fn joined(&self) -> Option<SlotNumber> {
        self.stores.brought(self.me, self.store).map(|replacement| replacement.slot)
    }

    /// Whether this is the peer's store by the log, and it was not met as such.
    pub fn is_unmet(&self, peer: NodeId, store: StoreId) -> bool {
        self.stores.current(peer) == store && self.lineage.remembers(peer, store).is_none()
    }

    /// Whether this store took the place of another, and has not found that in its own log yet.
    pub fn is_newcomer(&self) -> bool {
        self.stores.span(self.me, self.store).is_none()
    }

    /// What this node's store was replaced by, as far as the log is known here.
    pub fn replaced_by(&self) -> Option<Replacement> {
        match self.stores.standing(self.me, self.store) {
            Standing::Former(by) => Some(by),
            Standing::Current | Standing::Unknown => None,
        }
    }

    /// What this node's store was replaced by, once a quorum has all slots in which it speaks: there is nothing left to do.
    pub fn retired(&self) -> Option<Replacement> {
        self.replaced_by().filter(|by| self.is_settled(by))
    }

    /// Whether this store knows all slots in which a former one spoke, and is the member's newest.
    pub fn is_current(&self) -> bool {
        self.answers_reads() && self.speaks.end == SlotNumber::MAX
    }

    /// Whether this store says the highest slot that it voted in: it knows all in which a former one spoke.
    fn answers_reads(&self) -> bool {
        self.speaks.start <= self.frontier + 1 || is_broken(Rule::NewStoreReads)
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

    /// Rule 12: a peer was met that says this of its store. Answers the write after which that, and all that was heard of peers
    /// before, is durable; none if it is already.
    pub fn remember_peer(&mut self, peer: NodeId, memory: Memory, effects: &mut Vec<Effect>) -> Option<Ticket> {
        if self.lineage.meet(peer, memory) {
            let commit = Commit { peers: vec![(peer, memory)], ..Commit::default() };
            self.save(commit, None, effects);
        } else if self.lineage.is_unwritten() {
            self.save(Commit::default(), None, effects);
        }
        self.lineage.writing()
    }

    /// A peer remembers this of this node's store.
    pub fn is_told(&mut self, by: NodeId, memory: Option<Memory>) {
        let others = self.genesis.nodes().filter(|node| *node != self.me);
        self.lineage.is_told(by, memory, others);
    }

    /// A peer never said what is remembered of its store: that was somebody else.
    pub fn forget_disputed(&mut self, peer: NodeId, store: StoreId) {
        self.forget_store(peer, store);
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
            Event::Installed { slot, hash, decisions, replacements } => {
                self.installed(now, (slot, hash), decisions, &replacements, effects);
            }
            Event::OwnDigest { slot, digest } => {
                self.forks.digest(self.me, slot, digest);
                effects.push(Effect::Broadcast(PeerMessage::StateDigest { slot, digest }));
                self.look_at_forks(now, effects);
            }
            Event::LookedUp { slot, hash } => {
                self.forks.found(slot, hash);
                self.look_at_forks(now, effects);
            }
            Event::OtherHistory(peer, slot) => {
                self.forks.differ(peer, slot, Digest::ZERO);
                self.look_at_forks(now, effects);
            }
            Event::Tick => self.tick(now, effects),
        }
    }

    // ----- messages -----

    fn receive(&mut self, now: Duration, from: NodeId, message: PeerMessage, effects: &mut Vec<Effect>) {
        if !self.takes(from, &message, effects) {
            return;
        }
        // Of a member whose log is another one only requests are taken, and what it says of its log.
        if self.forks.differs(from) && !is_broken(Rule::ForkedIsIgnored) && !is_about_logs(&message) {
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
                if self.answers_reads() {
                    let slot = self.read_index();
                    effects.push(Effect::Send(from, PeerMessage::ReadIndexAnswer { starts, round, slot }));
                }
            }
            PeerMessage::ReadIndexAnswer { starts, round, slot } => {
                self.read_answer(now, from, starts, round, slot, effects);
            }
            PeerMessage::CatchUp { from: slot } if slot > self.frontier => {
                let answer = PeerMessage::Entries { before: Digest::ZERO, entries: Vec::new(), decided: self.frontier };
                effects.push(Effect::Send(from, answer));
            }
            PeerMessage::CatchUp { from: slot } => effects.push(Effect::SendEntries { to: from, from: slot }),
            PeerMessage::Entries { before, entries, decided } => {
                if entries.is_empty() || self.follows(now, from, before, &entries, effects) {
                    self.entries(now, from, entries, decided, effects);
                }
            }
            PeerMessage::Alive { decided, hash, durable } => {
                self.durable_at[from.index()] = Some((self.linked[from.index()], durable.min(decided)));
                self.has_log(now, from, decided, hash, effects);
                // It says what it knows now, which may be less than what was once said in its name.
                self.known[from.index()] = decided;
                self.catch_up(now, effects);
            }
            PeerMessage::LogHash { slot, hash } => self.has_log(now, from, slot, hash, effects),
            PeerMessage::GetHash { slot } => match self.hashes.of(slot) {
                Some(hash) => effects.push(Effect::Send(from, PeerMessage::LogHash { slot, hash })),
                None if slot < self.frontier => effects.push(Effect::SendHash { to: from, slot }),
                None => {}
            },
            PeerMessage::StateDigest { slot, digest } => {
                if self.is_member(from) {
                    self.forks.digest(from, slot, digest);
                    self.look_at_forks(now, effects);
                }
            }
            PeerMessage::Compacted { log_from } => self.compacted(from, log_from, effects),
            PeerMessage::Promised { count, proof } => {
                self.lineage.hear(from, self.linked[from.index()], count, proof);
            }
            PeerMessage::Clock { wall, confirmed, refuses } => {
                effects.push(Effect::Pool(Notice::Clock { peer: from, wall, confirmed, refuses }));
            }
            // The snapshotter's business.
            PeerMessage::GetSnapshot { .. } | PeerMessage::SnapshotRows { .. } => {}
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
            None => self.alive(),
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

    /// Has what waits for the next write written now.
    pub fn write_all(&mut self, effects: &mut Vec<Effect>) {
        if self.unwritten_since.is_some() {
            self.save(Commit::default(), None, effects);
        }
    }

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
        // To remember another run of a peer binds this node as a vote does: a copy that forgot it counts less.
        let binds = commit.reserved.is_some() || !commit.records.is_empty() || !commit.peers.is_empty();
        // The count of promises is said before whatever else this write allows to be said.
        let promises = self.lineage.write(ticket, binds, &mut commit).map(Saving::Promises);
        let log = commit.decisions.last().map(|(slot, _)| *slot).max(commit.installed.map(|(slot, _)| slot));
        let mut waiting = [promises, commit.reserved.map(Saving::Reserved), log.map(Saving::Log), saving];
        if is_broken(Rule::PromisesFirst) {
            waiting.rotate_left(1);
        }
        self.saving.extend(waiting.into_iter().flatten().map(|saving| (ticket, saving)));
        effects.push(Effect::Save(ticket, commit));
        ticket
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

    fn promised_so_far(&self) -> PeerMessage {
        let count = self.lineage.promised();
        PeerMessage::Promised { count, proof: self.lineage.proof(count) }
    }

    fn saved(&mut self, now: Duration, ticket: Ticket, effects: &mut Vec<Effect>) {
        self.lineage.saved(ticket);
        while let Some((_, saving)) = self.saving.pop_front_if(|(needed, _)| *needed <= ticket) {
            match saving {
                Saving::Promises(count) => {
                    self.lineage.keep(count);
                    effects.push(Effect::Broadcast(self.promised_so_far()));
                }
                Saving::Log(slot) => self.durable = self.durable.max(slot),
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
        self.hashes.push(&value);
        if self.forks.advance(slot, &self.hashes) {
            self.look_at_forks(now, effects);
        }
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
        self.unsettled.push(replacement);
        if node != self.me {
            self.lineage.is_forgotten(node);
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

    /// Forgets former stores that nobody needs any more. Whoever still speaks from one meets this node again, and is refused.
    fn settle_stores(&mut self, effects: &mut Vec<Effect>) {
        let (settled, unsettled): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsettled).into_iter().partition(|by| self.is_settled(by));
        self.unsettled = unsettled;
        let nodes: BTreeSet<NodeId> = settled.iter().map(|by| by.node).filter(|node| *node != self.me).collect();
        for node in nodes {
            let needed = self.unsettled.iter().filter(|by| by.node == node).count();
            let former = self.stores.former(node);
            let gone = &former[..former.len().saturating_sub(needed)];
            gone.iter().for_each(|store| self.forget_store(node, *store));
            if self.up[node.index()] && gone.contains(&self.linked[node.index()]) {
                effects.push(Effect::MeetAgain(node));
            }
        }
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
        self.snapshots[peer.index()] = None;
        self.forks.link_up(peer, self.dialled[peer.index()]);
        effects.push(Effect::Send(peer, self.alive()));
        if !self.is_in_force(peer) {
            return;
        }
        effects.push(Effect::Pool(Notice::LinkUp(peer)));
        effects.push(Effect::Send(peer, self.promised_so_far()));
        let digests = self.forks.own_digests().map(|(slot, digest)| PeerMessage::StateDigest { slot, digest });
        effects.extend(digests.map(|message| Effect::Send(peer, message)));
        self.say_all_again(Some(peer), effects);
        if let Some(round) = &self.round {
            effects.push(Effect::Send(peer, PeerMessage::ReadIndex { starts: self.starts, round: round.number }));
        }
    }

    fn alive(&self) -> PeerMessage {
        PeerMessage::Alive { decided: self.frontier, hash: self.hashes.last(), durable: self.durable }
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.look_who_is_known(now, effects);
        self.look_at_forks(now, effects);
        self.settle_stores(effects);
        if self.unwritten_since.is_some_and(|since| now.saturating_sub(since) >= LAZY_WRITE) {
            self.write_all(effects);
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
            effects.push(Effect::Broadcast(self.alive()));
        }
        self.catch_up(now, effects);
    }

    // ----- forks -----

    fn look_at_forks(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for step in self.forks.look(now, self.frontier) {
            match step {
                Step::Doubt(begins) => effects.push(Effect::Doubt(begins)),
                Step::Ask(slot) => {
                    // The others have to know this node's, too.
                    let own = self.hashes.of(slot).map(|hash| PeerMessage::LogHash { slot, hash });
                    effects.extend(own.into_iter().chain([PeerMessage::GetHash { slot }]).map(Effect::Broadcast));
                }
                Step::Split { what, certain } => effects.push(Effect::Split { what, certain }),
            }
        }
    }

    /// A peer says what its log is.
    fn has_log(&mut self, now: Duration, from: NodeId, slot: SlotNumber, hash: Digest, effects: &mut Vec<Effect>) {
        if !self.is_member(from) {
            return;
        }
        match self.forks.says(from, slot, hash, self.frontier, &self.hashes) {
            Compared::Unknown => effects.push(Effect::LookUp(slot)),
            // It can be compared where both are.
            Compared::Later if !self.forks.agrees(from) => {
                effects.push(Effect::Send(from, PeerMessage::GetHash { slot: self.frontier }));
            }
            Compared::Later | Compared::Same | Compared::Other => {}
        }
        self.look_at_forks(now, effects);
        let confirmed = self.hashes.multiple().is_none_or(|(multiple, _)| self.forks.same(from) >= multiple);
        if let Some(log_from) = self.snapshots[from.index()].filter(|_| confirmed) {
            self.compacted(from, log_from, effects);
        }
    }

    /// Whether decided slots that a peer sends go on from this node's log.
    fn follows(
        &mut self,
        now: Duration,
        from: NodeId,
        before: Digest,
        entries: &[Entry],
        effects: &mut Vec<Effect>,
    ) -> bool {
        let first = entries.first().map_or(0, |entry| entry.slot);
        let Some(mut slot) = first.checked_sub(1).filter(|slot| *slot <= self.frontier) else { return false };
        let mut hash = before;
        let mut follows = self.has_same_log(from, slot, hash);
        for entry in entries {
            if !follows || entry.slot > self.frontier || entry.slot != slot + 1 {
                break;
            }
            slot = entry.slot;
            hash = log_hash(hash, slot, &entry.batch.as_ref().map(|(id, _)| *id));
            follows = self.has_same_log(from, slot, hash);
        }
        self.look_at_forks(now, effects);
        follows
    }

    /// Whether the hash of a peer's log is this node's. Of a store that is not the peer's, nothing is remembered.
    fn has_same_log(&mut self, from: NodeId, slot: SlotNumber, hash: Digest) -> bool {
        if self.is_member(from) {
            self.forks.says(from, slot, hash, self.frontier, &self.hashes) == Compared::Same
        } else {
            self.hashes.of(slot) == Some(hash)
        }
    }

    /// A peer has the log from this slot on only. Before its snapshot takes the place of this node's log, it must have been one with
    /// it at the last multiple that both keep.
    fn compacted(&mut self, from: NodeId, log_from: SlotNumber, effects: &mut Vec<Effect>) {
        self.snapshots[from.index()] = None;
        // A new store may know nobody as a member yet.
        if log_from <= self.frontier + 1 || !self.learns_from(from) {
            return;
        }
        match self.hashes.multiple() {
            Some((slot, _)) if self.forks.same(from) < slot && !is_broken(Rule::SnapshotHistory) => {
                self.snapshots[from.index()] = Some(log_from);
                effects.push(Effect::Send(from, PeerMessage::GetHash { slot }));
            }
            _ => effects.push(Effect::GetSnapshot { from, log_from }),
        }
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
        (slot, hash): (SlotNumber, Digest),
        decisions: Vec<(SlotNumber, Value)>,
        replacements: &Replacements,
        effects: &mut Vec<Effect>,
    ) {
        assert!(slot > self.frontier, "a snapshot at slot {slot} is not above the frontier {}", self.frontier);
        self.frontier = slot;
        self.hashes.restart(slot, hash);
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
        self.save(Commit { installed: Some((slot, hash)), ..Commit::default() }, None, effects);
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
        self.round = Some(ReadRound { number: self.rounds, read, asked: now, answers: Vec::new() });
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
        let store = self.linked[from.index()];
        if let Some(round) = &mut self.round
            && ((starts, number) == (self.starts, round.number) || is_broken(Rule::ReadEcho))
        {
            round.answers.retain(|(node, answered, _)| (*node, *answered) != (from, store));
            round.answers.push((from, store, slot));
            self.finish_round(now, effects);
        }
    }

    /// The slot that reads with these answers wait for. What is applied here has a part in it.
    fn read_slot(&self, answers: &[ReadAnswer]) -> SlotNumber {
        let highest = answers.iter().map(|(.., slot)| *slot).max().unwrap_or(0);
        let applied = if is_broken(Rule::ReadQuorum) { 0 } else { self.frontier };
        highest.max(applied)
    }

    /// Whether answers hold a quorum of the members of the slot behind this one, and this node's store is one of them. Where
    /// decisions are missing that say who they are, as far as they are known.
    fn holds_quorum(&self, answers: &[ReadAnswer], slot: SlotNumber) -> bool {
        let is_member = |node: NodeId, store: StoreId| self.stores.of(node, slot + 1) == store;
        let counts = |(node, store, _): &&ReadAnswer| is_member(*node, *store) || is_broken(Rule::ReadMembers);
        let enough = answers.iter().filter(counts).count() >= self.quorums.quorum();
        (enough || is_broken(Rule::ReadQuorum)) && is_member(self.me, self.store)
    }

    fn finish_round(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let own = self.answers_reads().then(|| (self.me, self.store, self.read_index()));
        let Some(round) = &mut self.round else { return };
        // A store that has become able to since the round began answers, too.
        if !round.answers.iter().any(|(node, ..)| *node == self.me) {
            round.answers.extend(own);
        }
        let Some(round) = self.round.take() else { return };
        let slot = self.read_slot(&round.answers);
        if !self.holds_quorum(&round.answers, slot) {
            self.round = Some(round);
            return;
        }
        match self.ended.last_mut().filter(|last| last.slot == slot) {
            // It began later, so it serves those reads, too. One that asks again may come behind a later one.
            Some(last) => last.round = ReadRound { read: round.read.max(last.round.read), ..round },
            None => self.ended.push(EndedRound { round, slot }),
        }
        self.release_reads(now, effects);
        self.start_round(now, effects);
    }

    /// Lets those reads go whose slot is decided, with all before it. Only then it is known who the members of the slot behind it are:
    /// where the answers do not hold a quorum of them, more are asked.
    ///
    /// (What was acknowledged before a read, in a slot above its own, would be in the same epoch, where the f + 1 votes for it meet
    /// the quorum. Or it is behind a change whose last slot the members of the slot behind the read's own decided, and then the read's
    /// slot is not below that one.)
    fn release_reads(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let frontier = self.frontier;
        let due: Vec<EndedRound> = self.ended.extract_if(.., |ended| ended.slot <= frontier).collect();
        for EndedRound { round, slot } in due {
            if self.holds_quorum(&round.answers, slot) {
                effects.push(Effect::ReadAt { read: round.read, slot });
                continue;
            }
            let ReadRound { number, read, answers, .. } = round;
            match &mut self.round {
                // It began later, so it serves these reads, too.
                Some(later) => later.read = later.read.max(read),
                None => {
                    self.round = Some(ReadRound { number, read, asked: now, answers });
                    effects.push(Effect::Broadcast(PeerMessage::ReadIndex { starts: self.starts, round: number }));
                }
            }
        }
        self.start_round(now, effects);
    }

    fn peers_up(&self) -> impl Iterator<Item = NodeId> + '_ {
        let heard = |node: &NodeId| *node != self.me && self.up[node.index()] && !self.forks.differs(*node);
        self.genesis.nodes().filter(heard)
    }
}

/// Requests, and what a member says of its log and state.
fn is_about_logs(message: &PeerMessage) -> bool {
    matches!(
        message,
        PeerMessage::Alive { .. }
            | PeerMessage::LogHash { .. }
            | PeerMessage::GetHash { .. }
            | PeerMessage::StateDigest { .. }
            | PeerMessage::CatchUp { .. }
            | PeerMessage::Fetch { .. }
    )
}

fn peer_message(slot: SlotNumber, message: SlotMessage, payload: Option<Payload>) -> PeerMessage {
    match message {
        SlotMessage::Proposal(value) => PeerMessage::Proposal { slot, value, payload },
        SlotMessage::State(phase, state) => PeerMessage::State { slot, phase, state },
        SlotMessage::Vote(phase, vote) => PeerMessage::Vote { slot, phase, vote },
    }
}
