//! The rows of the books: what they are called, and how they are packed. What is in them the ledger knows.

use rabia_bank_messages::ids::Slot;
use redb::ReadTransaction;

use crate::error::StoreError;
use crate::file::path::StorePath;
use crate::file::rows::{Rows, TableId};
use crate::identity::META;

pub(crate) const STATE: TableId = TableId::new("state");
pub(crate) const ACCOUNTS: TableId = TableId::new("accounts");
pub(crate) const SESSIONS: TableId = TableId::new("sessions");
pub(crate) const BLOCKS: TableId = TableId::new("blocks");
pub(crate) const TABLES: [TableId; 5] = [META, STATE, ACCOUNTS, SESSIONS, BLOCKS];

pub(crate) const META_SLOT: &[u8] = b"slot";
/// The key of the one row of the state.
pub(crate) const STATE_KEY: &[u8] = b"state";

/// The longest row before it is compressed: a session with all the replies that it may keep.
const MAX_ROW: usize = 64 << 20;

/// The row as it is on disk: its length, and its bytes compressed.
pub(crate) fn pack(body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= MAX_ROW, "a row of {} bytes", body.len());
    lz4_flex::block::compress_prepend_size(body)
}

pub(crate) fn unpack(body: &[u8]) -> Result<Vec<u8>, String> {
    let (size, rest) = lz4_flex::block::uncompressed_size(body).map_err(|e| e.to_string())?;
    if size > MAX_ROW {
        return Err(format!("{size} bytes when it is unpacked, more than a row has"));
    }
    lz4_flex::block::decompress(rest, size).map_err(|e| e.to_string())
}

/// The slot that the books stand after.
pub(crate) fn read_slot(transaction: &ReadTransaction, place: &StorePath) -> Result<Slot, StoreError> {
    let meta = Rows::read(transaction, META, place)?;
    meta.get_u64(META_SLOT)?.ok_or_else(|| meta.damaged(META_SLOT, "the row is missing"))
}
