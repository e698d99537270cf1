//! Upgrades with the real program: members of two versions in one cluster, a level that is raised under load, and programs that do not
//! know the level.
//!
//! The newer program is the one for tests, which knows level 2 ([`NOTES`]) where its environment says so, and has the command `note` there.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use crate::support::books::{Books, Load, Writing};
use crate::support::{
    Cluster, Connection, Node, PATIENCE, client, free_base_port, program, program_of_level, wait_for, wait_until,
};
use rabia_bank::client::NodeUrl;
use rabia_bank::config::NodeConfig;
use rabia_bank::tokens::admin_token;
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::level::NOTES;
use serde_json::{Value, json};

/// The exit code of a node that refuses to start, or had to stop until a person does something.
const REFUSED: i32 = 3;

fn urls(nodes: &[Node]) -> Vec<NodeUrl> {
    nodes.iter().map(|node| node.url().parse().unwrap()).collect()
}

/// Writers at each node, which go on with the others while it is stopped.
fn write(books: &mut Books, nodes: &[Node]) -> Load {
    let mut urls = urls(nodes);
    let writers: Vec<_> = (0..urls.len())
        .map(|_| {
            urls.rotate_left(1);
            urls.clone()
        })
        .collect();
    books.write(&writers, &Writing::default())
}

/// So many more commands are acknowledged.
fn go_on(load: &Load, commands: u64) {
    let before = load.acknowledged();
    wait_until("commands are acknowledged", 2 * PATIENCE, || load.acknowledged() >= before + commands);
}

fn admins_token(cluster: &Cluster) -> PathBuf {
    admin_token(cluster.nodes[0].config.data_dir.parent().unwrap())
}

/// An administrator who speaks to this node.
fn administrator(cluster: &Cluster, node: usize) -> Connection {
    let token = fs::read_to_string(admins_token(cluster)).unwrap();
    let mut connection = cluster.nodes[node].connect(Encoding::Json);
    let welcome = connection.ask(&json!({"hello": {"version": 2, "token": token.trim()}}));
    assert_eq!(welcome["welcome"]["nodes"], json!([1, 2, 3]), "{welcome}");
    assert!(welcome["welcome"]["level"].is_u64() && welcome["welcome"]["features"].is_array(), "{welcome}");
    connection
}

/// What came of an administrator's command, through this node: the number that it brought, or the code and outcome of a refusal.
fn administered(cluster: &Cluster, node: usize, command: Value) -> Result<u64, (String, String)> {
    let answer = administrator(cluster, node).command(command);
    let text = |field: &str| answer["error"][field].as_str().unwrap().to_owned();
    answer["ok"]["number"].as_u64().ok_or_else(|| (text("code"), text("outcome")))
}

fn refused(code: &str) -> Result<u64, (String, String)> {
    Err((code.into(), "refused".into()))
}

fn note(text: &str) -> Value {
    json!({"note": {"text": text}})
}

/// What a node says of levels.
fn levels(node: &Node) -> Option<(Value, Value, Value)> {
    let status = node.status()?;
    Some((status["level"].clone(), status["can"].clone(), status["members_can"].clone()))
}

fn says(nodes: &[Node], node: usize, level: u32, can: u32, members_can: &Value) {
    wait_until(&format!("node {} says {level}, {can}, {members_can}", node + 1), PATIENCE, || {
        levels(&nodes[node]).is_some_and(|found| found == (level.into(), can.into(), members_can.clone()))
    });
}

/// The program has ended by itself, as one that needs a person, and says why.
fn has_refused(node: &mut Node) {
    let status = node.wait();
    let log = node.log();
    assert_eq!(status.code(), Some(REFUSED), "{log}");
    is_explained(&log);
}

fn is_explained(text: &str) {
    let words = "the cluster is at level 2, and this program";
    assert!(text.contains(words) && text.contains("knows levels up to 1") && text.contains("Install"), "{text}");
}

#[test]
fn a_cluster_gets_a_newer_program_under_load_and_its_level_is_raised() {
    let mut cluster = Cluster::start(3);
    let mut books = Books::open(&urls(&cluster.nodes));
    let load = write(&mut books, &cluster.nodes);
    says(&cluster.nodes, 0, 1, 1, &json!([1, 1, 1]));
    assert_eq!(administered(&cluster, 0, note("too early")), refused("malformed"));
    assert_eq!(administered(&cluster, 0, json!({"raise_level": {"level": 1}})), refused("invalid_level"));
    assert_eq!(administered(&cluster, 0, json!({"raise_level": {"level": 70_000}})), refused("invalid_level"));

    // One node after the other gets the newer program.
    let mut members_can = json!([1, 1, 1]);
    for index in 0..3 {
        assert_eq!(administered(&cluster, index, json!({"raise_level": {"level": 2}})), refused("members_too_old"));
        cluster.nodes[index].stop();
        go_on(&load, 100);
        cluster.nodes[index].start_at_level(NOTES);
        cluster.wait_ready();
        members_can[index] = 2.into();
        for other in 0..3 {
            says(&cluster.nodes, other, 1, if other <= index { 2 } else { 1 }, &members_can);
        }
        // It has the command, and the cluster does not.
        assert_eq!(administered(&cluster, index, note("too early")), refused("not_enabled"));
        go_on(&load, 100);
    }

    // Raised in the middle of the load, by the program for people.
    let token = admins_token(&cluster);
    let raise = |level: &str| -> Output {
        client(&cluster.urls(), ["--token-file", token.to_str().unwrap(), "--json", "raise-level", level])
    };
    let status = client(&cluster.urls(), ["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("at level 1") && said.contains("raise-level 2"), "{said}");
    assert_eq!(raise("3").status.code(), Some(4), "no program knows it");
    let raised = raise("2");
    let said = String::from_utf8_lossy(&raised.stdout).into_owned();
    assert!(raised.status.success() && said.contains("\"number\":2"), "{said}");
    for node in 0..3 {
        let noted = || match administered(&cluster, node, note(&format!("node {}", node + 1))) {
            Err((code, _)) if code == "not_enabled" => None,
            other => Some(other),
        };
        assert_eq!(wait_for("the node has applied the raise", PATIENCE, noted), Ok(2));
        go_on(&load, 50);
    }
    assert_eq!(administered(&cluster, 1, json!({"raise_level": {"level": 2}})), refused("invalid_level"));
    books.stop(load);
    books.check(&urls(&cluster.nodes));
    for state in cluster.wait_equal() {
        assert_eq!((&state["level"], &state["unusable_batches"]), (&json!(2), &json!(0)), "{state}");
    }
    what_was_done_is_told(&mut cluster.nodes[2].connect(Encoding::Json));
    an_older_program_leaves_the_store_alone(&mut cluster);
    a_backup_needs_a_program_that_knows_its_level(&cluster);
}

/// The history has the raise and the notes, and nothing of what was refused.
fn what_was_done_is_told(connection: &mut Connection) {
    let answer = connection.query(json!({"get_transaction_history": {"type": "admin", "limit": 100}}));
    let records = answer["ok"]["transactions"].as_array().unwrap();
    let acts: Vec<&str> = records.iter().rev().map(|record| record["act"].as_str().unwrap()).collect();
    let note = |node: u32| format!("{{\"note\":{{\"text\":\"node {node}\"}}}}");
    assert_eq!(acts, ["{\"raise_level\":{\"level\":2}}", &note(1), &note(2), &note(3)]);
}

/// It says so and stops, as often as it is started, and the newer one goes on with the same files.
fn an_older_program_leaves_the_store_alone(cluster: &mut Cluster) {
    cluster.nodes[2].stop();
    for _ in 0..2 {
        cluster.nodes[2].start();
        has_refused(&mut cluster.nodes[2]);
    }
    let digest = |level: u32| {
        let mut digest = program_of_level(level, ["audit", "digest", "--data-dir"]);
        digest.arg(&cluster.nodes[2].config.data_dir).output().unwrap()
    };
    let old = digest(1);
    assert_eq!(old.status.code(), Some(REFUSED));
    is_explained(&String::from_utf8_lossy(&old.stderr));
    assert!(digest(NOTES).status.success());
    cluster.nodes[2].start_at_level(NOTES);
    cluster.wait_ready();
    cluster.wait_equal();
}

fn a_backup_needs_a_program_that_knows_its_level(cluster: &Cluster) {
    let backup = cluster.dir.path().join("bank.backup");
    let take = |level: u32| {
        let mut take = program_of_level(level, ["backup", "--data-dir"]);
        take.arg(&cluster.nodes[0].config.data_dir).arg("--to").arg(&backup).output().unwrap()
    };
    let old = take(1);
    assert_eq!(old.status.code(), Some(REFUSED));
    is_explained(&String::from_utf8_lossy(&old.stderr));
    assert!(!backup.exists());
    let taken = take(NOTES);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let to = cluster.dir.path().join("restored");
    let port = free_base_port(1).to_string();
    let restore = |level: u32| {
        let mut restore = program_of_level(level, ["restore", "--nodes", "1", "--base-port", &port, "--data-dir"]);
        restore.arg(&to).arg(&backup).output().unwrap()
    };
    let old = restore(1);
    assert_eq!(old.status.code(), Some(REFUSED));
    is_explained(&String::from_utf8_lossy(&old.stderr));
    assert!(!to.exists());
    assert!(restore(NOTES).status.success());
    let config_path = to.join("node-1/node.toml");
    let mut node =
        Node::at(NodeConfig::load(&config_path).unwrap(), config_path, cluster.dir.path().join("restored.log"));
    // It begins at the level of its backup, with a member that has said nothing.
    assert_eq!(node.config.level, 2);
    node.start_at_level(NOTES);
    wait_until("it says what its program knows", PATIENCE, || levels(&node) == Some((json!(2), json!(2), json!([2]))));
    node.stop();
    node.start();
    has_refused(&mut node);
}

/// A member that said it knows level 2, and was given the older program again: it stops at the slot that raised the level, whether it
/// comes to that by the log or by a snapshot of another node. The newer program goes on with its files.
fn put_back(change: fn(&mut NodeConfig), commands: u64, by: &str) {
    let mut cluster = Cluster::create_with(3, change);
    cluster.nodes.iter_mut().for_each(|node| node.start_at_level(NOTES));
    cluster.wait_ready();
    let mut books = Books::open(&urls(&cluster.nodes));
    says(&cluster.nodes, 0, 1, 2, &json!([2, 2, 2]));
    cluster.nodes[2].stop();
    let raise = json!({"raise_level": {"level": 2}});
    let raised = wait_for("a quorum serves", PATIENCE, || administered(&cluster, 0, raise.clone()).ok());
    assert_eq!(raised, 2);
    let load = write(&mut books, &cluster.nodes[..2]);
    go_on(&load, commands);
    books.stop(load);

    cluster.nodes[2].start();
    has_refused(&mut cluster.nodes[2]);
    assert!(cluster.nodes[2].log().contains(by), "it came otherwise");
    // The others go on, and so does it with the right program.
    let load = write(&mut books, &cluster.nodes[..2]);
    go_on(&load, 50);
    cluster.nodes[2].start_at_level(NOTES);
    cluster.wait_ready();
    go_on(&load, 50);
    books.stop(load);
    books.check(&urls(&cluster.nodes));
    cluster.wait_equal();
    says(&cluster.nodes, 2, 2, 2, &json!([2, 2, 2]));
}

#[test]
fn an_older_program_stops_at_the_slot_that_raised_the_level() {
    put_back(|_| (), 50, "the ledger is rebuilt");
}

#[test]
fn an_older_program_takes_no_snapshot_of_a_level_that_it_does_not_know() {
    let often = |config: &mut NodeConfig| {
        config.limits.snapshot_bytes = 10_000;
        config.limits.snapshot_slots = 50;
    };
    put_back(often, 600, "receiving a snapshot");
}

#[test]
fn a_cluster_begins_at_the_level_that_is_asked_for() {
    let create = |level: u32, args: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("bank");
        let mut create = program_of_level(level, ["create", "--nodes", "1", "--data-dir"]);
        let output = create.arg(&to).args(args).output().unwrap();
        let config_path = to.join("node-1/node.toml");
        (output.status.code(), NodeConfig::load(&config_path).ok().map(|config| config.level))
    };
    assert_eq!(create(1, &[]), (Some(0), Some(1)));
    assert_eq!(create(NOTES, &[]), (Some(0), Some(2)));
    assert_eq!(create(NOTES, &["--level", "1"]), (Some(0), Some(1)));
    for (level, wrong) in [(1, "2"), (NOTES, "3"), (1, "0")] {
        assert_eq!(create(level, &["--level", wrong]), (Some(2), None), "{level} {wrong}");
    }
    // A new cluster whose level the program does not know is not begun.
    let dir = tempfile::tempdir().unwrap();
    let (to, port) = (dir.path().join("bank"), free_base_port(1).to_string());
    let mut create = program_of_level(NOTES, ["create", "--nodes", "1", "--base-port", &port, "--data-dir"]);
    assert!(create.arg(&to).output().unwrap().status.success());
    let config_path = to.join("node-1/node.toml");
    let mut node = Node::at(NodeConfig::load(&config_path).unwrap(), config_path, dir.path().join("log"));
    node.start();
    has_refused(&mut node);
    node.start_at_level(NOTES);
    wait_until("it serves", PATIENCE, || levels(&node).is_some_and(|(level, ..)| level == 2));
    node.stop();
    let usage = program(["client", "raise-level", "x"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
