//! The vocabulary of Rabia Bank.

pub mod bank;
pub mod batch;
pub mod client;
pub mod codec;
pub mod genesis;
pub mod ids;
mod msgpack;
pub mod peer;
