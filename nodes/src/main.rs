//! The program `rabia-bank`. Everything it does is in the library: see [`rabia_bank::program`].

use std::process::ExitCode;

use clap::Parser;
use rabia_bank::program::{Cli, run};
use tikv_jemallocator::Jemalloc;

/// A node allocates small things all the time, on one thread, and frees many of them on another: the system's allocator
/// took a seventh of the processor under load. Hosts that embed a node choose their own.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    run(Cli::parse())
}
