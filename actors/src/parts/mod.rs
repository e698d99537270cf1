//! What actors decide, without actors: plain structs that are told what happened and say what follows. The actors drive them, and so does the
//! simulator, under virtual time: no rule of behaviour exists twice.

pub mod bank;
pub mod clients;
pub mod door;
pub mod link;
pub mod log;
pub mod proposer;
pub mod session;
pub mod snapshotter;
pub mod timekeeper;
pub mod voter;
pub mod waiters;
