//! What a commit costs on this machine's disk, without a bank around it.

use std::path::Path;
use std::time::{Duration, Instant};

use redb::{Database, TableDefinition};

use crate::error::StoreError;
use crate::file::path::StorePath;

/// The bytes of a value: about a vote and a small batch.
const VALUE: [u8; 200] = [7; 200];
const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("probe");

/// Commits one small value after the other, durably, to a new file in `folder` that is removed afterwards. Answers how
/// long each commit took; at least one.
///
/// # Errors
/// If the folder is not there, or the disk fails.
pub fn probe(folder: &Path, commits: usize) -> Result<Vec<Duration>, StoreError> {
    let place = StorePath::new(folder);
    let file = tempfile::NamedTempFile::new_in(folder).map_err(|error| place.io(error))?;
    let database = Database::create(file.path()).map_err(|error| place.redb(error))?;
    let commit = |key: u64| {
        let begun = Instant::now();
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?.insert(key, &VALUE[..])?;
        transaction.commit()?;
        Ok(begun.elapsed())
    };
    (0..commits.max(1) as u64).map(|key| commit(key).map_err(|error: redb::Error| place.redb(error))).collect()
}
