//! The key of a member: what its node shows on every link, and what its store is named after.
//!
//! It is an Ed25519 key. It is made with the store and lies beside it in `member.key`: PKCS#8 (version 1, DER, as
//! `openssl pkey -inform DER` reads it), for the owner of the folder alone. The id of the store is the first 16 bytes of the BLAKE3 of
//! the public key, of its 32 bytes as RFC 8032 has them ([`StoreId::of_key`]). So the genesis and the log, which say which stores are
//! members', say which keys are, and there is no authority to ask and nothing that expires.
//!
//! A node does not start with a key that others can read, that somebody else may have put there, or that is another store's. A
//! member whose key is lost or stolen gets a new store, which comes with a new key: see [`replace`](crate::replace).

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use rabia_bank_messages::ids::StoreId;
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;

use crate::private;

/// The name of the file, in a node's `data_dir`.
pub const KEY_FILE: &str = "member.key";
/// No key of this kind has more bytes.
const MAX_KEY: u64 = 4 << 10;
/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;
/// The permissions to write of everybody but the owner.
const OTHERS_WRITE: u32 = 0o022;

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error(
        "there is no key at {}. It was made with the store, and the other nodes believe nobody without it. Look for it; if it is \
         gone, this member needs a new store, which comes with a key: `rabia-bank replace --help`", file.display()
    )]
    Missing {
        /// Where it should be.
        file: PathBuf,
    },
    /// Not the owner alone may read or write it.
    #[error(
        "{} is not for its owner alone (mode {mode:04o}): whoever reads it can speak as this member. `chmod 600` it; if somebody \
         may have read it, give the member a new store, which comes with a new key: `rabia-bank replace --force`", file.display()
    )]
    Open {
        /// The key.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not the owner alone may put files there.
    #[error(
        "others than its owner may write to {}, where the key of this member lies (mode {mode:04o}): `chmod 700` it",
        folder.display()
    )]
    OpenFolder {
        /// The folder of the key.
        folder: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no key of this kind.
    #[error(
        "{} is no Ed25519 key in PKCS#8. Put the right file back; if it is lost, this member needs a new store, which comes with a \
         key: `rabia-bank replace --help`", file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
    },
    /// It can't be read.
    #[error("can't read {}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A member's key. Its `Debug` tells the store's id alone.
#[derive(Clone)]
pub struct MemberKey {
    pkcs8: Arc<[u8]>,
    signing: Arc<dyn SigningKey>,
    store: StoreId,
}

impl std::fmt::Debug for MemberKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberKey").field("store", &self.store).finish_non_exhaustive()
    }
}

impl MemberKey {
    /// A new key that nobody else has.
    ///
    /// # Panics
    /// If the operating system has no random numbers to give. Nothing that this program does is safe then.
    pub fn draw() -> MemberKey {
        let drawn = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
        let key = drawn.ok().and_then(|document| MemberKey::of(document.as_ref()));
        key.unwrap_or_else(|| panic!("the operating system gives no random numbers"))
    }

    fn of(pkcs8: &[u8]) -> Option<MemberKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let store = StoreId::of_key(pair.public_key().as_ref().try_into().ok()?);
        let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).ok()?;
        Some(MemberKey { pkcs8: pkcs8.into(), signing, store })
    }

    /// Reads a key, and checks that it is its owner's alone.
    ///
    /// # Errors
    /// Why it can't be used, and what to do.
    pub fn load(path: &Path) -> Result<MemberKey, KeyError> {
        let at = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { file: path.to_owned() },
            _ => KeyError::Io { file: path.to_owned(), source },
        };
        let file = File::open(path).map_err(at)?;
        let mode = mode(&file.metadata().map_err(at)?);
        if mode & OTHERS != 0 {
            return Err(KeyError::Open { file: path.to_owned(), mode });
        }
        check_folder(path)?;
        let mut pkcs8 = Vec::new();
        file.take(MAX_KEY).read_to_end(&mut pkcs8).map_err(at)?;
        MemberKey::of(&pkcs8).ok_or_else(|| KeyError::Damaged { file: path.to_owned() })
    }

    /// Writes it into a file that is not there yet, for its owner alone, and syncs it.
    ///
    /// # Errors
    /// If it can't be written, or there is something already.
    pub fn write_new(&self, path: &Path) -> io::Result<()> {
        private::write_new(path, &self.pkcs8)
    }

    /// The id of the store that it is the key of.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// What signs with it.
    pub(crate) fn signing(&self) -> Arc<dyn SigningKey> {
        self.signing.clone()
    }
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o777
}

fn check_folder(key: &Path) -> Result<(), KeyError> {
    let folder = match key.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let metadata = folder.metadata().map_err(|source| KeyError::Io { file: folder.to_owned(), source })?;
    match mode(&metadata) {
        mode if mode & OTHERS_WRITE != 0 => Err(KeyError::OpenFolder { folder: folder.to_owned(), mode }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_written_is_read_back_and_every_key_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        let key = MemberKey::draw();
        key.write_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(MemberKey::load(&path).unwrap().store(), key.store());
        assert!(key.write_new(&path).is_err(), "nothing is overwritten");
        assert_ne!(MemberKey::draw().store(), key.store());
        let shown = format!("{key:?}");
        assert!(shown.len() < 60, "{shown}");
    }

    /// The test vector of RFC 8032, 7.1, and its key as OpenSSL writes it.
    #[test]
    fn the_id_of_a_store_is_that_of_its_public_key() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let key = MemberKey::of(&[bytes("302e020100300506032b657004220420"), bytes(seed)].concat()).unwrap();
        let hash = blake3::hash(&bytes(public));
        assert_eq!(key.store().0, hash.as_bytes()[..16]);
    }

    #[test]
    fn a_key_that_others_can_get_at_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        let refused = |path: &Path| MemberKey::load(path).unwrap_err().to_string();
        assert!(refused(&path).contains("there is no key at") && refused(&path).contains("rabia-bank replace"));
        MemberKey::draw().write_new(&path).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            set_mode(&path, mode);
            let said = refused(&path);
            assert!(said.contains("chmod 600") && said.contains(&format!("{mode:04o}")), "{said}");
        }
        for mode in [0o600, 0o400] {
            set_mode(&path, mode);
            assert!(MemberKey::load(&path).is_ok());
        }
        for mode in [0o777, 0o720, 0o702] {
            set_mode(folder.path(), mode);
            assert!(refused(&path).contains("chmod 700"));
        }
        set_mode(folder.path(), 0o700);
        for damage in [&b""[..], b"no key", &[0x30; 10_000]] {
            set_mode(&path, 0o600);
            fs::write(&path, damage).unwrap();
            assert!(refused(&path).contains("is no Ed25519 key"));
        }
    }
}
