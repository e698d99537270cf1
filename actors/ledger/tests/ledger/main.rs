//! The ledger, as its users see it: payloads in, outcomes and answers out.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

mod commands;
mod digest;
mod journal;
mod levels;
mod machine;
mod model;
mod principals;
mod queries;
mod sessions;
mod settings;
mod shares;
mod snapshots;
mod support;
mod timing;
mod unusable;
