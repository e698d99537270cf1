//! The stores from outside: what they keep, what a crash leaves of it, and what they make of damaged files.
#![allow(clippy::unwrap_used)] // clippy knows only functions marked as tests, not what they share

mod common;
mod crash;
mod damage;
mod store;
mod stored_records;
