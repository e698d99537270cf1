//! `rabia-bank cluster`: a whole cluster on this machine, one child process a node.
//!
//! Each child is `rabia-bank node --config DIR/node-K/node.toml`, nothing more, so that any node may as well be stopped
//! and run alone. Its stdin is a pipe that closes when this process goes, however it goes, and it goes then too. A child
//! that dies is started again, after a pause that grows while it keeps dying; one that stops by itself (code 0: somebody
//! asked it to), needs a person (it refuses to start, or a file of it is damaged), or keeps dying at once is left alone, and this
//! process ends with the last. The others serve without it, and whoever put right what was wrong starts it alone.
//!
//! What a child said last, as an error, is repeated with its end, so that nobody has to look for it in the logs of the others.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use console::style;
use indicatif::ProgressBar;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rabia_bank_messages::bank::{Query, ReadLevel, Success};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::{MAX_NODES, NodeId};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::tls::trusting;
use super::{Exit, ProgramError, default_data_dir, runtime, terminal};
use crate::client::{Client, ClientOptions, Token, find_token};
use crate::config::{DEFAULT_CLIENT_PORT, NodeConfig};
use crate::control;
use crate::create::{MAX_BASE_PORT, NewCluster, NodePlace, create, is_vacant, open};
use crate::tokens::client_token;

/// The pause before the first restart of a node; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A node that keeps dying is started this often at least.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A node that lived this long did start: it begins again with the first pause.
const STARTED_AFTER: Duration = Duration::from_secs(5);
/// A node that died this often in a row without having started is given up.
const MAX_FAILED_STARTS: u32 = 10;
/// How the last line of a node begins that says why it ends.
const REASON: &str = "error: ";
/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a node that is not ready is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long one such question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The command line of `cluster`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The cluster is created in DIR if there is none, and used as it is otherwise. Nodes log to stderr, each line with the
node's name. Ctrl-C stops all nodes. Nothing is started where a node of that folder runs already. To stop one, `kill` its process id (code 0: it is not started again); to see it
die and come back, `kill -9` it. A stopped node can be run alone: rabia-bank node --config DIR/node-1/node.toml")]
pub struct Args {
    /// How many nodes a new cluster gets: 1 to 7, 3 where not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MAX_NODES as i64))]
    nodes: Option<u8>,
    /// Where the data of all nodes lies.
    #[arg(long, default_value_os_t = default_data_dir(), value_name = "DIR")]
    data_dir: PathBuf,
    /// A new cluster's node K listens for clients on this port + K - 1, 7101 where not given; for nodes 100 above.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_BASE_PORT)))]
    base_port: Option<u16>,
    /// Leave a node that dies alone.
    #[arg(long)]
    no_restart: bool,
}

/// Where a child is in its life, as others see it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Life {
    Starting,
    Running { pid: u32 },
    Gone,
}

/// Runs the cluster until a signal, or until its last node has gone.
///
/// # Errors
/// If the cluster can't be created or used as the arguments say, or all nodes have gone by themselves.
pub fn run(args: Args) -> Result<Exit, ProgramError> {
    let places = prepare(&args)?;
    refuse_running(&args, &places)?;
    let program = std::env::current_exe()?;
    runtime()?.block_on(supervise(&args, program, places))
}

/// Creates the cluster if there is none, and checks that what is there is what was asked for.
fn prepare(args: &Args) -> Result<Vec<NodePlace>, ProgramError> {
    if is_vacant(&args.data_dir)? {
        let nodes = args.nodes.map_or(3, usize::from);
        create(&NewCluster {
            base_port: args.base_port.unwrap_or(DEFAULT_CLIENT_PORT),
            ..NewCluster::new(&args.data_dir, nodes)
        })?;
        terminal::print(format_args!("Created a cluster of {nodes} in {}", args.data_dir.display()))?;
        return Ok(open(&args.data_dir)?);
    }
    let places = open(&args.data_dir)?;
    let dir = args.data_dir.display();
    if let Some(nodes) = args.nodes.map(usize::from).filter(|&nodes| nodes != places.len()) {
        let text = format!(
            "{dir} holds a cluster of {}, not {nodes}: leave --nodes out, or choose another --data-dir",
            places.len()
        );
        return Err(ProgramError::Other(text));
    }
    for config in places.iter().filter_map(|place| place.config.as_ref().ok()) {
        let expected = args.base_port.map(|base| base + u16::from(config.node.get()) - 1);
        if let Some(port) = expected.filter(|&port| port != config.client_listen.port()) {
            let text = format!(
                "in {dir} node {} listens on port {}, not {port}: leave --base-port out, or change the node.toml files",
                config.node,
                config.client_listen.port()
            );
            return Err(ProgramError::Other(text));
        }
    }
    Ok(places)
}

/// A second process on a node's files would only be told off by them, and the first would be taken for it.
fn refuse_running(args: &Args, places: &[NodePlace]) -> Result<(), ProgramError> {
    let runs = |place: &&NodePlace| place.config.as_ref().is_ok_and(|config| control::is_answered(&config.data_dir));
    let running: Vec<String> = places.iter().filter(runs).map(|place| place.node.to_string()).collect();
    let (whose, verb) = match running.len() {
        0 => return Ok(()),
        1 => ("node", "runs"),
        _ => ("nodes", "run"),
    };
    let why = format!(
        "{whose} {} {verb} already on the data in {}: nothing was started. Stop what runs there first, or use it as it is",
        running.join(", "),
        args.data_dir.display()
    );
    Err(ProgramError::Ended { exit: Exit::RefusedToStart, why })
}

async fn supervise(args: &Args, program: PathBuf, places: Vec<NodePlace>) -> Result<Exit, ProgramError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let spinner = terminal::spinner("waiting for the nodes …");
    let (stop, stopping) = watch::channel(false);
    let mut keepers = JoinSet::new();
    let mut lives = Vec::new();
    for place in &places {
        let (life, seen) = watch::channel(Life::Starting);
        lives.push((place.config.as_ref().ok().cloned(), seen));
        keepers.spawn(
            Keeper {
                node: place.node,
                config_path: place.config_path.clone(),
                program: program.clone(),
                restart: !args.no_restart,
                life,
                stopping: stopping.clone(),
                spinner: spinner.clone(),
            }
            .keep(),
        );
    }
    let announce = announce(args, lives, spinner.clone());
    tokio::pin!(announce);
    let mut announced = false;
    let mut asked_to_stop = false;
    let mut ends = Vec::new();
    loop {
        tokio::select! {
            _ = terminate.recv(), if !asked_to_stop => asked_to_stop = true,
            _ = interrupt.recv(), if !asked_to_stop => asked_to_stop = true,
            done = &mut announce, if !announced && !asked_to_stop => {
                done?;
                announced = true;
            }
            ended = keepers.join_next() => match ended {
                Some(end) => ends.extend(end),
                None => break,
            },
        }
        stop.send_if_modified(|stop| asked_to_stop && !std::mem::replace(stop, true));
    }
    spinner.finish_and_clear();
    if asked_to_stop {
        terminal::print("All nodes have stopped.")?;
        Ok(Exit::Done)
    } else {
        Err(all_gone(ends))
    }
}

/// Says why each node has gone. Where all of them ended alike, so does this.
fn all_gone(mut ends: Vec<End>) -> ProgramError {
    ends.sort_by_key(|end| end.node);
    let codes: Vec<Option<i32>> = ends.iter().map(|end| end.code).collect();
    let exit = match codes.first() {
        Some(Some(code)) if codes.iter().all(|other| *other == Some(*code)) => Exit::from_code(*code),
        _ => Exit::Failed,
    };
    let mut why = "the last node has gone".to_owned();
    for End { node, reason, .. } in &ends {
        why += &format!("\n  node {node}: {}", reason.as_deref().unwrap_or("said nothing; its log is above"));
    }
    ProgramError::Ended { exit, why }
}

/// Says where to connect, as soon as every node that lives answers and sees a quorum.
async fn announce(
    args: &Args,
    lives: Vec<(Option<NodeConfig>, watch::Receiver<Life>)>,
    spinner: ProgressBar,
) -> Result<(), ProgramError> {
    let token = find_token(&client_token(&args.data_dir))?;
    let (mut ready, mut gone): (Vec<(NodeConfig, u32)>, Vec<NodeId>) = Default::default();
    for (config, mut life) in lives {
        let Some(config) = config else { continue };
        let answers = tokio::select! {
            () = ready_soon(&config, token.clone()) => true,
            () = wait_for(&mut life, |life| *life == Life::Gone) => false,
        };
        match (answers, &*life.borrow()) {
            (true, Life::Running { pid }) => ready.push((config, *pid)),
            _ => gone.push(config.node),
        }
    }
    if ready.is_empty() {
        return Ok(());
    }
    spinner.finish_and_clear();
    let cluster = ready[0].0.cluster;
    let count = ready[0].0.members.len();
    terminal::print(style(format!("Rabia Bank is ready: {} of {count} nodes", ready.len())).green().bold())?;
    terminal::print(format_args!("  cluster {cluster}, data in {}", args.data_dir.display()))?;
    for (config, pid) in &ready {
        let NodeConfig { node, client_listen, .. } = config;
        let scheme = scheme(config);
        terminal::print(format_args!("  node {node}  {scheme}://{client_listen}/v1/client  process {pid}"))?;
    }
    for node in gone {
        terminal::print(format_args!("  node {node}  does not run: what it said is above"))?;
    }
    terminal::print(examples(&ready))?;
    Ok(())
}

fn examples(ready: &[(NodeConfig, u32)]) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "rabia-bank".into());
    let usual = |config: &NodeConfig| {
        config.client_listen.port() == DEFAULT_CLIENT_PORT + u16::from(config.node.get()) - 1 && config.node.get() <= 3
    };
    let connect = if ready.iter().all(|(config, _)| usual(config)) {
        String::new()
    } else {
        let urls: Vec<String> =
            ready.iter().map(|(config, _)| format!("{}://{}", scheme(config), config.client_listen)).collect();
        format!(" --connect {}", urls.join(","))
    };
    format!(
        "Try, in another terminal:\n  \
         {program} client{connect} create-account alice 1000\n  \
         {program} client{connect} create-account bob\n  \
         {program} client{connect} transfer alice bob 300\n  \
         {program} client{connect} status\n\
         Ctrl-C stops the cluster."
    )
}

fn scheme(config: &NodeConfig) -> &'static str {
    if config.tls.is_some() { "wss" } else { "ws" }
}

/// Resolves when the node answers, and has links to a quorum.
async fn ready_soon(config: &NodeConfig, token: Option<Token>) {
    let quorum = config.genesis().quorums().quorum();
    let Ok(url) = format!("{}://{}", scheme(config), config.client_listen).parse() else { return };
    // A node on this machine is known by its certificate, whoever has signed it.
    let tls = config.tls.as_ref().and_then(|tls| trusting(&tls.certificate).ok());
    let client = Client::connect(ClientOptions { token, timeout: ASK_TIMEOUT, tls, ..ClientOptions::new(vec![url]) });
    loop {
        let answer = client.query(Query::GetStatus {}, ReadLevel::Local).await;
        if let Ok(Success::Status { status }) = answer.map(|applied| applied.success)
            && status.node == config.node
            && status.cluster == config.cluster
            && status.connected.len() + 1 >= quorum
        {
            return client.close().await;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// How a node ended for good.
struct End {
    node: NodeId,
    code: Option<i32>,
    reason: Option<String>,
}

/// Keeps one node alive.
struct Keeper {
    node: NodeId,
    config_path: PathBuf,
    program: PathBuf,
    restart: bool,
    life: watch::Sender<Life>,
    stopping: watch::Receiver<bool>,
    spinner: ProgressBar,
}

impl Keeper {
    async fn keep(mut self) -> End {
        let (mut pause, mut failed_starts) = (FIRST_PAUSE, 0);
        let mut last = End { node: self.node, code: Some(Exit::Done as i32), reason: None };
        loop {
            let start = Instant::now();
            let (status, reason) = match self.live_once().await {
                Ok(Some(ended)) => ended,
                Ok(None) => break,
                Err(error) => {
                    let reason = format!("can't be started: {error}");
                    self.say(&reason);
                    last = End { code: None, reason: Some(reason), ..last };
                    break;
                }
            };
            // What was told already is not told again.
            let told = reason == last.reason && reason.is_some();
            let why = match &reason {
                Some(_) if told => " for the same reason as before".to_owned(),
                Some(reason) => format!(": {reason}"),
                None => String::new(),
            };
            last = End { code: status.code(), reason, ..last };
            if start.elapsed() >= STARTED_AFTER {
                (pause, failed_starts) = (FIRST_PAUSE, 0);
            } else {
                failed_starts += 1;
            }
            if let Some(last_word) = self.is_final(status, failed_starts) {
                self.say(&format!("{last_word}{why}{}", self.advice(status)));
                break;
            }
            let end = describe(status);
            self.say(&format!("died ({end}){why}; starting it again in {:.1} s", pause.as_secs_f64()));
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (2 * pause).min(LONGEST_PAUSE),
                () = wait_for(&mut self.stopping, |&stop| stop) => break,
            }
        }
        self.life.send_replace(Life::Gone);
        last
    }

    /// What is said where the node is not started again.
    fn is_final(&self, status: ExitStatus, failed_starts: u32) -> Option<String> {
        let end = describe(status);
        if status.success() {
            Some("stopped, as somebody asked it to; not started again".into())
        } else if status.code().is_some_and(Exit::needs_a_person) {
            Some(format!("is left alone ({end})"))
        } else if !self.restart {
            Some(format!("died ({end}); not started again (--no-restart)"))
        } else if failed_starts >= MAX_FAILED_STARTS {
            Some(format!("died ({end}), {failed_starts} times in a row; given up"))
        } else {
            None
        }
    }

    fn advice(&self, status: ExitStatus) -> String {
        if !status.code().is_some_and(Exit::needs_a_person) {
            return String::new();
        }
        let config = self.config_path.display();
        format!("\n  Once that is put right, start it with:\n  rabia-bank node --config {config}")
    }

    /// Starts the node and waits for its end. Also answers what it gave as the reason. `None`: it was stopped because all are.
    async fn live_once(&mut self) -> std::io::Result<Option<(ExitStatus, Option<String>)>> {
        let mut child = Command::new(&self.program)
            .arg("node")
            .arg("--config")
            .arg(&self.config_path)
            .arg("--stop-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        // Held open: its end tells the child that this process has gone. `wait` would close it.
        let _stdin = child.stdin.take();
        if let Some(pid) = child.id() {
            let before = self.life.send_replace(Life::Running { pid });
            if before != Life::Starting {
                self.say(&format!("is process {pid} now"));
            }
        }
        let relay = tokio::spawn(relay(self.node, child.stderr.take(), self.spinner.clone()));
        let status = tokio::select! {
            status = child.wait() => Some(status?),
            () = wait_for(&mut self.stopping, |&stop| stop) => {
                stop(&mut child).await?;
                None
            }
        };
        // The last lines say why; they end with the process, unless it left its stderr to another.
        let reason = tokio::time::timeout(Duration::from_secs(1), relay).await;
        let reason = reason.ok().and_then(Result::ok).flatten();
        Ok(status.map(|status| (status, reason)))
    }

    fn say(&self, text: &str) {
        let line = format!("{} {text}", style(format!("node {}", self.node)).yellow());
        self.spinner.suspend(|| eprintln!("{line}"));
    }
}

/// Asks the child to stop, and kills it if it does not.
async fn stop(child: &mut Child) -> std::io::Result<()> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended at this moment.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    match tokio::time::timeout(STOP_TIMEOUT, child.wait()).await {
        Ok(status) => status.map(|_| ()),
        Err(_) => child.kill().await,
    }
}

/// Passes the node's log on, each line with its name. Answers the reason that it gave for its end, if it did.
async fn relay(node: NodeId, stderr: Option<tokio::process::ChildStderr>, spinner: ProgressBar) -> Option<String> {
    let mut lines = BufReader::new(stderr?).split(b'\n');
    let name = style(format!("node {node}")).for_stderr().cyan();
    let mut reason = None;
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        reason = line.strip_prefix(REASON).map(|reason| escaped(reason).to_string()).or(reason);
        spinner.suspend(|| eprintln!("{name} | {}", escaped(&line)));
    }
    reason
}

/// Resolves when the value is as wanted, or will not change any more.
async fn wait_for<T>(watched: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    drop(watched.wait_for(wanted).await);
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for an unknown reason".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn args(dir: &Path) -> Args {
        Args { nodes: None, data_dir: dir.join("bank"), base_port: None, no_restart: false }
    }

    #[test]
    fn a_cluster_is_created_once_and_then_used_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let first = prepare(&Args { nodes: Some(5), base_port: Some(8_001), ..args(temp.path()) }).unwrap();
        assert_eq!(first.len(), 5);
        let again = prepare(&args(temp.path())).unwrap();
        assert_eq!(again[4].config.as_ref().unwrap(), first[4].config.as_ref().unwrap());
        prepare(&Args { nodes: Some(5), base_port: Some(8_001), ..args(temp.path()) }).unwrap();
    }

    #[test]
    fn what_was_asked_for_and_is_not_there_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        prepare(&args(temp.path())).unwrap();
        let nodes = prepare(&Args { nodes: Some(5), ..args(temp.path()) }).unwrap_err().to_string();
        assert!(nodes.contains("cluster of 3"), "{nodes}");
        let port = prepare(&Args { base_port: Some(8_001), ..args(temp.path()) }).unwrap_err().to_string();
        assert!(port.contains("7101"), "{port}");
    }
}
