//! The program as people and scripts use it: `rabia-bank client`, `bench`, `cluster` and `node`, by what they print, their
//! exit codes, and the processes that they leave.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use crate::support::{Cluster, PATIENCE, SharedCluster, client, free_base_port, program, wait_for, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

static CLUSTER: SharedCluster = SharedCluster::new();

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Checks the exit code.
#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "stdout: {}\nstderr: {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The lines of stdout, of a program that did what it was asked to.
#[track_caller]
fn lines(output: &Output) -> Vec<String> {
    assert_code(output, 0);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

/// The one JSON object on stdout.
#[track_caller]
fn object(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn people_read_what_was_done() {
    let cluster = CLUSTER.get();
    let run = |line: &str| lines(&cluster.client(line.split(' ')));
    let contains = |lines: &[String], parts: &[&str]| {
        let all = lines.join("\n");
        parts.iter().for_each(|part| assert!(all.contains(part), "{part} in {all}"));
    };
    let created = run("create-account anna 12345");
    contains(&created, &["anna", "balance 12,345", "opening"]);
    contains(&run("create-account berta"), &["berta", "balance 0"]);
    contains(&run("deposit anna 55"), &["deposit", "anna (now 12,400)"]);
    contains(&run("withdraw anna 400"), &["withdrawal", "anna (now 12,000)"]);
    contains(&run("transfer anna berta 1000"), &["transfer", "1,000", "anna (now 11,000) -> berta (now 1,000)"]);
    assert_eq!(run("balance anna"), ["11,000"]);
    contains(&run("account berta"), &["berta", "balance 1,000", "transactions: 2"]);
    contains(&run("accounts --after anna --limit 1"), &["account", "balance", "berta", "1,000"]);
    let history = run("history anna");
    assert_eq!(history.len(), 4, "{history:?}");
    contains(&history[..1], &["transfer"]);
    contains(&history[3..], &["opening"]);
    contains(&run("history anna --type deposit --limit 1"), &["deposit", "55"]);
    contains(&run("transaction 1"), &["#1 "]);
    contains(&run("statistics --large 1000"), &["total balance", "By type", "transfer", "Largest accounts"]);
    let status = run("status");
    assert_eq!(status.len(), 4, "a head and a line a node: {status:?}");
    contains(&status, &["digest", "2 3", "1 3", "1 2"]);
}

#[test]
fn scripts_read_the_answers_as_they_came() {
    let cluster = CLUSTER.get();
    let run = |line: &str| {
        let output = cluster.client(["--json"].into_iter().chain(line.split(' ')));
        assert_code(&output, 0);
        object(&output)
    };
    let created = run("create-account json-a 1000");
    assert_eq!(created["ok"]["account"]["balance"], 1000);
    assert_eq!((&created["request"], &created["replayed"]), (&json!(1), &json!(false)));
    assert!(created["slot"].is_u64(), "{created}");
    run("create-account json-b");
    assert_eq!(run("deposit json-a 5")["ok"]["transaction"]["to_balance"], 1005);
    assert_eq!(run("withdraw json-a 5")["ok"]["transaction"]["from_balance"], 1000);
    let moved = run("transfer json-a json-b 300");
    assert_eq!(moved["ok"]["transaction"]["to_balance"], 300);
    assert_eq!(run("balance json-b")["ok"], json!({"balance": 300}));
    assert_eq!(run("--read local account json-b")["ok"]["account"]["account_id"], "json-b");
    let at_least = run(&format!("--read {} balance json-a", moved["slot"]));
    assert!(at_least["slot"].as_u64() >= moved["slot"].as_u64(), "{at_least}");
    assert_eq!(run("accounts --after json-a --limit 1")["ok"]["accounts"][0]["account_id"], "json-b");
    assert_eq!(run("history json-b --limit 1")["ok"]["transactions"], json!([moved["ok"]["transaction"]]));
    let id = &moved["ok"]["transaction"]["transaction_id"];
    assert_eq!(run(&format!("transaction {id}"))["ok"], moved["ok"]);
    assert!(run("statistics")["ok"]["statistics"]["accounts"].as_u64().unwrap() >= 2);

    let output = cluster.client(["--json", "status"]);
    let states: Vec<Value> = lines(&output).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(states.len(), 3);
    for (node, state) in cluster.nodes.iter().zip(&states) {
        assert_eq!((&state["url"], &state["node"]), (&json!(node.url()), &json!(node.config.node.get())));
        for field in ["applied_slot", "decided_slots", "null_slots", "accounts", "transactions", "total_balance"] {
            assert!(state[field].is_u64(), "{field} in {state}");
        }
        assert!(state["state_digest"].is_string() && state["connected"].is_array(), "{state}");
    }
}

#[test]
fn a_refusal_is_exit_code_4_and_wrong_usage_2() {
    let cluster = CLUSTER.get();
    lines(&cluster.client(["create-account", "codes", "10"]));
    for (line, code) in [
        ("create-account codes 10", "account_exists"),
        ("create-account in/valid 10", "invalid_account_id"),
        ("deposit codes -5", "invalid_amount"),
        ("deposit codes 1.5", "invalid_amount"),
        ("deposit codes 0", "invalid_amount"),
        ("withdraw codes 11", "insufficient_funds"),
        ("withdraw codes-none 11", "account_not_found"),
        ("transfer codes codes 1", "same_account"),
        ("transfer codes codes-none 1", "account_not_found"),
        ("balance codes-none", "account_not_found"),
        ("transaction 99999999", "transaction_not_found"),
        ("accounts --limit 0", "malformed"),
    ] {
        let output = cluster.client(line.split(' '));
        assert_code(&output, 4);
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        assert!(text(&output.stderr).contains(code), "{code} in {}", text(&output.stderr));
        let output = cluster.client(["--json"].into_iter().chain(line.split(' ')));
        assert_code(&output, 4);
        let answer = object(&output);
        assert_eq!((&answer["error"]["code"], &answer["error"]["outcome"]), (&json!(code), &json!("refused")));
    }
    for line in ["deposit codes", "deposit codes much", "fly", "--read sometimes balance codes"] {
        assert_code(&cluster.client(line.split(' ')), 2);
    }
    assert_eq!(lines(&cluster.client(["balance", "codes"])), ["10"]);
}

#[test]
fn a_dead_node_among_the_urls_is_passed_over_and_told_by_status() {
    let cluster = CLUSTER.get();
    let dead = format!("ws://127.0.0.1:{}", free_base_port(1));
    let urls = format!("{dead},{}", cluster.urls());
    lines(&client(&urls, ["create-account", "fail-over", "7"]));
    assert_eq!(lines(&client(&urls, ["balance", "fail-over"])), ["7"]);

    let output = client(&urls, ["status"]);
    assert_code(&output, 5);
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 5, "{stdout}");
    assert!(stdout.lines().any(|line| line.contains(&dead)), "{stdout}");
    let output = client(&urls, ["--json", "status"]);
    assert_code(&output, 5);
    let states: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(states.len(), 4);
    assert_eq!(states[0]["url"], json!(dead));
    assert!(states[0]["error"].is_string() && states[1]["node"] == 1, "{states:?}");

    let output = client(&dead, ["--timeout", "0.5", "deposit", "fail-over", "1"]);
    assert_code(&output, 5);
    assert!(text(&output.stderr).contains("no node reached"), "{}", text(&output.stderr));
    let output = client(&dead, ["--timeout", "0.5", "--json", "balance", "fail-over"]);
    assert_code(&output, 5);
    assert_eq!(object(&output)["error"]["code"], "not_reached");
}

#[test]
fn without_a_quorum_nothing_is_told_as_done_or_as_refused_by_the_bank() {
    let mut cluster = Cluster::create_with(3, |config| config.limits.request_timeout_ms = 200);
    cluster.nodes[0].start();
    wait_until("node 1 answers", PATIENCE, || cluster.nodes[0].status().is_some());
    let url = cluster.nodes[0].url();
    let output = client(&url, ["--timeout", "1", "--json", "deposit", "a", "1"]);
    assert_code(&output, 5);
    // No session could be opened, so the command was never sent: it is certain that it was not executed.
    let answer = object(&output);
    assert_eq!((&answer["error"]["code"], &answer["error"]["outcome"]), (&json!("not_served"), &json!("refused")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("no_quorum"), "{answer}");
    for line in ["deposit a 1", "balance a"] {
        let output = client(&url, ["--timeout", "1"].into_iter().chain(line.split(' ')));
        assert_code(&output, 5);
        let stderr = text(&output.stderr);
        assert!(stderr.contains("no_quorum") && stderr.contains("A majority of the nodes must run"), "{stderr}");
        assert!(!stderr.contains("no node reached") && !stderr.contains("unknown"), "{stderr}");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    }
    // What it has on its disk it answers when it has met a quorum once.
    let output = client(&url, ["--read", "local", "accounts"]);
    assert_code(&output, 5);
    assert!(text(&output.stderr).contains("met no quorum since its start"), "{}", text(&output.stderr));
    let output = client(&url, ["status"]);
    assert_code(&output, 0);
    assert!(text(&output.stdout).contains("node 1 answers nothing but its status"), "{}", text(&output.stdout));
    cluster.nodes[1].start();
    wait_until("node 1 has met node 2", PATIENCE, || {
        cluster.nodes[0].status().is_some_and(|status| status["admitted"] == true)
    });
    cluster.nodes[1].stop();
    let output = client(&url, ["--read", "local", "accounts"]);
    assert_code(&output, 0);
}

#[test]
fn a_bulk_comes_from_a_file_or_from_stdin() {
    let cluster = CLUSTER.get();
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("bulk.json");
    let commands = json!([
        {"create_account": {"account_id": "bulk-a", "initial_balance": 10}},
        {"create_account": {"account_id": "bulk-b", "initial_balance": 0}},
        {"transfer": {"from_account": "bulk-a", "to_account": "bulk-b", "amount": 4}},
    ]);
    fs::write(&file, commands.to_string()).unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(lines(&cluster.client(["bulk", "--atomic", path])), ["3 applied, 0 refused"]);
    fs::write(&file, format!("\u{feff}{commands}")).unwrap();
    let output = cluster.client(["bulk", "--json", "--atomic", path]);
    assert_code(&output, 4);
    assert_eq!(object(&output)["error"]["index"], 0);

    let from_stdin = |args: &[&str], input: &str| {
        let mut child = program(["client", "--connect", &cluster.urls(), "bulk"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let one_a_line = "{\"deposit\": {\"account_id\": \"bulk-b\", \"amount\": 1}}\n\
                      {\"withdraw\": {\"account_id\": \"bulk-none\", \"amount\": 1}}\n";
    let output = from_stdin(&[], one_a_line);
    assert_code(&output, 4);
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("1 applied, 1 refused\n") && stdout.contains("account_not_found"), "{stdout}");
    let output = from_stdin(&["--atomic", "-"], one_a_line);
    assert_code(&output, 4);
    assert!(text(&output.stderr).contains("command 1"), "{}", text(&output.stderr));
    assert_eq!(lines(&cluster.client(["balance", "bulk-b"])), ["5"]);
    assert_code(&from_stdin(&[], ""), 4);
    for no_commands in ["hello", "[{\"deposit\": {\"account_id\": \"bulk-b\"}}]"] {
        let output = from_stdin(&[], no_commands);
        assert_code(&output, 2);
        assert!(text(&output.stderr).contains("no commands"), "{}", text(&output.stderr));
    }
    assert_code(&cluster.client(["bulk", "/does/not/exist.json"]), 2);
}

/// A program that runs beside the test, with its output in files. Killed when dropped.
struct Background {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    _dir: tempfile::TempDir,
}

impl Background {
    fn start(args: &[&str]) -> Background {
        let dir = tempfile::tempdir().unwrap();
        let (stdout, stderr) = (dir.path().join("stdout"), dir.path().join("stderr"));
        let (out, err) = (File::create(&stdout).unwrap(), File::create(&stderr).unwrap());
        let child = program(args).stdout(out).stderr(err).spawn().unwrap();
        Background { child, stdout, stderr, _dir: dir }
    }

    fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits for complete lines on stdout.
    fn wait_lines(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} lines"), PATIENCE, || {
            let stdout = self.stdout();
            let complete = stdout.rsplit_once('\n').map_or("", |(lines, _)| lines);
            let lines: Vec<String> = complete.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- stdout:\n{}--- stderr:\n{}", self.stdout(), self.stderr());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watch_prints_every_transaction_once_and_in_order() {
    let cluster = CLUSTER.get();
    lines(&cluster.client(["create-account", "watched", "5"]));
    lines(&cluster.client(["create-account", "unwatched", "5"]));
    let history = object(&cluster.client(["--json", "history", "watched"]));
    let opening = history["ok"]["transactions"][0]["transaction_id"].to_string();
    let urls = cluster.urls();
    let mut watch =
        Background::start(&["client", "--connect", &urls, "--json", "watch", "watched", "--from", &opening]);
    watch.wait_lines(1);
    for amount in ["11", "12", "13"] {
        lines(&cluster.client(["deposit", "watched", amount]));
        lines(&cluster.client(["deposit", "unwatched", "99"]));
    }
    let seen: Vec<Value> = watch.wait_lines(4).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let amounts: Vec<&Value> = seen.iter().map(|transaction| &transaction["amount"]).collect();
    assert_eq!(amounts, [5, 11, 12, 13]);
    assert!(seen.iter().all(|transaction| transaction["to_account"] == "watched"), "{seen:?}");
    crate::support::signal(watch.child.id(), Signal::SIGINT);
    assert_eq!(crate::support::wait_for_end(&mut watch.child, PATIENCE).code(), Some(0));

    let output = cluster.client(["watch", "nobody-of-this-name", "--from", "1"]);
    assert_code(&output, 4);
    assert!(text(&output.stderr).contains("account_not_found"), "{}", text(&output.stderr));
}

#[test]
fn bench_measures_and_checks_the_books() {
    // A cluster of its own: it counts all money.
    let cluster = Cluster::start(3);
    let urls = cluster.urls();
    for extra in [vec![], vec!["--bulk", "10", "--in-flight", "4"]] {
        let output = program(["bench", "--connect", &urls, "--accounts", "20", "--clients", "4", "--duration", "1"])
            .args(["--json", "--yes"])
            .args(extra)
            .output()
            .unwrap();
        assert_code(&output, 0);
        let result = object(&output);
        assert_eq!(result["books_balance"], true, "{result}");
        assert_eq!(result["unknown"], 0, "{result}");
        assert!(result["refused"].is_u64(), "{result}");
        assert!(result["acknowledged"].as_u64().unwrap() > 100, "{result}");
        let number = |field: &str| result[field].as_f64().unwrap_or_else(|| panic!("{field} in {result}"));
        assert!(number("per_second") > 100.0, "{result}");
        let timeline = result["timeline"].as_array().unwrap().iter().map(|done| done.as_u64().unwrap());
        assert_eq!(timeline.sum::<u64>(), result["acknowledged"].as_u64().unwrap(), "{result}");
        assert!((0.0..=1.0).contains(&number("forfeited_share")), "{result}");
        let percentiles = ["p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"].map(number);
        assert!(percentiles[0] > 0.0 && percentiles.is_sorted(), "{result}");
        assert!(number("phases_per_slot") >= 1.0, "{result}");
        // A slot at the edge of the time measured may carry a transfer that is not counted.
        assert!(number("transfers_per_slot") > 0.9, "{result}");
        assert_eq!(result["nodes"].as_array().unwrap().len(), 3, "{result}");
        assert!(result["nodes"].as_array().unwrap().iter().all(|node| node["syncs"].as_u64() > Some(0)), "{result}");
        let stages = result["stages"].as_array().unwrap();
        let names: Vec<_> = stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
        assert_eq!(names, ["queue", "proposal", "state", "sync", "vote", "apply", "answer"], "{result}");
    }
    cluster.wait_equal();
    let run = |more: &[&str]| {
        let run = program(["bench", "--connect", &urls, "--accounts", "20", "--clients", "2", "--duration", "0.5"]);
        { run }.args(more).output().unwrap()
    };
    // Its accounts stay for ever: a bank that somebody uses is left alone.
    let before = cluster.wait_equal()[0]["accounts"].clone();
    let output = run(&[]);
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("--yes"), "{}", text(&output.stderr));
    assert_eq!(cluster.wait_equal()[0]["accounts"], before);
    let output = run(&["--yes"]);
    assert_code(&output, 0);
    assert!(text(&output.stdout).contains("books"), "{}", text(&output.stdout));
    let dead = format!("ws://127.0.0.1:{}", free_base_port(1));
    let output = program(["bench", "--connect", &dead, "--timeout", "0.5"]).output().unwrap();
    assert_code(&output, 5);
}

#[test]
fn bench_keeps_to_a_rate_reads_draws_and_compares() {
    let cluster = Cluster::start(3);
    let urls = cluster.urls();
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("latency.svg");
    let output = program(["bench", "--connect", &urls, "--json", "--clients", "4", "--duration", "1", "--rate", "200"])
        .args(["--reads", "50", "--hot", "10", "--probe"])
        .arg(folder.path())
        .arg("--plot")
        .arg(&plot)
        .output()
        .unwrap();
    assert_code(&output, 0);
    let result = object(&output);
    let (transfers, reads) = (result["per_second"].as_f64().unwrap(), result["reads"]["per_second"].as_f64().unwrap());
    assert!(transfers > 10.0 && reads > 10.0 && transfers + reads < 300.0, "{result}");
    assert!(result["probe"]["commit_p50_ms"].as_f64() > Some(0.0), "{result}");
    assert!(result["probe"]["echo_per_second"].as_f64() > Some(0.0), "{result}");
    let picture = std::fs::read_to_string(&plot).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("polyline"), "{picture}");
    let output = cluster.client(["status", "--stages"]);
    assert_code(&output, 0);
    assert!(text(&output.stdout).contains("sync"), "{}", text(&output.stdout));
}

/// `rabia-bank cluster`, and the folder that it works on.
struct ClusterProgram {
    background: Background,
    data_dir: PathBuf,
    base_port: u16,
}

/// The tokens of a cluster of three are in this folder.
fn register_cluster(base_port: u16, data_dir: &Path) {
    for node in 0..3 {
        let address = SocketAddr::from(([127, 0, 0, 1], base_port + node));
        crate::support::register(address, &data_dir.join(format!("node-{}", node + 1)));
    }
}

impl ClusterProgram {
    /// Starts it on a folder, which may be absent, and waits until it says that it is ready.
    fn start(data_dir: PathBuf, base_port: Option<u16>, more: &[&str]) -> ClusterProgram {
        let port = base_port.map(|port| port.to_string());
        let mut args = vec!["cluster", "--data-dir", data_dir.to_str().unwrap()];
        if let Some(port) = &port {
            args.extend(["--base-port", port]);
        }
        args.extend(more);
        let background = Background::start(&args);
        wait_until("the cluster says that it is ready", PATIENCE, || {
            let stdout = background.stdout();
            stdout.contains("Rabia Bank is ready: 3 of 3 nodes") && stdout.contains("client")
        });
        let stdout = background.stdout();
        let first = stdout.split_once("ws://127.0.0.1:").unwrap().1;
        let base_port = first.split_once('/').unwrap().0.parse().unwrap();
        register_cluster(base_port, &data_dir);
        ClusterProgram { background, data_dir, base_port }
    }

    /// The processes of the nodes, as it named them when it was ready.
    fn node_pids(&self) -> Vec<u32> {
        let stdout = self.background.stdout();
        let pids: Vec<u32> = stdout
            .lines()
            .filter(|line| line.trim_start().starts_with("node "))
            .map(|line| line.rsplit_once("process ").unwrap().1.trim().parse().unwrap())
            .collect();
        assert_eq!(pids.len(), 3, "{stdout}");
        pids
    }

    fn address(&self, node: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base_port + node - 1))
    }

    fn urls(&self) -> String {
        (1..=3).map(|node| format!("ws://{}", self.address(node))).collect::<Vec<_>>().join(",")
    }

    fn is_connected(&self, node: u16) -> bool {
        crate::support::status_of(self.address(node)).is_some_and(|status| status["connected"] == json!(others(node)))
    }

    /// SIGTERM, and everything that belongs to it.
    fn stop(mut self) -> PathBuf {
        let pids = self.node_pids();
        crate::support::signal(self.background.child.id(), Signal::SIGTERM);
        let status = crate::support::wait_for_end(&mut self.background.child, PATIENCE);
        assert_eq!(status.code(), Some(0), "{}", self.background.stderr());
        assert!(self.background.stdout().contains("All nodes have stopped."));
        for pid in pids {
            assert!(!crate::support::is_running(pid), "node process {pid} was left behind");
        }
        self.data_dir.clone()
    }
}

fn others(node: u16) -> Vec<u16> {
    (1..=3).filter(|other| *other != node).collect()
}

#[test]
fn the_cluster_program_starts_from_nothing_stops_as_a_whole_and_starts_again() {
    let temp = tempfile::tempdir().unwrap();
    let base_port = free_base_port(3);
    let cluster = ClusterProgram::start(temp.path().join("deep/bank"), Some(base_port), &[]);
    assert_eq!(cluster.base_port, base_port);
    for node in 1..=3 {
        assert!(temp.path().join(format!("deep/bank/node-{node}/node.toml")).is_file());
    }
    lines(&client(&cluster.urls(), ["create-account", "kept", "42"]));

    // A second one on the same folder is told so, and does no harm.
    let second = program(["cluster", "--data-dir", cluster.data_dir.to_str().unwrap()]).output().unwrap();
    assert_code(&second, 3);
    let stderr = text(&second.stderr);
    assert!(stderr.contains("nodes 1, 2, 3 run already") && !stderr.contains("died"), "{stderr}");
    assert!(!text(&second.stdout).contains("ready"), "{}", text(&second.stdout));
    assert_eq!(lines(&client(&cluster.urls(), ["balance", "kept"])), ["42"]);

    let data_dir = cluster.stop();
    let again = ClusterProgram::start(data_dir, None, &[]);
    assert_eq!(again.base_port, base_port);
    assert_eq!(lines(&client(&again.urls(), ["balance", "kept"])), ["42"]);
    again.stop();
}

#[test]
fn a_node_that_dies_is_started_again_and_one_that_was_stopped_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = ClusterProgram::start(temp.path().join("bank"), Some(free_base_port(3)), &[]);
    let pids = cluster.node_pids();
    lines(&client(&cluster.urls(), ["create-account", "here", "1"]));
    crate::support::signal(pids[1], Signal::SIGKILL);
    wait_until("node 2 is back with its links", PATIENCE, || cluster.is_connected(2));
    let stderr = cluster.background.stderr();
    assert!(stderr.contains("node 2 died") && stderr.contains("starting it again"), "{stderr}");
    let new_pid: u32 = stderr.split_once("node 2 is process ").unwrap().1.split_once(' ').unwrap().0.parse().unwrap();
    assert!(new_pid != pids[1] && crate::support::is_running(new_pid));
    let third_node = format!("ws://{}", cluster.address(2));
    assert_eq!(lines(&client(&third_node, ["balance", "here"])), ["1"]);

    // Asked to stop, it stays away, until somebody runs it alone.
    crate::support::signal(new_pid, Signal::SIGTERM);
    wait_until("node 2 has stopped", PATIENCE, || !crate::support::is_running(new_pid));
    lines(&client(&cluster.urls(), ["deposit", "here", "2"]));
    assert!(crate::support::status_of(cluster.address(2)).is_none());
    let config = cluster.data_dir.join("node-2/node.toml");
    let mut alone = Background::start(&["node", "--config", config.to_str().unwrap()]);
    wait_until("node 2 runs alone and has its links", PATIENCE, || cluster.is_connected(2));
    assert_eq!(lines(&client(&third_node, ["balance", "here"])), ["3"]);
    crate::support::signal(alone.child.id(), Signal::SIGTERM);
    assert_eq!(crate::support::wait_for_end(&mut alone.child, PATIENCE).code(), Some(0));

    // The others go on, and stop as ever.
    lines(&client(&cluster.urls(), ["deposit", "here", "4"]));
    cluster.stop();
}

#[test]
fn a_node_that_refuses_to_start_is_left_alone_until_that_is_put_right() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = ClusterProgram::start(temp.path().join("bank"), Some(free_base_port(3)), &[]);
    let base_port = cluster.base_port;
    lines(&client(&cluster.urls(), ["create-account", "kept", "42"]));
    let data_dir = cluster.stop();
    let folder = data_dir.join("node-3");
    std::fs::write(folder.join("log.redb"), "damaged").unwrap();

    // The others serve without it. Why it is missing is told, and how it comes back.
    let background = Background::start(&["cluster", "--data-dir", data_dir.to_str().unwrap()]);
    wait_until("two of three are ready", PATIENCE, || {
        let stdout = background.stdout();
        stdout.contains("Rabia Bank is ready: 2 of 3 nodes") && stdout.contains("node 3  does not run")
    });
    let mut cluster = ClusterProgram { background, data_dir, base_port };
    let stderr = cluster.background.stderr();
    let config = folder.join("node.toml").display().to_string();
    for word in ["log.redb is damaged", "node 3 is left alone (exit code 7", &format!("node --config {config}")] {
        assert!(stderr.contains(word), "\"{word}\" is missing in: {stderr}");
    }
    assert!(!stderr.contains("starting it again"), "{stderr}");
    assert_eq!(lines(&client(&cluster.urls(), ["balance", "kept"])), ["42"]);

    assert_code(&program(["replace", "--config", &config]).output().unwrap(), 0);
    let mut alone = Background::start(&["node", "--config", &config]);
    wait_until("node 3 runs alone and has its links", PATIENCE, || cluster.is_connected(3));
    let third_node = format!("ws://{}", cluster.address(3));
    assert_eq!(lines(&client(&third_node, ["balance", "kept"])), ["42"]);
    for child in [&mut alone.child, &mut cluster.background.child] {
        crate::support::signal(child.id(), Signal::SIGTERM);
        assert_eq!(crate::support::wait_for_end(child, PATIENCE).code(), Some(0));
    }
}

#[test]
fn with_no_restart_a_dead_node_stays_dead_and_the_last_one_takes_the_program_along() {
    let temp = tempfile::tempdir().unwrap();
    let mut cluster = ClusterProgram::start(temp.path().join("bank"), Some(free_base_port(3)), &["--no-restart"]);
    let pids: BTreeSet<u32> = cluster.node_pids().into_iter().collect();
    crate::support::signal(cluster.node_pids()[2], Signal::SIGKILL);
    wait_until("the death is told", PATIENCE, || cluster.background.stderr().contains("not started again"));
    lines(&client(&cluster.urls(), ["create-account", "two-of-three", "1"]));
    assert!(crate::support::status_of(cluster.address(3)).is_none());
    for pid in &cluster.node_pids()[..2] {
        crate::support::signal(*pid, Signal::SIGKILL);
    }
    let status = crate::support::wait_for_end(&mut cluster.background.child, PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", cluster.background.stderr());
    assert!(cluster.background.stderr().contains("the last node has gone"));
    assert!(pids.iter().all(|pid| !crate::support::is_running(*pid)));
}

#[test]
fn a_killed_cluster_program_takes_its_nodes_along_and_leaves_nothing_locked() {
    let temp = tempfile::tempdir().unwrap();
    let mut cluster = ClusterProgram::start(temp.path().join("bank"), Some(free_base_port(3)), &[]);
    lines(&client(&cluster.urls(), ["create-account", "survivor", "9"]));
    let pids = cluster.node_pids();
    cluster.background.child.kill().unwrap();
    cluster.background.child.wait().unwrap();
    wait_until("all nodes have gone", PATIENCE, || pids.iter().all(|pid| !crate::support::is_running(*pid)));
    let again = ClusterProgram::start(cluster.data_dir.clone(), None, &[]);
    assert_eq!(lines(&client(&again.urls(), ["balance", "survivor"])), ["9"]);
    again.stop();
}

#[test]
fn simulated_seeds_are_the_same_on_any_number_of_threads() {
    let run = |machine, jobs| {
        let arguments = ["simulate", "--machine", machine, "--seeds", "5", "--ops", "100", "--json", "--jobs", jobs];
        lines(&program(arguments).output().unwrap())
    };
    let [bank, store] = ["bank", "kv"].map(|machine| {
        let one = run(machine, "1");
        assert_eq!(run(machine, "1"), one, "{machine} again");
        assert_eq!(run(machine, "2"), one, "{machine}, two threads");
        one
    });
    assert_ne!(bank, store);
}
