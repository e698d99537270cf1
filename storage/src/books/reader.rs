//! Reading the books, beside the writer: whole snapshots, and blocks of the history.

use std::path::Path;

use rabia_bank_messages::ids::{Slot, StoreId};
use rabia_bank_messages::promise::Identity;
use redb::{ReadTransaction, ReadableDatabase};

use super::open::{Pages, check_store, open};
use super::rows::{ACCOUNTS, BLOCKS, SESSIONS, STATE, STATE_KEY, read_slot, unpack};
use crate::error::StoreError;
use crate::file::database::open_file;
use crate::file::path::StorePath;
use crate::file::rows::{Rows, TableId};
use crate::file::shared::Shared;

/// Reads the books. Clones read the same ones.
#[derive(Clone, Debug)]
pub struct BooksReader {
    database: Shared,
    place: StorePath,
    store: StoreId,
}

impl BooksReader {
    pub(super) fn new(database: Shared, place: StorePath, store: StoreId) -> BooksReader {
        BooksReader { database, place, store }
    }

    /// Opens the books of a member to read them, and leaves the file byte for byte as it is, also after a crash. Verifies every
    /// page of it first, which takes a second or two per GB.
    ///
    /// # Errors
    /// As for [`BooksStore::open`](super::BooksStore::open).
    pub fn open(path: &Path, identity: &Identity) -> Result<BooksReader, StoreError> {
        let (backend, place) = open_file(path)?;
        let (database, _, store, _) = open(backend, &place, identity, Pages::Verified)?;
        Ok(BooksReader { database: Shared::new(database), place, store })
    }

    /// Opens books that [`open`](BooksReader::open) says are damaged, to find out which rows are. redb may panic where it
    /// reads a damaged page of its own.
    ///
    /// # Errors
    /// As for [`BooksStore::open`](super::BooksStore::open).
    pub fn open_damaged(path: &Path, identity: &Identity) -> Result<BooksReader, StoreError> {
        let (backend, place) = open_file(path)?;
        let (database, _, store, _) = open(backend, &place, identity, Pages::AsTheyAre)?;
        Ok(BooksReader { database: Shared::new(database), place, store })
    }

    /// Checks that these are the books of the log beside them.
    ///
    /// # Errors
    /// As for [`BooksStore::check_store`](super::BooksStore::check_store).
    pub fn check_store(&self, log: StoreId) -> Result<(), StoreError> {
        check_store(&self.place, self.store, log)
    }

    /// The books as they are now, for as long as the view lives. The file grows meanwhile, if it is written to.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn view(&self) -> Result<BooksView, StoreError> {
        self.place.work();
        let transaction = self.database.begin_read().map_err(|e| self.place.redb(e))?;
        let slot = read_slot(&transaction, &self.place)?;
        Ok(BooksView { transaction, place: self.place.clone(), slot })
    }

    /// A block of the history, which must be there.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not, or fails its check; [`StoreError::Io`].
    pub fn block(&self, number: u64) -> Result<Vec<u8>, StoreError> {
        self.view()?.block(number)
    }
}

/// The books as they were when the view was made.
#[derive(Debug)]
pub struct BooksView {
    transaction: ReadTransaction,
    place: StorePath,
    slot: Slot,
}

impl BooksView {
    /// The slot that they stand after; 0 if they are empty.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The row of the state; none if the books are empty.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a row fails its check; [`StoreError::Io`]. The same holds for all others.
    pub fn state(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = Rows::read(&self.transaction, STATE, &self.place)?;
        rows.get(STATE_KEY)?.map(|body| unpack(&body).map_err(|e| rows.damaged(STATE_KEY, e))).transpose()
    }

    /// The pages of accounts from one on: as many as stay within `max_bytes`, but one at least if there is any.
    ///
    /// # Errors
    /// As for [`state`](BooksView::state).
    pub fn accounts(&self, from: u32, max_bytes: usize) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        self.rows(ACCOUNTS, &from.to_be_bytes(), max_bytes, |key| key.try_into().ok().map(u32::from_be_bytes))
    }

    /// The sessions from a number on, likewise.
    ///
    /// # Errors
    /// As for [`state`](BooksView::state).
    pub fn sessions(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.rows(SESSIONS, &from.to_be_bytes(), max_bytes, number)
    }

    /// The blocks of the history from one on, likewise.
    ///
    /// # Errors
    /// As for [`state`](BooksView::state).
    pub fn blocks(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.rows(BLOCKS, &from.to_be_bytes(), max_bytes, number)
    }

    /// A block of the history, which must be there.
    ///
    /// # Errors
    /// As for [`state`](BooksView::state).
    pub fn block(&self, number: u64) -> Result<Vec<u8>, StoreError> {
        let rows = Rows::read(&self.transaction, BLOCKS, &self.place)?;
        let key = number.to_be_bytes();
        let body = rows.get(&key)?.ok_or_else(|| rows.damaged(&key, "the block is missing"))?;
        unpack(&body).map_err(|e| rows.damaged(&key, e))
    }

    fn rows<K>(
        &self,
        table: TableId,
        from: &[u8],
        max_bytes: usize,
        read_key: impl Fn(&[u8]) -> Option<K>,
    ) -> Result<Vec<(K, Vec<u8>)>, StoreError> {
        let rows = Rows::read(&self.transaction, table, &self.place)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for row in rows.from(from)? {
            let row = row?;
            let body = unpack(&row.body).map_err(|e| rows.damaged(&row.key, e))?;
            bytes += body.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            let key = read_key(&row.key).ok_or_else(|| rows.damaged(&row.key, "no number"))?;
            found.push((key, body));
        }
        Ok(found)
    }
}

fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}
