//! The agreement core: Weak-MVC of all slots in the window, catching up, and the read rule.
//!
//! [`Agreement`] takes an [`Event`] and appends [`Effect`]s, which the voter actor (or the simulator) performs in order.
//! What must be durable before it is sent is an [`Effect::Save`] here; the messages come out when [`Event::Saved`] came
//! back. Time is an argument of every call: the core reads no clock.
//!
//! Each concern has a file and a struct of its own, which knows nothing of the others:
//!
//! - `slots`: the end of the log, the slots behind it, and what was decided lately;
//! - `payloads`: which are held and for how long, which are asked for;
//! - `durable`: what waits for the disk, the mark of rule 1, the count of promises;
//! - `reads`: rounds of the read rule;
//! - `catch_up`: how far peers are, and whom to ask;
//! - `members`: whose stores are linked, and where this store speaks;
//! - `links`: which peers are linked, and what is due by time;
//! - [`forks`](super::forks) and [`lineage`](super::lineage).
//!
//! What takes several of them is done here, in three files: `messages` (what peers say, and what of it is believed), `deciding` (from
//! a proposal to the delivered slot) and `logs` (comparing logs, getting decided slots and snapshots).

use std::collections::BTreeSet;
use std::time::Duration;

use rabia_bank_messages::bank::Command;
use rabia_bank_messages::batch::{BadPayload, Payload};
use rabia_bank_messages::genesis::{Genesis, Replacement, Replacements};
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot as SlotNumber, StoreId};
use rabia_bank_messages::lineage::Memory;
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_messages::promise::{Commit, Recovered};
use rabia_bank_messages::sabotage::{Rule, is_broken};

mod catch_up;
mod deciding;
mod durable;
mod links;
mod logs;
mod members;
mod messages;
mod payloads;
mod reads;
mod setting;
mod slots;

use catch_up::CatchUp;
use durable::{Durable, Saving};
use links::Links;
use members::{Members, Replaced, Settled};
use payloads::Payloads;
use reads::{Reads, View};
use setting::Setting;
use slots::Slots;

pub use super::words::{Effect, Event, Notice, TICK, Ticket};
pub use messages::READ_AHEAD;
pub use slots::AHEAD;

use super::forks::Forks;
use super::lineage::Lineage;
use super::stores::Stores;

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
/// - All slots up to the frontier are delivered, in order.
/// - Nothing is said for a slot above the frontier and a window, nor at or above the durable mark, nor where this node's store does
///   not speak for its member.
#[derive(Clone, Debug)]
pub struct Agreement {
    setting: Setting,
    members: Members,
    links: Links,
    slots: Slots,
    payloads: Payloads,
    durable: Durable,
    reads: Reads,
    catching_up: CatchUp,
    forks: Forks,
    counters: AgreementCounters,
    check: PayloadCheck,
}

/// Whether a payload can be applied to what is replicated here; why not, otherwise.
pub type PayloadCheck = fn(&Payload) -> Result<(), BadPayload>;

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
        let setting = Setting::new(&genesis, me, recovered.store);
        let mut agreement = Agreement {
            members: Members::new(setting, &genesis, replacements),
            links: Links::new(setting),
            slots: Slots::new(setting, recovered),
            payloads: Payloads::new(&recovered.payloads),
            durable: Durable::new(setting.window, recovered),
            reads: Reads::new(setting, recovered),
            catching_up: CatchUp::default(),
            forks: Forks::new(me, setting.quorums.majority()),
            counters: AgreementCounters::default(),
            check: Payload::check::<Command>,
            setting,
        };
        agreement.slots.restore(recovered, agreement.members.speaks(), effects);
        agreement.members.tell_pool(agreement.frontier(), effects);
        agreement.reserve_ahead(effects);
        agreement.move_window(Duration::ZERO, effects);
        agreement
    }

    /// The same where something else than the bank is replicated: `check` says which payloads of peers can be applied.
    pub fn checking(mut self, check: PayloadCheck) -> Agreement {
        self.check = check;
        self
    }

    // ----- what is known of it -----

    /// The end of the gapless decided log.
    pub fn frontier(&self) -> SlotNumber {
        self.slots.frontier()
    }

    /// The hash of the log up to the frontier.
    pub fn log_hash(&self) -> Digest {
        self.slots.hashes().last()
    }

    /// Up to this slot the log with its payloads is durable here.
    pub fn durable(&self) -> SlotNumber {
        self.durable.log()
    }

    /// This node has said nothing at or above this slot, durably (rule 12).
    pub fn reserved(&self) -> SlotNumber {
        self.durable.reserved()
    }

    /// How many promises this node's store has kept (rule 12).
    pub fn promised(&self) -> u64 {
        self.lineage().promised()
    }

    /// The runs of this store, and what it remembers of peers' (rule 12).
    pub fn lineage(&self) -> &Lineage {
        self.durable.lineage()
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
        let met = |node: &NodeId| self.links.is_up(*node) && self.members.is_member(*node) && self.forks.agrees(*node);
        self.setting.nodes().filter(met).count() + 1 >= self.setting.quorums.quorum()
    }

    /// The furthest slot that any peer is known to have. One that says so and never shows it is not believed.
    pub fn known_elsewhere(&self) -> SlotNumber {
        self.catching_up.known_elsewhere(self.setting.nodes())
    }

    /// How many slots are in agreement and undecided.
    pub fn open_slots(&self) -> usize {
        self.slots.undecided()
    }

    /// Whether the payload of this batch is in memory.
    pub fn holds(&self, id: &BatchId) -> bool {
        self.payloads.holds(id)
    }

    /// How many payloads are in memory.
    pub fn payloads(&self) -> usize {
        self.payloads.len()
    }

    /// Counters since the start.
    pub fn counters(&self) -> AgreementCounters {
        self.counters
    }

    // ----- stores -----

    /// The stores of all members, as far as this node knows the log.
    pub fn stores(&self) -> &Stores {
        self.members.stores()
    }

    /// Whether nobody needs the store any more that was replaced: this node knows all slots in which it speaks, and that a quorum has
    /// them durably. (Before, with one more loss, those slots could not be decided.)
    pub fn is_settled(&self, by: &Replacement) -> bool {
        self.members.is_settled(by, self.frontier(), self.durable.log())
    }

    /// Where this node's store took the place of another: the slot in which that was decided, once it is in the log here.
    pub fn joined(&self) -> Option<SlotNumber> {
        self.members.joined()
    }

    /// Whether this is the peer's store by the log, and it was not met as such.
    pub fn is_unmet(&self, peer: NodeId, store: StoreId) -> bool {
        self.stores().current(peer) == store && self.lineage().remembers(peer, store).is_none()
    }

    /// Whether this store took the place of another, and has not found that in its own log yet.
    pub fn is_newcomer(&self) -> bool {
        self.members.is_newcomer()
    }

    /// What this node's store was replaced by, as far as the log is known here.
    pub fn replaced_by(&self) -> Option<Replacement> {
        self.members.replaced_by()
    }

    /// What this node's store was replaced by, once a quorum has all slots in which it speaks: there is nothing left to do.
    pub fn retired(&self) -> Option<Replacement> {
        self.replaced_by().filter(|by| self.is_settled(by))
    }

    /// Whether this store knows all slots in which a former one spoke, and is the member's newest.
    pub fn is_current(&self) -> bool {
        self.answers_reads() && self.members.speaks().end == SlotNumber::MAX
    }

    /// Whether the store at the other end of the link speaks for the peer, now or soon, by this node's log.
    pub fn is_in_force(&self, peer: NodeId) -> bool {
        self.members.is_in_force(peer, self.frontier())
    }

    /// Whether this node takes decided slots and snapshots from the peer.
    pub fn learns_from(&self, peer: NodeId) -> bool {
        self.is_in_force(peer) || self.links.is_alone()
    }

    // ----- handshakes -----

    /// The link to this peer that comes up next was dialled by this node, or not.
    pub fn note_dialled(&mut self, peer: NodeId, dialled: bool) {
        self.links.note_dialled(peer, dialled);
    }

    /// Rule 12: a peer was met that says this of its store. Answers the write after which that, and all that was heard of peers
    /// before, is durable; none if it is already.
    pub fn remember_peer(&mut self, peer: NodeId, memory: Memory, effects: &mut Vec<Effect>) -> Option<Ticket> {
        if self.durable.lineage_mut().meet(peer, memory) {
            let commit = Commit { peers: vec![(peer, memory)], ..Commit::default() };
            self.save(commit, None, effects);
        } else if self.lineage().is_unwritten() {
            self.save(Commit::default(), None, effects);
        }
        self.lineage().writing()
    }

    /// A peer remembers this of this node's store.
    pub fn is_told(&mut self, by: NodeId, memory: Option<Memory>) {
        self.durable.lineage_mut().is_told(by, memory, self.setting.others());
    }

    /// A peer never said what is remembered of its store: that was somebody else.
    pub fn forget_disputed(&mut self, peer: NodeId, store: StoreId) {
        self.durable.lineage_mut().forget(peer, store);
    }

    // ----- events -----

    /// Takes what happened at `now` and appends what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Received(from, message) => self.receive(now, from, message, effects),
            Event::Saved(ticket) => self.saved(now, ticket, effects),
            Event::Propose { slot, value, with_payload } => self.propose(now, slot, value, with_payload, effects),
            Event::Hold(id, payload) => {
                self.hold(now, id, payload, effects);
            }
            Event::Forget(id) => {
                // A batch that is decided is of use for some slots more, to peers that are a little behind.
                if !self.slots.is_undelivered(&id) {
                    self.payloads.let_go_after(self.frontier(), id);
                }
            }
            Event::Drop(id) => self.drop_payload(id),
            Event::LinkUp(peer, store) => self.link_up(peer, store, effects),
            Event::LinkDown(peer) => {
                self.links.disconnect(peer);
                effects.push(Effect::Pool(Notice::LinkDown(peer)));
            }
            Event::Read(read) => {
                self.reads.wait(read);
                self.reads.start(now, &view(&self.slots, &self.members), effects);
            }
            Event::Installed { slot, hash, decisions, replacements } => {
                self.installed(now, (slot, hash), decisions, &replacements, effects);
            }
            Event::OwnDigest { slot, digest } => {
                self.forks.digest(self.setting.me, slot, digest);
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

    /// Has what waits for the next write written now.
    pub fn write_all(&mut self, effects: &mut Vec<Effect>) {
        if self.durable.has_unwritten() {
            self.save(Commit::default(), None, effects);
        }
    }

    // ----- links and time -----

    fn link_up(&mut self, peer: NodeId, store: StoreId, effects: &mut Vec<Effect>) {
        let dialled = self.links.connect(peer);
        self.members.link_up(peer, store);
        self.catching_up.link_up(peer);
        self.forks.link_up(peer, dialled);
        effects.push(Effect::Send(peer, self.alive()));
        if !self.is_in_force(peer) {
            return;
        }
        effects.push(Effect::Pool(Notice::LinkUp(peer)));
        effects.push(Effect::Send(peer, self.durable.promised()));
        let digests = self.forks.own_digests().map(|(slot, digest)| PeerMessage::StateDigest { slot, digest });
        effects.extend(digests.map(|message| Effect::Send(peer, message)));
        self.say_all_again(Some(peer), effects);
        effects.extend(self.reads.question().map(|question| Effect::Send(peer, question)));
    }

    fn alive(&self) -> PeerMessage {
        PeerMessage::Alive { decided: self.frontier(), hash: self.log_hash(), durable: self.durable.log() }
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.look_who_is_known(now, effects);
        self.look_at_forks(now, effects);
        self.settle_stores(effects);
        if self.durable.is_due(now) {
            self.write_all(effects);
        }
        if self.links.repeats(now, self.slots.progressed()) {
            self.say_all_again(None, effects);
        }
        let missing: BTreeSet<BatchId> = self.slots.needed().filter(|id| !self.payloads.holds(id)).copied().collect();
        self.payloads.ask_only_for(&missing);
        for id in missing {
            self.fetch(now, id, None, effects);
        }
        self.reads.tick(now, effects);
        if self.links.says_alive(now) {
            effects.push(Effect::Broadcast(self.alive()));
        }
        self.catch_up(now, effects);
    }

    /// Takes note of who is linked that this node's log knows.
    fn look_who_is_known(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let linked: Vec<NodeId> = self.links.heard(&self.forks).collect();
        let known = linked.iter().any(|peer| self.is_in_force(*peer));
        if self.links.look_who_is_known(now, known, !linked.is_empty()) {
            let why = "its store is not known here, but there is nobody else: decided slots are taken from it";
            effects.extend(linked.into_iter().map(|peer| Effect::Warn(peer, why.into())));
        }
    }

    /// Says once more what this node has said for a slot, to one peer or to all (rule 9).
    fn say_again(&self, slot: SlotNumber, to: Option<NodeId>, effects: &mut Vec<Effect>) {
        if !self.members.speaks().contains(&slot) {
            return;
        }
        effects.extend(self.slots.said(slot).map(|message| match to {
            Some(peer) => Effect::Send(peer, message),
            None => Effect::Broadcast(message),
        }));
    }

    fn say_all_again(&self, to: Option<NodeId>, effects: &mut Vec<Effect>) {
        if !is_broken(Rule::Repeat) {
            self.slots.in_window().for_each(|slot| self.say_again(slot, to, effects));
        }
    }

    // ----- durable writes -----

    /// Adds all that is waiting to the write, and issues it.
    fn save(&mut self, commit: Commit, saving: Option<Saving>, effects: &mut Vec<Effect>) {
        let frontier = self.frontier();
        let speaks_behind = self.members.speaks_soon(frontier).then_some(frontier);
        self.durable.save(commit, saving, speaks_behind, &self.payloads, effects);
    }

    /// Rule 1: raises the mark by a write of its own where no other write does.
    fn reserve_ahead(&mut self, effects: &mut Vec<Effect>) {
        let frontier = self.frontier();
        if self.durable.needs_mark(frontier) && self.members.speaks_soon(frontier) {
            self.save(Commit::default(), None, effects);
        }
    }

    fn saved(&mut self, now: Duration, ticket: Ticket, effects: &mut Vec<Effect>) {
        while let Some(saving) = self.durable.next_saved(ticket) {
            match saving {
                Saving::Promises(_) => effects.push(Effect::Broadcast(self.durable.promised())),
                Saving::Log(_) => {}
                Saving::Reserved(_) => {
                    for wanted in self.durable.take_wanted() {
                        self.propose(now, wanted.slot, wanted.value, wanted.with_payload, effects);
                    }
                }
                Saving::Joining => {
                    if self.members.speak() {
                        self.members.tell_pool(self.frontier(), effects);
                        self.reserve_ahead(effects);
                    }
                }
                Saving::Slot(slot) => self.slot_saved(now, slot, effects),
            }
        }
    }

    // ----- replacements of stores -----

    /// A member has a new store, by the log.
    fn replaced(&mut self, replacement: Replacement, effects: &mut Vec<Effect>) {
        match self.members.add(replacement) {
            Replaced::Nothing => return,
            Replaced::Peer(node) => {
                self.durable.lineage_mut().is_forgotten(node);
                if self.members.is_member(node) && self.links.is_up(node) {
                    effects.push(Effect::MeetAgain(node));
                }
            }
            Replaced::Joins => self.save(Commit::default(), Some(Saving::Joining), effects),
            // What a former run may have said there, before it knew, it did not say: it knows what is decided a window below.
            Replaced::SilentFrom(end) => {
                self.slots.fall_silent(end);
                self.durable.fall_silent(end);
            }
            Replaced::Elsewhere => {}
        }
        self.members.tell_pool(self.frontier(), effects);
    }

    /// Forgets former stores that nobody needs any more. Whoever still speaks from one meets this node again, and is refused.
    fn settle_stores(&mut self, effects: &mut Vec<Effect>) {
        for Settled { node, former } in self.members.settle(self.frontier(), self.durable.log()) {
            former.iter().for_each(|store| self.durable.lineage_mut().forget(node, *store));
            if self.links.is_up(node) && former.contains(&self.members.linked(node)) {
                effects.push(Effect::MeetAgain(node));
            }
        }
    }

    fn answers_reads(&self) -> bool {
        self.members.answers_reads(self.frontier())
    }
}

/// How far this node knows the log, where reads ask for it.
fn view<'a>(slots: &Slots, members: &'a Members) -> View<'a> {
    let frontier = slots.frontier();
    View { frontier, stores: members.stores(), answers: members.answers_reads(frontier) }
}
