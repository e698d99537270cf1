//! The client library: commands and queries to a cluster, over one WebSocket at a time.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rabia_bank_client::bank::ReadLevel;
//! use rabia_bank_client::{BankCalls, Client, ClientOptions, NodeUrl, find_token};
//!
//! let urls = NodeUrl::list("ws://127.0.0.1:7101,ws://127.0.0.1:7102,ws://127.0.0.1:7103")?;
//! let token = find_token("rabia-bank-data/client.token".as_ref())?;
//! let client = Client::connect(ClientOptions { token, ..ClientOptions::new(urls) });
//! let transfer = client.transfer("alice", "bob", 300).await?;
//! let balance = client.balance("bob", ReadLevel::AtLeast(transfer.slot)).await?;
//! println!("transaction {}, bob has {}", transfer.value.transaction_id, balance.value);
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is one session. Any number of calls may be under way at once: they share the socket, and what was called
//! first is not necessarily answered first. A task of its own owns the socket. When the node is lost, silent, stopping or
//! without a quorum, the task goes to the next URL, goes on with the same session and says everything again that has no
//! answer yet, with the same request numbers, so that nothing is applied twice. It does that until the call's time is up.
//!
//! What a call answers is never a guess:
//! - `Ok`: applied (or read), once, and durable on f + 1 nodes.
//! - [`CallError::Refused`]: certainly not executed.
//! - [`CallError::NotReached`]: certainly not executed, since it was never sent.
//! - [`CallError::Unknown`]: it was sent, and whether it was executed could not be found out in time. It may still be.
//!
//! Nodes of later versions may say words and fields that this program does not know. It keeps them as they came
//! ([`OtherFields`], [`TypeName::Other`], [`ErrorCode::Other`]); a refusal with an unknown code means what its outcome says. An
//! answer that can't be read at all is [`CallError::Unknown`], and not asked for again.
//!
//! [`ErrorCode::Other`]: rabia_bank_messages::bank::ErrorCode::Other
//! [`OtherFields`]: rabia_bank_messages::bank::OtherFields
//! [`TypeName::Other`]: rabia_bank_messages::bank::TypeName::Other
//!
//! [`Client::command`] and [`Client::query`] take and give the messages as they are on the wire; the calls beside them,
//! such as [`transfer`](BankCalls::transfer), are typed. [`accounts`](BankCalls::accounts) and [`history`](BankCalls::history) are streams that read page after
//! page. A [`Subscription`] is told of transactions as they are applied.
//!
//! A call whose future is dropped goes on in the background; its outcome is lost.
//!
//! Whoever writes a client of its own finds the rule of what a refusal says of a request in [`retry`].

mod driver;
mod frame;
mod link;
mod random;
pub mod retry;
mod subscription;
mod tls;
mod tokens;
mod typed;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rabia_bank_messages::bank::{Command, Query, ReadLevel, Refusal, Success};
use rabia_bank_messages::client::{CLIENT_PATH, MAX_CLIENT_MESSAGE};
use rabia_bank_messages::codec::Malformed;
use rabia_bank_messages::principal::Admin;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::http::Uri;

pub use frame::Answered;
pub use rabia_bank_messages::bank;
pub use rabia_bank_messages::client::Feed;
pub use rabia_bank_messages::codec::Encoding;
pub use rabia_bank_messages::ids::Slot;
pub use rabia_bank_messages::principal;
pub use rabia_bank_messages::token::Token;
pub use retry::is_passing;
pub use subscription::Subscription;
pub use tls::{BadTls, Tls};
pub use tokens::{TOKEN_VARIABLE, find_token};
pub use typed::{BankCalls, Receipt};

/// How long a call may take where [`ClientOptions`] does not say: longer than a node waits for a quorum.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many calls may be under way at once where [`ClientOptions`] does not say: an eighth of what a node grants.
pub const DEFAULT_IN_FLIGHT: usize = 1_024;
/// No call takes longer, whatever [`ClientOptions`] says: a clock can't be read so far ahead that it would overflow.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The longest message that is sent where [`ClientOptions`] does not say, in bytes: what a node takes by default.
pub const DEFAULT_MESSAGE_BYTES: usize = MAX_CLIENT_MESSAGE;

/// Where a node listens for clients: `ws://host:port/path`, or `wss://…` for TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeUrl {
    uri: Uri,
    /// `host:port`, to connect to.
    address: String,
    tls: bool,
}

/// A text that is no URL of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no URL of a node: {problem}; write ws://host:port, or wss://host:port for TLS")]
pub struct BadUrl {
    text: String,
    problem: String,
}

impl FromStr for NodeUrl {
    type Err = BadUrl;

    /// Reads `ws://host:port` or `wss://host:port`. Where the scheme is missing it is `ws`; a path that is missing is added.
    fn from_str(text: &str) -> Result<NodeUrl, BadUrl> {
        let bad = |problem: &str| BadUrl { text: text.to_owned(), problem: problem.to_owned() };
        let full = if text.contains("://") { text.to_owned() } else { format!("ws://{text}") };
        let uri: Uri = full.parse().map_err(|_| bad("it can't be parsed"))?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(bad("the scheme must be ws or wss")),
        };
        let Some(authority) = uri.authority() else { return Err(bad("the host is missing")) };
        if authority.host().is_empty() {
            return Err(bad("the host is missing"));
        }
        let Some(port) = authority.port_u16() else { return Err(bad("the port is missing")) };
        let path = if uri.path() == "/" { CLIENT_PATH } else { uri.path() };
        let address = format!("{}:{port}", authority.host());
        let uri = format!("{}://{address}{path}", scheme(tls)).parse().map_err(|_| bad("it can't be parsed"))?;
        Ok(NodeUrl { uri, address, tls })
    }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "wss" } else { "ws" }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", scheme(self.tls), self.address)
    }
}

impl NodeUrl {
    /// The same node at another path.
    pub fn at_path(&self, path: &'static str) -> NodeUrl {
        let uri = format!("{self}{path}").parse();
        NodeUrl { uri: uri.unwrap_or_else(|_| self.uri.clone()), ..self.clone() }
    }

    /// Whether the node is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host, as it stands in the URL.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// Reads URLs with commas in between.
    ///
    /// # Errors
    /// If one of them is none.
    pub fn list(text: &str) -> Result<Vec<NodeUrl>, BadUrl> {
        text.split(',').map(|url| url.trim().parse()).collect()
    }
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The nodes of one cluster, tried in this order; at least one.
    pub urls: Vec<NodeUrl>,
    /// Who the client is. Without it nodes serve nothing.
    pub token: Option<Token>,
    /// The encoding of all messages.
    pub encoding: Encoding,
    /// How long a call may take, retries included.
    pub timeout: Duration,
    /// How many calls may be under way; more wait for their turn, which counts as part of their time.
    pub max_in_flight: usize,
    /// The longest message that is sent, in bytes. Longer ones are refused here, as `too_large`.
    pub max_message_bytes: usize,
    /// Whom to trust at URLs with `wss`; where nothing is said, whom this system trusts.
    pub tls: Option<Tls>,
}

impl ClientOptions {
    /// No token, MessagePack, and the defaults of this module.
    pub fn new(urls: Vec<NodeUrl>) -> ClientOptions {
        ClientOptions {
            urls,
            token: None,
            encoding: Encoding::MessagePack,
            timeout: DEFAULT_TIMEOUT,
            max_in_flight: DEFAULT_IN_FLIGHT,
            max_message_bytes: DEFAULT_MESSAGE_BYTES,
            tls: None,
        }
    }
}

/// What to ask of the bank.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// To change something. It is applied once, however often it is sent.
    Command(Command),
    /// Changes who may do what, once.
    Admin(Admin),
    /// To look something up.
    Query(Query, ReadLevel),
}

/// A command that was applied, or a query that was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The slot that it was applied in or read at, where the node named it. A read `at_least` this slot sees it.
    pub slot: Option<Slot>,
    /// Of a command: its place in that slot, from 0. Commands are ordered by slot and index.
    pub index: Option<u32>,
    /// Whether the answer is that to an earlier attempt.
    pub replayed: bool,
    /// What came of it.
    pub success: Success,
}

/// The outcome could not be found out in time: the request may have been executed, or may yet be.
/// (Of a query: it had no answer.)
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("outcome unknown: {why}")]
pub struct Unknown {
    /// What stood in the way, for people.
    pub why: String,
    /// The last answer, if there was one; perhaps one that this program can't read.
    pub last: Option<Box<Answered>>,
}

/// No node could be reached in time, or none that could serve, so the request was never carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {why}", if *reached { "no node could serve it" } else { "no node reached" })]
pub struct NotReached {
    /// What stood in the way, for people.
    pub why: String,
    /// Whether there was a connection to a node, which could not serve: it had no quorum, or was stopping.
    pub reached: bool,
}

/// Why a request has no answer that settles it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unanswered {
    /// It may have been executed.
    #[error(transparent)]
    Unknown(Unknown),
    /// It was certainly not executed.
    #[error(transparent)]
    NotReached(NotReached),
}

/// Why a call brought no success.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// Certainly not executed, by any attempt.
    #[error(transparent)]
    Refused(Refusal),
    /// It may have been executed.
    #[error(transparent)]
    Unknown(Unknown),
    /// Certainly not executed: it was never sent.
    #[error(transparent)]
    NotReached(NotReached),
}

impl From<Unanswered> for CallError {
    fn from(unanswered: Unanswered) -> CallError {
        match unanswered {
            Unanswered::Unknown(unknown) => CallError::Unknown(unknown),
            Unanswered::NotReached(not_reached) => CallError::NotReached(not_reached),
        }
    }
}

/// A request on its way to the task that owns the socket.
struct Ask {
    request: Request,
    deadline: Instant,
    answer: oneshot::Sender<Result<Answered, Unanswered>>,
}

/// A session with a cluster. See the [module](self) for what it promises.
#[derive(Debug)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    timeout: Duration,
    driver: tokio::task::JoinHandle<()>,
}

impl Client {
    /// A client of these nodes. The connection is made when the first request is there, and again after it was lost.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and if `options` names no URL or grants no request in flight.
    pub fn connect(options: ClientOptions) -> Client {
        assert!(!options.urls.is_empty(), "a client needs the URL of at least one node");
        assert!(options.max_in_flight > 0, "a client needs at least one request in flight");
        let (asks, queue) = mpsc::channel(options.max_in_flight);
        let timeout = options.timeout.min(LONGEST_TIMEOUT);
        Client { asks, timeout, driver: tokio::spawn(driver::Driver::new(options, queue).run()) }
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// See the [module](self).
    pub async fn command(&self, command: Command) -> Result<Applied, CallError> {
        self.ask(Request::Command(command)).await?.into_applied()
    }

    /// Asks for a change of who may do what.
    ///
    /// # Errors
    /// See the [module](self).
    pub async fn administer(&self, admin: Admin) -> Result<Applied, CallError> {
        self.ask(Request::Admin(admin)).await?.into_applied()
    }

    /// Looks something up.
    ///
    /// # Errors
    /// See the [module](self).
    pub async fn query(&self, query: Query, read: ReadLevel) -> Result<Applied, CallError> {
        self.ask(Request::Query(query, read)).await?.into_applied()
    }

    /// Asks, and hands out the answer as it came: applied or refused.
    ///
    /// # Errors
    /// If there is no answer that settles the request.
    pub async fn ask(&self, request: Request) -> Result<Answered, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { request, deadline: Instant::now() + self.timeout, answer };
        // The task ends only when this handle is gone, or with a panic.
        let why = || "the client's task has ended".to_owned();
        match self.asks.send(ask).await {
            Err(_) => Err(Unanswered::NotReached(NotReached { why: why(), reached: false })),
            Ok(()) => match answered.await {
                Ok(outcome) => outcome,
                Err(_) => Err(Unanswered::Unknown(Unknown { why: why(), last: None })),
            },
        }
    }

    /// Ends the session and the connection, after all requests have their outcome.
    pub async fn close(self) {
        drop(self.asks);
        if let Err(panic) = self.driver.await {
            tracing::error!("the client's task has failed: {panic}");
        }
    }
}

impl Answered {
    /// What the answer says, or why it can't be read.
    fn into_applied(self) -> Result<Applied, CallError> {
        if let Some(refusal) = self.refusal {
            return Err(CallError::Refused(refusal));
        }
        match self.success() {
            Ok(success) => Ok(Applied { slot: self.slot, index: self.index, replayed: self.replayed, success }),
            Err(Malformed { message, .. }) => {
                let why = format!("the node's answer can't be read: {message}");
                Err(CallError::Unknown(Unknown { why, last: Some(Box::new(self)) }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
