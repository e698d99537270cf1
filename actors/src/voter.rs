//! The voter actor: peers' messages and the pool's wishes come in; messages to peers, durable writes and decided slots go out. What
//! follows from what is the [part](crate::parts::voter)'s matter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::ids::NodeId;
use rabia_bank_messages::peer::{Hello, HelloRefused, RefusalReason};
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::consensus::agreement::{Agreement, Effect, Event, TICK};
use crate::consensus::handshake::Handshake;
use crate::failure::Failure;
use crate::mail::bank::{Admitted, Apply, BankInbox, Doubt, ReadAt};
use crate::mail::log::{LogInbox, Persist};
use crate::mail::node::{Failed, Stop};
use crate::mail::peer_link::{Break, LinkInbox, Links, Say, Standing};
use crate::mail::proposer::{Notices, ProposerInbox};
use crate::mail::snapshotter::{AboutSnapshot, Linked, LookUp, SendEntries, SendHash, SendStored, SnapshotterInbox};
use crate::mail::voter::{
    FromPeer, Installed, Introduce, LinkState, LookedUp, Meet, OtherHistory, OwnDigest, Persisted, Read, RefusedBy,
    Tell, VoterInbox,
};
use crate::metrics::Metrics;
use crate::parts::voter::{self, Call, Out, Warning, no_majority};

/// The answer to a hello.
type Met = Result<Hello, HelloRefused>;

/// Carries out what the part says.
pub struct Voter {
    part: voter::Voter,
    /// The zero of the part's clock.
    started: Instant,
    calls: Call,
    /// Who waits for the answer to a hello.
    meeting: BTreeMap<Call, oneshot::Sender<Met>>,
    /// Empty, and kept for its room.
    outs: Vec<Out>,
    neighbours: VoterNeighbours,
}

/// The actors that the voter speaks to.
pub struct VoterNeighbours {
    /// Makes durable what the voter promises.
    pub log: LogInbox,
    /// Applies the slots that are decided.
    pub bank: BankInbox,
    /// Learns what is proposed and decided.
    pub proposer: ProposerInbox,
    /// Serves peers that are behind.
    pub snapshotter: SnapshotterInbox,
    /// The other members, one link each.
    pub links: Links,
    /// Stops the node where it disagrees with the majority.
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
        let part = voter::Voter::new(core, first, handshake, metrics);
        Voter { part, started, calls: 0, meeting: BTreeMap::new(), outs: Vec::new(), neighbours }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut voter::Voter, Duration, &mut Vec<Out>) -> T) -> T {
        let now = Instant::now();
        let mut outs = std::mem::take(&mut self.outs);
        let answer = act(&mut self.part, now.saturating_duration_since(self.started), &mut outs);
        self.perform(now, &mut outs);
        self.outs = outs;
        answer
    }

    fn perform(&mut self, now: Instant, outs: &mut Vec<Out>) {
        let to = &self.neighbours;
        for out in outs.drain(..) {
            match out {
                Out::Say(peer, message) => to.links.say(peer, message),
                Out::SayAll(message) => {
                    to.links.iter().for_each(|(_, link)| link.say.do_send(Say(message.clone())));
                }
                Out::Persist(ticket, commit) => to.log.persist.do_send(Persist { ticket, commit }),
                Out::Apply(slot, batch) => to.bank.apply.do_send(Apply { slot, batch, decided: now }),
                Out::Notices(notices) => to.proposer.notices.do_send(Notices(notices)),
                Out::ReadAt { read, slot } => to.bank.read_at.do_send(ReadAt { read, slot }),
                Out::SendEntries { to: peer, from, decided } => {
                    to.snapshotter.send_entries.do_send(SendEntries { to: peer, from, decided });
                }
                Out::SendStored { to: peer, id } => to.snapshotter.send_stored.do_send(SendStored { to: peer, id }),
                Out::SendHash { to: peer, slot } => to.snapshotter.send_hash.do_send(SendHash { to: peer, slot }),
                Out::LookUp(slot) => to.snapshotter.look_up.do_send(LookUp(slot)),
                Out::AboutSnapshot(peer, message) => {
                    to.snapshotter.about_snapshot.do_send(AboutSnapshot(peer, message));
                }
                Out::Linked(peer, up) => to.snapshotter.linked.do_send(Linked { peer, up }),
                Out::Standing(peer, in_force) => {
                    to.tell_link(peer, |link| link.standing.do_send(Standing { in_force }))
                }
                Out::Break(peer, why) => to.tell_link(peer, |link| link.cut.do_send(Break(why))),
                Out::Doubt(begins) => {
                    warn_of_doubt(begins);
                    to.bank.doubt.do_send(Doubt(begins));
                }
                Out::Admitted => to.bank.admitted.do_send(Admitted),
                Out::Met(call, met) => {
                    if let Some(answer) = self.meeting.remove(&call) {
                        // Who asked may be gone.
                        let _ = answer.send(*met);
                    }
                }
                Out::Warn(warning) => warn_of(&warning),
                Out::Stop(end) => to.node.do_send(Failed(Failure::Refused(end.to_string()))),
            }
        }
    }
}

impl VoterNeighbours {
    fn tell_link(&self, peer: NodeId, tell: impl FnOnce(&LinkInbox)) {
        if let Some(link) = self.links.to(peer) {
            tell(link);
        }
    }
}

fn warn_of_doubt(begins: bool) {
    if begins {
        warn!(
            "a member has another log or another state than this node: no client is answered until a majority has this node's"
        );
    } else {
        warn!("a majority has this node's log and state: clients are answered again");
    }
}

fn warn_of(warning: &Warning) {
    match warning {
        Warning::Refused(peer, why, refused) => error!(%peer, why, refused, "the link to a peer is refused"),
        Warning::NotTaken(peer, why) => warn!(%peer, why, "a peer said what is not taken"),
        Warning::UnknownStore(peer, store) => {
            warn!(%peer, %store, "this node's log does not know the peer's store: it is told only what is decided");
        }
        Warning::Impersonated(peer, store) => {
            warn!(%peer, %store, "somebody else spoke in the name of the peer's store: what it said is forgotten");
        }
        Warning::NoMajority(what) => {
            error!("{}. It answers no client, and waits for a majority", no_majority(what));
        }
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
        self.act(voter::Voter::start);
        ctx.run_interval(TICK, |voter, _| voter.act(voter::Voter::tick));
    }
}

impl Handler<Tell> for Voter {
    type Result = ();

    fn handle(&mut self, Tell(events): Tell, _: &mut Self::Context) {
        self.act(|part, now, out| part.tell(now, events, out));
    }
}

impl Handler<FromPeer> for Voter {
    type Result = ();

    fn handle(&mut self, FromPeer { peer, messages }: FromPeer, _: &mut Self::Context) {
        self.act(|part, now, out| part.from_peer(now, peer, messages, out));
    }
}

impl Handler<LinkState> for Voter {
    type Result = ();

    fn handle(&mut self, LinkState { peer, up }: LinkState, _: &mut Self::Context) {
        self.act(|part, now, out| match up {
            Some(link) => part.link_up(now, peer, link, out),
            None => part.link_down(now, peer, out),
        });
    }
}

impl Handler<OwnDigest> for Voter {
    type Result = ();

    fn handle(&mut self, OwnDigest { slot, digest }: OwnDigest, _: &mut Self::Context) {
        self.act(|part, now, out| part.tell(now, [Event::OwnDigest { slot, digest }], out));
    }
}

impl Handler<LookedUp> for Voter {
    type Result = ();

    fn handle(&mut self, LookedUp { slot, hash }: LookedUp, _: &mut Self::Context) {
        self.act(|part, now, out| part.tell(now, [Event::LookedUp { slot, hash }], out));
    }
}

impl Handler<OtherHistory> for Voter {
    type Result = ();

    fn handle(&mut self, OtherHistory { peer, slot }: OtherHistory, _: &mut Self::Context) {
        self.act(|part, now, out| part.tell(now, [Event::OtherHistory(peer, slot)], out));
    }
}

impl Handler<Read> for Voter {
    type Result = ();

    fn handle(&mut self, Read(read): Read, _: &mut Self::Context) {
        self.act(|part, now, out| part.tell(now, [Event::Read(read)], out));
    }
}

impl Handler<Stop> for Voter {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.act(voter::Voter::write_all);
        ctx.stop();
    }
}

impl Handler<Persisted> for Voter {
    type Result = ();

    fn handle(&mut self, Persisted(ticket): Persisted, _: &mut Self::Context) {
        self.act(|part, now, out| part.persisted(now, ticket, out));
    }
}

impl Handler<Installed> for Voter {
    type Result = ();

    fn handle(
        &mut self,
        Installed { slot, hash, replacements, decisions, hand_over }: Installed,
        _: &mut Self::Context,
    ) {
        self.act(|part, now, out| {
            if part.installed(now, (slot, hash), decisions, replacements, out) {
                hand_over();
            }
        });
    }
}

impl Handler<Introduce> for Voter {
    type Result = MessageResult<Introduce>;

    fn handle(&mut self, Introduce(to): Introduce, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.part.introduce(to))
    }
}

impl Handler<Meet> for Voter {
    type Result = ResponseFuture<Met>;

    fn handle(&mut self, Meet(hello): Meet, _: &mut Self::Context) -> Self::Result {
        let (answer, met) = oneshot::channel();
        self.calls += 1;
        let call = self.calls;
        self.meeting.insert(call, answer);
        self.act(|part, now, out| part.meet(now, call, &hello, out));
        Box::pin(async move {
            // A write that fails stops the node, and this link with it.
            let stopping = |_| {
                let message = "this node is stopping".into();
                Err(HelloRefused { reason: RefusalReason::NoHello, message, evidence: None })
            };
            met.await.unwrap_or_else(stopping)
        })
    }
}

impl Handler<RefusedBy> for Voter {
    type Result = ();

    fn handle(&mut self, RefusedBy { peer, evidence }: RefusedBy, _: &mut Self::Context) {
        self.act(|part, _, out| part.refused_by(peer, evidence, out));
    }
}
