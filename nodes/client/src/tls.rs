//! TLS to nodes whose URLs begin with `wss`: whom a client trusts, and the certificate that it shows where nodes ask for one.
//!
//! It is TLS 1.3, and never anything less: a node that speaks an older version, or none, is not spoken to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why certificates or a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadTls {
    /// A file can't be read.
    #[error("can't read {}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system's authorities can't be had.
    #[error("this system trusts no authorities that can be read ({0}); name a file of those to trust")]
    NoAuthorities(String),
    /// The library does not take it.
    #[error("TLS can't be used so: {0}")]
    Library(String),
}

impl BadTls {
    fn library(error: impl ToString) -> BadTls {
        BadTls::Library(error.to_string())
    }

    fn file(file: &Path, problem: impl Into<String>) -> BadTls {
        BadTls::File { file: file.to_owned(), problem: problem.into() }
    }

    fn pem(file: &Path, error: pem::Error, what: &str) -> BadTls {
        match error {
            pem::Error::Io(source) => BadTls::Io { file: file.to_owned(), source },
            pem::Error::NoItemsFound => BadTls::file(file, format!("there is no {what} in it (PEM is expected)")),
            error => BadTls::file(file, error.to_string()),
        }
    }
}

/// Whom a client trusts. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts whom this system trusts.
    ///
    /// # Errors
    /// If that can't be found out.
    pub fn system() -> Result<Tls, BadTls> {
        Tls::new(None, None)
    }

    /// Trusts the certificates in this PEM file alone: those of authorities, or a node's own. Without a file, whom this system trusts.
    /// Shows a certificate, with its key, where a node asks for one.
    ///
    /// # Errors
    /// If a file can't be read or used.
    pub fn new(authorities: Option<&Path>, certificate: Option<(&Path, &Path)>) -> Result<Tls, BadTls> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = match authorities {
            Some(file) => roots_of(file)?,
            None => roots_of_system()?,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(BadTls::library)?
            .with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| BadTls::pem(key, error, "key"))?;
                builder.with_client_auth_cert(chain, private).map_err(|error| {
                    BadTls::file(key, format!("is not used with {}: {error}", certificate.display()))
                })?
            }
        };
        Ok(Tls { config: Arc::new(config) })
    }

    /// Secures a connection to a node at this host.
    pub(crate) async fn secure(&self, stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let secured = TlsConnector::from(self.config.clone()).connect(name, stream).await;
        secured.map_err(|error| format!("no TLS: {error}"))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BadTls> {
    let bad = |error| BadTls::pem(file, error, "certificate");
    let found = CertificateDer::pem_file_iter(file).map_err(bad)?.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if found.is_empty() {
        return Err(bad(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn roots_of(file: &Path) -> Result<RootCertStore, BadTls> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| BadTls::file(file, error.to_string()))?;
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, BadTls> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(BadTls::NoAuthorities(if why.is_empty() { "there are none".into() } else { why.join("; ") }));
    }
    Ok(roots)
}
