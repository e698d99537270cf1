//! What nodes have to agree on, tested from outside: one folder or file a way of looking at it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test says what failed by failing
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // the clock of the test, not that of a node

mod agreement;
mod clocks;
mod consensus_random;
mod pool;
mod replace_model;
mod rules;
mod scenarios;
mod slot_model;
