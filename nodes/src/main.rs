//! The program `rabia-bank`. Everything it does is in the library: see [`rabia_bank::program`].

use std::process::ExitCode;

use clap::Parser;
use rabia_bank::program::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
