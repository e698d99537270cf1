//! A connection to a node, plain or over TLS, as a person with a key of a member, or with one that is nobody's, would make it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::Arc;

use rabia_bank::member_key::MemberKey;
use rabia_bank::peer_tls::PeerTls;
use rustls::{ClientConfig, ClientConnection, ServerConnection, StreamOwned};
use tokio_tungstenite::tungstenite::{Error as SocketError, WebSocket, accept};

use super::{PATIENCE, websocket_on};

/// Where peers are served.
pub const PEER_PATH: &str = "/v1/peer";

/// What bytes go over. It is its TCP connection besides, to set time limits and the like.
pub enum Wire {
    Plain(TcpStream),
    Calling(Box<StreamOwned<ClientConnection, TcpStream>>),
    Called(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Deref for Wire {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Calling(stream) => &stream.sock,
            Wire::Called(stream) => &stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Calling(stream) => stream.read(buffer),
            Wire::Called(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(bytes),
            Wire::Calling(stream) => stream.write(bytes),
            Wire::Called(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Calling(stream) => stream.flush(),
            Wire::Called(stream) => stream.flush(),
        }
    }
}

/// A TCP connection that waits for [`PATIENCE`].
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Calls over TLS with this configuration. The handshake is done when this returns, as far as the caller can tell.
pub fn secured(stream: TcpStream, config: Arc<ClientConfig>) -> io::Result<Wire> {
    let connection = ClientConnection::new(config, PeerTls::name()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Wire::Calling(Box::new(stream)))
}

/// A WebSocket to the port for peers, of somebody who has this key.
pub fn open_peer(
    address: SocketAddr,
    key: &MemberKey,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocket<Wire>, SocketError> {
    let wire = secured(connect(address)?, PeerTls::new(key).unwrap().client())?;
    websocket_on(wire, address, path, headers)
}

/// Answers the call of a node, as somebody who has this key. None if it hangs up.
pub fn answer_peer(stream: TcpStream, key: &MemberKey) -> Option<WebSocket<Wire>> {
    if stream.read_timeout().ok()?.is_none() {
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
    }
    let connection = ServerConnection::new(PeerTls::new(key).unwrap().server()).ok()?;
    accept(Wire::Called(Box::new(StreamOwned::new(connection, stream)))).ok()
}
