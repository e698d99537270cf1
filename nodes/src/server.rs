//! A running node: its actors, and the listeners and dialers that bring them sockets.
//!
//! Of two members the one with the lower number dials, so that there is one link a pair. Clients and peers have listeners
//! of their own. Whoever connects has a deadline for the WebSocket handshake; a page of a foreign Origin is turned away in
//! it, and so is every page on the peers' port.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rabia_bank_actors::bank::SnapshotPolicy;
use rabia_bank_actors::node::{self, NodeHandle, NodeSettings, StartError};
use rabia_bank_messages::client::CLIENT_PATH;
use rabia_bank_messages::codec::MAX_PEER_FRAME;
use rabia_bank_messages::ids::NodeId;
use rabia_bank_storage::Identity;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::{debug, info, warn};

use crate::config::NodeConfig;
use crate::{NodeError, control};

/// The path of the WebSocket endpoint for peers.
const PEER_PATH: &str = "/v1/peer";
/// Connections that may be in their handshake at once: they hold nothing but a socket and a deadline.
const MAX_HANDSHAKES: usize = 1_024;
/// The wait before a peer is called again, at first …
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// … and at most.
const BACKOFF_MAX: Duration = Duration::from_millis(300);
/// A link that lasted so long was no failed attempt.
const LASTED: Duration = Duration::from_secs(5);
/// How long a stopping node waits for its clients to go.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes that are read from a client's socket at a time: there may be thousands of them. The socket zeroes so many bytes
/// before every read, so more is not better.
const CLIENT_READ_BUFFER: usize = 4 << 10;
/// Bytes that are read from a peer's socket at a time.
const PEER_READ_BUFFER: usize = 16 << 10;
/// Answers are written to the socket once so many bytes wait, or none follow.
const WRITE_BUFFER: usize = 64 << 10;
/// The most bytes that wait inside a socket; the queues before it are bounded far below.
const MAX_WRITE_BUFFER: usize = 128 << 20;

/// The sockets that a node listens on.
pub struct Listeners {
    /// For clients.
    pub clients: TcpListener,
    /// For the other members.
    pub peers: TcpListener,
}

/// Runs the node on the addresses of its configuration until `shutdown` resolves. Must run inside an actix System.
///
/// # Errors
/// Why it refused to start, or had to stop.
pub async fn run(config: NodeConfig, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    // The stores first: a second process on the same folder should hear that, not that the port is taken.
    let handle = start(&config)?;
    let listeners = listen_all(&config).await?;
    serve(config, handle, listeners, shutdown).await
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

/// Opens the files of a node and starts its actors.
pub(crate) fn start(config: &NodeConfig) -> Result<NodeHandle, NodeError> {
    let settings = NodeSettings {
        identity: Identity { genesis: config.genesis(), node: config.node },
        log: config.log_path(),
        books: config.books_path(),
        snapshots: SnapshotPolicy { bytes: config.limits.snapshot_bytes, slots: config.limits.snapshot_slots },
        max_message_bytes: config.limits.max_message_bytes,
        max_in_flight: config.limits.max_in_flight,
        max_in_flight_node: config.limits.max_in_flight_node,
        request_timeout: config.limits.request_timeout(),
    };
    node::start(settings).map_err(|error: StartError| NodeError::Refused(error.to_string()))
}

/// Listens on the addresses of the configuration.
pub(crate) async fn listen_all(config: &NodeConfig) -> Result<Listeners, NodeError> {
    Ok(Listeners {
        clients: listen(config.client_listen, "client_listen").await?,
        peers: listen(config.peer_listen, "peer_listen").await?,
    })
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|error| {
        NodeError::Refused(format!("can't listen on {address} ({key} in the configuration): {error}; is it in use?"))
    })
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
    info!(
        node = %config.node,
        clients = %config.client_listen,
        peers = %config.peer_listen,
        slot = handle.applied_slot(),
        "serving"
    );
    tasks.spawn_local(accept_clients(listeners.clients, handle.clone(), config.clone()));
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
            Some(Err(error)) => format!("a listener or dialer has died: {error}"),
            _ => "a listener or dialer has ended".into(),
        }),
    };
    tasks.abort_all();
    handle.stop().await;
    let farewell = tokio::time::Instant::now() + FAREWELL;
    while handle.clients() > 0 && tokio::time::Instant::now() < farewell {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match failure {
        None => {
            info!(node = %config.node, "stopped");
            Ok(())
        }
        Some(failure) => Err(NodeError::Failed(failure)),
    }
}

/// Counts a connection while it is in its handshake.
struct Handshaking(Rc<Cell<usize>>);

impl Handshaking {
    fn begin(count: &Rc<Cell<usize>>) -> Option<Handshaking> {
        (count.get() < MAX_HANDSHAKES).then(|| {
            count.set(count.get() + 1);
            Handshaking(count.clone())
        })
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The next connection. Errors of a single one (it went away, or the process is out of file descriptors) pass.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a socket takes no option");
                }
                return stream;
            }
            Err(error) => {
                warn!(%error, "can't accept a connection");
                tokio::time::sleep(BACKOFF_MIN).await;
            }
        }
    }
}

#[allow(clippy::result_large_err)] // the handshake's answer is tungstenite's type
async fn accept_clients(listener: TcpListener, handle: NodeHandle, config: Rc<NodeConfig>) {
    let handshaking = Rc::new(Cell::new(0));
    let origins = Rc::new(own_origins(listener.local_addr().unwrap_or(config.client_listen), &config));
    loop {
        let stream = accept(&listener).await;
        let Some(counted) = Handshaking::begin(&handshaking) else { continue };
        let (handle, config, origins) = (handle.clone(), config.clone(), origins.clone());
        tokio::task::spawn_local(async move {
            let full = handle.clients() >= config.limits.max_clients as u64;
            let check = |request: &Request, response: Response| match client_status(request, &origins, full) {
                StatusCode::SWITCHING_PROTOCOLS => Ok(response),
                status => Err(turned_away(status)),
            };
            if let Some(socket) = upgrade(stream, check, client_socket(&config), &config).await {
                handle.serve_client(socket);
            }
            drop(counted);
        });
    }
}

fn client_status(request: &Request, origins: &[String], full: bool) -> StatusCode {
    let origin = request.headers().get("origin").map(|origin| origin.to_str().unwrap_or_default());
    if request.uri().path() != CLIENT_PATH {
        StatusCode::NOT_FOUND
    } else if origin.is_some_and(|origin| !origins.iter().any(|own| own.eq_ignore_ascii_case(origin))) {
        StatusCode::FORBIDDEN
    } else if full {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::SWITCHING_PROTOCOLS
    }
}

/// The node's own origins, and those that the configuration allows. The Host header is not asked: a page whose name was
/// made to resolve to this node could write what it likes there.
fn own_origins(listen: SocketAddr, config: &NodeConfig) -> Vec<String> {
    let mut origins = config.allowed_origins.clone();
    origins.push(format!("http://{listen}"));
    if listen.ip().is_loopback() || listen.ip().is_unspecified() {
        let port = listen.port();
        origins.extend(["localhost", "127.0.0.1", "[::1]"].map(|host| format!("http://{host}:{port}")));
    }
    origins
}

#[allow(clippy::result_large_err)] // the handshake's answer is tungstenite's type
async fn accept_peers(listener: TcpListener, handle: NodeHandle, config: Rc<NodeConfig>) {
    let handshaking = Rc::new(Cell::new(0));
    loop {
        let stream = accept(&listener).await;
        let Some(counted) = Handshaking::begin(&handshaking) else { continue };
        let (handle, config) = (handle.clone(), config.clone());
        tokio::task::spawn_local(async move {
            let check = |request: &Request, response: Response| {
                if request.uri().path() != PEER_PATH {
                    Err(turned_away(StatusCode::NOT_FOUND))
                } else if request.headers().contains_key("origin") {
                    Err(turned_away(StatusCode::FORBIDDEN))
                } else {
                    Ok(response)
                }
            };
            let socket = upgrade(stream, check, peer_socket(), &config).await;
            drop(counted);
            if let Some(socket) = socket {
                let reason = handle.serve_peer(socket).await;
                debug!(reason, "a link that a peer called has ended");
            }
        });
    }
}

async fn upgrade(
    stream: TcpStream,
    check: impl FnOnce(&Request, Response) -> Result<Response, ErrorResponse> + Unpin,
    socket: WebSocketConfig,
    config: &NodeConfig,
) -> Option<WebSocketStream<TcpStream>> {
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

fn turned_away(status: StatusCode) -> ErrorResponse {
    let text = match status {
        StatusCode::FORBIDDEN => "this Origin is not allowed: see allowed_origins in the node's configuration\n",
        StatusCode::SERVICE_UNAVAILABLE => "this node has as many clients as it may have\n",
        _ => "there is nothing here; clients use /v1/client\n",
    };
    let mut response = ErrorResponse::new(Some(text.into()));
    *response.status_mut() = status;
    response
}

fn client_socket(config: &NodeConfig) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(config.limits.max_message_bytes))
        .max_frame_size(Some(config.limits.max_message_bytes))
        .read_buffer_size(CLIENT_READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
}

fn peer_socket() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_PEER_FRAME))
        .max_frame_size(Some(MAX_PEER_FRAME))
        .read_buffer_size(PEER_READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
}

/// Calls a peer, and again whenever the link has ended.
async fn dial(peer: NodeId, address: String, handle: NodeHandle, config: Rc<NodeConfig>) {
    let mut backoff = BACKOFF_MIN;
    let mut told = String::new();
    loop {
        let began = tokio::time::Instant::now();
        let reason = match call(&address, &config).await {
            Ok(socket) => handle.call_peer(peer, socket).await,
            Err(reason) => reason,
        };
        // The same trouble is told once.
        if reason != told {
            warn!(%peer, address, reason, "no link to the peer; calling again");
            told = reason;
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
        let connected = tokio_tungstenite::client_async_with_config(request, stream, Some(peer_socket())).await;
        connected.map(|(socket, _)| socket).map_err(|error| error.to_string())
    };
    let timeout = config.limits.handshake_timeout();
    tokio::time::timeout(timeout, calling).await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}
