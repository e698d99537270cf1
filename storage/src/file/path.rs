//! Where a store is: turns what redb and the system say into errors that name the file.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StoreError;

/// The version of redb's own file format, which this program's redb writes.
const REDB_FORMAT: u32 = 3;

thread_local! {
    /// The file that this thread worked on last.
    static LAST: RefCell<Option<StorePath>> = const { RefCell::new(None) };
}

/// The file of a store that this thread worked on last. Where a damaged page makes redb panic, this is the file that it is in: a
/// program's panic hook can name it.
pub fn last_file() -> Option<PathBuf> {
    LAST.with_borrow(|last| last.as_ref().map(StorePath::file))
}

/// The file of a store, shared by the store and its readers.
#[derive(Clone, Debug)]
pub(crate) struct StorePath(Arc<Path>);

impl StorePath {
    pub(crate) fn new(path: &Path) -> StorePath {
        StorePath(path.into())
    }

    /// Notes that this thread works on the file now: see [`last_file`].
    pub(crate) fn work(&self) {
        LAST.with_borrow_mut(|last| {
            if !last.as_ref().is_some_and(|last| Arc::ptr_eq(&last.0, &self.0)) {
                *last = Some(self.clone());
            }
        });
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.to_path_buf()
    }

    pub(crate) fn damaged(&self, what: impl Display) -> StoreError {
        StoreError::Damaged { file: self.file(), what: what.to_string() }
    }

    pub(crate) fn contradiction(&self, what: impl Display) -> StoreError {
        StoreError::Contradiction { file: self.file(), what: what.to_string() }
    }

    /// What the system answered to opening, reading or writing the file.
    pub(crate) fn io(&self, source: io::Error) -> StoreError {
        let file = self.file();
        match source.kind() {
            ErrorKind::NotFound => StoreError::Missing { file },
            ErrorKind::AlreadyExists => StoreError::Exists { file },
            // redb says so where the file is none of its own, or ends before what its header says.
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => self.damaged(source),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                StoreError::Full { file, source }
            }
            _ => StoreError::Io { file, source },
        }
    }

    /// An error of redb, with the file that it is about.
    pub(crate) fn redb(&self, error: impl Into<redb::Error>) -> StoreError {
        use redb::Error;
        let file = self.file();
        match error.into() {
            Error::Io(source) => self.io(source),
            Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => StoreError::InUse { file },
            // Of redb's own format: a file that an older redb wrote.
            Error::UpgradeRequired(found) => StoreError::Version { file, found: found.into(), known: REDB_FORMAT },
            error @ (Error::Corrupted(_)
            | Error::TableDoesNotExist(_)
            | Error::TableTypeMismatch { .. }
            | Error::TypeDefinitionChanged { .. }
            | Error::TableIsMultimap(_)) => self.damaged(error),
            error => StoreError::Io { file, source: io::Error::other(error.to_string()) },
        }
    }
}
