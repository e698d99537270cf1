//! TLS on the command line: whom clients trust, and certificates for trying out.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use super::{ProgramError, default_data_dir};
use crate::client::{NodeUrl, Tls};
use crate::create::{CERTIFICATE_FILE, NewCertificate};

/// How long a certificate for trying out is good.
const GOOD_FOR: Duration = Duration::from_secs(365 * 86_400);
/// Clocks differ: it is good from so long before it was made.
const BEFORE: Duration = Duration::from_secs(86_400);
/// Whom a certificate for trying out is for: this machine.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The same as hosts of URLs.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Whom to trust at URLs with wss.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Trust {
    /// At wss URLs, trust the certificates in this file (PEM) alone. Where not given: whom this system trusts; for nodes on this machine
    /// tls.pem of the cluster in ./rabia-bank-data, if it has one.
    #[arg(long, global = true, value_name = "FILE", env = "RABIA_BANK_CA")]
    ca: Option<PathBuf>,
    /// The certificate to show where nodes ask for one (PEM).
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, global = true, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

impl Trust {
    /// Whether a certificate is shown to nodes that ask for one.
    pub(super) fn shows_certificate(&self) -> bool {
        self.client_certificate.is_some()
    }

    /// What a client of these nodes needs; nothing where none of them has a wss URL.
    pub(super) fn tls(&self, urls: &[NodeUrl]) -> Result<Option<Tls>, ProgramError> {
        if !urls.iter().any(NodeUrl::is_tls) {
            return Ok(None);
        }
        let is_here = |url: &NodeUrl| HERE.contains(&url.host());
        let own = own_certificate().filter(|_| self.ca.is_none() && urls.iter().all(is_here));
        let authorities = self.ca.as_deref().or(own.as_deref());
        let shown = self.client_certificate.as_deref().zip(self.client_key.as_deref());
        Tls::new(authorities, shown).map(Some).map_err(|error| ProgramError::Usage(error.to_string()))
    }
}

/// The certificate of the cluster in the usual folder, if it has one.
pub(super) fn own_certificate() -> Option<PathBuf> {
    Some(default_data_dir().join(CERTIFICATE_FILE)).filter(|path| path.is_file())
}

/// Trusts this certificate alone, which is a node's own.
pub(super) fn trusting(certificate: &Path) -> Result<Tls, String> {
    Tls::new(Some(certificate), None).map_err(|error| error.to_string())
}

/// A certificate for trying out, if one is wanted.
pub(super) fn new_certificate(wanted: bool) -> Result<Option<NewCertificate>, ProgramError> {
    wanted.then(self_signed).transpose().map_err(|error| ProgramError::Other(error.to_string()))
}

/// A certificate for nodes on this machine, signed by itself.
fn self_signed() -> Result<NewCertificate, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(NAMES.map(String::from))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Rabia Bank, for trying out");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + GOOD_FOR).into();
    let certificate = params.self_signed(&key)?;
    Ok(NewCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
}
