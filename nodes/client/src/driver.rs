//! The task that owns the socket: it numbers requests, says them, says them again, and settles each exactly once.
//!
//! A request is *pending* from its arrival until it is settled. It is *waiting* while it has been said on the present
//! connection without an answer there, and *doubtful* once an attempt may have been executed: its connection broke, or
//! its answer said so. What a refusal says of a request is the business of [`retry`](super::retry). A command whose only attempt
//! found the session gone goes on in a new session, and a doubtful one is unknown for good.
//!
//! All requests have the same time, so they run out in the order of their numbers, and the first pending number is also
//! the bound of what the client has acknowledged. A number that was given up as unknown counts as acknowledged: nobody
//! will ask for its answer any more, and a late copy of it will not be executed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::client::{CLIENT_VERSION, ClientMessage, Hello, OpenSession, SessionName, Welcome};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::{ClusterId, SessionKey};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use super::frame::Incoming;
use super::link::{self, Sink, Stream};
use super::{Answered, Ask, ClientOptions, NotReached, Request, Unanswered, Unknown};
use crate::random;
use crate::retry::{Attempts, Verdict};

/// A node must greet, and open the session through the log, within this time; else the next one is asked.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that said nothing for this long while a request waits is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_millis(400);
/// A node that said nothing for this long while a request waits is left for the next one.
const SILENCE_LIMIT: Duration = Duration::from_millis(1_200);
/// The pause before the first repetition; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// No node is asked less often than this while a request is pending.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The pause before a command is repeated whose last answer was unknown, with a code that this program does not know; it
/// doubles up to [`LONGEST_STRANGE_PAUSE`]. What is not understood is not pressed for.
const STRANGE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_STRANGE_PAUSE: Duration = Duration::from_secs(5);
/// Connections in a row that may end with a message that can't be read while a request waits. Then it is unknown.
const MAX_UNREADABLE: u32 = 3;
/// Requests that are taken from the callers at once.
const ASKS_AT_ONCE: usize = 256;
/// Frames that are heard at once.
const FRAMES_AT_ONCE: usize = 256;
/// Bytes that are gathered for one flush.
const BYTES_AT_ONCE: usize = 64 << 10;
/// How long the end of a session may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request that is not settled.
struct Pending {
    message: ClientMessage,
    deadline: Instant,
    answer: oneshot::Sender<Result<Answered, Unanswered>>,
    attempts: Attempts,
    /// The answer to the last attempt.
    last: Option<Answered>,
    /// It is not said before, and after this pause again.
    not_before: Option<Instant>,
    pause: Duration,
    /// Connections in a row on which it waited, and that ended with a message that can't be read.
    unreadable: u32,
}

impl Pending {
    fn new(
        message: ClientMessage,
        deadline: Instant,
        answer: oneshot::Sender<Result<Answered, Unanswered>>,
    ) -> Pending {
        let (attempts, last, not_before) = (Attempts::default(), None, None);
        Pending { message, deadline, answer, attempts, last, not_before, pause: STRANGE_PAUSE, unreadable: 0 }
    }

    fn is_command(&self) -> bool {
        matches!(self.message, ClientMessage::Command { .. } | ClientMessage::Admin { .. })
    }

    fn settle(self, outcome: Result<Answered, Unanswered>) {
        // A caller that has gone does not want to know.
        let _ = self.answer.send(outcome);
    }

    fn settle_unknown(self, why: impl Into<String>) {
        let last = self.last.clone().map(Box::new);
        self.settle(Err(Unanswered::Unknown(Unknown { why: why.into(), last })));
    }
}

/// How far the session of a connection is.
#[derive(PartialEq, Eq)]
enum SessionState {
    /// Only queries were asked for so far.
    NotAsked,
    /// The node was asked to open it, or to go on with it.
    Asked,
    /// Commands may be said.
    Ready,
    /// The session is gone. What was said in it is still to be answered.
    Expired(Refusal),
}

/// A connection to one node, from its welcome to its end.
struct Connection {
    sink: Sink,
    stream: Stream,
    name: String,
    session: SessionState,
    /// Until when the node must have greeted.
    welcome_by: Option<Instant>,
    /// Numbers to be said now.
    to_send: VecDeque<u64>,
    /// Numbers of commands to be said once the session is there.
    held: Vec<u64>,
    /// Numbers to be said again at `retry_at`.
    later: Vec<u64>,
    retry_at: Option<Instant>,
    /// Numbers to be said again each at its time.
    delayed: BTreeSet<(Instant, u64)>,
    unflushed: bool,
    /// When the node was last heard, or had nothing to answer.
    heard: Instant,
    pinged: bool,
}

/// Why a connection is left.
enum Leave {
    /// All handles are gone and all requests settled.
    Done,
    /// A session is wanted, and this connection was opened without.
    ForSession,
    /// The connection is broken or the node is of no use.
    Lost(String),
    /// The node said what can't be read.
    Unreadable(String),
}

fn lost(error: tungstenite::Error) -> Leave {
    Leave::Lost(error.to_string())
}

pub(super) struct Driver {
    options: ClientOptions,
    /// So many nodes in a row have turned the client away.
    turned_away: usize,
    asks: mpsc::Receiver<Ask>,
    /// All handles are gone.
    closed: bool,
    pending: BTreeMap<u64, Pending>,
    last_number: u64,
    key: SessionKey,
    session: Option<u64>,
    cluster: Option<ClusterId>,
    /// The URL that is in use.
    url: usize,
    /// Connections left in a row without an answer that settled anything.
    failures: usize,
    pause: Duration,
    /// Why the last connection was left.
    failure: String,
    /// When there was a connection last.
    reached: Option<Instant>,
}

impl Driver {
    pub(super) fn new(options: ClientOptions, asks: mpsc::Receiver<Ask>) -> Driver {
        Driver {
            turned_away: 0,
            options,
            asks,
            closed: false,
            pending: BTreeMap::new(),
            last_number: 0,
            key: SessionKey(random::bytes()),
            session: None,
            cluster: None,
            url: 0,
            failures: 0,
            pause: FIRST_PAUSE,
            failure: "its time was up before it could be sent".into(),
            reached: None,
        }
    }

    pub(super) async fn run(mut self) {
        while self.has_work().await {
            let url = self.options.urls[self.url].clone();
            let longest = self.options.max_message_bytes;
            let trust = link::trust(&url, &mut self.options.tls);
            let left = match self.meanwhile(link::connect(&url, trust, longest)).await {
                Ok((sink, stream)) => match self.serve(sink, stream, url.to_string()).await {
                    Leave::Done => return,
                    Leave::ForSession => None,
                    Leave::Lost(why) => Some(format!("{url}: {why}")),
                    Leave::Unreadable(why) => {
                        self.note_unreadable(&why);
                        Some(format!("{url}: {why}"))
                    }
                },
                Err(why) => Some(why),
            };
            self.leave_connection();
            if let Some(why) = left {
                tracing::debug!("left a node: {why}");
                self.fail_over(why).await;
            }
        }
    }

    /// Waits until a request is pending. False: there will be none any more.
    async fn has_work(&mut self) -> bool {
        if self.pending.is_empty() && !self.closed {
            match self.asks.recv().await {
                Some(ask) => self.admit([ask]),
                None => self.closed = true,
            }
        }
        !self.pending.is_empty()
    }

    /// What was said on the connection that is gone may have been executed.
    fn leave_connection(&mut self) {
        for pending in self.pending.values_mut() {
            pending.attempts.connection_lost();
        }
    }

    /// A request that is asked again and again, of nodes that are not understood, would never be answered.
    fn note_unreadable(&mut self, why: &str) {
        for pending in self.pending.values_mut().filter(|pending| pending.attempts.is_waiting()) {
            pending.unreadable += 1;
        }
        for (_, pending) in self.pending.extract_if(.., |_, pending| pending.unreadable >= MAX_UNREADABLE) {
            pending.settle_unknown(why);
        }
    }

    /// Goes to the next node, after a pause if all were tried.
    async fn fail_over(&mut self, why: String) {
        self.failure = why;
        self.failures += 1;
        self.url = (self.url + 1) % self.options.urls.len();
        if self.failures.is_multiple_of(self.options.urls.len()) {
            let pause = self.next_pause();
            self.meanwhile(tokio::time::sleep(pause)).await;
        }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = random::jitter(self.pause);
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        pause
    }

    /// Takes requests in, and lets their time run out, while there is no connection.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let deadline = self.first_deadline();
            let mut asks = Vec::new();
            tokio::select! {
                done = &mut work => return done,
                taken = self.asks.recv_many(&mut asks, ASKS_AT_ONCE), if self.has_room() => {
                    self.closed = taken == 0;
                    self.admit(asks);
                }
                () = sleep_until_some(deadline) => self.expire(),
            }
        }
    }

    fn has_room(&self) -> bool {
        !self.closed && self.pending.len() < self.options.max_in_flight
    }

    fn first_deadline(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, pending)| pending.deadline)
    }

    fn admit(&mut self, asks: impl IntoIterator<Item = Ask>) {
        for Ask { request, deadline, answer } in asks {
            self.last_number += 1;
            let request_number = self.last_number;
            let message = match request {
                Request::Command(command) => {
                    ClientMessage::Command { request: request_number, command, acknowledged: 0 }
                }
                Request::Admin(admin) => {
                    ClientMessage::Admin { request: request_number, admin: Box::new(admin), acknowledged: 0 }
                }
                Request::Query(query, read) => ClientMessage::Query { request: request_number, query, read },
            };
            self.pending.insert(request_number, Pending::new(message, deadline, answer));
        }
    }

    /// Settles the requests whose time is up.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.get().deadline <= now) {
            let pending = entry.remove();
            // A slot that is not there: asking once more would hardly have told anything else.
            let is_early = |last: &Answered| last.refusal.as_ref().is_some_and(|r| r.code == ErrorCode::NotYetApplied);
            if pending.attempts.may_be_executed() && !pending.last.as_ref().is_some_and(is_early) {
                let why = match pending.last.as_ref().and_then(|last| last.refusal.as_ref()) {
                    Some(refusal) => format!("the last answer was {refusal}"),
                    None if pending.attempts.is_waiting() => "no answer came in time".to_owned(),
                    None => format!("the connection was lost ({})", self.failure),
                };
                pending.settle_unknown(why);
            } else if let Some(last) = pending.last.clone() {
                pending.settle(Ok(last));
            } else {
                let asked = pending.deadline.checked_sub(self.options.timeout);
                let reached = self.reached.is_some_and(|reached| asked.is_none_or(|asked| reached >= asked));
                let why = self.failure.clone();
                pending.settle(Err(Unanswered::NotReached(NotReached { why, reached })));
            }
        }
    }

    /// Speaks over one connection until it is left.
    async fn serve(&mut self, sink: Sink, stream: Stream, name: String) -> Leave {
        let wants_session = self.session.is_some() || self.pending.values().any(Pending::is_command);
        let now = Instant::now();
        let (mut to_send, mut delayed) = (VecDeque::new(), BTreeSet::new());
        for (number, pending) in &self.pending {
            match pending.not_before.filter(|at| *at > now) {
                Some(at) => _ = delayed.insert((at, *number)),
                None => to_send.push_back(*number),
            }
        }
        let mut connection = Connection {
            sink,
            stream,
            name,
            session: if wants_session { SessionState::Asked } else { SessionState::NotAsked },
            welcome_by: Some(now + WELCOME_TIMEOUT),
            to_send,
            held: Vec::new(),
            later: Vec::new(),
            retry_at: None,
            delayed,
            unflushed: true,
            heard: now,
            pinged: false,
        };
        let hello = Hello {
            version: CLIENT_VERSION,
            token: self.options.token.clone(),
            session: self.session.map(|number| SessionName { number, key: self.key }),
            open: (wants_session && self.session.is_none()).then_some(OpenSession { key: self.key }),
        };
        let hello = self.options.encoding.encode(&ClientMessage::Hello(hello));
        if let Err(error) = connection.sink.feed(link::message(self.options.encoding, hello)).await {
            return lost(error);
        }
        self.reached = Some(now);
        loop {
            if let Err(leave) = self.step(&mut connection).await {
                return match &connection.session {
                    SessionState::Expired(refusal) => self.lose_session(refusal),
                    _ => leave,
                };
            }
            if self.closed && self.pending.is_empty() {
                return self.say_goodbye(connection).await;
            }
        }
    }

    /// Says what can be said, and waits for the next thing to happen.
    async fn step(&mut self, connection: &mut Connection) -> Result<(), Leave> {
        self.say(connection).await?;
        let wake = self.next_wake(connection);
        let mut asks = Vec::new();
        tokio::select! {
            biased;
            frame = connection.stream.next() => self.hear_all(connection, frame)?,
            taken = self.asks.recv_many(&mut asks, ASKS_AT_ONCE), if self.has_room() => {
                self.closed = taken == 0;
                if self.pending.is_empty() {
                    // The node had nothing to say until now.
                    connection.heard = Instant::now();
                }
                let first = self.last_number + 1;
                self.admit(asks);
                connection.to_send.extend(first..=self.last_number);
            }
            flushed = connection.sink.flush(), if connection.unflushed => {
                flushed.map_err(lost)?;
                connection.unflushed = false;
            }
            () = sleep_until_some(wake) => self.check_time(connection).await?,
        }
        Ok(())
    }

    /// Says the numbers that are due, up to one flush full.
    async fn say(&mut self, connection: &mut Connection) -> Result<(), Leave> {
        if connection.unflushed {
            return Ok(());
        }
        let mut gathered = 0;
        while gathered < BYTES_AT_ONCE {
            let Some(number) = connection.to_send.pop_front() else { break };
            let acknowledged = self.pending.first_key_value().map_or(self.last_number, |(first, _)| first - 1);
            // Settled meanwhile, by an answer to an earlier attempt or by its time.
            let Some(pending) = self.pending.get_mut(&number) else { continue };
            if pending.is_command() {
                match connection.session {
                    SessionState::Ready => {}
                    SessionState::Asked | SessionState::Expired(_) => {
                        connection.held.push(number);
                        continue;
                    }
                    SessionState::NotAsked => return Err(Leave::ForSession),
                }
            }
            if let ClientMessage::Command { acknowledged: field, .. }
            | ClientMessage::Admin { acknowledged: field, .. } = &mut pending.message
            {
                *field = acknowledged;
            }
            let bytes = self.options.encoding.encode(&pending.message);
            if bytes.len() > self.options.max_message_bytes {
                let text = format!("{} bytes, at most {} are sent", bytes.len(), self.options.max_message_bytes);
                self.refuse_here(number, Refusal::refused(ErrorCode::TooLarge, text));
                continue;
            }
            pending.attempts.said();
            gathered += bytes.len();
            connection.unflushed = true;
            connection.sink.feed(link::message(self.options.encoding, bytes)).await.map_err(lost)?;
        }
        Ok(())
    }

    fn refuse_here(&mut self, number: u64, refusal: Refusal) {
        if let Some(pending) = self.pending.remove(&number) {
            pending.settle(Ok(Answered::refused_here(self.options.encoding, number, refusal)));
        }
    }

    fn next_wake(&self, connection: &Connection) -> Option<Instant> {
        let silence = (!self.pending.is_empty())
            .then(|| connection.heard + if connection.pinged { SILENCE_LIMIT } else { PING_AFTER });
        let delayed = connection.delayed.first().map(|(at, _)| *at);
        let wakes = [self.first_deadline(), connection.retry_at, delayed, connection.welcome_by, silence];
        wakes.into_iter().flatten().min()
    }

    /// Does what is due by now.
    async fn check_time(&mut self, connection: &mut Connection) -> Result<(), Leave> {
        let now = Instant::now();
        self.expire();
        if connection.retry_at.is_some_and(|at| at <= now) {
            connection.retry_at = None;
            connection.to_send.extend(connection.later.drain(..));
        }
        while let Some(&(at, number)) = connection.delayed.first()
            && at <= now
        {
            connection.delayed.pop_first();
            connection.to_send.push_back(number);
        }
        if connection.welcome_by.is_some_and(|by| by <= now) {
            return Err(Leave::Lost(format!("no welcome within {WELCOME_TIMEOUT:?}")));
        }
        if self.pending.is_empty() {
            connection.pinged = false;
        } else if connection.heard + SILENCE_LIMIT <= now {
            return Err(Leave::Lost(format!("no sign of life for {SILENCE_LIMIT:?}")));
        } else if connection.heard + PING_AFTER <= now && !connection.pinged {
            connection.pinged = true;
            // Where something still waits to be written, a ping would have to wait behind it, and us with it.
            if !connection.unflushed {
                connection.unflushed = true;
                connection.sink.feed(Message::Ping(Bytes::new())).await.map_err(lost)?;
            }
        }
        Ok(())
    }

    /// Hears this frame, and those that have come with it.
    fn hear_all(
        &mut self,
        connection: &mut Connection,
        first: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<(), Leave> {
        self.hear(connection, first)?;
        for _ in 1..FRAMES_AT_ONCE {
            let Some(frame) = connection.stream.next().now_or_never() else { break };
            self.hear(connection, frame)?;
        }
        Ok(())
    }

    fn hear(
        &mut self,
        connection: &mut Connection,
        frame: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<(), Leave> {
        connection.heard = Instant::now();
        self.reached = Some(connection.heard);
        connection.pinged = false;
        let (encoding, bytes) = match frame {
            Some(Ok(Message::Text(text))) => (Encoding::Json, Bytes::from(text)),
            Some(Ok(Message::Binary(bytes))) => (Encoding::MessagePack, bytes),
            Some(Ok(Message::Close(Some(close)))) => {
                return Err(Leave::Lost(format!("closed: {} {}", close.code, close.reason)));
            }
            Some(Ok(Message::Close(None))) | None => return Err(Leave::Lost("closed".into())),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Err(error)) => return Err(lost(error)),
        };
        match Incoming::decode(encoding, bytes) {
            Ok(Incoming::Welcome(welcome)) => self.welcomed(connection, &welcome),
            Ok(Incoming::Answer { request, answered }) => {
                self.answered(connection, request, answered)?;
                self.leave_if_expired(connection)
            }
            Ok(Incoming::Unreadable { request, why, answered }) => {
                let why = format!("the node's answer can't be read: {why}");
                self.settle(request, Err(Unanswered::Unknown(Unknown { why, last: Some(Box::new(answered)) })));
                self.leave_if_expired(connection)
            }
            Ok(Incoming::Unknown) => Ok(()),
            Ok(Incoming::Error(refusal)) if refusal.code == ErrorCode::SessionExpired => {
                Err(self.lose_session(&refusal))
            }
            Ok(Incoming::Error(refusal))
                if matches!(refusal.code, ErrorCode::NotAuthorised | ErrorCode::ClientTooOld) =>
            {
                Err(self.turned_away(&refusal))
            }
            Ok(Incoming::Error(refusal)) => Err(Leave::Lost(refusal.to_string())),
            Err(malformed) => Err(Leave::Unreadable(format!("a message that can't be read: {malformed}"))),
        }
    }

    fn welcomed(&mut self, connection: &mut Connection, welcome: &Welcome) -> Result<(), Leave> {
        connection.welcome_by = None;
        self.turned_away = 0;
        let cluster = *self.cluster.get_or_insert(welcome.cluster);
        if cluster != welcome.cluster {
            return Err(Leave::Lost(format!("a node of another cluster ({}, not {cluster})", welcome.cluster)));
        }
        if connection.session == SessionState::NotAsked {
            return Ok(());
        }
        match (self.session, welcome.session) {
            (None, Some(number)) => {
                self.session = Some(number);
                if welcome.opened {
                    self.settle_doubtful("the session is a new one");
                }
            }
            (Some(known), Some(number)) if known == number => {}
            (None, None) => return Err(Leave::Lost("the node opened no session".into())),
            (Some(_), _) => {
                let refusal = Refusal::unknown(ErrorCode::SessionExpired, "the node does not know the session");
                return Err(self.lose_session(&refusal));
            }
        }
        tracing::debug!("connected to {} as session {:?}", connection.name, self.session);
        connection.session = SessionState::Ready;
        connection.to_send.extend(connection.held.drain(..));
        Ok(())
    }

    fn answered(&mut self, connection: &mut Connection, number: u64, answered: Answered) -> Result<(), Leave> {
        // No longer pending: its time was up, or it was answered twice because it was said twice.
        let Some(pending) = self.pending.get_mut(&number) else { return Ok(()) };
        pending.unreadable = 0;
        let Some(refusal) = answered.refusal.clone() else {
            pending.attempts.answered();
            self.settle(number, Ok(answered));
            return Ok(());
        };
        match pending.attempts.refused(&refusal) {
            Verdict::Settled => self.settle(number, Ok(answered)),
            Verdict::Unknown => self.settle_unknown(number, &refusal, answered),
            Verdict::SessionGone => {
                if pending.attempts.is_doubtful() {
                    self.settle_unknown(number, &refusal, answered);
                }
                connection.session = SessionState::Expired(refusal.clone());
            }
            Verdict::Again { strange: true, .. } => {
                let at = Instant::now() + random::jitter(pending.pause);
                pending.last = Some(answered);
                pending.pause = (2 * pending.pause).min(LONGEST_STRANGE_PAUSE);
                pending.not_before = Some(at);
                connection.delayed.insert((at, number));
            }
            Verdict::Again { strange: false, .. } => {
                pending.last = Some(answered);
                connection.later.push(number);
                if connection.retry_at.is_none() {
                    connection.retry_at = Some(Instant::now() + self.next_pause());
                }
            }
        }
        match refusal.code {
            ErrorCode::Stopping | ErrorCode::NoQuorum | ErrorCode::NotYetApplied if self.options.urls.len() > 1 => {
                Err(Leave::Lost(refusal.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Leaves a connection whose session is gone, once everything that was said in it has its answer.
    fn leave_if_expired(&mut self, connection: &Connection) -> Result<(), Leave> {
        match &connection.session {
            SessionState::Expired(refusal)
                if !self.pending.values().any(|p| p.is_command() && p.attempts.is_waiting()) =>
            {
                Err(self.lose_session(refusal))
            }
            _ => Ok(()),
        }
    }

    /// A node does not serve this client. Once every node has said so, nothing that waits will be carried out by it.
    fn turned_away(&mut self, refusal: &Refusal) -> Leave {
        self.turned_away += 1;
        if self.turned_away >= self.options.urls.len() {
            self.turned_away = 0;
            let doubtful = |pending: &Pending| pending.is_command() && pending.attempts.may_be_executed();
            for (number, pending) in mem::take(&mut self.pending) {
                if doubtful(&pending) {
                    pending.settle_unknown(refusal.to_string());
                } else {
                    pending.settle(Ok(Answered::refused_here(self.options.encoding, number, refusal.clone())));
                }
            }
        }
        Leave::Lost(refusal.to_string())
    }

    fn settle_unknown(&mut self, number: u64, refusal: &Refusal, answered: Answered) {
        let (why, last) = (refusal.to_string(), Some(Box::new(answered)));
        self.settle(number, Err(Unanswered::Unknown(Unknown { why, last })));
    }

    fn settle(&mut self, number: u64, outcome: Result<Answered, Unanswered>) {
        self.failures = 0;
        self.pause = FIRST_PAUSE;
        if let Some(pending) = self.pending.remove(&number) {
            pending.settle(outcome);
        }
    }

    /// The session is gone: what may have been executed in it will never have an answer. The rest goes on in a new one.
    fn lose_session(&mut self, refusal: &Refusal) -> Leave {
        self.session = None;
        self.key = SessionKey(random::bytes());
        self.settle_doubtful(&refusal.to_string());
        Leave::Lost(refusal.to_string())
    }

    /// What may have been executed in a session that is gone will never have an answer.
    fn settle_doubtful(&mut self, why: &str) {
        let is_stuck = |pending: &Pending| pending.is_command() && pending.attempts.may_be_executed();
        let (stuck, rest) = mem::take(&mut self.pending).into_iter().partition(|(_, pending)| is_stuck(pending));
        self.pending = rest;
        for (_, pending) in BTreeMap::into_iter(stuck) {
            pending.settle_unknown(why);
        }
    }

    /// Ends the session, if there is one, and sees the connection off, so that a process may end after this.
    async fn say_goodbye(&self, mut connection: Connection) -> Leave {
        let farewell = async {
            if connection.session == SessionState::Ready {
                let goodbye = self.options.encoding.encode(&ClientMessage::Goodbye);
                connection.sink.send(link::message(self.options.encoding, goodbye)).await?;
            }
            connection.sink.close().await?;
            while connection.stream.next().await.is_some() {}
            Ok::<(), tungstenite::Error>(())
        };
        // Nothing depends on it: a session that nobody ends expires.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await;
        Leave::Done
    }
}

async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
