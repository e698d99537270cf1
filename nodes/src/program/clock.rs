//! `rabia-bank clock`.

use std::path::PathBuf;

use rabia_bank_actors::timekeeper::span;
use rabia_bank_messages::ids::{MAX_NODES, NodeId};

use super::{Exit, ProgramError, terminal};
use crate::control::{ask_accept_clock, is_answered};
use crate::create::node_dir;

/// The command line of `clock`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand, Debug)]
enum Task {
    /// Say that this machine's clock is right, where a node does not believe it.
    Accept(AcceptArgs),
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Time in the log never goes back, so a node believes no clock that leaps ahead by more than an hour where no monotonic clock confirms
it. While it runs, time in the log goes on by what is confirmed. If it was off while the machine was started again, it takes no
commands until the clocks of a majority agree (for up to eight days; alone, up to one), or until somebody says that its clock
is right: this command does. Look at the clock first. If it is ahead, everything stands still for that long afterwards.

Saying it at one node is enough for all whose clocks show the same.")]
struct AcceptArgs {
    /// The folder of a running node, or of a cluster, on this machine.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Says that the clock is right.
///
/// # Errors
/// If no node runs there, or one does not answer.
pub fn run(args: Args) -> Result<Exit, ProgramError> {
    let Task::Accept(AcceptArgs { data_dir }) = args.task;
    let mut folders: Vec<PathBuf> = NodeId::all(MAX_NODES).map(|node| node_dir(&data_dir, node)).collect();
    folders.retain(|folder| is_answered(folder));
    if folders.is_empty() {
        folders.push(data_dir);
    }
    for folder in folders {
        let said = match ask_accept_clock(&folder)? {
            0 => "nothing is wrong with the clock".to_owned(),
            beyond => format!("the clock is believed; it shows {} more than was confirmed", span(beyond)),
        };
        terminal::print(format_args!("{}: {said}.", folder.display()))?;
    }
    Ok(Exit::Done)
}
