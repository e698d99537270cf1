//! The ledger, as its users see it: payloads in, outcomes and answers out.

mod commands;
mod digest;
mod imports;
mod model;
mod queries;
mod sessions;
mod support;
mod timing;
