//! A node of Rabia Bank in the real world, and the programs around it.
//!
//! - [`config`]: the file that tells a node who it is.
//! - [`server`]: listeners, dialers and actors of a running node.
//! - [`client`]: the client library.
//! - [`create`]: the folders of a new cluster.

pub mod client;
pub mod config;
mod node_error;
mod random;
pub mod server;

pub use node_error::NodeError;
