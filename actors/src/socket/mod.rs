//! Sockets of clients and peers: their types, their limits, and what is measured on them.

use std::pin::Pin;
use std::sync::Arc;

use rabia_bank_messages::codec::{MAX_OPENING_FRAME, MAX_PEER_FRAME};
use rabia_bank_messages::ids::Digest;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::consensus::turns::Owner;
use crate::parts::link::{FULL_FRAME, MAX_QUEUED};
use crate::seats::Seats;
use metered::Metered;

pub mod metered;
pub(crate) mod pace;
mod peer_stream;

pub use peer_stream::PeerStream;

/// A WebSocket to a client, whose bytes are counted.
pub type ClientSocket = WebSocketStream<Metered>;
/// A WebSocket to a peer, over the network or within the process.
pub type PeerSocket = WebSocketStream<PeerStream>;

/// The place of a client that has not said who it is: resolves when others need it. It is left when this is dropped.
pub type Doorway = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A client in the doorway.
pub struct Visitor {
    /// Its socket, whose WebSocket handshake is done.
    pub socket: ClientSocket,
    /// Whose its work is, until it has said who it is.
    pub owner: Owner,
    /// The hash of the public key of the certificate that it has shown.
    pub certificate: Option<Digest>,
    /// Where it waits until then.
    pub place: Doorway,
    /// Where it gets its seat from.
    pub seats: Arc<Seats>,
    /// Its socket is one of the few that are kept: for operators alone, where it stays.
    pub late: bool,
}

/// Bytes that are read from a peer's socket at a time.
const READ_BUFFER: usize = 16 << 10;
/// Messages are written to a peer's socket once so many bytes wait, or none follow.
const WRITE_BUFFER: usize = 64 << 10;
/// The most bytes that wait inside a peer's socket: what waits before it, and a frame on top.
const MAX_WRITE_BUFFER: usize = MAX_QUEUED + MAX_PEER_FRAME + FULL_FRAME;

/// The configuration of a peer's socket before the peer has said who it is: frames of [`MAX_OPENING_FRAME`] at most.
pub fn opening_socket() -> WebSocketConfig {
    link_socket().max_message_size(Some(MAX_OPENING_FRAME)).max_frame_size(Some(MAX_OPENING_FRAME))
}

/// The configuration of the socket of a link.
pub fn link_socket() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_PEER_FRAME))
        .max_frame_size(Some(MAX_PEER_FRAME))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
}
