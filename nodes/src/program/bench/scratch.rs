//! A cluster of the benchmark's own: nobody else's bank is written to.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rabia_bank_messages::bank::{Query, ReadLevel, Success};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::client::{Client, ClientOptions, NodeUrl, Token};
use crate::config::NodeConfig;
use crate::create::{NewCluster, PEER_PORT_OFFSET, config_path, create};
use crate::program::{ProgramError, terminal};
use crate::tokens::client_token;

/// Below the ports that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// How long the nodes may take to find one another.
const READY: Duration = Duration::from_secs(30);
/// How often they are asked.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long a node may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(5);

/// Nodes that run for one benchmark, in a folder that goes with this.
pub(super) struct Scratch {
    pub urls: Vec<NodeUrl>,
    pub token: Option<Token>,
    nodes: Vec<Child>,
    _folder: tempfile::TempDir,
}

/// Creates a cluster in a new folder in `dir`, and waits until it serves.
pub(super) async fn start(dir: &Path, nodes: usize) -> Result<Scratch, ProgramError> {
    let trouble = |error: &dyn std::fmt::Display| {
        ProgramError::Other(format!("no cluster could be made in {}: {error}", dir.display()))
    };
    let folder = tempfile::Builder::new().prefix(".rabia-bank-bench-").tempdir_in(dir).map_err(|e| trouble(&e))?;
    let data_dir = folder.path().join("bank");
    let base_port = free_base_port(nodes)?;
    let configs =
        create(&NewCluster { base_port, ..NewCluster::new(&data_dir, nodes) }).map_err(|error| trouble(&error))?;
    let program = std::env::current_exe().map_err(|error| trouble(&error))?;
    let mut children = Vec::new();
    for config in &configs {
        let child = spawn(&program, &config_path(&data_dir, config.node), &log_path(config));
        children.push(child.map_err(|error| trouble(&error))?);
    }
    let urls = configs.iter().map(|config| config.client_listen.to_string().parse());
    let urls = urls.collect::<Result<Vec<NodeUrl>, _>>().map_err(|error| trouble(&error))?;
    let token = std::fs::read_to_string(client_token(&data_dir)).map_err(|error| trouble(&error))?;
    let token = Some(Token::from(token.trim()));
    terminal::wait("starting a cluster for the benchmark …", ready(&urls, &token, &configs, &mut children)).await?;
    Ok(Scratch { urls, token, nodes: children, _folder: folder })
}

/// A base port whose ports for clients and peers are free.
fn free_base_port(nodes: usize) -> Result<u16, ProgramError> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let fits = |base: &u16| (*base..).take(nodes).all(|port| is_free(port) && is_free(port + PEER_PORT_OFFSET));
    let mut tries = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(1_000);
    tries
        .find(fits)
        .ok_or_else(|| ProgramError::Other("no free ports were found for a cluster of the benchmark's own".into()))
}

fn log_path(config: &NodeConfig) -> PathBuf {
    config.data_dir.with_extension("log")
}

fn spawn(program: &Path, config: &Path, log: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .args(["--log", "info", "node", "--stop-with-parent", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::create(log)?)
        // An interrupt of this program is its own to handle.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits until every node sees all others.
async fn ready(
    urls: &[NodeUrl],
    token: &Option<Token>,
    configs: &[NodeConfig],
    nodes: &mut [Child],
) -> Result<(), ProgramError> {
    let give_up = Instant::now() + READY;
    for ((url, config), node) in urls.iter().zip(configs).zip(nodes) {
        let client = Client::connect(ClientOptions { token: token.clone(), ..ClientOptions::new(vec![url.clone()]) });
        loop {
            let answer = client.query(Query::GetStatus {}, ReadLevel::Local).await;
            if let Ok(Success::Status { status }) = answer.map(|applied| applied.success)
                && status.connected.len() + 1 == urls.len()
            {
                break;
            }
            let ended = node.try_wait().is_ok_and(|status| status.is_some());
            if ended || Instant::now() > give_up {
                let log = std::fs::read_to_string(log_path(config)).unwrap_or_default();
                let last = log.lines().last().unwrap_or("nothing").to_owned();
                return Err(ProgramError::Other(format!(
                    "node {} of the benchmark's own cluster does not serve; it said: {last}",
                    config.node
                )));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        client.close().await;
    }
    Ok(())
}

impl Scratch {
    /// Stops the nodes and removes their folder.
    pub(super) async fn stop(mut self) {
        for node in &self.nodes {
            if let Some(pid) = node.id().and_then(|pid| i32::try_from(pid).ok()) {
                // It may have ended.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        for node in &mut self.nodes {
            // Whoever is too slow is killed when it is dropped.
            let _ = tokio::time::timeout(STOP, node.wait()).await;
        }
    }
}
