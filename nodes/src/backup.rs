//! Backups: the books of a running node in one file, and a new cluster from such a file.
//!
//! A backup is everything that the bank owes its customers: all accounts and the whole history. Sessions are not in it: what
//! clients held of the old cluster does not act on a new one. What is in it are hashes of the keys of sessions, of those that
//! were open as well: none of them opens a session again, so that a retry of what was said in the old cluster is not executed
//! a second time in the new one. The file:
//!
//! ```text
//! "rabia-bank backup 2\n"
//! rows, as many as there are:  part u8 | number u64 | length u32 | length bytes, compressed by LZ4 with the size before it
//!                              parts: 1 blocks of the history, 2 the state (one row), 3 pages of accounts, 4 sessions that
//!                              ended; in this order
//! the end:                     0 u8 | number of rows u64 | BLAKE3 over everything before it, 32 bytes
//! ```
//!
//! Numbers are big-endian. Version 1, of program 0.1.0, has no part 4. A node writes it on its control socket, `control.sock` in its folder, which only the owner of
//! the folder can open: ask `backup`, and get `ok` and the file, or what is wrong.

use std::io::{self, BufReader, BufWriter, Read, Write};

use rabia_bank_actors::ledger::{BLOCK, BadRow, Block};
use rabia_bank_actors::snapshot::Restoring;
use rabia_bank_messages::genesis::{BankTerms, Founding, SessionLimits};
use rabia_bank_messages::ids::{Digest, Millis};
use rabia_bank_messages::level::TooNew;
use rabia_bank_storage::{BooksView, Snapshot, StoreError};

/// How a backup begins. The number is the version of the format.
const MAGIC: &[u8] = b"rabia-bank backup 2\n";
/// How a backup of program 0.1.0 begins.
const MAGIC_0_1_0: &[u8] = b"rabia-bank backup 1\n";
/// Bytes of rows that are read from the store at a time.
const READ_BYTES: usize = 4 << 20;
/// The longest row, compressed or not.
const MAX_ROW: usize = 64 << 20;

/// LZ4 makes nothing shorter than this many times: each byte stands for at most 255.
const MAX_RATIO: usize = 255;

const END: u8 = 0;
const BLOCKS: u8 = 1;
const STATE: u8 = 2;
const ACCOUNTS: u8 = 3;
const ENDED_SESSIONS: u8 = 4;

/// Why a backup can't be written or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The node's store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file or socket can't be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The node says why it writes no backup.
    #[error("the node says: {0}")]
    Refused(String),
    /// It is not what a node writes.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// It is of a level that this program does not know.
    #[error(transparent)]
    TooNew(TooNew),
}

impl From<BadRow> for BackupError {
    fn from(bad: BadRow) -> BackupError {
        match bad {
            BadRow::Damaged(why) => BackupError::Damaged(why),
            BadRow::TooNew(too_new) => BackupError::TooNew(too_new),
        }
    }
}

/// Writes the books of one moment.
///
/// # Errors
/// If they can't be read, are empty, or the file can't be written.
pub fn write(view: &BooksView, out: impl Write) -> Result<(), BackupError> {
    let state = view.state()?.ok_or_else(|| BackupError::Refused("the books are empty".into()))?;
    let mut out = Hashing { inner: BufWriter::new(out), hasher: blake3::Hasher::new() };
    out.write_all(MAGIC)?;
    let mut rows = 0u64;
    let mut row = |part: u8, number: u64, body: &[u8]| -> io::Result<()> {
        let packed = lz4_flex::block::compress_prepend_size(body);
        out.write_all(&[part])?;
        out.write_all(&number.to_be_bytes())?;
        out.write_all(&(packed.len() as u32).to_be_bytes())?;
        rows += 1;
        out.write_all(&packed)
    };
    let mut from = 0;
    while let found = view.blocks(from, READ_BYTES)?
        && let Some((last, _)) = found.last()
    {
        from = last + 1;
        found.iter().try_for_each(|(number, body)| row(BLOCKS, *number, body))?;
    }
    row(STATE, 0, &state)?;
    let mut from = 0;
    while let found = view.accounts(from, READ_BYTES)?
        && let Some((last, _)) = found.last()
    {
        from = last + 1;
        found.iter().try_for_each(|(page, body)| row(ACCOUNTS, u64::from(*page), body))?;
    }
    for (key, body) in ended_sessions(view, &state)? {
        row(ENDED_SESSIONS, key, &body)?;
    }
    out.write_all(&[END])?;
    out.write_all(&rows.to_be_bytes())?;
    let digest = out.hasher.finalize();
    out.inner.write_all(digest.as_bytes())?;
    Ok(out.inner.flush()?)
}

/// The rows with the keys of all sessions, as if all had ended.
fn ended_sessions(view: &BooksView, state: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, BackupError> {
    let mut restoring: Restoring = Restoring::new(state)?;
    let mut from = 0;
    while let found = view.sessions(from, READ_BYTES)?
        && let Some((last, _)) = found.last()
    {
        from = last + 1;
        found.iter().try_for_each(|(key, body)| restoring.loading().session(*key, body))?;
    }
    Ok(restoring.loading().end_sessions())
}

/// What a backup holds, ready for a new cluster.
pub struct Backup {
    /// Accounts, history and log time, without sessions.
    pub snapshot: Snapshot,
    /// The largest amount of one transaction, in minor units.
    pub transaction_limit: u64,
    /// What the bank is about.
    pub bank: BankTerms,
    /// When sessions expire in the cluster that the backup is of.
    pub sessions: SessionLimits,
    /// The level that it is at.
    pub level: u32,
    /// How many transactions there are.
    pub transactions: u64,
    /// The hash of the newest one.
    pub chain_head: Digest,
    /// The timestamp of the newest one, in milliseconds since the Unix epoch; 0 if there is none.
    pub newest_timestamp: Millis,
    /// Log time where the backup was taken, likewise. In the new cluster it is not later than `now`.
    pub log_time: Millis,
}

/// What a cluster that is made of a backup has of its own.
#[derive(Clone, Copy, Debug)]
pub struct NewCopy<'a> {
    /// It begins with these tokens …
    pub founding: &'a Founding,
    /// … and with those of the backup only if they are to be kept.
    pub keep_tokens: bool,
    /// How many nodes it has.
    pub members: usize,
}

/// Reads a backup and verifies it: that it is whole, that the chain of hashes is, and that the rows belong together. A log time
/// later than `now` is set back to it: a clock was wrong where the backup was taken. Timestamps in the history stay.
///
/// # Errors
/// If it can't be read, is damaged, or of a level that this program does not know.
pub fn read(input: impl Read, now: Millis, copy: NewCopy<'_>) -> Result<Backup, BackupError> {
    let mut input = Reading { inner: BufReader::new(input), hasher: blake3::Hasher::new() };
    let damaged = |what: String| BackupError::Damaged(what);
    if ![MAGIC, MAGIC_0_1_0].contains(&&input.take(MAGIC.len())?[..]) {
        return Err(damaged("it does not begin as a backup of this version does".into()));
    }
    let mut snapshot = Snapshot::default();
    let mut restoring: Option<Restoring> = None;
    let (mut last, mut head, mut rows) = (None::<Block>, Digest::ZERO, 0u64);
    loop {
        let part = input.take(1)?[0];
        let number = input.number()?;
        if part == END {
            if number != rows {
                return Err(damaged(format!("{rows} rows where {number} should be")));
            }
            break;
        }
        rows += 1;
        let body = input.row()?;
        match part {
            BLOCKS => {
                let block = Block::decode(number, &body)?;
                if number != snapshot.blocks.len() as u64 || block.before() != head {
                    return Err(damaged(format!("block {number} of the history does not follow the one before")));
                }
                head = block.records().last().map_or(head, |record| record.transaction.hash);
                last = Some(block);
                snapshot.blocks.push((number, body));
            }
            STATE => {
                restoring = Some(Restoring::of_backup(&body)?);
            }
            ACCOUNTS => {
                let Some(restoring) = &mut restoring else { return Err(damaged("accounts before the state".into())) };
                let page = u32::try_from(number).map_err(|_| damaged(format!("no page has the number {number}")))?;
                restoring.loading().accounts(page, &body)?;
                snapshot.accounts.push((page, body));
            }
            ENDED_SESSIONS => {
                let Some(restoring) = &mut restoring else { return Err(damaged("sessions before the state".into())) };
                restoring.loading().session(number, &body)?;
                snapshot.sessions.push((number, Some(body)));
            }
            other => return Err(damaged(format!("{other} is no part of a backup"))),
        }
    }
    let expected = input.hasher.finalize();
    let mut found = [0; 32];
    input.inner.read_exact(&mut found)?;
    if found != *expected.as_bytes() || input.inner.read(&mut [0])? > 0 {
        return Err(damaged("its digest does not fit, or something follows it".into()));
    }
    let Some(mut restoring) = restoring else { return Err(damaged("there is no state in it".into())) };
    let loading = restoring.loading();
    let (slot, transactions) = (loading.slot(), loading.transactions());
    let (transaction_limit, chain_head) = (loading.transaction_limit(), loading.chain_head());
    let (bank, sessions, level) = (loading.terms().clone(), loading.session_limits(), loading.level());
    let (log_time, newest_timestamp) = (loading.log_time(), loading.newest_timestamp());
    check_history(&snapshot, last.as_ref(), head, transactions, chain_head)?;
    let partial = last.filter(|_| restoring.loading().last_block().is_some());
    snapshot.slot = slot;
    restoring.loading().found(copy.founding, copy.keep_tokens, copy.members)?;
    snapshot.state = restoring.into_new_cluster(partial.as_ref(), now)?;
    Ok(Backup {
        snapshot,
        transaction_limit,
        bank,
        sessions,
        level,
        transactions,
        chain_head,
        newest_timestamp,
        log_time,
    })
}

/// The blocks must end where the state does.
fn check_history(
    snapshot: &Snapshot,
    last: Option<&Block>,
    head: Digest,
    transactions: u64,
    chain_head: Digest,
) -> Result<(), BackupError> {
    let in_last = last.map_or(0, |block| block.records().len() as u64);
    let found = (snapshot.blocks.len() as u64).saturating_sub(1) * BLOCK + in_last;
    if (found, head) == (transactions, chain_head) {
        return Ok(());
    }
    let what = format!("the history ends with {found} ({head}), the state knows {transactions} ({chain_head})");
    Err(BackupError::Damaged(what))
}

struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Hashing<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

struct Reading<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Reading<R> {
    /// Takes as much memory as there are bytes, whatever a damaged length says.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        self.inner.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(BackupError::Damaged("it ends too early".into()));
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, BackupError> {
        Ok(self.take(8)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn row(&mut self) -> Result<Vec<u8>, BackupError> {
        let length = self.take(4)?.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte));
        let too_long = |length: usize| BackupError::Damaged(format!("a row of {length} bytes"));
        if length > MAX_ROW {
            return Err(too_long(length));
        }
        let packed = self.take(length)?;
        let bad = |error: lz4_flex::block::DecompressError| BackupError::Damaged(error.to_string());
        let (size, rest) = lz4_flex::block::uncompressed_size(&packed).map_err(bad)?;
        if size > MAX_ROW.min(rest.len().saturating_mul(MAX_RATIO)) {
            return Err(too_long(size));
        }
        lz4_flex::block::decompress(rest, size).map_err(bad)
    }
}
