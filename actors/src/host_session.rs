//! The host session actor: what a [`ClientSession`](crate::client_session) is to a WebSocket client, this is to the program
//! that the node lives in. Typed messages, no encoding, no socket; the same rules, which are those of
//! [`parts::session`](crate::parts::session).
//!
//! A host's actor sends [`Command`] and [`Query`] and gets a [`Reply`] or a [`Refusal`], whose outcome says whether the command
//! was certainly not executed or whether that is unknown. The session is opened through the log when the first command is
//! there. It speaks through this one node: while that has no quorum, commands wait until their deadline and are unknown then;
//! they may still be executed later.
//!
//! Commands are numbered 1, 2, 3 … and acknowledged as they are answered. A host that wants to ask again, after an unknown
//! outcome, a restart, or at another node, opens the session with a key that it remembers and numbers its commands itself
//! ([`Command::numbered`]): a number is executed once, and answered alike for as long as the session is open.
//!
//! A session ends in the log when it was idle for too long. One whose key this node drew is followed by another: a command that
//! found it gone is refused, since nobody else can have said it before, and the next one goes on in a new session. The key of one
//! that the host named is used up: every command is `session_expired` from then on, whose outcome is unknown, and the host
//! opens another session with another key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::future::LocalBoxFuture;
use rabia_bank_messages::bank::{ErrorCode, Outcome, ReadLevel, Refusal};
use rabia_bank_messages::ids::SessionKey;
use tokio::sync::{mpsc, oneshot};

use crate::ledger::Bank;
use crate::ledger::machine::{Entry, StateMachine};
use crate::mail::bank::{self, Ask};
use crate::mail::client_session::{Answers, Client, Waiter};
use crate::mail::host_session::{
    Administer, Close, Command, Follow, Happened, Heard, OwnersAct, Query, Reply, Subscribe, Transactions,
};
use crate::mail::proposer::Submit;
use crate::metrics::Metrics;
use crate::parts::session::{self, Number, Out, Session};
use crate::session::{SessionNeighbours, SessionSettings, draw_key};

/// How often deadlines are looked at.
const CHECK: Duration = Duration::from_millis(100);

/// The other end of a request that has no answer yet.
#[derive(Debug)]
struct Asker<T> {
    to: oneshot::Sender<Heard<T>>,
    /// The name of the subscription that was asked for.
    subscription: Option<u64>,
}

/// Who is told of transactions.
enum Subscriber<E: Send + 'static> {
    Actor(Recipient<Happened<E>>),
    Stream(mpsc::Sender<Vec<E>>),
}

impl<E: Send> Subscriber<E> {
    /// Hands a page over. What is returned resolves when there is room for the next; false: nobody is there any more.
    fn tell(&self, page: Vec<E>) -> LocalBoxFuture<'static, bool> {
        match self {
            Subscriber::Actor(actor) => {
                let handled = actor.send(Happened(page));
                Box::pin(async { handled.await.is_ok() })
            }
            Subscriber::Stream(stream) => {
                let stream = stream.clone();
                Box::pin(async move { stream.send(page).await.is_ok() })
            }
        }
    }
}

/// Pages that wait for the reader of a stream, besides the one that it has and the one that is next.
const PAGES_AHEAD: usize = 1;

/// A session of the program that the node lives in.
pub struct HostSession<S: StateMachine = Bank> {
    client: Client<S>,
    session: Session<Asker<S::Answer>, S>,
    /// What the session says is to be done next.
    outs: Vec<Out<Asker<S::Answer>, S>>,
    /// The zero of its times.
    began: Instant,
    /// Who subscribed, by the names of the subscriptions: 1, 2, 3 …
    subscribers: BTreeMap<u64, Subscriber<Entry<S>>>,
    subscriptions: u64,
    metrics: Arc<Metrics>,
    neighbours: Arc<SessionNeighbours<S>>,
}

/// Nothing in it is pinned.
impl<S: StateMachine> Unpin for HostSession<S> {}

impl<S: StateMachine> HostSession<S> {
    /// The session with this key, of the principal of the token with this number: opened with the first command, or gone on with. Without a key it draws its own, and goes on with
    /// another when the session has expired.
    pub fn new(
        client: Client<S>,
        key: Option<SessionKey>,
        token: u64,
        settings: &SessionSettings,
        neighbours: Arc<SessionNeighbours<S>>,
        metrics: Arc<Metrics>,
    ) -> HostSession<S> {
        client.show(token);
        let mut session = match key {
            Some(key) => Session::named(settings.limits(), draw_key, key),
            None => Session::renewing(settings.limits(), draw_key),
        };
        session.show(token);
        HostSession {
            client,
            session,
            outs: Vec::new(),
            began: Instant::now(),
            subscribers: BTreeMap::new(),
            subscriptions: 0,
            metrics,
            neighbours,
        }
    }

    /// The time of the session.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Does what the session says, until that is all.
    fn perform(&mut self, ctx: &mut Context<Self>) {
        while !self.outs.is_empty() {
            let mut outs = std::mem::take(&mut self.outs);
            outs.drain(..).for_each(|out| self.follow_up(out, ctx));
            if self.outs.is_empty() {
                self.outs = outs;
            }
        }
    }

    fn follow_up(&mut self, out: Out<Asker<S::Answer>, S>, ctx: &mut Context<Self>) {
        let waiter = |tag| Waiter { client: self.client.clone(), tag };
        match out {
            Out::Submit { tag, header, action } => {
                self.neighbours.submit.do_send(Submit::new(waiter(tag), &header, &action));
            }
            Out::Ask { tag, query, read, deadline } => {
                let deadline = self.began + deadline;
                self.neighbours.machine.ask.do_send(Ask { waiter: waiter(tag), query, read, deadline });
            }
            Out::Subscribe { tag, feed, read, deadline } => {
                let deadline = self.began + deadline;
                self.neighbours.machine.subscribe.do_send(bank::Subscribe {
                    waiter: waiter(tag),
                    feed,
                    read,
                    deadline,
                });
            }
            Out::Follow { tag, feed, next } => {
                self.neighbours.machine.follow.do_send(bank::Follow { waiter: waiter(tag), feed, next });
            }
            Out::Answer { asker, reply, .. } => self.answer(asker, reply),
            Out::Entries { subscription, entries, .. } => self.tell(subscription, entries, ctx),
            // The commands that waited for it go out, or were answered.
            Out::Opened { .. } | Out::NotOpened { .. } => {}
            Out::Closed => ctx.stop(),
        }
    }

    fn answer(&mut self, Asker { to, subscription }: Asker<S::Answer>, reply: session::Reply<S::Answer>) {
        let session::Reply { slot, index, replayed, result } = reply;
        match (subscription, &result) {
            (Some(name), Ok(_)) => self.session.more(name, &mut self.outs),
            (Some(name), Err(_)) => _ = self.subscribers.remove(&name),
            (None, _) => {}
        }
        // Who asked may be gone.
        let _ = to.send(result.map(|success| Reply { slot, index, replayed, success }));
    }

    /// Tells a subscriber, who gets the next page when it has handled this one.
    fn tell(&mut self, name: u64, entries: Vec<Entry<S>>, ctx: &mut Context<Self>) {
        let Some(subscriber) = self.subscribers.get(&name) else { return };
        if entries.is_empty() {
            return self.session.more(name, &mut self.outs);
        }
        let told = subscriber.tell(entries).into_actor(self);
        ctx.spawn(told.map(move |is_there, session, ctx| {
            if is_there {
                session.session.more(name, &mut session.outs);
            } else {
                session.subscribers.remove(&name);
                session.session.unsubscribe(name);
            }
            session.perform(ctx);
        }));
    }

    fn subscribe(
        &mut self,
        feed: S::Feed,
        subscriber: Subscriber<Entry<S>>,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Heard<S::Answer>> + use<S> {
        let (to, answer) = oneshot::channel();
        self.subscriptions += 1;
        let name = self.subscriptions;
        self.subscribers.insert(name, subscriber);
        let asker = Asker { to, subscription: Some(name) };
        self.session.subscribe(self.now(), asker, name, feed, ReadLevel::Linearizable, &mut self.outs);
        self.perform(ctx);
        hear(answer, Outcome::Refused)
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        self.session.check(self.now(), self.neighbours.applied.get(), &mut self.outs);
        self.perform(ctx);
    }
}

/// What an asker hears; with this outcome if the session ends first.
async fn hear<T>(answer: oneshot::Receiver<Heard<T>>, otherwise: Outcome) -> Heard<T> {
    let stopping = || Refusal::refused(ErrorCode::Stopping, "the session or its node is stopping");
    answer.await.unwrap_or_else(|_| Err(Refusal { outcome: otherwise, ..stopping() }))
}

impl<S: StateMachine> Actor for HostSession<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.metrics.note_client_came();
        ctx.run_interval(CHECK, |session, ctx| session.check(ctx));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.client.leave();
        self.metrics.note_client_went();
    }
}

impl<S: StateMachine> Handler<Command<S>> for HostSession<S> {
    type Result = ResponseFuture<Heard<S::Answer>>;

    fn handle(&mut self, Command { command, number }: Command<S>, ctx: &mut Self::Context) -> Self::Result {
        // A host that gives its own numbers may have said it before.
        if let Err(refusal) = self.neighbours.applied.check_level(&command, number.is_none()) {
            return Box::pin(async { Err(refusal) });
        }
        let (to, answer) = oneshot::channel();
        let number = number.map_or(Number::Next, |number| Number::Given { number, acknowledged: 0 });
        let asker = Asker { to, subscription: None };
        self.session.command(self.now(), asker, number, command, &mut self.outs);
        self.perform(ctx);
        Box::pin(hear(answer, Outcome::Unknown))
    }
}

impl<S: StateMachine> Handler<Administer<S>> for HostSession<S> {
    type Result = ResponseFuture<Heard<S::Answer>>;

    fn handle(&mut self, Administer { admin, .. }: Administer<S>, ctx: &mut Self::Context) -> Self::Result {
        if let Err(refusal) = self.neighbours.applied.check_level(&admin, true) {
            return Box::pin(async { Err(refusal) });
        }
        let (to, answer) = oneshot::channel();
        let asker = Asker { to, subscription: None };
        self.session.admin(self.now(), asker, Number::Next, admin, &mut self.outs);
        self.perform(ctx);
        Box::pin(hear(answer, Outcome::Unknown))
    }
}

impl<S: StateMachine> Handler<OwnersAct<S>> for HostSession<S> {
    type Result = ResponseFuture<Heard<S::Answer>>;

    fn handle(&mut self, OwnersAct { node, admin, .. }: OwnersAct<S>, ctx: &mut Self::Context) -> Self::Result {
        let (to, answer) = oneshot::channel();
        let asker = Asker { to, subscription: None };
        self.session.admin_as_owner(self.now(), asker, node, admin, &mut self.outs);
        self.perform(ctx);
        Box::pin(hear(answer, Outcome::Unknown))
    }
}

impl<S: StateMachine> Handler<Query<S>> for HostSession<S> {
    type Result = ResponseFuture<Heard<S::Answer>>;

    fn handle(&mut self, Query { query, read }: Query<S>, ctx: &mut Self::Context) -> Self::Result {
        let (to, answer) = oneshot::channel();
        let asker = Asker { to, subscription: None };
        self.session.query(self.now(), asker, query, read, &mut self.outs);
        self.perform(ctx);
        Box::pin(hear(answer, Outcome::Refused))
    }
}

impl<S: StateMachine> Handler<Subscribe<S>> for HostSession<S> {
    type Result = ResponseFuture<Heard<S::Answer>>;

    fn handle(&mut self, Subscribe { feed, to }: Subscribe<S>, ctx: &mut Self::Context) -> Self::Result {
        Box::pin(self.subscribe(feed, Subscriber::Actor(to), ctx))
    }
}

impl<S: StateMachine> Handler<Follow<S>> for HostSession<S> {
    type Result = ResponseFuture<Result<Transactions<Entry<S>>, Refusal>>;

    fn handle(&mut self, Follow(feed): Follow<S>, ctx: &mut Self::Context) -> Self::Result {
        let (stream, pages) = mpsc::channel(PAGES_AHEAD);
        let subscribed = self.subscribe(feed, Subscriber::Stream(stream), ctx);
        Box::pin(async { subscribed.await.map(|_| Transactions::new(pages)) })
    }
}

impl<S: StateMachine> Handler<Answers<S>> for HostSession<S> {
    type Result = ();

    fn handle(&mut self, Answers { answers, .. }: Answers<S>, ctx: &mut Self::Context) {
        let now = self.now();
        for answered in answers {
            self.session.answered(now, answered, &mut self.outs);
        }
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Close> for HostSession<S> {
    type Result = ();

    fn handle(&mut self, Close { in_log }: Close, ctx: &mut Self::Context) {
        if in_log {
            self.session.close(self.now(), &mut self.outs);
            self.perform(ctx);
        } else {
            self.session.stop("the session or its node is stopping", &mut self.outs);
            self.perform(ctx);
            ctx.stop();
        }
    }
}
