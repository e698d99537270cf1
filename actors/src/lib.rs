//! The actors of a node, and the two pure cores that they drive.

pub mod bank;
pub mod client_session;
pub mod consensus;
pub mod handshake;
pub mod ledger;
pub mod log;
pub mod node;
pub mod peer_link;
pub mod proposer;
pub mod snapshotter;
pub mod voter;
