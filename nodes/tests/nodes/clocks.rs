//! Real nodes with wrong clocks, by libfaketime, which changes what one process sees of the wall clock. Where it is not installed
//! these tests say so and pass; with `CI=true` it must be there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Cluster, Node, PATIENCE, free_base_port, program, wait_for, wait_until};
use rabia_bank::config::NodeConfig;
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;
/// Less than the tokens of a new cluster are in force: they end by log time.
const MONTHS: u64 = 60 * DAY;

/// Where the library is, if it is installed.
fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let library = folders.iter().map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1"));
    let found = library.into_iter().find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "libfaketime is not installed");
        eprintln!("skipped: libfaketime is not installed (apt-get install faketime)");
    }
    found
}

/// Wrong clocks for nodes, which can be set while they run.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(library: &Path, file: PathBuf, ahead_ms: i64) -> Clock {
        let clock = Clock { library: library.to_owned(), file };
        clock.set(ahead_ms);
        clock
    }

    fn set(&self, ahead_ms: i64) {
        let draft = self.file.with_extension("draft");
        fs::write(&draft, format!("{:+}\n", ahead_ms / 1_000)).unwrap();
        fs::rename(&draft, &self.file).unwrap();
    }

    /// A node under this clock. Its monotonic clocks are right.
    fn start(&self, node: &mut Node) {
        let mut command = program(["node", "--stop-with-parent", "--config"]);
        command.arg(&node.config_path);
        self.put_on(&mut command);
        node.start_as(command);
    }

    fn put_on(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Deposits, and asks again for as long as the node is busy. The transaction's timestamp.
fn deposit(node: &Node) -> u64 {
    let mut connection = node.connect(Encoding::Json);
    let answer = wait_for("a deposit", PATIENCE, || {
        let answer = connection.command(json!({"deposit": {"account_id": "a", "amount": 1}}));
        (answer["error"]["code"] != "busy").then_some(answer)
    });
    answer["ok"]["transaction"]["timestamp"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

fn create_account(node: &Node, name: &str) -> Value {
    let mut connection = node.connect(Encoding::Json);
    connection.command(json!({"create_account": {"account_id": name, "initial_balance": 100}}))
}

fn is_near(time: u64, expected: u64) -> bool {
    time.abs_diff(expected) < 2 * MINUTE
}

fn status(node: &Node) -> Value {
    wait_for("a status", PATIENCE, || node.status())
}

fn log(node: &Node) -> String {
    fs::read_to_string(&node.log_path).unwrap()
}

fn accept(folder: &Path) -> String {
    let output = program(["clock", "accept", "--data-dir"]).arg(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

/// Without this a node goes by its log and its wall clock, as after its machine was started again.
fn kill_and_forget_uptime(node: &mut Node) {
    wait_until("the clock is kept", PATIENCE, || node.config.clock_path().is_file());
    node.kill();
    fs::remove_file(node.config.clock_path()).unwrap();
}

fn single(folder: &Path) -> Node {
    let port = free_base_port(1).to_string();
    let made = program(["create", "--nodes", "1", "--base-port", &port, "--data-dir"]).arg(folder).output().unwrap();
    assert!(made.status.success());
    at(folder)
}

fn at(folder: &Path) -> Node {
    let config_path = folder.join("node-1/node.toml");
    let config = NodeConfig::load(&config_path).unwrap();
    Node::at(config, config_path, folder.with_extension("log"))
}

fn serving(node: &Node) {
    wait_until("the node serves", PATIENCE, || node.status().is_some());
}

/// It says so, goes on with the right time, and asks nobody; if its clock is right, one command is enough.
#[test]
fn a_single_node_that_starts_with_a_clock_that_is_ahead_goes_by_the_machine() {
    let Some(library) = faketime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut node = single(&dir.path().join("bank"));
    node.start();
    serving(&node);
    create_account(&node, "a");
    assert!(is_near(deposit(&node), now()));
    wait_until("the clock is kept", PATIENCE, || node.config.clock_path().is_file());
    node.kill();
    let clock = Clock::new(&library, dir.path().join("ahead"), (MONTHS + MINUTE) as i64);
    clock.start(&mut node);
    serving(&node);
    assert!(is_near(deposit(&node), now()), "a wrong clock took log time along");
    wait_until("status shows it", PATIENCE, || is_near(status(&node)["clock_leap_ms"].as_u64().unwrap(), MONTHS));
    assert!(is_near(status(&node)["log_time"].as_u64().unwrap(), now()));
    wait_until("the log tells it", PATIENCE, || log(&node).contains("60 d"));
    assert_eq!(log(&node).matches("more than monotonic clocks confirm").count(), 1, "{}", log(&node));
    assert!(log(&node).contains("rabia-bank clock accept --data-dir"));

    assert!(accept(&node.config.data_dir).contains("60 d"));
    assert!(is_near(deposit(&node), now() + MONTHS));
    assert!(accept(&node.config.data_dir).contains("nothing is wrong"));
    node.kill();
}

#[test]
fn a_clock_that_is_ahead_does_not_end_tokens_before_their_time() {
    let Some(library) = faketime() else { return };
    let cluster_dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(1);
    let node = &mut cluster.nodes[0];
    node.start();
    serving(node);
    create_account(node, "a");
    wait_until("the clock is kept", PATIENCE, || node.config.clock_path().is_file());
    node.kill();
    // Longer than any token of a new cluster is in force.
    Clock::new(&library, cluster_dir.path().join("ahead"), (2 * YEAR) as i64).start(node);
    serving(node);
    assert!(is_near(deposit(node), now()));
}

/// Its machine was off, too: then nobody knows, and somebody has to look.
#[test]
fn a_single_node_whose_machine_was_off_asks_beyond_a_day() {
    let Some(library) = faketime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut node = single(&dir.path().join("bank"));
    node.start();
    serving(&node);
    create_account(&node, "a");
    kill_and_forget_uptime(&mut node);
    let clock = Clock::new(&library, dir.path().join("ahead"), (20 * HOUR) as i64);
    clock.start(&mut node);
    serving(&node);
    assert!(is_near(deposit(&node), now() + 20 * HOUR));
    wait_until("the log tells it", PATIENCE, || log(&node).contains("agree that all were off for so long"));
    kill_and_forget_uptime(&mut node);
    clock.set((20 * HOUR + 3 * DAY) as i64);
    clock.start(&mut node);
    serving(&node);
    let mut connection = node.connect(Encoding::Json);
    let refused = connection.command(json!({"deposit": {"account_id": "a", "amount": 1}}));
    assert_eq!((&refused["error"]["code"], &refused["error"]["outcome"]), (&json!("busy"), &json!("refused")));
    let balance = connection.query(json!({"get_balance": {"account_id": "a"}}));
    assert_eq!(balance["ok"]["balance"], 101, "it is read all the same");
    wait_until("the log tells it", PATIENCE, || log(&node).contains("takes no commands"));
    assert!(accept(&dir.path().join("bank")).contains("3 d"));
    assert!(is_near(deposit(&node), now() + 20 * HOUR + 3 * DAY));
    node.kill();
}

/// Idle sessions would expire at once, and what was in flight could not be resolved any more.
#[test]
fn a_majority_two_days_ahead_ends_no_session() {
    let Some(library) = faketime() else { return };
    let mut cluster = Cluster::start(3);
    create_account(&cluster.nodes[0], "a");
    let mut client = cluster.nodes[0].connect(Encoding::Json);
    let first = client.command(json!({"deposit": {"account_id": "a", "amount": 5}}));
    let session = first["session"].clone();
    assert!(session.is_object(), "{first}");
    for node in &cluster.nodes {
        wait_until("the clock is kept", PATIENCE, || node.config.clock_path().is_file());
    }
    let clock = Clock::new(&library, cluster.dir.path().join("ahead"), (2 * DAY) as i64);
    for node in &mut cluster.nodes[..2] {
        node.kill();
        clock.start(node);
    }
    wait_until("both are back", PATIENCE, || {
        cluster.nodes[..2]
            .iter()
            .all(|node| node.status().is_some_and(|status| status["connected"].as_array().unwrap().len() == 2))
    });
    assert!(is_near(deposit(&cluster.nodes[0]), now()));
    assert!(is_near(deposit(&cluster.nodes[2]), now()));
    let mut again = cluster.nodes[2].connect(Encoding::Json);
    again.send(&json!({"hello": {"version": 2, "session": session}}));
    assert_eq!(again.receive()["welcome"]["session"], session["number"]);
    let repeated =
        again.ask(&json!({"request": first["request"], "command": {"deposit": {"account_id": "a", "amount": 5}}}));
    assert_eq!(repeated["replayed"], true, "{repeated}");
    // Both wrong ones say so, and the right one only that it is not like the others.
    for node in &cluster.nodes[..2] {
        wait_until("status shows it", PATIENCE, || status(node)["clock_leap_ms"].as_u64().unwrap() > DAY);
        wait_until("the log tells it", PATIENCE, || log(node).contains("more than monotonic clocks confirm"));
    }
}

/// The wrong one is told, once a minute, and the right ones are not.
#[test]
fn a_node_that_is_an_hour_behind_says_so_and_no_other() {
    let Some(library) = faketime() else { return };
    let mut cluster = Cluster::start(3);
    cluster.nodes[2].kill();
    let clock = Clock::new(&library, cluster.dir.path().join("behind"), -(HOUR as i64));
    clock.start(&mut cluster.nodes[2]);
    serving(&cluster.nodes[2]);
    create_account(&cluster.nodes[0], "a");
    let offset = |node: &Node| status(node)["clock_offset_ms"].as_i64().unwrap();
    wait_until("it knows", PATIENCE, || (offset(&cluster.nodes[2]) + HOUR as i64).abs() < MINUTE as i64);
    wait_until("it says so", PATIENCE, || log(&cluster.nodes[2]).contains("behind those of the others: set it right"));
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        for node in &cluster.nodes {
            assert!(is_near(deposit(node), now()));
        }
    }
    assert_eq!(log(&cluster.nodes[2]).matches("clock is").count(), 1, "{}", log(&cluster.nodes[2]));
    for node in &cluster.nodes[..2] {
        assert!(offset(node).abs() < MINUTE as i64);
        assert!(!log(node).contains("set it right"), "{}", log(node));
    }
}

/// Set while they run, on all nodes; then one of them is told that it is right.
#[test]
fn clocks_that_are_set_ahead_while_nodes_run_are_believed_when_somebody_says_so_at_one() {
    let Some(library) = faketime() else { return };
    let mut cluster = Cluster::start(3);
    let clock = Clock::new(&library, cluster.dir.path().join("clock"), 0);
    for node in &mut cluster.nodes {
        node.kill();
        clock.start(node);
    }
    cluster.nodes.iter().for_each(serving);
    create_account(&cluster.nodes[0], "a");
    assert!(is_near(deposit(&cluster.nodes[0]), now()));
    clock.set((30 * DAY) as i64);
    for node in &cluster.nodes {
        wait_until("status shows it", PATIENCE, || is_near(status(node)["clock_leap_ms"].as_u64().unwrap(), 30 * DAY));
        assert!(is_near(deposit(node), now()));
    }
    accept(&cluster.nodes[1].config.data_dir);
    wait_until("all believe it", PATIENCE, || cluster.nodes.iter().all(|node| status(node)["clock_leap_ms"] == 0));
    for node in &cluster.nodes {
        assert!(is_near(deposit(node), now() + 30 * DAY));
    }
}

/// A first start with a clock that is ahead, as it happens; a backup of that, restored where the clock is right.
#[test]
fn restore_repairs_a_log_time_that_is_ahead_and_keeps_the_history() {
    let Some(library) = faketime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = single(&dir.path().join("wrong"));
    Clock::new(&library, dir.path().join("ahead"), MONTHS as i64).start(&mut wrong);
    serving(&wrong);
    create_account(&wrong, "a");
    let newest = deposit(&wrong);
    assert!(is_near(newest, now() + MONTHS), "the first command of a cluster has any time");
    let backup = dir.path().join("bank.backup");
    let taken =
        program(["backup", "--data-dir"]).arg(&wrong.config.data_dir).arg("--to").arg(&backup).output().unwrap();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let history = |node: &Node| node.connect(Encoding::Json).query(json!({"get_transaction_history": {}}));
    let moved = |node: &Node| {
        let mut transactions = history(node)["ok"]["transactions"].as_array().unwrap().clone();
        // A restored cluster's administrator makes a token.
        transactions.retain(|transaction| transaction["type"] != "admin");
        transactions
    };
    let before = moved(&wrong);
    wrong.kill();

    let port = free_base_port(1).to_string();
    let folder = dir.path().join("right");
    let mut restore = program(["restore", "--nodes", "1", "--base-port", &port, "--data-dir"]);
    let restored = restore.arg(&folder).arg(&backup).output().unwrap();
    let said = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert!(restored.status.success() && said.contains("ahead of this machine's clock"), "{said}");
    let mut node = at(&folder);
    node.start();
    serving(&node);
    assert_eq!(moved(&node), before);
    assert_eq!(deposit(&node), newest, "records stay in order");
    assert!(is_near(status(&node)["log_time"].as_u64().unwrap(), now()));
    assert_eq!(status(&node)["clock_leap_ms"], 0);
    node.stop();
    let verified = program(["audit", "verify", "--data-dir"]).arg(&node.config.data_dir).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}
