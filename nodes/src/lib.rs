//! A node of Rabia Bank in the real world, and the program around it.
//!
//! - [`config`]: the file that tells a node who it is; [`create`]: the folder of a new cluster.
//! - [`server`]: listeners, dialers and actors of a running node.
//! - [`client`]: the client library, a crate of its own.
//! - [`embed`]: a node inside your own program.
//! - [`audit`]: the books of a node that is not running; [`backup`]: those of one that is, over its [`control`] socket.
//! - [`replace`]: a new store for a member that lost its own.
//! - [`program`]: `rabia-bank` with its subcommands.
//! - [`performance`]: how fast it is, what a large bank costs, and how to measure.

pub mod audit;
pub mod backup;
pub mod config;
pub mod control;
pub mod create;
pub mod embed;
mod node_error;
#[doc = include_str!("../PERFORMANCE.md")]
pub mod performance {}
mod private;
pub mod program;
mod random;
pub mod replace;
pub mod server;

pub use node_error::NodeError;
pub use rabia_bank_client as client;
