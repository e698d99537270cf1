//! Files and folders for their owner alone: money is nobody else's business, wherever a folder is moved.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// What the owner of a folder may do, and nobody else.
pub(crate) const FOLDER: u32 = 0o700;
/// What the owner of a file may do, and nobody else.
pub(crate) const FILE: u32 = 0o600;

/// Makes a folder that is not there yet.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER).create(path)
}

/// Makes a folder, and those above it, where they are not there yet.
pub(crate) fn create_folders(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER).recursive(true).create(path)
}

/// Makes a file that is not there yet, and syncs it.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(FILE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
