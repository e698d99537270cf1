//! The voter actor: drives the pure agreement core. Peers' messages and the pool's wishes come in; messages to peers,
//! durable writes and decided slots go out, in the order in which the core gave them.
//!
//! It also checks the handshakes of peers, against what this node has heard and promised.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::genesis::Replacement;
use rabia_bank_messages::ids::{MAX_NODES, NodeId, Slot, StoreId};
use rabia_bank_messages::lineage::Memory;
use rabia_bank_messages::peer::{Evidence, Hello, HelloRefused, PeerMessage, RefusalReason};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::consensus::agreement::{Agreement, Effect, Event, TICK, Ticket};
use crate::consensus::handshake::{Handshake, Met, is_old_copy, memory_of};
use crate::failure::Failure;
use crate::mail::bank::{Admitted, Apply, BankInbox, Doubt, Install, ReadAt};
use crate::mail::log::{LogInbox, Persist};
use crate::mail::node::{Failed, Stop};
use crate::mail::peer_link::{Break, Links, MEET_AGAIN, Say, Standing};
use crate::mail::proposer::{Notices, ProposerInbox};
use crate::mail::snapshotter::{AboutSnapshot, Linked, LookUp, SendEntries, SendHash, SendStored, SnapshotterInbox};
use crate::mail::voter::{
    FromPeer, Installed, Introduce, LinkState, LinkUp, LookedUp, Meet, OtherHistory, OwnDigest, Persisted, Read,
    RefusedBy, Tell, VoterInbox,
};
use crate::metrics::Metrics;
use crate::rate::Rate;
use crate::stages::SlotWatch;

/// What is wrong with a peer is said once in this time.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(10);

/// Drives the agreement core.
pub struct Voter {
    core: Agreement,
    /// What making the core led to; performed when the actor starts.
    first: Vec<Effect>,
    handshake: Handshake,
    started: Instant,
    watch: SlotWatch,
    /// Answers to [`Meet`] that wait for a durable write, to whom, with which store.
    meeting: Vec<(Ticket, NodeId, StoreId, oneshot::Sender<Hello>)>,
    /// Links to a quorum have worked once.
    admitted: bool,
    /// Of each peer, when it was last said what is wrong with it.
    complaints: [Rate; MAX_NODES],
    metrics: Arc<Metrics>,
    neighbours: VoterNeighbours,
}

/// The actors that the voter speaks to.
pub struct VoterNeighbours {
    /// Writes.
    pub log: LogInbox,
    /// Applies.
    pub bank: BankInbox,
    /// Proposes.
    pub proposer: ProposerInbox,
    /// Serves peers that are behind.
    pub snapshotter: SnapshotterInbox,
    /// One a peer.
    pub links: Links,
    /// Stops the node.
    pub node: Recipient<Failed>,
}

impl Voter {
    /// The voter of a node. `first` are the effects of the core's construction; `started` is the zero of its clock.
    pub fn new(
        core: Agreement,
        first: Vec<Effect>,
        handshake: Handshake,
        started: Instant,
        metrics: Arc<Metrics>,
        neighbours: VoterNeighbours,
    ) -> Voter {
        Voter {
            core,
            first,
            handshake,
            started,
            watch: SlotWatch::default(),
            meeting: Vec::new(),
            complaints: std::array::from_fn(|_| Rate::new(1, COMPLAIN_AGAIN, started)),
            admitted: false,
            metrics,
            neighbours,
        }
    }

    fn handle_events(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut effects = Vec::new();
        for event in events {
            self.core.handle(self.started.elapsed(), event, &mut effects);
        }
        self.perform(effects);
    }

    /// Has decisions written that were to be written with the next promise.
    fn write_all(&mut self) {
        let mut effects = Vec::new();
        self.core.write_all(&mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut notices = Vec::new();
        let now = Instant::now();
        let to = &self.neighbours;
        for effect in effects {
            self.watch.watch(now - self.started, &effect, &self.metrics.stages);
            match effect {
                Effect::Send(peer, message) => to.links.say(peer, message),
                Effect::Broadcast(message) => {
                    for (_, link) in to.links.iter() {
                        link.say.do_send(Say(message.clone()));
                    }
                }
                Effect::Refuse(peer, why) => {
                    if self.complaints[peer.index()].count(now).is_some() {
                        let refused = self.core.counters().refused;
                        error!(%peer, why, refused, "the link to a peer is refused");
                    }
                    self.break_link(peer, why);
                }
                Effect::Warn(peer, why) => {
                    if self.complaints[peer.index()].count(now).is_some() {
                        warn!(%peer, why, "a peer said what is not taken");
                    }
                }
                Effect::Save(ticket, commit) => to.log.persist.do_send(Persist { ticket, commit }),
                Effect::Deliver(slot, batch) => to.bank.apply.do_send(Apply { slot, batch, decided: now }),
                Effect::Pool(notice) => notices.push(notice),
                Effect::ReadAt { read, slot } => to.bank.read_at.do_send(ReadAt { read, slot }),
                Effect::SendEntries { to: peer, from } => {
                    let decided = self.core.frontier();
                    to.snapshotter.send_entries.do_send(SendEntries { to: peer, from, decided });
                }
                Effect::SendStored { to: peer, id } => {
                    to.snapshotter.send_stored.do_send(SendStored { to: peer, id });
                }
                Effect::SendHash { to: peer, slot } => {
                    to.snapshotter.send_hash.do_send(SendHash { to: peer, slot });
                }
                Effect::LookUp(slot) => to.snapshotter.look_up.do_send(LookUp(slot)),
                Effect::GetSnapshot { from, log_from } => {
                    let compacted = PeerMessage::Compacted { log_from };
                    to.snapshotter.about_snapshot.do_send(AboutSnapshot(from, compacted));
                }
                Effect::Doubt(begins) => self.doubt(begins),
                Effect::Split { what, certain } => self.split(&what, certain),
                Effect::MeetAgain(peer) => self.meet_again(peer),
            }
        }
        if !notices.is_empty() {
            to.proposer.notices.do_send(Notices(notices));
        }
    }

    fn meet_again(&self, peer: NodeId) {
        self.break_link(peer, MEET_AGAIN.into());
    }

    fn break_link(&self, peer: NodeId, why: String) {
        if let Some(link) = self.neighbours.links.to(peer) {
            link.cut.do_send(Break(why));
        }
    }

    fn doubt(&self, begins: bool) {
        if begins {
            warn!(
                "a member has another log or another state than this node: no client is answered until a majority has this node's"
            );
        } else {
            warn!("a majority has this node's log and state: clients are answered again");
        }
        self.neighbours.bank.doubt.do_send(Doubt(begins));
    }

    fn split(&self, what: &str, certain: bool) {
        let message = format!("the members' logs or states differ, and no majority has this node's: {what}");
        if certain {
            self.neighbours.node.do_send(Failed(Failure::Refused(format!(
                "{message}. The node stops and keeps its files as they are for study; do not start it again before it is known \
                 why: was an old copy of some node's files put back, or did a disk or memory fail?"
            ))));
        } else {
            error!("{message}. It answers no client, and waits for a majority");
        }
    }

    /// An old copy of a store answers nobody before it has met a quorum that lets it speak.
    fn admit(&mut self) {
        if !self.admitted && self.core.meets_quorum() {
            self.admitted = true;
            self.neighbours.bank.admitted.do_send(Admitted);
        }
    }

    /// Rule 12: the node of an old copy stops. Answers what it says.
    fn stop_as_old_copy(&self, peer: NodeId, memory: &Memory) -> String {
        let message = is_old_copy(peer, memory, self.core.lineage().run());
        self.neighbours.node.do_send(Failed(Failure::Refused(message.clone())));
        message
    }

    /// A node whose store was replaced stops when it has said all that it may say.
    fn stop_if_retired(&self) {
        if let Some(Replacement { slot, store, .. }) = self.core.retired() {
            self.neighbours.node.do_send(Failed(Failure::Refused(replaced(slot, store))));
        }
    }

    fn show(&self) {
        let (phases, open) = (self.core.counters().phases, self.core.open_slots() as u64);
        self.metrics.note_slots(phases, open, self.core.known_elsewhere());
    }
}

impl From<&Addr<Voter>> for VoterInbox {
    fn from(voter: &Addr<Voter>) -> VoterInbox {
        VoterInbox {
            tell: voter.clone().recipient(),
            from_peer: voter.clone().recipient(),
            link_state: voter.clone().recipient(),
            introduce: voter.clone().recipient(),
            meet: voter.clone().recipient(),
            refused_by: voter.clone().recipient(),
            read: voter.clone().recipient(),
            own_digest: voter.clone().recipient(),
            looked_up: voter.clone().recipient(),
            other_history: voter.clone().recipient(),
            installed: voter.clone().recipient(),
        }
    }
}

impl Actor for Voter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let first = std::mem::take(&mut self.first);
        self.perform(first);
        self.admit();
        ctx.run_interval(TICK, |voter, _| {
            voter.handle_events([Event::Tick]);
            voter.stop_if_retired();
            voter.show();
        });
    }
}

impl Handler<Tell> for Voter {
    type Result = ();

    fn handle(&mut self, Tell(events): Tell, _: &mut Self::Context) {
        self.handle_events(events);
    }
}

impl Handler<FromPeer> for Voter {
    type Result = ();

    fn handle(&mut self, FromPeer { peer, messages }: FromPeer, _: &mut Self::Context) {
        let (now, mut effects) = (self.started.elapsed(), Vec::new());
        for message in messages {
            match message {
                PeerMessage::GetSnapshot { .. } | PeerMessage::SnapshotRows { .. } => {
                    if self.core.takes(peer, &message, &mut effects) {
                        self.neighbours.snapshotter.about_snapshot.do_send(AboutSnapshot(peer, message));
                    }
                }
                message => self.core.handle(now, Event::Received(peer, message), &mut effects),
            }
            // The link is on its way to its end: the rest of the frame is of no use.
            if effects.iter().any(|effect| matches!(effect, Effect::Refuse(refused, _) if *refused == peer)) {
                break;
            }
        }
        self.perform(effects);
        self.admit();
    }
}

impl Handler<LinkState> for Voter {
    type Result = ();

    fn handle(&mut self, LinkState { peer, up }: LinkState, _: &mut Self::Context) {
        self.metrics.note_link(peer, up.is_some());
        self.neighbours.snapshotter.linked.do_send(Linked { peer, up: up.is_some() });
        match up {
            Some(LinkUp { store, .. }) if self.core.is_unmet(peer, store) => {
                // It was a stranger when they met, a moment ago.
                self.meet_again(peer);
            }
            Some(LinkUp { store, dialled, decided, log_hash }) => {
                let mut effects = Vec::new();
                self.core.note_dialled(peer, dialled);
                let said = PeerMessage::LogHash { slot: decided, hash: log_hash };
                for event in [Event::LinkUp(peer, store), Event::Received(peer, said)] {
                    self.core.handle(self.started.elapsed(), event, &mut effects);
                }
                let in_force = self.core.is_in_force(peer);
                if !in_force {
                    warn!(%peer, %store, "this node's log does not know the peer's store: it is told only what is decided");
                }
                if let Some(link) = self.neighbours.links.to(peer) {
                    link.standing.do_send(Standing { in_force });
                }
                self.perform(effects);
                self.admit();
            }
            None => self.handle_events([Event::LinkDown(peer)]),
        }
    }
}

impl Handler<OwnDigest> for Voter {
    type Result = ();

    fn handle(&mut self, OwnDigest { slot, digest }: OwnDigest, _: &mut Self::Context) {
        self.handle_events([Event::OwnDigest { slot, digest }]);
    }
}

impl Handler<LookedUp> for Voter {
    type Result = ();

    fn handle(&mut self, LookedUp { slot, hash }: LookedUp, _: &mut Self::Context) {
        self.handle_events([Event::LookedUp { slot, hash }]);
    }
}

impl Handler<OtherHistory> for Voter {
    type Result = ();

    fn handle(&mut self, OtherHistory { peer, slot }: OtherHistory, _: &mut Self::Context) {
        self.handle_events([Event::OtherHistory(peer, slot)]);
    }
}

impl Handler<Read> for Voter {
    type Result = ();

    fn handle(&mut self, Read(read): Read, _: &mut Self::Context) {
        self.handle_events([Event::Read(read)]);
    }
}

impl Handler<Stop> for Voter {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.write_all();
        ctx.stop();
    }
}

impl Handler<Persisted> for Voter {
    type Result = ();

    fn handle(&mut self, Persisted(ticket): Persisted, _: &mut Self::Context) {
        self.handle_events([Event::Saved(ticket)]);
        for (_, peer, store, met) in self.meeting.extract_if(.., |(needed, ..)| *needed <= ticket) {
            // Who asked may be gone.
            let _ = met.send(self.handshake.introduce(peer, store, &self.core));
        }
    }
}

impl Handler<Installed> for Voter {
    type Result = ();

    fn handle(&mut self, Installed { slot, hash, ledger, decisions }: Installed, _: &mut Self::Context) {
        // The slots may have come one by one meanwhile.
        if slot > self.core.frontier() {
            let replacements = ledger.replacements().clone();
            self.neighbours.bank.install.do_send(Install { ledger, hash, decisions: decisions.clone() });
            self.handle_events([Event::Installed { slot, hash, decisions, replacements }]);
        }
    }
}

impl Handler<Introduce> for Voter {
    type Result = MessageResult<Introduce>;

    fn handle(&mut self, Introduce(to): Introduce, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.handshake.introduce(to, self.core.stores().current(to), &self.core))
    }
}

impl Handler<Meet> for Voter {
    type Result = ResponseFuture<Result<Hello, HelloRefused>>;

    fn handle(&mut self, Meet(hello): Meet, _: &mut Self::Context) -> Self::Result {
        let (peer, store) = (hello.node, hello.store);
        let met = self.handshake.check(&hello, &self.core);
        match met {
            Ok(Met::Member) => {}
            Ok(Met::Disputing) => {
                warn!(%peer, "somebody else spoke in the name of the peer's store: what it said is forgotten");
                self.core.forget_disputed(peer, store);
            }
            Ok(Met::Stranger) => {
                let answer = self.handshake.introduce(peer, store, &self.core);
                return Box::pin(async { Ok(answer) });
            }
            Err(refused) => return Box::pin(async { Err(refused) }),
        }
        if let Some(memory) = hello.remembers.filter(|memory| self.core.lineage().is_old_copy_by(memory)) {
            let message = self.stop_as_old_copy(peer, &memory);
            let refused = HelloRefused { reason: RefusalReason::OldCopy, message, evidence: None };
            return Box::pin(async { Err(refused) });
        }
        if self.core.stores().current(peer) == store {
            self.core.is_told(peer, hello.remembers);
        }
        let mut effects = Vec::new();
        let ticket = self.core.remember_peer(peer, memory_of(&hello), &mut effects);
        self.perform(effects);
        let Some(ticket) = ticket.filter(|_| !is_broken(Rule::MetDurably)) else {
            let answer = self.handshake.introduce(peer, store, &self.core);
            return Box::pin(async { Ok(answer) });
        };
        let (met, durable) = oneshot::channel();
        self.meeting.push((ticket, peer, store, met));
        Box::pin(async move {
            // A write that fails stops the node, and this link with it.
            durable.await.map_err(|_| HelloRefused {
                reason: RefusalReason::NoHello,
                message: "this node is stopping".into(),
                evidence: None,
            })
        })
    }
}

impl Handler<RefusedBy> for Voter {
    type Result = ();

    /// What a peer says is believed as far as this node finds it in its own store.
    fn handle(&mut self, RefusedBy { peer, evidence }: RefusedBy, _: &mut Self::Context) {
        match evidence {
            Some(Evidence::OldCopy(memory)) if self.core.lineage().is_old_copy_by(&memory) => {
                self.stop_as_old_copy(peer, &memory);
            }
            Some(Evidence::OldCopy(memory)) => self.core.is_told(peer, Some(memory)),
            Some(Evidence::Replaced(slot)) => {
                if let Some(by) = self.core.replaced_by().filter(|by| by.slot == slot) {
                    self.neighbours.node.do_send(Failed(Failure::Refused(replaced(by.slot, by.store))));
                }
            }
            None => {}
        }
    }
}

/// What a node says that stops because its store was replaced.
pub(crate) fn replaced(slot: Slot, by: StoreId) -> String {
    format!(
        "the store of this node was replaced: in slot {slot} its member got the store {by} instead. The node stops, it has no \
         part in the cluster any more; its files may be deleted"
    )
}
