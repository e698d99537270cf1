//! The books on disk: the state of the bank after a slot, and the whole history, in rows that the ledger makes and reads.
//!
//! A snapshot is one transaction with everything that changed since the one before, so that the file always holds one whole
//! state. It is committed with redb's quick repair: opening the file after a crash takes no longer for its size.

use std::path::Path;
use std::sync::Arc;

use rabia_bank_messages::ids::{Slot, StoreId};
use rabia_bank_messages::promise::Identity;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};

use crate::error::StoreError;
use crate::format::{ACCOUNTS, BLOCKS, BOOKS_TABLES, META, META_SLOT, SESSIONS, STATE, STATE_KEY};
use crate::paced::Paced;
use crate::place::Place;
use crate::recover;
use crate::rows::Rows;
use crate::staged::Staged;
use crate::store::{create_file, create_on, open_file};

/// How much of the file redb keeps in memory, in bytes. What is read often, the ledger keeps itself.
const CACHE: usize = 32 << 20;
/// The longest row before it is compressed: a session with all the replies that it may keep.
const MAX_ROW: usize = 64 << 20;

/// What changed since the last snapshot, in rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The slot that the rows stand after.
    pub slot: Slot,
    /// The row of the state.
    pub state: Vec<u8>,
    /// Pages of accounts, by number.
    pub accounts: Vec<(u32, Vec<u8>)>,
    /// Sessions, by number; none for one that ended.
    pub sessions: Vec<(u64, Option<Vec<u8>>)>,
    /// Blocks of the history, by number.
    pub blocks: Vec<(u64, Vec<u8>)>,
}

/// The one writer of a node's books. The crate's page says what they hold, and what a crash leaves of them.
#[derive(Debug)]
pub struct BooksStore {
    database: Arc<Database>,
    place: Place,
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
        open_on(backend, Place::new(Path::new("(a given backend)")), identity)
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
        BooksReader { database: Arc::clone(&self.database), place: self.place.clone(), store: self.store }
    }
}

/// Reads the books. Clones read the same ones.
#[derive(Clone, Debug)]
pub struct BooksReader {
    database: Arc<Database>,
    place: Place,
    store: StoreId,
}

impl BooksReader {
    /// Opens the books of a member to read them, and leaves the file byte for byte as it is, also after a crash. Verifies every
    /// page of it first, which takes a second or two per GB.
    ///
    /// # Errors
    /// As for [`BooksStore::open`].
    pub fn open(path: &Path, identity: &Identity) -> Result<BooksReader, StoreError> {
        let (backend, place) = open_file(path)?;
        let (database, _, store, _) = open_staged(backend, &place, identity, Pages::Verified)?;
        Ok(BooksReader { database: Arc::new(database), place, store })
    }

    /// Opens books that [`open`](BooksReader::open) says are damaged, to find out which rows are. redb may panic where it
    /// reads a damaged page of its own.
    ///
    /// # Errors
    /// As for [`BooksStore::open`].
    pub fn open_damaged(path: &Path, identity: &Identity) -> Result<BooksReader, StoreError> {
        let (backend, place) = open_file(path)?;
        let (database, _, store, _) = open_staged(backend, &place, identity, Pages::AsTheyAre)?;
        Ok(BooksReader { database: Arc::new(database), place, store })
    }

    /// Checks that these are the books of the log beside them.
    ///
    /// # Errors
    /// As for [`BooksStore::check_store`].
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

/// The books of one moment.
#[derive(Debug)]
pub struct BooksView {
    transaction: ReadTransaction,
    place: Place,
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
        table: &'static str,
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

fn check_store(place: &Place, books: StoreId, log: StoreId) -> Result<(), StoreError> {
    match books == log {
        true => Ok(()),
        false => Err(StoreError::OtherStore { file: place.file(), found: books, expected: log }),
    }
}

/// Compresses a row.
fn pack(body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= MAX_ROW, "a row of {} bytes", body.len());
    lz4_flex::block::compress_prepend_size(body)
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, String> {
    let (size, rest) = lz4_flex::block::uncompressed_size(body).map_err(|e| e.to_string())?;
    if size > MAX_ROW {
        return Err(format!("{size} bytes when it is unpacked, more than a row has"));
    }
    lz4_flex::block::decompress(rest, size).map_err(|e| e.to_string())
}

struct Writer<'t> {
    transaction: &'t WriteTransaction,
    place: &'t Place,
}

impl Writer<'_> {
    fn put(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let Snapshot { slot, state, accounts, sessions, blocks } = snapshot;
        self.put_blocks(blocks)?;
        let mut rows = Rows::write(self.transaction, ACCOUNTS, self.place)?;
        for (page, body) in accounts {
            rows.put(&page.to_be_bytes(), &pack(body))?;
        }
        let mut rows = Rows::write(self.transaction, SESSIONS, self.place)?;
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
    place: &Place,
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
    place: &Place,
    identity: &Identity,
    store: Option<StoreId>,
    snapshot: Option<&Snapshot>,
) -> Result<(), StoreError> {
    recover::store_of(identity, place)?;
    let database = Builder::new().set_cache_size(CACHE).create_with_backend(backend).map_err(|e| place.redb(e))?;
    commit(&database, place, |writer| {
        for table in BOOKS_TABLES {
            Rows::write(writer.transaction, table, place)?;
        }
        let mut meta = Rows::write(writer.transaction, META, place)?;
        recover::put_identity(&mut meta, identity, store)?;
        meta.put(META_SLOT, &0u64.to_be_bytes())?;
        drop(meta);
        snapshot.map_or(Ok(()), |snapshot| writer.put(snapshot))
    })?;
    database.close().map_err(|e| place.redb(e))
}

fn open_on(backend: impl StorageBackend, place: Place, identity: &Identity) -> Result<BooksStore, StoreError> {
    let (database, staged, store, slot) = open_staged(backend, &place, identity, Pages::AsTheyAre)?;
    staged.let_go().map_err(|e| place.io(e))?;
    Ok(BooksStore { database: Arc::new(database), place, store, slot, stopped: None })
}

/// Whether the pages of the file are verified when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pages {
    /// All of them, which costs by the length of the history.
    Verified,
    /// None: a start must not take longer the older the bank is. Rows are verified when they are read.
    AsTheyAre,
}

/// Books that are open: their file, what redb wanted to write meanwhile, whose they are, and where they stand.
type Opened<B> = (Database, Staged<Paced<B>>, StoreId, Slot);

/// Opens the file and checks whose it is; what redb writes meanwhile is held back.
fn open_staged<B: StorageBackend>(
    backend: B,
    place: &Place,
    identity: &Identity,
    pages: Pages,
) -> Result<Opened<B>, StoreError> {
    place.work();
    // redb would make a new database of an empty file.
    if backend.len().map_err(|e| place.io(e))? == 0 {
        return Err(place.damaged("it is empty"));
    }
    let staged = Staged::new(Paced::new(backend)).map_err(|e| place.io(e))?;
    let database = Builder::new()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(pages == Pages::Verified)
        .create_with_backend(staged.clone())
        .map_err(|e| place.redb(e))?;
    let transaction = database.begin_read().map_err(|e| place.redb(e))?;
    let meta = Rows::read(&transaction, META, place)?;
    let store = recover::check_identity(&meta, place, identity)?;
    for table in BOOKS_TABLES {
        Rows::read(&transaction, table, place)?;
    }
    let slot = read_slot(&transaction, place)?;
    drop((meta, transaction));
    Ok((database, staged, store, slot))
}

fn read_slot(transaction: &ReadTransaction, place: &Place) -> Result<Slot, StoreError> {
    let meta = Rows::read(transaction, META, place)?;
    meta.get_u64(META_SLOT)?.ok_or_else(|| meta.damaged(META_SLOT, "the row is missing"))
}
