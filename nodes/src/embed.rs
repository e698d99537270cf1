//! Embedding: a node, or a whole cluster, inside your own program.
//!
//! # From nothing to running
//!
//! In a new program beside a checkout of this repository:
//!
//! ```text
//! cargo new shop
//! cd shop
//! cargo add --path ../rabia-bank/nodes
//! cargo add --path ../rabia-bank/messages
//! cargo add tokio --features rt,macros
//! ```
//!
//! `src/main.rs`, the whole of it:
//!
//! ```
//! use rabia_bank::create::{NewCluster, create_or_open};
//! use rabia_bank::embed::Embedded;
//! use rabia_bank_messages::bank::{Amount, Command, Operation, Query, ReadLevel};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // A cluster of one node, whose data lies in this folder; the next run goes on with it.
//!     let new = NewCluster::new("bank-data", 1);
//! #   let folder = tempfile::tempdir()?;
//! #   let base_port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().min(65_000);
//! #   let new = NewCluster { base_port, ..NewCluster::new(folder.path().join("bank"), 1) };
//!     let mut members = create_or_open(&new)?;
//!     // On a thread of its own: beside tokio, async-std, a game loop, or nothing.
//!     let node = Embedded::start_on_thread(members.remove(0))?;
//!
//!     let bank = node.session().await?;
//!     for (name, cents) in [("alice", 1_000), ("bob", 0)] {
//!         let (account_id, initial_balance) = (name.into(), Amount::new(cents));
//!         let opened = bank.command(Command::One(Operation::CreateAccount { account_id, initial_balance })).await;
//!         println!("{opened:?}"); // the second time it is there already: account_exists
//! #       opened?;
//!     }
//!     let (from_account, to_account) = ("alice".into(), "bob".into());
//!     let transfer = Operation::Transfer { from_account, to_account, amount: Amount::new(300) };
//!     bank.command(Command::One(transfer)).await?;
//!     let read = bank.query(Query::GetBalance { account_id: "bob".into() }, ReadLevel::Linearizable).await?;
//!     println!("{:?} as of slot {:?}", read.success, read.slot);
//! #   assert_eq!(read.success, rabia_bank_messages::bank::Success::Balance { balance: 300 });
//!     Ok(node.stop().await?)
//! }
//! ```
//!
//! `rabia-bank client status --connect ws://127.0.0.1:7101` shows it from outside meanwhile. In the examples, `smallest` is a program
//! like this one, `game_economy` has its own actor as a client, and `rest_service` puts HTTP before three nodes.
//!
//! # Inside an actix System
//!
//! [`Embedded::start`] runs the node's actors on the arbiter that it is called on, beside your own. What you send to the bank are
//! typed messages ([`Command`], [`Query`], [`Subscribe`]) to the actor behind a [`Session`] ([`Session::address`]): from an
//! actor of yours, `session.address().send(Command::new(command))` is a future like that of any other actor. Starting
//! blocks the thread while the books are read. The node stops nothing but itself: your System is yours.
//!
//! # What a host should know
//!
//! - **Sessions.** A [`Session`] is one of the bank's own sessions, so a command in it is executed once. [`Embedded::session`]
//!   draws a key and closes the session in the log when the [`Session`] is dropped. [`Embedded::session_with`] opens one with
//!   a key that you remember: after a restart, or at another node, the same key and the same number ([`Command::numbered`])
//!   get the same answer. Such a session stays until it expires.
//! - **Outcomes.** `Ok`: applied, and on the disks of a majority. `Err`: the [`Refusal`]'s `outcome` says whether it was certainly
//!   not executed (`Refused`) or whether nobody knows (`Unknown`). A numbered command with an unknown outcome may be asked again.
//! - **Reads.** [`ReadLevel::Linearizable`] sees all that was answered to anybody before, and costs a round among the nodes that
//!   all reads of a moment share. [`ReadLevel::AtLeast`] the slot of a [`Reply`] sees your own write, at any node, without a
//!   round. [`ReadLevel::Local`] is what this node has, at once.
//! - **Failure.** A node is fail-stop. [`Embedded::ended`] resolves when it has stopped, with the reason; what was asked of it and
//!   has no answer is unknown. Build with `panic = "abort"`, or see to it that a panic in your own code does not take the node's
//!   thread along unnoticed: `ended` tells of that, too.
//! - **More than one node.** Nothing is global: start as many [`Embedded`] as you like, in one process or in many. They find one
//!   another by the addresses in their configurations, as separate processes do. Sessions can be used at any of them.
//! - **WebSocket clients** are served besides, on `client_listen`, so that `rabia-bank client status` works against your program.

use std::sync::Arc;

use actix::Addr;
use rabia_bank_actors::failure::Stopped;
use rabia_bank_actors::handle::NodeHandle;
use rabia_bank_messages::bank::{self, ErrorCode, Outcome, ReadLevel, Refusal, Status, Success};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::SessionKey;
use tokio::sync::watch;

pub use rabia_bank_actors::host_session::HostSession;
pub use rabia_bank_actors::mail::host_session::{Close, Command, Happened, Heard, Query, Reply, Subscribe};

use crate::config::NodeConfig;
use crate::{NodeError, server};

/// A node inside this program. Clones are handles of the same node; it stops when it is told to, or when the last of them is
/// dropped.
#[derive(Clone)]
pub struct Embedded {
    handle: NodeHandle,
    stop: Arc<watch::Sender<bool>>,
    ended: watch::Receiver<Option<Result<(), NodeError>>>,
}

impl Embedded {
    /// Starts a node on the arbiter of the actix System that this is called in. Blocks the thread while the books are read and
    /// the log behind them is applied.
    ///
    /// # Errors
    /// Why it refuses to start: its files, or its addresses.
    pub async fn start(config: NodeConfig) -> Result<Embedded, NodeError> {
        let (stop, mut stopping) = watch::channel(false);
        let (end, ended) = watch::channel(None);
        let handle = server::start(&config)?;
        let listeners = match server::listen_all(&config).await {
            Ok(listeners) => listeners,
            Err(error) => {
                server::stop(&handle).await;
                return Err(error);
            }
        };
        let serving = server::serve(config, handle.clone(), listeners, async move {
            // An error: the last handle was dropped.
            let _ = stopping.wait_for(|stop| *stop).await;
        });
        tokio::task::spawn_local(async move {
            let result = serving.await;
            // Nobody may want to know.
            let _ = end.send(Some(result));
        });
        Ok(Embedded { handle, stop: Arc::new(stop), ended })
    }

    /// Starts a node on a thread of its own, with an actix System of its own. Blocks until it serves, or does not.
    ///
    /// # Errors
    /// Why it refuses to start: its files, or its addresses.
    pub fn start_on_thread(config: NodeConfig) -> Result<Embedded, NodeError> {
        let (started, starting) = std::sync::mpsc::channel();
        let name = format!("node-{}", config.node);
        let run = move || {
            actix::System::new().block_on(async move {
                match Embedded::start(config).await {
                    Ok(node) => {
                        let mut ended = node.ended.clone();
                        // This thread's own handle must not keep the node alive.
                        let _ = started.send(Ok(node));
                        let _ = ended.wait_for(Option::is_some).await;
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            });
        };
        let spawned = std::thread::Builder::new().name(name).spawn(run);
        spawned.map_err(|error| NodeError::Refused(format!("no thread for the node: {error}")))?;
        let died = || NodeError::Failed("the node's thread has died: see the panic message above".into());
        starting.recv().unwrap_or_else(|_| Err(died()))
    }

    /// A session of its own, which ends with the [`Session`]. One that has expired meanwhile is followed by another.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn session(&self) -> Result<Session, Stopped> {
        let actor = self.handle.open_own_session().await?;
        Ok(Session { actor, close: true })
    }

    /// The session with this key, which is opened if it is not open. It stays open after the [`Session`], until it expires.
    /// Whoever knows the key speaks in it, so draw it at random, or make it of a secret.
    ///
    /// The key of a session that ended opens no other: every command is [`ErrorCode::SessionExpired`] then, also one that was executed
    /// long ago, so its outcome is unknown. The cluster remembers the keys of the last 262,144 sessions that ended; one that ended
    /// before is opened anew.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn session_with(&self, key: SessionKey) -> Result<Session, Stopped> {
        let actor = self.handle.open_session(key).await?;
        Ok(Session { actor, close: false })
    }

    /// The state of the node.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn status(&self) -> Result<Status, Stopped> {
        let session = self.session().await?;
        match session.query(bank::Query::GetStatus {}, ReadLevel::Local).await {
            Ok(Reply { success: Success::Status { status }, .. }) => Ok(*status),
            Ok(Reply { success: other, .. }) => unreachable!("asked for the status, the bank answered {other:?}"),
            Err(_) => Err(Stopped),
        }
    }

    /// Stops the node, and waits until it has: its clients are told, its links closed, its files let go of.
    ///
    /// # Errors
    /// If it failed before.
    pub async fn stop(&self) -> Result<(), NodeError> {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// Resolves when the node has stopped.
    ///
    /// # Errors
    /// Why, if nobody told it to.
    pub async fn ended(&self) -> Result<(), NodeError> {
        let mut ended = self.ended.clone();
        let result = ended.wait_for(Option::is_some).await.ok().and_then(|result| result.clone());
        result.unwrap_or_else(|| Err(NodeError::Failed("the node's thread or System has ended".into())))
    }
}

/// A session of this program with its node. Dropping it ends the actor behind it, and the session where nobody else has its key.
#[derive(Debug)]
pub struct Session {
    actor: Addr<HostSession>,
    close: bool,
}

impl Session {
    /// Carries a command out, once.
    ///
    /// # Errors
    /// Refused, or unknown: see the [module](self).
    pub async fn command(&self, command: bank::Command) -> Heard {
        heard(self.actor.send(Command::new(command)).await, Outcome::Unknown)
    }

    /// Carries the command with this number out, once; or tells again what came of it.
    ///
    /// # Errors
    /// Refused, or unknown: see the [module](self).
    pub async fn command_numbered(&self, number: u64, command: bank::Command) -> Heard {
        heard(self.actor.send(Command::numbered(number, command)).await, Outcome::Unknown)
    }

    /// Looks something up.
    ///
    /// # Errors
    /// Refused: see the [module](self).
    pub async fn query(&self, query: bank::Query, read: ReadLevel) -> Heard {
        heard(self.actor.send(Query { query, read }).await, Outcome::Refused)
    }

    /// Has a recipient told of transactions as they are applied, until the session or the recipient ends.
    ///
    /// # Errors
    /// Refused: see the [module](self).
    pub async fn subscribe(&self, feed: Feed, to: actix::Recipient<Happened>) -> Heard {
        heard(self.actor.send(Subscribe { feed, to }).await, Outcome::Refused)
    }

    /// The actor, for messages from actors of the host: [`Command`], [`Query`], [`Subscribe`].
    pub fn address(&self) -> &Addr<HostSession> {
        &self.actor
    }
}

/// The answer; with this outcome if the actor has ended.
fn heard(answer: Result<Heard, actix::MailboxError>, otherwise: Outcome) -> Heard {
    let stopping = || Refusal::refused(ErrorCode::Stopping, "the session or its node has ended");
    answer.unwrap_or_else(|_| Err(Refusal { outcome: otherwise, ..stopping() }))
}

impl Drop for Session {
    fn drop(&mut self) {
        self.actor.do_send(Close { in_log: self.close });
    }
}
