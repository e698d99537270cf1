//! What links between nodes run over: TLS 1.3 with raw public keys (RFC 7250) on both sides.
//!
//! Each side shows the [key](crate::member_key) of its store and proves that it has it. A handshake says nothing of whether that store
//! is a member's: the hello that follows must name the same store, and the log says whose it is, as it is for a new store that not all
//! nodes know yet. There are no certificates, no tickets, no resumption and no data before the end of the handshake, so a handshake
//! that was recorded is worth nothing to whoever plays it again. Nothing else is spoken: who speaks plain, or an older TLS, is closed.

use std::io;
use std::sync::Arc;

use rabia_bank_actors::socket::PeerStream;
use rabia_bank_messages::ids::StoreId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;

use crate::member_key::MemberKey;
use crate::tls;

pub use crate::tls::NotSecured;

/// The most bytes of a handshake, each way: one with two keys of this kind has some 600.
const MAX_HANDSHAKE: usize = 4 << 10;
/// An Ed25519 key as a SubjectPublicKeyInfo (RFC 8410) is this, and the 32 bytes of the key.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// How a node calls its peers, and answers them.
#[derive(Clone)]
pub struct PeerTls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl PeerTls {
    /// For a node with this key.
    ///
    /// # Errors
    /// If the library does not take it.
    pub fn new(key: &MemberKey) -> Result<PeerTls, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let signing = key.signing();
        let Some(public) = signing.public_key() else {
            return Err(Error::General("a key without a public half".into()));
        };
        let own = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], signing));
        let verifier = Arc::new(AnyStore::new(&provider));
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own.clone())));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(PeerTls { client: Arc::new(client), server: Arc::new(server) })
    }

    /// For whoever calls, with a socket of its own.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// For whoever is called, with a socket of its own.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// The name that a caller gives the library, which wants one. It is neither sent nor compared.
    pub fn name() -> ServerName<'static> {
        ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]))
    }

    /// Secures a connection on which a peer called.
    ///
    /// # Errors
    /// Why it is not let in.
    pub async fn accept(&self, stream: TcpStream) -> Result<PeerStream, NotSecured> {
        let secured = tls::accept(self.server.clone(), stream, MAX_HANDSHAKE).await?;
        let store = proven(secured.get_ref().1.peer_certificates())?;
        Ok(PeerStream::proven(secured, store))
    }

    /// Secures a connection on which this node calls a peer.
    ///
    /// # Errors
    /// Why there is no link.
    pub async fn connect(&self, stream: TcpStream) -> Result<PeerStream, NotSecured> {
        let secured = tls::connect(self.client.clone(), PeerTls::name(), stream, MAX_HANDSHAKE).await?;
        let store = proven(secured.get_ref().1.peer_certificates())?;
        Ok(PeerStream::proven(secured, store))
    }
}

/// Which store the other end of a link has the key of.
fn proven(shown: Option<&[CertificateDer<'_>]>) -> io::Result<StoreId> {
    let key = shown.and_then(|shown| shown.first());
    key.and_then(store_of).ok_or_else(|| io::Error::other("the other end has shown no key"))
}

/// The store that a key is of, if it is an Ed25519 key.
fn store_of(shown: &CertificateDer<'_>) -> Option<StoreId> {
    let key: &[u8; 32] = shown.strip_prefix(&SPKI)?.try_into().ok()?;
    Some(StoreId::of_key(key))
}

/// Takes every key that can be a store's, from who proves to have it. Which store that is, is looked at when the hello is there.
#[derive(Debug)]
struct AnyStore {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyStore {
    fn new(provider: &CryptoProvider) -> AnyStore {
        AnyStore { algorithms: provider.signature_verification_algorithms }
    }

    fn check(shown: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        match store_of(shown) {
            Some(_) if more.is_empty() => Ok(()),
            _ => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(shown.as_ref()),
            signed,
            &self.algorithms,
        )
    }
}

/// No connection gets there: none speaks TLS 1.2.
fn no_older_version<T>() -> Result<T, Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

impl ServerCertVerifier for AnyStore {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        AnyStore::check(shown, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_older_version()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyStore {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        AnyStore::check(shown, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_older_version()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
