//! A log from its creation to its last commit.

use std::path::Path;

use rabia_bank_messages::ids::{Digest, RunId, Slot, StoreId};
use rabia_bank_messages::lineage::Secret;
use rabia_bank_messages::promise::{Began, Commit, Identity, Recovered};
use redb::{Builder, Database, StorageBackend};

use super::commit::{self, LastDecisions, Marks};
use super::reader::LogReader;
use super::recover::{self, CACHE, Removed};
use super::rows::{self, LOG, META_COMPACTED, META_RESERVED, META_SECRET, META_STARTS, PROMISED_KEY, Part, TABLES};
use crate::error::StoreError;
use crate::file::database::{BACKEND, create_file, create_on, open_file};
use crate::file::path::StorePath;
use crate::file::rows::Rows;
use crate::file::shared::{Held, Shared};
use crate::identity::{META, put_identity, store_of};

/// Slots that one commit removes at most: it takes about a millisecond longer.
const COMPACT_SLOTS: u64 = 128;

/// The one writer of a node's store. The crate's page says what it keeps, and what a crash leaves of it.
#[derive(Debug)]
pub struct LogStore {
    database: Shared,
    place: StorePath,
    reserved: Slot,
    /// The last slot that was removed.
    compacted: Slot,
    /// The end of the log without gaps, and the hash there.
    head: (Slot, Option<Digest>),
    /// The slot of the books when it was opened.
    base: Slot,
    /// In memory, some 70 bytes for each decided batch that the log has.
    last: LastDecisions,
    /// What the first commit that failed answered.
    stopped: Option<String>,
}

impl LogStore {
    /// Creates the log of a member, once, and closes it. It begins after the slot `base`: 0, or that of the books of a cluster
    /// that is restored. When this returns, the file and its name are on the disk.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if anything is at `path`, which is left as it is. After any other error, as after a crash,
    /// there is no file at `path`, or a complete one whose name may not survive a power failure.
    pub fn create(path: &Path, identity: &Identity, base: Slot) -> Result<(), StoreError> {
        let secret = draw_secret(path)?;
        create_file(path, |backend, place| write_new(backend, place, identity, None, base, secret))
    }

    /// Creates a log on a backend, which must be empty, and closes it. Its secret follows from the ids of cluster and store, so that
    /// the same bytes come out every time: for tests and simulations.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is anything on the backend.
    pub fn create_with(backend: impl StorageBackend, identity: &Identity, base: Slot) -> Result<(), StoreError> {
        let secret = known_secret(identity, None);
        create_on(backend, |backend, place| write_new(backend, place, identity, None, base, secret))
    }

    /// Creates an empty log that takes the place of the member's former one, under the id `store`. Its node is silent until
    /// the others have decided so.
    ///
    /// # Errors
    /// As for [`LogStore::create`].
    pub fn create_replacing(path: &Path, identity: &Identity, store: StoreId) -> Result<(), StoreError> {
        let secret = draw_secret(path)?;
        create_file(path, |backend, place| write_new(backend, place, identity, Some(store), 0, secret))
    }

    /// The same on a backend, which must be empty, as [`LogStore::create_with`] does it.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is anything on the backend.
    pub fn create_replacing_with(
        backend: impl StorageBackend,
        identity: &Identity,
        store: StoreId,
    ) -> Result<(), StoreError> {
        let secret = known_secret(identity, Some(store));
        create_on(backend, |backend, place| write_new(backend, place, identity, Some(store), 0, secret))
    }

    /// Opens the log of a member, verifies all of it, and raises its start counter durably. Never creates one. `base` tells which
    /// slot the books stand after, and is asked when the log is known to be this member's.
    ///
    /// # Errors
    /// If it is missing, in use, of another member or cluster, of another version, damaged, or begins after `base`: see
    /// [`StoreError`].
    pub fn open(
        path: &Path,
        identity: &Identity,
        base: impl FnOnce() -> Result<Slot, StoreError>,
    ) -> Result<(LogStore, Recovered), StoreError> {
        let (backend, place) = open_file(path)?;
        open_on(backend, place, identity, base)
    }

    /// Opens a store on a backend: [`LogStore::open`] for disks that are not a file.
    ///
    /// # Errors
    /// As for [`LogStore::open`]; an empty backend is damaged.
    pub fn open_with(
        backend: impl StorageBackend,
        identity: &Identity,
        base: impl FnOnce() -> Result<Slot, StoreError>,
    ) -> Result<(LogStore, Recovered), StoreError> {
        open_on(backend, StorePath::new(Path::new(BACKEND)), identity, base)
    }

    /// Makes all of a commit durable, or nothing of it, with one fdatasync. Writes nothing if the commit is empty.
    ///
    /// Payloads that are there already are not written again, and neither are records of slots that are decided. What
    /// the commit decides loses its records.
    ///
    /// # Errors
    /// [`StoreError::Contradiction`] if the commit breaks one of the rules on the crate's page;
    /// [`StoreError::Full`], [`StoreError::Io`] or [`StoreError::Damaged`] if writing fails: it may or may not be there
    /// after the next start. After the first error, of either kind, every commit answers [`StoreError::Stopped`].
    pub fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        if let Some(first) = &self.stopped {
            return Err(StoreError::Stopped { file: self.place.file(), first: first.clone() });
        }
        if commit.is_empty() {
            return Ok(());
        }
        let marks = Marks { reserved: self.reserved, compacted: self.compacted, head: self.head };
        match commit::write(&self.database, &self.place, marks, &mut self.last, commit) {
            Ok(Marks { reserved, compacted, head }) => {
                (self.reserved, self.compacted, self.head) = (reserved, compacted, head);
                Ok(())
            }
            Err(error) => {
                self.stopped = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// How far one commit should compact, where everything up to `upto` may go: so many slots that the commit is hardly
    /// longer than others. None if nothing is left to do.
    pub fn next_compaction(&self, upto: Slot) -> Option<Slot> {
        let upto = upto.min(self.head.0);
        (self.compacted < upto).then(|| upto.min(self.compacted + COMPACT_SLOTS))
    }

    /// Makes durable that a run of the store has begun, the one in which it was opened. To be called once, before the node says
    /// anything.
    ///
    /// # Errors
    /// As for [`commit`](LogStore::commit).
    pub fn begin_run(&mut self, run: RunId, recovered: &Recovered) -> Result<Began, StoreError> {
        let began = Began { start: recovered.starts, run, promises: recovered.promised };
        let mut transaction = self.database.begin_write().map_err(|e| self.place.redb(e))?;
        transaction.set_two_phase_commit(true);
        let mut log = Rows::write(&transaction, LOG, &self.place)?;
        log.put_value(&rows::number_key(Part::Run, began.start), &(run, began.promises))?;
        log.put(&PROMISED_KEY, &began.promises.to_be_bytes())?;
        drop(log);
        transaction.commit().map_err(|e| self.place.redb(e))?;
        Ok(began)
    }

    /// Checks that the books are those of this log: `hash` is that of the log at the slot of the books. Where the log lacks slots
    /// that the books cover, it goes on from there. To be called once, after the store was opened.
    ///
    /// # Errors
    /// [`StoreError::OtherLog`] if they are of another log; otherwise as for [`commit`](LogStore::commit).
    pub fn settle(&mut self, hash: Digest, recovered: &mut Recovered) -> Result<(), StoreError> {
        let base = self.base;
        match self.reader().hash(base)? {
            Some(own) if own == hash => {}
            Some(_) => return Err(StoreError::OtherLog { file: self.place.file(), slot: base }),
            None => self.head = commit::put_base_hash(&self.database, &self.place, base, hash)?,
        }
        if recovered.hashes.is_empty() {
            recovered.hashes = self.reader().newest_hashes()?;
        }
        Ok(())
    }

    /// Reads what is committed, on any thread, while this store goes on writing.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.database.clone(), self.place.clone())
    }

    /// Tells whether the file is still open when this store, and its readers, have gone.
    pub fn held(&self) -> Held {
        self.database.held()
    }
}

/// Writes an empty log: everything in one transaction, so that the file is a log or is none.
fn write_new(
    backend: impl StorageBackend,
    place: &StorePath,
    identity: &Identity,
    store: Option<StoreId>,
    base: Slot,
    secret: Secret,
) -> Result<(), StoreError> {
    store_of(identity, place)?;
    let database = Builder::new().set_cache_size(CACHE).create_with_backend(backend).map_err(|e| place.redb(e))?;
    let transaction = database.begin_write().map_err(|e| place.redb(e))?;
    for table in TABLES {
        Rows::write(&transaction, table, place)?;
    }
    let mut meta = Rows::write(&transaction, META, place)?;
    put_identity(&mut meta, identity, store)?;
    meta.put(META_SECRET, &secret.0)?;
    meta.put(META_STARTS, &0u64.to_be_bytes())?;
    meta.put(META_RESERVED, &(base + 1).to_be_bytes())?;
    meta.put(META_COMPACTED, &rows::encode_compacted(base, Some(Digest::ZERO)))?;
    drop(meta);
    transaction.commit().map_err(|e| place.redb(e))?;
    database.close().map_err(|e| place.redb(e))
}

fn open_on(
    backend: impl StorageBackend,
    place: StorePath,
    identity: &Identity,
    base: impl FnOnce() -> Result<Slot, StoreError>,
) -> Result<(LogStore, Recovered), StoreError> {
    let (database, staged, mut recovered, mut removed) = recover::open(backend, &place, identity, base)?;
    staged.let_go().map_err(|e| place.io(e))?;
    let compacted;
    (recovered.starts, compacted) = raise_starts(&database, &place, recovered.starts, &mut removed)?;
    let (reserved, Removed { last, head, base, .. }) = (recovered.reserved, removed);
    let store =
        LogStore { database: Shared::new(database), place, reserved, compacted, head, base, last, stopped: None };
    Ok((store, recovered))
}

fn draw_secret(path: &Path) -> Result<Secret, StoreError> {
    let mut secret = [0; 32];
    let drawn = getrandom::fill(&mut secret);
    drawn.map_err(|error| StorePath::new(path).io(std::io::Error::other(error.to_string())))?;
    Ok(Secret(secret))
}

fn known_secret(identity: &Identity, store: Option<StoreId>) -> Secret {
    let first = identity.genesis.stores.get(identity.node.index()).copied();
    let store = store.or(first).unwrap_or(StoreId([0; 16]));
    Secret(Digest::of(&[identity.genesis.cluster.0, store.0].concat()).0)
}

/// Counts this start, and removes a part of the log that has a gap, and payloads that no row names: nobody knows of them any
/// more. Two syncs instead of one, so that damage of its pages is not taken for a torn write. Answers the count, and how far the
/// log was removed.
fn raise_starts(
    database: &Database,
    place: &StorePath,
    starts: u64,
    removed: &mut Removed,
) -> Result<(u64, Slot), StoreError> {
    let Some(raised) = starts.checked_add(1) else {
        return Err(place.damaged("the start counter is at its end"));
    };
    let mut transaction = database.begin_write().map_err(|e| place.redb(e))?;
    transaction.set_two_phase_commit(true);
    Rows::write(&transaction, META, place)?.put(META_STARTS, &raised.to_be_bytes())?;
    let compacted = commit::compact(&transaction, place, &mut removed.last, removed.upto, removed.to_remove)?;
    commit::remove_unnamed_payloads(&transaction, place)?;
    transaction.commit().map_err(|e| place.redb(e))?;
    Ok((raised, compacted))
}
