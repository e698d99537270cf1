//! The door for clients: handshakes, who is turned away, and how they learn why.
//!
//! A page can't see with what status its handshake was refused, so one of a foreign Origin is let through it and closed at once with a
//! code and a reason.
//!
//! A client stays in its place of the doorway until it has said who it is; then its session sees to a seat for it.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rabia_bank_actors::consensus::turns::Owner;
use rabia_bank_actors::handle::NodeHandle;
use rabia_bank_actors::seats::Seats;
use rabia_bank_actors::socket::metered::Metered;
use rabia_bank_actors::socket::{ClientSocket, Visitor};
use rabia_bank_messages::client::{CLIENT_PATH, STATUS_PATH};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::Digest;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tracing::warn;

use super::client_tls::ClientTls;
use super::descriptors::{Descriptors, MAX_LATE, MAX_STATUS};
use super::places::{Place, Places};
use super::rate::Rate;
use super::{WRITE_BUFFER, accept, status, turned_away, upgrade};
use crate::certificate::key_hash;
use crate::config::NodeConfig;
use crate::tls;

/// Bytes that are read from a client's socket at a time: there may be thousands of them. The socket zeroes so many bytes
/// before every read, so more is not better.
const CLIENT_READ_BUFFER: usize = 4 << 10;
/// The most bytes that wait inside a socket: one answer, the longest there is, behind what is written at once.
const MAX_WRITE_BUFFER: usize = 32 << 20;
/// How long a page of a foreign Origin may take to read why it is closed.
const FAREWELL: Duration = Duration::from_secs(2);
/// The most bytes of a client's TLS handshake: it may show a chain of certificates.
const MAX_TLS_HANDSHAKE: usize = 16 << 10;
/// What it reads: 123 bytes at most.
const FOREIGN: &str = "this Origin is not allowed: see allowed_origins in the node's configuration";

/// Where clients come in: who gets a seat, who is turned away, and why.
pub(super) struct Door {
    handle: NodeHandle,
    config: Rc<NodeConfig>,
    /// None: they are served plain.
    tls: Option<ClientTls>,
    origins: Vec<String>,
    descriptors: Descriptors,
    seats: Arc<Seats>,
    /// For those who have said no hello, while descriptors are plenty.
    places: Arc<Places>,
    /// For those that only the reserve of descriptors is left for.
    late: Arc<Places>,
    /// For questions for the status.
    status: Arc<Places>,
    trouble: Rate,
    foreign: Rate,
    not_secured: Rate,
}

/// What a connection is for.
enum Purpose {
    /// A client.
    Client,
    /// A question for the status.
    Status,
    /// A page of this Origin, which is sent away.
    Foreign(String),
}

impl Door {
    /// The door of a node that listens here.
    pub(super) fn new(
        handle: NodeHandle,
        config: Rc<NodeConfig>,
        tls: Option<ClientTls>,
        descriptors: Descriptors,
        seats: Arc<Seats>,
        listener: &TcpListener,
    ) -> Rc<Door> {
        let origins = own_origins(listener.local_addr().unwrap_or(config.client_listen), &config, tls.is_some());
        let limits = &config.limits;
        let places = Places::new(limits.max_handshakes, limits.max_handshakes_per_address);
        let (late, status) = (Places::new(MAX_LATE, MAX_LATE), Places::new(MAX_STATUS, MAX_STATUS));
        let [trouble, foreign, not_secured] = [(); 3].map(|()| Rate::default());
        Rc::new(Door {
            handle,
            config,
            tls,
            origins,
            descriptors,
            seats,
            places,
            late,
            status,
            trouble,
            foreign,
            not_secured,
        })
    }

    /// Lets clients in, for ever.
    pub(super) async fn open(self: Rc<Self>, listener: TcpListener) {
        loop {
            let (stream, address) = accept(&listener, &self.trouble).await;
            let late = self.descriptors.is_late(&stream);
            let place = if late { &self.late } else { &self.places }.enter(address);
            let door = self.clone();
            tokio::task::spawn_local(async move { door.meet(stream, address, late, place).await });
        }
    }

    #[allow(clippy::result_large_err)] // the handshake's answer is tungstenite's type
    async fn meet(&self, stream: TcpStream, address: IpAddr, late: bool, mut place: Place) {
        let purpose = Cell::new(None);
        let check = |request: &Request, response: Response| {
            purpose.set(Some(self.purpose(request)?));
            Ok(response)
        };
        let owner = Owner::at(address);
        let certificate = Cell::new(None);
        let secured = self.secured(stream, address, owner, &certificate);
        let socket = tokio::select! {
            socket = upgrade(secured, check, client_socket(&self.config), &self.config) => socket,
            () = place.lost() => None,
        };
        match (socket, purpose.into_inner()) {
            (Some(socket), Some(Purpose::Client)) => {
                socket.get_ref().meter().opened();
                let place = Box::pin(async move { place.lost().await });
                let (certificate, seats) = (certificate.get(), self.seats.clone());
                self.handle.serve_client(Visitor { socket, owner, certificate, place, seats, late });
            }
            (Some(socket), Some(Purpose::Status)) => {
                socket.get_ref().meter().opened();
                drop(place);
                let mut place = self.status.enter(address);
                tokio::select! {
                    () = status::answer(socket, &self.handle, &self.config, certificate.get()) => {}
                    () = place.lost() => {}
                }
            }
            (Some(socket), Some(Purpose::Foreign(origin))) => self.send_away(socket, address, &origin).await,
            _ => {}
        }
    }

    /// The connection with its meter, which counts what is in TLS. Tells the certificate that the client has shown.
    async fn secured(
        &self,
        stream: TcpStream,
        address: IpAddr,
        owner: Owner,
        certificate: &Cell<Option<Digest>>,
    ) -> Result<Metered, String> {
        let meter = self.handle.meter(owner);
        let Some(client_tls) = &self.tls else { return Ok(Metered::new(stream, meter)) };
        match tls::accept(client_tls.config(), stream, MAX_TLS_HANDSHAKE).await {
            Ok(secured) => {
                let shown = secured.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                certificate.set(shown.and_then(key_hash));
                Ok(Metered::new(tls::Secured(secured), meter))
            }
            Err(error) => {
                let error = error.to_string();
                if let Some(times) = self.not_secured.count() {
                    warn!(%address, times, error = %escaped(&error), "a client is closed: no TLS came about, and nothing else is spoken");
                }
                Err(error)
            }
        }
    }

    #[allow(clippy::result_large_err)] // the handshake's answer is tungstenite's type
    fn purpose(&self, request: &Request) -> Result<Purpose, ErrorResponse> {
        let path = request.uri().path();
        if ![CLIENT_PATH, STATUS_PATH].contains(&path) {
            return Err(turned_away(StatusCode::NOT_FOUND, "there is nothing here; clients use /v1/client"));
        }
        let origin = request.headers().get("origin").map(|origin| origin.to_str().unwrap_or("not readable"));
        if let Some(origin) = origin.filter(|origin| !self.origins.iter().any(|own| own.eq_ignore_ascii_case(origin))) {
            return Ok(Purpose::Foreign(origin.to_owned()));
        }
        Ok(if path == STATUS_PATH { Purpose::Status } else { Purpose::Client })
    }

    async fn send_away(&self, mut socket: ClientSocket, address: IpAddr, origin: &str) {
        if let Some(times) = self.foreign.count() {
            warn!(origin, %address, times, "a web page is turned away: allowed_origins does not list its Origin");
        }
        let frame = CloseFrame { code: CloseCode::Policy, reason: FOREIGN.into() };
        let farewell = async {
            if socket.close(Some(frame)).await.is_ok() {
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
            }
        };
        // Whether it reads that is its own business.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

/// The node's own origins, and those that the configuration allows. The Host header is not asked: a page whose name was
/// made to resolve to this node could write what it likes there.
fn own_origins(listen: SocketAddr, config: &NodeConfig, has_tls: bool) -> Vec<String> {
    let mut origins = config.allowed_origins.clone();
    let scheme = if has_tls { "https" } else { "http" };
    origins.push(format!("{scheme}://{listen}"));
    if listen.ip().is_loopback() || listen.ip().is_unspecified() {
        let port = listen.port();
        origins.extend(["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{scheme}://{host}:{port}")));
    }
    origins
}

fn client_socket(config: &NodeConfig) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(config.limits.max_message_bytes))
        .max_frame_size(Some(config.limits.max_message_bytes))
        .read_buffer_size(CLIENT_READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
}
