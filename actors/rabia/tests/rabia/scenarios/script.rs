//! The commands of the scripts. `scripts/README` says what they mean.

use std::error::Error;
use std::time::Duration;

use super::cluster::Cluster;

#[derive(goldenscript::Command)]
pub enum Command {
    Cluster {
        nodes: usize,
        #[arg(key)]
        window: Option<u64>,
        #[arg(key)]
        id: Option<u8>,
        #[arg(key)]
        pools: Option<bool>,
    },
    Batch {
        name: String,
        origin: u8,
        #[arg(optional)]
        holders: Vec<u8>,
    },
    Propose {
        node: u8,
        slot: u64,
        value: String,
        #[arg(key)]
        payload: Option<bool>,
    },
    Request(u8),
    Read(u8),
    Hear {
        node: u8,
        from: u8,
        words: Vec<String>,
    },
    Deliver {
        #[arg(key)]
        from: Option<u8>,
        #[arg(key)]
        to: Option<u8>,
        #[arg(key)]
        most: Option<usize>,
    },
    Lose {
        #[arg(key)]
        from: Option<u8>,
        #[arg(key)]
        to: Option<u8>,
    },
    Sync(Option<u8>),
    Run,
    Crash {
        node: u8,
        #[arg(key)]
        written: Option<bool>,
    },
    Start(u8),
    Cut(u8, u8),
    Heal(u8, u8),
    Wait(u64),
    Install(u8, u64),
    Coin(u64, u32),
    Disk(u8),
    Frontiers,
}

/// A script that is being run.
#[derive(Default)]
pub struct Script {
    cluster: Option<Cluster>,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        if let Command::Cluster { nodes, window, id, pools } = command {
            let (window, id) = (window.unwrap_or(4), id.unwrap_or(1));
            self.cluster = Some(Cluster::new(*nodes, window, id, pools.unwrap_or(false)));
            return Ok(String::new());
        }
        let cluster = self.cluster.as_mut().ok_or("a script begins with a cluster")?;
        match command {
            Command::Cluster { .. } => {}
            Command::Batch { name, origin, holders } => {
                cluster.batch(name, *origin);
                for node in [origin].into_iter().chain(holders) {
                    cluster.hold(*node, name);
                }
            }
            Command::Propose { node, slot, value, payload } => {
                cluster.propose(*node, *slot, value, payload.unwrap_or(false));
            }
            Command::Request(node) => cluster.request(*node),
            Command::Read(node) => cluster.read(*node),
            Command::Hear { node, from, words } => cluster.hear(*node, *from, words),
            Command::Deliver { from, to, most } => cluster.deliver(*from, *to, most.unwrap_or(usize::MAX)),
            Command::Lose { from, to } => cluster.lose(*from, *to),
            Command::Sync(node) => cluster.sync(*node),
            Command::Run => cluster.run(),
            Command::Crash { node, written } => cluster.crash(*node, written.unwrap_or(false)),
            Command::Start(node) => cluster.start(*node),
            Command::Cut(a, b) => cluster.cut(*a, *b),
            Command::Heal(a, b) => cluster.heal(*a, *b),
            Command::Wait(milliseconds) => cluster.wait(Duration::from_millis(*milliseconds)),
            Command::Install(node, slot) => cluster.install(*node, *slot),
            Command::Coin(slot, phase) => cluster.coin(*slot, *phase),
            Command::Disk(node) => cluster.disk(*node),
            Command::Frontiers => cluster.frontiers(),
        }
        Ok(cluster.notes())
    }
}
