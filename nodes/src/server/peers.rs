//! The links of a node: answering peers that call, and calling those that it is to call. Over sockets all of it is
//! [TLS](crate::peer_tls).

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use rabia_bank_actors::handle::NodeHandle;
use rabia_bank_actors::socket::{PeerSocket, PeerStream, link_socket, opening_socket};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::NodeId;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tracing::{debug, warn};

use super::descriptors::MAX_PEER_HANDSHAKES;
use super::places::Places;
use super::rate::Rate;
use super::{LocalNetwork, Peers, accept, turned_away, upgrade};
use crate::config::NodeConfig;
use crate::peer_tls::{NotSecured, PeerTls};

/// The path of the WebSocket endpoint for peers.
const PEER_PATH: &str = "/v1/peer";
/// The wait before a peer is called again, at first …
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// … and at most.
const BACKOFF_MAX: Duration = Duration::from_millis(300);
/// Nodes that were started together have found one another within this time.
const FIND_ONE_ANOTHER: Duration = Duration::from_secs(5);
/// A link that lasted so long was no failed attempt.
const LASTED: Duration = Duration::from_secs(5);

/// Sees to it that there is a link to every peer. The tasks never end.
pub(super) fn link(tasks: &mut JoinSet<()>, peers: Peers, tls: PeerTls, handle: &NodeHandle, config: &Rc<NodeConfig>) {
    let (calls, network) = match peers {
        Peers::None => return,
        Peers::Tcp(listener) => (Calls::Tcp(listener, Rc::new(Door::new(tls.clone()))), None),
        Peers::Local(network) => (Calls::Local(network.listen(config.node)), Some(network)),
    };
    tasks.spawn_local(answer(calls, handle.clone(), config.clone()));
    for member in config.peers().filter(|member| member.node > config.node) {
        let way = match &network {
            Some(network) => Way::Local(network.clone(), member.node),
            None => Way::Tcp(member.address.clone(), tls.clone()),
        };
        tasks.spawn_local(dial(member.node, way, handle.clone(), config.clone()));
    }
}

/// Where calls of peers come in.
enum Calls {
    Tcp(TcpListener, Rc<Door>),
    Local(mpsc::UnboundedReceiver<DuplexStream>),
}

impl Calls {
    /// The next call, and where it comes from.
    async fn next(&mut self) -> (Call, IpAddr) {
        match self {
            Calls::Tcp(listener, door) => {
                let (stream, address) = accept(listener, &door.trouble).await;
                (Call::Tcp(stream, address, door.clone()), address)
            }
            Calls::Local(calls) => match calls.recv().await {
                Some(stream) => (Call::Local(stream), Ipv4Addr::LOCALHOST.into()),
                // Another run of this member takes them.
                None => std::future::pending().await,
            },
        }
    }
}

/// What calls over sockets have in common.
struct Door {
    tls: PeerTls,
    trouble: Rate,
    plain: Rate,
    failed: Rate,
}

impl Door {
    fn new(tls: PeerTls) -> Door {
        let [trouble, plain, failed] = [(); 3].map(|()| Rate::default());
        Door { tls, trouble, plain, failed }
    }

    fn tell(&self, address: IpAddr, error: &NotSecured) {
        let (rate, told) = match error {
            NotSecured::Plain => {
                (&self.plain, "a connection to the port for peers is closed: only TLS is spoken there")
            }
            NotSecured::Failed(_) => {
                (&self.failed, "a connection to the port for peers has failed in its TLS handshake")
            }
        };
        if let Some(times) = rate.count() {
            let error = error.to_string();
            warn!(%address, times, error = %escaped(&error), "{told}");
        }
    }
}

/// A peer that calls.
enum Call {
    Tcp(TcpStream, IpAddr, Rc<Door>),
    Local(DuplexStream),
}

impl Call {
    /// Its bytes, once it is known whose they are.
    async fn secured(self) -> Result<PeerStream, String> {
        match self {
            Call::Tcp(stream, address, door) => door.tls.accept(stream).await.map_err(|error| {
                door.tell(address, &error);
                error.to_string()
            }),
            Call::Local(stream) => Ok(PeerStream::in_process(stream)),
        }
    }
}

/// How a peer is called.
enum Way {
    /// Over the network, at this address.
    Tcp(String, PeerTls),
    /// This member, in this process.
    Local(LocalNetwork, NodeId),
}

impl Way {
    /// What stands in the URL of the call, and in messages.
    fn address(&self) -> String {
        match self {
            Way::Tcp(address, _) => address.clone(),
            Way::Local(_, node) => format!("node-{node}"),
        }
    }

    async fn connect(&self) -> Result<PeerStream, String> {
        match self {
            Way::Tcp(address, tls) => {
                let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                tls.connect(stream).await.map_err(|error| error.to_string())
            }
            Way::Local(network, node) => network.call(*node).map(PeerStream::in_process),
        }
    }
}

#[allow(clippy::result_large_err)] // the handshake's answer is tungstenite's type
async fn answer(mut calls: Calls, handle: NodeHandle, config: Rc<NodeConfig>) {
    let places = Places::new(MAX_PEER_HANDSHAKES, MAX_PEER_HANDSHAKES);
    loop {
        let (call, address) = calls.next().await;
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
                match upgrade(call.secured(), check, opening_socket(), &config).await {
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

/// Calls a peer, and again whenever the link has ended.
async fn dial(peer: NodeId, way: Way, handle: NodeHandle, config: Rc<NodeConfig>) {
    let address = way.address();
    let mut backoff = BACKOFF_MIN;
    let mut told = String::new();
    // Nodes that start together find one another after a few calls: that is no trouble yet.
    let first = tokio::time::Instant::now();
    loop {
        let began = tokio::time::Instant::now();
        let reason = match call(&way, &config).await {
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

async fn call(way: &Way, config: &NodeConfig) -> Result<PeerSocket, String> {
    let calling = async {
        let stream = way.connect().await?;
        let url = format!("ws://{}{PEER_PATH}", way.address());
        let request = url.into_client_request().map_err(|error| error.to_string())?;
        let connected = tokio_tungstenite::client_async_with_config(request, stream, Some(link_socket())).await;
        connected.map(|(socket, _)| socket).map_err(|error| error.to_string())
    };
    let timeout = config.limits.handshake_timeout();
    tokio::time::timeout(timeout, calling).await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}
