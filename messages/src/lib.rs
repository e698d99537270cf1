#![doc = include_str!("../WIRE.md")]

pub mod bank;
pub mod batch;
mod batched;
pub mod client;
pub mod codec;
pub mod escape;
pub mod genesis;
pub mod ids;
pub mod level;
pub mod lineage;
pub mod msgpack;
mod named;
mod number;
mod open;
pub mod peer;
pub mod plausible;
pub mod principal;
pub mod promise;
mod request;
pub mod sabotage;
pub mod stages;
pub mod token;
