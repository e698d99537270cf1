//! The books on disk: the state of the bank after a slot, and the whole history, in rows that the ledger makes and reads.
//!
//! A snapshot is one transaction with everything that changed since the one before, so that the file always holds one whole
//! state. It is committed with redb's quick repair: opening the file after a crash takes no longer for its size.

mod open;
mod reader;
mod rows;
mod store;

pub use reader::{BooksReader, BooksView};
pub use store::{BooksStore, Snapshot};
