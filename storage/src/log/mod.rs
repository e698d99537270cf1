//! The log of one member: promises, payloads, decisions, and what is remembered of peers.

mod commit;
mod reader;
mod recover;
mod rows;
mod store;

pub use reader::{Entries, LogReader};
pub use store::LogStore;
