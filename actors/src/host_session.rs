//! The host session actor: what a [`ClientSession`](crate::client_session) is to a WebSocket client, this is to the program
//! that the node lives in. Typed messages, no encoding, no socket; the same sessions, levels of reading and bounds.
//!
//! A host's actor sends [`Execute`] and [`Look`] and gets a [`Reply`] or a [`Refusal`], whose outcome says whether the command
//! was certainly not executed or whether that is unknown. The session is opened through the log when the first command is
//! there. It speaks through this one node: while that has no quorum, commands wait until their deadline and are unknown then;
//! they may still be executed later.
//!
//! Commands are numbered 1, 2, 3 … and acknowledged as they are answered. A host that wants to ask again, after an unknown
//! outcome, a restart, or at another node, opens the session with a key that it remembers and numbers its commands itself
//! ([`Execute::numbered`]): a number is executed once, and answered alike for as long as the session is open.
//!
//! A session ends in the log when it was idle for too long. One whose key this node drew is followed by another: a command that
//! found it gone is refused, since nobody else can have said it before, and the next one goes on in a new session. The key of one
//! that the host named is used up: every command is `session_expired` from then on, whose outcome is unknown, and the host
//! opens another session with another key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::bank::{Command, ErrorCode, Outcome, ReadLevel, Refusal, Success, Transaction};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::SessionKey;
use tokio::sync::oneshot;
use tracing::debug;

use crate::mail::bank::{Ask, Follow, Subscribe};
use crate::mail::client_session::{Answered, Answers, Client, Done, Waiter};
use crate::mail::host_session::{Execute, Happened, Heard, Leave, Listen, Look, Reply};
use crate::mail::proposer::Submit;
use crate::metrics::Metrics;
use crate::session::{self, SessionNeighbours, SessionSettings};

/// How often deadlines are looked at.
const CHECK: Duration = Duration::from_millis(100);

/// Whom to tell.
type Asker = oneshot::Sender<Heard>;

enum Kind {
    Open,
    Command { number: u64, retry: bool },
    Query(ReadLevel),
    Listen(Feed, Recipient<Happened>),
}

struct InFlight {
    kind: Kind,
    asker: Option<Asker>,
    deadline: Instant,
}

/// A feed that somebody listens to.
struct Listener {
    feed: Arc<Feed>,
    to: Recipient<Happened>,
}

/// A session of the program that the node lives in.
pub struct HostSession {
    client: Client,
    settings: Arc<SessionSettings>,
    key: SessionKey,
    /// This node drew the key, for this session alone.
    own_key: bool,
    number: Option<u64>,
    /// Requests up to this tag were said in sessions that are gone.
    gone: u64,
    opening: bool,
    /// The session is to be closed as soon as it is open.
    leaving: bool,
    /// The host numbers its commands.
    numbered: bool,
    last_number: u64,
    tags: u64,
    in_flight: BTreeMap<u64, InFlight>,
    /// Commands that wait for the session to be open: tag, number, command.
    queued: Vec<(u64, u64, Command)>,
    /// By the tag of the page that the bank was asked for.
    listeners: BTreeMap<u64, Listener>,
    metrics: Arc<Metrics>,
    neighbours: Arc<SessionNeighbours>,
}

impl HostSession {
    /// A session with this key: opened with the first command, or gone on with. `own_key`: it was drawn for this session, and nobody
    /// else has it.
    pub fn new(
        client: Client,
        key: SessionKey,
        own_key: bool,
        settings: Arc<SessionSettings>,
        neighbours: Arc<SessionNeighbours>,
        metrics: Arc<Metrics>,
    ) -> HostSession {
        HostSession {
            client,
            settings,
            key,
            own_key,
            number: None,
            gone: 0,
            opening: false,
            leaving: false,
            numbered: false,
            last_number: 0,
            tags: 0,
            in_flight: BTreeMap::new(),
            queued: Vec::new(),
            listeners: BTreeMap::new(),
            metrics,
            neighbours,
        }
    }

    fn track(&mut self, kind: Kind, asker: Option<Asker>) -> Waiter {
        self.tags += 1;
        let deadline = Instant::now() + self.settings.request_timeout;
        self.in_flight.insert(self.tags, InFlight { kind, asker, deadline });
        Waiter { client: self.client.clone(), tag: self.tags }
    }

    /// Why nothing more may wait, if so.
    fn full(&self) -> Option<Refusal> {
        let waiting = self.in_flight.len();
        (waiting >= self.settings.max_in_flight)
            .then(|| Refusal::refused(ErrorCode::Busy, format!("{waiting} requests of this session wait already")))
    }

    fn execute(&mut self, Execute { command, number }: Execute, asker: Asker) {
        if let Some(refusal) = self.full() {
            return tell(asker, Err(refusal));
        }
        self.numbered |= number.is_some();
        let retry = number.is_some();
        let number = number.unwrap_or(self.last_number + 1);
        self.last_number = self.last_number.max(number);
        let waiter = self.track(Kind::Command { number, retry }, Some(asker));
        match self.number {
            Some(session) => self.submit(waiter, session, number, command),
            None => {
                self.queued.push((waiter.tag, number, command));
                self.open();
            }
        }
    }

    fn open(&mut self) {
        if !self.opening {
            self.opening = true;
            let waiter = self.track(Kind::Open, None);
            let header = RequestHeader { session: 0, key: self.key, number: 0, acknowledged: 0 };
            self.submit_action(waiter, &header, &Action::Open);
        }
    }

    fn submit(&self, waiter: Waiter, session: u64, number: u64, command: Command) {
        let acknowledged = if self.numbered { 0 } else { self.answered_below() };
        let header = RequestHeader { session, key: self.key, number, acknowledged };
        self.submit_action(waiter, &header, &Action::Command(command));
    }

    fn submit_action(&self, waiter: Waiter, header: &RequestHeader, action: &Action) {
        self.neighbours.submit.do_send(Submit::new(waiter, header, action));
    }

    /// The highest number up to which every command has its outcome.
    fn answered_below(&self) -> u64 {
        let waiting = self.in_flight.values().filter_map(|in_flight| match in_flight.kind {
            Kind::Command { number, .. } => Some(number),
            _ => None,
        });
        waiting.min().map_or(self.last_number, |lowest| lowest - 1)
    }

    fn answered(&mut self, answered: Answered, ctx: &mut Context<Self>) {
        let Answered { tag, slot, index, replayed, result } = answered;
        let done = match result {
            Ok(Done::Followed { transactions, next }) => return self.followed(tag, transactions, next, ctx),
            done => done,
        };
        // After its deadline nobody waits any more.
        let Some(InFlight { kind, asker, .. }) = self.in_flight.remove(&tag) else { return };
        let heard = match (kind, done) {
            (Kind::Open, opening) => return self.opening_answered(opening, ctx),
            (Kind::Listen(feed, to), Ok(Done::Success(Success::Subscribed { from }))) => {
                self.follow(Listener { feed: Arc::new(feed), to }, from);
                Ok(Reply { slot, index, replayed, success: Success::Subscribed { from } })
            }
            (_, Ok(Done::Success(success))) => Ok(Reply { slot, index, replayed, success }),
            (Kind::Command { retry: true, .. }, Err(refusal)) => Err(of_a_retry(refusal)),
            (Kind::Command { retry: false, .. }, Err(refusal)) if refusal.code == ErrorCode::SessionExpired => {
                Err(self.session_gone(tag, refusal))
            }
            (_, Err(refusal)) => Err(refusal),
            (_, Ok(done)) => unreachable!("a host's request was answered with {done:?}"),
        };
        if let Some(asker) = asker {
            tell(asker, heard);
        }
    }

    fn opening_answered(&mut self, opening: Result<Done, Refusal>, ctx: &mut Context<Self>) {
        match opening {
            Ok(Done::Opened { session, .. }) => self.opened(session),
            Ok(done) => unreachable!("an opening was answered with {done:?}"),
            Err(refusal) => self.not_opened(&refusal),
        }
        if self.leaving {
            self.close(ctx);
        }
    }

    fn opened(&mut self, session: u64) {
        (self.number, self.opening) = (Some(session), false);
        for (tag, number, command) in std::mem::take(&mut self.queued) {
            // Those past their deadline were answered.
            if self.in_flight.contains_key(&tag) {
                self.submit(Waiter { client: self.client.clone(), tag }, session, number, command);
            }
        }
    }

    /// The session of this command is gone. If nobody else spoke in it, the command was never executed, and another session takes
    /// its place.
    fn session_gone(&mut self, tag: u64, mut refusal: Refusal) -> Refusal {
        if !self.own_key || self.numbered {
            return refusal;
        }
        refusal.outcome = Outcome::Refused;
        if tag > self.gone {
            let mut key = [0; 16];
            match getrandom::fill(&mut key) {
                Ok(()) => (self.key, self.number, self.gone) = (SessionKey(key), None, self.tags),
                Err(error) => debug!(%error, "no random key for a session"),
            }
        }
        refusal
    }

    /// The opening was turned away, and with it the commands that wait for it.
    fn not_opened(&mut self, refusal: &Refusal) {
        self.opening = false;
        for (tag, ..) in std::mem::take(&mut self.queued) {
            let Some(InFlight { kind, asker: Some(asker), .. }) = self.in_flight.remove(&tag) else { continue };
            let retry = matches!(kind, Kind::Command { retry: true, .. });
            tell(asker, Err(if retry { of_a_retry(refusal.clone()) } else { refusal.clone() }));
        }
    }

    /// Ends the session in the log, if it is open there, and the actor.
    fn close(&mut self, ctx: &mut Context<Self>) {
        if let Some(session) = self.number {
            let waiter = Waiter { client: self.client.clone(), tag: 0 };
            let header = RequestHeader { session, key: self.key, number: 0, acknowledged: 0 };
            self.submit_action(waiter, &header, &Action::Close);
        }
        ctx.stop();
    }

    fn follow(&mut self, listener: Listener, next: u64) {
        self.tags += 1;
        let waiter = Waiter { client: self.client.clone(), tag: self.tags };
        self.neighbours.bank.follow.do_send(Follow { waiter, feed: listener.feed.clone(), next });
        self.listeners.insert(self.tags, listener);
    }

    fn followed(&mut self, tag: u64, transactions: Vec<Transaction>, next: u64, ctx: &mut Context<Self>) {
        let Some(listener) = self.listeners.remove(&tag) else { return };
        if transactions.is_empty() {
            return self.follow(listener, next);
        }
        let handled = listener.to.send(Happened(transactions)).into_actor(self);
        ctx.spawn(handled.map(move |handled, session, _| {
            // An error: the listener is gone.
            if handled.is_ok() {
                session.follow(listener, next);
            }
        }));
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let late = |(tag, waiting): (&u64, &InFlight)| (waiting.deadline <= now).then_some(*tag);
        for tag in self.in_flight.iter().filter_map(late).collect::<Vec<_>>() {
            // The opening has no asker: it goes on waiting, for commands to come.
            if self.in_flight.get(&tag).is_some_and(|in_flight| in_flight.asker.is_none()) {
                if self.leaving {
                    return self.close(ctx);
                }
                continue;
            }
            let Some(InFlight { kind, asker: Some(asker), .. }) = self.in_flight.remove(&tag) else { continue };
            let (read, outcome) = match kind {
                Kind::Query(read) => (read, Outcome::Refused),
                Kind::Listen(..) => (ReadLevel::Linearizable, Outcome::Refused),
                Kind::Open | Kind::Command { .. } => (ReadLevel::Linearizable, Outcome::Unknown),
            };
            let applied = self.neighbours.applied.get();
            tell(asker, Err(Refusal { outcome, ..session::missed(read, applied, self.settings.request_timeout) }));
        }
    }
}

/// This node can't tell whether an earlier attempt was executed.
fn of_a_retry(mut refusal: Refusal) -> Refusal {
    if matches!(refusal.code, ErrorCode::Busy | ErrorCode::SessionExpired | ErrorCode::Stopping) {
        refusal.outcome = Outcome::Unknown;
    }
    refusal
}

fn tell(asker: Asker, heard: Heard) {
    // Who asked may be gone.
    let _ = asker.send(heard);
}

/// What an asker hears; with this outcome if the session ends first.
async fn hear(answer: oneshot::Receiver<Heard>, otherwise: Outcome) -> Heard {
    let stopping = || Refusal::refused(ErrorCode::Stopping, "the session or its node is stopping");
    answer.await.unwrap_or_else(|_| Err(Refusal { outcome: otherwise, ..stopping() }))
}

impl Actor for HostSession {
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

impl Handler<Execute> for HostSession {
    type Result = ResponseFuture<Heard>;

    fn handle(&mut self, execute: Execute, _: &mut Self::Context) -> Self::Result {
        let (asker, answer) = oneshot::channel();
        self.execute(execute, asker);
        Box::pin(hear(answer, Outcome::Unknown))
    }
}

impl Handler<Look> for HostSession {
    type Result = ResponseFuture<Heard>;

    fn handle(&mut self, Look { query, read }: Look, _: &mut Self::Context) -> Self::Result {
        let (asker, answer) = oneshot::channel();
        match self.full() {
            Some(refusal) => tell(asker, Err(refusal)),
            None => {
                let waiter = self.track(Kind::Query(read), Some(asker));
                let deadline = Instant::now() + self.settings.request_timeout;
                self.neighbours.bank.ask.do_send(Ask { waiter, query, read, deadline });
            }
        }
        Box::pin(hear(answer, Outcome::Refused))
    }
}

impl Handler<Listen> for HostSession {
    type Result = ResponseFuture<Heard>;

    fn handle(&mut self, Listen { feed, to }: Listen, _: &mut Self::Context) -> Self::Result {
        let (asker, answer) = oneshot::channel();
        match self.full() {
            Some(refusal) => tell(asker, Err(refusal)),
            None => {
                let waiter = self.track(Kind::Listen(feed.clone(), to), Some(asker));
                let deadline = Instant::now() + self.settings.request_timeout;
                self.neighbours.bank.subscribe.do_send(Subscribe {
                    waiter,
                    feed,
                    read: ReadLevel::Linearizable,
                    deadline,
                });
            }
        }
        Box::pin(hear(answer, Outcome::Refused))
    }
}

impl Handler<Answers> for HostSession {
    type Result = ();

    fn handle(&mut self, Answers { answers, .. }: Answers, ctx: &mut Self::Context) {
        for answered in answers {
            self.answered(answered, ctx);
        }
    }
}

impl Handler<Leave> for HostSession {
    type Result = ();

    fn handle(&mut self, Leave { close }: Leave, ctx: &mut Self::Context) {
        if close && self.opening {
            // Its number comes with the answer, and what was asked goes with it.
            self.leaving = true;
            self.queued.clear();
            self.in_flight.retain(|_, in_flight| matches!(in_flight.kind, Kind::Open));
        } else if close {
            self.close(ctx);
        } else {
            ctx.stop();
        }
    }
}
