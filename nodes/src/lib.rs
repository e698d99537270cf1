//! A node of Rabia Bank in the real world, and the program around it.
//!
//! - [`client`]: the client library, a crate of its own.
//! - [`embed`]: a node inside your own program; [`testing`]: a cluster for your own tests; [`machine`]: your own state machine in the
//!   place of the bank.
//! - [`config`]: the file that tells a node who it is; [`create`]: the folder of a new cluster.
//! - [`member_key`]: the key that a node shows the others; [`peer_tls`]: what links between nodes run over.
//! - [`server`]: listeners, dialers and actors of a running node.
//! - [`audit`]: the books of a node that is not running; [`backup`]: those of one that is, over its [`control`] socket.
//! - [`tokens`]: what clients show, and the files that it is kept in.
//! - [`replace`]: a new store for a member that lost its own.
//! - [`program`]: `rabia-bank` with its subcommands.
//! - [`security`]: what is promised, keys, roles, and each attack with the test that makes it.
//! - [`performance`]: how fast it is, what a large bank costs, and how to measure.
//!
//! # One crate to name
//!
//! [`bank`] has the words of the bank, and [`messages`] all others, so a program depends on this crate alone. It takes what it uses:
//!
//! | feature | what it brings | crates in all |
//! | --- | --- | --- |
//! | `client` | [`client`] | 82 |
//! | `embed` | all but [`client`] and [`program`] | 116 |
//! | `cli` | all of it, and the program `rabia-bank` | 162 |
//!
//! (`cargo tree -p rabia-bank --no-default-features --features embed -e no-dev --prefix none` lists them.) Where nothing is said all
//! three are on.
#![cfg_attr(not(feature = "cli"), allow(rustdoc::broken_intra_doc_links))] // the list above names all modules

#[cfg(feature = "embed")]
pub mod audit;
#[cfg(feature = "embed")]
pub mod backup;
#[cfg(feature = "embed")]
mod certificate;
#[cfg(feature = "embed")]
pub mod config;
#[cfg(feature = "embed")]
pub mod control;
#[cfg(feature = "embed")]
pub mod create;
#[cfg(feature = "embed")]
pub mod embed;
#[cfg(feature = "embed")]
mod limits;
#[cfg(feature = "embed")]
pub mod machine;
#[cfg(feature = "embed")]
pub mod member_key;
#[cfg(feature = "embed")]
mod node_error;
#[cfg(feature = "embed")]
pub mod peer_tls;
#[doc = include_str!("../PERFORMANCE.md")]
pub mod performance {}
#[cfg(feature = "embed")]
mod private;
#[cfg(feature = "cli")]
pub mod program;
#[cfg(feature = "embed")]
mod random;
#[cfg(feature = "embed")]
pub mod replace;
#[doc = include_str!("../SECURITY.md")]
pub mod security {}
#[cfg(feature = "embed")]
mod replay;
#[cfg(feature = "embed")]
pub mod server;
#[cfg(feature = "embed")]
pub mod testing;
#[cfg(feature = "embed")]
mod tls;
#[cfg(feature = "embed")]
pub mod tokens;

#[cfg(feature = "embed")]
pub use node_error::NodeError;
#[cfg(feature = "client")]
pub use rabia_bank_client as client;
pub use rabia_bank_messages as messages;
pub use rabia_bank_messages::bank;
