//! The wire formats, checked from outside: what is accepted, what is refused, what it costs.

// Helpers of tests are tests too, which clippy cannot see here.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod batches;
mod commands;
mod documented;
mod peers;
mod properties;
mod shapes;
mod speed;
mod strategies;
mod strict;
