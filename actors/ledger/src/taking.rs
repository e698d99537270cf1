//! A snapshot that is being taken, bit by bit: see `snapshot`.

use rabia_bank_messages::ids::Slot;

use super::sessions::UnsavedRows;

/// A snapshot that is being taken: what is complete of it.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) slot: Slot,
    /// The newest transaction.
    pub(super) end: u64,
    pub(super) state: Vec<u8>,
    pub(super) unsaved_sessions: UnsavedRows,
    pub(super) sessions: Vec<(u64, Option<Vec<u8>>)>,
    pub(super) next_block: u64,
    pub(super) blocks: Vec<(u64, Vec<u8>)>,
}
