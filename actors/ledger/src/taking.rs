//! A snapshot that is being taken, bit by bit: see `snapshot`.

use std::ops::Range;

use rabia_bank_messages::ids::Slot;

use super::machine::StateMachine;
use super::sessions::UnsavedRows;

/// What is complete of it.
#[derive(Debug)]
pub(super) struct Taking<S: StateMachine> {
    pub(super) slot: Slot,
    /// The one in force then.
    pub(super) level: u32,
    pub(super) state: Vec<u8>,
    pub(super) unsaved_sessions: UnsavedRows<S>,
    pub(super) sessions: Vec<(u64, Option<Vec<u8>>)>,
    pub(super) new_sessions: Range<u64>,
}
