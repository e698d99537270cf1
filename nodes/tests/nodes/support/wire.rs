//! A connection to a node, plain or over TLS, as a person with a key of a member, or with one that is nobody's, would make it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::Arc;

use rabia_bank::member_key::MemberKey;
use rabia_bank::peer_tls::PeerTls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConnection, SignatureScheme, StreamOwned};
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

/// Reads on to the end, whatever it is.
pub fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// A ClientHello as a program sends it that speaks TLS 1.2 at most.
pub fn hello_of_tls_1_2() -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| {
        [&kind.to_be_bytes()[..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    };
    let extensions = [
        extension(10, &[0, 4, 0, 29, 0, 23]),
        extension(11, &[1, 0]),
        extension(13, &[0, 6, 8, 7, 4, 3, 8, 4]),
        extension(19, &[1, 2]),
        extension(20, &[1, 2]),
        extension(23, &[]),
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    handshake.extend(body);
    let mut record = vec![0x16, 3, 1];
    record.extend(u16::try_from(handshake.len()).unwrap().to_be_bytes());
    record.extend(handshake);
    record
}

/// Looks at nothing, and wants a certificate where raw keys are what nodes have.
#[derive(Debug)]
pub struct Anything {
    pub raw: bool,
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

/// Takes any certificate: a test looks at it itself.
pub fn trusting_all() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
    let builder = builder.with_protocol_versions(&[&TLS13]).unwrap().dangerous();
    Arc::new(builder.with_custom_certificate_verifier(Arc::new(Anything { raw: false })).with_no_client_auth())
}

/// The certificate that the other end has shown.
pub fn certificate(wire: &Wire) -> Vec<u8> {
    let Wire::Calling(stream) = wire else { panic!("no TLS") };
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}
