//! `rabia-bank replace`.

use std::path::{Path, PathBuf};

use rabia_bank_messages::ids::{MAX_NODES, NodeId, StoreId};

use super::{Exit, ProgramError, terminal};
use crate::NodeError;
use crate::config::NodeConfig;
use crate::replace::{Prepared, ReplaceError, prepare, running_neighbours, tell};

/// The command line of `replace`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A node that lost its disk has lost what it promised to the others, so it must not come back as if nothing had happened, nor
with an old copy of its files. It comes back as the same member with a new, empty store, once the others have decided so. They
go on serving meanwhile; the new store is filled by them.

On one machine, with the folders side by side as `rabia-bank create` made them:
  rabia-bank replace --config DIR/node-2/node.toml     node 2 is stopped, its data lost or damaged
  rabia-bank node --config DIR/node-2/node.toml        it catches up and serves

If node.toml is lost too, copy another node's: only `node`, the listen addresses and `data_dir` differ. Files of the former store
are set aside in the folder, never deleted. The old store is refused from then on, wherever it turns up.

With the other nodes on other machines: run it on the machine of the lost node first; it says what to run on one of the
others, as whoever may write to that node's folder. Everything may be interrupted and run again.

A cluster of 1 or 2 bears no loss: restore a backup (`rabia-bank restore --help`).")]
pub struct Args {
    /// The configuration of the node that lost its store.
    #[arg(long, value_name = "FILE", required_unless_present_all = ["through", "node", "store"])]
    config: Option<PathBuf>,
    /// The folder of a node on this machine that runs, to tell the cluster. Where not given: one beside the lost node's.
    #[arg(long, value_name = "DIR")]
    through: Option<PathBuf>,
    /// Set the store aside also if it looks whole.
    #[arg(long, requires = "config")]
    force: bool,
    /// Instead of --config: the node whose new store was made on another machine.
    #[arg(long, value_name = "N", requires = "store", conflicts_with = "config",
          value_parser = clap::value_parser!(u8).range(1..=MAX_NODES as i64))]
    node: Option<u8>,
    /// Instead of --config: the id of that store.
    #[arg(long, value_name = "ID", requires = "node", conflicts_with = "config")]
    store: Option<StoreId>,
}

/// Gives a node a new store.
///
/// # Errors
/// If it can't be made, or the cluster can't be told.
pub fn run(args: Args) -> Result<Exit, ProgramError> {
    let Args { config: path, through, force, node, store } = args;
    if let (Some(through), Some(node), Some(store)) = (&through, node.and_then(NodeId::new), store) {
        announce(through, node, store)?;
        terminal::print(format_args!("Start node {node} on its machine now."))?;
        return Ok(Exit::Done);
    }
    // The command line asks for it where the others are not given.
    let Some(path) = path else { return Err(ProgramError::Other("--config is missing".into())) };
    let config = NodeConfig::load(&path).map_err(|error| NodeError::Refused(error.to_string()))?;
    let Prepared { store, set_aside, again } = prepare(&config, force)?;
    let (node, folder) = (config.node, config.data_dir.display());
    if let Some(aside) = set_aside {
        terminal::print(format_args!("The files of the former store are in {} now.", aside.display()))?;
    }
    let made = if again { "is there" } else { "was made" };
    terminal::print(format_args!("A new store for node {node} {made} in {folder}: {store}"))?;
    let Some(through) = through.or_else(|| running_neighbours(&config).into_iter().next()) else {
        terminal::print(format_args!(
            "No other node runs on this machine. Tell the cluster on the machine of one that does:\n  \
             rabia-bank replace --through DIR-OF-THAT-NODE --node {node} --store {store}\n\
             and start this node then:\n  rabia-bank node --config {}",
            path.display()
        ))?;
        return Ok(Exit::NotReached);
    };
    announce(&through, node, store)?;
    terminal::print(format_args!(
        "Start the node now; it catches up with the others:\n  rabia-bank node --config {}",
        path.display()
    ))?;
    Ok(Exit::Done)
}

fn announce(through: &Path, node: NodeId, store: StoreId) -> Result<(), ReplaceError> {
    let bar = terminal::spinner("waiting for the cluster to decide …");
    let told = tell(through, node, store);
    bar.finish_and_clear();
    let slot = told?;
    let line = format!("Decided in slot {slot}: node {node} has the store {store} now. A former one is refused.");
    terminal::print(line).map_err(|source| ReplaceError::Io { path: "stdout".into(), source })
}
