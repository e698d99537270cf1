//! Members that lose their stores, with the real program: they come back as the same members by one command while the others
//! serve, and their former stores are refused.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::support::books::{Books, Writing};
use crate::support::{Cluster, Node, PATIENCE, program, wait_until};
use rabia_bank::client::NodeUrl;
use rabia_bank::config::{BOOKS_FILE, CONFIG_FILE, LOG_FILE, NodeConfig};
use rabia_bank::member_key::KEY_FILE;

/// The exit code of a node that refuses to start.
const REFUSED: i32 = 3;
/// The exit code of a node whose files are damaged.
const DAMAGED: i32 = 7;

/// Snapshots come every few slots, so that a new store can only be filled by one.
fn often(config: &mut NodeConfig) {
    config.limits.snapshot_bytes = 30_000;
    config.limits.snapshot_slots = 150;
}

fn urls<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<NodeUrl> {
    nodes.into_iter().map(|node| node.url().parse().unwrap()).collect()
}

/// Writes through these nodes until so many commands were acknowledged.
fn write(books: &mut Books, nodes: &[Node], commands: u64) {
    let writers: Vec<_> = urls(nodes).into_iter().map(|url| vec![url]).collect();
    let load = books.write(&writers, &Writing { pace: Duration::from_millis(1), ..Writing::default() });
    wait_until("commands are acknowledged", 2 * PATIENCE, || load.acknowledged() >= commands);
    books.stop(load);
}

fn replace(node: &Node, more: &[&str]) -> Output {
    program(["replace", "--config"]).arg(&node.config_path).args(more).output().unwrap()
}

/// Replaces the store of a node, which must succeed. What it said.
fn replaced(node: &Node, more: &[&str]) -> String {
    let output = replace(node, more);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Decided in slot") && said.contains("Start the node now"), "{said}");
    said
}

/// Fails, and says why in these words.
fn fails(output: &Output, words: &[&str]) {
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(!output.status.success(), "{said}");
    for word in words {
        assert!(said.contains(word), "\"{word}\" is missing in: {said}");
    }
}

fn copy_store(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in [LOG_FILE, BOOKS_FILE, KEY_FILE, CONFIG_FILE] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// The node is a full member: with it, the cluster bears the loss of another one.
fn counts(cluster: &mut Cluster, books: &mut Books, node: usize) {
    let other = (node + 1) % cluster.nodes.len();
    cluster.nodes[other].kill();
    let urls: Vec<Vec<NodeUrl>> =
        urls(cluster.nodes.iter().enumerate().filter(|(index, _)| *index != other).map(|(_, node)| node))
            .into_iter()
            .map(|url| vec![url])
            .collect();
    let load = books.write(&urls, &Writing { pace: Duration::from_millis(1), ..Writing::default() });
    wait_until("all clients are served", 2 * PATIENCE, || load.per_writer().iter().all(|count| *count >= 20));
    books.stop(load);
    cluster.nodes[other].start();
    cluster.wait_ready();
}

#[test]
fn a_wiped_node_comes_back_under_load_and_its_old_copy_does_not() {
    let mut cluster = Cluster::start_with(3, often);
    let mut books = Books::open(&urls(&cluster.nodes));
    write(&mut books, &cluster.nodes, 600);
    cluster.nodes[1].stop();
    let old = cluster.dir.path().join("old");
    copy_store(&cluster.nodes[1].config.data_dir, &old);

    // Node 2 lost all, and comes back while the others are at work.
    let load = books.write(
        &urls([&cluster.nodes[0], &cluster.nodes[2]]).into_iter().map(|url| vec![url]).collect::<Vec<_>>(),
        &Writing { pace: Duration::from_millis(1), ..Writing::default() },
    );
    cluster.nodes[1].wipe();
    replaced(&cluster.nodes[1], &[]);
    let again = replaced(&cluster.nodes[1], &[]);
    assert!(again.contains("is there in"), "the same store is told again: {again}");
    cluster.nodes[1].start();
    cluster.wait_ready();
    wait_until("the node has caught up", PATIENCE, || {
        let applied = |node: &Node| node.status().map(|status| status["applied_slot"].as_u64().unwrap());
        applied(&cluster.nodes[1]).zip(applied(&cluster.nodes[0])).is_some_and(|(its, others)| its + 50 > others)
    });
    books.stop(load);
    books.check(&urls(&cluster.nodes));
    counts(&mut cluster, &mut books, 1);
    books.check(&urls(&cluster.nodes));

    // Its old files turn up: its peers tell it what happened. Whoever has a peer's address may say so, so it does not stop for it;
    // but nobody listens to it, and it serves nobody.
    cluster.nodes[1].stop();
    let new = cluster.dir.path().join("new");
    copy_store(&cluster.nodes[1].config.data_dir, &new);
    copy_store(&old, &cluster.nodes[1].config.data_dir);
    let said = cluster.nodes[1].log().len();
    cluster.nodes[1].start();
    wait_until("the old store is told what happened", PATIENCE, || {
        let log = cluster.nodes[1].log().split_off(said);
        log.contains("a store that was replaced") && log.contains("its files may be deleted")
    });
    cluster.nodes[1].kill();
    // The books of the one beside the log of the other are found: they are of another store, or stand before where the log
    // begins, which is looked at first.
    fs::copy(new.join(LOG_FILE), cluster.nodes[1].config.log_path()).unwrap();
    let said = cluster.nodes[1].log().len();
    cluster.nodes[1].start();
    assert_eq!(cluster.nodes[1].wait().code(), Some(REFUSED));
    let log = cluster.nodes[1].log().split_off(said);
    assert!(log.contains("was an old file put back?") || log.contains("is missing or an old copy"), "{log}");
    let audit = program(["audit", "verify", "--data-dir"]).arg(&cluster.nodes[1].config.data_dir).output().unwrap();
    fails(&audit, &["old"]);
    copy_store(&new, &cluster.nodes[1].config.data_dir);
    cluster.nodes[1].start();
    cluster.wait_ready();

    // And once more, the same member: a damaged file this time, which is set aside.
    write(&mut books, &cluster.nodes, 100);
    cluster.nodes[1].kill();
    let path = cluster.nodes[1].config.log_path();
    let length = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    cluster.nodes[1].start();
    assert_eq!(cluster.nodes[1].wait().code(), Some(DAMAGED));
    assert!(cluster.nodes[1].log().contains("rabia-bank replace"));
    let said = replaced(&cluster.nodes[1], &[]);
    assert!(said.contains("set-aside-"), "{said}");
    cluster.nodes[1].start();
    cluster.wait_ready();
    counts(&mut cluster, &mut books, 1);
    books.check(&urls(&cluster.nodes));
}

#[test]
fn a_store_is_replaced_while_its_node_is_at_work_elsewhere() {
    let mut cluster = Cluster::start(3);
    let mut books = Books::open(&urls(&cluster.nodes));
    write(&mut books, &cluster.nodes, 100);
    // The folder is moved away under a node that runs on, as on a machine that nobody could reach; a new one is made.
    let kept = cluster.dir.path().join("kept");
    fs::rename(&cluster.nodes[2].config.data_dir, &kept).unwrap();
    fs::create_dir(&cluster.nodes[2].config.data_dir).unwrap();
    fs::write(&cluster.nodes[2].config_path, cluster.nodes[2].config.to_toml()).unwrap();
    // It is connected, so it is at work: the other nodes do not take part in this.
    fails(&replace(&cluster.nodes[2], &[]), &["node 3 is at work with its store: stop it first"]);
    cluster.nodes[2].freeze();
    wait_until("the others miss it", PATIENCE, || {
        let misses =
            |node: &Node| node.status().is_some_and(|status| status["connected"].as_array().unwrap().len() == 1);
        cluster.nodes[..2].iter().all(misses)
    });
    replaced(&cluster.nodes[2], &[]);
    let said = cluster.nodes[2].log().len();
    cluster.nodes[2].thaw();
    // By the others, or by the log that they send.
    wait_until("the old store is told what happened", PATIENCE, || {
        cluster.nodes[2].log().split_off(said).contains("was replaced")
    });
    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    cluster.wait_ready();
    write(&mut books, &cluster.nodes, 100);
    counts(&mut cluster, &mut books, 2);
    books.check(&urls(&cluster.nodes));
}

#[test]
fn two_of_five_are_replaced_at_once_in_two_steps() {
    let mut cluster = Cluster::start(5);
    let mut books = Books::open(&urls(&cluster.nodes));
    write(&mut books, &cluster.nodes, 200);
    // A folder that lies alone finds no node beside it, and says what to do on another machine.
    let mut told = Vec::new();
    for index in [1, 3] {
        cluster.nodes[index].kill();
        fs::remove_dir_all(&cluster.nodes[index].config.data_dir).unwrap();
        let alone = cluster.dir.path().join(format!("alone-{index}")).join("folder");
        fs::create_dir_all(&alone).unwrap();
        let node = &mut cluster.nodes[index];
        node.config.data_dir.clone_from(&alone);
        node.config_path = alone.join(CONFIG_FILE);
        fs::write(&node.config_path, node.config.to_toml()).unwrap();
        let output = replace(node, &[]);
        fails(&output, &["No other node runs on this machine", "--through DIR-OF-THAT-NODE"]);
        let said = String::from_utf8(output.stdout).unwrap();
        let store = said.split("--store ").nth(1).unwrap().lines().next().unwrap().to_owned();
        told.push((node.config.node.to_string(), store));
    }
    // Started before anybody was told, it is refused by the others and says nothing.
    cluster.nodes[1].start();
    wait_until("the new store is told what to do", PATIENCE, || {
        cluster.nodes.iter().any(|node| node.log().contains("if it shall be, tell the cluster"))
    });
    for (node, store) in &told {
        let through = &cluster.nodes[0].config.data_dir;
        let output = program(["replace", "--node", node, "--store", store, "--through"]).arg(through).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    cluster.nodes[3].start();
    cluster.wait_ready();
    write(&mut books, &cluster.nodes, 200);
    // With both of them, the cluster bears the loss of two others.
    cluster.nodes[0].kill();
    cluster.nodes[2].kill();
    let left = [&cluster.nodes[1], &cluster.nodes[3], &cluster.nodes[4]];
    let writers: Vec<_> = urls(left).into_iter().map(|url| vec![url]).collect();
    let load = books.write(&writers, &Writing { pace: Duration::from_millis(1), ..Writing::default() });
    wait_until("all clients are served", 2 * PATIENCE, || load.per_writer().iter().all(|count| *count >= 20));
    books.stop(load);
    cluster.nodes[0].start();
    cluster.nodes[2].start();
    cluster.wait_ready();
    books.check(&urls(&cluster.nodes));
}

#[test]
fn what_can_not_be_replaced_is_left_as_it_is() {
    let mut cluster = Cluster::start(3);
    let folder = cluster.nodes[1].config.data_dir.clone();
    fails(&replace(&cluster.nodes[1], &["--force"]), &["node 2 is running", "stop it first"]);
    cluster.nodes[1].stop();
    fails(&replace(&cluster.nodes[1], &[]), &["looks whole", "--force"]);
    assert!(folder.join(LOG_FILE).is_file() && folder.join(BOOKS_FILE).is_file());
    let through = cluster.nodes[0].config.data_dir.clone();
    let tell = |node: &str, store: &str| {
        program(["replace", "--node", node, "--store", store, "--through"]).arg(&through).output().unwrap()
    };
    fails(&tell("5", &"ab".repeat(16)), &["the cluster has 3 members, so there is no node 5"]);
    let used = cluster.nodes[2].config.members[0].store.to_string();
    fails(&tell("2", &used), &["was used for a store before"]);
    let nobody = cluster.dir.path().join("nobody").display().to_string();
    fails(&replace(&cluster.nodes[1], &["--force", "--through", &nobody]), &["nobody answers at"]);
    // The new store is there, and the next try tells of it.
    assert!(replaced(&cluster.nodes[1], &[]).contains("is there in"));
    cluster.nodes[1].start();
    cluster.wait_ready();
    let pair = Cluster::create(2);
    fails(&replace(&pair.nodes[0], &["--force"]), &["a cluster of 2 can't replace a store", "rabia-bank restore"]);
}
