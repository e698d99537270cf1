//! What end-to-end tests share: a cluster of real processes, and a raw WebSocket connection to one of its nodes.
//!
//! A [`Cluster`] is made by `rabia-bank create` in a temporary folder, on free ports, and runs one `rabia-bank node`
//! process a node. Everything goes when it is dropped; the nodes go too if the test process is killed, because their
//! stdin closes then. When a test fails, the ends of the nodes' logs are printed.
//!
//! Everything blocks: a test that does two things at once starts a thread.

// Each test file uses its part of this.
#![allow(dead_code)]

pub mod books;
pub mod bulks;
pub mod principals;
pub mod proxy;
pub mod wire;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rabia_bank::client::{ClientOptions, NodeUrl, TOKEN_VARIABLE, Token};
use rabia_bank::config::NodeConfig;
use rabia_bank::embed::Embedded;
use rabia_bank::member_key::MemberKey;
use rabia_bank::tokens::{admin_token, client_token};
use rabia_bank_messages::client::CLIENT_PATH;
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::NodeId;
use rabia_bank_messages::level::TEST_LEVEL;
use rabia_bank_messages::msgpack;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::client_with_config;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, WebSocket};

use wire::Wire;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_rabia-bank");
/// Longer than anything takes that does not hang, also on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often [`wait_until`] looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Ports below the range that the system gives to outgoing connections, so that none of those takes a node's port while
/// the node is down.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// How much of a node's log is printed when a test fails, in lines.
const LOG_LINES: usize = 60;

/// A setting of a test that measures.
pub fn from_environment<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Looks until `condition` holds. Fails the test where it does not within `deadline`.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, deadline, || condition().then_some(()));
}

/// Looks until there is something. Fails the test where there is nothing within `deadline`.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < deadline, "{what}: not within {deadline:?}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A base port for `create` or `cluster`: all ports of so many nodes are free.
pub fn free_base_port(nodes: u16) -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let base = fastrand::u16(PORTS.start..PORTS.end - 110);
        if (0..nodes).all(|node| is_free(base + node) && is_free(base + 100 + node)) {
            return base;
        }
    }
}

/// The program with these arguments, without settings from outside.
pub fn program<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(args: I) -> Command {
    let mut command = Command::new(PROGRAM);
    let args: Vec<std::ffi::OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    command.args(&args).env_remove("RABIA_BANK_CONNECT").env_remove("RUST_LOG").stdin(Stdio::null());
    command.env_remove(TOKEN_VARIABLE);
    if let Some(token) = token_for(&args) {
        command.env(TOKEN_VARIABLE, token);
    }
    command
}

/// The same of the program for tests that knows the levels up to this one.
pub fn program_of_level<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(level: u32, args: I) -> Command {
    let mut command = program(args);
    command.env(TEST_LEVEL, level.to_string());
    command
}

/// The token for the nodes that these arguments name.
fn token_for(args: &[std::ffi::OsString]) -> Option<String> {
    let connect = args.iter().position(|arg| arg == "--connect")?;
    args.get(connect + 1)?.to_str()?.split(',').find_map(|url| {
        let address = url.trim_start_matches("wss://").trim_start_matches("ws://");
        token_of(address.trim_end_matches(CLIENT_PATH).parse().ok()?)
    })
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// Whether there is a process with this id (one that ended and was not waited for counts as gone).
pub fn is_running(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')),
        Err(_) => false,
    }
}

/// The memory of a process that is not swapped out, in bytes.
pub fn resident_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// Waits for a child to end. Kills it and fails the test where it does not within `deadline`.
pub fn wait_for_end(child: &mut Child, deadline: Duration) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("process {} did not end within {deadline:?}", child.id());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The folders of the clusters of this process, by the ports of their nodes.
static FOLDERS: Mutex<BTreeMap<u16, PathBuf>> = Mutex::new(BTreeMap::new());

/// A node with this address has its folder in that of a cluster: its token is there.
pub fn register(address: SocketAddr, node_dir: &Path) {
    let folder = node_dir.parent().unwrap_or(node_dir).to_owned();
    if !client_token(&folder).exists() && !admin_token(&folder).exists() {
        // A copy of a node's folder elsewhere: the cluster's tokens are where they were.
        return;
    }
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).insert(address.port(), folder);
}

/// The token for the daily business with the node that listens here. A restored cluster has none yet: its administrator makes one.
pub fn token_of(address: SocketAddr) -> Option<String> {
    let folder = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).get(&address.port())?.clone();
    let (daily, admin) = (client_token(&folder), admin_token(&folder));
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !daily.exists() && admin.exists() {
        let mut create = Command::new(PROGRAM);
        create.args([
            "token",
            "create",
            "daily",
            "--connect",
            &format!("ws://{address}"),
            "--timeout",
            "2",
            "--token-file",
        ]);
        // A node that does not answer yet is asked again by whoever looks again.
        let _ = create.arg(&admin).arg("--to").arg(&daily).stdin(Stdio::null()).output();
    }
    fs::read_to_string(daily).ok().map(|token| token.trim().to_owned())
}

static MAKING: Mutex<()> = Mutex::new(());

/// Options of a client of these nodes, with their token.
pub fn options(urls: Vec<NodeUrl>) -> ClientOptions {
    let token = urls.iter().find_map(|url| {
        token_of(url.to_string().trim_start_matches("wss://").trim_start_matches("ws://").parse().ok()?)
    });
    ClientOptions { token: token.map(|token| Token::from(&*token)), ..ClientOptions::new(urls) }
}

/// A node of a [`Cluster`]: its place, and its process while it has one, or its handle where it runs inside the test.
pub struct Node {
    pub config: NodeConfig,
    pub config_path: PathBuf,
    pub log_path: PathBuf,
    process: Option<Child>,
    /// It runs inside the test, and is there while it does.
    inside: Option<Option<Embedded>>,
}

impl Node {
    /// A node with this configuration, not running. What it logs goes to `log_path`.
    pub fn at(config: NodeConfig, config_path: PathBuf, log_path: PathBuf) -> Node {
        register(config.client_listen, &config.data_dir);
        Node { config, config_path, log_path, process: None, inside: None }
    }

    /// Where it listens for clients.
    pub fn address(&self) -> SocketAddr {
        self.config.client_listen
    }

    /// Where it listens for peers.
    pub fn peer_address(&self) -> SocketAddr {
        self.config.peer_listen
    }

    /// Its own key.
    pub fn key(&self) -> MemberKey {
        MemberKey::load(&self.config.key_path()).unwrap()
    }

    /// Where it listens for clients, as the client program wants it.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.config.tls.is_some() { "wss" } else { "ws" }, self.address())
    }

    /// Whether it was started, and not killed or waited for since.
    pub fn is_started(&self) -> bool {
        self.process.is_some() || self.inside.iter().flatten().next().is_some()
    }

    /// Whether it runs inside the test.
    pub fn is_inside(&self) -> bool {
        self.inside.is_some()
    }

    /// Whether it has neither stopped by itself nor been told to.
    pub fn is_alive(&self) -> bool {
        match &self.inside {
            Some(node) => node.as_ref().is_some_and(|node| node.ended().now_or_never().is_none()),
            None => is_running(self.pid()),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node is not running").id()
    }

    /// Starts it. It may not be ready when this returns.
    pub fn start(&mut self) {
        if let Some(inside) = &mut self.inside {
            assert!(inside.is_none(), "node {} is running", self.config.node);
            *inside = Some(Embedded::start_on_thread(self.config.clone()).unwrap());
            return;
        }
        let mut command = program(["node", "--stop-with-parent", "--config"]);
        command.arg(&self.config_path);
        self.start_as(command);
    }

    /// Starts it with the program for tests that knows the levels up to this one.
    pub fn start_at_level(&mut self, level: u32) {
        let mut command = program_of_level(level, ["node", "--stop-with-parent", "--config"]);
        command.arg(&self.config_path);
        self.start_as(command);
    }

    /// Starts it by a command of the test's own, which must replace itself by the node and let it stop with its parent.
    pub fn start_as(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "node {} is running", self.config.node);
        let log = OpenOptions::new().create(true).append(true).open(&self.log_path).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the node is not running");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// It loses all its data, and keeps its configuration. It must not be running.
    pub fn wipe(&self) {
        fs::remove_dir_all(&self.config.data_dir).unwrap();
        fs::create_dir(&self.config.data_dir).unwrap();
        fs::write(&self.config_path, self.config.to_toml()).unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) {
        if let Some(inside) = &mut self.inside {
            let node = inside.take().expect("the node is not running");
            actix::System::new().block_on(node.stop()).unwrap();
            return;
        }
        let mut process = self.process.take().expect("the node is not running");
        signal(process.id(), Signal::SIGTERM);
        let status = wait_for_end(&mut process, PATIENCE);
        assert!(status.success(), "node {} stopped with {status}", self.config.node);
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the node is not running");
        wait_for_end(&mut process, PATIENCE)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|process| process.try_wait().unwrap())
    }

    /// Stops the process where it stands.
    pub fn freeze(&self) {
        signal(self.pid(), Signal::SIGSTOP);
    }

    /// Lets the process go on.
    pub fn thaw(&self) {
        signal(self.pid(), Signal::SIGCONT);
    }

    /// What it says of itself, if it answers.
    pub fn status(&self) -> Option<Value> {
        status_on(&mut self.try_connect(Encoding::Json).ok()?)
    }

    /// A connection to it.
    pub fn connect(&self, encoding: Encoding) -> Connection {
        self.try_connect(encoding).unwrap_or_else(|error| panic!("connecting to {}: {error}", self.address()))
    }

    /// The same, if it lets one in: whatever certificate it shows.
    pub fn try_connect(&self, encoding: Encoding) -> Result<Connection, String> {
        let wire = wire::connect(self.address()).and_then(|stream| match self.config.tls {
            Some(_) => wire::secured(stream, wire::trusting_all()),
            None => Ok(Wire::Plain(stream)),
        });
        let wire = wire.map_err(|error| error.to_string())?;
        let socket = websocket_on(wire, self.address(), CLIENT_PATH, &[]).map_err(|error| error.to_string())?;
        Ok(Connection::around(socket, self.address(), encoding))
    }

    /// Everything that it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log_path).unwrap_or_default()
    }
}

/// The status of the node that listens here, if it answers.
pub fn status_of(address: SocketAddr) -> Option<Value> {
    status_on(&mut Connection::try_open(address, Encoding::Json, &[]).ok()?)
}

fn status_on(connection: &mut Connection) -> Option<Value> {
    connection.set_patience(Duration::from_secs(2));
    connection.try_send(&json!({"request": 1, "query": {"get_status": {}}})).ok()?;
    let answer = connection.try_receive().ok()?;
    answer.pointer("/ok/status").cloned()
}

/// A cluster of processes in a temporary folder. Nodes are counted from 0 here: `nodes[0]` is node 1.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub dir: tempfile::TempDir,
}

impl Cluster {
    /// Creates a cluster, without starting it.
    pub fn create(nodes: u16) -> Cluster {
        Cluster::create_with(nodes, |_| ())
    }

    /// Creates a cluster whose configurations are changed before they are used.
    pub fn create_with(nodes: u16, change: impl Fn(&mut NodeConfig)) -> Cluster {
        Cluster::create_as(nodes, &[], change)
    }

    /// The same, with more arguments to `create`: constants of a cluster can't be changed afterwards.
    pub fn create_as(nodes: u16, args: &[&str], change: impl Fn(&mut NodeConfig)) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("bank");
        let base_port = free_base_port(nodes).to_string();
        let output = program(["create", "--nodes", &nodes.to_string(), "--base-port", &base_port, "--data-dir"])
            .arg(&data_dir)
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "create: {}", String::from_utf8_lossy(&output.stderr));
        let nodes = NodeId::all(usize::from(nodes)).map(|node| {
            let config_path = data_dir.join(format!("node-{node}/node.toml"));
            let mut config = NodeConfig::load(&config_path).unwrap();
            change(&mut config);
            fs::write(&config_path, config.to_toml()).unwrap();
            Node::at(config, config_path, dir.path().join(format!("node-{node}.log")))
        });
        Cluster { nodes: nodes.collect(), dir }
    }

    /// A cluster that is ready.
    pub fn start(nodes: u16) -> Cluster {
        Cluster::start_with(nodes, |_| ())
    }

    /// The same in threads of the test, as in a program that embeds nodes. They have no logs.
    pub fn inside(nodes: u16) -> Cluster {
        let mut cluster = Cluster::create(nodes);
        cluster.nodes.iter_mut().for_each(|node| node.inside = Some(None));
        cluster.started()
    }

    /// A cluster that is ready, and whose configurations were changed.
    pub fn start_with(nodes: u16, change: impl Fn(&mut NodeConfig)) -> Cluster {
        Cluster::create_with(nodes, change).started()
    }

    /// Starts all nodes, and waits until they are ready.
    pub fn started(mut self) -> Cluster {
        self.nodes.iter_mut().for_each(Node::start);
        self.wait_ready();
        self
    }

    /// Waits until every node answers and has a link to every other.
    pub fn wait_ready(&self) {
        let links = self.nodes.len() - 1;
        for node in &self.nodes {
            wait_until(&format!("node {} is ready", node.config.node), PATIENCE, || {
                assert!(node.is_alive(), "node {} has ended", node.config.node);
                node.status().is_some_and(|status| status["connected"].as_array().unwrap().len() == links)
            });
        }
    }

    /// The nodes' URLs, as `--connect` wants them.
    pub fn urls(&self) -> String {
        self.nodes.iter().map(Node::url).collect::<Vec<_>>().join(",")
    }

    /// Waits until all nodes have applied the same slot, and hands out what they say then. Fails the test where their
    /// digests differ, and where slots keep coming.
    pub fn wait_equal(&self) -> Vec<Value> {
        let states = wait_for("all nodes are at one slot", PATIENCE, || {
            let states: Option<Vec<Value>> = self.nodes.iter().map(Node::status).collect();
            states.filter(|states| states.iter().all(|state| state["applied_slot"] == states[0]["applied_slot"]))
        });
        for state in &states {
            for field in ["state_digest", "chain_head", "accounts", "transactions", "total_balance"] {
                assert_eq!(state[field], states[0][field], "{field} at one slot: {states:#?}");
            }
        }
        states
    }

    /// `rabia-bank client` with these arguments, on all nodes. Runs until it ends.
    pub fn client<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(&self, args: I) -> Output {
        client(&self.urls(), args)
    }

    /// Prints the ends of the nodes' logs.
    pub fn print_logs(&self) {
        for node in &self.nodes {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- node {}, the end of {} lines:", node.config.node, lines.len());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                // It may have ended by itself.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

/// `rabia-bank client` on these URLs with these arguments. Runs until it ends.
pub fn client<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(urls: &str, args: I) -> Output {
    program(["client", "--connect", urls]).args(args).output().unwrap()
}

/// What `rabia-bank audit verify` says of the books of a node that is not running; they must be right.
pub fn audited(node: &Node) -> Value {
    let output = program(["audit", "verify", "--json", "--data-dir"]).arg(&node.config.data_dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How many bytes a file has; 0 if there is none.
pub fn file_size(path: &Path) -> u64 {
    File::open(path).and_then(|file| file.metadata()).map_or(0, |metadata| metadata.len())
}

/// Whether the process was ended by this signal.
pub fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal as i32)
}

/// A cluster that the tests of one file use together: it is started by the first and dropped by the last of those that
/// run at one time. They leave it as it is, but for accounts of their own.
pub struct SharedCluster {
    running: Mutex<Weak<Cluster>>,
    start: fn() -> Cluster,
}

/// A test's share of a [`SharedCluster`].
pub struct Share(Arc<Cluster>);

impl SharedCluster {
    pub const fn new() -> SharedCluster {
        SharedCluster::started_by(|| Cluster::start(3))
    }

    /// One that is started like this.
    pub const fn started_by(start: fn() -> Cluster) -> SharedCluster {
        SharedCluster { running: Mutex::new(Weak::new()), start }
    }

    /// A cluster of three that is ready.
    pub fn get(&self) -> Share {
        // A failed start must not take the other tests along.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = running.upgrade().unwrap_or_else(|| Arc::new((self.start)()));
        *running = Arc::downgrade(&cluster);
        Share(cluster)
    }
}

impl std::ops::Deref for Share {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // If it is the last, the cluster prints them itself.
        if std::thread::panicking() && Arc::strong_count(&self.0) > 1 {
            self.print_logs();
        }
    }
}

/// A raw WebSocket connection to a node. Messages are [`Value`]s in both encodings.
pub struct Connection {
    pub socket: WebSocket<Wire>,
    pub encoding: Encoding,
    /// The number of the next request that is not given one.
    pub next_request: u64,
    address: SocketAddr,
    /// It has said hello.
    greeted: bool,
}

impl Connection {
    /// A connection to the node that listens here.
    pub fn open(address: SocketAddr, encoding: Encoding) -> Connection {
        Connection::try_open(address, encoding, &[]).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    /// A connection with these headers besides the usual ones.
    pub fn try_open(
        address: SocketAddr,
        encoding: Encoding,
        headers: &[(&'static str, &str)],
    ) -> Result<Connection, String> {
        let socket = open_socket(address, CLIENT_PATH, headers).map_err(|error| error.to_string())?;
        Ok(Connection::around(socket, address, encoding))
    }

    /// A connection over a socket on which a right hello was said.
    pub fn greeted(socket: WebSocket<Wire>, address: SocketAddr, encoding: Encoding) -> Connection {
        Connection { greeted: true, ..Connection::around(socket, address, encoding) }
    }

    /// A connection over a socket that nothing was said on.
    pub fn around(socket: WebSocket<Wire>, address: SocketAddr, encoding: Encoding) -> Connection {
        Connection { socket, encoding, next_request: 1, address, greeted: false }
    }

    /// Says hello with the token for the daily business, as the first message does otherwise.
    pub fn greet(&mut self) -> &mut Connection {
        if !self.greeted {
            let welcome = self.ask(&json!({"hello": {"version": 2}}));
            assert!(welcome["welcome"].is_object(), "{welcome}");
        }
        self
    }

    /// How long [`receive`](Connection::receive) waits.
    pub fn set_patience(&mut self, patience: Duration) {
        self.socket.get_ref().set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Value) {
        self.try_send(message).unwrap();
    }

    /// Sends a message, if the connection still takes one.
    ///
    /// A connection begins with a hello that has a token: it is added where it is missing.
    pub fn try_send(&mut self, message: &Value) -> Result<(), SocketError> {
        let mut message = message.clone();
        let is_first = !std::mem::replace(&mut self.greeted, true);
        if let Some(hello) = message.get_mut("hello").and_then(Value::as_object_mut) {
            if let Some(token) = token_of(self.address) {
                hello.entry("token").or_insert(token.into());
            }
        } else if is_first {
            self.try_send(&json!({"hello": {"version": 2}}))?;
            let welcome = self.try_receive()?;
            if !welcome["welcome"].is_object() {
                return Err(SocketError::Io(io::Error::other(format!("not welcome: {welcome}"))));
            }
        }
        self.socket.send(encode(self.encoding, &message))
    }

    /// The next message of the node.
    pub fn receive(&mut self) -> Value {
        self.try_receive().unwrap_or_else(|error| panic!("no message from the node: {error}"))
    }

    /// The next message of the node, or why there is none. Fails the test where it is in another encoding.
    pub fn try_receive(&mut self) -> Result<Value, SocketError> {
        loop {
            return Ok(match (self.encoding, self.socket.read()?) {
                (Encoding::Json, Message::Text(text)) => serde_json::from_str(&text).unwrap(),
                (Encoding::MessagePack, Message::Binary(bytes)) => msgpack::decode(&bytes).unwrap(),
                (_, Message::Ping(_) | Message::Pong(_)) => continue,
                (_, Message::Close(frame)) => {
                    self.socket.flush().ok();
                    let reason = frame.map(|frame| frame.to_string()).unwrap_or_default();
                    return Err(SocketError::Io(io::Error::other(format!("the node closes: {reason}"))));
                }
                (encoding, other) => panic!("{other:?} where {encoding:?} was asked"),
            });
        }
    }

    /// Reads on to the close frame. The messages before it come too.
    pub fn receive_close(&mut self) -> (Vec<Message>, Option<CloseFrame>) {
        let mut messages = Vec::new();
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return (messages, frame),
                Ok(message) => messages.push(message),
                Err(error) => panic!("no close frame, but {error}, after {messages:?}"),
            }
        }
    }

    /// Sends a message and hands out the next one that comes.
    pub fn ask(&mut self, message: &Value) -> Value {
        self.send(message);
        self.receive()
    }

    /// Asks for a change and hands out the answer.
    pub fn command(&mut self, command: Value) -> Value {
        let request = self.number();
        let answer = self.ask(&json!({"request": request, "command": command}));
        assert_eq!(answer["request"], request, "{answer}");
        answer
    }

    /// Asks a linearizable query and hands out the answer.
    pub fn query(&mut self, query: Value) -> Value {
        self.query_at(query, json!("linearizable"))
    }

    /// Asks a query and hands out the answer.
    pub fn query_at(&mut self, query: Value, read: Value) -> Value {
        let request = self.number();
        let answer = self.ask(&json!({"request": request, "query": query, "read": read}));
        assert_eq!(answer["request"], request, "{answer}");
        answer
    }

    /// The next request number.
    pub fn number(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request - 1
    }
}

/// A message as a frame.
pub fn encode(encoding: Encoding, message: &Value) -> Message {
    match encoding {
        Encoding::Json => Message::text(message.to_string()),
        Encoding::MessagePack => Message::binary(msgpack::encode_named(message)),
    }
}

/// A WebSocket to this address and path. Reads and writes wait for [`PATIENCE`].
pub fn open_socket(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocket<Wire>, SocketError> {
    websocket_on(Wire::Plain(wire::connect(address)?), address, path, headers)
}

/// The same on a connection that is there.
pub fn websocket_on(
    wire: Wire,
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocket<Wire>, SocketError> {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::handshake::HandshakeError;
    let mut request = format!("ws://{address}{path}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let config = WebSocketConfig::default().max_message_size(Some(64 << 20)).max_frame_size(Some(64 << 20));
    match client_with_config(request, wire, Some(config)) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(error)) => Err(error),
        Err(HandshakeError::Interrupted(_)) => Err(SocketError::Io(io::ErrorKind::TimedOut.into())),
    }
}
