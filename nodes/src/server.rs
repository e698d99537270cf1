//! A running node: its actors, and the listeners and dialers that bring them sockets.
//!
//! Of two members the one with the lower number dials, so that there is one link a pair. Clients and peers have listeners
//! of their own. Whoever connects has a deadline for the WebSocket handshake. A page of a foreign Origin is turned away, and so is
//! every page on the peers' port.
//!
//! Clients never take the descriptors that peers, stores, the control socket and operators need: a part of what the process may
//! open is kept, and beyond it clients hear 503. The status is answered on a path of its own out of that reserve. One address has
//! neither all connections nor all handshakes: the limits stand in `node.toml`.

mod clients;
mod descriptors;
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

use rabia_bank_actors::bank::SnapshotPolicy;
use rabia_bank_actors::failure::Failure;
use rabia_bank_actors::handle::NodeHandle;
use rabia_bank_actors::socket::{link_socket, opening_socket};
use rabia_bank_actors::start::{self, NodeSettings};
use rabia_bank_messages::ids::NodeId;
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::{LogReader, StoreError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::{debug, info, warn};

use self::descriptors::{Descriptors, MAX_PEER_HANDSHAKES, RESERVE};
use self::places::{Places, Seats};
use self::rate::Rate;
use crate::config::NodeConfig;
use crate::{NodeError, control};

/// The path of the WebSocket endpoint for peers.
const PEER_PATH: &str = "/v1/peer";
/// The wait before a peer is called again, at first …
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause before a peer is dialled again.
const BACKOFF_MAX: Duration = Duration::from_millis(300);
/// Nodes that were started together have found one another within this time.
const FIND_ONE_ANOTHER: Duration = Duration::from_secs(5);
/// A link that lasted so long was no failed attempt.
const LASTED: Duration = Duration::from_secs(5);
/// What the actors of a node need to end.
const SETTLE: Duration = Duration::from_millis(50);
/// Answers are written to the socket once so many bytes wait, or none follow.
const WRITE_BUFFER: usize = 64 << 10;

/// The sockets that a node listens on.
pub struct Listeners {
    /// Where clients connect.
    pub clients: TcpListener,
    /// For the other members.
    pub peers: TcpListener,
}

/// Runs the node on the addresses of its configuration until `shutdown` resolves. Must run inside an actix System.
///
/// # Errors
/// Why it refused to start, or had to stop.
pub async fn run(config: NodeConfig, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    // Whether the ports can be had is known before the stores are opened, which counts a start and may take long. They are let go
    // of again: who connects meanwhile should be told at once that nobody serves yet.
    if let Err(error) = listen_all(&config).await {
        return Err(in_use(&config).unwrap_or(error));
    }
    let handle = start(&config)?;
    match listen_all(&config).await {
        Ok(listeners) => serve(config, handle, listeners, shutdown).await,
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
    let handle = start(&config)?;
    serve(config, handle, listeners, shutdown).await
}

/// How many connections of clients the node takes, in all and of one address.
fn seats(config: &NodeConfig, descriptors: Descriptors) -> Arc<Seats> {
    let all = config.limits.max_clients.min(descriptors.for_clients());
    Seats::new(all, config.limits.max_clients_per_address)
}

/// Opens the files of a node and starts its actors.
pub(crate) fn start(config: &NodeConfig) -> Result<NodeHandle, NodeError> {
    let descriptors = Descriptors::look()?;
    let settings = NodeSettings {
        identity: Identity { genesis: config.genesis(), node: config.node },
        log: config.log_path(),
        books: config.books_path(),
        clock: config.clock_path(),
        snapshots: SnapshotPolicy { bytes: config.limits.snapshot_bytes, slots: config.limits.snapshot_slots },
        max_message_bytes: config.limits.max_message_bytes,
        max_in_flight: config.limits.max_in_flight,
        max_in_flight_node: config.limits.max_in_flight_node,
        request_timeout: config.limits.request_timeout(),
        budgets: config.limits.budgets(),
        max_clients: seats(config, descriptors).all() as u64,
        descriptors: descriptors.limit as u64,
    };
    start::start(settings).map_err(|error| NodeError::of_start(&error))
}

/// Listens on the addresses of the configuration.
pub(crate) async fn listen_all(config: &NodeConfig) -> Result<Listeners, NodeError> {
    Ok(Listeners {
        clients: listen(config.client_listen, "client_listen").await?,
        peers: listen(config.peer_listen, "peer_listen").await?,
    })
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
        of_one_address = seats.per_address(),
        "connections that this node takes"
    );
    info!(
        node = %config.node,
        clients = %config.client_listen,
        peers = %config.peer_listen,
        slot = handle.applied_slot(),
        "serving"
    );
    let clients = clients::Door::new(handle.clone(), config.clone(), descriptors, seats, &listeners.clients);
    tasks.spawn_local(clients.open(listeners.clients));
    tasks.spawn_local(watch::links(handle.clone(), config.genesis(), config.node));
    tasks.spawn_local(accept_peers(listeners.peers, handle.clone(), config.clone()));
    for member in config.peers().filter(|member| member.node > config.node) {
        tasks.spawn_local(dial(member.node, member.address.clone(), handle.clone(), config.clone()));
    }
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
                tokio::time::sleep(BACKOFF_MIN).await;
            }
        }
    }
}

#[allow(clippy::result_large_err)] // the handshake's answer is tungstenite's type
async fn accept_peers(listener: TcpListener, handle: NodeHandle, config: Rc<NodeConfig>) {
    let places = Places::new(MAX_PEER_HANDSHAKES, MAX_PEER_HANDSHAKES);
    let trouble = Rate::default();
    loop {
        let (stream, address) = accept(&listener, &trouble).await;
        let mut place = places.enter(address);
        let (handle, config) = (handle.clone(), config.clone());
        let (met, has_met) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let check = |request: &Request, response: Response| {
                if request.uri().path() != PEER_PATH {
                    Err(turned_away(StatusCode::NOT_FOUND, "there is nothing here; nodes use /v1/peer"))
                } else if request.headers().contains_key("origin") {
                    Err(turned_away(StatusCode::FORBIDDEN, "web pages have no business here"))
                } else {
                    Ok(response)
                }
            };
            let mut link = Box::pin(async {
                match upgrade(stream, check, opening_socket(), &config).await {
                    Some(socket) => handle.serve_peer(socket, met).await,
                    None => "no handshake".into(),
                }
            });
            let ended = tokio::select! {
                reason = &mut link => Some(reason),
                Ok(()) = has_met => None,
                () = place.lost() => Some("too many peers are in their handshake".into()),
            };
            drop(place);
            let reason = match ended {
                Some(reason) => reason,
                None => link.await,
            };
            debug!(reason, "a link that a peer called has ended");
        });
    }
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    check: impl FnOnce(&Request, Response) -> Result<Response, ErrorResponse> + Unpin,
    socket: WebSocketConfig,
    config: &NodeConfig,
) -> Option<WebSocketStream<S>> {
    let upgrading = tokio_tungstenite::accept_hdr_async_with_config(stream, check, Some(socket));
    match tokio::time::timeout(config.limits.handshake_timeout(), upgrading).await {
        Ok(Ok(socket)) => Some(socket),
        Ok(Err(error)) => {
            debug!(%error, "a connection was turned away in its handshake");
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

/// Calls a peer, and again whenever the link has ended.
async fn dial(peer: NodeId, address: String, handle: NodeHandle, config: Rc<NodeConfig>) {
    let mut backoff = BACKOFF_MIN;
    let mut told = String::new();
    // Nodes that start together find one another after a few calls: that is no trouble yet.
    let first = tokio::time::Instant::now();
    loop {
        let began = tokio::time::Instant::now();
        let reason = match call(&address, &config).await {
            Ok(socket) => handle.call_peer(peer, socket).await,
            Err(reason) => reason,
        };
        // The same trouble is told once.
        if reason != told {
            if first.elapsed() < FIND_ONE_ANOTHER {
                debug!(%peer, address, reason, "no link to the peer; calling again");
            } else {
                warn!(%peer, address, reason, "no link to the peer; calling again");
                told = reason;
            }
        }
        if began.elapsed() >= LASTED {
            backoff = BACKOFF_MIN;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn call(address: &str, config: &NodeConfig) -> Result<WebSocketStream<TcpStream>, String> {
    let calling = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let url = format!("ws://{address}{PEER_PATH}");
        let request = url.into_client_request().map_err(|error| error.to_string())?;
        let connected = tokio_tungstenite::client_async_with_config(request, stream, Some(link_socket())).await;
        connected.map(|(socket, _)| socket).map_err(|error| error.to_string())
    };
    let timeout = config.limits.handshake_timeout();
    tokio::time::timeout(timeout, calling).await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
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
