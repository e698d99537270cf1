//! Rows: what a snapshot is made of. They are MessagePack in its compact form, where a struct is an array of its fields in the order
//! of their declaration. What is in a row is declared where its contents are kept: accounts, sessions, history.

use rabia_bank_messages::level::TooNew;
use rabia_bank_messages::msgpack;
use serde::{Deserialize, Serialize};

/// A row that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    /// It is not what this ledger writes.
    #[error("{0}")]
    Damaged(String),
    /// The state is of a level that this program does not know.
    #[error(transparent)]
    TooNew(#[from] TooNew),
}

impl BadRow {
    /// One that is damaged in this way.
    pub fn new(why: String) -> BadRow {
        BadRow::Damaged(why)
    }
}

pub(super) fn encode(row: &impl Serialize) -> Vec<u8> {
    msgpack::encode(row)
}

/// Decodes a row, all of it. Text in it need not be copied. `what` names the row where it is bad.
pub(super) fn decode<'a, T: Deserialize<'a>>(what: impl FnOnce() -> String, bytes: &'a [u8]) -> Result<T, BadRow> {
    msgpack::decode(bytes).map_err(|why| BadRow::new(format!("{}: {why}", what())))
}
