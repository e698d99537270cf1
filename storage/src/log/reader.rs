//! Reading what is committed, beside the writer: the decided log for catch-up and replay, and single payloads.

use std::path::Path;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, Slot};
use rabia_bank_messages::peer::Entry;
use rabia_bank_messages::promise::{Identity, Recovered};
use redb::ReadableDatabase;

use super::recover;
use super::rows::{self, Decision, LOG, Part};
use crate::error::StoreError;
use crate::file::database;
use crate::file::path::StorePath;
use crate::file::rows::{Row, Rows, read_digest};
use crate::file::shared::Shared;
use crate::identity::META;

/// What an entry counts for beside its payload, in bytes: about what it takes in a message to a peer.
const ENTRY_OVERHEAD: usize = 64;

/// A part of the decided log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entries {
    /// These slots. None if the first one is not decided.
    Found(Vec<Entry>),
    /// The first one was removed: a snapshot covers it.
    Compacted {
        /// The last slot that was removed.
        upto: Slot,
    },
}

/// Reads what is committed. Clones read the same store; each call sees the last commit before it began.
#[derive(Clone, Debug)]
pub struct LogReader {
    database: Shared,
    place: StorePath,
}

impl LogReader {
    /// Opens the log of a member to read it, verifies all of it, and leaves the file byte for byte as it is, also after a
    /// crash. Also answers what a start would find, but for the start counter, which is not raised.
    ///
    /// # Errors
    /// As for [`LogStore::open`](crate::LogStore::open).
    pub fn open(
        path: &Path,
        identity: &Identity,
        base: impl FnOnce() -> Result<Slot, StoreError>,
    ) -> Result<(LogReader, Recovered), StoreError> {
        let (backend, place) = database::open_file(path)?;
        let (database, _, recovered, _) = recover::open(backend, &place, identity, base)?;
        Ok((LogReader::new(Shared::new(database), place), recovered))
    }

    pub(super) fn new(database: Shared, place: StorePath) -> LogReader {
        LogReader { database, place }
    }

    /// The decided slots from `from` on, without a gap: as many as stay within `max_bytes` of payloads (and 64 bytes an
    /// entry), but one at least if `from` is decided. Each payload was checked against the digest in its id.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a row fails its check or a payload is missing; [`StoreError::Io`].
    pub fn entries(&self, from: Slot, max_bytes: usize) -> Result<Entries, StoreError> {
        self.place.work();
        let transaction = self.database.begin_read().map_err(|e| self.place.redb(e))?;
        let (upto, _) = rows::read_compacted(&Rows::read(&transaction, META, &self.place)?)?;
        if 0 < from && from <= upto {
            return Ok(Entries::Compacted { upto });
        }
        let log = Rows::read(&transaction, LOG, &self.place)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0usize;
        for (row, expected) in log.alike_from(&rows::decision_key(from))?.zip(from..) {
            let Decision { slot, value, .. } = rows::decision(&log, &row?)?;
            if slot != expected {
                break;
            }
            let batch = match value {
                Some(id) => Some((id, rows::named_payload(&log, &id)?)),
                None => None,
            };
            bytes += ENTRY_OVERHEAD + batch.as_ref().map_or(0, |(_, payload)| payload.len());
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(Entry { slot, batch });
        }
        Ok(Entries::Found(entries))
    }

    /// The hash of the decided log up to a slot; none if the log is not so far, or has it no more.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a row fails its check; [`StoreError::Io`].
    pub fn hash(&self, slot: Slot) -> Result<Option<Digest>, StoreError> {
        let transaction = self.database.begin_read().map_err(|e| self.place.redb(e))?;
        let log = Rows::read(&transaction, LOG, &self.place)?;
        let key = rows::decision_key(slot);
        if let Some(body) = log.get(&key)? {
            return Ok(rows::decision(&log, &Row { key: key.to_vec(), body })?.hash);
        }
        let key = rows::number_key(Part::Hash, slot);
        if let Some(body) = log.get(&key)? {
            return read_digest(&body).map(Some).map_err(|e| log.damaged(&key, e));
        }
        let (upto, hash) = rows::read_compacted(&Rows::read(&transaction, META, &self.place)?)?;
        Ok(hash.filter(|_| slot == upto))
    }

    /// The hashes of the log up to its newest slots, as a start reads them.
    pub(super) fn newest_hashes(&self) -> Result<Vec<Digest>, StoreError> {
        let transaction = self.database.begin_read().map_err(|e| self.place.redb(e))?;
        let (upto, hash) = rows::read_compacted(&Rows::read(&transaction, META, &self.place)?)?;
        let log = Rows::read(&transaction, LOG, &self.place)?;
        let decisions = recover::read_decisions(&log)?;
        Ok(recover::read_hashes(&log, &decisions, upto, hash)?.1)
    }

    /// A payload, checked against the digest in its id; none if the store does not hold it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it fails its check; [`StoreError::Io`].
    pub fn payload(&self, id: &BatchId) -> Result<Option<Payload>, StoreError> {
        self.place.work();
        let transaction = self.database.begin_read().map_err(|e| self.place.redb(e))?;
        rows::payload(&Rows::read(&transaction, LOG, &self.place)?, id)
    }
}
