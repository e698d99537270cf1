//! The proposer actor: requests come in from client sessions, proposals go out to the voter. What follows from what is the
//! [part](crate::parts::proposer)'s matter.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use rabia_bank_messages::ids::Millis;
use tracing::warn;

use crate::consensus::agreement::TICK;
use crate::consensus::pool::Now;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::mail::bank::{Abandon, BankInbox, Expect, MachineInbox};
use crate::mail::client_session::Waiter;
use crate::mail::node::Stop;
use crate::mail::peer_link::Links;
use crate::mail::proposer::{AcceptClock, AppliedTime, Can, Notices, ProposerInbox, Replace, Submit};
use crate::mail::voter::{Tell, VoterInbox};
use crate::metrics::Metrics;
use crate::parts::proposer::{self, Out, ProposerState};
use crate::parts::timekeeper::LOOK;
use crate::timekeeper::ClockFile;
use crate::uptime::since_boot;

/// Comes behind all that waits in the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
struct Pump;

/// Carries out what the part says.
pub struct Proposer<S: StateMachine = Bank> {
    part: proposer::Proposer<Waiter<S>>,
    /// The zero of the part's monotonic clock.
    started: Instant,
    /// A timer goes off at [`wakes_at`](proposer::Proposer::wakes_at).
    wakes: bool,
    clock: ClockFile,
    /// Empty, and kept for its room.
    outs: Vec<Out<Waiter<S>>>,
    neighbours: ProposerNeighbours<S>,
}

/// The actors that the proposer speaks to.
pub struct ProposerNeighbours<S: StateMachine = Bank> {
    /// Learns which batches nobody waits for any more.
    pub bank: BankInbox,
    /// Learns who waits for the requests of a batch.
    pub machine: MachineInbox<S>,
    /// Agrees on what is proposed.
    pub voter: VoterInbox,
    /// The other members, one link each.
    pub links: Links,
}

/// Nothing in it is pinned.
impl<S: StateMachine> Unpin for Proposer<S> {}

impl<S: StateMachine> Proposer<S> {
    /// The proposer of a node. `started` is the zero of the core's clock; what is known of time is kept in `clock`.
    pub fn new(
        state: ProposerState,
        clock: ClockFile,
        started: Instant,
        metrics: Arc<Metrics>,
        neighbours: ProposerNeighbours<S>,
    ) -> Proposer<S> {
        let part = proposer::Proposer::new(now(started), state, metrics);
        Proposer { part, started, wakes: false, clock, outs: Vec::new(), neighbours }
    }

    fn act<T>(
        &mut self,
        ctx: &mut Context<Self>,
        act: impl FnOnce(&mut proposer::Proposer<Waiter<S>>, Now, &mut Vec<Out<Waiter<S>>>) -> T,
    ) -> T {
        let mut outs = std::mem::take(&mut self.outs);
        let answer = act(&mut self.part, now(self.started), &mut outs);
        outs.drain(..).for_each(|out| self.perform(out, ctx));
        self.outs = outs;
        answer
    }

    fn perform(&mut self, out: Out<Waiter<S>>, ctx: &mut Context<Self>) {
        let to = &self.neighbours;
        match out {
            Out::Tell(events) => to.voter.tell.do_send(Tell(events)),
            Out::Expect(id, waiters) => to.machine.expect.do_send(Expect { id, waiters }),
            Out::Abandon(id) => to.bank.abandon.do_send(Abandon(id)),
            Out::Refuse(waiter, refusal) => waiter.refuse(refusal),
            Out::Say(peer, message) => to.links.say(peer, message),
            Out::Pump => ctx.notify(Pump),
            Out::Dropped(batches) => warn!(
                batches,
                "batches of other nodes that nobody proposed had to go: there were too many, or they waited for too long"
            ),
            Out::Clock(look) => self.clock.looked(&look),
        }
    }

    /// Asks the pool what to propose, and again when it has gathered long enough.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        let wakes_at = self.act(ctx, |part, now, out| {
            let wakes_at = part.wakes_at(now).map(|at| at.saturating_sub(now.elapsed));
            part.pump(now, out);
            wakes_at
        });
        if let Some(after) = wakes_at.filter(|_| !self.wakes) {
            self.wakes = true;
            ctx.run_later(after, |proposer, ctx| {
                proposer.wakes = false;
                proposer.act(ctx, |part, _, out| part.wake(out));
            });
        }
    }
}

/// Both clocks of a node that started then.
fn now(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since: Duration| since.as_millis() as u64);
    Now { elapsed: started.elapsed(), wall }
}

impl<S: StateMachine> From<&Addr<Proposer<S>>> for ProposerInbox {
    fn from(proposer: &Addr<Proposer<S>>) -> ProposerInbox {
        ProposerInbox {
            replace: proposer.clone().recipient(),
            can: proposer.clone().recipient(),
            applied_time: proposer.clone().recipient(),
            accept_clock: proposer.clone().recipient(),
            notices: proposer.clone().recipient(),
        }
    }
}

impl<S: StateMachine> Actor for Proposer<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |proposer, ctx| proposer.act(ctx, |part, _, out| part.tick(out)));
        ctx.run_interval(LOOK, |proposer, ctx| proposer.act(ctx, |part, now, out| part.look(now, since_boot(), out)));
    }
}

impl<S: StateMachine> Handler<Submit<S>> for Proposer<S> {
    type Result = ();

    fn handle(&mut self, Submit { waiter, request }: Submit<S>, ctx: &mut Self::Context) {
        let client = (waiter.client.owner(), waiter.client.id());
        self.act(ctx, |part, now, out| part.submit(now, client, waiter, request, out));
    }
}

impl<S: StateMachine> Handler<Replace> for Proposer<S> {
    type Result = ();

    fn handle(&mut self, Replace { node, store }: Replace, ctx: &mut Self::Context) {
        self.act(ctx, |part, now, out| part.replace(now, node, store, out));
    }
}

impl<S: StateMachine> Handler<Can> for Proposer<S> {
    type Result = ();

    fn handle(&mut self, Can(level): Can, ctx: &mut Self::Context) {
        self.act(ctx, |part, now, out| part.can(now, level, out));
    }
}

impl<S: StateMachine> Handler<AppliedTime> for Proposer<S> {
    type Result = ();

    fn handle(&mut self, AppliedTime(log_time): AppliedTime, _: &mut Self::Context) {
        self.part.applied_time(now(self.started), log_time);
    }
}

impl<S: StateMachine> Handler<AcceptClock> for Proposer<S> {
    type Result = Millis;

    fn handle(&mut self, _: AcceptClock, ctx: &mut Self::Context) -> Self::Result {
        self.act(ctx, |part, now, out| part.accept_clock(now, since_boot(), out))
    }
}

impl<S: StateMachine> Handler<Notices> for Proposer<S> {
    type Result = ();

    fn handle(&mut self, Notices(notices): Notices, ctx: &mut Self::Context) {
        self.act(ctx, |part, now, out| part.notices(now, notices, out));
    }
}

impl<S: StateMachine> Handler<Pump> for Proposer<S> {
    type Result = ();

    fn handle(&mut self, _: Pump, ctx: &mut Self::Context) {
        self.pump(ctx);
    }
}

impl<S: StateMachine> Handler<Stop> for Proposer<S> {
    type Result = ();

    /// What it still had to say, a crash might have taken too.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
