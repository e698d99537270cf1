//! The client session actor, one a connection: decoding, sessions, limits, deadlines and replies in flight.
//!
//! Requests go to the proposer (commands) or the bank (queries) and come back as answers, in any order. Everything that a
//! client may make grow is bounded, for a connection, its owner and the node: requests in flight and their bytes (beyond: `busy`),
//! bytes of a message (beyond: `too_large` and close code 1009), messages without an end, and answers that are not read (beyond: the
//! connection is closed). See `budget`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::StreamExt;
use rabia_bank_messages::bank::{Command, ErrorCode, Outcome, Query, ReadLevel, Refusal, Success};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::client::{Answer, AnswerResult, ClientMessage, Feed, ServerMessage, SessionName};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::{SessionKey, Slot};
use rabia_bank_messages::stages::Stage;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message as Frame};
use tracing::debug;

use crate::budget::{Account, Exceeded};
use crate::mail::bank::Ask;
use crate::mail::client_session::{Answered, Answers, Client, Done, Goaway, Waiter};
use crate::mail::proposer::Submit;
use crate::metrics::Metrics;
use crate::session::{self, SessionNeighbours, SessionSettings};
use crate::socket::metered::Meter;
use crate::socket::pace::Paced;
use crate::socket::{ClientSocket, Seat, Visitor};
use outlet::Outlet;

mod closing;
mod opening;
mod outlet;
mod subscriptions;

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
/// The session that a connection speaks in.
#[derive(Clone, Copy, Debug)]
enum Session {
    None,
    /// The log has been asked to open it.
    Opening(SessionKey),
    Open(SessionName),
}

/// What a request in flight is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Open {
        /// A hello waits for the welcome.
        welcome: bool,
    },
    Close,
    Command {
        /// No earlier attempt of it can exist.
        first: bool,
    },
    Query(ReadLevel),
    /// The bank is asked where a subscription begins. Its feed is in `subscriptions`.
    Subscribe(ReadLevel),
}

impl Kind {
    /// What is said where no answer came: a command may be executed yet, and nothing else changes anything.
    fn unanswered(self, code: ErrorCode, message: impl Into<String>) -> Refusal {
        match self {
            Kind::Command { .. } | Kind::Open { .. } | Kind::Close => Refusal::unknown(code, message),
            Kind::Query(_) | Kind::Subscribe(_) => Refusal::refused(code, message),
        }
    }

    /// What is said at the deadline.
    fn missed(self, applied: Slot, waited: Duration) -> Refusal {
        match self {
            Kind::Query(read) | Kind::Subscribe(read) => session::missed(read, applied, waited),
            Kind::Command { .. } | Kind::Open { .. } | Kind::Close => {
                let seconds = waited.as_secs_f32();
                let message =
                    format!("no quorum of nodes answered within {seconds} s; ask again with the same request number");
                Refusal::unknown(ErrorCode::NoQuorum, message)
            }
        }
    }
}

#[derive(Debug)]
struct InFlight {
    request: u64,
    encoding: Encoding,
    kind: Kind,
    deadline: Instant,
    /// Given back when the request is answered, or the connection gone.
    _bytes: UnansweredBytes,
}

/// Where in the log an answer comes from: nothing of it for one that does not.
#[derive(Clone, Copy, Default, Debug)]
struct Place {
    slot: Option<Slot>,
    /// Of a command.
    index: Option<u32>,
    /// Of a command.
    replayed: Option<bool>,
}

/// The bytes of a request, counted while it waits for its answer.
#[derive(Debug)]
struct UnansweredBytes {
    bytes: usize,
    waiting: Arc<Account>,
}

impl Drop for UnansweredBytes {
    fn drop(&mut self) {
        self.waiting.give(self.bytes);
    }
}

/// A subscription of this connection, by the number of its request.
#[derive(Debug)]
struct Subscription {
    encoding: Encoding,
    feed: Arc<Feed>,
    /// The next transaction to look at. 0: the bank has not said where it begins.
    next: u64,
    /// The tag of the page that the bank was asked for; none while the subscription rests.
    asked: Option<u64>,
}

/// A command that waits for the session to be open.
struct Queued {
    tag: u64,
    number: u64,
    acknowledged: u64,
    command: Command,
}

/// One connection of a client.
pub struct ClientSession {
    client: Client,
    settings: Arc<SessionSettings>,
    socket: Option<ClientSocket>,
    /// Let go of with this.
    _seat: Seat,
    session: Session,
    /// This node drew the key of the session for this connection, so no other connection spoke in it before.
    own_key: bool,
    /// The session, until the client was told of it.
    announce: Option<SessionName>,
    /// The highest request number seen on this connection.
    highest: u64,
    /// The bytes of the message that is looked at.
    message_bytes: usize,
    /// The client has said something.
    said: bool,
    greeted: bool,
    /// A hello was refused, and there is no session from another one.
    hello_refused: bool,
    /// When a command was answered last that its session has expired.
    expired: Option<Instant>,
    /// The client has said goodbye, or is seen off.
    leaving: bool,
    queued: VecDeque<Queued>,
    /// The pages that the bank is asked for, by tag, and those that it is yet to be asked for.
    pages: FxHashSet<u64>,
    more_pages: VecDeque<Ask>,
    tags: u64,
    in_flight: FxHashMap<u64, InFlight>,
    subscriptions: BTreeMap<u64, Subscription>,
    /// Since when some of them rest because the client does not read.
    resting: Option<Instant>,
    outlet: Outlet,
    /// What waits for an answer.
    waiting: Arc<Account>,
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
        Visitor { socket, owner, seat }: Visitor,
        settings: Arc<SessionSettings>,
        neighbours: Arc<SessionNeighbours>,
        metrics: Arc<Metrics>,
    ) -> ClientSession {
        let now = Instant::now();
        let outlet = Outlet::new(settings.budgets.unread.open(owner));
        let waiting = Arc::new(settings.budgets.waiting.open(owner));
        let meter = socket.get_ref().meter().clone();
        ClientSession {
            client,
            settings,
            socket: Some(socket),
            _seat: seat,
            session: Session::None,
            own_key: false,
            announce: None,
            highest: 0,
            message_bytes: 0,
            said: false,
            greeted: false,
            hello_refused: false,
            expired: None,
            leaving: false,
            queued: VecDeque::new(),
            pages: FxHashSet::default(),
            more_pages: VecDeque::new(),
            tags: 0,
            in_flight: FxHashMap::default(),
            subscriptions: BTreeMap::new(),
            resting: None,
            outlet,
            waiting,
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
        match encoding.decode_client(bytes) {
            Ok(ClientMessage::Hello(hello)) => self.hello(encoding, hello, first, ctx),
            Ok(ClientMessage::Command { request, command, acknowledged }) => {
                self.command(encoding, request, command, acknowledged, ctx);
            }
            Ok(ClientMessage::Query { request, query, read }) => self.query(encoding, request, query, read, ctx),
            Ok(ClientMessage::Subscribe { request, feed, read }) => self.subscribe(encoding, request, feed, read, ctx),
            Ok(ClientMessage::Unsubscribe { subscription }) => {
                self.subscriptions.remove(&subscription);
            }
            Ok(ClientMessage::Goodbye) => self.goodbye(ctx),
            Err(malformed) => {
                self.hello_refused |= !self.greeted && encoding.is_hello(bytes);
                let refusal = Refusal::refused(ErrorCode::Malformed, malformed.message);
                self.refuse(encoding, malformed.request, refusal, ctx);
            }
        }
    }

    fn command(
        &mut self,
        encoding: Encoding,
        number: u64,
        command: Command,
        acknowledged: u64,
        ctx: &mut Context<Self>,
    ) {
        let refusal = if acknowledged >= number {
            let message = format!("request {number} can't acknowledge its own answer, nor later ones ({acknowledged})");
            Some(Refusal::refused(ErrorCode::Malformed, message))
        } else {
            self.no_session()
        };
        if let Some(refusal) = refusal {
            return self.refuse(encoding, Some(number), refusal, ctx);
        }
        let first = number > self.highest && (self.own_key || matches!(self.session, Session::None));
        self.highest = self.highest.max(number);
        if self.too_many(encoding, number, first, ctx) {
            return;
        }
        let tag = self.track(number, encoding, Kind::Command { first });
        match self.session {
            Session::Open(session) => self.submit_command(session, tag, number, acknowledged, command),
            Session::Opening(_) => self.queued.push_back(Queued { tag, number, acknowledged, command }),
            Session::None => {
                self.queued.push_back(Queued { tag, number, acknowledged, command });
                let mut key = [0; 16];
                match getrandom::fill(&mut key) {
                    Ok(()) => {
                        self.own_key = true;
                        self.open(SessionKey(key), encoding, false);
                    }
                    Err(error) => {
                        debug!(%error, "no random key for a session");
                        ctx.stop();
                    }
                }
            }
        }
    }

    fn submit_command(&self, session: SessionName, tag: u64, number: u64, acknowledged: u64, command: Command) {
        let header = RequestHeader { session: session.number, key: session.key, number, acknowledged };
        self.submit(tag, header, &Action::Command(command));
    }

    fn submit(&self, tag: u64, header: RequestHeader, action: &Action) {
        let waiter = Waiter { client: self.client.clone(), tag };
        self.neighbours.submit.do_send(Submit::new(waiter, &header, action));
    }

    fn query(&mut self, encoding: Encoding, request: u64, query: Query, read: ReadLevel, ctx: &mut Context<Self>) {
        self.highest = self.highest.max(request);
        if self.too_many(encoding, request, true, ctx) {
            return;
        }
        let tag = self.track(request, encoding, Kind::Query(read));
        let deadline = Instant::now() + self.settings.request_timeout;
        let is_page = matches!(query, Query::ListAccounts { .. } | Query::GetTransactionHistory(_));
        let ask = Ask { waiter: Waiter { client: self.client.clone(), tag }, query, read, deadline };
        if !is_page {
            return self.neighbours.bank.ask.do_send(ask);
        }
        self.more_pages.push_back(ask);
        self.ask_for_pages();
    }

    fn ask_for_pages(&mut self) {
        while self.outlet.is_open()
            && self.pages.len() < MAX_PAGES
            && self.outlet.unread.bytes() <= PAGES_AHEAD
            && let Some(ask) = self.more_pages.pop_front()
        {
            // Those past their deadline were answered, or are about to be.
            if self.in_flight.contains_key(&ask.waiter.tag) && ask.deadline > Instant::now() {
                self.pages.insert(ask.waiter.tag);
                self.neighbours.bank.ask.do_send(ask);
            }
        }
    }

    /// The bank has answered this, or nobody waits for it any more.
    fn page_came(&mut self, tag: u64) {
        if self.pages.remove(&tag) {
            self.ask_for_pages();
        }
    }

    /// Whether a request may not wait, which it is told then. Else its bytes are counted, for [`track`](Self::track).
    fn too_many(&mut self, encoding: Encoding, request: u64, first: bool, ctx: &mut Context<Self>) -> bool {
        let message = if self.in_flight.len() >= self.settings.max_in_flight {
            format!("{} requests of this connection wait already", self.in_flight.len())
        } else if let Err(exceeded) = self.waiting.take(self.message_bytes) {
            format!("too many bytes of requests of {} wait already", exceeded.whose())
        } else {
            return false;
        };
        let outcome = if first { Outcome::Refused } else { Outcome::Unknown };
        let refusal = Refusal { outcome, ..Refusal::refused(ErrorCode::Busy, message) };
        self.refuse(encoding, Some(request), refusal, ctx);
        true
    }

    fn goodbye(&mut self, ctx: &mut Context<Self>) {
        self.leaving = true;
        self.leave_if_done(ctx);
    }

    /// Once all is answered, ends the session, then the connection. Not before: commands in flight come in any order, and
    /// those that came behind the end of their session would not be executed.
    fn leave_if_done(&mut self, ctx: &mut Context<Self>) {
        if !self.leaving || !self.in_flight.is_empty() {
            return;
        }
        match std::mem::replace(&mut self.session, Session::None) {
            Session::Open(SessionName { number, key }) if self.outlet.is_open() => {
                let tag = self.track(0, Encoding::Json, Kind::Close);
                self.submit(tag, RequestHeader { session: number, key, number: 0, acknowledged: 0 }, &Action::Close);
            }
            _ => self.close(CloseCode::Normal, "goodbye", ctx),
        }
    }

    // ----- what the node answers -----

    fn track(&mut self, request: u64, encoding: Encoding, kind: Kind) -> u64 {
        self.tags += 1;
        let deadline = Instant::now() + self.settings.request_timeout;
        let bytes = match kind {
            Kind::Command { .. } | Kind::Query(_) | Kind::Subscribe(_) => self.message_bytes,
            Kind::Open { .. } | Kind::Close => 0,
        };
        let _bytes = UnansweredBytes { bytes, waiting: self.waiting.clone() };
        self.in_flight.insert(self.tags, InFlight { request, encoding, kind, deadline, _bytes });
        self.tags
    }

    fn answered(&mut self, answered: Answered, ctx: &mut Context<Self>) {
        let Answered { tag, slot, index, replayed, result } = answered;
        let result = match result {
            Ok(Done::Followed { transactions, next }) => return self.followed(tag, transactions, next, ctx),
            result => result,
        };
        self.page_came(tag);
        // After its deadline nobody waits any more, but for the opening of the session.
        let Some(in_flight) = self.in_flight.remove(&tag) else { return };
        let InFlight { request, encoding, kind, .. } = in_flight;
        let place = Place { slot, index, replayed: (index.is_some() || replayed).then_some(replayed) };
        match (kind, result) {
            (Kind::Open { welcome }, Ok(Done::Opened { session, new })) => {
                self.opened(session, new, welcome, encoding, ctx);
            }
            (Kind::Open { welcome }, Err(refusal)) => self.not_opened(refusal, welcome, encoding, ctx),
            (Kind::Close, _) => {}
            (Kind::Subscribe(_), Ok(Done::Success(Success::Subscribed { from }))) => {
                self.answer(encoding, request, place, AnswerResult::Ok(Success::Subscribed { from }), ctx);
                if let Some(subscription) = self.subscriptions.get_mut(&request) {
                    subscription.next = from;
                    self.follow(request);
                }
            }
            (_, Ok(Done::Success(success))) => {
                self.answer(encoding, request, place, AnswerResult::Ok(success), ctx);
            }
            (_, Err(mut refusal)) => {
                if matches!(kind, Kind::Command { .. }) && refusal.code == ErrorCode::SessionExpired {
                    self.expired = Some(Instant::now());
                }
                // This node can't tell whether an earlier attempt was executed.
                let retry = kind == Kind::Command { first: false };
                if retry && matches!(refusal.code, ErrorCode::Busy | ErrorCode::SessionExpired | ErrorCode::Stopping) {
                    refusal.outcome = Outcome::Unknown;
                }
                if matches!(kind, Kind::Subscribe(_)) {
                    self.subscriptions.remove(&request);
                }
                self.answer(encoding, request, place, AnswerResult::Error(refusal), ctx);
            }
            (kind, Ok(done)) => unreachable!("{kind:?} was answered with {done:?}"),
        }
        self.leave_if_done(ctx);
    }

    fn answer(
        &mut self,
        encoding: Encoding,
        request: u64,
        place: Place,
        result: AnswerResult,
        ctx: &mut Context<Self>,
    ) {
        let session = self.announce.take();
        let Place { slot, index, replayed } = place;
        let answer = Answer { request, slot, index, session, result, replayed };
        self.send(encoding, &ServerMessage::Answer(Box::new(answer)), ctx);
    }

    fn refuse(&mut self, encoding: Encoding, request: Option<u64>, error: Refusal, ctx: &mut Context<Self>) {
        match request {
            Some(request) => self.answer(encoding, request, Place::default(), AnswerResult::Error(error), ctx),
            None => self.send(encoding, &ServerMessage::Error { error }, ctx),
        }
    }

    // ----- time -----

    fn check(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let late = |(_, waiting): &(&u64, &InFlight)| waiting.deadline <= now;
        let mut due: Vec<u64> = self.in_flight.iter().filter(late).map(|(tag, _)| *tag).collect();
        due.sort_unstable();
        for tag in due {
            self.expire(tag, ctx);
        }
        if !self.outlet.is_open() {
            return;
        }
        self.check_progress(ctx);
        self.ask_for_pages();
        self.leave_if_expired(now, ctx);
        self.wake_subscriptions(now, ctx);
        if now.duration_since(self.heard) >= GONE {
            return self.give_up(now.duration_since(self.heard), ctx);
        }
        if now.duration_since(self.heard.max(self.pinged)) >= PING {
            self.pinged = now;
            self.push(Frame::Ping(Bytes::new()), ctx);
        }
        self.leave_if_done(ctx);
    }

    fn expire(&mut self, tag: u64, ctx: &mut Context<Self>) {
        let Some(in_flight) = self.in_flight.get_mut(&tag) else { return };
        let applied = self.neighbours.applied.get();
        let refusal = in_flight.kind.missed(applied, self.settings.request_timeout);
        let (request, encoding) = (in_flight.request, in_flight.encoding);
        match in_flight.kind {
            Kind::Open { welcome: true } => {
                self.in_flight.remove(&tag);
                let message = "the session was not opened in time; open it with the same key on a new connection";
                self.not_opened(Refusal { message: message.into(), ..refusal }, true, encoding, ctx);
            }
            Kind::Open { welcome: false } => {
                // It goes on waiting: commands behind it have their own deadlines.
                in_flight.deadline += self.settings.request_timeout;
                if self.leaving {
                    self.in_flight.remove(&tag);
                }
            }
            Kind::Close => {
                self.in_flight.remove(&tag);
            }
            Kind::Command { .. } | Kind::Query(_) | Kind::Subscribe(_) => {
                if matches!(in_flight.kind, Kind::Subscribe(_)) {
                    self.subscriptions.remove(&request);
                }
                self.in_flight.remove(&tag);
                self.page_came(tag);
                self.refuse(encoding, Some(request), refusal, ctx);
            }
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
        ctx.add_stream(Paced::new(stream, self.settings.budgets.long_messages.clone()));
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
            Ok(Frame::Close(_)) if self.leaving && self.outlet.is_open() && !self.in_flight.is_empty() => {}
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
        let max = self.settings.max_message_bytes;
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
        for answered in answers {
            self.answered(answered, ctx);
        }
        if let Some(applied) = applied {
            self.metrics.stages.note(Stage::Answer, applied.elapsed());
        }
    }
}

impl Handler<Goaway> for ClientSession {
    type Result = ();

    fn handle(&mut self, _: Goaway, ctx: &mut Self::Context) {
        for (_, in_flight) in std::mem::take(&mut self.in_flight) {
            if in_flight.request > 0 {
                let refusal = in_flight.kind.unanswered(ErrorCode::Stopping, "the node is stopping; ask another one");
                self.refuse(in_flight.encoding, Some(in_flight.request), refusal, ctx);
            }
        }
        self.close(CloseCode::Away, "the node is stopping", ctx);
    }
}
