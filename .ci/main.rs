//! `cargo ci`: runs the script beside this file.

use std::io;
use std::process::{Command, ExitCode};

fn main() -> io::Result<ExitCode> {
    let status =
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/run")).args(std::env::args_os().skip(1)).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
