//! A running node: its actors, and the listeners and dialers that bring them sockets.
//!
//! Of two members the one with the lower number dials, so that there is one link a pair. Clients and peers have listeners
//! of their own; that for peers speaks TLS alone (see [`peer_tls`](crate::peer_tls)). Whoever connects has one deadline for all handshakes
//! together. A page of a foreign Origin is turned away, and so is
//! every page on the peers' port.
//!
//! Clients never take the descriptors that peers, stores, the control socket and operators need: a part of what the process may
//! open is kept, and beyond it clients are turned away when they have said who they are, but for operators. The status is answered on a
//! path of its own out of that reserve. One principal never has all connections, nor one address all handshakes: the limits stand in
//! `node.toml`.

mod client_tls;
mod clients;
mod descriptors;
mod network;
mod peers;
mod places;
mod rate;
mod status;
mod watch;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rabia_bank_actors::failure::Failure;
use rabia_bank_actors::handle::{NodeHandle, Sessions};
use rabia_bank_actors::ledger::machine::StateMachine;
use rabia_bank_actors::parts::bank::SnapshotPolicy;
use rabia_bank_actors::seats::Seats;
use rabia_bank_actors::start::{self, NodeSettings};
use rabia_bank_messages::ids::StoreId;
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::{LogReader, StoreError};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::{debug, info, warn};

use self::client_tls::{Certificates, ClientTls};
use self::descriptors::{Descriptors, RESERVE};
use self::rate::Rate;
use crate::config::NodeConfig;
use crate::member_key::{KeyError, MemberKey};
use crate::peer_tls::PeerTls;
use crate::{NodeError, control};

pub use self::network::LocalNetwork;

/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What the actors of a node need to end.
const SETTLE: Duration = Duration::from_millis(50);
/// Answers are written to the socket once so many bytes wait, or none follow.
const WRITE_BUFFER: usize = 64 << 10;

/// Where a node is reached.
#[derive(Debug)]
pub struct Listeners {
    /// By clients; none: it serves the program that it lives in, and nobody else.
    pub clients: Option<TcpListener>,
    /// By the other members.
    pub peers: Peers,
}

/// How members reach one another.
#[derive(Debug)]
pub enum Peers {
    /// Not at all: the node is the only member of its cluster.
    None,
    /// Over TCP, at the addresses of their configurations.
    Tcp(TcpListener),
    /// Through memory, where all members live in this process.
    Local(LocalNetwork),
}

impl Listeners {
    /// A node with these two listeners.
    pub fn tcp(clients: TcpListener, peers: TcpListener) -> Listeners {
        Listeners { clients: Some(clients), peers: Peers::Tcp(peers) }
    }

    /// Whether a node with this configuration can, and may, work with them.
    pub(crate) fn check(&self, config: &NodeConfig, has_tls: bool) -> Result<(), NodeError> {
        self.check_clients(config, has_tls)?;
        let members = config.members.len();
        match self.peers {
            Peers::None if members > 1 => {
                Err(NodeError::Refused(format!("a node of {members} needs a way to reach the others")))
            }
            _ => Ok(()),
        }
    }
}

impl Listeners {
    /// Beyond this machine clients get TLS, unless somebody takes it upon themselves to do without.
    fn check_clients(&self, config: &NodeConfig, has_tls: bool) -> Result<(), NodeError> {
        match self.plain_beyond_this_machine(has_tls) {
            Some(address) if !config.insecure => Err(NodeError::Refused(format!(
                "clients are to be served on {address}, beyond this machine, and without TLS: name a certificate in the section [tls] \
                 of node.toml, listen on loopback (client_listen), or say `insecure = true` there if you trust the network"
            ))),
            _ => Ok(()),
        }
    }

    fn warn_if_insecure(&self, has_tls: bool) {
        if let Some(address) = self.plain_beyond_this_machine(has_tls) {
            warn!(
                %address,
                "insecure: clients are served without TLS beyond this machine; whoever is on the way reads and changes what they say"
            );
        }
    }

    /// Where clients are served without TLS by addresses that others can have.
    fn plain_beyond_this_machine(&self, has_tls: bool) -> Option<SocketAddr> {
        let address = self.clients.as_ref()?.local_addr().ok()?;
        (!has_tls && !address.ip().is_loopback()).then_some(address)
    }
}

/// What a node proves with who it is.
pub(crate) struct Secrets {
    /// The store that its key is of.
    store: StoreId,
    peers: PeerTls,
    /// None: clients are served plain.
    clients: Option<ClientTls>,
}

impl Secrets {
    /// Reads what the configuration names.
    pub(crate) fn load(config: &NodeConfig) -> Result<Secrets, NodeError> {
        let key = own_key(config)?;
        let peers = PeerTls::new(&key)
            .map_err(|error| NodeError::Refused(format!("the key of this member can't be used: {error}")))?;
        let clients = config.tls.as_ref().map(Certificates::load).transpose().map_err(NodeError::Refused)?;
        Ok(Secrets { store: key.store(), peers, clients: clients.map(ClientTls::Files) })
    }

    /// With what the program that the node lives in says for clients, if it says something.
    pub(crate) fn with_tls(self, tls: Option<Arc<ServerConfig>>) -> Secrets {
        let clients = tls.map(ClientTls::Host).or(self.clients);
        Secrets { clients, ..self }
    }
}

/// Runs the node on the addresses of its configuration until `shutdown` resolves. Must run inside an actix System. Its certificates
/// for clients are read again when they change, and when `reload` is notified.
///
/// # Errors
/// Why it refused to start, or had to stop.
pub async fn run(config: NodeConfig, reload: Arc<Notify>, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    // Whether the ports can be had is known before the stores are opened, which counts a start and may take long. They are let go
    // of again: who connects meanwhile should be told at once that nobody serves yet.
    if let Err(error) = listen_all(&config).await {
        return Err(in_use(&config).unwrap_or(error));
    }
    let secrets = Secrets::load(&config)?;
    let (handle, _) = start(&config, &secrets)?;
    match listen_all(&config).await {
        Ok(listeners) => serve(config, secrets, reload, handle, listeners, shutdown).await,
        Err(error) => {
            stop(&handle).await;
            Err(error)
        }
    }
}

/// A second process on the same folder should hear that, not that the port is taken.
fn in_use(config: &NodeConfig) -> Option<NodeError> {
    let identity = Identity { genesis: config.genesis(), node: config.node };
    match LogReader::open(&config.log_path(), &identity, || Ok(0)) {
        Err(error @ StoreError::InUse { .. }) => Some(NodeError::Refused(error.to_string())),
        _ => None,
    }
}

/// Stops a node that does not serve yet. Its actors hold timers, which must not outlive the runtime.
pub(crate) async fn stop(handle: &NodeHandle) {
    handle.stop().await;
    tokio::time::sleep(SETTLE).await;
}

/// Runs the node on sockets that the caller listens on.
///
/// # Errors
/// Why it refused to start, or had to stop.
pub async fn run_on(
    config: NodeConfig,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    listeners.check(&config, config.tls.is_some())?;
    let secrets = Secrets::load(&config)?;
    let (handle, _) = start(&config, &secrets)?;
    serve(config, secrets, Arc::default(), handle, listeners, shutdown).await
}

/// How many connections of clients the node takes, in all and of one principal.
fn seats(config: &NodeConfig, descriptors: Descriptors) -> Arc<Seats> {
    let all = config.limits.max_clients.min(descriptors.for_clients());
    Seats::new(all, config.limits.max_clients_per_principal)
}

/// The key of this member. Where there is no store either, or one that is older than keys are, that is what is told.
fn own_key(config: &NodeConfig) -> Result<MemberKey, NodeError> {
    MemberKey::load(&config.key_path()).map_err(|error| {
        let identity = Identity { genesis: config.genesis(), node: config.node };
        let store = || LogReader::open(&config.log_path(), &identity, || Ok(0));
        match error {
            KeyError::Missing { .. } => match store() {
                Err(store @ (StoreError::Missing { .. } | StoreError::Version { .. })) => {
                    NodeError::Refused(store.to_string())
                }
                _ => NodeError::Refused(error.to_string()),
            },
            error => NodeError::Refused(error.to_string()),
        }
    })
}

/// Opens the files of a node and starts its actors.
pub(crate) fn start(config: &NodeConfig, secrets: &Secrets) -> Result<(NodeHandle, Sessions), NodeError> {
    start::start(settings(config, secrets)?).map_err(|error| NodeError::of_start(&error))
}

/// The same for a node with another machine than the bank.
pub(crate) fn start_machine<S: StateMachine>(
    config: &NodeConfig,
    secrets: &Secrets,
) -> Result<(NodeHandle, Sessions<S>), NodeError> {
    start::start_machine(settings(config, secrets)?).map_err(|error| NodeError::of_start(&error))
}

fn settings(config: &NodeConfig, secrets: &Secrets) -> Result<NodeSettings, NodeError> {
    let descriptors = Descriptors::look()?;
    Ok(NodeSettings {
        identity: Identity { genesis: config.genesis(), node: config.node },
        log: config.log_path(),
        books: config.books_path(),
        clock: config.clock_path(),
        key: config.key_path(),
        key_store: secrets.store,
        snapshots: SnapshotPolicy { bytes: config.limits.snapshot_bytes, slots: config.limits.snapshot_slots },
        max_message_bytes: config.limits.max_message_bytes,
        max_in_flight: config.limits.max_in_flight,
        max_in_flight_node: config.limits.max_in_flight_node,
        max_in_flight_per_principal: config.limits.max_in_flight_per_principal,
        max_scanned_per_principal: config.limits.max_scanned_per_principal,
        request_timeout: config.limits.request_timeout(),
        budgets: config.limits.budgets(),
        max_clients: seats(config, descriptors).all() as u64,
        descriptors: descriptors.limit as u64,
    })
}

/// Listens on the addresses of the configuration.
async fn listen_all(config: &NodeConfig) -> Result<Listeners, NodeError> {
    let clients = listen_for_clients(config).await?;
    let listeners = Listeners::tcp(clients, listen_for_peers(config).await?);
    listeners.check(config, config.tls.is_some())?;
    Ok(listeners)
}

/// Listens for clients on the address of the configuration.
pub(crate) async fn listen_for_clients(config: &NodeConfig) -> Result<TcpListener, NodeError> {
    listen(config.client_listen, "client_listen").await
}

/// Listens for peers on the address of the configuration.
pub(crate) async fn listen_for_peers(config: &NodeConfig) -> Result<TcpListener, NodeError> {
    listen(config.peer_listen, "peer_listen").await
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|error| NodeError::Refused(cant_listen(address, key, &error)))
}

/// What is wrong with an address, and what to do.
fn cant_listen(address: SocketAddr, key: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has that port, or this node runs already: stop it, or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no address {}: choose one that it has, or 0.0.0.0 for all", address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are the system administrator's: choose a higher one".to_owned()
        }
        _ => "choose another address".to_owned(),
    };
    format!("can't listen on {address} ({key} in the configuration): {error}; {advice}")
}

/// Serves clients and peers until `shutdown` resolves or the node fails.
pub(crate) async fn serve(
    config: NodeConfig,
    secrets: Secrets,
    reload: Arc<Notify>,
    handle: NodeHandle,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let config = Rc::new(config);
    let mut tasks = JoinSet::new();
    let descriptors = Descriptors::look()?;
    let seats = seats(&config, descriptors);
    info!(
        descriptors = descriptors.limit,
        kept = RESERVE,
        clients = seats.all(),
        of_one_principal = seats.per_principal(),
        "connections that this node takes"
    );
    info!(
        node = %config.node,
        store = %secrets.store,
        clients = listeners.clients.as_ref().map(|_| tracing::field::display(config.client_listen)),
        peers = matches!(listeners.peers, Peers::Tcp(_)).then_some(tracing::field::display(config.peer_listen)),
        slot = handle.applied_slot(),
        "serving"
    );
    listeners.warn_if_insecure(secrets.clients.is_some());
    if let Some(listener) = listeners.clients {
        if let Some(ClientTls::Files(certificates)) = &secrets.clients {
            tasks.spawn_local(certificates.clone().watch(handle.clone(), reload));
        }
        let clients =
            clients::Door::new(handle.clone(), config.clone(), secrets.clients, descriptors, seats, &listener);
        tasks.spawn_local(clients.open(listener));
    }
    tasks.spawn_local(watch::links(handle.clone(), config.genesis(), config.node));
    peers::link(&mut tasks, listeners.peers, secrets.peers, &handle, &config);
    let control = control::listen(&config.data_dir);
    let answering = async {
        match &control {
            Some(control) => control.serve(&handle).await,
            None => std::future::pending().await,
        }
    };
    let failure = tokio::select! {
        () = shutdown => None,
        () = answering => None,
        failure = handle.failed() => Some(failure),
        ended = tasks.join_next() => Some(match ended {
            Some(Err(error)) => Failure::Stopped(format!("a listener or dialer has died: {error}")),
            _ => Failure::Stopped("a listener or dialer has ended".into()),
        }),
    };
    tasks.abort_all();
    handle.stop().await;
    match failure {
        None => {
            info!(node = %config.node, "stopped");
            Ok(())
        }
        Some(failure) => Err(failure.into()),
    }
}

/// The next connection, and where it comes from. Errors of a single one (it went away, or the process is out of file descriptors)
/// pass.
async fn accept(listener: &TcpListener, trouble: &Rate) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a socket takes no option");
                }
                return (stream, address.ip());
            }
            Err(error) => {
                if let Some(times) = trouble.count() {
                    warn!(%error, times, "can't accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A WebSocket on what this stream becomes, within the one deadline that there is for all handshakes.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: impl Future<Output = Result<S, String>>,
    check: impl FnOnce(&Request, Response) -> Result<Response, ErrorResponse> + Unpin,
    socket: WebSocketConfig,
    config: &NodeConfig,
) -> Option<WebSocketStream<S>> {
    let upgrading = async {
        let accepting = tokio_tungstenite::accept_hdr_async_with_config(stream.await?, check, Some(socket));
        accepting.await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(config.limits.handshake_timeout(), upgrading).await {
        Ok(Ok(socket)) => Some(socket),
        Ok(Err(error)) => {
            debug!(error, "a connection was turned away in its handshake");
            None
        }
        Err(_) => {
            debug!("a connection did not finish its handshake in time");
            None
        }
    }
}

fn turned_away(status: StatusCode, why: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(format!("{why}\n")));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_can_not_be_had_is_told_with_its_key_and_what_to_do() {
        let address = SocketAddr::from(([192, 0, 2, 7], 80));
        for (kind, advice) in [
            (io::ErrorKind::AddrInUse, "another program has that port"),
            (io::ErrorKind::AddrNotAvailable, "no address 192.0.2.7"),
            (io::ErrorKind::PermissionDenied, "below 1024"),
        ] {
            let text = cant_listen(address, "peer_listen", &kind.into());
            assert!(text.contains("192.0.2.7:80 (peer_listen") && text.contains(advice), "{text}");
        }
    }
}
