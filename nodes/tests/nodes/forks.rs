//! Old copies and logs that forked, with the real program: an old copy stops and says what to do, whatever it has promised since,
//! and no two truths are served. (What a forked log does to the cores is in the agreement core's tests.)

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Cluster, Connection, Node, PATIENCE, wait_until};
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

/// The exit code of a node that needs a person.
const NEEDS_A_PERSON: i32 = 3;

fn files(node: &Node) -> [PathBuf; 2] {
    [node.config.log_path(), node.config.books_path()]
}

/// Keeps the files of a node that does not run.
fn keep(node: &Node, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for file in files(node) {
        fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
}

/// Puts them back, and keeps those that are there.
fn put_back(node: &Node, folder: &Path, present: &Path) {
    keep(node, present);
    for file in files(node) {
        fs::copy(folder.join(file.file_name().unwrap()), &file).unwrap();
    }
}

/// A command that must be acknowledged.
fn acknowledged(node: &Node, command: Value) {
    let answer = node.connect(Encoding::Json).command(command);
    assert!(answer["ok"].is_object(), "{answer}");
}

/// The balance of an account as a node answers it, if it does.
fn balance(node: &Node, account: &str, read: &str) -> Option<u64> {
    let mut connection = Connection::try_open(node.address(), Encoding::Json, &[]).ok()?;
    connection.set_patience(Duration::from_secs(2));
    let query = json!({"request": 1, "query": {"get_balance": {"account_id": account}}, "read": read});
    connection.try_send(&query).ok()?;
    connection.try_receive().ok()?.pointer("/ok/balance")?.as_u64()
}

fn applied(node: &Node) -> u64 {
    node.status().map_or(0, |status| status["applied_slot"].as_u64().unwrap())
}

fn linked(node: &Node) -> usize {
    node.status().map_or(0, |status| status["connected"].as_array().unwrap().len())
}

fn transfer(amount: u64) -> Value {
    json!({"transfer": {"from_account": "alice", "to_account": "bob", "amount": amount}})
}

fn with_accounts() -> Cluster {
    let cluster = Cluster::start_with(3, |config| config.limits.request_timeout_ms = 1_000);
    acknowledged(&cluster.nodes[0], json!({"create_account": {"account_id": "alice", "initial_balance": 1_000}}));
    acknowledged(&cluster.nodes[0], json!({"create_account": {"account_id": "bob", "initial_balance": 0}}));
    cluster.wait_equal();
    cluster
}

/// Node 3 is away while 1 and 2 acknowledge a transfer. 1 and 2 die, 1 comes back with an older copy of its files, and goes on
/// with 3, which has not heard of more. When 2 comes back, the first link shows what has happened.
#[test]
fn a_log_that_forked_does_not_go_on_quietly() {
    let mut cluster = with_accounts();
    let (old, present) = (cluster.dir.path().join("old"), cluster.dir.path().join("present"));
    cluster.nodes[2].kill();
    cluster.nodes[0].stop();
    keep(&cluster.nodes[0], &old);
    cluster.nodes[0].start();
    wait_until("nodes 1 and 2 are linked", PATIENCE, || {
        linked(&cluster.nodes[0]) == 1 && linked(&cluster.nodes[1]) == 1
    });
    acknowledged(&cluster.nodes[1], transfer(300));
    wait_until("both have applied it", PATIENCE, || {
        cluster.nodes[..2].iter().all(|node| balance(node, "alice", "local") == Some(700))
    });
    // Decisions are written within 100 ms.
    std::thread::sleep(Duration::from_millis(300));
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();

    put_back(&cluster.nodes[0], &old, &present);
    cluster.nodes[0].start();
    cluster.nodes[2].start();
    wait_until("nodes 1 and 3 are linked", PATIENCE, || {
        linked(&cluster.nodes[0]) == 1 && linked(&cluster.nodes[2]) == 1
    });
    for _ in 0..30 {
        acknowledged(&cluster.nodes[2], transfer(1));
    }
    assert_eq!(balance(&cluster.nodes[0], "alice", "linearizable"), Some(970), "the copy and node 3 know no better");

    let said: Vec<usize> = cluster.nodes.iter().map(|node| node.log().len()).collect();
    cluster.nodes[1].start();
    // What node 2 remembers of node 1 shows that this is an old copy of it, though it has promised more since.
    let status = cluster.nodes[0].wait();
    let log = cluster.nodes[0].log().split_off(said[0]);
    assert_eq!(status.code(), Some(NEEDS_A_PERSON), "{log}");
    assert!(log.contains("is an old copy") && log.contains("rabia-bank replace"), "{log}");
    // Node 2 has another log than the majority that went on: it answers nobody, and stops if it dialled enough links to be sure.
    wait_until("node 2 answers nobody", PATIENCE, || {
        cluster.nodes[1].log().split_off(said[1]).contains("no client is answered")
    });
    assert!(cluster.nodes[1].status().is_none_or(|status| status["in_doubt"] == true));
    for read in ["local", "linearizable"] {
        assert_eq!(balance(&cluster.nodes[1], "alice", read), None, "{read}");
    }
    assert_eq!(balance(&cluster.nodes[2], "alice", "linearizable"), None, "node 3 alone is no quorum");
    let ended = cluster.nodes[1].ended();
    assert!(ended.is_none_or(|status| status.code() == Some(NEEDS_A_PERSON)), "{ended:?}");
}

/// An old copy beside two live nodes, at its first start and later ones, and after it has promised more.
#[test]
fn an_old_copy_stops_and_says_what_to_do() {
    let mut cluster = with_accounts();
    let (old, present) = (cluster.dir.path().join("old"), cluster.dir.path().join("present"));
    for index in [0, 2] {
        cluster.nodes[index].stop();
        keep(&cluster.nodes[index], &old);
        cluster.nodes[index].start();
        cluster.wait_ready();
        acknowledged(&cluster.nodes[index], transfer(10));
        cluster.wait_equal();
        cluster.nodes[index].stop();
        put_back(&cluster.nodes[index], &old, &present);
        for start in 1..=3 {
            let said = cluster.nodes[index].log().len();
            cluster.nodes[index].start();
            let status = cluster.nodes[index].wait();
            let log = cluster.nodes[index].log().split_off(said);
            assert_eq!(status.code(), Some(NEEDS_A_PERSON), "start {start}: {log}");
            assert!(log.contains("is an old copy") && log.contains("rabia-bank replace"), "start {start}: {log}");
            let other = &cluster.nodes[1];
            acknowledged(other, transfer(1));
        }
        put_back(&cluster.nodes[index], &present, &old);
        cluster.nodes[index].start();
        cluster.wait_ready();
        cluster.wait_equal();
    }
}

/// What a node of several has on its disk it answers once it has met enough others.
#[test]
fn a_lone_node_of_several_answers_no_local_read() {
    let mut cluster = with_accounts();
    cluster.nodes.iter_mut().for_each(Node::stop);
    cluster.nodes[1].start();
    wait_until("the node serves", PATIENCE, || applied(&cluster.nodes[1]) > 0);
    assert_eq!(balance(&cluster.nodes[1], "alice", "local"), None);
    assert_eq!(cluster.nodes[1].status().unwrap()["admitted"], false);
    cluster.nodes[2].start();
    wait_until("it has met another", PATIENCE, || balance(&cluster.nodes[1], "alice", "local") == Some(1_000));
    // Once it has, it goes on without.
    cluster.nodes[2].stop();
    assert_eq!(balance(&cluster.nodes[1], "alice", "local"), Some(1_000));
}
