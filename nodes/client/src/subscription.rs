//! Subscriptions: transactions as they are applied, without a gap and each once, over lost connections and nodes.
//!
//! A [`Subscription`] has a connection of its own, so that a feed never delays the answers of a client. A task reads it and
//! remembers the next transaction that it has to see; when the node is lost or silent it goes to the next URL and has the
//! feed go on from there. What arrives is checked: ids go up, and in a feed of everything each is one above the last.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{SinkExt, Stream, StreamExt};
use rabia_bank_messages::bank::{ErrorCode, ReadLevel, Refusal, Success, Transaction};
use rabia_bank_messages::client::{
    Answer, AnswerResult, CLIENT_VERSION, ClientMessage, Feed, Hello, ServerMessage, Welcome,
};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::ClusterId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::link::{self, Sink};
use super::{CallError, ClientOptions, NodeUrl, NotReached, Unknown, frame, is_passing};
use crate::random;

/// A node that said nothing for this long is asked for a sign of life; without one for as long again, it is left.
const PING_AFTER: Duration = Duration::from_secs(1);
/// The pause after all nodes were tried; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A node that was followed for this long is a good one: the next one is asked after the shortest pause.
const LASTED: Duration = Duration::from_secs(5);
/// Connections in a row that may end with a message that can't be read, without anything that can. Then the feed ends.
const MAX_UNREADABLE: u32 = 3;
/// Transactions that wait for the subscriber to take them. Beyond, they wait at the node.
const UNREAD: usize = 1_024;
/// The number of the only request of a connection.
const REQUEST: u64 = 1;

/// Transactions of a feed, in order. Dropping it ends it.
///
/// It ends by itself after an error: [`CallError::Refused`] if there is no such account, [`CallError::NotReached`] if no node
/// served it for [`ClientOptions::timeout`], [`CallError::Unknown`] if what comes next can't be read by this program. Then a new one can go on [`from`](Feed::from) the id after the last one seen.
#[derive(Debug)]
pub struct Subscription {
    news: mpsc::Receiver<Result<Transaction, CallError>>,
}

impl Subscription {
    /// Subscribes. Where `feed` says no `from`, it begins with the first transaction that is applied after a node has heard
    /// of it.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and if `options` names no URL.
    pub fn new(options: ClientOptions, feed: Feed) -> Subscription {
        assert!(!options.urls.is_empty(), "a subscription needs the URL of at least one node");
        let (teller, news) = mpsc::channel(UNREAD);
        let (served, pause) = (Instant::now(), FIRST_PAUSE);
        let (cluster, subscribed, reached, unreadable) = (None, false, false, 0);
        tokio::spawn(Follower { options, feed, teller, cluster, subscribed, served, reached, pause, unreadable }.run());
        Subscription { news }
    }

    /// The next transaction; `None` after an error.
    pub async fn next(&mut self) -> Option<Result<Transaction, CallError>> {
        self.news.recv().await
    }
}

impl Stream for Subscription {
    type Item = Result<Transaction, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.news.poll_recv(cx)
    }
}

/// Why a connection is left.
enum Leave {
    /// Nobody wants to know any more.
    Gone,
    /// The bank refuses it.
    Refused(Refusal),
    /// The connection is broken or the node is of no use.
    Lost(String),
    /// The node said what can't be read.
    Unreadable(String),
}

/// The task that reads the connection.
struct Follower {
    options: ClientOptions,
    /// What is still to come: `from` is the next transaction to see, once a node has said where the feed begins.
    feed: Feed,
    teller: mpsc::Sender<Result<Transaction, CallError>>,
    cluster: Option<ClusterId>,
    /// The node of this connection has said where the feed begins.
    subscribed: bool,
    /// When a node that served the feed was left. (It may have been a quiet one.)
    served: Instant,
    /// A node was connected to since.
    reached: bool,
    pause: Duration,
    /// Connections in a row that ended with a message that can't be read, since something could be.
    unreadable: u32,
}

impl Follower {
    async fn run(mut self) {
        let urls = self.options.urls.clone();
        for (tries, url) in urls.iter().cycle().enumerate() {
            let began = Instant::now();
            let why = match self.serve(url).await {
                Leave::Gone => return,
                Leave::Refused(refusal) => return self.end(CallError::Refused(refusal)).await,
                Leave::Lost(why) => format!("{url}: {why}"),
                Leave::Unreadable(why) => {
                    self.unreadable += 1;
                    let why = format!("{url}: {why}");
                    if self.unreadable >= MAX_UNREADABLE {
                        return self.end(CallError::Unknown(Unknown { why, last: None })).await;
                    }
                    why
                }
            };
            tracing::debug!("a subscription left a node: {why}");
            if self.subscribed && began.elapsed() >= LASTED {
                self.pause = FIRST_PAUSE;
            }
            if std::mem::take(&mut self.subscribed) {
                self.served = Instant::now();
                self.reached = false;
            }
            if self.served.elapsed() >= self.options.timeout {
                let reached = self.reached;
                return self.end(CallError::NotReached(NotReached { why, reached })).await;
            }
            if (tries + 1).is_multiple_of(urls.len()) {
                tokio::select! {
                    () = tokio::time::sleep(random::jitter(self.pause)) => {}
                    () = self.teller.closed() => return,
                }
                self.pause = (2 * self.pause).min(LONGEST_PAUSE);
            }
        }
    }

    async fn end(self, error: CallError) {
        // Who subscribed may be gone.
        let _ = self.teller.send(Err(error)).await;
    }

    /// Follows the feed over one connection until that is left.
    async fn serve(&mut self, url: &NodeUrl) -> Leave {
        let trust = link::trust(url, &mut self.options.tls);
        let (mut sink, mut stream) = match link::connect(url, trust, self.options.max_message_bytes).await {
            Ok(connection) => connection,
            Err(why) => return Leave::Lost(why),
        };
        self.reached = true;
        let token = self.options.token.clone();
        let hello = Hello { version: CLIENT_VERSION, token, session: None, open: None };
        let feed = self.feed.clone();
        let subscribe = ClientMessage::Subscribe { request: REQUEST, feed, read: ReadLevel::Linearizable };
        for message in [ClientMessage::Hello(hello), subscribe] {
            if let Err(leave) = self.say(&mut sink, &message).await {
                return leave;
            }
        }
        let mut pinged = false;
        loop {
            let teller = self.teller.clone();
            let heard = tokio::select! {
                heard = timeout(PING_AFTER, stream.next()) => heard,
                () = teller.closed() => return Leave::Gone,
            };
            let done = match heard {
                Ok(Some(Ok(frame))) => {
                    pinged = false;
                    self.hear(frame).await
                }
                Ok(Some(Err(error))) => Err(Leave::Lost(error.to_string())),
                Ok(None) => Err(Leave::Lost("closed".into())),
                Err(_) if pinged => Err(Leave::Lost(format!("no sign of life for {:?}", 2 * PING_AFTER))),
                Err(_) => {
                    pinged = true;
                    sink.send(Message::Ping(Bytes::new())).await.map_err(|error| Leave::Lost(error.to_string()))
                }
            };
            if let Err(leave) = done {
                return leave;
            }
        }
    }

    async fn say(&self, sink: &mut Sink, message: &ClientMessage) -> Result<(), Leave> {
        let encoding = self.options.encoding;
        let frame = link::message(encoding, encoding.encode(message));
        sink.send(frame).await.map_err(|error| Leave::Lost(error.to_string()))
    }

    async fn hear(&mut self, frame: Message) -> Result<(), Leave> {
        let (encoding, bytes) = match &frame {
            Message::Text(text) => (Encoding::Json, text.as_bytes()),
            Message::Binary(bytes) => (Encoding::MessagePack, &bytes[..]),
            Message::Close(Some(close)) => {
                return Err(Leave::Lost(format!("closed: {} {}", close.code, close.reason)));
            }
            Message::Close(None) => return Err(Leave::Lost("closed".into())),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        let message = match encoding.decode_server(bytes) {
            Ok(message) => message,
            Err(_) if frame::is_of_unknown_kind(encoding, bytes) => return Ok(()),
            Err(error) => return Err(Leave::Unreadable(format!("a message that can't be read: {error}"))),
        };
        match message {
            ServerMessage::Welcome { welcome } => self.welcomed(&welcome),
            ServerMessage::Answer(answer) => self.answered(*answer),
            ServerMessage::Transaction { transaction, .. } => self.tell(*transaction).await,
            ServerMessage::Reached { reached, .. } => {
                self.feed.from = self.feed.from.max(Some(reached.saturating_add(1)));
                self.went_on();
                Ok(())
            }
            ServerMessage::Error { error }
                if matches!(error.code, ErrorCode::NotAuthorised | ErrorCode::ClientTooOld) =>
            {
                Err(Leave::Refused(error))
            }
            ServerMessage::Error { error } => Err(Leave::Lost(error.to_string())),
        }
    }

    fn welcomed(&mut self, welcome: &Welcome) -> Result<(), Leave> {
        let cluster = *self.cluster.get_or_insert(welcome.cluster);
        if cluster != welcome.cluster {
            return Err(Leave::Lost(format!("a node of another cluster ({}, not {cluster})", welcome.cluster)));
        }
        Ok(())
    }

    fn answered(&mut self, answer: Answer) -> Result<(), Leave> {
        match answer.result {
            AnswerResult::Ok(Success::Subscribed { from }) => {
                if let Some(asked) = self.feed.from.filter(|asked| (*asked).max(1) != from) {
                    return Err(Leave::Lost(format!("a feed from {asked} on would begin with {from}")));
                }
                self.feed.from = Some(from);
                self.subscribed = true;
                Ok(())
            }
            AnswerResult::Ok(other) => Err(Leave::Lost(format!("a subscription was answered with {other:?}"))),
            AnswerResult::Error(refusal) => {
                Err(if is_passing(&refusal.code) { Leave::Lost(refusal.to_string()) } else { Leave::Refused(refusal) })
            }
        }
    }

    async fn tell(&mut self, transaction: Transaction) -> Result<(), Leave> {
        let id = transaction.transaction_id;
        let everything = self.feed.account_id.is_none() && self.feed.min_amount.is_none();
        match self.feed.from {
            Some(from) if id == from || (id > from && !everything) => {}
            expected => return Err(Leave::Lost(format!("transaction {id} came where {expected:?} was to come"))),
        }
        self.teller.send(Ok(transaction)).await.map_err(|_| Leave::Gone)?;
        self.feed.from = Some(id.saturating_add(1));
        self.went_on();
        Ok(())
    }

    /// The feed is further than it was.
    fn went_on(&mut self) {
        (self.pause, self.unreadable) = (FIRST_PAUSE, 0);
    }
}
