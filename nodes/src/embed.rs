//! Embedding: a node, or a whole cluster, inside your own program.
//!
//! # From nothing to running
//!
//! In a new program beside a checkout of this repository:
//!
//! ```text
//! cargo new shop
//! cd shop
//! cargo add --path ../rabia-bank/nodes --no-default-features --features embed
//! cargo add tokio --features rt,macros
//! ```
//!
//! `src/main.rs`, the whole of it:
//!
//! ```
//! use rabia_bank::bank::ReadLevel;
//! use rabia_bank::embed::{BankCalls, Embedded};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #   let folder = tempfile::tempdir()?;
//! #   std::env::set_current_dir(folder.path())?;
//!     // A bank of one node, on a thread of its own. Its data lies in this folder; the next run goes on with it.
//!     let node = Embedded::single("bank-data")?;
//!     let bank = node.session().await?;
//!     for (name, cents) in [("alice", 1_000), ("bob", 0)] {
//!         println!("{:?}", bank.create_account(name, cents).await); // the second time it is there: account_exists
//!     }
//!     bank.transfer("alice", "bob", 300).await?;
//!     let bob = bank.balance("bob", ReadLevel::Linearizable).await?;
//!     println!("bob has {} as of slot {}", bob.value, bob.slot);
//! #   assert_eq!(bob.value, 300);
//!     Ok(node.stop().await?)
//! }
//! ```
//!
//! [`Embedded::cluster`] runs several nodes in this process instead, linked in memory. Neither opens a port. In the examples,
//! `smallest` is a program like this one, `game_economy` has its own actor as a client, and `rest_service` puts HTTP before three
//! nodes. For tests of your program, see [`testing`](crate::testing).
//!
//! # With ports
//!
//! [`create_or_open`] makes or finds the folder of a cluster and gives the configurations of its members. [`Embedded::start`] and
//! [`Embedded::start_on_thread`] run a node on the addresses of its configuration: members find one another as separate processes
//! do, in this process or on many machines, and WebSocket clients are served besides, so that `rabia-bank client status` works
//! against your program. A [`Reach`] says otherwise: no port for clients, no peers at all, or peers in this process.
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
//! - **More than one node.** Nothing is global: start as many [`Embedded`] as you like, in one process or in many. Sessions can be
//!   used at any of them.
//! - **Principals.** The program that a node lives in is the principal `host`, which may do everything, and needs no token.
//!   [`Embedded::session_as`] speaks for the principal of a token instead; [`Session::administer`] puts principals and tokens.
//! - **TLS.** Clients get it by the files that the configuration names, or by a `ServerConfig` of your own ([`Reach::tls`]).
//! - **Another machine.** What is replicated need not be the bank: see [`machine`](crate::machine).
//! - **Feeds.** [`Session::subscribe`] gives the transactions of a feed as a stream. An actor is told of them by [`Subscribe`].

use std::path::PathBuf;
use std::sync::Arc;

use actix::Addr;
use rabia_bank_actors::failure::Stopped;
use rabia_bank_actors::handle::{NodeHandle, Sessions};
use rabia_bank_actors::ledger::Bank;
use rabia_bank_actors::ledger::machine::{Entry, StateMachine};
use rabia_bank_messages::bank::{ErrorCode, Outcome, ReadLevel, Refusal, Status};
use rustls::ServerConfig;
use tokio::sync::watch;

pub use rabia_bank_actors::host_session::HostSession;
pub use rabia_bank_actors::mail::host_session::{
    Administer, Close, Command, Follow, Happened, Heard, Query, Reply, Subscribe, Transactions,
};
pub use rabia_bank_client::{Applied, BankCalls, Receipt, Request};
pub use rabia_bank_messages::client::Feed;
pub use rabia_bank_messages::genesis::SessionLimits;
pub use rabia_bank_messages::ids::{SessionKey, Slot};
pub use rabia_bank_messages::principal::{self, Admin};
pub use rabia_bank_messages::token::Token;

use crate::NodeError;
use crate::config::NodeConfig;
use crate::create::{ClusterDirError, NewCluster, create_or_open, wall};
use crate::server::{self, Listeners, Peers, Secrets};

pub use crate::server::LocalNetwork;

/// How a node is reached, besides by the program that it lives in.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Whether clients are served, on the address of the configuration.
    pub clients: bool,
    /// How the other members reach it, and it them.
    pub peers: PeerLinks,
    /// What clients get TLS with, in the place of the files that the configuration names. Its certificates are the host's business.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What the links to the other members run over.
#[derive(Clone, Debug)]
pub enum PeerLinks {
    /// There are no other members.
    None,
    /// TCP, at the addresses of the configurations.
    Tcp,
    /// Memory: all members are in this process, and have this network.
    Local(LocalNetwork),
}

impl Reach {
    /// By clients and peers, on the addresses of the configuration.
    pub fn sockets() -> Reach {
        Reach { clients: true, peers: PeerLinks::Tcp, tls: None }
    }

    /// By nobody. The node is the only member of its cluster.
    pub fn alone() -> Reach {
        Reach { clients: false, peers: PeerLinks::None, tls: None }
    }

    /// By the members in this process that have the same network.
    pub fn within(network: &LocalNetwork) -> Reach {
        Reach { clients: false, peers: PeerLinks::Local(network.clone()), tls: None }
    }

    /// Only the bank has clients.
    fn check_no_clients(&self) -> Result<(), NodeError> {
        if self.clients {
            let why = "clients speak the bank's protocol: a node with another machine serves the program that it lives in alone";
            return Err(NodeError::Refused(why.into()));
        }
        Ok(())
    }

    async fn listen(self, config: &NodeConfig) -> Result<Listeners, NodeError> {
        let clients = if self.clients { Some(server::listen_for_clients(config).await?) } else { None };
        let peers = match self.peers {
            PeerLinks::None => Peers::None,
            PeerLinks::Tcp => Peers::Tcp(server::listen_for_peers(config).await?),
            PeerLinks::Local(network) => Peers::Local(network),
        };
        let listeners = Listeners { clients, peers };
        listeners.check(config, self.tls.is_some() || config.tls.is_some())?;
        Ok(listeners)
    }
}

/// A node inside this program. Clones are handles of the same node; it stops when it is told to, or when the last of them is
/// dropped. Its machine is the bank, or [your own](crate::machine).
pub struct Embedded<S: StateMachine = Bank> {
    handle: NodeHandle,
    sessions: Sessions<S>,
    stop: Arc<watch::Sender<bool>>,
    ended: watch::Receiver<Option<Result<(), NodeError>>>,
}

impl<S: StateMachine> Clone for Embedded<S> {
    fn clone(&self) -> Embedded<S> {
        let Embedded { handle, sessions, stop, ended } = self;
        let (handle, sessions) = (handle.clone(), sessions.clone());
        Embedded { handle, sessions, stop: stop.clone(), ended: ended.clone() }
    }
}

/// How the actors of a node are started.
type Start<S> = fn(&NodeConfig, &Secrets) -> Result<(NodeHandle, Sessions<S>), NodeError>;

impl Embedded {
    /// A bank of one node, on a thread of its own, that nobody but this program reaches. Its folder is made if there is none.
    ///
    /// # Errors
    /// Why it refuses to start: the folder, or the files in it.
    pub fn single(folder: impl Into<PathBuf>) -> Result<Embedded, NodeError> {
        let mut members = create_or_open(&NewCluster::new(folder, 1)).map_err(refused)?;
        Embedded::start_on_thread_with(members.remove(0), Reach::alone())
    }

    /// A cluster of so many nodes, 1 to 7, each on a thread of its own, linked in memory. Nobody but this program reaches them.
    /// Its folder is made if there is none.
    ///
    /// # Errors
    /// Why one of them refuses to start: the folder, or the files in it.
    pub fn cluster(folder: impl Into<PathBuf>, nodes: usize) -> Result<Vec<Embedded>, NodeError> {
        Embedded::linked(folder, nodes, Embedded::start_on_thread_with)
    }

    /// Starts a node on the arbiter of the actix System that this is called in, reached on the addresses of its configuration.
    /// Blocks the thread while the books are read and the log behind them is applied.
    ///
    /// # Errors
    /// Why it refuses to start: its files, or its addresses.
    pub async fn start(config: NodeConfig) -> Result<Embedded, NodeError> {
        Embedded::start_with(config, Reach::sockets()).await
    }

    /// The same, reached as is said.
    ///
    /// # Errors
    /// Why it refuses to start: its files, its addresses, or that it could not reach the other members.
    pub async fn start_with(config: NodeConfig, reach: Reach) -> Result<Embedded, NodeError> {
        Embedded::launch(config, reach, server::start).await
    }

    /// Starts a node on a thread of its own, with an actix System of its own, reached on the addresses of its configuration.
    /// Blocks until it serves, or does not.
    ///
    /// # Errors
    /// Why it refuses to start: its files, or its addresses.
    pub fn start_on_thread(config: NodeConfig) -> Result<Embedded, NodeError> {
        Embedded::start_on_thread_with(config, Reach::sockets())
    }

    /// The same, reached as is said.
    ///
    /// # Errors
    /// Why it refuses to start: its files, its addresses, or that it could not reach the other members.
    pub fn start_on_thread_with(config: NodeConfig, reach: Reach) -> Result<Embedded, NodeError> {
        Embedded::launch_on_thread(config, reach, server::start)
    }
}

impl<S: StateMachine> Embedded<S> {
    /// Like [`cluster`](Embedded::cluster), with a machine of your own.
    ///
    /// # Errors
    /// Why one of the nodes refuses to start: the folder, or the files in it.
    pub fn machine_cluster(folder: impl Into<PathBuf>, nodes: usize) -> Result<Vec<Embedded<S>>, NodeError> {
        Embedded::linked(folder, nodes, Embedded::start_machine_on_thread)
    }

    /// Like [`start_with`](Embedded::start_with), with a machine of your own. Clients speak the bank's protocol, so the node is not
    /// reached by any.
    ///
    /// # Errors
    /// Why it refuses to start: its files, its addresses, or that it is to serve clients.
    pub async fn start_machine(config: NodeConfig, reach: Reach) -> Result<Embedded<S>, NodeError> {
        reach.check_no_clients()?;
        Embedded::launch(config, reach, server::start_machine::<S>).await
    }

    /// Like [`start_on_thread_with`](Embedded::start_on_thread_with), with a machine of your own.
    ///
    /// # Errors
    /// Why it refuses to start: its files, its addresses, or that it is to serve clients.
    pub fn start_machine_on_thread(config: NodeConfig, reach: Reach) -> Result<Embedded<S>, NodeError> {
        reach.check_no_clients()?;
        Embedded::launch_on_thread(config, reach, server::start_machine::<S>)
    }

    fn linked(
        folder: impl Into<PathBuf>,
        nodes: usize,
        start: impl Fn(NodeConfig, Reach) -> Result<Embedded<S>, NodeError>,
    ) -> Result<Vec<Embedded<S>>, NodeError> {
        let network = LocalNetwork::new();
        let members = create_or_open(&NewCluster::new(folder, nodes)).map_err(refused)?;
        members.into_iter().map(|config| start(config, Reach::within(&network))).collect()
    }

    async fn launch(config: NodeConfig, reach: Reach, start: Start<S>) -> Result<Embedded<S>, NodeError> {
        let (stop, mut stopping) = watch::channel(false);
        let (end, ended) = watch::channel(None);
        let secrets = Secrets::load(&config)?.with_tls(reach.tls.clone());
        let (handle, sessions) = start(&config, &secrets)?;
        let listeners = match reach.listen(&config).await {
            Ok(listeners) => listeners,
            Err(error) => {
                server::stop(&handle).await;
                return Err(error);
            }
        };
        let serving = server::serve(config, secrets, Arc::default(), handle.clone(), listeners, async move {
            // An error: the last handle was dropped.
            let _ = stopping.wait_for(|stop| *stop).await;
        });
        tokio::task::spawn_local(async move {
            let result = serving.await;
            // Nobody may want to know.
            let _ = end.send(Some(result));
        });
        Ok(Embedded { handle, sessions, stop: Arc::new(stop), ended })
    }

    fn launch_on_thread(config: NodeConfig, reach: Reach, start: Start<S>) -> Result<Embedded<S>, NodeError> {
        let (started, starting) = std::sync::mpsc::channel();
        let name = format!("node-{}", config.node);
        let run = move || {
            actix::System::new().block_on(async move {
                match Embedded::launch(config, reach, start).await {
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
    pub async fn session(&self) -> Result<Session<S>, Stopped> {
        let actor = self.sessions.open_own().await?;
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
    pub async fn session_with(&self, key: SessionKey) -> Result<Session<S>, Stopped> {
        let actor = self.sessions.open(key).await?;
        Ok(Session { actor, close: false })
    }

    /// A session of the principal of this token instead of the host's: see [`principal`]. None if the
    /// token is not in force.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn session_as(&self, token: &Token) -> Result<Option<Session<S>>, Stopped> {
        let Some((number, _)) = self.handle.roster().recognise(token, wall()) else { return Ok(None) };
        let actor = self.sessions.open_as(None, number).await?;
        Ok(Some(Session { actor, close: true }))
    }

    /// The state of the node.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.handle.status().await
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
pub struct Session<S: StateMachine = Bank> {
    actor: Addr<HostSession<S>>,
    close: bool,
}

impl<S: StateMachine> Session<S> {
    /// Carries a command out, once.
    ///
    /// # Errors
    /// Refused, or unknown: see the [module](self).
    pub async fn command(&self, command: S::Command) -> Heard<S::Answer> {
        heard(self.actor.send(Command::new(command)).await, Outcome::Unknown)
    }

    /// Carries the command with this number out, once; or tells again what came of it.
    ///
    /// # Errors
    /// Refused, or unknown: see the [module](self).
    pub async fn command_numbered(&self, number: u64, command: S::Command) -> Heard<S::Answer> {
        heard(self.actor.send(Command::numbered(number, command)).await, Outcome::Unknown)
    }

    /// Carries an administrator's command out, once. The host may do what an administrator may.
    ///
    /// # Errors
    /// Refused, or unknown: see the [module](self).
    pub async fn administer(&self, admin: Admin) -> Heard<S::Answer> {
        heard(self.actor.send(Administer::new(admin)).await, Outcome::Unknown)
    }

    /// Looks something up.
    ///
    /// # Errors
    /// Refused: see the [module](self).
    pub async fn query(&self, query: S::Query, read: ReadLevel) -> Heard<S::Answer> {
        heard(self.actor.send(Query { query, read }).await, Outcome::Refused)
    }

    /// The transactions of a feed as they are applied, until the session ends.
    ///
    /// # Errors
    /// Refused: see the [module](self).
    pub async fn subscribe(&self, feed: S::Feed) -> Result<Transactions<Entry<S>>, Refusal> {
        self.actor.send(Follow(feed)).await.unwrap_or_else(|_| Err(ended()))
    }

    /// The actor, for messages from actors of the host: [`Command`], [`Query`], [`Subscribe`].
    pub fn address(&self) -> &Addr<HostSession<S>> {
        &self.actor
    }
}

impl BankCalls for Session {
    type Error = Refusal;

    async fn call(&self, request: Request) -> Result<Applied, Refusal> {
        let Reply { slot, index, replayed, success } = match request {
            Request::Command(command) => self.command(command).await?,
            Request::Admin(admin) => self.administer(admin).await?,
            Request::Query(query, read) => self.query(query, read).await?,
        };
        Ok(Applied { slot, index, replayed, success })
    }
}

/// The answer; with this outcome if the actor has ended.
fn heard<T>(answer: Result<Heard<T>, actix::MailboxError>, otherwise: Outcome) -> Heard<T> {
    answer.unwrap_or_else(|_| Err(Refusal { outcome: otherwise, ..ended() }))
}

fn ended() -> Refusal {
    Refusal::refused(ErrorCode::Stopping, "the session or its node has ended")
}

fn refused(error: ClusterDirError) -> NodeError {
    NodeError::Refused(error.to_string())
}

impl<S: StateMachine> Drop for Session<S> {
    fn drop(&mut self) {
        self.actor.do_send(Close { in_log: self.close });
    }
}
