//! Writing the books, one snapshot after the other.

use std::ops::Range;
use std::path::Path;

use rabia_bank_messages::ids::{Slot, StoreId};
use rabia_bank_messages::promise::Identity;
use redb::{Builder, Database, StorageBackend, WriteTransaction};

use super::open::{CACHE, Pages, check_store, open};
use super::reader::BooksReader;
use super::rows::{ACCOUNTS, BLOCKS, META_SLOT, SESSIONS, STATE, STATE_KEY, TABLES, pack};
use crate::error::StoreError;
use crate::file::database::{BACKEND, create_file, create_on, open_file};
use crate::file::path::StorePath;
use crate::file::rows::Rows;
use crate::file::shared::{Held, Shared};
use crate::identity::{META, put_identity, store_of};

/// What changed since the last snapshot, in rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The slot that the rows stand after.
    pub slot: Slot,
    /// Counters, figures, the head of the chain.
    pub state: Vec<u8>,
    /// Pages of accounts, by number.
    pub accounts: Vec<(u32, Vec<u8>)>,
    /// Sessions, by number; none for one that ended.
    pub sessions: Vec<(u64, Option<Vec<u8>>)>,
    /// With these numbers there is nothing but what is in `sessions`. Books that came from a peer may have more.
    pub new_sessions: Range<u64>,
    /// Blocks of the history, by number.
    pub blocks: Vec<(u64, Vec<u8>)>,
}

/// The one writer of a node's books. The crate's page says what they hold, and what a crash leaves of them.
#[derive(Debug)]
pub struct BooksStore {
    database: Shared,
    place: StorePath,
    store: StoreId,
    slot: Slot,
    /// What the first commit that failed answered.
    stopped: Option<String>,
}

impl BooksStore {
    /// Creates the books of a member, once, and closes them: empty, or as a snapshot has them. When this returns, the file
    /// and its name are on the disk.
    ///
    /// # Errors
    /// As for [`LogStore::create`](crate::LogStore::create).
    pub fn create(path: &Path, identity: &Identity, snapshot: Option<&Snapshot>) -> Result<(), StoreError> {
        create_file(path, |backend, place| write_new(backend, place, identity, None, snapshot))
    }

    /// Creates empty books that take the place of the member's former ones, with the id of the log beside them.
    ///
    /// # Errors
    /// As for [`LogStore::create`](crate::LogStore::create).
    pub fn create_replacing(path: &Path, identity: &Identity, store: StoreId) -> Result<(), StoreError> {
        create_file(path, |backend, place| write_new(backend, place, identity, Some(store), None))
    }

    /// The same on a backend, which must be empty.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is anything on the backend.
    pub fn create_replacing_with(
        backend: impl StorageBackend,
        identity: &Identity,
        store: StoreId,
    ) -> Result<(), StoreError> {
        create_on(backend, |backend, place| write_new(backend, place, identity, Some(store), None))
    }

    /// Creates books on a backend, which must be empty, and closes them.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is anything on the backend.
    pub fn create_with(
        backend: impl StorageBackend,
        identity: &Identity,
        snapshot: Option<&Snapshot>,
    ) -> Result<(), StoreError> {
        create_on(backend, |backend, place| write_new(backend, place, identity, None, snapshot))
    }

    /// Opens the books of a member. Never creates them. Rows are verified when they are read.
    ///
    /// # Errors
    /// If they are missing, in use, of another member or cluster, of another version, or damaged: see [`StoreError`].
    pub fn open(path: &Path, identity: &Identity) -> Result<BooksStore, StoreError> {
        let (backend, place) = open_file(path)?;
        open_on(backend, place, identity)
    }

    /// Opens books on a backend: [`BooksStore::open`] for disks that are not a file.
    ///
    /// # Errors
    /// As for [`BooksStore::open`]; an empty backend is damaged.
    pub fn open_with(backend: impl StorageBackend, identity: &Identity) -> Result<BooksStore, StoreError> {
        open_on(backend, StorePath::new(Path::new(BACKEND)), identity)
    }

    /// The slot that the books stand after; 0 if they are empty.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Checks that these are the books of the log beside them.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`] if they are of a store that this one took the place of.
    pub fn check_store(&self, log: StoreId) -> Result<(), StoreError> {
        check_store(&self.place, self.store, log)
    }

    /// Makes a snapshot durable: adds what changed.
    ///
    /// # Errors
    /// [`StoreError::Contradiction`] if it is not after [`slot`](BooksStore::slot); otherwise as for [`LogStore::commit`](crate::LogStore::commit). After the first error every write answers
    /// [`StoreError::Stopped`].
    pub fn save(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.write(|writer| writer.put(snapshot), Some(snapshot.slot))
    }

    /// Stores blocks of a snapshot that is being received: full ones, in order, behind the last full one.
    ///
    /// # Errors
    /// As for [`save`](BooksStore::save).
    pub fn save_blocks(&mut self, blocks: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.write(|writer| writer.put_blocks(blocks), None)
    }

    /// Makes a snapshot durable that is complete but for blocks that are here: accounts, sessions and state are replaced.
    ///
    /// # Errors
    /// As for [`save`](BooksStore::save); [`StoreError::Contradiction`] if a row is there twice, or they are not in order.
    pub fn install(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        if !snapshot.accounts.is_sorted_by(|a, b| a.0 < b.0) || !snapshot.sessions.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(self.place.contradiction("the rows of a whole snapshot would come twice or out of order"));
        }
        let install = |writer: &Writer<'_>| {
            for table in [ACCOUNTS, SESSIONS] {
                Rows::write(writer.transaction, table, writer.place)?.clear()?;
            }
            writer.put(snapshot)
        };
        self.write(install, Some(snapshot.slot))
    }

    fn write(
        &mut self,
        write: impl FnOnce(&Writer<'_>) -> Result<(), StoreError>,
        slot: Option<Slot>,
    ) -> Result<(), StoreError> {
        if let Some(first) = &self.stopped {
            return Err(StoreError::Stopped { file: self.place.file(), first: first.clone() });
        }
        let written = match slot.filter(|slot| *slot <= self.slot) {
            Some(slot) => Err(self
                .place
                .contradiction(format_args!("the books stand after slot {}, not before {slot}", self.slot))),
            None => commit(&self.database, &self.place, write),
        };
        match &written {
            Ok(()) => self.slot = slot.unwrap_or(self.slot),
            Err(error) => self.stopped = Some(error.to_string()),
        }
        written
    }

    /// Reads what is committed, on any thread, while this store goes on writing.
    pub fn reader(&self) -> BooksReader {
        BooksReader::new(self.database.clone(), self.place.clone(), self.store)
    }

    /// Tells whether the file is still open when this store, and its readers, have gone.
    pub fn held(&self) -> Held {
        self.database.held()
    }
}

struct Writer<'t> {
    transaction: &'t WriteTransaction,
    place: &'t StorePath,
}

impl Writer<'_> {
    fn put(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let Snapshot { slot, state, accounts, sessions, new_sessions, blocks } = snapshot;
        self.put_blocks(blocks)?;
        let mut rows = Rows::write(self.transaction, ACCOUNTS, self.place)?;
        for (page, body) in accounts {
            rows.put(&page.to_be_bytes(), &pack(body))?;
        }
        let mut rows = Rows::write(self.transaction, SESSIONS, self.place)?;
        if !new_sessions.is_empty() {
            rows.remove_range(&new_sessions.start.to_be_bytes(), &(new_sessions.end - 1).to_be_bytes())?;
        }
        for (number, body) in sessions {
            match body {
                Some(body) => rows.put(&number.to_be_bytes(), &pack(body))?,
                None => rows.remove(&number.to_be_bytes())?,
            }
        }
        Rows::write(self.transaction, STATE, self.place)?.put(STATE_KEY, &pack(state))?;
        Rows::write(self.transaction, META, self.place)?.put(META_SLOT, &slot.to_be_bytes())
    }

    fn put_blocks(&self, blocks: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
        let mut rows = Rows::write(self.transaction, BLOCKS, self.place)?;
        for (block, body) in blocks {
            rows.put(&block.to_be_bytes(), &pack(body))?;
        }
        Ok(())
    }
}

fn commit(
    database: &Database,
    place: &StorePath,
    write: impl FnOnce(&Writer<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    place.work();
    let mut transaction = database.begin_write().map_err(|e| place.redb(e))?;
    transaction.set_quick_repair(true);
    write(&Writer { transaction: &transaction, place })?;
    transaction.commit().map_err(|e| place.redb(e))
}

/// Writes new books: everything in one transaction, so that the file is complete or is none.
fn write_new(
    backend: impl StorageBackend,
    place: &StorePath,
    identity: &Identity,
    store: Option<StoreId>,
    snapshot: Option<&Snapshot>,
) -> Result<(), StoreError> {
    store_of(identity, place)?;
    let database = Builder::new().set_cache_size(CACHE).create_with_backend(backend).map_err(|e| place.redb(e))?;
    commit(&database, place, |writer| {
        for table in TABLES {
            Rows::write(writer.transaction, table, place)?;
        }
        let mut meta = Rows::write(writer.transaction, META, place)?;
        put_identity(&mut meta, identity, store)?;
        meta.put(META_SLOT, &0u64.to_be_bytes())?;
        drop(meta);
        snapshot.map_or(Ok(()), |snapshot| writer.put(snapshot))
    })?;
    database.close().map_err(|e| place.redb(e))
}

fn open_on(backend: impl StorageBackend, place: StorePath, identity: &Identity) -> Result<BooksStore, StoreError> {
    let (database, staged, store, slot) = open(backend, &place, identity, Pages::AsTheyAre)?;
    staged.let_go().map_err(|e| place.io(e))?;
    Ok(BooksStore { database: Shared::new(database), place, store, slot, stopped: None })
}
