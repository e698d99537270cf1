//! The actors of a node, and the two pure cores that they drive.

pub mod consensus;
pub mod ledger;
