//! Backup files.

use rabia_bank::backup::{self, NewCopy};
use rabia_bank::messages::genesis::Founding;

use super::parts;
use super::snapshot_rows;

const MAGIC: &[u8] = b"rabia-bank backup 2\n";
/// What the clock of whoever reads it shows.
const NOW: u64 = 1_800_000_000_000;

fn copy(founding: &Founding) -> NewCopy<'_> {
    NewCopy { founding, keep_tokens: false, members: 3 }
}

/// As a file, and as the parts of one whose lengths and digest are right.
pub fn check(input: &[u8]) {
    let _ = read(input);
    let _ = read(&file(input));
}

fn read(file: &[u8]) -> Option<backup::Backup> {
    match backup::read(file, NOW, copy(&Founding::default())) {
        Ok(backup) => {
            assert!(file.starts_with(MAGIC));
            // What a new cluster is made of.
            assert!(!backup.snapshot.state.is_empty());
            assert!(backup.transactions >= 512 * (backup.snapshot.blocks.len() as u64).saturating_sub(1));
            Some(backup)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// A file of these parts. Sessions are no part of a backup, but may be in the input.
fn file(input: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    let mut rows = 0u64;
    for part in parts::split(input).into_iter().filter(|part| part.kind != 0) {
        let packed = lz4_flex::block::compress_prepend_size(&part.body);
        // A kind of 128 or more is one whose number is far beyond all others.
        let number = u64::from(part.number) | if part.kind & 128 != 0 { u64::MAX << 32 } else { 0 };
        file.push(part.kind & 127);
        file.extend(number.to_be_bytes());
        file.extend((packed.len() as u32).to_be_bytes());
        file.extend(packed);
        rows += 1;
    }
    file.push(0);
    file.extend(rows.to_be_bytes());
    let digest = blake3::hash(&file);
    file.extend(digest.as_bytes());
    file
}

/// Parts without sessions, and files of them.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for rows in snapshot_rows::seeds() {
        let mut parts = parts::split(&rows);
        parts.retain(|part| part.kind != snapshot_rows::SESSIONS);
        let input = parts::join(&parts);
        let file = file(&input);
        assert!(read(&file).is_some(), "{:?}", backup::read(&file[..], NOW, copy(&Founding::default())).err());
        seeds.extend([input, file]);
    }
    seeds
}
