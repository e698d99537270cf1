//! The client session actor, one a connection: decoding, budgets, and the way out. The rules of its session are those of
//! [`parts::session`](crate::parts::session), which the session of a host shares.
//!
//! Requests go to the proposer (commands) or the bank (queries) and come back as answers, in any order. Everything that a
//! client may make grow is bounded, for a connection, its principal and the node: requests in flight and their bytes (beyond: `busy`),
//! bytes of a message (beyond: `too_large` and close code 1009), messages without an end, and answers that are not read (beyond: the
//! connection is closed). See `budget`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::StreamExt;
use rabia_bank_messages::bank::{Command, ErrorCode, Outcome, Query, ReadLevel, Refusal};
use rabia_bank_messages::batch::Batched;
use rabia_bank_messages::client::{Answer, AnswerResult, ClientMessage, ServerMessage, SessionName};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::Digest;
use rabia_bank_messages::principal::Admin;
use rabia_bank_messages::stages::Stage;
use rustc_hash::FxHashSet;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message as Frame};
use tracing::debug;

use crate::budget::{Account, Exceeded, Held};
use crate::mail::bank::{Ask, Follow, Subscribe};
use crate::mail::client_session::{Answers, Client, Goaway, Waiter};
use crate::mail::proposer::Submit;
use crate::metrics::Metrics;
use crate::parts::door::Door;
use crate::parts::session::{Number, Out, Reply, Session};
use crate::seats::{Seat, Seats};
use crate::session::{self, SessionNeighbours, SessionSettings};
use crate::socket::metered::{MAX_HELLO, Meter};
use crate::socket::pace::{Paced, Paces};
use crate::socket::{ClientSocket, Doorway, Visitor};
use outlet::Outlet;

mod closing;
mod door;
mod opening;
mod outlet;
mod subscriptions;

pub use subscriptions::MAX_SUBSCRIPTIONS;

/// Pages of accounts or transactions, of some hundred kilobytes, that the bank is asked for at a time: answers that it has given
/// and that are not written yet are not among those that wait for the client.
const MAX_PAGES: usize = 16;
/// While more bytes than these wait for a client to read them, the bank is asked for no more pages.
const PAGES_AHEAD: usize = 1 << 20;
/// How often deadlines are looked at.
const CHECK: Duration = Duration::from_millis(100);
/// A connection without traffic is asked for a sign of life this often …
const PING: Duration = Duration::from_secs(30);
/// … and dropped after this time without one.
const GONE: Duration = Duration::from_secs(90);
/// Who asked, in the words of the connection.
#[derive(Debug)]
struct Asker {
    /// The client's number of the request; 0 for a hello.
    request: u64,
    encoding: Encoding,
    subscribes: bool,
    /// The request, and its bytes: counted until it is answered, or the connection gone.
    _held: Option<[Held; 2]>,
}

/// What waits of a connection, and what its share of the node is counted by.
struct Accounts {
    /// Bytes of requests that wait for their answers.
    waiting: Arc<Account>,
    /// How many do.
    in_flight: Arc<Account>,
    subscriptions: Arc<Account>,
    paces: Arc<Paces>,
}

/// A subscription of a connection.
struct Subscribed {
    encoding: Encoding,
    _held: Held,
}

/// One connection of a client.
pub struct ClientSession {
    client: Client,
    settings: Arc<SessionSettings>,
    socket: Option<ClientSocket>,
    /// Where it waits until its client has said who it is.
    place: Option<Doorway>,
    waiting_there: SpawnHandle,
    seats: Arc<Seats>,
    late: bool,
    /// None until then.
    seat: Option<Seat>,
    session: Session<Asker>,
    /// What the session says is to be done next.
    outs: Vec<Out<Asker>>,
    /// The zero of its times.
    began: Instant,
    /// The session, until the client was told of it.
    announce: Option<SessionName>,
    /// The bytes of the message that is looked at.
    message_bytes: usize,
    /// The client has said something.
    said: bool,
    greeted: bool,
    /// The hash of the public key of its certificate.
    certificate: Option<Digest>,
    /// The token, or certificate, that it has shown.
    door: Door,
    /// The client has said goodbye, or is seen off.
    leaving: bool,
    /// The pages that the bank is asked for, by tag, and those that it is yet to be asked for.
    pages: FxHashSet<u64>,
    more_pages: VecDeque<Ask>,
    /// By the numbers of their requests.
    subscriptions: BTreeMap<u64, Subscribed>,
    /// Since when some of them rest because the client does not read.
    resting: Option<Instant>,
    outlet: Outlet,
    accounts: Accounts,
    meter: Arc<Meter>,
    heard: Instant,
    pinged: Instant,
    metrics: Arc<Metrics>,
    neighbours: Arc<SessionNeighbours>,
}

impl ClientSession {
    /// The session of a connection.
    pub fn new(
        client: Client,
        Visitor { socket, owner, certificate, place, seats, late }: Visitor,
        settings: Arc<SessionSettings>,
        neighbours: Arc<SessionNeighbours>,
        metrics: Arc<Metrics>,
    ) -> ClientSession {
        let now = Instant::now();
        let limits = settings.limits();
        let outlet = Outlet::new(settings.budgets.unread.open(owner));
        let budgets = &settings.budgets;
        let accounts = Accounts {
            waiting: Arc::new(budgets.waiting.open(owner)),
            in_flight: Arc::new(budgets.in_flight.open(owner)),
            subscriptions: Arc::new(budgets.subscriptions.open(owner)),
            paces: budgets.pace.open(owner),
        };
        let meter = socket.get_ref().meter().clone();
        ClientSession {
            client,
            settings,
            socket: Some(socket),
            place: Some(place),
            waiting_there: SpawnHandle::default(),
            seats,
            late,
            seat: None,
            session: Session::new(limits, session::draw_key),
            outs: Vec::new(),
            began: now,
            announce: None,
            message_bytes: 0,
            said: false,
            greeted: false,
            certificate,
            door: Door::default(),
            leaving: false,
            pages: FxHashSet::default(),
            more_pages: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            resting: None,
            outlet,
            accounts,
            meter,
            heard: now,
            pinged: now,
            metrics,
            neighbours,
        }
    }

    // ----- what the client says -----

    fn receive(&mut self, encoding: Encoding, bytes: &[u8], ctx: &mut Context<Self>) {
        if self.leaving {
            return;
        }
        self.message_bytes = bytes.len();
        let first = !std::mem::replace(&mut self.said, true);
        let decoded = encoding.decode_client(bytes);
        if self.door.token().is_none() && !self.is_hello(encoding, bytes, &decoded) {
            self.turn_away(
                encoding,
                decoded.map_or_else(|malformed| malformed.request, |message| message.request()),
                ctx,
            );
            return self.perform(ctx);
        }
        match decoded {
            Ok(ClientMessage::Hello(hello)) => self.hello(encoding, hello, first, ctx),
            Ok(ClientMessage::Command { request, command, acknowledged }) => {
                self.command(encoding, request, command, acknowledged, ctx);
            }
            Ok(ClientMessage::Admin { request, admin, acknowledged }) => {
                self.admin(encoding, request, *admin, acknowledged, ctx);
            }
            Ok(ClientMessage::Query { request, query, read }) => self.query(encoding, request, query, read, ctx),
            Ok(ClientMessage::Subscribe { request, feed, read }) => self.subscribe(encoding, request, feed, read, ctx),
            Ok(ClientMessage::Unsubscribe { subscription }) => {
                self.subscriptions.remove(&subscription);
                self.session.unsubscribe(subscription);
            }
            Ok(ClientMessage::Goodbye) => {
                self.leaving = true;
                self.session.close(self.now(), &mut self.outs);
            }
            Err(malformed) => {
                let refusal = Refusal::refused(ErrorCode::Malformed, malformed.message);
                self.refuse(encoding, malformed.request, refusal, ctx);
                self.close_if_not_greeted(ctx);
            }
        }
        self.perform(ctx);
    }

    fn command(
        &mut self,
        encoding: Encoding,
        number: u64,
        command: Command,
        acknowledged: u64,
        ctx: &mut Context<Self>,
    ) {
        if !self.is_enabled(encoding, number, &command, ctx) {
            return;
        }
        // Of what may have been said before only the log knows what came of it.
        if self.session.is_first(number)
            && let Err(refusal) = self.check_command(&command)
        {
            self.session.saw(number);
            return self.refuse(encoding, Some(number), refusal, ctx);
        }
        let Some(asker) = self.let_in(encoding, number, ctx) else { return };
        let number = Number::Given { number, acknowledged };
        self.session.command(self.now(), asker, number, command, &mut self.outs);
    }

    fn admin(&mut self, encoding: Encoding, number: u64, admin: Admin, acknowledged: u64, ctx: &mut Context<Self>) {
        if !self.is_enabled(encoding, number, &admin, ctx) {
            return;
        }
        let Some(asker) = self.let_in(encoding, number, ctx) else { return };
        let number = Number::Given { number, acknowledged };
        self.session.admin(self.now(), asker, number, admin, &mut self.outs);
    }

    /// Whether the level in force has this command. If not, the client is told so.
    fn is_enabled(&mut self, encoding: Encoding, number: u64, command: &impl Batched, ctx: &mut Context<Self>) -> bool {
        let checked = self.neighbours.applied.check_level(command, self.session.is_first(number));
        let enabled = checked.is_ok();
        if let Err(refusal) = checked {
            self.session.saw(number);
            self.refuse(encoding, Some(number), refusal, ctx);
        }
        enabled
    }

    /// Counts a command as one that waits, unless too much does.
    fn let_in(&mut self, encoding: Encoding, number: u64, ctx: &mut Context<Self>) -> Option<Asker> {
        let first = self.session.is_first(number);
        let asker = self.take_bytes(encoding, number, first, ctx);
        if asker.is_none() {
            self.session.saw(number);
        }
        asker
    }

    fn query(&mut self, encoding: Encoding, request: u64, query: Query, read: ReadLevel, ctx: &mut Context<Self>) {
        self.session.saw(request);
        if let Err(refusal) = self.check_read(read) {
            return self.refuse(encoding, Some(request), refusal, ctx);
        }
        if let Some(asker) = self.take_bytes(encoding, request, true, ctx) {
            self.session.query(self.now(), asker, query, read, &mut self.outs);
        }
    }

    /// Counts the bytes of a request that is to wait. If there are too many, the client is told so.
    fn take_bytes(&mut self, encoding: Encoding, request: u64, first: bool, ctx: &mut Context<Self>) -> Option<Asker> {
        let Accounts { waiting, in_flight, .. } = &self.accounts;
        let held = waiting.hold(self.message_bytes).map_err(|exceeded| ("bytes of requests", exceeded));
        let held = held.and_then(|bytes| Ok([in_flight.hold(1).map_err(|exceeded| ("requests", exceeded))?, bytes]));
        match held {
            Ok(held) => Some(Asker { request, encoding, subscribes: false, _held: Some(held) }),
            Err((what, exceeded)) => {
                let message = format!("too many {what} of {} wait already", exceeded.whose());
                let outcome = if first { Outcome::Refused } else { Outcome::Unknown };
                let refusal = Refusal { outcome, ..Refusal::refused(ErrorCode::Busy, message) };
                self.refuse(encoding, Some(request), refusal, ctx);
                None
            }
        }
    }

    // ----- what follows -----

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

    fn follow_up(&mut self, out: Out<Asker>, ctx: &mut Context<Self>) {
        let waiter = |tag| Waiter { client: self.client.clone(), tag };
        match out {
            Out::Submit { tag, header, action } => {
                self.neighbours.submit.do_send(Submit::new(waiter(tag), &header, &action));
            }
            Out::Ask { tag, query, read, deadline } => {
                let is_page = matches!(query, Query::ListAccounts { .. } | Query::GetTransactionHistory(_));
                let ask = Ask { waiter: waiter(tag), query, read, deadline: self.began + deadline };
                if !is_page {
                    return self.neighbours.machine.ask.do_send(ask);
                }
                self.more_pages.push_back(ask);
                self.ask_for_pages();
            }
            Out::Subscribe { tag, feed, read, deadline } => {
                let deadline = self.began + deadline;
                self.neighbours.machine.subscribe.do_send(Subscribe { waiter: waiter(tag), feed, read, deadline });
            }
            Out::Follow { tag, feed, next } => {
                self.neighbours.machine.follow.do_send(Follow { waiter: waiter(tag), feed, next });
            }
            Out::Answer { tag, asker, reply } => self.answered(tag, &asker, reply, ctx),
            Out::Opened { asker: Some(Asker { encoding, .. }), new, .. } => self.welcome(encoding, new, ctx),
            Out::Opened { asker: None, session, .. } => self.announce = Some(session),
            Out::NotOpened { asker: Some(Asker { encoding, .. }), refusal } => self.not_opened(encoding, refusal, ctx),
            Out::NotOpened { asker: None, .. } => {}
            Out::Entries { subscription, entries, next } => {
                self.followed(subscription, entries, next, ctx);
            }
            Out::Closed => self.close(CloseCode::Normal, "goodbye", ctx),
        }
    }

    fn ask_for_pages(&mut self) {
        while self.outlet.is_open()
            && self.pages.len() < MAX_PAGES
            && self.outlet.unread.bytes() <= PAGES_AHEAD
            && let Some(ask) = self.more_pages.pop_front()
        {
            // Those past their deadline were answered, or are about to be.
            if self.session.waits_for(ask.waiter.tag) && ask.deadline > Instant::now() {
                self.pages.insert(ask.waiter.tag);
                self.neighbours.machine.ask.do_send(ask);
            }
        }
    }

    fn answered(&mut self, tag: u64, asker: &Asker, reply: Reply, ctx: &mut Context<Self>) {
        if self.pages.remove(&tag) {
            self.ask_for_pages();
        }
        let (goes_on, request) = (reply.result.is_ok(), asker.request);
        self.answer(asker.encoding, request, reply, ctx);
        match asker.subscribes {
            false => {}
            true if goes_on => self.follow(request),
            true => _ = self.subscriptions.remove(&request),
        }
    }

    fn answer(&mut self, encoding: Encoding, request: u64, reply: Reply, ctx: &mut Context<Self>) {
        let session = self.announce.take();
        let Reply { slot, index, replayed, result } = reply;
        // What does not come from the log says nothing of that.
        let replayed = (index.is_some() || replayed).then_some(replayed);
        let result = result.map_or_else(AnswerResult::Error, AnswerResult::Ok);
        let answer = Answer { request, slot, index, session, result, replayed };
        self.send(encoding, &ServerMessage::Answer(Box::new(answer)), ctx);
    }

    fn refuse(&mut self, encoding: Encoding, request: Option<u64>, error: Refusal, ctx: &mut Context<Self>) {
        match request {
            Some(request) => self.answer(encoding, request, error.into(), ctx),
            None => self.send(encoding, &ServerMessage::Error { error }, ctx),
        }
    }

    // ----- time -----

    fn check(&mut self, ctx: &mut Context<Self>) {
        self.session.check(self.now(), self.neighbours.applied.get(), &mut self.outs);
        self.perform(ctx);
        if !self.outlet.is_open() {
            return;
        }
        let now = Instant::now();
        self.check_progress(ctx);
        self.check_token(ctx);
        self.ask_for_pages();
        self.leave_if_expired(ctx);
        self.wake_subscriptions(now, ctx);
        if now.duration_since(self.heard) >= GONE {
            return self.give_up(now.duration_since(self.heard), ctx);
        }
        if now.duration_since(self.heard.max(self.pinged)) >= PING {
            self.pinged = now;
            self.push(Frame::Ping(Bytes::new()), ctx);
        }
    }
}

impl Actor for ClientSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.metrics.note_client_came();
        ctx.run_interval(CHECK, |session, ctx| session.check(ctx));
        let Some(socket) = self.socket.take() else { return ctx.stop() };
        let (sink, stream) = socket.split();
        ctx.add_stream(Paced::new(stream, self.accounts.paces.clone()));
        if let Some(place) = self.place.take() {
            self.waiting_there = ctx.spawn(place.into_actor(self).map(|(), session, ctx| session.make_room(ctx)));
        }
        let writing = self.outlet.open(sink).into_actor(self);
        ctx.spawn(writing.map(|closed, session, ctx: &mut Context<Self>| session.written(closed, ctx)));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.client.leave();
        self.metrics.note_client_went();
    }
}

impl StreamHandler<Result<Frame, SocketError>> for ClientSession {
    fn handle(&mut self, frame: Result<Frame, SocketError>, ctx: &mut Self::Context) {
        self.heard = Instant::now();
        match frame {
            Ok(Frame::Text(text)) => {
                self.meter.whole_message();
                self.receive(Encoding::Json, text.as_bytes(), ctx);
            }
            Ok(Frame::Binary(bytes)) => {
                self.meter.whole_message();
                self.receive(Encoding::MessagePack, &bytes, ctx);
            }
            Ok(Frame::Ping(ping)) => {
                if !self.meter.control_frame(ping.len(), true) {
                    self.close(CloseCode::Policy, "the answers to pings are not read", ctx);
                }
            }
            Ok(Frame::Pong(pong)) => drop(self.meter.control_frame(pong.len(), false)),
            Ok(Frame::Frame(_)) => {}
            // Who has said goodbye need not wait for the end of what that set going.
            Ok(Frame::Close(_)) if self.leaving && self.outlet.is_open() && !self.session.is_idle() => {}
            Ok(Frame::Close(_)) => ctx.stop(),
            Err(error) => self.reading_failed_by(error, ctx),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        self.reading_ended(ctx);
    }
}

impl ClientSession {
    /// Says why the connection ends, where it can.
    fn reading_failed_by(&mut self, error: SocketError, ctx: &mut Context<Self>) {
        self.reading_failed();
        let max = if self.door.token().is_some() { self.settings.max_message_bytes } else { MAX_HELLO };
        let too_large = |message: String| Refusal::refused(ErrorCode::TooLarge, message);
        let (refusal, code, reason) = match (error, self.meter.exceeded()) {
            (SocketError::Capacity(CapacityError::MessageTooLong { size, max_size }), _) => {
                let message = format!("a message of {size} bytes is too long, this node takes {max_size}");
                (Some(too_large(message)), CloseCode::Size, "the message is too large")
            }
            (_, Some(Exceeded::Connection)) => {
                let message = format!("a message is too long with all its pieces, this node takes {max} bytes");
                (Some(too_large(message)), CloseCode::Size, "the message is too large")
            }
            (_, Some(exceeded)) => {
                let message = format!("too many bytes of messages without an end wait, of {}", exceeded.whose());
                (Some(Refusal::unknown(ErrorCode::Busy, message)), CloseCode::Again, "too many unfinished messages")
            }
            (SocketError::Utf8(_), None) => (None, CloseCode::Invalid, "text that is not UTF-8"),
            (SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake), None) => return ctx.stop(),
            (SocketError::Protocol(error), None) => {
                debug!(client = self.client.id(), %error, "a client breaks the WebSocket protocol");
                (None, CloseCode::Protocol, "not the WebSocket protocol")
            }
            (_, None) => return ctx.stop(),
        };
        if let Some(error) = refusal {
            self.send(Encoding::Json, &ServerMessage::Error { error }, ctx);
        }
        self.close(code, reason, ctx);
    }
}

impl Handler<Answers> for ClientSession {
    type Result = ();

    fn handle(&mut self, Answers { answers, applied }: Answers, ctx: &mut Self::Context) {
        let now = self.now();
        for answered in answers {
            self.session.answered(now, answered, &mut self.outs);
        }
        self.perform(ctx);
        if let Some(applied) = applied {
            self.metrics.stages.note(Stage::Answer, applied.elapsed());
        }
    }
}

impl Handler<Goaway> for ClientSession {
    type Result = ();

    fn handle(&mut self, _: Goaway, ctx: &mut Self::Context) {
        self.session.stop("the node is stopping; ask another one", &mut self.outs);
        self.perform(ctx);
        self.close(CloseCode::Away, "the node is stopping", ctx);
    }
}
