//! Snapshots with the real program: logs that go, histories that are read from disk, a node that comes back by a snapshot, audits
//! of what lies on disk, backups.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::support::books::{Books, Writing};
use crate::support::{Cluster, Node, PATIENCE, file_size, free_base_port, program, wait_until};
use rabia_bank::client::NodeUrl;
use rabia_bank::config::NodeConfig;
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

/// Snapshots come every few slots.
fn often(config: &mut NodeConfig) {
    config.limits.snapshot_bytes = 30_000;
    config.limits.snapshot_slots = 150;
}

fn urls(nodes: &[Node]) -> Vec<NodeUrl> {
    nodes.iter().map(|node| node.url().parse().unwrap()).collect()
}

/// Writes through these nodes until so many commands were acknowledged.
fn write(books: &mut Books, nodes: &[Node], commands: u64) {
    let writers: Vec<_> = urls(nodes).into_iter().flat_map(|url| [vec![url.clone()], vec![url]]).collect();
    let load = books.write(&writers, &Writing { pace: Duration::from_millis(1), ..Writing::default() });
    wait_until("commands are acknowledged", 2 * PATIENCE, || load.acknowledged() >= commands);
    books.stop(load);
}

fn snapshot_slot(node: &Node) -> u64 {
    node.status().map_or(0, |status| status["snapshot_slot"].as_u64().unwrap())
}

fn audit(task: &str, node: &Node, more: &[&str]) -> Output {
    program(["audit", task, "--data-dir"]).arg(&node.config.data_dir).args(more).output().unwrap()
}

/// The books in a folder are right; what they say of themselves.
fn verified(node: &Node) -> Value {
    let output = audit("verify", node, &["--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn logs_go_histories_stay_and_every_folder_passes_the_audit() {
    let mut cluster = Cluster::start_with(3, often);
    let mut books = Books::open(&urls(&cluster.nodes));
    let mut sizes = Vec::new();
    for _ in 0..3 {
        write(&mut books, &cluster.nodes, 700);
        wait_until("snapshots follow", PATIENCE, || {
            cluster.nodes.iter().all(|node| {
                node.status().is_some_and(|status| {
                    let field = |name: &str| status[name].as_u64().unwrap();
                    field("applied_slot") - field("snapshot_slot") <= 200
                })
            })
        });
        books.check(&urls(&cluster.nodes));
        sizes.push(file_size(&cluster.nodes[0].config.log_path()));
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_ready();
        // From here on all but the newest transactions are read from disk.
        books.check(&urls(&cluster.nodes));
    }
    println!("log.redb: {sizes:?} bytes; books.redb: {} bytes", file_size(&cluster.nodes[0].config.books_path()));
    assert!(sizes[2] <= 2 * sizes[0], "the log grows and grows: {sizes:?} bytes");
    let running = audit("verify", &cluster.nodes[0], &[]);
    assert!(!running.status.success() && String::from_utf8_lossy(&running.stderr).contains("in use"));
    let states = cluster.wait_equal();
    cluster.nodes.iter_mut().for_each(Node::kill);
    let found: Vec<Value> = cluster.nodes.iter().map(verified).collect();
    for verified in &found {
        for (field, name) in [
            ("slot", "applied_slot"),
            ("chain_head", "chain_head"),
            ("state_digest", "state_digest"),
            ("transactions", "transactions"),
            ("accounts", "accounts"),
            ("total_balance", "total_balance"),
        ] {
            // Decisions are written lazily: a node that was killed may lack the last ones.
            if verified["slot"] == states[0]["applied_slot"] {
                assert_eq!(verified[field], states[0][name], "{field}");
            }
        }
    }
    exports_are_complete(&cluster.nodes[0], &found[0]);
}

fn exports_are_complete(node: &Node, verified: &Value) {
    let transactions = verified["transactions"].as_u64().unwrap() as usize;
    let lines = |more: &[&str]| -> Vec<String> {
        let output = audit("export", node, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    let csv = lines(&[]);
    assert_eq!(csv.len(), transactions + 1);
    assert!(csv[0].starts_with("transaction_id,type,from_account"), "{}", csv[0]);
    assert!(csv.iter().all(|line| line.matches(',').count() == 14));
    let objects: Vec<Value> =
        lines(&["--format", "json"]).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), transactions);
    assert_eq!(objects[transactions - 1]["hash"], verified["chain_head"]);
    let sides = |object: &Value| [object["from_account"].clone(), object["to_account"].clone()];
    let account = sides(&objects[transactions / 2]).iter().find_map(|side| side.as_str().map(str::to_owned)).unwrap();
    let of_account = objects.iter().filter(|object| sides(object).iter().any(|side| *side == account));
    assert_eq!(lines(&["--format", "json", "--account", &account]).len(), of_account.count());
    let middle = objects[transactions / 2]["timestamp"].as_u64().unwrap();
    let until = objects.iter().filter(|object| object["timestamp"].as_u64().unwrap() < middle).count();
    assert_eq!(lines(&["--to", &middle.to_string()]).len(), until + 1);
    assert_eq!(lines(&["--from", &middle.to_string()]).len(), transactions - until + 1);
    let digest: Value =
        serde_json::from_slice(&audit("digest", node, &["--json"]).stdout).expect("audit digest --json");
    assert_eq!(digest["state_digest"], verified["state_digest"]);
}

#[test]
fn a_node_that_is_killed_before_each_snapshot_takes_one_all_the_same() {
    const RUNS: u64 = 4;
    let mut cluster = Cluster::start_with(1, |config| config.limits.snapshot_bytes = 150_000);
    let account = "a".repeat(40);
    let deposits: Vec<Value> = (0..1_000).map(|_| json!({"deposit": {"account_id": account, "amount": 1}})).collect();
    for run in 1..=RUNS {
        let mut client = cluster.nodes[0].connect(Encoding::Json);
        if run == 1 {
            let answer = client.command(json!({"create_account": {"account_id": account, "initial_balance": 0}}));
            assert!(answer["ok"].is_object(), "{answer}");
        }
        let answer = client.command(json!({"bulk": {"commands": deposits, "atomic": true}}));
        assert!(answer["ok"].is_object(), "{answer}");
        if run == 1 {
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(snapshot_slot(&cluster.nodes[0]), 0, "one run alone is enough for a snapshot");
        }
        if run < RUNS {
            cluster.nodes[0].kill();
            cluster.nodes[0].start();
            cluster.wait_ready();
        }
    }
    wait_until("a snapshot is taken", PATIENCE, || snapshot_slot(&cluster.nodes[0]) > 0);
}

#[test]
fn a_node_that_was_away_for_long_comes_back_by_a_snapshot() {
    let mut cluster = Cluster::start_with(3, often);
    let mut books = Books::open(&urls(&cluster.nodes));
    write(&mut books, &cluster.nodes, 100);
    cluster.nodes[2].kill();
    let left_at = snapshot_slot(&cluster.nodes[0]);
    write(&mut books, &cluster.nodes[..2], 1_500);
    wait_until("the logs of the others are gone", PATIENCE, || snapshot_slot(&cluster.nodes[0]) > left_at + 600);
    let said = cluster.nodes[2].log().len();
    // It comes back while the others are at work.
    let two = urls(&cluster.nodes[..2]);
    let load = books.write(&two.iter().map(|url| vec![url.clone()]).collect::<Vec<_>>(), &Writing::default());
    cluster.nodes[2].start();
    cluster.wait_ready();
    wait_until("a snapshot was received", PATIENCE, || {
        cluster.nodes[2].log().split_off(said).contains("a snapshot was received and is durable")
    });
    wait_until("the node has caught up", PATIENCE, || {
        let applied = |node: &Node| node.status().map(|status| status["applied_slot"].as_u64().unwrap());
        applied(&cluster.nodes[2]).zip(applied(&cluster.nodes[0])).is_some_and(|(its, others)| its + 50 > others)
    });
    books.stop(load);
    books.check(&urls(&cluster.nodes));
    // It is a full member again: it decides with either of the others, and what it stored is right.
    cluster.nodes[0].kill();
    write(&mut books, &cluster.nodes[1..], 100);
    cluster.nodes[0].start();
    cluster.wait_ready();
    books.check(&urls(&cluster.nodes));
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter().map(verified).for_each(drop);
}

#[test]
fn a_backup_becomes_a_new_cluster() {
    let cluster = Cluster::start_with(3, often);
    let mut books = Books::open(&urls(&cluster.nodes));
    write(&mut books, &cluster.nodes, 700);
    let mut connection = cluster.nodes[0].connect(Encoding::Json);
    let opened = connection.ask(&json!({"hello": {"version": 2, "open": {"key": "000102030405060708090a0b0c0d0e0f"}}}));
    let session = opened["welcome"]["session"].as_u64().unwrap();
    books.check(&urls(&cluster.nodes));
    let old = cluster.wait_equal()[0].clone();
    let file = cluster.dir.path().join("backup");
    let backup = |to: &Path| {
        program(["backup", "--data-dir"]).arg(&cluster.nodes[1].config.data_dir).arg("--to").arg(to).output().unwrap()
    };
    let output = backup(&file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!backup(&file).status.success(), "a backup was overwritten");

    let restored_dir = cluster.dir.path().join("restored");
    let port = free_base_port(1).to_string();
    let restore = |from: &Path, dir: &Path| {
        program(["restore", "--nodes", "1", "--base-port", &port, "--data-dir"]).arg(dir).arg(from).output().unwrap()
    };
    let output = restore(&file, &restored_dir);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config_path = restored_dir.join("node-1/node.toml");
    let config = NodeConfig::load(&config_path).unwrap();
    let log_path = cluster.dir.path().join("restored.log");
    let mut node = Node::at(config, config_path, log_path);
    let found = verified(&node);
    for field in ["transactions", "accounts", "total_balance", "chain_head"] {
        assert_eq!(found[field], old[field], "{field}");
    }
    node.start();
    wait_until("the restored node serves", PATIENCE, || node.status().is_some());
    books.check(&urls(std::slice::from_ref(&node)));
    let mut connection = node.connect(Encoding::Json);
    let hello =
        json!({"hello": {"version": 2, "session": {"number": session, "key": "000102030405060708090a0b0c0d0e0f"}}});
    connection.send(&hello);
    connection.receive();
    let answer = connection.command(json!({"deposit": {"account_id": "account-01", "amount": 1}}));
    assert_eq!(answer["error"]["code"], "session_expired", "{answer}");
    node.kill();

    // Damage is found, wherever it is.
    let whole = fs::read(&file).unwrap();
    for _ in 0..20 {
        let mut bytes = whole.clone();
        let at = fastrand::usize(..bytes.len());
        bytes[at] ^= 1 << fastrand::u32(..8);
        let damaged = cluster.dir.path().join("damaged");
        fs::write(&damaged, &bytes).unwrap();
        let output = restore(&damaged, &cluster.dir.path().join("never"));
        assert!(!output.status.success(), "byte {at} of {} was altered, and nobody noticed", bytes.len());
    }
    fs::write(&file, &whole[..whole.len() - 40]).unwrap();
    assert!(!restore(&file, &cluster.dir.path().join("never")).status.success());
}
