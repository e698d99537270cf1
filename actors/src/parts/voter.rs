//! What follows for the other parts from what the agreement core wants, and who may be linked to this node.
//!
//! - **Effects.** Every effect of the core becomes an [`Out`], in the core's order. The order matters: a message that rests on a
//!   durable write comes out only once [`Voter::persisted`] has reported that write.
//! - **Handshakes.** A peer that introduces itself is checked ([`Handshake`]). What has to be remembered of it is written, and the
//!   peer is answered once that is durable (rule 12). A node that learns in a handshake that its own store is an old copy, or was
//!   replaced, stops.
//! - **Links.** When a link comes up, the two logs are compared before anything else of the peer is taken, and the link learns whether
//!   the peer's store speaks for it. Once links to a quorum have worked, clients may be answered. A peer that says what can't be
//!   loses its link, together with the rest of that frame; this is told once in ten seconds.
//!
//! What is agreed on, said again, asked for or doubted is the core's business. Who dials whom, and what becomes of sockets, is not
//! decided here either.

use std::sync::Arc;
use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::genesis::{Replacement, Replacements};
use rabia_bank_messages::ids::{BatchId, Digest, MAX_NODES, NodeId, Slot, StoreId};
use rabia_bank_messages::lineage::{Memory, Run};
use rabia_bank_messages::peer::{Evidence, Hello, HelloRefused, PeerMessage, RefusalReason};
use rabia_bank_messages::promise::Commit;
use rabia_bank_messages::sabotage::{Rule, is_broken};

use crate::consensus::agreement::{Agreement, Effect, Event, Notice, Ticket};
use crate::consensus::handshake::{Handshake, Met, is_old_copy, memory_of};
use crate::metrics::Metrics;
use crate::rate::Rate;
use crate::snapshot::Decision;
use crate::stages::SlotWatch;

/// What is wrong with a peer is told once in this time.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(10);

/// Why a link is broken where the store at its other end has become a member's, or is none any more.
pub const MEET_AGAIN: &str = "the peer's store has become a member's, or is none any more: the two nodes meet again";

/// Whoever waits for the answer to a hello; chosen by the driver.
pub type Call = u64;

/// A link that works.
#[derive(Clone, Copy, Debug)]
pub struct LinkUp {
    /// The store that the peer speaks from.
    pub store: StoreId,
    /// Whether this node called.
    pub dialled: bool,
    /// The peer knows all decisions up to this slot …
    pub decided: Slot,
    /// … and this is the hash of its log there.
    pub log_hash: Digest,
}

impl LinkUp {
    /// The link to a peer that introduced itself like this. `dialled`: this node called.
    pub fn of(hello: &Hello, dialled: bool) -> LinkUp {
        LinkUp { store: hello.store, dialled, decided: hello.decided, log_hash: hello.log_hash }
    }
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Out {
    /// Say this to a peer.
    Say(NodeId, PeerMessage),
    /// Say this to all peers.
    SayAll(PeerMessage),
    /// Make this durable, and report it with [`Voter::persisted`].
    Persist(Ticket, Commit),
    /// Apply the next slot.
    Apply(Slot, Option<(BatchId, Payload)>),
    /// What the core tells the pool, in this order.
    Notices(Vec<Notice>),
    /// All reads up to `read` may be answered once `slot` is applied.
    ReadAt {
        /// The highest number of the reads.
        read: u64,
        /// The slot to wait for.
        slot: Slot,
    },
    /// Send this peer decided slots from the log on disk.
    SendEntries {
        /// The peer that lacks them.
        to: NodeId,
        /// The first slot that it lacks.
        from: Slot,
        /// This node knows all decisions up to here.
        decided: Slot,
    },
    /// Send this peer the payload of a batch, if the log on disk has it.
    SendStored {
        /// The peer that lacks it.
        to: NodeId,
        /// The batch whose payload it is.
        id: BatchId,
    },
    /// Tell this peer the hash of the log up to a slot, if it is on disk.
    SendHash {
        /// The peer that compares it with its own.
        to: NodeId,
        /// The last slot that the hash covers.
        slot: Slot,
    },
    /// Look on disk for the hash of the log up to this slot, and report it with [`Event::LookedUp`].
    LookUp(Slot),
    /// A peer said this about snapshots.
    AboutSnapshot(NodeId, PeerMessage),
    /// The link to a peer works, or broke.
    Linked(NodeId, bool),
    /// Whether the store at the other end of a link speaks for the peer.
    Standing(NodeId, bool),
    /// Break the link to a peer, for this reason.
    Break(NodeId, String),
    /// No client is answered from now on; with false: they are again.
    Doubt(bool),
    /// Links to a quorum have worked: this store is no old copy that anybody knows of.
    Admitted,
    /// The answer to a hello.
    Met(Call, Box<Result<Hello, HelloRefused>>),
    /// A person may want to know this.
    Warn(Warning),
    /// The node stops, and is not to be started again before a person has looked at it.
    Stop(End),
}

/// What a person may want to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// The link to a peer is refused for what the peer says. So many were, to all peers.
    Refused(NodeId, String, u64),
    /// A peer said what is not taken.
    NotTaken(NodeId, String),
    /// This node's log does not know the store that a peer speaks from.
    UnknownStore(NodeId, StoreId),
    /// Somebody else spoke in the name of a peer's store.
    Impersonated(NodeId, StoreId),
    /// No majority has this node's log and state, by what was compared so far.
    NoMajority(String),
}

/// Why a node stops for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Its store is an old copy: a peer remembers more of it than it knows itself in its present run.
    OldCopy(NodeId, Memory, Run),
    /// Its store was replaced.
    Replaced(Replacement),
    /// It is certain that no majority has its log and state: what was compared.
    Split(String),
}

impl std::fmt::Display for End {
    /// What happened, and what to do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::OldCopy(peer, memory, run) => f.write_str(&is_old_copy(*peer, memory, *run)),
            End::Replaced(Replacement { slot, store, .. }) => write!(
                f,
                "the store of this node was replaced: in slot {slot} its member got the store {store} instead. The node stops, it has \
                 no part in the cluster any more; its files may be deleted"
            ),
            End::Split(what) => write!(
                f,
                "{}. The node stops and keeps its files as they are for study; do not start it again before it is known why: was an \
                 old copy of some node's files put back, or did a disk or memory fail?",
                no_majority(what)
            ),
        }
    }
}

/// What is said where no majority has this node's log and state.
pub fn no_majority(what: &str) -> String {
    format!("the members' logs or states differ, and no majority has this node's: {what}")
}

/// A peer that is answered when what is remembered of it is durable.
#[derive(Debug)]
struct Meeting {
    durable: Ticket,
    call: Call,
    peer: NodeId,
    store: StoreId,
}

/// The agreement core, and what this node has to do with its peers.
#[derive(Debug)]
pub struct Voter {
    core: Agreement,
    handshake: Handshake,
    meeting: Vec<Meeting>,
    /// Links to a quorum have worked once.
    admitted: bool,
    /// Of each peer, when it was last told what is wrong with it.
    complaints: [Rate; MAX_NODES],
    watch: SlotWatch,
    metrics: Arc<Metrics>,
    /// What the core wants that is not passed on yet: empty between calls but before [`Voter::start`].
    effects: Vec<Effect>,
}

impl Voter {
    /// `first` is what making the core led to. Times are those since the node's start.
    pub fn new(core: Agreement, first: Vec<Effect>, handshake: Handshake, metrics: Arc<Metrics>) -> Voter {
        Voter {
            core,
            handshake,
            meeting: Vec::new(),
            admitted: false,
            complaints: std::array::from_fn(|_| Rate::new(1, COMPLAIN_AGAIN, Duration::ZERO)),
            watch: SlotWatch::default(),
            metrics,
            effects: first,
        }
    }

    /// The agreement core, to look at only.
    pub fn core(&self) -> &Agreement {
        &self.core
    }

    /// To be called once, before anything else.
    pub fn start(&mut self, now: Duration, out: &mut Vec<Out>) {
        self.act(now, out, |_, _| ());
        self.admit(out);
    }

    /// To be called every [`TICK`](crate::consensus::agreement::TICK).
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Out>) {
        self.tell(now, [Event::Tick], out);
        // A node whose store was replaced stops when it has said all that it may say.
        if let Some(by) = self.core.retired() {
            out.push(Out::Stop(End::Replaced(by)));
        }
        let (phases, open) = (self.core.counters().phases, self.core.open_slots() as u64);
        self.metrics.note_slots(phases, open, self.core.known_elsewhere());
    }

    /// Something happened that is the core's business alone: in the pool, the bank or the snapshotter.
    pub fn tell(&mut self, now: Duration, events: impl IntoIterator<Item = Event>, out: &mut Vec<Out>) {
        self.act(now, out, |core, effects| events.into_iter().for_each(|event| core.handle(now, event, effects)));
    }

    /// All writes up to this ticket are durable.
    pub fn persisted(&mut self, now: Duration, ticket: Ticket, out: &mut Vec<Out>) {
        self.tell(now, [Event::Saved(ticket)], out);
        let durable: Vec<Meeting> = self.meeting.extract_if(.., |meeting| meeting.durable <= ticket).collect();
        durable.iter().for_each(|Meeting { call, peer, store, .. }| self.introduce_to(*call, *peer, *store, out));
    }

    /// Has decisions written that were to be written with the next promise: the node stops.
    pub fn write_all(&mut self, now: Duration, out: &mut Vec<Out>) {
        self.act(now, out, Agreement::write_all);
    }

    /// The books on disk stand after this slot by a snapshot that came from a peer, with this hash of the log up to it, the decisions
    /// before it that owners of coming slots are read from, and the replacements of stores. True if this node goes on from there; then
    /// the bank has to do so before it hears of anything that follows. The slots may have come one by one meanwhile.
    pub fn installed(
        &mut self,
        now: Duration,
        (slot, hash): (Slot, Digest),
        decisions: Vec<Decision>,
        replacements: Replacements,
        out: &mut Vec<Out>,
    ) -> bool {
        let goes_on = slot > self.core.frontier();
        if goes_on {
            self.tell(now, [Event::Installed { slot, hash, decisions, replacements }], out);
        }
        goes_on
    }

    // ----- links -----

    /// A peer said this, in this order, in one frame.
    pub fn from_peer(
        &mut self,
        now: Duration,
        peer: NodeId,
        messages: impl IntoIterator<Item = PeerMessage>,
        out: &mut Vec<Out>,
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        for message in messages {
            let looked = effects.len();
            match message {
                PeerMessage::GetSnapshot { .. } | PeerMessage::SnapshotRows { .. } => {
                    if self.core.takes(peer, &message, &mut effects) {
                        out.push(Out::AboutSnapshot(peer, message));
                    }
                }
                message => self.core.handle(now, Event::Received(peer, message), &mut effects),
            }
            // The link is on its way to its end: the rest of the frame is of no use.
            let refuses = |effect: &Effect| matches!(effect, Effect::Refuse(refused, _) if *refused == peer);
            if effects[looked..].iter().any(refuses) {
                break;
            }
        }
        self.pass_on(now, &mut effects, out);
        self.effects = effects;
        self.admit(out);
    }

    /// The link to a peer works.
    pub fn link_up(&mut self, now: Duration, peer: NodeId, link: LinkUp, out: &mut Vec<Out>) {
        let LinkUp { store, dialled, decided, log_hash } = link;
        self.metrics.note_link(peer, true);
        out.push(Out::Linked(peer, true));
        if self.core.is_unmet(peer, store) {
            // It was a stranger when they met, a moment ago.
            return out.push(Out::Break(peer, MEET_AGAIN.into()));
        }
        self.core.note_dialled(peer, dialled);
        let said = PeerMessage::LogHash { slot: decided, hash: log_hash };
        let mut effects = std::mem::take(&mut self.effects);
        for event in [Event::LinkUp(peer, store), Event::Received(peer, said)] {
            self.core.handle(now, event, &mut effects);
        }
        let in_force = self.core.is_in_force(peer);
        if !in_force {
            out.push(Out::Warn(Warning::UnknownStore(peer, store)));
        }
        // The link is told before anything is said on it.
        out.push(Out::Standing(peer, in_force));
        self.pass_on(now, &mut effects, out);
        self.effects = effects;
        self.admit(out);
    }

    /// The link to a peer broke.
    pub fn link_down(&mut self, now: Duration, peer: NodeId, out: &mut Vec<Out>) {
        self.metrics.note_link(peer, false);
        out.push(Out::Linked(peer, false));
        self.tell(now, [Event::LinkDown(peer)], out);
    }

    /// An old copy of a store answers nobody before it has met a quorum that lets it speak.
    fn admit(&mut self, out: &mut Vec<Out>) {
        if !self.admitted && self.core.meets_quorum() {
            self.admitted = true;
            out.push(Out::Admitted);
        }
    }

    // ----- handshakes -----

    /// What this node says of itself to a peer that it calls.
    pub fn introduce(&self, to: NodeId) -> Hello {
        self.handshake.introduce(to, self.core.stores().current(to), &self.core)
    }

    /// What this node makes of a peer that says this of itself.
    ///
    /// # Errors
    /// Why it may not speak to this node.
    pub fn check(&self, hello: &Hello) -> Result<Met, HelloRefused> {
        self.handshake.check(hello, &self.core)
    }

    /// A peer said this of itself. Answered with [`Out::Met`], once what has to be remembered of the peer is durable.
    pub fn meet(&mut self, now: Duration, call: Call, hello: &Hello, out: &mut Vec<Out>) {
        let (peer, store) = (hello.node, hello.store);
        match self.check(hello) {
            Ok(Met::Member) => {}
            Ok(Met::Disputing) => {
                out.push(Out::Warn(Warning::Impersonated(peer, store)));
                self.core.forget_disputed(peer, store);
            }
            Ok(Met::Stranger) => return self.introduce_to(call, peer, store, out),
            Err(refused) => return out.push(Out::Met(call, Box::new(Err(refused)))),
        }
        if let Some(memory) = hello.remembers.filter(|memory| self.core.lineage().is_old_copy_by(memory)) {
            let end = self.old_copy(peer, memory);
            let refused = HelloRefused { reason: RefusalReason::OldCopy, message: end.to_string(), evidence: None };
            return out.extend([Out::Stop(end), Out::Met(call, Box::new(Err(refused)))]);
        }
        if self.core.stores().current(peer) == store {
            self.core.is_told(peer, hello.remembers);
        }
        let mut durable = None;
        self.act(now, out, |core, effects| durable = core.remember_peer(peer, memory_of(hello), effects));
        match durable.filter(|_| !is_broken(Rule::MetDurably)) {
            Some(durable) => self.meeting.push(Meeting { durable, call, peer, store }),
            None => self.introduce_to(call, peer, store, out),
        }
    }

    fn introduce_to(&self, call: Call, peer: NodeId, store: StoreId, out: &mut Vec<Out>) {
        let hello = self.handshake.introduce(peer, store, &self.core);
        out.push(Out::Met(call, Box::new(Ok(hello))));
    }

    /// A peer refuses this node. What it shows is believed as far as this node finds it in its own store.
    pub fn refused_by(&mut self, peer: NodeId, evidence: Option<Evidence>, out: &mut Vec<Out>) {
        match evidence {
            Some(Evidence::OldCopy(memory)) if self.core.lineage().is_old_copy_by(&memory) => {
                out.push(Out::Stop(self.old_copy(peer, memory)));
            }
            Some(Evidence::OldCopy(memory)) => self.core.is_told(peer, Some(memory)),
            Some(Evidence::Replaced(slot)) => {
                let by = self.core.replaced_by().filter(|by| by.slot == slot);
                out.extend(by.map(|by| Out::Stop(End::Replaced(by))));
            }
            None => {}
        }
    }

    fn old_copy(&self, peer: NodeId, memory: Memory) -> End {
        End::OldCopy(peer, memory, self.core.lineage().run())
    }

    // ----- effects -----

    fn act(&mut self, now: Duration, out: &mut Vec<Out>, act: impl FnOnce(&mut Agreement, &mut Vec<Effect>)) {
        let mut effects = std::mem::take(&mut self.effects);
        act(&mut self.core, &mut effects);
        self.pass_on(now, &mut effects, out);
        self.effects = effects;
    }

    fn pass_on(&mut self, now: Duration, effects: &mut Vec<Effect>, out: &mut Vec<Out>) {
        let mut notices = Vec::new();
        for effect in effects.drain(..) {
            self.watch.watch(now, &effect, &self.metrics.stages);
            let wanted = match effect {
                Effect::Send(peer, message) => Out::Say(peer, message),
                Effect::Broadcast(message) => Out::SayAll(message),
                Effect::Save(ticket, commit) => Out::Persist(ticket, commit),
                Effect::Deliver(slot, batch) => Out::Apply(slot, batch),
                Effect::Pool(notice) => {
                    notices.push(notice);
                    continue;
                }
                Effect::ReadAt { read, slot } => Out::ReadAt { read, slot },
                Effect::SendEntries { to, from } => Out::SendEntries { to, from, decided: self.core.frontier() },
                Effect::SendStored { to, id } => Out::SendStored { to, id },
                Effect::SendHash { to, slot } => Out::SendHash { to, slot },
                Effect::LookUp(slot) => Out::LookUp(slot),
                Effect::GetSnapshot { from, log_from } => Out::AboutSnapshot(from, PeerMessage::Compacted { log_from }),
                Effect::Doubt(begins) => Out::Doubt(begins),
                Effect::Split { what, certain: true } => Out::Stop(End::Split(what)),
                Effect::Split { what, certain: false } => Out::Warn(Warning::NoMajority(what)),
                Effect::MeetAgain(peer) => Out::Break(peer, MEET_AGAIN.into()),
                Effect::Refuse(peer, why) => {
                    if self.complaints[peer.index()].count(now).is_some() {
                        let refused = self.core.counters().refused;
                        out.push(Out::Warn(Warning::Refused(peer, why.clone(), refused)));
                    }
                    Out::Break(peer, why)
                }
                Effect::Warn(peer, why) => {
                    if self.complaints[peer.index()].count(now).is_none() {
                        continue;
                    }
                    Out::Warn(Warning::NotTaken(peer, why))
                }
            };
            out.push(wanted);
        }
        if !notices.is_empty() {
            out.push(Out::Notices(notices));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rabia_bank_messages::genesis::Genesis;
    use rabia_bank_messages::ids::{ClusterId, RunId};
    use rabia_bank_messages::lineage::Secret;
    use rabia_bank_messages::promise::{Began, Recovered};

    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn store(number: u8) -> StoreId {
        StoreId([number; 16])
    }

    /// The voter of a node of three, in its first run.
    fn voter(number: u8) -> Voter {
        let genesis = Genesis::new(ClusterId([1; 16]), (1..=3).map(store).collect());
        let mut recovered = Recovered::at_first_start(store(number), Secret([number; 32]));
        recovered.runs.push(Began { start: 1, run: RunId([number; 16]), promises: 0 });
        let mut first = Vec::new();
        let core = Agreement::new(genesis.clone(), node(number), &recovered, &Replacements::default(), &mut first);
        let handshake = Handshake::new(genesis, node(number), store(number));
        let mut voter = Voter::new(core, first, handshake, Arc::new(Metrics::new(Instant::now(), 0, 0)));
        voter.start(Duration::ZERO, &mut Vec::new());
        voter
    }

    fn hello(from: u8) -> Hello {
        voter(from).introduce(node(1))
    }

    fn link_up(voter: &mut Voter, peer: u8) -> Vec<Out> {
        let mut out = Vec::new();
        voter.meet(NOW, 1, &hello(peer), &mut out);
        out.clear();
        voter.link_up(NOW, node(peer), LinkUp::of(&hello(peer), true), &mut out);
        out
    }

    #[test]
    fn a_peer_is_answered_when_what_is_remembered_of_it_is_durable() {
        let (mut voter, mut out) = (voter(1), Vec::new());
        voter.meet(NOW, 7, &hello(2), &mut out);
        let [Out::Persist(ticket, commit)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(commit.peers.len(), 1);
        let ticket = *ticket;
        out.clear();
        voter.persisted(NOW, ticket - 1, &mut out);
        assert!(!out.iter().any(|out| matches!(out, Out::Met(..))), "another write is: {out:?}");
        voter.persisted(NOW, ticket, &mut out);
        let met: Vec<&Out> = out.iter().filter(|out| matches!(out, Out::Met(..))).collect();
        assert!(matches!(met[..], [Out::Met(7, answer)] if answer.is_ok()), "{out:?}");
    }

    #[test]
    fn who_may_not_speak_is_told_so_at_once() {
        let (mut voter, mut out) = (voter(1), Vec::new());
        voter.meet(NOW, 7, &Hello { cluster: ClusterId([9; 16]), ..hello(2) }, &mut out);
        let [Out::Met(7, answer)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(answer.as_ref().as_ref().err().map(|refused| refused.reason), Some(RefusalReason::Cluster));
    }

    #[test]
    fn a_link_learns_whose_it_is_before_anything_is_said_on_it() {
        let mut voter = voter(1);
        let out = link_up(&mut voter, 2);
        let place = |is: fn(&Out) -> bool| out.iter().position(is);
        let standing = place(|out| matches!(out, Out::Standing(_, true)));
        assert!(standing.is_some() && standing < place(|out| matches!(out, Out::Say(..))), "{out:?}");
        assert!(matches!(out[0], Out::Linked(_, true)) && matches!(out.last(), Some(Out::Admitted)), "{out:?}");
    }

    #[test]
    fn who_says_what_can_not_be_loses_its_link_and_is_complained_of_once_in_a_while() {
        let mut voter = voter(1);
        link_up(&mut voter, 2);
        let frame = || [PeerMessage::Decide { slot: 0, value: None }, PeerMessage::CatchUp { from: 1 }];
        for (seconds, complains) in [(0, true), (9, false), (10, true)] {
            let mut out = Vec::new();
            voter.from_peer(NOW + Duration::from_secs(seconds), node(2), frame(), &mut out);
            let complained = out.iter().any(|out| matches!(out, Out::Warn(Warning::Refused(..))));
            assert_eq!(complained, complains, "{out:?}");
            assert!(matches!(out.last(), Some(Out::Break(..))), "the rest is not looked at: {out:?}");
        }
    }
}
