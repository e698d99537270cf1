//! A database of redb in a file: made complete or not at all, and opened only where it is.

use std::fs::{File, OpenOptions};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend};

use super::path::StorePath;
use super::staged::Staged;
use crate::error::StoreError;

/// What the file is called until it is complete.
const DRAFT: (&str, &str) = (".rabia-bank-", ".new");

/// What errors call a store on a given backend.
pub(crate) const BACKEND: &str = "(a given backend)";

/// Creates a file by what `write` puts on it: complete, synced and named, or not at all.
pub(crate) fn create_file(
    path: &Path,
    write: impl FnOnce(FileBackend, &StorePath) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let place = StorePath::new(path);
    if path.try_exists().map_err(|e| place.io(e))? {
        return Err(StoreError::Exists { file: place.file() });
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let (prefix, suffix) = DRAFT;
    let draft = tempfile::Builder::new()
        .prefix(prefix)
        .suffix(suffix)
        .tempfile_in(directory)
        .map_err(|source| StoreError::Io { file: place.file(), source })?;
    let file = draft.reopen().map_err(|e| place.io(e))?;
    write(FileBackend::new(file).map_err(|e| place.redb(e))?, &place)?;
    draft.as_file().sync_all().map_err(|e| place.io(e))?;
    draft.persist_noclobber(path).map_err(|e| place.io(e.error))?;
    sync_directory(directory).map_err(|e| place.io(e))
}

/// The same on a backend, which must be empty.
pub(crate) fn create_on<B: StorageBackend>(
    backend: B,
    write: impl FnOnce(B, &StorePath) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let place = StorePath::new(Path::new(BACKEND));
    if backend.len().map_err(|e| place.io(e))? > 0 {
        return Err(StoreError::Exists { file: place.file() });
    }
    write(backend, &place)
}

/// Opens a file that must be there.
pub(crate) fn open_file(path: &Path) -> Result<(FileBackend, StorePath), StoreError> {
    let place = StorePath::new(path);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| place.io(e))?;
    Ok((FileBackend::new(file).map_err(|e| place.redb(e))?, place))
}

/// Opens the database on a backend; what redb writes meanwhile is held back, so that a file that is refused stays as it is. `cache` is
/// how much of it redb keeps in memory, in bytes. All pages are verified first if `verify` says so.
pub(crate) fn open_staged<B: StorageBackend>(
    backend: B,
    place: &StorePath,
    cache: usize,
    verify: bool,
) -> Result<(Database, Staged<B>), StoreError> {
    place.work();
    // redb would make a new database of an empty file.
    if backend.len().map_err(|e| place.io(e))? == 0 {
        return Err(place.damaged("it is empty"));
    }
    let staged = Staged::new(backend).map_err(|e| place.io(e))?;
    let database = Builder::new()
        .set_cache_size(cache)
        .set_check_integrity_on_open(verify)
        .create_with_backend(staged.clone())
        .map_err(|e| place.redb(e))?;
    Ok((database, staged))
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere directories can't be opened, and renaming is the file system's own business.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> std::io::Result<()> {
    Ok(())
}
