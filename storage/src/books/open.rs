//! Opening the books: whose they are, and where they stand. Their rows are verified when they are read.

use rabia_bank_messages::ids::{Slot, StoreId};
use rabia_bank_messages::promise::Identity;
use redb::{Database, ReadableDatabase, StorageBackend};

use super::rows::{TABLES, read_slot};
use crate::error::StoreError;
use crate::file::database;
use crate::file::paced::Paced;
use crate::file::path::StorePath;
use crate::file::rows::Rows;
use crate::file::staged::Staged;
use crate::identity::{META, check_identity};

/// How much of the file redb keeps in memory, in bytes. What is read often, the ledger keeps itself.
pub(crate) const CACHE: usize = 32 << 20;

/// Whether the pages of the file are verified when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// All of them, which costs by the length of the history.
    Verified,
    /// None: a start must not take longer the older the bank is. Rows are verified when they are read.
    AsTheyAre,
}

/// Books that are open: their file, what redb wanted to write meanwhile, whose they are, and where they stand.
pub(crate) type Opened<B> = (Database, Staged<Paced<B>>, StoreId, Slot);

/// Opens the file and checks whose it is; what redb writes meanwhile is held back.
pub(crate) fn open<B: StorageBackend>(
    backend: B,
    place: &StorePath,
    identity: &Identity,
    pages: Pages,
) -> Result<Opened<B>, StoreError> {
    let (database, staged) = database::open_staged(Paced::new(backend), place, CACHE, pages == Pages::Verified)?;
    let transaction = database.begin_read().map_err(|e| place.redb(e))?;
    let meta = Rows::read(&transaction, META, place)?;
    let store = check_identity(&meta, place, identity)?;
    for table in TABLES {
        Rows::read(&transaction, table, place)?;
    }
    let slot = read_slot(&transaction, place)?;
    drop((meta, transaction));
    Ok((database, staged, store, slot))
}

/// Checks that the books are of the same store as the log beside them.
pub(crate) fn check_store(place: &StorePath, books: StoreId, log: StoreId) -> Result<(), StoreError> {
    match books == log {
        true => Ok(()),
        false => Err(StoreError::OtherStore { file: place.file(), found: books, expected: log }),
    }
}
