//! TLS for clients: certificates that are read again when their files change, and how long they are good.
//!
//! The files are looked at every few seconds, and when somebody asks for it (the program does on SIGHUP). Connections that are there
//! keep what they began with; each new one gets what was read last. Files that can't be used change nothing: what worked before goes on
//! to be used, and the log says so until they are put right. Nothing but TLS 1.3 is spoken, without tickets, so that every connection
//! is checked against the authorities of now.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rabia_bank_actors::handle::NodeHandle;
use rabia_bank_messages::ids::Millis;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::certificate::expires_at;
use crate::config::TlsFiles;
use crate::create::wall;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// So long before its end a certificate is warned of …
const SOON: Duration = Duration::from_secs(30 * 86_400);
/// … this often …
const WARN_EVERY: Duration = Duration::from_secs(86_400);
/// … and once it has expired, this often.
const EXPIRED_EVERY: Duration = Duration::from_secs(3_600);
/// How often it is said that files can't be used.
const BROKEN_EVERY: Duration = Duration::from_secs(60);

/// What stands in the files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Contents, String> {
        let read = |path: &Path| fs::read(path).map_err(|error| format!("can't read {}: {error}", path.display()));
        Ok(Contents {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

/// What a new connection gets.
struct InUse {
    config: Arc<ServerConfig>,
    contents: Contents,
    expires_at: Millis,
}

/// Files that can't be used.
struct Broken {
    /// None: they can't even be read.
    contents: Option<Contents>,
    told: Option<Instant>,
}

/// The certificates of a node.
pub(crate) struct Certificates {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    in_use: RefCell<InUse>,
    broken: RefCell<Option<Broken>>,
    warned: Cell<Option<Instant>>,
}

/// What clients get TLS with.
#[derive(Clone)]
pub(crate) enum ClientTls {
    /// Files that the configuration names, which may change.
    Files(Rc<Certificates>),
    /// What the program says that the node lives in.
    Host(Arc<ServerConfig>),
}

impl ClientTls {
    /// What a new connection gets.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        match self {
            ClientTls::Files(certificates) => certificates.config(),
            ClientTls::Host(config) => config.clone(),
        }
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Why they can't be used, and which it is.
    pub(crate) fn load(files: &TlsFiles) -> Result<Rc<Certificates>, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let in_use = made(files, Contents::read(files)?, &provider)?;
        let (files, in_use) = (files.clone(), RefCell::new(in_use));
        Ok(Rc::new(Certificates { files, provider, in_use, broken: RefCell::default(), warned: Cell::default() }))
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.in_use.borrow().config.clone()
    }

    /// Keeps them current, for ever.
    pub(crate) async fn watch(self: Rc<Self>, handle: NodeHandle, reload: Arc<Notify>) {
        loop {
            handle.note_certificate(self.in_use.borrow().expires_at);
            self.tell_expiry(wall());
            let asked = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                () = reload.notified() => true,
            };
            self.look(asked);
        }
    }

    fn look(&self, asked: bool) {
        let read = Contents::read(&self.files);
        let contents = read.as_ref().ok().cloned();
        if contents.as_ref() == Some(&self.in_use.borrow().contents) {
            if self.broken.take().is_some() || asked {
                info!("the certificate for clients is the one that is in use");
            }
            return;
        }
        match read.and_then(|contents| made(&self.files, contents, &self.provider)) {
            Ok(new) => {
                info!(expires = %shown(new.expires_at), "there is another certificate for clients: new connections get it");
                *self.in_use.borrow_mut() = new;
                self.broken.take();
                self.warned.set(None);
            }
            Err(why) => self.tell_broken(contents, &why, asked),
        }
    }

    /// Who replaces two files replaces one first: what is wrong at one look may be right at the next.
    fn tell_broken(&self, contents: Option<Contents>, why: &str, asked: bool) {
        let mut broken = self.broken.borrow_mut();
        let told = match &*broken {
            Some(before) if before.contents == contents => Some(before.told),
            _ => None,
        };
        let tell = match told {
            None => asked,
            Some(told) => told.is_none_or(|told| told.elapsed() >= BROKEN_EVERY) || asked,
        };
        if tell {
            let expires = shown(self.in_use.borrow().expires_at);
            error!(
                %expires,
                "the files for TLS have changed and can't be used: {why}. Clients are served with the former certificate"
            );
        }
        let told = if tell { Some(Instant::now()) } else { told.flatten() };
        *broken = Some(Broken { contents, told });
    }

    fn tell_expiry(&self, now: Millis) {
        let expires_at = self.in_use.borrow().expires_at;
        let Some(every) = warning(now, expires_at) else { return };
        if self.warned.get().is_some_and(|warned| warned.elapsed() < every) {
            return;
        }
        self.warned.set(Some(Instant::now()));
        let (file, expires) = (self.files.certificate.display(), shown(expires_at));
        if expires_at <= now {
            error!(%file, %expires, "the certificate for clients has expired: they refuse this node. Put a new one in its place");
        } else {
            warn!(%file, %expires, "the certificate for clients expires soon: put a new one in its place, it is read without a restart");
        }
    }
}

/// How often it is to be said that a certificate expires, if it is.
fn warning(now: Millis, expires_at: Millis) -> Option<Duration> {
    if expires_at <= now {
        return Some(EXPIRED_EVERY);
    }
    (expires_at - now <= SOON.as_millis() as Millis).then_some(WARN_EVERY)
}

fn shown(time: Millis) -> String {
    // Later times than this can't be written.
    let latest = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(time).min(latest)).to_string()
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("{}: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("there is no certificate in {} (PEM is expected)", path.display()));
    }
    Ok(found)
}

fn made(files: &TlsFiles, contents: Contents, provider: &Arc<CryptoProvider>) -> Result<InUse, String> {
    let TlsFiles { certificate, key, client_ca } = files;
    let chain = certificates(certificate, &contents.certificate)?;
    let ends = chain.iter().map(|certificate| expires_at(certificate)).min().flatten();
    let Some(expires_at) = ends else {
        return Err(format!("{} holds something that is no certificate", certificate.display()));
    };
    let private = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|error| format!("there is no key in {}: {error}", key.display()))?;
    let own = CertifiedKey::from_der(chain, private, provider)
        .map_err(|error| format!("{} is not the key of {}: {error}", key.display(), certificate.display()))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?;
    let builder = match client_ca.as_deref().zip(contents.client_ca.as_deref()) {
        None => builder.with_no_client_auth(),
        Some((path, pem)) => {
            let bad = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, pem)? {
                roots.add(authority).map_err(|error| bad(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad(&error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(InUse { config: Arc::new(config), contents, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_from_thirty_days_before_its_end() {
        let day = 86_400_000;
        for (left, every) in
            [(31 * day, None), (30 * day, Some(WARN_EVERY)), (1, Some(WARN_EVERY)), (0, Some(EXPIRED_EVERY))]
        {
            assert_eq!(warning(100 * day, 100 * day + left), every, "{left}");
        }
        assert_eq!(warning(100 * day, 0), Some(EXPIRED_EVERY));
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert!(shown(Millis::MAX).starts_with("9999-12-31"));
    }
}
