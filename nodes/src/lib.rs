//! A node of Rabia Bank in the real world, and the program around it.
//!
//! - [`config`]: the file that tells a node who it is; [`create`]: the folder of a new cluster.
//! - [`server`]: listeners, dialers and actors of a running node.
//! - [`client`]: the client library. It needs tokio and nothing else.
//! - [`embed`]: a node inside your own program.
//! - [`audit`]: the books of a node that is not running; [`backup`]: those of one that is, over its [`control`] socket.
//! - [`replace`]: a new store for a member that lost its own.
//! - [`measured`]: what a large and old bank costs.
//! - [`simulate`]: a whole cluster in one thread, in a bad world.
//! - [`program`]: `rabia-bank` with its subcommands.
//! - [`performance`]: what was measured, and how.

pub mod audit;
pub mod backup;
pub mod client;
pub mod config;
pub mod control;
pub mod create;
pub mod embed;
pub mod measured;
mod node_error;
#[doc = include_str!("../PERFORMANCE.md")]
pub mod performance {}
mod private;
pub mod program;
mod random;
pub mod replace;
pub mod server;
pub mod simulate;

pub use node_error::NodeError;
